"""`causalclip run ablation`: mistakes before any work, and a small ablation from end to end."""

from __future__ import annotations

import pytest

from causalclip import cli
from causalclip.ablation import command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--methods CDD", "unknown method of an ablation CDD; known: CDC CLIP_ICM; did you mean"),
        ("", "known: CDC CLIP_ICM"),
        ("--methods CDC --tables component", "unknown table component of CDC; known: components "),
        ("--methods CLIP_ICM --tables losses", "unknown table losses of CLIP_ICM; known: images "),
        ("--methods CDC --datasets handwriten_digits", "did you mean handwritten_digits"),
        ("--methods CDC --cfg tiny_m5", "unknown recipe tiny_m5 of CDC"),
        ("--methods CDC --seeds x", "SEED must be a number, got x"),
        ("--methods CDC --dry-run TRAINER.CDC.BETA", "must come as KEY VALUE pairs"),
        ("--methods CDC --dry-run TRAINER.CDC.BETTA 1.0", "TRAINER.CDC.BETTA"),
        ("--methods CDC --dry-run TRAINER.CDC.BETA -1.0", "TRAINER.CDC.BETA must be"),
        ("--methods CDC --datasets dtd", "Give --data FOLDER, or set DATA"),
        (
            "--methods CDC --dry-run --tables augmentations TRAINER.CDC.N_TEMPLATES 1",
            "table augmentations: TRAINER.CDC.N_TEMPLATES must be at least 4, got 1",
        ),
    ],
)
def test_a_mistake_is_said_in_a_line_before_any_work(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    assert cli.main(["run", "ablation", *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("causalclip run ablation: ") and said in error
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_table(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "ablation", "--help"])
    told = capsys.readouterr().out
    assert told.startswith("usage: causalclip run ablation")
    for ablation in command.ABLATIONS.values():
        assert all(table.title in told for table in ablation.tables.values())


def test_a_small_ablation_prints_its_tables_and_draws_its_figures(
    tmp_path, data_root, random_clip, runs_here, capsys
):
    line = ["run", "ablation", "--methods", "CDC", "--tables", "semantics", "epochs", "cosines"]
    line += ["--shots", "2", "--seeds", "1", "--data", str(data_root), "--output", str(tmp_path)]
    line += ["MODEL.BACKBONE.NAME", random_clip, "USE_CUDA", "False", "OPTIM.MAX_EPOCH", "1"]
    line += ["TRAINER.CDC.N_TEMPLATES", "2", "TRAINER.CDC.PROMPT_DEPTH", "2"]
    assert cli.main(line) == 0
    printed = capsys.readouterr().out
    assert "Each semantic alone: CDC on handwritten_digits, validation split" in printed
    folder = tmp_path / "ablation" / "CDC" / "handwritten_digits" / "shots_2" / "report_val"
    rows = (folder / "semantics.md").read_text().splitlines()
    assert [row.split()[1] for row in rows if row.startswith("| ")][1:] == ["S1", "S2", "fused"]
    names = {path.name for path in folder.iterdir()}
    assert {"epochs.png", "epochs.svg", "cosines.png", "cosines.svg"} <= names
    assert cli.main([*line, "--dry-run"]) == 0
    assert "5 runs: 5 done, 0 left" in capsys.readouterr().out
