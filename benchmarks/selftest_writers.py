"""Writers of every kind of file, by name, that `selftest_faults.py` kills and starves."""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.utils import save_checkpoint
from PIL import Image
from torchvision.transforms import ToTensor

from causalclip.engine.checkpoint_file import last_written, read_checkpoint
from causalclip.engine.feature_cache import Encoder
from causalclip.files.archives import unpack
from causalclip.files.caches import store_json
from causalclip.report.predictions import Predictions
from causalclip.report.results import Result
from causalclip.runs.identity import Identity, Recorded, read_run, write_run

LENGTH = 20_000  # numbers or letters in what is written, so that some pages of a disk are needed


@dataclass(frozen=True)
class Writer:
    """Writes the version `number` of a file in a folder, and says which version is there."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    alone: bool = False
    """Whether runs write it in a folder that they hold."""


def _of(numbers: Any) -> int:
    """The number that an array holds throughout."""
    (number,) = np.unique(np.asarray(numbers))
    return int(number)


def _write_result(folder: Path, number: int) -> None:
    facts = {"schema": 2, "trainer": "CoOp", "backbone": "x" * LENGTH, "dataset": "X"}
    Result.of_record({**facts, "seed": number, "shots": 2, "metrics": {"accuracy": 0.5}}).write(
        folder
    )


def _write_run(folder: Path, number: int) -> None:
    write_run(folder, Recorded(Identity({"SEED": number, "NAME": "x" * LENGTH}), {}), {})


def _read_run(folder: Path) -> int:
    found = read_run(folder)
    assert found is not None, "it was written before"
    return int(str(found.identity.settings["SEED"]))


def _write_checkpoint(folder: Path, number: int) -> None:
    state = {"state_dict": {"ctx": torch.full((LENGTH // 4,), float(number))}, "epoch": number}
    save_checkpoint(state, str(folder))


def _read_checkpoint(folder: Path) -> int:
    found = read_checkpoint(folder / last_written(folder))
    assert _of(found["state_dict"]["ctx"]) == found["epoch"], "of one checkpoint"
    return found["epoch"]


@functools.cache
def _archive(number: int) -> bytes:
    buffer, content = io.BytesIO(), bytes([number]) * LENGTH
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in "ab":
            info = tarfile.TarInfo(f"set{number}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _unpack(folder: Path, number: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:  # on another disk
        archive.write(_archive(number))
        archive.flush()
        unpack(Path(archive.name), folder / "unpacked", most_bytes=1_000_000)


def _unpacked(folder: Path) -> int:
    there = {int(path.name[3:]): sorted(path.iterdir()) for path in folder.glob("unpacked/set*")}
    for number, files in there.items():
        assert [path.read_bytes() for path in files] == [bytes([number]) * LENGTH] * 2
    return max(there)


def _features(folder: Path, number: int) -> np.ndarray:
    paths = []
    for index in range(4):
        paths.append(str(folder / f"{index}.ppm"))
        if not os.path.exists(paths[-1]):
            Image.new("RGB", (8, 8)).save(paths[-1])
    wide = 1000
    encode = lambda images: torch.full((len(images), wide), float(number))  # noqa: E731
    options: dict[str, Any] = {"dim": wide, "transform": ToTensor(), "root": str(folder)}
    encoder = Encoder(encode, identity=str(number), cache=folder, batch_size=2, **options)
    features = encoder.features(paths)
    assert _of(features) == number, "features of another tower"
    return features


def _read_features(folder: Path) -> int:
    number = int(os.readlink(folder / "made"))
    _features(folder, number)
    return number


def _write_features(folder: Path, number: int) -> None:
    _features(folder, number)
    link = folder / f"made by {os.getpid()}"
    link.symlink_to(str(number))
    link.replace(folder / "made")


WRITERS = {
    "split": Writer(
        lambda folder, number: store_json(folder / "split.json", [number] * LENGTH),
        lambda folder: _of(json.loads((folder / "split.json").read_text())),
    ),
    "result": Writer(_write_result, lambda folder: Result.read(folder / "results.json").seed),
    "predictions": Writer(
        lambda folder, number: Predictions({"labels": np.full(LENGTH, number)}).write(folder),
        lambda folder: _of(np.load(folder / "predictions.npz")["labels"]),
    ),
    "run": Writer(_write_run, _read_run),
    "checkpoint": Writer(_write_checkpoint, _read_checkpoint, alone=True),
    "unpacked archive": Writer(_unpack, _unpacked),
    "features": Writer(_write_features, _read_features),
}
