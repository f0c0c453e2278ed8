"""CLIP-ICM's tables and figures: made-up grids by hand, and one real run against brute force."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from causalclip.ablation import clip_icm
from causalclip.ablation.command import ABLATIONS, parser, request
from causalclip.ablation.tables import Planner
from causalclip.clip.backbone import build_clip
from causalclip.clip.weights import save_tiny
from causalclip.icm.selection import Choice, Scored
from causalclip.records.results import Result
from causalclip.runs import flags, train
from causalclip.runs.plan import Run

# Three sources; the first two choose k = 2, which is bad on the third, and so on.
ACCURACIES = {2: (90.0, 80.0, 10.0), 4: (50.0, 60.0, 70.0), 8: (40.0, 40.0, 40.0)}


RECORD = {"schema": 2, "trainer": "CLIP_ICM", "backbone": "tiny", "dataset": "Set", "seed": 1}
RECORD |= {"shots": -1, "protocol": "ablation"}


def record(k, accuracies):
    cell = {"estimator": "difference", "strength": 1.0, "dim_inv": k, "orthonormal": True}
    return {**cell, "accuracies": list(accuracies), "mean": float(np.mean(accuracies))}


@pytest.fixture
def made_run(tmp_path):
    """A function (target, accuracies by dimension) -> a run with this grid."""

    def make(target, accuracies, *, zeroshot=30.0, inside=35.0):
        grid = [record(k, values) for k, values in accuracies.items()]
        head = {"grid": grid, "choice": grid[0], "spectrum": [3.0] * 8}
        head["intervention_energy_kept"] = 0.25
        variants = {"zeroshot": zeroshot, "zeroshot_icm": inside}
        Result.of_record(
            {
                **RECORD,
                "target_domains": [target],
                "metrics": {"accuracy": inside},
                "variants": {name: {"accuracy": value} for name, value in variants.items()},
                "details": {"heads": {"zeroshot": head}},
            }
        ).write(tmp_path / target / "seed1")
        return Run("train", tmp_path / target / "seed1", ())

    return make


def test_on_the_sources_each_is_told_by_the_cell_that_the_others_choose(made_run):
    runs = [made_run("a", ACCURACIES), made_run("b", {2: (20.0, 20.0), 8: (60.0, 60.0)})]
    found = clip_icm.quantities(runs, "", "val")
    # Without the first source k = 4 has 65, without the second 60; without the third k = 2 has 85.
    assert found["zero-shot"] == pytest.approx(((50 + 60 + 10) / 3 + 60) / 2)
    assert found["worst"] == pytest.approx(40)
    assert found["k"] == 2 and found["change kept %"] == 25
    assert "probe" not in found  # it was not fitted


def test_plain_features_are_the_cell_that_keeps_every_dimension(made_run):
    found = clip_icm.quantities([made_run("a", ACCURACIES)], "plain", "val")
    assert found == {"zero-shot": 40, "worst": 40}
    less = {k: ACCURACIES[k] for k in (2, 4)}
    assert clip_icm.quantities([made_run("b", less)], "plain", "val") == {}


def test_on_the_targets_the_figures_are_those_of_the_runs(made_run):
    runs = [made_run("a", ACCURACIES), made_run("b", ACCURACIES, zeroshot=50.0, inside=45.0)]
    plain = clip_icm.quantities(runs, "plain", "test")
    assert (plain["zero-shot"], plain["worst"]) == (40, 30)
    assert clip_icm.quantities(runs, "", "test")["zero-shot"] == 40


def test_pca_is_that_of_unit_length_features():
    x = np.random.default_rng(0).normal(size=(40, 6))
    scaled = x / np.linalg.norm(x, axis=1, keepdims=True)
    centred = scaled - scaled.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(
        np.abs(clip_icm.in_plane(7 * x, seed=0)["pca"]), np.abs(u[:, :2] * s[:2]), atol=1e-10
    )


# One run


@pytest.fixture(scope="module")
def real(tmp_path_factory, data_root):
    """A run with its row: few digits in three looks, a random CLIP of 16-d features."""
    folder = tmp_path_factory.mktemp("ablation")
    clip = folder / "clip.safetensors"
    save_tiny(build_clip(vision_layers=1, transformer_layers=1, embed_dim=16), [], clip)
    line = ["--methods", "CLIP_ICM", "--shots", "2", "--output", str(folder)]
    settings = ["MODEL.BACKBONE.NAME", str(clip), "USE_CUDA", "False"]
    settings += ["TRAINER.CLIP_ICM.RULE", "best", "TRAINER.CLIP_ICM.SELECT_MARGIN", "0.0"]
    asked = request(flags.parse([*line, "--data", str(data_root), *settings], parser()))
    planner = Planner(type(asked)(**{**vars(asked), "data": data_root}))
    (row,) = planner.rows(ABLATIONS["CLIP_ICM"].tables["heatmaps"], "heatmaps", planner.reference())
    run = row.runs[0]
    stdout = sys.stdout
    assert train.main(run.arguments) == 0
    sys.stdout = stdout  # the logger has taken its place
    return type(row)(row.variant, (run,))


def test_the_frame_is_on_the_best_mean_of_all_cells(real):
    head = Result.read(real.runs[0].folder / "results.json").details["heads"]["zeroshot"]
    means = {tuple(cell["accuracies"]): np.mean(cell["accuracies"]) for cell in head["grid"]}
    tied = [c for c in head["grid"] if np.mean(c["accuracies"]) > max(means.values()) - 1e-6]
    widest = max(tied, key=lambda cell: cell["dim_inv"])
    figure = clip_icm.heat_maps([real], "val")["heatmaps_zeroshot"]
    framed = [ax for part in figure.subfigs for ax in part.axes if ax.lines]
    assert len(framed) == 1
    ((x, y),) = framed[0].lines[0].get_xydata().astype(int)
    assert framed[0].get_xticklabels()[x].get_text() == str(widest["dim_inv"])
    strengths = figure.subfigs[0].axes[0].get_yticklabels()  # shared by the estimators
    assert strengths[y].get_text() == f"{widest['strength']:g}"
    assert framed[0].get_title() == widest["estimator"]
    assert framed[0].images[0].get_array()[y, x] == pytest.approx(max(means.values()))


def test_the_map_on_the_target_has_the_runs_own_figure_where_it_chose(real):
    run = real.runs[0]
    result = Result.read(run.folder / "results.json")
    head = result.details["heads"]["zeroshot"]
    cells = clip_icm.target_cells(run, "zeroshot")
    assert len(cells) == len(head["grid"])
    of = {clip_icm.choice_of(cell): cell["mean"] for cell in cells}
    mine = of[clip_icm.choice_of(head["choice"])]
    assert mine == pytest.approx(result.variants["zeroshot_icm"]["accuracy"])
    (plain,) = {round(mean, 6) for choice, mean in of.items() if choice.dim_inv == 16}
    assert plain == pytest.approx(result.variants["zeroshot"]["accuracy"])
    assert "heatmaps_zeroshot" in clip_icm.heat_maps([real], "test")


def test_embeddings_and_spectrum_are_drawn_of_a_run(real):
    figures = clip_icm.embeddings([real], "val") | clip_icm.spectra([real], "val")
    assert list(figures) == ["embeddings_pca", "embeddings_tsne", "spectrum"]
    by_class, by_domain = figures["embeddings_pca"].axes[:2]
    assert len(figures["embeddings_pca"].axes) >= 4  # before, and after one of the readings' choice
    assert len(by_class.collections) == 10 and len(by_domain.collections) == 3
    (kept, line, *_) = figures["spectrum"].subfigs[0].axes[0].lines
    head = Result.read(real.runs[0].folder / "results.json").details["heads"]["zeroshot"]
    assert line.get_ydata().tolist() == head["spectrum"]
    assert kept.get_xdata()[0] == head["choice"]["dim_inv"] + 0.5


def test_a_left_out_mean_needs_two_folds():
    with pytest.raises(ValueError, match="one fold cannot be left out"):
        clip_icm.left_out([Scored(Choice("difference", 1.0, 2), (50.0,))])
