"""Requests of `causalclip run`: a protocol, methods, data sets, seeds, shots; and their checks."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from causalclip.data.catalogue import BUNDLED_NAMES
from causalclip.errors import UserError, unknown
from causalclip.runs.backbones import NamedBackbone, Start, start_of, words_of
from causalclip.runs.protocols import ALL_IMAGES, Part, Protocol, same_classes
from causalclip.runs.recipes import BUNDLED_DATA, methods, names

if TYPE_CHECKING:
    from causalclip.runs.data_source import DataSource


@dataclass(frozen=True)
class Request:
    """A protocol, and the methods, data sets, seeds and shots whose combinations to run."""

    protocol: Protocol
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[str, ...] = ("1",)
    shots: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """Names of the parts to run; empty: all parts."""
    data: Path = Path("data")
    output: Path = Path("output")
    recipe: str = ""
    """Name of the recipe; empty: chosen by backbone and protocol, see `choose_recipe`."""
    recipe_of: str = ""
    """Protocol whose recipe is used; empty: this protocol."""
    backbone: NamedBackbone | None = None
    """Backbone in place of the recipe's; the results are in a folder of its name."""
    own: Mapping[str, DataSource] = field(default_factory=dict)
    """The user's own data sets, by name."""
    source: str = "imagenet"
    load_epoch: str = ""
    settings: tuple[str, ...] = ()
    """KEY VALUE pairs; they override those of protocol and recipe."""
    imports: tuple[str, ...] = ()
    """Names of the user's modules, which are registered already."""

    @property
    def results(self) -> Path:
        """Folder that the folders of the protocol's parts are in."""
        return self.output / (self.backbone.name if self.backbone else "")

    @property
    def learned_on(self) -> tuple[str, ...]:
        """The data sets that are trained on."""
        return (self.source,) if self.protocol.transfers else self.datasets

    @property
    def all_shots(self) -> tuple[str, ...]:
        """Shots that were requested; by default the protocol's."""
        return self.shots or self.protocol.shots

    @property
    def known_methods(self) -> list[str]:
        """Methods of this package and of the user's modules."""
        known = methods()
        if self.imports:
            from causalclip.plugin import methods_of  # imports torch

            modules = [sys.modules[name] for name in self.imports]
            known += [kind.__name__ for module in modules for kind in methods_of(module)]
        return known

    def is_bundled(self, dataset: str) -> bool:
        """Return whether a data set is bundled: this package draws its images."""
        if dataset in self.own:
            return self.own[dataset].settings["DATASET.NAME"] in BUNDLED_NAMES
        return dataset.startswith(BUNDLED_DATA)

    def start_of(self, method: str, dataset: str, shots: str) -> Start:
        """Return the configuration that a training starts from; raise as `choose_recipe`."""
        cell = (self.recipe_of or self.protocol.name, dataset, shots)
        bundled = self.is_bundled(dataset)
        return start_of(method, self.recipe, self.backbone, cell, bundled=bundled)


def wanted_parts(request: Request) -> list[Part]:
    """Return the parts to run."""
    return [p for p in request.protocol.parts if not request.parts or p.name in request.parts]


def settings_for(request: Request, method: str) -> tuple[str, ...]:
    """Return the KEY VALUE pairs that can affect a method: a sweep for CDC adds no runs of CoOp."""
    pairs = list(zip(request.settings[::2], request.settings[1::2], strict=True))
    bases = [value for key, value in pairs if key.upper() == f"TRAINER.{method.upper()}.BASE"]
    others = set(request.known_methods) - {method, *bases}
    nodes = {f"TRAINER.{name.upper()}" for name in others}
    return tuple(
        word for pair in pairs if pair[0].rpartition(".")[0].upper() not in nodes for word in pair
    )


# Checks


def check(request: Request) -> None:
    """Raise for the first error in a request.

    Raises:
        UserError: an unknown method, data set or configuration, invalid seeds or shots, or a method
            that cannot name the classes it would be tested on.
        ValueError, OSError: settings that a method refuses, or a CLIP that cannot be read.
    """
    if len(request.settings) % 2:
        raise UserError(f"options must come as KEY VALUE pairs, got {' '.join(request.settings)}")
    for method in request.methods:
        _check_known("trainer", method, request.known_methods)
    for seed in request.seeds:
        if not re.fullmatch("[0-9]+", seed):
            raise UserError(f"SEED must be a number, got {seed}")
    _check_shots(request)
    sources = (request.source,) if request.protocol.transfers else ()
    for dataset in (*sources, *request.datasets):
        _check_known("data set", dataset, [*names("datasets"), *request.own])
    _check_targets(request)
    for method in request.methods:
        _check_method(request, method)


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UserError(unknown(what, name, known))


def _check_shots(request: Request) -> None:
    all_too = " or all" if request.protocol.domains else ""
    for shots in request.shots:
        if not re.fullmatch("[1-9][0-9]*", shots) and not (all_too and shots == ALL_IMAGES):
            raise UserError(
                f"SHOTS must be a positive number of images a class{all_too}, got {shots}"
            )


def _check_targets(request: Request) -> None:
    protocol = request.protocol
    for dataset in request.datasets:
        if protocol.only and dataset not in protocol.datasets:
            known = ", ".join(protocol.datasets)
            raise UserError(f"{dataset} is no variant of ImageNet: {known}")
        if protocol.transfers and dataset == request.source:
            raise UserError(f"{dataset} is the source itself: xd_train.sh has tested on it")


def _check_method(request: Request, method: str) -> None:
    """Raise for settings that a method refuses, and for classes that it cannot name."""
    from causalclip.runs.configuration import cfg_from, trainer_class  # imports torch

    start = request.start_of(method, request.learned_on[0], request.all_shots[0])
    pairs = [*words_of(start.fitting), *settings_for(request, method)]
    kind, cfg = trainer_class(method), cfg_from(start.files, pairs)
    if hasattr(kind, "settings_table"):  # a trainer of Dassl has none
        kind.check_cfg(object.__new__(kind), cfg)
    others = any(part.other_classes for part in wanted_parts(request))
    if request.protocol.transfers:
        others &= not all(same_classes(request.source, name) for name in request.datasets)
    if others and not kind.knows_other_classes(cfg.TRAINER[kind.config_node]):
        raise UserError(
            f"{method} cannot name the classes of {request.protocol.name} that it was not "
            "trained on: choose a method whose classes are named by text"
        )
