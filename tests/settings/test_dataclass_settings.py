"""Settings of a method from the fields of a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from causalclip.settings.constraints import integer
from causalclip.settings.dataclass_settings import config_from, errors_by_key, settings_of

Kind = Literal["bread", "rice"]


@dataclass(frozen=True)
class Soup:
    """A soup."""

    carrots: int = 5
    """Number of carrots,
    peeled."""
    herbs: tuple[Kind, ...] = ("rice",)
    """Added last."""
    side: Kind = "bread"
    """On the side."""
    salted: bool = True
    """Add salt."""
    name: str = ""
    """Title."""

    def __post_init__(self) -> None:
        if self.carrots and not self.salted:
            raise ValueError(f"`salted` must be True with `carrots`, got {self.salted}")


TABLE = settings_of(Soup, {"CARROTS": integer(0, 9)})
DEFAULTS = {key: row.default for key, row in TABLE.items()}


def test_a_row_has_the_default_the_help_and_what_the_type_allows():
    rows = {key: (row.default, row.allowed.words, row.help) for key, row in TABLE.items()}
    assert rows == {
        "CARROTS": (5, "an int in [0, 9]", "Number of carrots, peeled."),
        "HERBS": (["rice"], "a list of 1 or more, each one of bread, rice", "Added last."),
        "SIDE": ("bread", "one of bread, rice", "On the side."),
        "SALTED": (True, "True or False", "Add salt."),
        "NAME": ("", "text", "Title."),
    }


def test_a_number_without_a_range_is_no_row():
    with pytest.raises(KeyError):
        settings_of(Soup, {})


def test_a_config_is_of_the_settings_with_lists_as_tuples():
    settings = {**DEFAULTS, "CARROTS": 2, "PREC": "fp32"}
    assert config_from(Soup, settings, where="TRAINER.SOUP") == Soup(carrots=2)


def test_an_error_names_the_keys_that_users_type():
    message = "^TRAINER.SOUP.SALTED must be True with TRAINER.SOUP.CARROTS, got False$"
    with pytest.raises(ValueError, match=message):
        config_from(Soup, {**DEFAULTS, "SALTED": False}, where="TRAINER.SOUP")
    with (
        pytest.raises(ValueError, match="^TRAINER.SOUP.NAME or `other`$"),
        errors_by_key(Soup, where="TRAINER.SOUP"),
    ):
        raise ValueError("`name` or `other`")
