"""The tables of an ablation, read from a YAML file, and their rows and runs for a recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from causalclip.errors import UserError, sentence
from causalclip.records.identity import counted_value
from causalclip.runs.perform import planned
from causalclip.runs.plan import Run, parse_value
from causalclip.runs.request import Request

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class Variant:
    """One row: the method with some settings changed, and the reading of its results."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Changed settings by their names below the method's node."""
    reading: str = ""
    """A reading in results.json, or a member such as `template/0`; empty for the method's own."""
    shots: str = ""
    """Training images per class; empty for the number of the whole ablation."""
    epoch: str = ""
    """The epoch whose checkpoint is tested; empty for the last."""


@dataclass(frozen=True)
class Reference:
    """The method that is ablated: a recipe, and the settings that were given in addition."""

    node: str
    """The method's node below TRAINER."""
    settings: Mapping[str, Any]
    """All settings of the node, including defaults, as JSON values."""
    epochs: int = 1
    """Epochs of a training."""

    def pairs(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return KEY VALUE pairs of the settings that differ from those of the reference."""
        return tuple(
            word
            for name, value in settings.items()
            if counted_value("", parse_value(str(value))) != self.settings[name]
            for word in (f"TRAINER.{self.node}.{name}", str(value))
        )


@dataclass(frozen=True)
class Table:
    """Variants as the rows of a table, or as the content of a figure."""

    title: str
    rows: Mapping[str, Mapping[str, Any]]
    """Rows by name: settings in capitals, fields of `Variant`, and `each` to repeat the row."""
    columns: tuple[str, ...] = ()
    """Quantities to print."""
    figure: str = ""
    """Name of the function that draws a figure instead of a table."""
    ladder: str = ""
    """Name of the first row if each further row adds a part of the method; see `ladder`."""
    least: Mapping[str, int] = field(default_factory=dict)
    """Smallest allowed values of settings of the reference."""

    def variants(self, reference: Reference) -> list[Variant]:
        """Return the rows for a reference.

        Raises:
            UserError: the reference has too small a setting.
        """
        for name, least in self.least.items():
            if (value := reference.settings[name]) < least:
                key = f"TRAINER.{reference.node}.{name}"
                raise UserError(f"{key} must be at least {least}, got {value}")
        if self.ladder:
            return ladder(self.ladder, self.rows, reference)
        return [v for name, row in self.rows.items() for v in _expanded(name, row, reference)]


def _expanded(name: str, row: Mapping[str, Any], reference: Reference) -> Iterator[Variant]:
    """Yield the variant of a row, or one for each value of the setting that `each` names."""
    for values in _repeats(row.get("each", ""), reference):
        settings = {key: _filled(value, values) for key, value in row.items() if key.isupper()}
        others = {k: v.format(**values) for k, v in row.items() if not k.isupper() and k != "each"}
        if [] not in settings.values():  # skip a row that empties a list
            yield Variant(name.format(**values), settings, **others)


def _repeats(each: str, reference: Reference) -> list[dict[str, Any]]:
    """Return the values of the names in braces, for each repetition of a row."""
    if not each:
        return [{"epochs": reference.epochs}]
    among = reference.epochs if each == "epochs" else reference.settings[each]
    if isinstance(among, int):
        return [{"index": index, "number": index + 1} for index in range(among)]
    known = list(dict.fromkeys(among))
    return [{"value": v, "others": [other for other in known if other != v]} for v in known]


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    names = {f"{{{name}}}": known for name, known in values.items()}
    return names.get(value, value) if isinstance(value, str) else value


def ladder(
    first: str, parts: Mapping[str, Mapping[str, Any]], reference: Reference
) -> list[Variant]:
    """Return a row without the parts, rows that add one part each, and the method as the last row.

    A part that the reference does not have is marked, and is not in the last row.

    Args:
        first: name of the row without any part.
        parts: parts by name. `without` and `with` are the settings that switch a part off and on.
            `present_by` names the settings that show whether the reference has it (default: all
            of `without`); a value None stands for that of the setting `same_as`. A part is left
            out if the reference has the settings `unless`.
        reference: the method.
    """
    parts = {
        name: part
        for name, part in parts.items()
        if "unless" not in part or reference.pairs(part["unless"])
    }
    names, on = list(parts), {}
    rows = [Variant(first, _switched_off(parts))]
    for number, (name, part) in enumerate(parts.items(), start=1):
        present = _is_present(part, reference)
        on |= {} if present else part["with"]
        off = _switched_off({name: parts[name] for name in names[number:]})
        rows.append(Variant(f"+ {name}{'' if present else ' (not in the method)'}", {**off, **on}))
    return [*rows, Variant("the method")]


def _switched_off(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts.values() for key, value in part["without"].items()}


def _is_present(part: Mapping[str, Any], reference: Reference) -> bool:
    values = {name: reference.settings[name] for name in part.get("present_by", part["without"])}
    if "same_as" in part:
        same = reference.settings[part["same_as"]]
        values = {name: same if value is None else value for name, value in values.items()}
    return any(value not in (part["without"][name], None) for name, value in values.items())


@dataclass(frozen=True)
class Ablation:
    """All tables and figures of one method."""

    method: str
    recipe_of: str
    """Protocol whose recipe the method uses."""
    dataset: str
    seeds: tuple[str, ...]
    notes: Mapping[str, str]
    """Description of the measured images by split, for the headings."""
    tables: Mapping[str, Table]

    @classmethod
    def of(cls, method: str) -> Ablation:
        """Read the ablation from the YAML file named after the method."""
        path = Path(__file__).with_name(f"{method.lower()}.yaml")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = {name: content[name] for name in ("recipe_of", "dataset", "notes")}
        tables = {name: Table(**table) for name, table in content["tables"].items()}
        return cls(method, **named, seeds=tuple(content["seeds"]), tables=tables)

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function of the method's module, which is imported only when needed."""
        module = importlib.import_module(f"causalclip.ablation.{self.method.lower()}")
        return getattr(module, name)


# Runs of the rows; rows with the same settings share their runs


EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")  # in the reference, for figures over epochs


@dataclass(frozen=True)
class Row:
    """A variant with its runs of all seeds."""

    variant: Variant
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Planner:
    """Plans the runs of one ablation."""

    request: Request
    """The method that is ablated: its recipe, and the settings given in addition."""
    dry: bool = False
    """Whether the runs are only planned, which does not need the data."""

    def reference(self) -> Reference:
        """Return the settings of the method.

        Raises:
            UserError: the method cannot be run; says why.
        """
        cfg = configured(planned(self.request, dry=self.dry)[0])
        node = checked_trainer(cfg, self.request.methods[0]).config_node
        settings = {name: counted_value("", value) for name, value in cfg.TRAINER[node].items()}
        return Reference(node, settings, cfg.OPTIM.MAX_EPOCH)

    def rows(self, table: Table, name: str, reference: Reference) -> list[Row]:
        """Return the rows of a table, each with its runs.

        Raises:
            UserError: the table or a row cannot be run; names both.
        """
        try:
            variants = table.variants(reference)
        except UserError as error:
            raise UserError(f"table {name}: {error}") from error
        return [self._row(variant, name, reference) for variant in variants]

    def _row(self, variant: Variant, table: str, reference: Reference) -> Row:
        request = self.request
        settings = (*request.settings, *(reference.pairs(variant.settings) or EACH_EPOCH))
        shots = (variant.shots,) if variant.shots else request.shots
        request = replace(request, settings=settings, shots=shots, load_epoch=variant.epoch)
        try:
            runs = planned(request, dry=self.dry)
        except (UserError, ValueError) as error:
            raise UserError(f"table {table}, row {variant.name}: {sentence(error)}") from error
        return Row(variant, tuple(runs))


def distinct(rows: Iterable[Row]) -> list[Run]:
    """Return every run of the rows once, a training before its tests."""
    return list({run.folder: run for row in rows for run in row.runs}.values())


def configured(run: Run) -> CfgNode:
    """Return the configuration of a run; raise as `cfg_of_words`."""
    from causalclip.runs.configuration import cfg_of_words  # imports torch

    return cfg_of_words(run.arguments)


def checked_trainer(cfg: CfgNode, method: str) -> Any:
    """Return the trainer of a method that can run with these settings.

    Raises:
        ValueError: it cannot; names the key, the allowed values and the given value.
    """
    from causalclip.runs.configuration import trainer_class

    kind = trainer_class(method)
    kind.check_cfg(object.__new__(kind), cfg)  # needs no initialized trainer
    return kind
