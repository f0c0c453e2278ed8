"""Hostile configuration files: settings, or one line of error in bounded time and memory."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from damage import damaged, faults
from hypothesis import given
from hypothesis import strategies as st

from causalclip import plugin
from causalclip.runs.configuration import merge_file

RECIPE = b"""# comment
OPTIM:
  LR: 0.1
  STEPSIZE: [10, 20]
INPUT:
  SIZE: (32, 32)
  TRANSFORMS: ["random_flip", "normalize"]
DATASET: {NAME: "X", NUM_SHOTS: -1}
"""
MOST_SECONDS = 10.0


def outcome(content: bytes) -> str:
    """Merge a file into the defaults; return what was wrong, "" for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(content)
        begun = time.process_time()
        try:
            merge_file(plugin.default_cfg(), str(path))
            said = ""
        except (ValueError, OSError) as error:
            said = str(error)
            assert said and len(said.splitlines()) == 1 and len(said) < 2000
            assert "a.yaml" in said
        assert time.process_time() - begun < MOST_SECONDS
        return said


@faults
@given(damaged(RECIPE))
def test_a_damaged_file_is_read_or_refused_in_a_line(content):
    outcome(content)


scalars = st.sampled_from(
    ["~", "null", "true", "0x1F", "1e999", "-.inf", ".nan", "9" * 5000, "1:60:59", "2001-99-99"]
    + ["''", "'x'", "!!binary aGk=", "!!python/name:os.system", "!!set {a, b}", "*a", "<<", "1_0"]
)
keys = st.sampled_from(["OPTIM", "LR", "INPUT", "SIZE", "MODEL", "TRAINER", "CDC", "<<", "_BASE_"])


def mappings(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Flow collections of YAML, with anchors."""
    pairs = st.lists(st.tuples(keys, inner), max_size=4)
    mapping = pairs.map(lambda found: "{" + ", ".join(f"{k}: {v}" for k, v in found) + "}")
    sequence = st.lists(inner, max_size=4).map(lambda found: "[" + ", ".join(found) + "]")
    return st.tuples(st.sampled_from(["", "&a "]), mapping | sequence).map("".join)


@faults
@given(st.recursive(scalars, mappings, max_leaves=30), keys)
def test_a_made_up_file_is_read_or_refused_in_a_line(value, key):
    outcome(f"{key}: {value}\n".encode())


@pytest.mark.parametrize("levels", [1, 3, 8, 40])
@pytest.mark.parametrize("merge", [False, True])
def test_anchors_of_anchors_take_no_memory(levels, merge):
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for n in range(1, levels):
        nine = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"a{n}: &a{n} {{<<: [{nine}]}}" if merge else f"a{n}: &a{n} [{nine}]")
    assert outcome("\n".join(lines).encode())


@pytest.mark.parametrize(
    "content",
    [
        *(opening * depth for opening in ("[", "{a: ", "- ") for depth in (100, 1000, 20_000)),
        "OPTIM: " + "{A: " * 300 + "1" + "}" * 300,
        "SEED: " + ":".join(["59"] * 20_000),
        "SEED: 0x" + "F" * 90_000,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "x: " + "y" * 200_000,
        "? " * 1000,
        "\n".join(f"k{n}: 1" for n in range(9000)),
        "OPTIM: null",
        "TRAINER: {COOP: {N_CTX: {A: 1}}}",
        "INPUT: {SIZE: '(1,' }",
        'INPUT: {SIZE: \'__import__("os").system("true")\'}',
        "? [a, b]\n: 1",
        "? {a: 1}\n: 1",
    ],
    ids=lambda content: content[:20],
)
def test_a_hostile_file_is_refused_in_a_line(content):
    assert outcome(content.encode())
