"""Each constraint allows the values that its words describe."""

from __future__ import annotations

import math

import pytest

from causalclip.settings.constraints import (
    boolean,
    either,
    fixed,
    integer,
    list_of,
    number,
    one_of,
    or_none,
    ordered_pair,
    text,
)

NAN, INFINITE = math.nan, math.inf


@pytest.mark.parametrize(
    ("constraint", "words", "allowed", "refused"),
    [
        (one_of(("a", "b")), "one of a, b", ["a", "b"], ["c", "", None, ["a"], 0]),
        (integer(), "a positive int", [1, 10**9], [0, -1, 1.0, True, "1", NAN]),
        (integer(0), "an int of at least 0", [0], [-1]),
        (integer(0, 3), "an int in [0, 3]", [0, 3], [-1, 4]),
        (
            number(),
            "a finite number",
            [-1, 2.5, 0, 10**400],
            [NAN, INFINITE, -INFINITE, "1", True, [1]],
        ),
        (number(0), "a finite number >= 0", [0, 10**400], [-1e-9, INFINITE]),
        (number(0, open_low=True), "a finite number > 0", [1e-9], [0, 0.0]),
        (number(high=1), "a finite number <= 1", [1, -9], [1.001, -INFINITE]),
        (number(high=1, open_high=True), "a finite number < 1", [0.9], [1]),
        (number(0, 1), "a number in [0, 1]", [0, 1, 0.5], [-1e-9, 1.001]),
        (number(0, 1, open_low=True), "a number in (0, 1]", [1], [0]),
        (number(0, 1, open_high=True), "a number in [0, 1)", [0], [1.0]),
        (boolean(), "True or False", [True, False], [0, 1, "True", None]),
        (fixed(False), "False", [False], [True, 0, None]),
        (text(), "text", ["", "any"], [None, 1, ["any"]]),
        (text(holding="{}"), "text with one {}, or empty", ["", "a {}."], ["a cat", "{} {}", 3]),
        (
            list_of(number(0)),
            "a list of 1 or more, each a finite number >= 0",
            [[1], (2.0, 3)],
            [[], [-1], ["a"], 1, "ab", None],
        ),
        (list_of(integer(), 0), "a list of 0 or more, each a positive int", [[], [1]], [[0]]),
        (
            ordered_pair(number(0, 1)),
            "two numbers in ascending order, each a number in [0, 1]",
            [(0, 1), [0.5, 0.5]],
            [(0.5,), (0.9, 0.5), (0, 2), (0, 0.5, 1), 0.5, None],
        ),
        (or_none(integer()), "None or a positive int", [None, 1], [0, "None"]),
        (
            either(one_of(("a",)), number(0, 1)),
            "one of a or a number in [0, 1]",
            ["a", 0.5, 1],
            ["b", 2, None, ["a"]],
        ),
    ],
    ids=lambda x: getattr(x, "words", ""),
)
def test_a_constraint_allows_what_it_says(constraint, words, allowed, refused):
    assert constraint.words == words
    assert [value for value in allowed if not constraint.allows(value)] == []
    assert [value for value in refused if constraint.allows(value)] == []
