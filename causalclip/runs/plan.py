"""Plan the runs of a protocol for some methods, data sets, seeds and shots, in order."""

from __future__ import annotations

import functools
import hashlib
import re
from ast import literal_eval
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalclip.data.catalogue import BUNDLED
from causalclip.records.identity import counted_value
from causalclip.runs.backbones import NAME, words_of
from causalclip.runs.protocols import ALL_IMAGES, Part
from causalclip.runs.recipes import CONFIGS, Recipes, recipes_of
from causalclip.runs.request import Request, settings_for, wanted_parts
from causalclip.settings.check import changes_results, flatten

if TYPE_CHECKING:
    from causalclip.runs.data_source import DataSource


@dataclass(frozen=True)
class Cell:
    """One cell of a protocol's table: values to fill into the folders and settings of its parts."""

    method: str
    dataset: str
    seed: str
    shots: str
    recipe: str
    """Name of the recipe."""
    files: tuple[Path, ...]
    """Configuration files of the recipe and the backbone; later files override earlier ones."""
    pairs: tuple[str, ...]
    """KEY VALUE pairs after the files: those that adapt the recipe, and its extra settings."""
    source: str
    target: str = ""
    sources: tuple[str, ...] = ()
    """The other domains, if `target` is left out of the training."""
    context: str = ""
    """Part of the folder of a few-shot run; see `Recipes.fewshot_folder`."""
    variant: str = ""
    """Name of the settings that differ from the recipe; see `variant_name`."""

    def fill(self, template: str, part: str) -> str:
        """Return a folder or value of a part with the fields of this cell filled in."""
        named = self.recipe + (f",{self.variant}" if self.variant else "")
        return template.format(
            part=part,
            num_shots="-1" if self.shots == ALL_IMAGES else self.shots,
            from_source="" if self.source == "imagenet" else f"from_{self.source}/",
            **{**vars(self), "recipe": named},
        )

    def of_this(self, value: str) -> str:
        """Return a user's VALUE with {dataset}, {seed}, {shots} and {target} filled in."""
        for name in ("dataset", "seed", "shots", "target"):
            value = value.replace(f"{{{name}}}", getattr(self, name))
        return value


@dataclass(frozen=True)
class Run:
    """One call of `causalclip train`."""

    part: str
    folder: Path
    arguments: tuple[str, ...]
    trained: Path | None = None
    """The folder of the training that a test needs."""
    draws: Path | None = None
    """The folder of the data set if it is bundled; `build_bundled` creates it before the runs."""


def plan(request: Request, domains: Callable[[str], Sequence[str]]) -> list[Run]:
    """Return every run of a checked request, each folder once, a training before its tests.

    `domains` returns the domains of a data set, for a protocol that leaves out each in turn.
    """
    runs = {}
    for cell in cells(request, domains):
        for part in wanted_parts(request):
            run = _run(request, cell, part)
            runs.setdefault(run.folder, run)
    return list(runs.values())


def cells(request: Request, domains: Callable[[str], Sequence[str]]) -> Iterator[Cell]:
    """Yield the cells, all methods and data sets of one seed before the next seed."""
    left_out = {d: tuple(domains(d)) if request.protocol.domains else () for d in request.datasets}
    for seed in request.seeds:
        for dataset in request.datasets or (request.source,):
            for method in request.methods:
                for shots in request.all_shots:
                    cell = _cell(request, method, dataset, seed, shots)
                    domains_left_out = left_out.get(dataset, ())
                    if not domains_left_out:
                        yield cell
                    for target in domains_left_out:
                        others = tuple(other for other in domains_left_out if other != target)
                        yield replace(cell, target=target, sources=others)


def _cell(request: Request, method: str, dataset: str, seed: str, shots: str) -> Cell:
    protocol, recipes = request.protocol, recipes_of(method)
    learned_on = request.source if protocol.transfers else dataset
    start = request.start_of(method, learned_on, shots)
    recipe = start.recipe.name
    extra = recipes.extra_settings(protocol.name, learned_on, shots, recipe)
    pairs = (*words_of(start.fitting), *extra)
    cell = Cell(method, dataset, seed, shots, recipe, start.files, pairs, request.source)
    data = data_file(request, dataset)
    known = _settings((*([data] if data else []), *start.files), pairs)
    given = settings_for(request, method)
    if protocol.name == "fewshot" and recipes.fewshot_folder:
        cell = replace(cell, context=_fewshot_folder(recipes, method, given, known))
        given = _without(given, recipes.variables.values())
    return replace(cell, variant=variant_name(given, known))


@functools.lru_cache(maxsize=1000)  # the same for all seeds
def _settings(files: tuple[Path, ...], pairs: tuple[str, ...]) -> Mapping[str, Any]:
    from causalclip.runs.configuration import cfg_from  # imports torch

    return dict(flatten(cfg_from(files, pairs)))


def _fewshot_folder(
    recipes: Recipes, method: str, pairs: Sequence[str], known: Mapping[str, Any]
) -> str:
    values = {**known, **dict(zip(pairs[::2], pairs[1::2], strict=True))}
    node = f"TRAINER.{method.upper()}."
    fields = {k.removeprefix(node): v for k, v in values.items() if k.startswith(node)}
    return recipes.fewshot_folder.format(**fields)


