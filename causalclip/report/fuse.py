"""Fuse trained runs by their stored predictions for the same images.

    causalclip fuse output/.../MaPLe/tiny/seed1 output/.../CDC/tiny_m4/seed1 --output output/fused
    causalclip fuse output/.../CDC/tiny_m4/seed1       # one run: its own templates

prints each member, each fusion rule, and how much the members differ. With --output it also writes
results.json and predictions.npz, which tables and the page read as one run. Members may be of any
methods and backbones; the test images and classes must be the same. For new classes, fuse the runs'
test folders as well, in the same order: the two results then make one row of base-to-novel.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from causalclip.errors import UserError, prints_errors
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE, Result

if TYPE_CHECKING:
    from torch import Tensor

    from causalclip.engine.prediction import Evaluated

RULES = ("dempster", "discounted", "averaging", "probabilities", "logits")
SAME = "dataset subsample_classes split classnames source_domains target_domains".split()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("runs", nargs="+", metavar="RUN", type=Path, help="a folder with results.json")
    add("--output", type=Path, help="folder of the fused result (default: print only)")
    add("--fusion", choices=RULES, default="discounted", help="rule to use (default: discounted)")
    add("--discount", type=float, help="eta in [1/M, 1] of discounted (default: 1/M)")
    return p


@dataclass(frozen=True)
class Fused:
    """A fused evaluation and the names of its members."""

    result: Result
    predictions: Predictions
    names: tuple[str, ...]
    """Names of the M members."""

    def write(self, folder: Path) -> Path:
        """Write results.json and predictions.npz to a folder; return the path of results.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self.predictions.write(folder)
        return self.result.write(folder)


def fuse_runs(
    folders: Sequence[Path], *, fusion: str = "discounted", discount: float | None = None
) -> Fused:
    """Fuse the predictions of M runs, or of the M templates of one run.

    The evidence of a member is exp(log p_k - mean_k log p_k). For a softmax, this is the evidence
    of its logits minus their mean. The discount is eta of `discounted`, by default 1/M.

    Raises:
        UserError: a folder without a result, fewer than two members, other images or classes, or a
            discount outside [1/M, 1].
    """
    runs = [_read(folder) for folder in folders]
    (first, answers), *others = runs
    for folder, (result, predictions) in zip(folders[1:], others, strict=True):
        _check_same(folders[0], first, answers, folder, result, predictions)
    names, probabilities = _members(folders, runs)
    if not 1 / len(names) <= (eta := 1 / len(names) if discount is None else discount) <= 1:
        raise UserError(f"--discount must be in [{1 / len(names):g}, 1], got {discount}")
    evaluated = _evaluated(probabilities, answers, fusion, eta)
    return Fused(_result(runs, names, evaluated, eta), Predictions(evaluated.arrays()), names)


def _read(folder: Path) -> tuple[Result, Predictions]:
    try:
        return Result.read(folder / RESULTS_FILE), Predictions.read(folder / PREDICTIONS_FILE)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} must be the folder of a finished run: {error}") from error


def _check_same(
    place: Path, first: Result, answers: Predictions, folder: Path, other: Result, its: Predictions
) -> None:
    for name in SAME:
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise UserError(f"{folder} must have the {name} of {place}, {one}, got {two}")
    names = [[Path(path).name for path in one.arrays["path"]] for one in (answers, its)]
    if names[0] != names[1] or answers.arrays["label"].tolist() != its.arrays["label"].tolist():
        raise UserError(f"{folder} must be tested on the images of {place}, in their order")


def _members(
    folders: Sequence[Path], runs: Sequence[tuple[Result, Predictions]]
) -> tuple[tuple[str, ...], Tensor]:
    """Return the names and the probabilities (N, M, K) of the runs, or of one run's templates."""
    import torch

    if len(runs) > 1:
        answers = [torch.from_numpy(one.probabilities()) for _, one in runs]
        return tuple(map(str, folders)), torch.stack(answers, dim=1)
    arrays = runs[0][1].arrays
    if "template_probabilities" not in arrays or arrays["template_probabilities"].shape[1] < 2:
        raise UserError(f"one run must have two templates or more, {folders[0]} has none to fuse")
    templates = torch.from_numpy(arrays["template_probabilities"])
    return tuple(f"S{m + 1}" for m in range(templates.shape[1])), templates


