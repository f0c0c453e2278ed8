"""Configuration files: data alone, and mistakes with file and line."""

from __future__ import annotations

import pytest

from causalclip import plugin
from causalclip.runs.configuration_file import merge_file


def merged(path):
    cfg = plugin.default_cfg()
    merge_file(cfg, str(path))
    return cfg


def test_a_file_overrides_what_it_names(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("OPTIM:\n  LR: 0.5\n")
    assert merged(path).OPTIM.LR == 0.5
    path.write_text("# nothing\n")
    assert merged(path).OPTIM.LR == plugin.default_cfg().OPTIM.LR


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("OPTIM:\n  LR: [0.5\nA: 1\n", "line [23]: no YAML"),
        ("a: b: c", "line 1: no YAML"),
        ("- 1\n- 2\n", "must hold KEY: VALUE pairs, got a list"),
        ("text", "must hold KEY: VALUE pairs, got a str"),
        ("OPTIM: 3\n", ""),
        ("OPTIM:\n  LEARNING: 3\n", "OPTIM.LEARNING"),
        ("1: 2\n", ""),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: no YAML"),
        ("\t", "no YAML"),
        ("[" * 5000, "nested too deeply|no YAML"),
        ("OPTIM: &x\n  LR: *x", "holds itself"),
        (f"SEED: {'9' * 5000}", "4300 digits"),
    ],
)
def test_a_mistake_is_said_with_its_file(content, said, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"(?s)a.yaml.*({said})"):
        merged(path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"OPTIM: \xff\xfe\x00")
    with pytest.raises(ValueError, match="a.yaml"):
        merged(tmp_path / "a.yaml")


def test_python_is_not_run(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ncfg = {{}}\n")
    with pytest.raises(ValueError, match="a.py: a configuration file must end in .yaml"):
        merged(path)
    assert not (tmp_path / "ran").exists()
