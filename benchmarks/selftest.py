"""Puts the readers and writers of files through damaged inputs and kills, and counts what came out.

    python benchmarks/selftest.py --minutes 5 --seed 0

A reader may answer or refuse (ValueError, OSError): anything else is a traceback that a user would
see. A killed writer may leave the old file or the new one, and nothing beside it for long; so may
one on a full disk, which has to say so. Only root tries those: he may mount one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import json
import os
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from selftest_faults import four_at_a_lock, four_at_once, killed_at, on_full_disk
from selftest_writers import WRITERS

from causalclip import plugin
from causalclip.data.splits import check_labels, read_split_rows
from causalclip.engine.checkpoint_file import last_written, read_checkpoint
from causalclip.files.archives import unpack
from causalclip.files.atomic import replacing
from causalclip.files.digests import is_vouched_for
from causalclip.report.results import Result
from causalclip.runs.configuration_file import merge_file
from causalclip.runs.identity import Identity, read_run

SLOW = 60.0  # seconds
FINE = {"answered", "refused", "old", "new", "fine", "said, old", "said, new", "room, new"}
WORDS = (b"", b"null", b"-1", b"1e999", b'"', b"[", b"{", b"../", b"\x00", b"\xff", b"9" * 30)
SIZES = (0, 100_000)  # bytes of the file that is there, and of the one that a killed writer writes


# Inputs: a whole one of each kind, and who reads it


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"set/{number}.txt")
            info.size = 2000
            archive.addfile(info, io.BytesIO(bytes([number]) * 2000))
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"set/{number}.txt", bytes([number]) * 2000)
    return buffer.getvalue()


def _checkpoint() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.zeros(4, 8)}, "epoch": 1, "identity": {}}, buffer)
    return buffer.getvalue()


SPLIT = {part: [[f"a/{n}.jpg", n % 2, "ab"[n % 2]] for n in range(4)] for part in ("train", "test")}
RESULT = {"schema": 2, "trainer": "CoOp", "backbone": "tiny", "dataset": "X", "seed": 1}
RESULT |= {"shots": 2, "metrics": {"accuracy": 0.5}, "config": {"OPTIM": {"LR": 0.1}}}
RUN = {"schema": 1, "identity": {"settings": {"OPTIM.LR": 0.1}}, "configuration": {}}
RUN["fingerprint"] = Identity({"OPTIM.LR": 0.1}).fingerprint


def _pointer(path: Path) -> object:
    (path.parent / "checkpoint").write_bytes(path.read_bytes())
    return last_written(path.parent)


def _run(path: Path) -> object:
    path.rename(path.with_name("run.json"))
    return read_run(path.parent)


def _split(path: Path) -> object:
    return check_labels(read_split_rows(path), str(path))


def _configuration(path: Path) -> object:
    return merge_file(plugin.default_cfg(), str(path))


def _digest(path: Path) -> object:
    path.with_name(path.name + ".sha256").write_bytes(path.read_bytes())
    return is_vouched_for(path)


def _unpack(path: Path) -> object:
    return unpack(path, path.parent / "target", most_bytes=1_000_000)


@functools.cache
def kinds() -> dict[str, tuple[bytes, str, Callable[[Path], object]]]:
    """Name -> a whole file, its name, its reader."""
    return {
        "tar.gz": (_tar(), "a.tar.gz", _unpack),
        "zip": (_zip(), "a.zip", _unpack),
        "checkpoint": (_checkpoint(), "model.pth.tar-1", read_checkpoint),
        "pointer": (b"model.pth.tar-1\n", "pointer", _pointer),
        "split": (json.dumps({**SPLIT, "val": []}).encode(), "split.json", _split),
        "result": (json.dumps(RESULT).encode(), "results.json", Result.read),
        "run": (json.dumps(RUN).encode(), "other.json", _run),
        "configuration": (
            b"OPTIM:\n  LR: 0.1\nINPUT:\n  SIZE: (32, 32)\n",
            "a.yaml",
            _configuration,
        ),
        "digest": (b"0" * 64 + b"  a.pt\n", "a.pt", _digest),
    }


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with a bit flipped, cut, repeated, or with something inserted, once or more."""
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        place, length = draw.randrange(len(content) + 1), draw.randrange(1, 40)
        head, tail = content[:place], content[place:]
        content = {
            "flip": head + bytes(b ^ (1 << draw.randrange(8)) for b in tail[:1]) + tail[1:],
            "cut": head,
            "drop": head + tail[length:],
            "repeat": head + tail[:length] + tail,
            "insert": head + draw.choice(WORDS) + tail,
            "zero": head + bytes(len(tail[:length])) + tail[length:],
        }[draw.choice(("flip", "flip", "cut", "drop", "repeat", "insert", "zero"))]
    return content


