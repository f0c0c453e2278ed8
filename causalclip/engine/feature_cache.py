"""Image features of the frozen tower, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from dassl.data.datasets import Datum
from dassl.utils import read_image
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from causalclip.engine.cache_size import feature_home, features_folder, limit_bytes, touch, trim
from causalclip.engine.loading import shown_by
from causalclip.files.atomic import replacing, reserve
from causalclip.files.digests import content_digests, is_whole, seal

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

CACHE_EDITION = 2  # part of every key: raise it when the same key would mean other features

CHUNK_IMAGES = 4096

Change = Callable[[Image.Image, str], Image.Image]
"""A change of a picture, given its key: picklable, deterministic, all parameters in its repr."""


@dataclass(frozen=True)
class ImageSet:
    """Images whose features a method reads, each picture first changed by `change`."""

    paths: Sequence[str]
    change: Change | None = None

    @classmethod
    def of(cls, items: Sequence[Datum]) -> ImageSet:
        """Return the images of items of a data set, as they are."""
        return cls([item.impath for item in items])


@dataclass(frozen=True)
class Encoder:
    """A frozen image tower and everything that decides its features."""

    encode: Callable[[Tensor], Tensor]
    """Images (B, 3, R, R) to features (B, D)."""
    dim: int
    identity: str
    """Digest of the weights, with the precision and the type of device."""
    transform: Callable[[Image.Image], Tensor]
    """A deterministic transform; its repr is part of the key."""
    root: str
    """Folder that the paths in keys are relative to, so that you can move the data."""
    batch_size: int = 256
    num_workers: int = 0
    cache: Path | None = None
    """Folder of the cache; None: no cache."""

    def key_of(self, path: str) -> str:
        """Return an image's name in keys and seeds: its path below the data root."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def features(
        self, paths: Sequence[str], change: Change | None = None, *, desc: str = "encode"
    ) -> np.ndarray:
        """Return features (N, D) of N image files in fp32, each picture first changed by `change`.

        With a cache, they are read from it; if they are missing or damaged, they are computed batch
        by batch and written to it. The array is then mapped from disk, not loaded into memory.
        The progress bar shows `desc`.

        Raises:
            ValueError: features that are NaN or infinite; names the images. A CAUSALCLIP_CACHE_GB
                that is no number.
        """
        if self.cache is None:
            features = np.empty((len(paths), self.dim), np.float32)
            for batch, values in self._encoded(paths, change, desc):
                features[batch.start : batch.stop] = values
            return features
        file = self.file_of(paths, change)
        if not usable(file):
            write_features(file, len(paths), self.dim, self._encoded(paths, change, desc))
            trim(file.parent, limit_bytes(), keep=file)
        touch(file)
        return np.load(file, mmap_mode="c")  # c: writable, as torch wants it, but never saved

    def items(self, items: Sequence[Datum], *, desc: str = "encode") -> np.ndarray:
        """Return the features (N, D) of N items of a data set; see `features`."""
        return self.features([item.impath for item in items], desc=desc)

    def labelled(self, items: Sequence[Datum], *, desc: str = "encode") -> tuple[Tensor, Tensor]:
        """Return features (N, D) and labels (N,) of N items of a data set, on the CPU."""
        features = torch.from_numpy(self.items(items, desc=desc))
        return features, torch.tensor([item.label for item in items])

    def file_of(self, paths: Sequence[str], change: Change | None = None) -> Path:
        """Return the cache file for the features of N images, each first changed by `change`."""
        assert self.cache is not None, "without a cache nothing is kept"
        digest = hashlib.sha256()
        facts = [CACHE_EDITION, self.identity, repr(self.transform), repr(change)]
        digest.update(json.dumps(facts).encode())
        for path, content in zip(paths, content_digests(paths), strict=True):
            digest.update(json.dumps([self.key_of(path), content]).encode())
        return features_folder(self.cache) / f"{digest.hexdigest()}.npy"

    def chunks(self, images: ImageSet) -> Chunks | None:
        """Return the chunks of a set's cache file; None if the file exists undamaged."""
        file = self.file_of(images.paths, images.change)
        return None if usable(file) else Chunks(file, len(images.paths), self.dim, self.batch_size)

    def write_chunk(self, images: ImageSet, file: Path) -> None:
        """Write the features of some images as a chunk of a larger set."""
        values = [features for _, features in self._encoded(images.paths, images.change)]
        with replacing(file) as part, open(part, "wb") as out:
            np.save(out, np.concatenate(values))

    @torch.no_grad()
    def _encoded(
        self, paths: Sequence[str], change: Change | None, desc: str = ""
    ) -> Iterator[tuple[range, np.ndarray]]:
        """Yield the rows of each batch and their features (B, D); `desc` shows a progress bar."""
        pictures = _Pictures(paths, [self.key_of(path) for path in paths], self.transform, change)
        loader = DataLoader(
            pictures,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # otherwise the loader draws from torch's global one
        )
        bar = tqdm(
            total=len(paths), desc=desc, unit="image", leave=False, disable=None if desc else True
        )
        start = 0
        with bar:
            for images in loader:
                features = self.encode(images).float().cpu().numpy()
                batch = range(start, start + len(features))
                _check_finite(features, paths[batch.start : batch.stop])
                yield batch, features
                bar.update(len(features))
                start = batch.stop


