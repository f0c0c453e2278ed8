"""The protocols as data: their trainings and tests, with data sets, settings and folders.

The folders are those of CoOp's, CoCoOp's and MaPLe's scripts, so that users of these find a result
in the place they know.
"""

from __future__ import annotations

from dataclasses import dataclass

from causalclip.data.catalogue import sets_of

SAME_CLASSES = ("imagenetv2", "imagenet_sketch")
"""Variants of ImageNet with all of its 1,000 classes; the other variants have 200 of them."""

ALL_IMAGES = "all"
"""Value in place of a number of shots: train on all images."""


@dataclass(frozen=True)
class Part:
    """One training or test of a protocol."""

    name: str
    folder: str
    """Path below the output folder; its fields are those of a `Cell`."""
    settings: tuple[str, ...]
    """KEY VALUE pairs, with the same fields."""
    tests: str = ""
    """The part whose model it evaluates; empty for a training."""
    other_classes: bool = False
    """Whether it is tested on classes that were not trained on."""
    on_source: bool = False
    """Whether its data set is the source of the transfer."""
    protocol: str = ""
    """Protocol to record in the results; empty: the one that is run."""


@dataclass(frozen=True)
class Protocol:
    """A protocol: trainings and tests, their data sets, and the images per class."""

    name: str
    parts: tuple[Part, ...]
    shots: tuple[str, ...] = ("16",)
    only: bool = False
    """Whether only the data sets of its published table are allowed."""
    domains: bool = False
    """Whether each domain of a data set is left out in turn."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets of the published table, by the names of their configurations."""
        return tuple(sets_of(self.name))

    @property
    def transfers(self) -> bool:
        """Whether a model is trained on one data set and tested on other ones."""
        return any(part.on_source for part in self.parts)

    def part(self, name: str) -> Part:
        """Return the part with a given name."""
        return next(part for part in self.parts if part.name == name)


_NOVEL = "base2new/{part}/{dataset}/shots_{shots}/{method}/{recipe}/seed{seed}"
_DOMAIN = "{dataset}/shots_{shots}/{target}/{method}/{recipe}/seed{seed}"
_N = ("DATASET.NUM_SHOTS", "{num_shots}")
_BASE, _NEW, _ALL = (("DATASET.SUBSAMPLE_CLASSES", name) for name in ("base", "new", "all"))
# Open classes as in CLIP-ICM's and CLIPood's code: int(0.5 n) base classes, and each domain split
# 80/20 within the base classes and within the open classes.
_AS_PUBLISHED = ("DATASET.SUBSAMPLE_ROUNDING", "floor", "DATASET.HOLDOUT_WITHIN", "halves")
_SOURCE = Part(
    "train",
    "{source}/{method}/{recipe}_{shots}shots/seed{seed}",
    (*_N, *_ALL),
    on_source=True,
    protocol="xd",
)
_TARGET = Part(
    "test",
    "evaluation/{from_source}{method}/{recipe}_{shots}shots/{dataset}/seed{seed}",
    _ALL,
    tests="train",
    other_classes=True,
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "base2new",
            (
                Part("train_base", _NOVEL, (*_N, *_BASE)),
                Part("test_new", _NOVEL, (*_N, *_NEW), tests="train_base", other_classes=True),
            ),
        ),
        Protocol("xd", (_SOURCE, _TARGET)),
        Protocol("dg", (_SOURCE, _TARGET), only=True),
        Protocol(
            "fewshot",
            (
                Part(
                    "train",
                    "{dataset}/{method}/{recipe}_{shots}shots{context}/seed{seed}",
                    (*_N, *_ALL),
                ),
            ),
            shots=("1", "2", "4", "8", "16"),
        ),
        Protocol(
            "lodo",
            (Part("train", f"lodo/{_DOMAIN}", _N),),
            shots=(ALL_IMAGES,),
            domains=True,
        ),
        Protocol(
            "openclass",
            (
                Part("train", f"openclass/train/{_DOMAIN}", (*_N, *_BASE, *_AS_PUBLISHED)),
                Part(
                    "test",
                    f"openclass/test/{_DOMAIN}",
                    (*_N, *_ALL, *_AS_PUBLISHED),
                    tests="train",
                    other_classes=True,
                ),
            ),
            shots=(ALL_IMAGES,),
            domains=True,
        ),
    )
}


def same_classes(source: str, dataset: str) -> bool:
    """Return whether a data set has exactly the classes of the source that was trained on."""
    return dataset == source or (source == "imagenet" and dataset in SAME_CLASSES)