def _without(pairs: Sequence[str], keys: Iterable[str]) -> tuple[str, ...]:
    left_out = set(keys)
    kept = (pair for pair in zip(pairs[::2], pairs[1::2], strict=True) if pair[0] not in left_out)
    return tuple(word for pair in kept for word in pair)


def _run(request: Request, cell: Cell, part: Part) -> Run:
    trained = _folder(request, cell, request.protocol.part(part.tests)) if part.tests else None
    if part.tests and request.load_epoch:
        epoch = f"epoch={request.load_epoch}"
        cell = replace(cell, variant=",".join(filter(None, (cell.variant, epoch))))
    folder = _folder(request, cell, part)
    dataset = request.source if part.on_source else cell.dataset
    own = request.own.get(dataset)
    root = own.settings["DATASET.ROOT"] if own else str(request.data)
    domains = ("--source-domains", *cell.sources, "--target-domains", cell.target)
    data = data_file(request, dataset)
    arguments = [
        *(domains if cell.target else ()),  # these lists end at the next flag
        *("--protocol", part.protocol or request.protocol.name, "--part", part.name),
        *("--root", root, "--output-dir", str(folder)),
        *("--seed", cell.seed, "--trainer", cell.method),
        *(word for module in request.imports for word in ("--import", module)),
        *(("--dataset-config-file", str(data)) if data else ()),
        *(word for path in cell.files for word in ("--config-file", str(path))),
        *_model(request, trained),
        *(words_of(own_settings(own)) if own else ()),
        *(cell.fill(word, part.name) for word in part.settings),
        *cell.pairs,
        *map(cell.of_this, settings_for(request, cell.method)),
    ]
    drawn = (request.data / facts.folder for facts in BUNDLED if facts.config == dataset)
    return Run(part.name, folder, tuple(arguments), trained, next(drawn, None))


def _folder(request: Request, cell: Cell, part: Part) -> Path:
    return request.results / cell.fill(part.folder, part.name)


def data_file(request: Request, dataset: str) -> Path | None:
    """Return the YAML file of a data set; None for the user's own folder or table."""
    if dataset not in request.own:
        return CONFIGS / "datasets" / f"{dataset}.yaml"
    path = request.own[dataset].path
    return path if path and path.suffix in (".yaml", ".yml") else None


def own_settings(source: DataSource) -> dict[str, Any]:
    """Return the settings of a user's data set that are in no YAML file, and its name in tables."""
    in_yaml = source.path is not None and source.path.suffix in (".yaml", ".yml")
    given = {} if in_yaml else source.settings
    settings = {key: value for key, value in given.items() if key != "DATASET.ROOT"}
    return {**settings, "DATASET.TITLE": source.name}


def _model(request: Request, trained: Path | None) -> list[str]:
    if trained is None:
        return []
    epoch = ["--load-epoch", request.load_epoch] if request.load_epoch else []
    return ["--eval-only", "--model-dir", str(trained), *epoch]


def recipe_notes(request: Request) -> list[str]:
    """Return a line for each recipe that a method uses, with the reason for it."""
    lines = []
    for method in request.methods:
        for dataset in request.learned_on:
            for shots in request.all_shots:
                start = request.start_of(method, dataset, shots)
                changed = {key: value for key, value in start.fitting.items() if key != NAME}
                kept = f"; changed to fit it: {' '.join(words_of(changed))}" if changed else ""
                recipe = start.recipe
                lines.append(f"recipe of {method}: {recipe.name}, {recipe.reason}{kept}")
    return list(dict.fromkeys(lines))


# A readable name for settings given in addition to a recipe; it is part of the folder's name


LONGEST = 220
"""Most bytes of a name: file systems allow 255, and the recipe's name comes before it."""
VAGUE = ("NAME",)
"""Last words of a key that mean nothing without the word before."""


def variant_name(pairs: Sequence[str], known: Mapping[str, Any]) -> str:
    """Return a short name of settings: "N_TEMPLATES=2" for TRAINER.CDC.N_TEMPLATES 2.

    Args:
        pairs: KEY VALUE pairs; a later pair of the same key overrides an earlier one.
        known: all settings of the recipe; a pair that repeats one of them is left out.
    """
    given = dict(zip(pairs[::2], pairs[1::2], strict=True))
    changes = {
        key: value
        for key, value in given.items()
        if changes_results(key)
        and counted_value(key, known.get(key)) != counted_value(key, parse_value(value))
    }
    short = [_short(key) for key in changes]
    named = (
        f"{key if short.count(_short(key)) > 1 else _short(key)}={_printable(value)}"
        for key, value in changes.items()
    )
    return _bounded(",".join(sorted(named)))


def parse_value(text: str) -> Any:
    """Return a VALUE of the command line as yacs reads it."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _bounded(name: str) -> str:
    """Return a name of at most `LONGEST` bytes; a longer name is cut and ends with its digest."""
    content = name.encode()
    if len(content) <= LONGEST:
        return name
    digest = hashlib.sha256(content).hexdigest()[:10]
    return f"{content[: LONGEST - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _short(key: str) -> str:
    *above, last = key.split(".")
    return above[-1] if last in VAGUE and above else last


def _printable(value: str) -> str:
    """Return a value as part of a folder's name; for a path, the file's name without suffix."""
    name = re.sub(r"\.\w{2,}$", "", value.rsplit("/", 1)[-1]) if "/" in value else value
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")
