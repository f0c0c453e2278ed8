"""Estimate the cost of all published tables: every protocol, method, data set and seed.

    python benchmarks/cost_model.py [--devices 1 8 64] [--rate 35e12] [--step-ms 20]
        [--images-per-second 1000] [--start 15]
    python benchmarks/cost_model.py --by-method    # base-to-novel trainings against CoOp's

The runs are those of `causalclip run`, with ViT-B/16. The multiply-adds of a step are counted for
the published way (77 tokens a text) and for ours (only tokens that are read). Weights are frozen,
so a backward pass costs as much as a forward pass. Seconds are multiply-adds divided by `--rate`;
a step takes at least `--step-ms`, loading is limited to `--images-per-second`, and each run has a
start of `--start` seconds. Devices get the runs in the plan's order, a test after its training.
docs/scale.md gives the sources of the numbers and the assumptions.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causalclip.errors import UserError
from causalclip.runs.configuration import planned_settings
from causalclip.runs.plan import Run, plan
from causalclip.runs.protocols import PROTOCOLS, Protocol
from causalclip.runs.recipes import methods
from causalclip.runs.request import Request, check

IMAGE = 17.5e9  # multiply-adds of ViT-B/16's image tower, forward
TOKEN = 12 * 12 * 512**2  # multiply-adds of a token in its text tower
START, NAME, PADDED = 5, 3.5, 77  # tokens: a common start, a class of its own, a padded text
HOUR = 3600.0
BATCH = "DATALOADER.TRAIN_X.BATCH_SIZE"

# Classes and images (training or all, test) of each set: docs/datasets.md.
SETS = {
    "imagenet": (1000, 50_000),
    "caltech101": (100, 2_465),
    "oxford_pets": (37, 3_669),
    "stanford_cars": (196, 8_041),
    "oxford_flowers": (102, 2_463),
    "food101": (101, 30_300),
    "fgvc_aircraft": (100, 3_333),
    "sun397": (397, 19_850),
    "dtd": (47, 1_692),
    "eurosat": (10, 8_100),
    "ucf101": (101, 3_783),
    "imagenetv2": (1000, 10_000),
    "imagenet_sketch": (1000, 50_889),
    "imagenet_a": (200, 7_500),
    "imagenet_r": (200, 30_000),
    "domainbed_pacs": (7, 9_991),
    "domainbed_vlcs": (5, 10_729),
    "domainbed_office_home": (65, 15_588),
    "domainbed_terra_incognita": (10, 24_788),
    "domainbed_domain_net": (345, 586_575),
}
DOMAINS = {name: 6 if name.endswith("domain_net") else 4 for name in SETS if "domainbed" in name}

IMAGE_PROMPTS = {"MaPLe", "IVLP", "PromptSRC", "VPT", "CDC", "MMRL", "MMRLpp", "MMA", "CLIP_LoRA"}
IMAGE_PROMPTS |= {"TwoSFS", "MMApp"}
TEXT_PROMPTS = (IMAGE_PROMPTS - {"VPT"}) | {"CoOp", "KgCoOp", "TCP", "ProGrad", "CoCoOp", "CIPT"}
TEXT_PASSES = {"ProGrad": 3}  # a gradient of each of its two terms
# Additional passes of each image: in frozen CLIP, or at another scale.
FROZEN_PASSES = {"PromptSRC": 1, "MMRL": 1, "MMRLpp": 1, "MMApp": 1}
TEMPLATES = {"CDC": 4}
# Per test image: number of views, and passes of all texts (TPT: forward, backward, forward).
TEST_VIEWS, TEST_TEXTS = {"TPT": 64}, {"CoCoOp": 1, "TPT": 3}
# Mean seconds of a base-to-novel run on an unnamed GPU: README of Koorye/SkipTuning.
REPORTED = {"CoOp": 1186, "CoCoOp": 2851, "ProGrad": 2311, "KgCoOp": 1191}
REPORTED |= {"MaPLe": 413, "PromptSRC": 1735, "TCP": 619}


@dataclass(frozen=True)
class Device:
    """The speed of a device and the other assumptions of the estimate."""

    rate: float
    step: float
    loaded: float
    start: float


@dataclass(frozen=True)
class Size:
    """The size of a run."""

    method: str
    classes: float
    trained: float
    """Training images of all epochs together."""
    batch: int
    tested: float


def size_of(run: Run) -> Size:
    """Return the classes, images and batch of a run."""
    settings = planned_settings(run.arguments)
    word = run.arguments[run.arguments.index("--dataset-config-file") + 1]
    dataset, method = Path(word).stem, settings["TRAINER.NAME"]
    classes, images = SETS[dataset]
    tested = images / DOMAINS.get(dataset, 1)
    if settings.get("DATASET.SUBSAMPLE_CLASSES", "all") != "all":
        classes, images, tested = classes / 2, images / 2, tested / 2
    shots = settings.get("DATASET.NUM_SHOTS", 0)
    # The other domains without their held-out fifths, or so many of each class.
    drawn = 0.8 * (images - tested) if shots == -1 else shots * classes
    learns = method in TEXT_PROMPTS | IMAGE_PROMPTS
    trained = drawn * (settings["OPTIM.MAX_EPOCH"] if learns else 1)  # else features, once
    if "--eval-only" in run.arguments or method.startswith(("Zeroshot", "TDA", "TPT")):
        trained = 0
    return Size(method, classes, trained, settings.get(BATCH, 32), tested)


def step_work(size: Size, tokens: float) -> float:
    """Return the multiply-adds of a training step whose texts have so many tokens in all."""
    method = size.method
    texts = TEMPLATES.get(method, 1) * (size.batch if method == "CoCoOp" else 1)
    text = TEXT_PASSES.get(method, 2) * texts * tokens * TOKEN if method in TEXT_PROMPTS else 0
    passes = (2 if method in IMAGE_PROMPTS else 1) * TEMPLATES.get(method, 1)
    return text + size.batch * IMAGE * (passes + FROZEN_PASSES.get(method, 0))


def test_work(size: Size, tokens: float, *, again: bool) -> float:
    """Return the multiply-adds of an evaluation; texts `again` for each batch of 100, or once."""
    per_image = TEST_TEXTS.get(size.method, 0)
    texts = per_image * size.tested or (size.tested / 100 if again else 1)
    images = size.tested * TEST_VIEWS.get(size.method, 1)
    return images * IMAGE + texts * tokens * TOKEN


def seconds(size: Size, device: Device, *, published: bool) -> float:
    """Return the seconds of a run."""
    tokens = PADDED * size.classes if published else START + NAME * size.classes
    steps = size.trained / size.batch
    step = max(step_work(size, tokens) / device.rate, device.step, size.batch / device.loaded)
    test = test_work(size, tokens, again=published) / device.rate
    return device.start + steps * step + max(test, size.tested / device.loaded)


def makespan(runs: Sequence[Run], each: dict[Path, float], devices: int) -> float:
    """Return the seconds until all runs are done, started in the plan's order, trainings first."""
    free, ended = [0.0] * devices, {}
    for run in sorted(runs, key=lambda run: run.trained is not None):
        begin = max(heapq.heappop(free), ended.get(run.trained, 0.0))
        ended[run.folder] = begin + each[run.folder]
        heapq.heappush(free, ended[run.folder])
    return max(free)


