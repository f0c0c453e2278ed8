"""Training batches that never wait, drawn from (seed, epoch, image) alone.

One set of workers serves all epochs, and decoded images are kept.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from dassl.data.datasets import Datum
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler
from yacs.config import CfgNode

from causalclip.engine.decoded import DecodedImages
from causalclip.engine.draws import draw_for, generators_kept

DEFAULTS = {
    # item: from (seed, epoch, image), the same with any number of workers and after a resume;
    # dassl: as Dassl draws, from the global generators, in new workers every epoch
    "DRAWS": "item",
    "DECODED_MB": 512,  # bound on the decoded training images that DRAWS item keeps in memory
}
DRAWS = ("dassl", "item")

Place = tuple[int, int]
"""An epoch and an image's index."""


def training_loader(
    loader: DataLoader, cfg: CfgNode, *, epochs: int | None = None
) -> DataLoader | Epochs:
    """What gives the batches of a loader of Dassl's as DATALOADER.DRAWS asks for.

    Args:
        loader: of a toolkit's DataManager or `build_data_loader`.
        cfg: DATALOADER.DRAWS, .DECODED_MB and .NUM_WORKERS, and SEED, count.
        epochs: how many will be asked for; None: OPTIM.MAX_EPOCH.

    Returns:
        `loader` itself, or `Epochs` over its images.
    """
    settings = {**DEFAULTS, **cfg.DATALOADER}  # a host's configuration may lack ours
    if settings["DRAWS"] == "dassl":
        return loader
    return Epochs(
        loader,
        seed=cfg.SEED if cfg.SEED >= 0 else secrets.randbits(63),  # below 0: another every time
        last=cfg.OPTIM.MAX_EPOCH if epochs is None else epochs,
        decoded_bytes=int(settings["DECODED_MB"] * 2**20),
    )


class Shown(Protocol):
    """What a loader of Dassl's iterates over."""

    data_source: Sequence[Datum]
    transform: Any


def shown_by(loader: DataLoader) -> Shown:
    """The items of a loader of Dassl's, and the transform that they are seen through."""
    return cast(Shown, loader.dataset)


class Images(Dataset):
    """Dassl's image dictionaries (label, domain, impath, index, img, img2, ..., img0).

    Each augmentation is drawn from (seed, epoch, index, view).
    """

    def __init__(self, wrapper: Any, seed: int, decoded_bytes: int) -> None:
        """Show the images of a toolkit's DatasetWrapper."""
        self.data_source: Sequence = wrapper.data_source
        self.transform: Callable | Sequence[Callable] | None = wrapper.transform
        self.times: int = wrapper.k_tfm
        self.plain: Callable | None = wrapper.to_tensor if wrapper.return_img0 else None
        self.seed = seed
        self.decoded = DecodedImages(len(self.data_source), decoded_bytes)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """One image as it looks in an epoch."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[Place]) -> list[dict[str, Any]]:
        """The images of a batch; the process's own random stream is left as it was."""
        with generators_kept():
            return [self._item(*place) for place in places]

    def _item(self, epoch: int, index: int) -> dict[str, Any]:
        item = self.data_source[index]
        image = self.decoded.read(index, item.impath)
        shown = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": index,
            **self._views(image, epoch, index),
        }
        if self.plain is not None:
            shown["img0"] = self.plain(image)
        return shown

    def _views(self, image: Image.Image, epoch: int, index: int) -> dict[str, Any]:
        if self.transform is None:
            return {"img": image}
        given = self.transform
        views = {}
        for number, transform in enumerate(given if isinstance(given, Sequence) else [given], 1):
            draw_for(self.seed, epoch, index, number)
            augmented = [transform(image) for _ in range(self.times)]
            views[f"img{number}" if number > 1 else "img"] = (
                augmented if self.times > 1 else augmented[0]
            )
        return views


class Epochs:
    """The batches of one epoch after the other, from workers that go on to the next meanwhile.

    Iterating gives the batches of epoch `epoch`, which then is the next one. One pass of a
    DataLoader spans all epochs, so its workers start once and run ahead over the end of an epoch.
    To go back or ahead, set `epoch`. Workers end with the last epoch.
    """

    def __init__(self, loader: DataLoader, *, seed: int, last: int, decoded_bytes: int = 0) -> None:
        """Take over a loader of Dassl's.

        Args:
            loader: whose images, sampler, batch size and workers are used.
            seed: every order and augmentation is drawn from it.
            last: the number of epochs, after which workers do not run ahead.
            decoded_bytes: bound on the decoded images in memory.
        """
        self.dataset = Images(loader.dataset, seed, decoded_bytes)
        assert loader.batch_size is not None, "Dassl's loaders make batches"
        self.sampler: Iterable[int] = loader.sampler
        self.batch_size, self.drop_last = loader.batch_size, loader.drop_last
        self.num_workers, self.pin_memory = loader.num_workers, loader.pin_memory
        self.seed, self.last, self.epoch = seed, last, 0
        self.part: Callable[[list[Place]], list[Place]] = list  # what of a batch is loaded
        self._known: tuple[int, list[list[Place]]] = (-1, [])
        self._running: tuple[int, Iterator] | None = None  # the epoch it stands before

    def __len__(self) -> int:
        """The number of batches of epoch `epoch`."""
        return len(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[list[Place]]:
        """Which images stand in which batch of an epoch."""
        if self._known[0] != epoch:
            self._known = epoch, self._drawn(epoch)
        return self._known[1]

    def _drawn(self, epoch: int) -> list[list[Place]]:
        with generators_kept():
            draw_for(self.seed, epoch)
            order = [(epoch, int(index)) for index in self.sampler]
        size = self.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if self.drop_last and len(batches[-1]) < size:
            batches.pop()
        return [self.part(batch) for batch in batches]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, running = self.epoch, self._running
        self._running = None  # a pass that is not finished leaves nothing to go on from
        batches = running[1] if running and running[0] == epoch else self._from(epoch)
        for _ in range(len(self.batches(epoch))):
            yield next(batches)
        self.epoch = epoch + 1
        if self.epoch < self.last:
            self._running = self.epoch, batches

    def _from(self, epoch: int) -> Iterator[dict[str, Any]]:
        """The batches of this epoch and all later ones."""
        epochs = range(epoch, max(self.last, epoch + 1))
        return iter(
            DataLoader(
                self.dataset,
                batch_sampler=_Chained(self, epochs),
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
                generator=torch.Generator(),  # else it draws from the training's stream
            )
        )


class _Chained(Sampler):
    """The batches of several epochs, drawn one epoch at a time, while somebody wants them.

    It does not keep `Epochs`, which keep the pass that it is read by: such a circle would leave the
    workers of an abandoned pass to the garbage collector, where torch waits five seconds for each.
    """

    def __init__(self, batches: Epochs, epochs: range) -> None:
        self.drawn, self.epochs = weakref.WeakMethod(batches._drawn), epochs

    def __iter__(self) -> Iterator[list[Place]]:
        for epoch in self.epochs:
            yield from self._of(epoch)

    def _of(self, epoch: int) -> list[list[Place]]:
        drawn = self.drawn()
        return drawn(epoch) if drawn else []
