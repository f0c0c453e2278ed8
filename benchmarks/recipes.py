"""Choose the recipes of the bundled CLIPs on training images alone, then test them once.

    python benchmarks/recipes.py tuning [--methods CDC] [--worlds digits] [--photos DIR] [--jobs 2]
    python benchmarks/recipes.py test   [--photos DIR] [--jobs 2]
    python benchmarks/recipes.py test --methods MaPLe --ensemble 4   # mean of four trainings
    python benchmarks/recipes.py heldout --photos DIR [--jobs 2]
    python benchmarks/recipes.py tuning --table        # print recipes_tuning.csv, run nothing
    python benchmarks/recipes.py test --compare CDC MaPLe   # "METHOD KEY VALUE" of a variant

recipes.yaml lists the worlds (a data set with a CLIP), the seeds of each look (the stage: tuning,
test or heldout) and the candidates. Tuning never reads a test split (tuning_sets.py). The test
runs configs/trainers unchanged; heldout does the same in worlds that were not used for tuning. Each
run is base-to-novel with 16 shots and gives rows of the CSV in this folder. --photos names a
folder with photographs and their CLIP, which are not distributed; without it, they are skipped.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from photographs import PHOTOS, make_photos
from scipy.stats import hmean
from tabulate import tabulate

from causalclip.metrics import novelty_auroc
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE, Result
from causalclip.report.fuse import fuse_runs
from causalclip.report.seeds import signed_rank
from causalclip.runs.executor import LocalPool
from causalclip.runs.perform import perform
from causalclip.runs.plan import Run
from causalclip.runs.recipes import CONFIGS, recipes_of

HERE = Path(__file__).parent
INSIDE = "in CLIP_ICM's subspace"
BASE = "TRAINER.CDC.BASE"
PARTS = ("train_base", "test_new")
FIGURES = ["base", "new", "HM", "ECE base", "ECE new", "AUROC"]


@functools.cache
def described() -> dict[str, Any]:
    """Return the content of recipes.yaml."""
    return yaml.safe_load((HERE / "recipes.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Job:
    """A training on the base classes and its test on the new classes."""

    look: str
    method: str
    settings: tuple[str, ...]
    """KEY VALUE pairs of a candidate, in addition to the method's configuration."""
    world: str
    seed: int
    inside: bool = False
    """Whether to classify inside the subspace that CLIP-ICM finds on the same images."""
    start: int = 0
    """Index of the random initialisation, TRAIN.START."""
    members: int = 1
    """Number of trainings with different starts whose probabilities are averaged."""

    def folder(self, root: Path, part: str) -> Path:
        """Return the folder of a part's results."""
        short = [key.rsplit(".", 1)[-1] for key in self.settings[::2]]
        pairs = zip(short, self.settings[1::2], strict=True)
        name = ",".join(f"{key}={value.replace('/', '-')}" for key, value in pairs) or "recipe"
        if self.start or self.members > 1:
            name += f",start{self.start}" if self.start else f",mean{self.members}"
        method = f"{self.method}_inside" if self.inside else self.method
        return root / self.look / self.world / method / name / f"seed{self.seed}" / part

    def subspace(self, root: Path) -> tuple[str, ...]:
        """Return the setting that names the subspace of the CLIP_ICM run of this world and seed."""
        if not self.inside:
            return ()
        found = Job(self.look, "CLIP_ICM", (), self.world, self.seed).folder(root, "train_base")
        return f"TRAINER.{self.method}.PROJECTION", str(found / "projection.safetensors")

    def runs(self, root: Path, data: Path, photos: str) -> Iterator[Run]:
        """Return the training and the test; `photos` is the folder of the photographs' CLIP."""
        trained, recipe_of = self.folder(root, "train_base"), self.base or self.method
        for part, half in zip(PARTS, ("base", "new"), strict=True):
            tests = part == "test_new"
            folder = self.folder(root, part)
            flags = ["--eval-only", "--model-dir", str(trained)] if tests else []
            arguments = (
                *("--trainer", self.method, "--root", str(data), "--seed", str(self.seed)),
                *("--config-file", str(recipe_file(recipe_of)), "--output-dir", str(folder)),
                *("--protocol", "base2new", "--part", part, *flags),
                *("--import", "benchmarks.tuning_sets"),
                *(
                    value.replace("{photos}", photos)
                    for value in world_settings(self.world, self.look, recipe_of)
                ),
                *extra_settings(recipe_of),
                *self.settings,
                *self.subspace(root),
                *(("TRAIN.START", str(self.start)) if self.start else ()),
                *("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", half),
            )
            yield Run(part, folder, arguments, trained if tests else None)

    def rows(self, root: Path) -> Iterator[dict[str, Any]]:
        """Yield the figures of each reading, per cent; first write the results of an ensemble."""
        folders = [self.folder(root, part) for part in PARTS]
        if self.members > 1:
            for part, folder in zip(PARTS, folders, strict=True):
                members = [member.folder(root, part) for member in self.trainings]
                fuse_runs(members, fusion="probabilities").write(folder)
        halves = [Result.read(folder / RESULTS_FILE) for folder in folders]
        answers = [Predictions.read(folder / PREDICTIONS_FILE) for folder in folders]
        for reading in ("", *(name for name in halves[0].variants if name in halves[1].variants)):
            found = [half.variants[reading] if reading else half.metrics for half in halves]
            base, new = (metrics["accuracy"] for metrics in found)
            yield {
                "method": self.method,
                "settings": self.named,
                "reading": reading,
                "world": self.world,
                "seed": self.seed,
                "base": base,
                "new": new,
                "HM": float(hmean([base, new])),
                "ECE base": found[0]["ece"],
                "ECE new": found[1]["ece"],
                "AUROC": novelty_auroc(*(one.uncertainty(reading) for one in answers)),
            }

    @property
    def base(self) -> str:
        """Return the method in CDC.BASE, whose recipe CDC's templates use; or ""."""
        return dict(zip(self.settings[::2], self.settings[1::2], strict=True)).get(BASE, "")

    @property
    def named(self) -> str:
        """Return the candidate's settings as one text."""
        if self.members > 1:
            return f"mean of {self.members} trainings"
        return INSIDE if self.inside else " ".join(self.settings)

    @property
    def trainings(self) -> list[Job]:
        """Return the trainings that are averaged; with one member, one training."""
        return [replace(self, start=start, members=1) for start in range(self.members)]