def runs_of(protocol: Protocol) -> list[Run]:
    """Return the plan of a protocol for every method that can do it."""
    runs = {}
    for method in methods():
        request = Request(protocol, (method,), protocol.datasets, ("1", "2", "3"))
        try:
            check(request)
        except UserError:  # it cannot name the classes
            continue
        for run in plan(request, lambda name: [f"d{n}" for n in range(DOMAINS[name])]):
            runs.setdefault(run.folder, run)
    return list(runs.values())


def main() -> None:
    """Print hours by protocol and number of devices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rate", type=float, default=35e12)
    parser.add_argument("--step-ms", type=float, default=20)
    parser.add_argument("--images-per-second", type=float, default=1000)
    parser.add_argument("--start", type=float, default=15)
    parser.add_argument("--by-method", action="store_true", help="base-to-novel trainings alone")
    args = parser.parse_args()
    if args.by_method:
        by_method()
        return
    device = Device(args.rate, args.step_ms / 1e3, args.images_per_second, args.start)
    heads = "".join(f" {n} |" for n in args.devices)
    print(f"| protocol | runs | published, 1 |{heads}\n|" + "---|" * (3 + len(args.devices)))
    everything, ours, theirs = {}, {}, {}
    for name, protocol in PROTOCOLS.items():
        runs = runs_of(protocol)
        sizes = {run.folder: size_of(run) for run in runs}
        own = {folder: seconds(size, device, published=False) for folder, size in sizes.items()}
        old = {folder: seconds(size, device, published=True) for folder, size in sizes.items()}
        _row(name, runs, own, old, args.devices)
        everything.update({run.folder: run for run in runs})
        ours.update(own)
        theirs.update(old)
    _row("all, shared trainings once", list(everything.values()), ours, theirs, args.devices)


def by_method() -> None:
    """Print the arithmetic of each method's base-to-novel trainings over CoOp's."""
    works = {}
    for run in runs_of(PROTOCOLS["base2new"]):
        size = size_of(run)
        for way, tokens in (("old", PADDED * size.classes), ("own", START + NAME * size.classes)):
            work = size.trained / size.batch * step_work(size, tokens)
            works[size.method, way] = works.get((size.method, way), 0) + work
    print("| method | reported seconds | published arithmetic | ours |\n|---|---|---|---|")
    unit = works["CoOp", "old"]
    for method, way in works:
        if way == "old" and method in TEXT_PROMPTS | IMAGE_PROMPTS:
            reported = f"{REPORTED[method] / REPORTED['CoOp']:.2f}" if method in REPORTED else "-"
            old, own = works[method, "old"] / unit, works[method, "own"] / unit
            print(f"| {method} | {reported} | {old:.2f} | {own:.2f} |")


def _row(
    name: str,
    runs: Sequence[Run],
    ours: dict[Path, float],
    theirs: dict[Path, float],
    devices: Sequence[int],
) -> None:
    spans = "".join(f" {makespan(runs, ours, n) / HOUR:.1f} |" for n in devices)
    print(f"| {name} | {len(runs):,} | {sum(theirs.values()) / HOUR:.0f} |{spans}")


if __name__ == "__main__":
    main()
