"""What an ablation is made of: variants of a method beside its recipe, grouped into tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from causalclip.runs.identity import parsed, plain
from causalclip.runs.plan import PlanError
from causalclip.runs.protocols import Protocol


@dataclass(frozen=True)
class Variant:
    """One row: the method with some settings of its own, and how it is read."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By their names below the method's node; those that the reference has as well do not count."""
    reading: str = ""
    """A reading of results.json; `template/0` is a member; empty for the method's own."""
    shots: str = ""
    """Images a class; empty for those of the whole ablation."""
    epoch: str = ""
    """The epoch whose checkpoint is tested; empty for the last."""


@dataclass(frozen=True)
class Reference:
    """The method that the variants are variants of: a recipe, and what was given beside it."""

    node: str
    """The method's node below TRAINER."""
    settings: Mapping[str, Any]
    """All of the node's, the code's defaults too, as JSON values."""
    epochs: int = 1
    """Of a training."""

    def __getitem__(self, name: str) -> Any:
        """The value of a setting by its name below the node."""
        return self.settings[name]

    def pairs(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """KEY VALUE pairs of the settings in which a variant is another method than this one."""
        given = {name: str(value) for name, value in settings.items()}
        return tuple(
            word
            for name, text in given.items()
            if plain(parsed(text)) != self.settings[name]
            for word in (f"TRAINER.{self.node}.{name}", text)
        )


@dataclass(frozen=True)
class Table:
    """Variants side by side, as rows; or a figure of them."""

    title: str
    variants: Callable[[Reference], Sequence[Variant]]
    columns: tuple[str, ...] = ()
    """The quantities that are printed."""
    figure: str = ""
    """MODULE:FUNCTION that draws it in place of a table."""


@dataclass(frozen=True)
class Part:
    """A part of a method that can be switched off, as a row of a ladder."""

    name: str
    off: Mapping[str, Any]
    """The settings without it."""
    on: Mapping[str, Any]
    """Those with it, taken where the reference does without."""
    told_by: tuple[str, ...] = ()
    """The settings that say whether the reference has it; all of `off` if empty."""
    follows: Mapping[str, str] = field(default_factory=dict)
    """For settings that may be None: which other one they are then as large as."""

    def is_in(self, reference: Reference) -> bool:
        """Whether the reference has the part."""
        return any(
            self._value(name, reference) not in (self.off[name], None)
            for name in self.told_by or self.off
        )

    def _value(self, name: str, reference: Reference) -> Any:
        value = reference[name]
        return reference[self.follows[name]] if value is None and name in self.follows else value


def ladder(first: str, parts: Sequence[Part], reference: Reference) -> list[Variant]:
    """Rows that begin with none of the parts and take one more each; the method itself ends them.

    A part that the reference does without is marked, and is not in the last row.
    """
    rows, taken = [Variant(first, _without(parts))], {}
    for number, part in enumerate(parts, start=1):
        there = part.is_in(reference)
        taken |= {} if there else part.on
        name = f"+ {part.name}" + ("" if there else " (not in the method)")
        rows.append(Variant(name, {**_without(parts[number:]), **taken}))
    return [*rows, Variant("the method")]


def _without(parts: Sequence[Part]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.off.items()}


@dataclass(frozen=True)
class Ablation:
    """All tables and figures of one method, and the runs behind them."""

    protocol: Callable[[str], Protocol]
    """From the split, val or test, that variants are compared on."""
    recipe_of: str
    """The protocol whose recipe the method runs with."""
    measure: str
    """MODULE:FUNCTION from a row's runs to its quantities."""
    dataset: str
    seeds: tuple[str, ...]
    tables: Mapping[str, Table]
    note: Mapping[str, str]
    """By split: what the figures were measured on, for the headings."""


def require(enough: bool, what: str) -> None:
    """Refuse a table that its reference does not allow.

    Raises:
        PlanError: `what` is wrong.
    """
    if not enough:
        raise PlanError(what)