def recipe_file(method: str) -> Path:
    """Return the configuration of a method on the bundled CLIPs."""
    return CONFIGS / "trainers" / method / ("tiny_m4.yaml" if method == "CDC" else "tiny.yaml")


def extra_settings(method: str) -> tuple[str, ...]:
    """Return the KEY VALUE pairs of a method's base-to-novel runs in addition to that file."""
    return recipes_of(method).extra_settings("base2new", "", "16", recipe_file(method).stem)


def world_settings(world: str, look: str, method: str) -> list[str]:
    """Return KEY VALUE pairs of a world: its data, its CLIP and the length of training."""
    facts = described()["worlds"][world]
    name = ("Tuning" if look == "tuning" else "") + facts["dataset"]
    own = facts.get("methods", {}).get(method, [])
    calibrated = [] if look == "tuning" else ["TEST.CALIBRATION", "True"]
    return [str(x) for x in ("DATASET.NAME", name, *facts["settings"], *own, *calibrated)]


def jobs_of(
    look: str, worlds: Sequence[str], methods: Sequence[str], seeds: Sequence[int]
) -> list[Job]:
    """Return a job for each candidate (in tests: each recipe), world and seed."""
    facts = described()
    both = look == "test" and {"CDC", "CLIP_ICM"} <= set(methods)
    jobs = []
    for seed in seeds:
        for world in worlds:
            for method in methods:
                tried = candidates(method) if look == "tuning" else tested(method)
                jobs += [Job(look, method, tuple(settings), world, seed) for settings in tried]
            if both and world in facts["inside"]:
                jobs.append(Job(look, "CDC", (), world, seed, inside=True))
    return jobs


def tested(method: str) -> list[list[str]]:
    """Return KEY VALUE pairs of each tested row: none for the recipe, then the variants'."""
    variants = described()["variants"].get(method, [])
    return [[], *([str(x) for x in settings] for settings in variants)]


def candidates(method: str) -> list[list[str]]:
    """Return KEY VALUE pairs of each candidate, from the grid of its keys or from the list."""
    facts = described()["candidates"].get(method, {})
    if "list" in facts:
        return [[str(x) for x in settings] for settings in facts["list"]]
    keys = [key.split() for key in facts.get("grid", {})]
    values = itertools.product(*facts.get("grid", {}).values())
    cells = [zip(keys, chosen, strict=True) for chosen in values]
    return [
        [str(x) for names, value in cell for name in names for x in (name, value)] for cell in cells
    ]


# Tables


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each figure's mean over worlds and the HM in each world, sorted."""
    who = ["method", "settings", "reading"]
    per_world = rows.groupby([*who, "world"])[FIGURES].mean()
    means = per_world.groupby(who).mean()
    hms = per_world["HM"].unstack("world")
    counts = rows.groupby(who)["world"].nunique().rename("worlds")
    return means.join(hms).join(counts).sort_values(["worlds", "HM"], ascending=False)


