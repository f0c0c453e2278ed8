"""From an ablation's rows to runs: one training for all rows that are the same method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from causalclip.ablation.variants import Reference, Table, Variant
from causalclip.runs.flags import parser
from causalclip.runs.identity import plain
from causalclip.runs.perform import planned
from causalclip.runs.plan import PlanError, Request, Run

if TYPE_CHECKING:
    from yacs.config import CfgNode

EACH_EPOCH = ("TRAIN.CHECKPOINT_FREQ", "1")  # kept of the reference, which any figure may need


@dataclass(frozen=True)
class Row:
    """A variant with its runs of all seeds."""

    variant: Variant
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Planner:
    """Plans the runs of one ablation."""

    request: Request
    """The method as it is: its recipe and what was given beside it."""
    dry: bool = False
    """Whether nothing will be run, so that no data need be there."""

    def reference(self) -> Reference:
        """The settings of the method as it is.

        Raises:
            PlanError: what cannot be run, why, and what can.
        """
        method = self.request.methods[0]
        cfg = configured(self._runs(self.request)[0])
        check_settings(cfg, method)
        node = _trainer(method).config_node
        return Reference(node, _values(cfg.TRAINER[node]), cfg.OPTIM.MAX_EPOCH)

    def rows(self, table: Table, name: str, reference: Reference) -> list[Row]:
        """The rows of a table, each with its runs.

        Raises:
            PlanError: a row that cannot be run; names the table and the row.
        """
        return [self._row(variant, name, reference) for variant in table.variants(reference)]

    def _row(self, variant: Variant, table: str, reference: Reference) -> Row:
        pairs = reference.pairs(variant.settings)
        request = self.request
        settings = (*request.settings, *(pairs or EACH_EPOCH))
        shots = (variant.shots,) if variant.shots else request.shots
        request = replace(request, settings=settings, shots=shots, load_epoch=variant.epoch)
        try:
            runs = self._runs(request)
            check_settings(configured(runs[0]), request.methods[0])
        except PlanError as error:
            raise PlanError(f"table {table}, row {variant.name}: {error}") from error
        return Row(variant, tuple(runs))

    def _runs(self, request: Request) -> Sequence[Run]:
        return planned(request, dry=self.dry)


def distinct(rows: Iterable[Row]) -> list[Run]:
    """Every run of the rows once, a training before its tests."""
    return list({run.folder: run for row in rows for run in row.runs}.values())


def configured(run: Run) -> CfgNode:
    """The configuration of a run, from the code's defaults on.

    Raises:
        PlanError: a setting that does not exist, or of another type.
    """
    from causalclip import plugin  # here: they bring torch along
    from causalclip.runs.train import UserError, asked_cfg, sentence

    plugin.register_all()
    try:
        return asked_cfg(parser().parse_args(run.arguments))
    except (UserError, KeyError, ValueError, AssertionError) as error:
        raise PlanError(sentence(error)) from error


def check_settings(cfg: CfgNode, method: str) -> None:
    """Refuse settings that the method cannot run with, as its trainer would when its turn comes.

    Raises:
        PlanError: names the key, what is allowed and what came.
    """
    kind = _trainer(method)
    try:
        kind.check_cfg(object.__new__(kind), cfg)  # it reads the class alone
    except ValueError as error:
        raise PlanError(str(error)) from error


def _trainer(method: str) -> type:
    from dassl.engine import TRAINER_REGISTRY

    return TRAINER_REGISTRY.get(method)


def _values(node: CfgNode) -> dict:
    return {name: plain(value) for name, value in node.items()}
