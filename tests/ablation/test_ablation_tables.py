"""Ladders, repeated rows and settings that differ from a reference, on a made-up method."""

from __future__ import annotations

import pytest

from causalclip.ablation.tables import Reference, Table, ladder

PARTS = {
    "carrots": {"without": {"CARROTS": 0}, "with": {"CARROTS": 3}},
    "salt": {
        "without": {"SALT": 0.0, "KIND": "none"},
        "with": {"SALT": 0.5},
        "present_by": ["SALT"],
    },
}


def settings(rows):
    return [dict(row.settings) for row in rows]


def test_a_ladder_switches_off_by_name_what_is_not_yet_taken():
    rows = ladder("water", PARTS, Reference("SOUP", {"CARROTS": 7, "SALT": 1, "KIND": "x"}))
    assert [row.name for row in rows] == ["water", "+ carrots", "+ salt", "the method"]
    off = {"SALT": 0.0, "KIND": "none"}
    assert settings(rows) == [{"CARROTS": 0, **off}, off, {}, {}]


def test_a_part_that_the_reference_does_without_is_marked_and_not_in_the_last_row():
    rows = ladder("water", PARTS, Reference("SOUP", {"CARROTS": 0, "SALT": 1, "KIND": "x"}))
    assert [row.name for row in rows][1] == "+ carrots (not in the method)"
    assert settings(rows)[1:] == [
        {"CARROTS": 3, "SALT": 0.0, "KIND": "none"},
        {"CARROTS": 3},
        {},
    ]


@pytest.mark.parametrize(("value", "present"), [(0, False), (None, False), (2, True)])
def test_a_part_is_present_by_its_value(value, present):
    rows = ladder("water", {"carrots": PARTS["carrots"]}, Reference("SOUP", {"CARROTS": value}))
    assert (rows[1].name == "+ carrots") is present


def test_a_row_is_repeated_for_a_number_or_for_the_values_of_a_list():
    rows = {
        "part {number}": {"each": "PARTS", "reading": "part/{index}"},
        "{value} alone": {"each": "HERBS", "HERBS": ["{value}"]},
        "without {value}": {"each": "HERBS", "HERBS": "{others}", "BOIL": "{epochs}"},
        "whole": {"BOIL": "{epochs}"},
    }
    reference = Reference("SOUP", {"PARTS": 2, "HERBS": ["dill", "thyme", "dill"]}, epochs=9)
    made = Table("Soup", rows).variants(reference)
    assert [(row.name, row.reading) for row in made[:2]] == [
        ("part 1", "part/0"),
        ("part 2", "part/1"),
    ]
    assert [(row.name, row.settings["HERBS"]) for row in made[2:6]] == [
        ("dill alone", ["dill"]),
        ("thyme alone", ["thyme"]),
        ("without dill", ["thyme"]),
        ("without thyme", ["dill"]),
    ]
    assert made[6].settings == {"BOIL": 9}
    single = Table("Soup", rows).variants(Reference("SOUP", {"PARTS": 0, "HERBS": ["dill"]}))
    assert [row.name for row in single] == ["dill alone", "whole"]


def test_pairs_leave_out_what_the_reference_has():
    reference = Reference("SOUP", {"CARROTS": 5, "KIND": "x", "VIEWS": ["a", "b"], "ETA": None})
    same = {"CARROTS": 5.0, "KIND": "x", "VIEWS": ["a", "b"], "ETA": None}
    assert reference.pairs(same) == ()
    other = reference.pairs({**same, "VIEWS": ["a"], "KIND": "y"})
    assert other == ("TRAINER.SOUP.KIND", "y", "TRAINER.SOUP.VIEWS", "['a']")