def _evaluated(probabilities: Tensor, of: Predictions, fusion: str, eta: float) -> Evaluated:
    import torch

    from causalclip.cdc.evidence import FUSIONS, conflict, evidence_from_logits
    from causalclip.engine.prediction import Evaluated, Prediction, Reading

    logits = probabilities.double().clamp_min(torch.finfo(torch.float32).tiny).log()
    evidence = evidence_from_logits(logits, logits.mean(-1, keepdim=True))
    each = logits.softmax(-1)
    readings = {
        name: Reading(*rule.answer(logits, evidence, each, eta)) for name, rule in FUSIONS.items()
    }
    prediction = Prediction(
        readings[fusion],
        readings,
        extras={"conflict": conflict(evidence)},
        members={"template": Reading(each, 1 - each.amax(-1))},
    )
    labels, paths = torch.from_numpy(of.arrays["label"]), of.arrays["path"]
    return Evaluated(Prediction.joined([prediction]), labels, tuple(map(str, paths)))


def _result(
    runs: Sequence[tuple[Result, Predictions]],
    names: Sequence[str],
    evaluated: Evaluated,
    eta: float,
) -> Result:
    from causalclip.cdc.losses import pair_diversity
    from causalclip.engine.evaluation import metrics_record

    results = [result for result, _ in runs]
    first, trainers = results[0], list(dict.fromkeys(result.trainer for result in results))
    members = evaluated.prediction.members["template"].probabilities
    correct = members.argmax(-1) == evaluated.labels.unsqueeze(-1)
    each = 100 * correct.double().mean(0)
    record = asdict(first) | metrics_record(evaluated, {})
    record |= {
        "trainer": " + ".join(trainers) + (f" x{len(names)}" if len(trainers) == 1 else ""),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "identity": _joint(result.identity for result in results),
        "trained_identity": _joint(result.trained_identity for result in results),
        "training": _cost(results),
        "details": {
            "fused": list(names),
            "discount": eta,
            "conflict": evaluated.prediction.extras["conflict"].mean().item(),
            **pair_diversity(correct),
            "gain": record["metrics"]["accuracy"] - each.max().item(),
        },
    }
    return Result.of_record(record)


def _joint(fingerprints: Iterable[str | None]) -> str | None:
    """Return a joint fingerprint of all of them in order; None if one is missing."""
    given = list(fingerprints)
    known = [one for one in given if one is not None]
    if len(known) < len(given):
        return None
    return known[0] if len(known) == 1 else hashlib.sha256("".join(known).encode()).hexdigest()


def _cost(results: Sequence[Result]) -> dict | None:
    """Return the total seconds of all trainings; None if one is unknown."""
    seconds = [result.training_seconds for result in results]
    return None if None in seconds else {"seconds": sum(filter(None, seconds))}


def lines(fused: Fused) -> str:
    """Return the members, the fusion rules and the diversity as text."""
    from tabulate import tabulate

    result, details = fused.result, fused.result.details
    rows = [*zip(fused.names, result.members["template"], strict=True), *result.variants.items()]
    table = [[name, metrics["accuracy"], metrics["ece"]] for name, metrics in rows]
    shown = tabulate(table, ["", "accuracy", "ECE"], "github", floatfmt=".1f")
    facts = {
        "gain over the best member": f"{details['gain']:+.1f}",
        "disagreement": f"{100 * details['disagreement']:.1f} %",
        "Q statistic": f"{details['q']:.2f}",
        "error correlation": f"{details['error_correlation']:.2f}",
        "conflict": f"{details['conflict']:.2f}",
    }
    return shown + "\n\n" + "\n".join(f"{name}: {value}" for name, value in facts.items())


@prints_errors("fuse")
def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the fusion; return 2 for runs that cannot be fused."""
    args = parser().parse_args(argv)
    if args.output and (args.output / RESULTS_FILE).exists():
        raise UserError(f"{args.output} holds a result: choose another --output, or remove it")
    fused = fuse_runs(args.runs, fusion=args.fusion, discount=args.discount)
    print(lines(fused))
    if args.output:
        print(f"\nResults: {fused.write(args.output)}")
    return 0
