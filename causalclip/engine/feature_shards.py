"""One set of image features filled by any number of processes, which share nothing but a folder.

A shard is some whole batches, so that each image stands in the batch it would stand in for one
process alone: the bytes are the same. Who encodes a shard has a lock of the system's own, which
ends with its process, however that ends (POSIX, on network shares too).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from causalclip.files.atomic import replacing, reserve
from causalclip.files.checked import is_whole, seal
from causalclip.runs.lock import HELD

MOST = 1024  # shards of a set; a shard that is lost with its process is lost work
PATIENCE = 0.05  # seconds between two looks at what the others do
CLAIMS = "claims"  # one file for all sets of a cache; it stays, whoever waits may have it open

Encode = Callable[[Iterable[range]], Iterator[tuple[range, np.ndarray]]]
"""Batches of rows, asked for one by one, to the same batches with their features (B, D)."""


@dataclass(frozen=True)
class Shards:
    """The features (N, D) of one file of the cache while they come to be."""

    file: Path
    """Where they go once they are all there."""
    n_images: int
    dim: int
    batch_size: int

    @property
    def batches_each(self) -> int:
        """Batches of a shard, the last one has perhaps fewer."""
        return max(1, -(-self.n_images // (self.batch_size * MOST)))

    @property
    def folder(self) -> Path:
        """Where shards wait for the others; those of another size have another folder."""
        rows = self.batches_each * self.batch_size
        return self.file.with_suffix(f".{rows}.shards")

    def rows(self, number: int) -> range:
        """The images of a shard."""
        size = self.batches_each * self.batch_size
        return range(self.n_images)[number * size : (number + 1) * size]

    def __len__(self) -> int:
        return -(-self.n_images // (self.batches_each * self.batch_size))

    def path(self, number: int) -> Path:
        """The file of a shard, which is there once it is whole."""
        return self.folder / f"{number}.npy"

    def missing(self) -> list[int]:
        """The shards that are not there yet."""
        there: set[str] = set()
        with suppress(FileNotFoundError):  # nobody has begun, or all is done
            there.update(os.listdir(self.folder))
        return [number for number in range(len(self)) if self.path(number).name not in there]

    def done(self) -> int:
        """Images whose shards are there."""
        return self.n_images - sum(len(self.rows(number)) for number in self.missing())

    def fill(self, encode: Encode, bar: tqdm) -> None:
        """Encode what nobody else encodes until the file is there; the bar counts everybody's.

        A file that is there and damaged is made again.

        Raises:
            OSError: a shard cannot be written; those that are there stay.
        """
        with Claims.beside(self.file) as claims:
            self._drop_damaged(claims)
            while not self.file.exists():
                if missing := self.missing():
                    worked = self._encode_free(missing, encode, claims, bar)
                else:
                    worked = self._join(claims)
                if not worked:  # all that is left is others' work
                    time.sleep(PATIENCE)
                bar.update(max(0, self.done() - bar.n))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop_damaged(self, claims: Claims) -> None:
        """Remove a file that is there but damaged, as one process at a time: not a new one."""
        number = len(self)
        while not claims.take(number):
            time.sleep(PATIENCE)
        if self.file.exists() and not is_whole(self.file):
            self.file.unlink(missing_ok=True)
        claims.release(number)

    def _encode_free(
        self, missing: Iterable[int], encode: Encode, claims: Claims, bar: tqdm
    ) -> bool:
        """Whether there was something left to encode."""
        claimed: list[int] = []
        rows: list[np.ndarray] = []
        batches = self._free(missing, claims, claimed)
        if (first := next(batches, None)) is None:
            return False  # before any loading process is started
        for batch, features in encode(chain([first], batches)):
            rows.append(features)
            bar.update(len(features))
            if batch.stop == self.rows(claimed[0]).stop:
                number = claimed.pop(0)
                self._write(number, np.concatenate(rows))
                claims.release(number)
                rows.clear()
        return True

    def _free(self, missing: Iterable[int], claims: Claims, claimed: list[int]) -> Iterator[range]:
        """Batches of shards that nobody else works on, each claimed when it is asked for."""
        for number in missing:
            if not claims.take(number):
                continue
            if self.path(number).exists() or self.file.exists():  # done since we looked
                claims.release(number)
                continue
            claimed.append(number)
            rows = self.rows(number)
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]

    def _write(self, number: int, features: np.ndarray) -> None:
        with replacing(self.path(number)) as part:
            with open(part, "wb") as out:
                np.save(out, features)
            seal(part)

    def _join(self, claims: Claims) -> bool:
        """Put the shards together, unless somebody else does it; whether the file is there."""
        number = len(self)
        if claims.take(number):
            if not self.file.exists() and not self._drop_damaged_shards():
                with replacing(self.file) as part:
                    self._copy(part)
            claims.release(number)
        return self.file.exists()

    def _drop_damaged_shards(self) -> list[Path]:
        """Remove the shards that are not what was written, so that they are encoded again."""
        damaged = [path for path in map(self.path, range(len(self))) if not is_whole(path)]
        for path in damaged:
            print(f"Encoding again: {path} is damaged, its checksum differs")
            path.unlink()
        return damaged

    def _copy(self, part: Path) -> None:
        shape = (self.n_images, self.dim)
        out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        reserve(part)  # else a full disk kills the process as it writes into the mapping
        for number in range(len(self)):
            rows = self.rows(number)
            out[rows.start : rows.stop] = np.load(self.path(number))
        out.flush()
        seal(part)


@dataclass(frozen=True)
class Claims:
    """Who works on which shard: one locked byte each, at a place that the set's name decides."""

    lock_file: IO[bytes]
    start: int

    @classmethod
    @contextmanager
    def beside(cls, file: Path) -> Iterator[Claims]:
        """The claims on the shards of a file; all that are held end with the block."""
        start = int(file.stem[:10], 16) << 20
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file.parent / CLAIMS, "ab") as lock_file:
            yield cls(lock_file, start)

    def take(self, number: int) -> bool:
        """Claim a shard; False if another process has it."""
        try:
            fcntl.lockf(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.start + number)
        except OSError as error:
            if error.errno not in HELD:
                raise
            return False
        return True

    def release(self, number: int) -> None:
        """Let others have it."""
        fcntl.lockf(self.lock_file, fcntl.LOCK_UN, 1, self.start + number)


def unfinished(folder: Path) -> list[Path]:
    """The sets in a folder of features that are not whole: at work, or left so."""
    return sorted(folder.glob("*.shards"))
