"""CLIP-ICM's ablation: its runs, the quantities of each row, and its figures.

Heat maps of the target and embeddings need features. For them, the trainer of a run is built again;
it reads the features from the cache on disk.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalclip.ablation.tables import Row, configured
from causalclip.icm.config import Head
from causalclip.icm.projection import InvariantProjection
from causalclip.icm.search import classifier_for, folds_for, grid_of
from causalclip.icm.selection import Choice, Scored, best, correct_mask, per_cent
from causalclip.plots.panels import draw_panels
from causalclip.plots.run_plots import draw_choice, spectrum_panels
from causalclip.plots.style import MARKERS, PALETTE, series_colour
from causalclip.records.results import RESULTS_FILE, Result
from causalclip.runs.plan import Run
from causalclip.runs.protocols import ALL_IMAGES, Part, Protocol

if TYPE_CHECKING:
    from causalclip.trainers.clip_icm import CLIP_ICM

HEADS = {"zero-shot": "zeroshot", "probe": "linear_probe"}
PLAIN_READING = "plain"
"""Name of the reading of the original features, without a projection."""
MOST_POINTS = 1000
"""Maximum number of points of an embedding; more would overlap, and t-SNE would be slow."""


def protocol(_split: str) -> Protocol:
    """Return leave-one-domain-out; one run has the results of both splits."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{target}/{recipe}/seed{seed}"
    parts = (Part("train", folder, ("DATASET.NUM_SHOTS", "{num_shots}")),)
    return Protocol("ablation", parts, shots=(ALL_IMAGES,), domains=True)


def quantities(runs: Sequence[Run], reading: str, split: str) -> dict[str, float]:
    """Return the quantities of one seed by name: the mean and the worst over its target domains.

    Args:
        runs: one run for each left-out domain.
        reading: `plain` for the original features, empty for the subspace.
        split: val for the sources alone, test for the targets.
    """
    results = [Result.read(run.folder / RESULTS_FILE) for run in runs]
    values: dict[str, float] = {}
    for name, head in HEADS.items():
        known = [head_accuracy(result, head, reading, split) for result in results]
        accuracies = [value for value in known if value is not None]
        if len(accuracies) < len(results):  # not fitted, or the grid lacks the reading
            continue
        zeroshot = name == "zero-shot"
        values[name] = float(np.mean(accuracies))
        values["worst" if zeroshot else f"{name} worst"] = float(np.min(accuracies))
        if reading != PLAIN_READING:
            dims = [heads_of(result)[head]["choice"]["dim_inv"] for result in results]
            values["k" if zeroshot else f"k {name}"] = float(np.mean(dims))
    if reading != PLAIN_READING:
        kept = [heads_of(result)["zeroshot"]["intervention_energy_kept"] for result in results]
        values["change kept %"] = 100 * float(np.mean(kept))
    return values


def head_accuracy(result: Result, head: str, reading: str, split: str) -> float | None:
    """Return the accuracy of a head in per cent; None if the run does not have it."""
    if split == "test":
        name = head if reading == PLAIN_READING else f"{head}_icm"
        return result.variants.get(name, {}).get("accuracy")
    grid = heads_of(result).get(head, {}).get("grid", [])
    scored = [Scored(choice_of(cell), tuple(cell["accuracies"])) for cell in grid]
    if reading != PLAIN_READING:
        return left_out(scored) if scored else None
    width = len(next(iter(heads_of(result).values()))["spectrum"])
    whole = (c for c in scored if c.choice.dim_inv == width and c.choice.orthonormal)
    return next((cell.mean for cell in whole), None)


def left_out(scored: Sequence[Scored]) -> float:
    """Return the mean over folds of the accuracy of the cell that the other folds choose, per cent.

    The mean of a cell that was chosen on the same folds would be too high.

    Raises:
        ValueError: there is only one fold.
    """
    folds = range(len(scored[0].accuracies))
    if len(folds) < 2:
        raise ValueError("one fold cannot be left out of the choice")
    accuracies = []
    for fold in folds:
        others = [Scored(c.choice, c.accuracies[:fold] + c.accuracies[fold + 1 :]) for c in scored]
        chosen = best(others).choice
        accuracies.append(next(c.accuracies[fold] for c in scored if c.choice == chosen))
    return float(np.mean(accuracies))


def heads_of(result: Result) -> Mapping[str, Any]:
    """Return the record of each head's subspace."""
    return result.details["heads"]


def choice_of(record: Mapping[str, Any]) -> Choice:
    """Return the cell of the grid that is described by a record of results.json."""
    names = ("estimator", "strength", "dim_inv", "orthonormal")
    return Choice(**{name: record[name] for name in names})


# Figures


def heat_maps(rows: Sequence[Row], split: str) -> dict[str, Figure]:
    """Draw accuracy over strength and dimension for each left-out domain; the choice has a frame.

    With val, the accuracies are on the held-out sources. With test, they are on the target, and the
    frame shows how good the cell is that was chosen on the sources.
    """
    figures = {}
    for head in HEADS.values():
        runs = [run for run in rows[0].runs if head in heads_of(result_of(run))]
        if runs:
            figure = figures[f"heatmaps_{head}"] = Figure(figsize=(7.2, 2.4 * len(runs) + 0.6))
            for part, run in zip(figure.subfigures(len(runs), squeeze=False), runs, strict=True):
                record = heads_of(result_of(run))[head]
                cells = record["grid"] if split == "val" else target_cells(run, head)
                draw_choice(part[0], cells, record["choice"])
                part[0].suptitle(f"{left_out_domain(run)} left out", x=0.01, ha="left")
    return figures


