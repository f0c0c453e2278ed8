"""Training batches that depend on (seed, epoch, image) alone, from persistent workers.

Neither the number of workers nor resuming a run changes a draw. Decoded images are kept in memory.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import Lock
from typing import Any

import numpy as np
import torch
from dassl.utils import read_image
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from yacs.config import CfgNode

from causalclip.engine.draws import draw_for, generators_kept, training_seed
from causalclip.engine.stopping import outlive_signals
from causalclip.settings.table import SETTINGS

Place = tuple[int, int]
"""An epoch and the index of an image."""


def training_loader(loader: DataLoader, cfg: CfgNode) -> DataLoader | Epochs:
    """Return a loader of the same images with the draws that DATALOADER.DRAWS names.

    For `dassl` it is Dassl's `loader` itself, else an `Epochs`.
    """
    node = cfg.DATALOADER  # a configuration may lack these keys
    if node.get("DRAWS", SETTINGS["DATALOADER.DRAWS"].default) == "dassl":
        return loader
    megabytes = node.get("DECODED_MB", SETTINGS["DATALOADER.DECODED_MB"].default)
    return Epochs(
        loader,
        # without a seed, each run draws differently
        seed=training_seed(cfg) if cfg.SEED >= 0 else secrets.randbits(63),
        decoded_bytes=megabytes * 2**20,
    )


def end_workers(loader: Any) -> None:
    """End the persistent workers of an `Epochs`; Dassl's loaders have no persistent ones."""
    if isinstance(loader, Epochs):
        loader.close()


def shown_by(loader: DataLoader) -> Any:
    """Return the dataset of one of Dassl's loaders: items `data_source` and their `transform`."""
    return loader.dataset


class Epochs:
    """A loader whose batches depend on (seed, epoch); iterating yields those of epoch `epoch`.

    Each pass increments `epoch`, which you can also set. Workers live as long as the loader.
    """

    def __init__(self, loader: DataLoader, *, seed: int, decoded_bytes: int = 0) -> None:
        """Replace one of Dassl's loaders; keep at most `decoded_bytes` of decoded images."""
        assert loader.batch_size is not None, "Dassl's loaders make batches"
        self.dataset = Images(loader.dataset, seed, decoded_bytes)
        self.sampler: Iterable[int] = loader.sampler
        self.batch_size, self.drop_last = loader.batch_size, loader.drop_last
        self.seed, self.epoch = seed, 0
        self.part: Callable[[list[Place]], list[Place]] = list  # the part of a batch to load
        self.done = 0  # batches of the next pass that were trained before a stop, to skip
        self._batches: tuple[int, list[list[Place]]] = (-1, [])
        self._options: dict[str, Any] = {"pin_memory": loader.pin_memory}
        if loader.num_workers:
            self._options |= {"num_workers": loader.num_workers, "persistent_workers": True}
        self._loader = self._new_loader(self.dataset, _Batches(self))

    def _new_loader(self, items: Dataset, batches: Any) -> DataLoader:
        return DataLoader(
            items,
            batch_sampler=batches,
            worker_init_fn=outlive_signals,
            generator=torch.Generator(),  # otherwise it draws from torch's global one
            **self._options,
        )

    def __len__(self) -> int:
        """Return the number of batches of epoch `epoch`."""
        return len(self.batches(self.epoch))

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """Yield the batches of epoch `epoch`; None in place of each of the first `done` ones."""
        yield from [None] * self.done
        yield from self._loader
        self.epoch, self.done = self.epoch + 1, 0

    @torch.no_grad()
    def encode(self, encode: Callable[[Tensor], Tensor], views: int) -> None:
        """Encode `views` views of each image now; yield their features (E,) in place of images.

        `encode` maps images (B, 3, H, W) to features (B, E). Epoch e uses view e modulo `views`.
        """
        places = [(view, index) for view in range(views) for index in range(len(self.dataset))]
        batches = [places[i : i + self.batch_size] for i in range(0, len(places), self.batch_size)]
        loader = self._new_loader(self.dataset, batches)
        features = torch.cat([encode(batch["img"]).cpu() for batch in loader])
        self.close()
        self._options = {"pin_memory": self._options["pin_memory"]}
        items = EncodedViews(self.dataset, features.unflatten(0, (views, -1)))
        self._loader = self._new_loader(items, _Batches(self))

    def close(self) -> None:
        """End the workers now: the garbage collector may wait five seconds for each."""
        if (iterator := self._loader._iterator) is not None:
            iterator._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]
            self._loader._iterator = None

    def batches(self, epoch: int) -> list[list[Place]]:
        """Return the images of each batch of an epoch."""
        if self._batches[0] != epoch:
            with generators_kept():
                draw_for(self.seed, epoch)
                order = [(epoch, int(index)) for index in self.sampler]
            size = self.batch_size
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            if self.drop_last and len(batches[-1]) < size:
                batches.pop()
            self._batches = epoch, [self.part(batch) for batch in batches]
        return self._batches[1]