def encoder_of(trainer: CLIPTrainer) -> Encoder:
    """Return the encoder of a trainer's CLIP with its test transform."""
    cfg, backbone = trainer.cfg, trainer.backbone
    return Encoder(
        encode=backbone.encode,
        dim=backbone.embed_dim,
        identity=f"{backbone.digest} {backbone.precision} {trainer.device.type}",
        transform=shown_by(trainer.test_loader).transform,
        root=cfg.DATASET.ROOT,
        batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        cache=feature_home() if cfg.get("FEATURE_CACHE", True) else None,
    )


def usable(file: Path) -> bool:
    """Return whether a feature file exists undamaged; print a line if it is damaged."""
    try:
        whole = is_whole(file)
    except FileNotFoundError:  # never written, or removed by another process
        return False
    if not whole:
        print(f"Encoding again: {file} is damaged, its checksum differs")
    return whole


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
    """Yield rows of a mapped array (N, D) as tensors (`size`, D): memory does not grow with N."""
    for start in range(0, len(features), size):
        yield torch.from_numpy(features[start : start + size])


# Chunks


@dataclass(frozen=True)
class Chunks:
    """The features (N, D) of one file of the cache in chunks, which several processes encode.

    A chunk consists of whole batches. Each image is therefore in the same batch as with a single
    process, and the resulting bytes are the same.
    """

    file: Path
    n_images: int
    dim: int
    batch_size: int

    @property
    def folder(self) -> Path:
        """Folder of the finished chunks."""
        return self.file.with_suffix(".chunks")

    def rows(self) -> list[range]:
        """Return the range of images of each chunk."""
        size = max(1, CHUNK_IMAGES // self.batch_size) * self.batch_size
        return [range(self.n_images)[i : i + size] for i in range(0, self.n_images, size)]

    def path(self, rows: range) -> Path:
        """Return the file of a chunk, which exists once the chunk is complete."""
        return self.folder / f"{rows.start}-{rows.stop}.npy"

    def missing(self) -> list[range]:
        """Return the chunks that are not written yet."""
        return [rows for rows in self.rows() if not self.path(rows).exists()]

    def join(self) -> None:
        """Write the cache file from its chunks and remove them."""
        parts = ((rows, np.load(self.path(rows))) for rows in self.rows())
        write_features(self.file, self.n_images, self.dim, parts)
        shutil.rmtree(self.folder, ignore_errors=True)


def write_features(
    file: Path, n_images: int, dim: int, parts: Iterable[tuple[range, np.ndarray]]
) -> None:
    """Write features (N, D) and a checksum atomically; `parts` are rows and their values.

    If two processes write the same file, the last one wins, with equal content.

    Raises:
        OSError: the disk is full; raised before the first part is computed.
    """
    with replacing(file) as part:
        out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(n_images, dim))
        reserve(part)  # otherwise writing to the mapping on a full disk kills the process
        for rows, features in parts:
            out[rows.start : rows.stop] = features
        out.flush()
        seal(part)