def spectra(rows: Sequence[Row], _split: str) -> dict[str, Figure]:
    """Draw the eigenvalues of each head's choice in the order in which they are kept."""
    runs = rows[0].runs
    figure = Figure(figsize=(3.4 * len(runs), 3.2))
    for part, run in zip(figure.subfigures(1, len(runs), squeeze=False)[0], runs, strict=True):
        draw_panels(part, spectrum_panels(heads_of(result_of(run))))
        part.suptitle(f"{left_out_domain(run)} left out")
    return {"spectrum": figure}


def embeddings(rows: Sequence[Row], split: str) -> dict[str, Figure]:
    """Draw images before and after the projections, by class and by domain: PCA and t-SNE.

    Only the first left-out domain is drawn: with val the validation images of the sources, with
    test also the images of the target.
    """
    run = rows[0].runs[0]
    spaces, labels = labelled_features(run, split)
    points = {when: in_plane(x, result_of(run).seed) for when, x in spaces.items()}
    figures = {}
    for name in ("pca", "tsne"):
        figure = figures[f"embeddings_{name}"] = Figure(figsize=(8, 3.2 * len(spaces)))
        grid = figure.subplots(len(spaces), 2, squeeze=False)
        for line, when in zip(grid, spaces, strict=True):
            for axes, (what, names) in zip(line, labels.items(), strict=True):
                scatter(axes, points[when][name], names)
                axes.set_title(f"{when}, by {what}")
        for axes, what in zip(grid[0], labels, strict=True):
            axes.legend(title=what, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figures


def scatter(axes: Axes, points: np.ndarray, names: np.ndarray) -> None:
    """Draw points (N, 2), coloured and marked by their names (N,)."""
    for number, name in enumerate(dict.fromkeys(sorted(names))):
        shifted = number + number // len(PALETTE)  # a repeated colour has another marker
        style = {"color": series_colour(number), "marker": MARKERS[shifted % len(MARKERS)]}
        axes.scatter(*points[names == name].T, s=9, linewidths=0, alpha=0.7, label=name, **style)
    axes.set(xticks=[], yticks=[])


# Data of the figures


def result_of(run: Run) -> Result:
    """Return the result of a run."""
    return Result.read(run.folder / RESULTS_FILE)


def left_out_domain(run: Run) -> str:
    """Return the left-out domain of a run, and its seed."""
    result = result_of(run)
    return f"{' '.join(result.target_domains)} (seed {result.seed})"


def rebuilt_trainer(run: Run) -> CLIP_ICM:
    """Build the trainer of a run again, without fitting it."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    cfg = configured(run)
    cfg.freeze()
    with contextlib.redirect_stdout(io.StringIO()):
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)


def target_cells(run: Run, head: str) -> list[dict[str, Any]]:
    """Return the cells of a head's grid with their accuracy on the target, per cent.

    The subspace of each cell is estimated on all sources, as in the run. The accuracy of the probe
    is that of the classifier `SELECT_PROBE`, by default a ridge regression.
    """
    trainer = rebuilt_trainer(run)
    config, text = trainer.config, trainer.text.cpu()
    folds = folds_for(config, cast(Head, head), trainer.sources.folds())
    classifier = classifier_for(config, cast(Head, head), folds, text)
    features, labels = trainer.encoder.labelled(trainer.dm.dataset.test)
    grid: Sequence[Choice] = grid_of(config, text.shape[1])
    correct = correct_mask(config, features, labels, folds, grid, classifier)
    cells = zip(grid, correct, strict=True)
    return [{**vars(choice), "mean": per_cent(right)} for choice, right in cells]


def labelled_features(
    run: Run, split: str
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Return a run's features (N, D) before and after its projections, and their labels (N,).

    A head that keeps all dimensions is left out, unless both heads keep all.
    """
    from causalclip.trainers.clip_icm import PROJECTION_FILES

    trainer = rebuilt_trainer(run)
    items = list(trainer.dm.dataset.val or trainer.dm.dataset.train_x)
    items += list(trainer.dm.dataset.test) if split == "test" else []
    rng = np.random.default_rng(trainer.cfg.SEED)
    items = [items[i] for i in sorted(rng.permutation(len(items))[:MOST_POINTS])]
    features = torch.from_numpy(trainer.encoder.items(items))
    after = {
        f"after, {name}": InvariantProjection.load(run.folder / PROJECTION_FILES[head])(features)
        for name, head in HEADS.items()
    }
    smaller = {when: x for when, x in after.items() if x.shape[1] < features.shape[1]}
    spaces = {"before": features, **(smaller or after)}
    domains = [*trainer.cfg.DATASET.SOURCE_DOMAINS, *trainer.cfg.DATASET.TARGET_DOMAINS]
    labels = {
        "class": np.array([item.classname for item in items]),
        "domain": np.array([domains[item.domain] for item in items]),
    }
    return {when: x.numpy() for when, x in spaces.items()}, labels


def in_plane(x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return PCA and t-SNE (N, 2) of features (N, D), after scaling each to length one."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    tsne = TSNE(perplexity=min(30, (len(x) - 1) / 3), random_state=seed)
    return {
        "pca": PCA(n_components=2, random_state=0).fit_transform(x),
        "tsne": tsne.fit_transform(x),
    }
