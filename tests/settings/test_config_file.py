"""Configuration files with a _BASE_: which values win, and bases that cannot be used."""

from __future__ import annotations

import pytest

from causalclip.settings.config_file import MOST_BASES, read_config


@pytest.fixture
def write(tmp_path):
    """A function (name, text) -> the path of a file with this text."""

    def put(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return put


def test_a_file_replaces_values_of_its_base_and_keeps_the_others(write):
    write("base.yaml", "A: {X: 1, Y: [1, 2]}\nB: 3\n")
    path = write("own.yaml", "_BASE_: base.yaml\nA: {Y: [5]}\nC: 4\n")
    assert read_config(path) == {"A": {"X": 1, "Y": [5]}, "B": 3, "C": 4}


def test_a_base_has_a_base_and_is_found_from_the_folder_of_its_file(write):
    write("first.yaml", "A: 1\nB: 1\nC: 1\n")
    write("below/second.yaml", "_BASE_: ../first.yaml\nB: 2\nC: 2\n")
    path = write("third.yaml", "_BASE_: below/second.yaml\nC: 3\n")
    assert read_config(path) == {"A": 1, "B": 2, "C": 3}


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("none.yaml", "own.yaml: _BASE_ names .*none.yaml, which does not exist"),
        ("own.yaml", "own.yaml, which is based on this file"),
        ("back.yaml", "back.yaml: _BASE_ names .*own.yaml, which is based on this file"),
        ("broken.yaml", "broken.yaml, line 2: no YAML"),
        ("code.py", "code.py: a configuration file must end in .yaml"),
        ("[a.yaml]", r"must be the path of a YAML file, got \['a.yaml'\]"),
    ],
)
def test_a_base_that_cannot_be_used_is_named_in_one_line(write, base, said):
    write("back.yaml", "_BASE_: own.yaml\n")
    write("broken.yaml", "A: [\n")
    write("code.py", "A = 1\n")
    with pytest.raises(ValueError, match=said) as caught:
        read_config(write("own.yaml", f"_BASE_: {base}\n"))
    assert "\n" not in str(caught.value)


def test_a_chain_of_bases_is_bounded(write):
    for number in range(MOST_BASES + 2):
        write(f"{number}.yaml", f"_BASE_: {number - 1}.yaml\n" if number else "A: 1\n")
    assert read_config(write("own.yaml", f"_BASE_: {MOST_BASES - 1}.yaml\n")) == {"A": 1}
    with pytest.raises(ValueError, match="at most 10 files below it"):
        read_config(write("own.yaml", f"_BASE_: {MOST_BASES}.yaml\n"))
