"""`causalclip fuse`: the fusion of trained runs, from their predictions."""

from __future__ import annotations

import os

import numpy as np
import pytest

from causalclip.errors import UserError
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE, Result
from causalclip.report.fuse import fuse_runs, main
from causalclip.report.runs import load_runs
from causalclip.report.tables import scores
from causalclip.runs.command import main as run
from causalclip.runs.command import write_ensembles

LABELS = np.array([0, 1, 2, 2, 1, 0])


def softmax(logits):
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


@pytest.fixture
def write(tmp_path):
    """Write one run of three classes and six images; returns its folder and logits."""

    def make(name, seed, *, half="base", trainer="MaPLe", templates=0, paths="abcdef", **more):
        folder = tmp_path / half / name
        logits = np.random.default_rng(seed).normal(size=(6, max(templates, 1), 3)) * 2
        p = softmax(logits).astype(np.float32)
        record = {"schema": 2, "trainer": trainer, "backbone": "tiny", "dataset": "Set"}
        record |= {"shots": 16, "seed": 1, "subsample_classes": half, "config_name": name}
        record |= {"metrics": {"accuracy": 50.0, "ece": 1.0}, "classnames": ["x", "y", "z"]}
        record |= {"identity": f"{half}{name}", "training": {"seconds": 2.0}, **more}
        Result.of_record(record).write(folder)
        arrays = {"probabilities": p.mean(1), "uncertainty": 1 - p.mean(1).max(-1)}
        arrays |= {"label": LABELS, "prediction": p.mean(1).argmax(-1)}
        arrays |= {"path": np.array([f"/data/{one}.png" for one in paths])}
        if templates:
            arrays |= {"template_probabilities": p, "template_uncertainty": 1 - p.max(-1)}
        Predictions(arrays).write(folder)
        return folder, logits

    return make


