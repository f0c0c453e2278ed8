"""Repeated rows and settings that differ from a reference, on a made-up method."""

from __future__ import annotations

from causalclip.ablation.tables import Reference, Table


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
