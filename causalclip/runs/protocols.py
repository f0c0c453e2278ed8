"""The protocols of this family as data: what each trains and tests, with what, and where it goes.

The folders are those of CoOp's, CoCoOp's and MaPLe's scripts, so that a result lies where a user of
theirs looks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from causalclip.data.catalogue import sets_of
from causalclip.records.results import PROTOCOL_TITLES

SAME_CLASSES = ("imagenetv2", "imagenet_sketch")
"""The variants with ImageNet's thousand classes; the others have two hundred of them."""

ALL_IMAGES = "all"
"""In place of a number of shots."""


@dataclass(frozen=True)
class Part:
    """One training or test of a protocol."""

    name: str
    folder: str
    """Below the output folder; the fields are those of a `Cell`."""
    settings: tuple[str, ...]
    """KEY VALUE pairs; the same fields."""
    tests: str = ""
    """The part whose model it evaluates; empty for a training."""
    other_classes: bool = False
    """Whether it is tested on classes that were not trained on."""
    on_source: bool = False
    """Whether its data set is the source of the transfer."""
    protocol: str = ""
    """The protocol it belongs to, where another one shares it."""


@dataclass(frozen=True)
class Protocol:
    """A protocol: trainings and tests, their data sets, and the images per class."""

    name: str
    parts: tuple[Part, ...]
    shots: tuple[str, ...] = ("16",)
    only: bool = False
    """Whether no other data sets make sense."""
    domains: bool = False
    """Whether each domain of a data set is left out in turn."""

    @property
    def title(self) -> str:
        """Its name in tables."""
        return PROTOCOL_TITLES[self.name]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Those of the published table, by configuration."""
        return tuple(sets_of(self.name))

    @property
    def transfers(self) -> bool:
        """Whether one data set is trained on and others are tested on."""
        return any(part.on_source for part in self.parts)

    def part(self, name: str) -> Part:
        """The part of this name."""
        return next(part for part in self.parts if part.name == name)


_NOVEL = "base2new/{part}/{dataset}/shots_{shots}/{method}/{recipe}/seed{seed}"
_DOMAIN = "{dataset}/shots_{shots}/{target}/{method}/{recipe}/seed{seed}"
_N = ("DATASET.NUM_SHOTS", "{num_shots}")
_BASE, _NEW, _ALL = (("DATASET.SUBSAMPLE_CLASSES", name) for name in ("base", "new", "all"))
# Open classes as CLIP-ICM's and CLIPood's code has them: int(0.5 n) base classes, and each domain
# split 80/20 within base and within open classes.
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
    """Whether a data set has the very classes of the source it is tested from."""
    return dataset == source or (source == "imagenet" and dataset in SAME_CLASSES)
