"""The runs of an ablation's rows; rows that are the same method share theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from causalclip.ablation.tables import Reference, Table, Variant
from causalclip.errors import UserError, sentence
from causalclip.records.identity import counted_value
from causalclip.runs.flags import parser
from causalclip.runs.perform import planned
from causalclip.runs.plan import Run
from causalclip.runs.request import Request

if TYPE_CHECKING:
    from yacs.config import CfgNode

EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")  # kept of the reference: a figure may need any


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
    """Whether nothing will be run, so that no data have to be there."""

    def reference(self) -> Reference:
        """Return the settings of the method.

        Raises:
            UserError: it cannot be run; says why.
        """
        cfg = configured(self._runs(self.request)[0])
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
            runs = self._runs(request)
            checked_trainer(configured(runs[0]), request.methods[0])
        except (UserError, ValueError) as error:
            raise UserError(f"table {table}, row {variant.name}: {sentence(error)}") from error
        return Row(variant, tuple(runs))

    def _runs(self, request: Request) -> Sequence[Run]:
        return planned(request, dry=self.dry)


def distinct(rows: Iterable[Row]) -> list[Run]:
    """Return every run of the rows once, a training before its tests."""
    return list({run.folder: run for row in rows for run in row.runs}.values())


def configured(run: Run) -> CfgNode:
    """Return the configuration of a run.

    Raises:
        UserError: a setting that does not exist, or of another type.
    """
    from causalclip.runs.configuration import cfg_from_args  # imports torch

    return cfg_from_args(parser().parse_args(run.arguments))


def checked_trainer(cfg: CfgNode, method: str) -> Any:
    """Return the trainer of a method that can run with these settings.

    Raises:
        ValueError: it cannot; names the key, what is allowed and what came.
    """
    from causalclip.runs.configuration import trainer_class

    kind = trainer_class(method)
    kind.check_cfg(object.__new__(kind), cfg)  # it reads the class alone
    return kind