def compared(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return paired differences of HM, over worlds and seeds, and over worlds alone."""
    mine = rows[rows.reading == ""].assign(row=named_rows(rows))
    wide = mine.pivot_table(index=["world", "seed"], columns="row", values="HM")
    difference = (wide[first] - wide[second]).dropna()
    worlds = difference.groupby("world").mean()
    pairs = (("worlds and seeds", difference), ("worlds", worlds))
    return pd.DataFrame([{"pairs": name, **signed_rank(d.to_numpy())} for name, d in pairs])


def named_rows(rows: pd.DataFrame) -> pd.Series:
    """Return the names that --compare takes: the method, then its settings if it has any."""
    return (rows["method"] + " " + rows["settings"]).str.strip()


def csv_of(look: str) -> Path:
    """Return the file of a look's rows."""
    return HERE / f"recipes_{look}.csv"


def read(look: str) -> pd.DataFrame:
    """Return the rows of a look."""
    return pd.read_csv(csv_of(look), keep_default_na=False, dtype={"settings": str})


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, write the CSV and print the table."""
    options = parser()
    args = options.parse_args(argv)
    if complaint := checked(args):
        options.error(complaint)
    if not args.table and not args.compare:
        status = run(args)
        if status:
            return status
    rows = read(args.look)
    made = compared(rows, *args.compare) if args.compare else table(rows).reset_index()
    if "settings" in made:  # shorter keys keep the table narrow
        made["settings"] = made["settings"].str.replace(r"TRAINER\.[A-Z]+\.", "", regex=True)
    digits = ".2g" if args.compare else ".1f"  # p is small
    shown = tabulate(made.to_dict("list"), headers="keys", tablefmt="github", floatfmt=digits)
    print(shown)
    return 0


def run(args: argparse.Namespace) -> int:
    """Perform the missing runs of a look and write their rows; return the exit status."""
    facts, data = described(), Path(args.data)
    worlds = args.worlds or [
        name for name in worlds_of(args.look) if args.photos or not _photos(name)
    ]
    if args.photos and not (data / list(PHOTOS)[-1]).is_dir():
        make_photos(Path(args.photos, "photos200"), data)
    data.mkdir(parents=True, exist_ok=True)
    seeds = args.seeds or facts["seeds"][args.look]
    jobs = jobs_of(args.look, worlds, args.methods or list(facts["candidates"]), seeds)
    jobs = [replace(job, members=args.ensemble) for job in jobs]
    root = Path(args.output)
    trainings = [training for job in jobs for training in job.trainings]
    planned = [run for one in trainings for run in one.runs(root, data, args.photos or "")]
    status = perform(planned, LocalPool(jobs=args.jobs))
    if not status:
        keep(args.look, pd.DataFrame([row for job in jobs for row in job.rows(root)]).round(3))
    return status


def keep(look: str, rows: pd.DataFrame) -> None:
    """Add rows to the CSV of a look; a row of the same run is replaced."""
    path = csv_of(look)
    known = pd.concat([read(look), rows]) if path.is_file() else rows
    which = ["method", "settings", "reading", "world", "seed"]
    known.drop_duplicates(which, keep="last").to_csv(path, index=False)


def worlds_of(look: str) -> list[str]:
    """Return the worlds of a look."""
    worlds = described()["worlds"]
    heldout = [name for name, facts in worlds.items() if facts.get("look") == "heldout"]
    return heldout if look == "heldout" else [name for name in worlds if name not in heldout]


def _photos(world: str) -> bool:
    return world in PHOTOS


def checked(args: argparse.Namespace) -> str:
    """Return an error message for invalid arguments, or ""."""
    if args.photos and not Path(args.photos, "photos200").is_dir():
        return f"--photos must be a folder that holds photos200/, got {args.photos}"
    allowed = described()["seeds"][args.look]
    if foreign := sorted(set(args.seeds or ()) - set(allowed)):
        return f"--seeds of the {args.look} look must be of {allowed}, got {foreign[0]}"
    looked = worlds_of(args.look)
    if foreign := [name for name in args.worlds or () if name not in looked]:
        return f"--worlds of the {args.look} look must be of {' '.join(looked)}, got {foreign[0]}"
    asked = [name for name in args.worlds or () if _photos(name)]
    if asked and not args.photos and not args.table:
        return f"{' '.join(asked)} need --photos, the folder of the photographs and their CLIP"
    if (args.table or args.compare) and not csv_of(args.look).is_file():
        return f"no {csv_of(args.look)} yet: run the look without --table"
    known = set(named_rows(read(args.look))) if args.compare else set()
    if args.compare and (lost := [name for name in args.compare if name not in known]):
        return f"--compare must name rows of the table ({', '.join(sorted(known))}), got {lost[0]}"
    return ""


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = made.add_argument
    add("look", choices=list(described()["seeds"]))
    facts = described()
    add("--methods", nargs="+", choices=list(facts["candidates"]), help="default: all")
    add("--worlds", nargs="+", choices=list(facts["worlds"]), help="default: all that can be")
    add("--seeds", nargs="+", type=int, help="default: all of the look")
    add("--photos", help="folder that holds photos200/ and photos200_clip.pt")
    add("--data", default="data", help="folder for bundled data and edited photographs")
    add("--output", default="output/recipes", help="where the runs go")
    add("--ensemble", type=int, default=1, metavar="M", help="average M trainings, other starts")
    add("--jobs", type=int, default=2, help="runs at a time")
    add("--table", action="store_true", help="run nothing, print the CSV as a table")
    add("--compare", nargs=2, metavar="ROW", help="run nothing: paired differences of HM")
    return made


if __name__ == "__main__":
    sys.exit(main())
