"""Start-up on a replica of ImageNet's file count: time of the second start, and peak memory.

    python benchmarks/imagenet_startup.py [--images 1281167] [--classes 1000] [--folder FOLDER]

Makes empty files in ImageNet's layout in a temporary folder (or uses FOLDER, and leaves it), starts
once to store the list of files, then measures fresh processes, in turn within this run: a plain
sorted listing of all folders, the same with one look at each file as Dassl's Datum takes, our
ImageNet whole and with 16 shots, the whole of train.py (CoOp on `tiny`, 16 shots) from its first
import until the trainer is built, and what torch and torchvision take of that. Seconds of the data
sets are without imports. Expected at full size: ours under 20 s and under 1 GB.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

WAYS = {
    "listing": "plain sorted listing",
    "stat": "listing and a look at each file",
    "whole": "ours, second start",
    "shots": "ours, second start, 16 shots",
    "start": "whole start of train.py",
    "torch": "torch and torchvision alone",
}


def make_replica(root: Path, images: int, classes: int) -> None:
    """Write `images` empty files below train/ and one a class below val/."""
    folder = root / "imagenet"
    names = [f"n{label:08d}" for label in range(classes)]
    for label, name in enumerate(names):
        count = images // classes + (label < images % classes)
        for part, files in (("train", count), ("val", 1)):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for number in range(files):
                os.close(os.open(place / f"{name}_{number}.JPEG", os.O_CREAT | os.O_WRONLY))
    lines = "".join(f"{name} class number {label}\n" for label, name in enumerate(names))
    (folder / "classnames.txt").write_text(lines)


def plain_listing(root: Path, *, look: bool) -> list[str]:
    """List every image of both parts in sorted order, as a few lines of Python do it."""
    paths = []
    for part in ("train", "val"):
        folder = os.path.join(root, "imagenet", "images", part)
        for name in sorted(os.listdir(folder)):
            place = os.path.join(folder, name)
            paths += [os.path.join(place, file) for file in sorted(os.listdir(place))]
    if look and not all(os.path.isfile(path) for path in paths):
        raise FileNotFoundError("an image vanished")
    return paths


def load(root: Path, shots: int) -> tuple[Sequence, tuple[float, float]]:
    """Build the data set as a trainer does."""
    from dassl.config import get_cfg_default

    from causalclip.datasets.imagenet import ImageNet

    cfg = get_cfg_default()
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.SEED, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = 1, str(root), shots
    clock = Clock()
    dataset = ImageNet(cfg)
    return dataset.train_x, clock.passed()


def start_training(root: Path) -> tuple[Sequence, tuple[float, float]]:
    """Do all that train.py does before it trains."""
    clock = Clock()
    from causalclip import plugin
    from causalclip.runs import flags, train
    from causalclip.runs.recipes import CONFIGS

    plugin.register_all()
    words = ["--trainer", "CoOp", "--seed", "1", "--root", root]
    words += ["--dataset-config-file", CONFIGS / "datasets" / "imagenet.yaml"]
    words += ["--config-file", CONFIGS / "trainers" / "CoOp" / "tiny.yaml"]
    with tempfile.TemporaryDirectory() as output:  # for the log
        arguments = [*words, "--output-dir", output, "DATASET.NUM_SHOTS", 16]
        args = flags.parser().parse_args([str(word) for word in arguments])
        trainer = train.prepare(args, train.configure(args))
    return trainer.dm.dataset.train_x, clock.passed()


class Clock:
    """Wall-clock and processor seconds since it was made; the latter do not feel the load."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def passed(self) -> tuple[float, float]:
        """Seconds so far."""
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def measure_here(way: str, root: Path) -> None:
    """Run one way in this process; print both seconds, peak MiB and the number of images."""
    if way in ("listing", "stat"):
        clock = Clock()
        found = plain_listing(root, look=way == "stat")
        seconds = clock.passed()
    elif way == "torch":
        clock = Clock()
        importlib.import_module("torchvision")
        found, seconds = [], clock.passed()
    elif way == "start":
        found, seconds = start_training(root)
    else:
        found, seconds = load(root, 16 if way == "shots" else -1)
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(*seconds, peak, len(found))


def measure(way: str, root: Path) -> list[float]:
    """Run one way in a fresh process."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(root)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(value) for value in output.splitlines()[-1].split()]


def report(root: Path, repeats: int) -> None:
    """Measure all ways in turn, and print the best of each."""
    for way in ("whole", "shots"):
        measure(way, root)  # the first start, which stores what the second reads
    runs = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            runs[way].append(measure(way, root))
    listing = min(run[1] for run in runs["listing"])
    rows = []
    for way, title in WAYS.items():
        seconds, processor = (min(run[i] for run in runs[way]) for i in (0, 1))
        peak, count = runs[way][0][2:]
        rows.append([title, f"{count:,.0f}", seconds, processor, processor / listing, peak])
    headers = ["", "images", "s", "CPU s", "x listing", "peak MiB"]
    print(tabulate(rows, headers=headers, floatfmt=".2f"))


def main() -> None:
    """Make the replica and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="an existing replica, or where to keep one")
    parser.add_argument("--way", choices=WAYS, help="only run this way, and print its figures")
    args = parser.parse_args()
    if args.way:
        measure_here(args.way, args.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        if not (root / "imagenet").exists():
            make_replica(root, args.images, args.classes)
        report(root, args.repeats)


if __name__ == "__main__":
    main()
