"""The table of methods is the page's, and says what the tested table of backbones says."""

from __future__ import annotations

from pathlib import Path

import pytest

from causalclip.runs.methods_command import main, rows, settings_tables, table

# isort: split

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def by_method():
    return {row["method"]: row for row in rows()}


def test_the_page_is_what_the_command_prints():
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert page == table("markdown"), "causalclip methods --format markdown > docs/methods.md"


def test_the_page_of_settings_is_what_the_command_prints():
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    command = "causalclip methods --format markdown --settings > docs/settings.md"
    assert page == settings_tables("", "markdown"), command


def test_the_settings_of_a_method_are_its_own(capsys):
    assert main(["--settings", "CoOp"]) == 0
    printed = capsys.readouterr().out
    assert "TRAINER.COOP.N_CTX" in printed and "TRAINER.CDC" not in printed
    assert main(["--settings", "CoOpp"]) == 2
    assert "did you mean CoOp" in capsys.readouterr().err


def test_every_method_that_has_recipes_has_an_idea_and_a_paper(by_method):
    configured = Path(__file__).parents[2] / "configs" / "trainers"
    for method in (path.name for path in configured.iterdir() if path.is_dir()):
        row = by_method[method]
        assert row["idea"] and row["paper"] and "tiny" in row["recipes"], method


def test_backbones_are_those_of_the_table_that_training_made(by_method):
    lines = (DOCS / "backbones.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [(name, row) for row in cells if len(row) == 6 for name in row[0].split("; ")]
    tested = [(name, row) for name, row in rows if name in by_method]
    assert {name for name, _ in tested} == set(by_method) - {"ZeroshotCLIP2"}
    for method, (_, _, resnet, open_clip, *_) in tested:
        expected = {"runs": "all", "no": "ViT" if open_clip == "runs" else "OpenAI ViT"}[resnet]
        assert by_method[method]["backbones"] == expected, method


@pytest.mark.parametrize(
    ("method", "protocols"), [("CoOp", "all"), ("LinearProbe", "fewshot lodo")]
)
def test_a_method_without_text_has_no_protocol_of_other_classes(method, protocols, by_method):
    assert by_method[method]["protocols"] == protocols


def test_a_method_of_your_own_is_listed(tmp_path, monkeypatch, capsys, registry_as_before):
    (tmp_path / "listed_method.py").write_text(
        '"""ListedMethod: one number (arXiv 1234.56789)."""\n'
        "from causalclip.engine.prompt_trainer import PromptTrainer\n"
        "from causalclip.settings.table import PREC\n"
        "class ListedMethod(PromptTrainer):\n"
        '    config_node, settings_table = "LISTED", {"PREC": PREC}\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--import", "listed_method"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "ListedMethod" in line]
    assert line.split() == ["ListedMethod", "one", "number", "arXiv", "1234.56789", "all", "all"]
    assert main(["--import", "nowhere_at_all"]) == 2
    assert "No module named 'nowhere_at_all'" in capsys.readouterr().err
