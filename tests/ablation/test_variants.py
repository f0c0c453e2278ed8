"""Ladders and settings beside a reference, on a method of our own."""

from __future__ import annotations

import pytest

from causalclip.ablation.variants import Part, Reference, ladder

SOUP = Part("carrots", off={"CARROTS": 0}, on={"CARROTS": 3})
SALT = Part("salt", off={"SALT": 0.0, "KIND": "none"}, on={"SALT": 0.5}, told_by=("SALT",))


def settings(rows):
    return [dict(row.settings) for row in rows]


def test_a_ladder_switches_off_by_name_what_is_not_yet_taken():
    rows = ladder("water", [SOUP, SALT], Reference("SOUP", {"CARROTS": 7, "SALT": 1, "KIND": "x"}))
    assert [row.name for row in rows] == ["water", "+ carrots", "+ salt", "the method"]
    off = {"SALT": 0.0, "KIND": "none"}
    assert settings(rows) == [{"CARROTS": 0, **off}, off, {}, {}]


def test_a_part_that_the_reference_does_without_is_marked_and_not_in_the_last_row():
    rows = ladder("water", [SOUP, SALT], Reference("SOUP", {"CARROTS": 0, "SALT": 1, "KIND": "x"}))
    assert [row.name for row in rows][1] == "+ carrots (not in the method)"
    assert settings(rows)[1:] == [
        {"CARROTS": 3, "SALT": 0.0, "KIND": "none"},
        {"CARROTS": 3},
        {},
    ]


@pytest.mark.parametrize(("value", "there"), [(0, False), (None, False), (2, True)])
def test_a_part_is_in_by_its_value(value, there):
    assert SOUP.is_in(Reference("SOUP", {"CARROTS": value})) is there


def test_pairs_leave_out_what_the_reference_has():
    reference = Reference("SOUP", {"CARROTS": 5, "KIND": "x", "VIEWS": ["a", "b"], "ETA": None})
    same = {"CARROTS": 5.0, "KIND": "x", "VIEWS": ["a", "b"], "ETA": None}
    assert reference.pairs(same) == ()
    other = reference.pairs({**same, "VIEWS": ["a"], "KIND": "y"})
    assert other == ("TRAINER.SOUP.KIND", "y", "TRAINER.SOUP.VIEWS", "['a']")