def test_dempsters_rule_on_softmaxes_is_that_of_their_logits(write):
    (one, a), (two, b) = write("one", 0), write("two", 1)
    found = fuse_runs([one, two], fusion="dempster").predictions
    evidence = [np.exp(z[:, 0] - z[:, 0].mean(-1, keepdims=True)) for z in (a, b)]
    belief = [e / (e.sum(-1, keepdims=True) + 3) for e in evidence]
    left = [3 / (e.sum(-1, keepdims=True) + 3) for e in evidence]
    joint = belief[0] * belief[1] + belief[0] * left[1] + belief[1] * left[0]
    clash = 1 - joint.sum(-1, keepdims=True) - left[0] * left[1]
    fused, u = joint / (1 - clash), left[0] * left[1] / (1 - clash)
    np.testing.assert_allclose(found.probabilities(), fused + u / 3, rtol=1e-4)
    np.testing.assert_allclose(found.uncertainty(), u[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.arrays["conflict"], clash[:, 0], rtol=1e-4)


def test_the_mean_of_probabilities_and_the_metrics(write):
    folders = [write(name, seed)[0] for seed, name in enumerate(("one", "two", "three"))]
    fused = fuse_runs(folders, fusion="probabilities")
    each = [Predictions.read(folder / PREDICTIONS_FILE).probabilities() for folder in folders]
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(fused.predictions.probabilities(), mean, rtol=1e-5)
    accuracy = 100 * np.mean(mean.argmax(-1) == LABELS)
    assert fused.result.metrics["accuracy"] == pytest.approx(accuracy)
    best = max(100 * np.mean(p.argmax(-1) == LABELS) for p in each)
    assert fused.result.details["gain"] == pytest.approx(accuracy - best)
    assert fused.result.training_seconds == 6


def test_both_halves_make_one_row_of_a_table(write, tmp_path, capsys):
    for half, tested in (("base", None), ("new", "base")):
        runs = [
            write(name, seed, half=half, trained_identity=tested and tested + name)[0]
            for seed, name in enumerate(("one", "two"))
        ]
        out = tmp_path / "fused" / half
        assert main([*map(str, runs), "--output", str(out)]) == 0
    assert "disagreement" in capsys.readouterr().out
    rows = scores(load_runs(tmp_path / "fused"))
    assert set(rows.trainer) == {"MaPLe x2"}
    assert {"base", "new", "HM"} <= set(rows.quantity)


def test_one_run_is_fused_from_its_templates(write, capsys):
    folder, logits = write("cdc", 3, trainer="CDC", templates=4)
    fused = fuse_runs([folder], fusion="logits")
    centred = logits - logits.mean(-1, keepdims=True)
    expected = softmax(centred.mean(1))
    np.testing.assert_allclose(fused.predictions.probabilities(), expected, rtol=1e-4)
    assert fused.names == ("S1", "S2", "S3", "S4")


def test_what_cannot_be_fused_is_named(write, tmp_path, capsys):
    one, other = write("one", 0)[0], write("two", 1, paths="abcdeg")[0]
    with pytest.raises(UserError, match="two must be tested on the images of .*one, in their ord"):
        fuse_runs([one, other])
    with pytest.raises(UserError, match="must have the classnames of"):
        fuse_runs([one, write("three", 1, classnames=["x", "y", "w"])[0]])
    with pytest.raises(UserError, match="one run must have two templates or more"):
        fuse_runs([one])
    with pytest.raises(UserError, match=r"--discount must be in \[0.5, 1\], got 0.2"):
        fuse_runs([one, write("four", 2)[0]], discount=0.2)
    assert main([str(one), str(tmp_path / "none")]) == 2
    assert "none must be the folder of a finished run" in capsys.readouterr().err
    assert main([str(one), str(write("five", 2)[0]), "--output", str(one)]) == 2
    assert "holds a result: choose another --output" in capsys.readouterr().err


def test_a_start_changes_the_training_and_not_the_images(make_trainer, tmp_path):
    found = {}
    for start in (0, 1):
        options = ["TRAIN.START", start, "TRAINER.COOP.CTX_INIT", ""]
        trainer = make_trainer("CoOp", tmp_path / str(start), *options)
        images = [item.impath for item in trainer.dm.dataset.train_x]
        found[start] = images, trainer.model.ctx.detach().clone(), trainer.train_loader_x.seed
    assert found[0][0] == found[1][0]
    assert not np.allclose(found[0][1], found[1][1])
    assert found[0][2] != found[1][2]


def test_an_ensemble_is_a_row_of_its_own(data_root, random_clip, tmp_path, capsys, runs_here):
    line = "base2new --methods CoOp --datasets handwritten_digits --shots 1 --seeds 1 --ensemble 2"
    arguments = [*line.split(), "--data", str(data_root), "--backbone", random_clip]
    arguments += ["--output", str(tmp_path), "OPTIM.MAX_EPOCH", "1"]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "CoOp x2 " in shown
    runs = load_runs(tmp_path)
    own = runs[runs.counted & (runs.variant == "")]
    assert sorted(own.trainer) == ["CoOp", "CoOp", "CoOp x2", "CoOp x2"]
    assert set(own.start) == {0}
    members = [
        Predictions.read(path.with_name(PREDICTIONS_FILE)).probabilities()
        for path in runs[(runs.trainer == "CoOp") & (runs.subsample == "new")].path
    ]
    (fused,) = own[(own.trainer == "CoOp x2") & (own.subsample == "new")].path
    mean = Predictions.read(fused.with_name(PREDICTIONS_FILE)).probabilities()
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-4)
    assert run([*arguments[:2], "CLIP_ICM", *arguments[3:]]) == 2
    assert "--ensemble needs methods that learn from a random start" in capsys.readouterr().err


def test_an_ensemble_is_written_again_only_when_a_member_is_newer(write, tmp_path):
    members = [write(name, seed)[0] for seed, name in enumerate(("one", "two"))]
    file = tmp_path / "fused" / RESULTS_FILE
    write_ensembles({file.parent: members})
    first = file.stat().st_mtime_ns
    write_ensembles({file.parent: members})
    assert file.stat().st_mtime_ns == first
    os.utime(members[1] / RESULTS_FILE, ns=(first + 10**9, first + 10**9))
    write_ensembles({file.parent: members})
    assert file.stat().st_mtime_ns > first
    (members[0] / PREDICTIONS_FILE).unlink()
    with pytest.raises(UserError, match="must be the folder of a finished run"):
        write_ensembles({tmp_path / "other": members})
