"""Writers that are killed, that write one file at once, or that run out of disk.

A reader then sees the old file or the new one, and the next writer leaves nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import faults
from dassl.utils import save_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import ToTensor

from causalclip.engine.checkpoint_file import last_written, read_checkpoint
from causalclip.engine.feature_cache import Encoder
from causalclip.files.caches import store_json
from causalclip.files.download import unpack
from causalclip.records.identity import Identity, read_run, write_run
from causalclip.records.predictions import Predictions
from causalclip.records.results import Result

LENGTH = 20_000
"""Numbers or letters in what is written, so that some pages of a disk are needed."""
OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.chmod"}
OPERATIONS |= {"os.truncate"}
MOST_SECONDS = 600.0

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork next to threads


@dataclass(frozen=True)
class Writer:
    """Write version `number` of a file in a folder; return the version that is there."""

    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def only(numbers: Any) -> int:
    """Return the number that an array holds throughout."""
    (number,) = np.unique(np.asarray(numbers))
    return int(number)


def write_result(folder: Path, number: int) -> None:
    facts = {"schema": 2, "trainer": "CoOp", "backbone": "x" * LENGTH, "dataset": "X", "shots": 2}
    Result.of_record({**facts, "seed": number, "metrics": {"accuracy": 0.5}}).write(folder)


def read_checkpoint_number(folder: Path) -> int:
    content = read_checkpoint(folder / last_written(folder))
    assert only(content["state_dict"]["ctx"]) == content["epoch"]
    return content["epoch"]


def write_archive(folder: Path, number: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as archive:  # on another disk
        with tarfile.open(archive.name, mode="w:gz") as file:
            for name in "ab":
                info = tarfile.TarInfo(f"set{number}/{name}")
                info.size = LENGTH
                file.addfile(info, io.BytesIO(bytes([number]) * LENGTH))
        unpack(Path(archive.name), folder / "unpacked", most_bytes=1_000_000)


def read_archive(folder: Path) -> int:
    there = {int(path.name[3:]): sorted(path.iterdir()) for path in folder.glob("unpacked/set*")}
    for number, files in there.items():
        assert [path.read_bytes() for path in files] == [bytes([number]) * LENGTH] * 2
    return max(there)


def features(folder: Path, number: int) -> None:
    paths = [str(folder / f"{index}.ppm") for index in range(4)]
    for path in paths:
        if not os.path.exists(path):
            Image.new("RGB", (8, 8)).save(path)
    options: dict[str, Any] = {"dim": 1000, "transform": ToTensor(), "root": str(folder)}
    encode = lambda images: torch.full((len(images), 1000), float(number))  # noqa: E731
    encoder = Encoder(encode, identity=str(number), cache=folder, batch_size=2, **options)
    assert only(encoder.features(paths)) == number


def write_features(folder: Path, number: int) -> None:
    features(folder, number)
    link = folder / f"made by {os.getpid()}"
    link.symlink_to(str(number))
    link.replace(folder / "made")


def read_features(folder: Path) -> int:
    number = int(os.readlink(folder / "made"))
    features(folder, number)
    return number


WRITERS = {
    "run": Writer(
        lambda folder, n: write_run(folder, Identity({"SEED": n, "NAME": "x" * LENGTH}), {}),
        lambda folder: int(str(read_run(folder).settings["SEED"])),
    ),
    "result": Writer(write_result, lambda folder: Result.read(folder / "results.json").seed),
    "predictions": Writer(
        lambda folder, n: Predictions({"labels": np.full(LENGTH, n)}).write(folder),
        lambda folder: only(Predictions.read(folder / "predictions.npz").arrays["labels"]),
    ),
    "split": Writer(
        lambda folder, n: store_json(folder / "split.json", [n] * LENGTH),
        lambda folder: only(json.loads((folder / "split.json").read_text())),
    ),
    "checkpoint": Writer(
        lambda folder, n: save_checkpoint(
            {"state_dict": {"ctx": torch.full((LENGTH // 4,), float(n))}, "epoch": n}, str(folder)
        ),
        read_checkpoint_number,
    ),
    "archive": Writer(write_archive, read_archive),
    "features": Writer(write_features, read_features),
}


def in_children(*works: Callable[[], object]) -> list[tuple[str, int]]:
    """Return the error of each work, "" for none, and the status of the process that did it."""
    running = []
    for work in works:
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            torch.set_num_threads(1)  # the threads of the parent are not here
            try:
                work()
            except BaseException:  # noqa: BLE001 (the parent reports it)
                os.write(writer, traceback.format_exc().encode()[-4000:])
            os._exit(0)
        os.close(writer)
        running.append((process, reader))
    ended, end = [], time.monotonic() + MOST_SECONDS
    for process, reader in running:
        while not (found := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        with os.fdopen(reader) as file:
            ended.append((file.read(), os.waitstatus_to_exitcode(found[1])))
    return ended


def die_before(operation: int) -> None:
    """Kill this process before its n-th file operation from now."""
    left = operation

    def count(event: str, _arguments: tuple) -> None:
        nonlocal left
        left -= event in OPERATIONS
        if left == 0:
            left = -1  # to kill is an event as well
            os.kill(os.getpid(), signal.SIGKILL)

    sync = os.fsync
    os.fsync = lambda handle: (count("open", ()), sync(handle))[1]
    sys.addaudithook(count)


def version_left(writer: Writer, folder: Path) -> int:
    """Return the version that is there; the next writer has to leave its own and nothing else."""
    found = writer.read(folder)
    writer.write(folder, 9)
    assert writer.read(folder) == 9
    assert not [path for path in folder.rglob("*") if ".part" in path.name]
    return found


def version_after_kill(writer: Writer, operation: int) -> tuple[int, bool]:
    """Return the version after a kill before the n-th operation, and whether it came to that."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        writer.write(folder, 1)
        ((error, status),) = in_children(lambda: (die_before(operation), writer.write(folder, 2)))
        assert not error
        return version_left(writer, folder), status == -signal.SIGKILL


