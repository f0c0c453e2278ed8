"""A plan: the runs that a protocol asks of some methods, data sets, seeds and shots, in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from causalclip.data.catalogue import BUNDLED
from causalclip.runs.identity import asked_settings
from causalclip.runs.nearest import unknown
from causalclip.runs.protocols import ALL_IMAGES, Part, Protocol, same_classes
from causalclip.runs.recipes import (
    CLASS_BOUND,
    CONFIGS,
    Context,
    few_shot_settings,
    knows_other_classes,
    methods,
    names,
    recipe,
    settings_of,
)
from causalclip.runs.variant import variant


class PlanError(ValueError):
    """What was asked for cannot be run; the message says why, before any work."""


@dataclass(frozen=True)
class Request:
    """What a user asks for: a protocol, and lists whose product its parts are run for."""

    protocol: Protocol
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[str, ...] = ("1",)
    shots: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """Only these; empty for all."""
    data: Path = Path("data")
    output: Path = Path("output")
    recipe: str = ""
    """A configuration in place of the published one."""
    backbone: str = ""
    """A file of configs/backbones/, without .yaml; results go below a folder of its name."""
    source: str = "imagenet"
    load_epoch: str = ""
    context: Context = field(default_factory=Context)
    settings: tuple[str, ...] = ()
    """KEY VALUE pairs, after those of protocol and recipe."""

    @property
    def results(self) -> Path:
        """Where the layout begins."""
        return self.output / self.backbone

    @property
    def all_shots(self) -> tuple[str, ...]:
        """Those asked for, else the protocol's."""
        return self.shots or self.protocol.shots


@dataclass(frozen=True)
class Cell:
    """One cell of a protocol's table: what folders and settings of its parts are filled with."""

    method: str
    dataset: str
    seed: str
    shots: str
    recipe: str
    source: str
    target: str = ""
    sources: tuple[str, ...] = ()
    """The other domains, where one is left out."""
    context: str = ""
    variant: str = ""
    """The name of the settings beside the recipe."""

    def fill(self, template: str, part: str) -> str:
        """A folder or value of a part."""
        named = self.recipe + (f",{self.variant}" if self.variant else "")
        return template.format(
            part=part,
            num_shots="-1" if self.shots == ALL_IMAGES else self.shots,
            from_source="" if self.source == "imagenet" else f"from_{self.source}/",
            **{**vars(self), "recipe": named},
        )

    def of_this(self, value: str) -> str:
        """A user's VALUE, in which {dataset}, {seed}, {shots} and {target} are this cell's."""
        for name in ("dataset", "seed", "shots", "target"):
            value = value.replace(f"{{{name}}}", getattr(self, name))
        return value


@dataclass(frozen=True)
class Run:
    """One call of `causalclip train`."""

    protocol: str
    part: str
    folder: Path
    arguments: tuple[str, ...]
    trained: Path | None = None
    """The folder of the training that a test needs."""
    draws: Path | None = None
    """The folder of the bundled data set that the first run of all has to draw."""


# What can be wrong


def check(request: Request) -> None:
    """Raise for the first thing that cannot be run.

    Raises:
        PlanError: an unknown method, data set or configuration, seeds and shots that cannot be, or
            a method that cannot name the classes it would be tested on.
    """
    if len(request.settings) % 2:
        raise PlanError(f"options must come as KEY VALUE pairs, got {' '.join(request.settings)}")
    for method in request.methods:
        _check_known("trainer", method, methods())
    for seed in request.seeds:
        if not re.fullmatch("[0-9]+", seed):
            raise PlanError(f"SEED must be a number, got {seed}")
    _check_shots(request)
    sources = (request.source,) if request.protocol.transfers else ()
    for dataset in (*sources, *request.datasets):
        _check_known("data set", dataset, names("datasets"))
    _check_targets(request)
    for method in request.methods:
        if request.recipe:
            known = names(f"trainers/{method}")
            if request.recipe not in known:
                raise PlanError(unknown("CFG", request.recipe, known, of=method))
        _check_classes(request, method)
    if request.backbone:
        _check_known("BACKBONE", request.backbone, names("backbones"))


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise PlanError(unknown(what, name, known))


def _check_shots(request: Request) -> None:
    all_too = " or all" if request.protocol.domains else ""
    for shots in request.shots:
        if not re.fullmatch("[1-9][0-9]*", shots) and not (all_too and shots == ALL_IMAGES):
            raise PlanError(
                f"SHOTS must be a positive number of images a class{all_too}, got {shots}"
            )


def _check_targets(request: Request) -> None:
    protocol = request.protocol
    for dataset in request.datasets:
        if protocol.only and dataset not in protocol.datasets:
            known = ", ".join(protocol.datasets)
            raise PlanError(f"{dataset} is no variant of ImageNet: {known}")
        if protocol.transfers and dataset == request.source:
            raise PlanError(f"{dataset} is the source itself: xd_train.sh has tested on it")


def _check_classes(request: Request, method: str) -> None:
    """A method is refused that would be tested on classes it cannot name."""
    files = [CONFIGS / "trainers" / method / f"{request.recipe}.yaml"] * bool(request.recipe)
    if knows_other_classes(method, asked_settings(files, request.settings)):
        return
    for part in wanted_parts(request):
        strange = [d for d in request.datasets if not same_classes(request.source, d)]
        if part.other_classes and (strange or not request.protocol.transfers):
            able = ", ".join(name for name in methods() if name not in CLASS_BOUND)
            raise PlanError(
                f"{method} cannot name the classes of {request.protocol.name} that it was not "
                f"trained on; these can: {able}, and CoOp without CSC"
            )


