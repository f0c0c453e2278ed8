"""Configuration files: data alone, and mistakes with file and line."""

from __future__ import annotations

import pytest
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.clip.backbone import load_clip
from causalclip.errors import UserError
from causalclip.runs.configuration import (
    cfg_from,
    cfg_from_args,
    configure,
    merge_file,
    merge_pairs,
)
from causalclip.runs.flags import parser
from causalclip.settings.check import check_settings, flatten
from causalclip.settings.config_file import as_text
from causalclip.settings.table import SETTINGS

# Ten anchors, each nine times the one before it: 581 bytes that stand for 10^9 values.
LAUGHS = "\n".join(
    ["b0: &b0 [lol]", *(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 10))]
)


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
        (f"SEED: {'9' * 5000}", "more than 40 digits"),
        (LAUGHS, "stand for more than 10,000 values"),
        (f"{LAUGHS}\nx: {{<<: *b9}}", "stand for more than 10,000 values"),
        (" " * 100_001, "at most 100,000 bytes"),
        ("MODEL: {BACKBONE: {TRUST_TORCHSCRIPT: true}}", "give this permission"),
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


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "DATASET.ROOT", "DATASET.NAME", "TRAINER.NAME"])
def test_a_null_is_named_before_anything_is_done(key, tmp_path):
    words = ["--root", str(tmp_path), "--trainer", "CoOp", "DATASET.NAME", "ImageFolder"]
    with pytest.raises((ValueError, UserError), match=f"{key} must be text|unknown .* None"):
        configure(parser().parse_args([*words, key, "None"]))


def test_long_text_and_the_home_of_nobody_are_one_line():
    cfg = plugin.default_cfg()
    merge_pairs(cfg, ["DATASET.TEMPLATE", "a " * 10**6])
    with pytest.raises(ValueError, match="DATASET.TEMPLATE must have at most 10,000 characters"):
        check_settings(dict(flatten(cfg)), SETTINGS, where="")
    with pytest.raises(ValueError, match="~nobody-here/x.pt: this user has no home folder"):
        load_clip("~nobody-here/x.pt")


@pytest.mark.parametrize("word", ["2024", "'2024'", '"2024"'])
def test_a_number_for_a_text_setting_is_text(word, tmp_path):
    cfg = cfg_from([], ["DATASET.PATH", word, "SEED", "2"])
    assert (cfg.DATASET.PATH, cfg.SEED) == ("2024", 2)
    (tmp_path / "a.yaml").write_text(f"SEED: '2'\nDATASET:\n  PATH: {word}\n")
    cfg = merged(tmp_path / "a.yaml")
    assert (cfg.DATASET.PATH, cfg.SEED) == ("2024", 2)


@pytest.mark.parametrize("word", ["007", "1e3", "2024-05-01", "yes", "True", "[1]", "a b"])
def test_text_is_kept_as_it_is_written(word, tmp_path):
    assert cfg_from([], ["DATASET.PATH", word]).DATASET.PATH == word
    if word in ("1e3", "2024-05-01", "a b"):  # the others are of other types in YAML
        (tmp_path / "a.yaml").write_text(f"DATASET:\n  PATH: {word}\n")
        assert merged(tmp_path / "a.yaml").DATASET.PATH == word


@pytest.mark.parametrize(
    ("word", "domains"),
    [
        ("[2019,2020]", ["2019", "2020"]),
        ("(2019, 007)", ["2019", "007"]),
        ("['2019', \"2020\"]", ["2019", "2020"]),
        ("[art, 'a, b', 2019]", ["art", "a, b", "2019"]),
        ("[]", []),
    ],
)
def test_numbers_in_a_list_of_texts_are_texts(word, domains, tmp_path):
    assert list(cfg_from([], ["DATASET.SOURCE_DOMAINS", word]).DATASET.SOURCE_DOMAINS) == domains
    if word[0] == "[":
        (tmp_path / "a.yaml").write_text(f"DATASET:\n  SOURCE_DOMAINS: {word}\n")
        assert list(merged(tmp_path / "a.yaml").DATASET.SOURCE_DOMAINS) == domains


def test_text_in_a_recorded_configuration_is_read_back_as_it_was():
    recorded = {"DATASET": {"PATH": "2024", "SOURCE_DOMAINS": ["2019"], "TEMPLATE": "{}"}}
    cfg = plugin.default_cfg()
    cfg.merge_from_other_cfg(CfgNode(as_text("", cfg, recorded)))
    assert (cfg.DATASET.PATH, list(cfg.DATASET.SOURCE_DOMAINS)) == ("2024", ["2019"])
    assert cfg.DATASET.TEMPLATE == "{}"


def test_pairs_that_a_list_flag_took_are_named_and_two_dashes_divide_them():
    words = ["--transforms", "normalize", "OPTIM.LR", "0.5"]
    with pytest.raises(UserError, match="--transforms took OPTIM.LR: write -- before the KEY"):
        cfg_from_args(parser().parse_args(words))
    cfg = cfg_from_args(parser().parse_args([*words[:2], "--", *words[2:]]))
    assert (cfg.INPUT.TRANSFORMS, cfg.OPTIM.LR) == (["normalize"], 0.5)
    with pytest.raises(UserError, match="write OPTIM.LR 0.5, not OPTIM.LR=0.5"):
        cfg_from([], ["OPTIM.LR=0.5"])


def test_a_flag_after_the_pairs_is_named():
    args = parser().parse_args(["OPTIM.LR", "0.5", "--seed", "3"])
    with pytest.raises(UserError, match="flags must come before the KEY VALUE pairs, got --seed"):
        cfg_from_args(args)