@pytest.mark.minidassl
@faults
@given(st.sampled_from(list(WRITERS)), st.integers(1, 20))
def test_a_kill_before_any_file_operation_leaves_the_old_file_or_the_new_one(kind, operation):
    version, killed = version_after_kill(WRITERS[kind], operation)
    assert version in ((1, 2) if killed else (2,))


def test_kills_before_one_operation_after_the_other_leave_old_files_then_new_ones():
    outcomes = [version_after_kill(WRITERS["run"], number) for number in range(1, 30)]
    versions = [version for version, killed in outcomes if killed]
    assert len(versions) > 4
    assert versions == sorted(versions) and set(versions) == {1, 2}


def test_a_writer_that_does_not_write_to_a_second_file_first_is_noticed(tmp_path):
    def write(folder, number):
        with open(folder / "file", "w") as file:
            file.write(str(number))
            os.fsync(file.fileno())  # until then it is in Python's memory

    bare = Writer(write, lambda folder: json.loads((folder / "file").read_text()))
    with pytest.raises(json.JSONDecodeError):
        version_after_kill(bare, 2)


@pytest.mark.parametrize("kind", ["result", "features", "archive"])
def test_four_processes_that_write_one_file_leave_it_complete(kind, tmp_path):
    writer = WRITERS[kind]
    writer.write(tmp_path, 1)

    def work(order):
        for number in order:
            writer.write(tmp_path, number)
            assert writer.read(tmp_path) in (1, 2, 3, 4)

    orders = ([1, 3, 2, 4], [2, 2, 1, 3], [4, 1, 4, 1], [3, 4, 2, 1])
    ended = in_children(*(lambda order=order: work(order) for order in orders))
    assert ended == [("", 0)] * 4
    assert version_left(writer, tmp_path) in (1, 2, 3, 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@faults
@given(st.sampled_from(list(WRITERS)), st.integers(0, 60_000))
def test_a_full_disk_is_named_with_the_file_and_leaves_what_was_there(kind, room):
    writer = WRITERS[kind]
    with tempfile.TemporaryDirectory() as place, small_disk(Path(place)) as disk:
        writer.write(disk, 1)
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1024)):
                pass
        os.truncate(filler, max(0, filler.stat().st_size - room))
        ((error, status),) = in_children(lambda: writer.write(disk, 2))
        filler.unlink()
        message = error.strip().rpartition("\n")[2]
        assert not error or ("No space left" in message and str(disk) in message), error
        assert status == 0
        assert version_left(writer, disk) == (1 if error else 2)


@contextlib.contextmanager
def small_disk(folder: Path):
    """Mount a disk of 256 KiB."""
    options = ["-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