# The runs


def wanted_parts(request: Request) -> list[Part]:
    """The parts asked for."""
    return [p for p in request.protocol.parts if not request.parts or p.name in request.parts]


def plan(request: Request, domains: Callable[[str], Sequence[str]]) -> list[Run]:
    """Every run, each folder once, a training before its tests.

    Args:
        request: what was asked for; `check` has let it pass.
        domains: the domains of a data set, called where one is left out in turn.
    """
    runs = {}
    for cell in cells(request, domains):
        for part in wanted_parts(request):
            run = _run(request, cell, part)
            runs.setdefault(run.folder, run)
    return list(runs.values())


def cells(request: Request, domains: Callable[[str], Sequence[str]]) -> Iterator[Cell]:
    """Whole tables early: all methods and data sets of one seed before the next seed."""
    left_out = {d: tuple(domains(d)) if request.protocol.domains else () for d in request.datasets}
    for seed in request.seeds:
        for dataset in request.datasets or (request.source,):
            for method in request.methods:
                for shots in request.all_shots:
                    yield from _cells(
                        request, left_out.get(dataset, ()), method, dataset, seed, shots
                    )


def _cells(
    request: Request,
    domains: Sequence[str],
    method: str,
    dataset: str,
    seed: str,
    shots: str,
) -> Iterator[Cell]:
    protocol = request.protocol
    learned_on = request.source if protocol.transfers else dataset
    chosen = request.recipe or recipe(method, protocol.name, learned_on, shots)
    context = request.context.of(chosen).folder if method == "CoOp" else ""
    cell = Cell(method, dataset, seed, shots, chosen, request.source, context=context)
    cell = replace(cell, variant=variant(settings_for(request, method), _known(request, cell)))
    if not domains:
        yield cell
    for target in domains:
        others = tuple(domain for domain in domains if domain != target)
        yield replace(cell, target=target, sources=others)


def _known(request: Request, cell: Cell) -> dict:
    """What the recipe says without the user's KEY VALUE pairs."""
    files = _paths(request, cell, cell.dataset)
    return asked_settings(files, _recipe_settings(request, cell))


def _run(request: Request, cell: Cell, part: Part) -> Run:
    trained = _folder(request, cell, request.protocol.part(part.tests)) if part.tests else None
    if part.tests and request.load_epoch:
        epoch = f"epoch={request.load_epoch}"
        cell = replace(cell, variant=",".join(filter(None, (cell.variant, epoch))))
    folder = _folder(request, cell, part)
    protocol = part.protocol or request.protocol.name
    arguments = [
        *_domain_flags(cell),  # these lists end at the next flag
        *("--protocol", protocol, "--part", part.name),
        *("--root", str(request.data), "--output-dir", str(folder)),
        *("--seed", cell.seed, "--trainer", cell.method),
        *_files(request, cell, part),
        *_model(request, trained),
        *(cell.fill(word, part.name) for word in part.settings),
        *_recipe_settings(request, cell),
        *map(cell.of_this, settings_for(request, cell.method)),
    ]
    draws = _drawn(request, request.source if part.on_source else cell.dataset)
    return Run(protocol, part.name, folder, tuple(arguments), trained, draws)


def _drawn(request: Request, dataset: str) -> Path | None:
    """Where a bundled data set is, or will be."""
    folders = (facts.folder for facts in BUNDLED if facts.config == dataset)
    return next((request.data / folder for folder in folders), None)


def _folder(request: Request, cell: Cell, part: Part) -> Path:
    return request.results / cell.fill(part.folder, part.name)


def _domain_flags(cell: Cell) -> list[str]:
    if not cell.target:
        return []
    return ["--source-domains", *cell.sources, "--target-domains", cell.target]


def _files(request: Request, cell: Cell, part: Part) -> list[str]:
    dataset = request.source if part.on_source else cell.dataset
    first, *others = map(str, _paths(request, cell, dataset))
    configs = (word for path in others for word in ("--config-file", path))
    return ["--dataset-config-file", first, *configs]


def _paths(request: Request, cell: Cell, dataset: str) -> list[Path]:
    """The configurations in the order in which they override one another."""
    below = [f"datasets/{dataset}", f"trainers/{cell.method}/{cell.recipe}"]
    below += [f"backbones/{request.backbone}"] * bool(request.backbone)
    return [CONFIGS / f"{name}.yaml" for name in below]


def _model(request: Request, trained: Path | None) -> list[str]:
    if trained is None:
        return []
    epoch = ["--load-epoch", request.load_epoch] if request.load_epoch else []
    return ["--eval-only", "--model-dir", str(trained), *epoch]


def settings_for(request: Request, method: str) -> tuple[str, ...]:
    """The KEY VALUE pairs that can concern a method: a sweep of CDC's leaves CoOp one run."""
    nodes = {f"TRAINER.{name.upper()}" for name in methods() if name != method}
    pairs = zip(request.settings[::2], request.settings[1::2], strict=True)
    return tuple(
        word for pair in pairs if pair[0].rpartition(".")[0].upper() not in nodes for word in pair
    )


def _recipe_settings(request: Request, cell: Cell) -> tuple[str, ...]:
    protocol = request.protocol
    learned_on = request.source if protocol.transfers else cell.dataset
    settings = settings_of(cell.method, protocol.name, learned_on)
    if protocol.name != "fewshot":
        return settings
    context = request.context.of(cell.recipe)
    return settings + few_shot_settings(cell.method, cell.dataset, cell.shots, context)