class _Batches:
    """The batch sampler of `Epochs`."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = epochs

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self.epochs.batches(self.epochs.epoch)[self.epochs.done :])


class Images(Dataset):
    """Dassl's image dictionaries (label, domain, impath, index, img, img2, ..., img0).

    Each augmentation is drawn from (seed, epoch, index, view).
    """

    def __init__(self, wrapper: Any, seed: int, decoded_bytes: int) -> None:
        """Use the images and transforms of a toolkit's DatasetWrapper."""
        self.data_source: Sequence = wrapper.data_source
        self.transform: Callable | Sequence[Callable] | None = wrapper.transform
        self.times: int = wrapper.k_tfm
        self.plain: Callable | None = wrapper.to_tensor if wrapper.return_img0 else None
        self.seed = seed
        self.decoded = DecodedImages(len(self.data_source), decoded_bytes)

    def __len__(self) -> int:
        return len(self.data_source)

    def facts(self, index: int) -> dict[str, Any]:
        """Return the entries of an image in a batch, except its pixels."""
        item = self.data_source[index]
        return {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": index,
        }

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return one image, augmented for an epoch; the random generators keep their state."""
        epoch, index = place
        image = self.decoded.read(index, self.data_source[index].impath)
        shown = self.facts(index)
        with generators_kept():
            shown |= self._views(image, epoch, index)
        if self.plain is not None:
            shown["img0"] = self.plain(image)
        return shown

    def _views(self, image: Image.Image, epoch: int, index: int) -> dict[str, Any]:
        if self.transform is None:
            return {"img": image}
        transforms = self.transform if isinstance(self.transform, Sequence) else [self.transform]
        views = {}
        for number, transform in enumerate(transforms, 1):
            draw_for(self.seed, epoch, index, number)
            several = [transform(image) for _ in range(self.times)]
            views[f"img{number}" if number > 1 else "img"] = (
                several if self.times > 1 else several[0]
            )
        return views


class EncodedViews(Dataset):
    """Image dictionaries as those of `Images`, with features (E,) in place of the image."""

    def __init__(self, images: Images, features: Tensor) -> None:
        """Use the features (V, N, E) of V views of the N images."""
        self.images, self.features = images, features

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, index = place
        feature = self.features[epoch % len(self.features), index]
        return {**self.images.facts(index), "img": feature}


class DecodedImages:
    """A cache of decoded images in memory that all workers share, of limited size.

    The pixels are in an anonymous mapping that forked workers inherit: an image is in memory once,
    and limits on /dev/shm do not apply. A worker that is spawned caches nothing.
    """

    def __init__(self, count: int, n_bytes: int) -> None:
        """Cache `count` images, 3 bytes per pixel, in at most `n_bytes`; 0: cache nothing."""
        self.count, self.n_bytes = count, n_bytes
        self._lock = Lock()
        self._pixels = mmap.mmap(-1, max(n_bytes, 1))  # pages that are never written cost nothing
        shared = np.frombuffer(mmap.mmap(-1, 8 * (1 + 3 * count)), np.int64)
        self._used, self._entries = shared[:1], shared[1:].reshape(count, 3)  # start, width, height

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedImages, (self.count, 0)

    @property
    def used(self) -> int:
        """Size of the cached pixels in bytes."""
        return int(self._used[0])

    def read(self, index: int, path: str) -> Image.Image:
        """Return the `index`-th image in RGB, whose file is `path`.

        Raises:
            OSError: a file that is missing or is no image.
        """
        with self._lock:  # no entry is read before its pixels are written
            start, width, height = self._entries[index].tolist()
        if width:
            pixels = self._pixels[start : start + 3 * width * height]
            return Image.frombytes("RGB", (width, height), pixels)
        image = read_image(path)
        pixels = image.tobytes()
        with self._lock:
            start, stop = self.used, self.used + len(pixels)
            if stop <= self.n_bytes and not self._entries[index, 1]:  # another worker may be faster
                self._pixels[start:stop] = pixels
                self._used[0], self._entries[index] = stop, (start, *image.size)
        return image