def read_one(kind: str, draw: random.Random, folder: Path) -> str:
    """Read one damaged file of a kind: "answered", "refused", or what went wrong."""
    content, name, reader = kinds()[kind]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "inside" / name
        path.parent.mkdir()
        path.write_bytes(damaged(content, draw))
        begun = time.monotonic()
        try:
            reader(path)
            outcome = "answered"
        except (ValueError, OSError):
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 (what is counted)
            outcome = f"traceback: {type(error).__name__}: {error}"
        if time.monotonic() - begun > SLOW:
            outcome = "slow"
        if os.listdir(place) != ["inside"] or os.listdir(folder) != [Path(place).name]:
            outcome = "wrote outside"
        if any(x.name.endswith(".part") for x in path.parent.iterdir()):
            outcome = "left something"
        return outcome


# Kills


def kill_one(draw: random.Random, folder: Path) -> str:
    """Kill a writer at a random moment: "old", "new", or what went wrong."""
    path = folder / "file"
    old, new = (bytes([draw.randrange(256)]) * size for size in SIZES)
    path.write_bytes(old)
    child = os.fork()
    if child == 0:  # in the writer
        while True:
            with replacing(path) as part:
                part.write_bytes(new)
    time.sleep(draw.random() * 0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = path.read_bytes()
    with replacing(folder / "file") as part:
        part.write_bytes(new)
    left = sorted(os.listdir(folder))
    path.unlink()
    if left != ["file"]:
        return "left something"
    return {old: "old", new: "new"}.get(found, "neither the old file nor the new one")


# Writers: killed at each file operation, four at once, on a full disk


def disturb(count: Counter, kind: str, seed: str, folder: Path) -> None:
    """Count what comes of all that can happen to the writer of one kind."""
    writer, draw = WRITERS[kind], random.Random(f"{seed} {kind}")
    for operation in itertools.count(1):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            outcome, killed = killed_at(writer, Path(place), operation)
        count[f"{kind}, killed at an operation", outcome] += 1
        if not killed:
            break
    trials = [("four at once", four_at_once)]
    if os.geteuid() == 0:
        trials += [("full disk", on_full_disk)] * 4
    for name, trial in trials:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            count[f"{kind}, {name}", trial(writer, Path(place), draw)] += 1


# The whole


def run_all(seed: int, seconds: float) -> Counter:
    """Rounds of 90 damaged files, nine kills and one kind of writer, until time is over."""
    count: Counter = Counter()
    end = time.monotonic() + seconds
    kinds_in_turn = itertools.cycle(WRITERS)
    with tempfile.TemporaryDirectory() as temporary:
        for number in itertools.count():
            if time.monotonic() > end:
                return count
            count += run(90, hash((seed, number)), seconds=end - time.monotonic())
            disturb(count, next(kinds_in_turn), f"{seed} {number}", Path(temporary))
            with tempfile.TemporaryDirectory(dir=temporary) as place:
                count["lock, four at once", four_at_a_lock(Path(place))] += 1
    raise AssertionError


def run(rounds: int, seed: int, *, seconds: float = float("inf")) -> Counter:
    """Outcomes of `rounds` damaged files and a kill for every tenth, until time is over."""
    count: Counter = Counter()
    names, end = sorted(kinds()), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        inputs, kills = (Path(temporary) / name for name in ("inputs", "kills"))
        inputs.mkdir()
        kills.mkdir()
        for number in range(rounds):
            if time.monotonic() > end:
                break
            draw = random.Random(f"{seed} {number}")
            kind = names[number % len(names)]
            count[kind, read_one(kind, draw, inputs)] += 1
            if number % 10 == 0:
                count["killed writer", kill_one(draw, kills)] += 1
    return count


def main() -> int:
    """Print the counts; 1 if anything but an answer or a refusal came out."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--minutes", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    print(f"seed {args.seed}", flush=True)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        count = run_all(args.seed, 60 * args.minutes)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = max(memory, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    print(f"at most {memory / 2**20:.2f} GB in one process")
    for (kind, outcome), times in sorted(count.items()):
        print(f"{times:7,}  {kind}: {outcome}")
    return int(any(outcome not in FINE for _, outcome in count))


if __name__ == "__main__":
    sys.exit(main())
