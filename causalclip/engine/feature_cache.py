"""Image features of the frozen tower, encoded once and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from dassl.utils import read_image
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from causalclip.engine.cache_size import features_folder, limit_bytes, touch, trim
from causalclip.engine.distributed import is_writer
from causalclip.engine.feature_shards import Encode, Shards
from causalclip.files.atomic import replacing, reserve
from causalclip.files.checked import is_whole, seal

EDITION = 2  # part of every key: raise it when the same key would mean other features

Change = Callable[[Image.Image, str], Image.Image]
"""Changes a picture, given its key; must be picklable, deterministic, and say all in its repr."""


@dataclass(frozen=True)
class Encoder:
    """A frozen image tower and everything that decides its features."""

    encode: Callable[[Tensor], Tensor]
    """Images (B, 3, R, R) to features (B, D)."""
    dim: int
    identity: str
    """Of the weights and the precision."""
    transform: Callable[[Image.Image], Tensor]
    """A deterministic transform; its repr is part of the key."""
    root: str
    """Paths count relative to this folder, so that data may move."""
    batch_size: int = 256
    num_workers: int = 0
    cache: Path | None = None
    """The folder that features are kept in; None keeps and reads none."""
    shared: bool = False
    """Whether other processes want the same features now, and share the work."""

    def key_of(self, path: str) -> str:
        """An image's name in keys and seeds: its path below the data root."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def features(
        self, paths: Sequence[str], change: Change | None = None, *, desc: str = "encode"
    ) -> np.ndarray:
        """Features (N, D) of the images in fp32, each picture first changed by `change`.

        Read from the cache if they are there and whole; computed batch by batch and kept otherwise.
        What comes from or goes to the cache is mapped from disk, not held in memory. Work that
        other processes have begun in shards is gone on with, beside them or after them.

        Args:
            paths: the N image files.
            change: what is done to each picture before the transform.
            desc: what the progress bar says.

        Raises:
            ValueError: features that are NaN or infinite; names the images. A CAUSALCLIP_CACHE_GB
                that is no number.
        """
        if self.cache is None:
            features = np.empty((len(paths), self.dim), np.float32)
            self._fill(features, self._encoded(paths, change), desc)
            return features
        file = self.file_of(paths, change)
        if not _usable(file):
            self._make(file, self._encoded(paths, change), len(paths), desc)
            trim(file.parent, limit_bytes(), keep=file)
        touch(file)
        return np.load(file, mmap_mode="c")  # c: torch wants writable; the file stays as it is

    def file_of(self, paths: Sequence[str], change: Change | None = None) -> Path:
        """Where the features of these images (N,) are kept, changed by `change` first."""
        assert self.cache is not None, "without a cache nothing is kept"
        return features_folder(self.cache) / f"{self._digest(paths, change)}.npy"

    def _digest(self, paths: Sequence[str], change: Change | None) -> str:
        digest = hashlib.sha256()
        facts = [EDITION, self.identity, repr(self.transform), repr(change)]
        digest.update(json.dumps(facts).encode())
        with ThreadPoolExecutor(4) as pool:  # a disk answers several readers sooner
            for path, content in zip(paths, pool.map(content_digest, paths), strict=True):
                digest.update(json.dumps([self.key_of(path), content]).encode())
        return digest.hexdigest()

    def _make(self, file: Path, encoded: Encode, n_images: int, desc: str) -> None:
        """Write the file whole or not at all; of two writers the last wins with equal content."""
        shards = Shards(file, n_images, self.dim, self.batch_size)
        if self.shared or shards.folder.exists():
            with _bar(n_images, desc, done=shards.done()) as bar:
                shards.fill(encoded, bar)
            return
        with replacing(file) as part:
            out = np.lib.format.open_memmap(
                part, mode="w+", dtype=np.float32, shape=(n_images, self.dim)
            )
            reserve(part)  # else a full disk kills the process as it writes into the mapping
            self._fill(out, encoded, desc)
            out.flush()
            seal(part)

    def _fill(self, out: np.ndarray, encoded: Encode, desc: str) -> None:
        rows = range(len(out))
        batches = (rows[start : start + self.batch_size] for start in rows[:: self.batch_size])
        with _bar(len(out), desc) as bar:
            for batch, features in encoded(batches):
                out[batch.start : batch.stop] = features
                bar.update(len(features))

    def _encoded(self, paths: Sequence[str], change: Change | None) -> Encode:
        """What gives the features (B, D) of any batches of these images."""
        pictures = _Pictures(paths, [self.key_of(path) for path in paths], self.transform, change)

        @torch.no_grad()
        def encoded(batches: Iterable[range]) -> Iterator[tuple[range, np.ndarray]]:
            under_way: deque[range] = deque()

            def noted() -> Iterator[range]:
                for batch in batches:
                    under_way.append(batch)
                    yield batch

            loader = DataLoader(
                pictures,
                batch_sampler=cast(Any, noted()),  # asked for as loading processes get free
                num_workers=self.num_workers,
                generator=torch.Generator(),  # else the loader draws from the training's stream
            )
            for images in loader:
                features, batch = self.encode(images).float().cpu().numpy(), under_way.popleft()
                _check_finite(features, paths[batch.start : batch.stop])
                yield batch, features

        return encoded


def _bar(n_images: int, desc: str, *, done: int = 0) -> tqdm:
    hidden: dict[str, Any] = {} if is_writer() else {"disable": True}  # else as TQDM_DISABLE says
    return tqdm(total=n_images, initial=done, desc=desc, unit="image", leave=False, **hidden)


def _usable(file: Path) -> bool:
    try:
        whole = is_whole(file)
    except FileNotFoundError:  # never made, or removed: another process has found it damaged
        return False
    if not whole:
        print(f"Encoding again: {file} is damaged, its checksum differs")
    return whole


def content_digest(path: str) -> str:
    """sha256 of an image file's bytes; read once a process unless the file changes."""
    stat = os.stat(path)
    # Nobody can set the time of change (ctime), so an exchanged file shows.
    return _read_digest(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=200_000)
def _read_digest(path: str, *_state: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class _Pictures(Dataset):
    def __init__(
        self,
        paths: Sequence[str],
        keys: Sequence[str],
        transform: Callable[[Image.Image], Tensor],
        change: Change | None,
    ) -> None:
        self.paths, self.keys, self.transform, self.change = paths, keys, transform, change

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = read_image(self.paths[index])
        if self.change is not None:
            image = self.change(image, self.keys[index])
        return self.transform(image)


def _check_finite(features: np.ndarray, paths: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"image features must be finite, got NaN or infinity for {len(bad)} images, "
            f"the first: {', '.join(str(paths[i]) for i in bad[:5])}"
        )


def batches(features: np.ndarray, size: int = 4096) -> Iterator[Tensor]:
    """Rows of a mapped array (N, D) as tensors (`size`, D): memory does not grow with N."""
    for start in range(0, len(features), size):
        yield torch.from_numpy(features[start : start + size])
