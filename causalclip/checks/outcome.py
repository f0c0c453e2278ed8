"""What a check says of a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "not applicable"]


class CheckFailed(AssertionError):  # noqa: N818 (a verdict)
    """A trainer does not keep what a check asks for; the message says what was seen."""


class NotApplicable(Exception):  # noqa: N818 (a verdict, no error)
    """A check has nothing to ask of this trainer; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """One check's verdict on one trainer."""

    trainer: str
    check: str
    verdict: Verdict
    why: str

    def __str__(self) -> str:
        return f"{self.verdict:<16}{self.check:<16}{self.why}"


def require(holds: bool, why: str) -> None:
    """Fail with `why` unless something holds.

    Raises:
        CheckFailed: it does not.
    """
    if not holds:
        raise CheckFailed(why)
