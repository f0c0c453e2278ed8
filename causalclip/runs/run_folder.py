"""Compare a run with the earlier run in its folder, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalclip.engine.checkpoint_file import POINTER, last_written
from causalclip.engine.data import changed_splits
from causalclip.records.identity import (
    Difference,
    Identity,
    describe,
    read_run,
    recorded_config,
    run_settings,
    setting_differences,
)
from causalclip.runs.configuration import default_settings, method_node
from causalclip.settings.table import SETTINGS

# isort: split
from dassl.engine import TRAINER_REGISTRY

TRANSFORMS = "INPUT.TRANSFORMS"
NORMALISATIONS = {"normalize", "instance_norm"}
"""Entries of INPUT.TRANSFORMS for test images too; the others are for training images only."""


class AnotherRun(ValueError):  # noqa: N818 (named after what the folder contains)
    """A folder contains another run, which is never overwritten; the message lists differences."""


def check_folder(folder: Path, identity: Identity) -> None:
    """Raise if a folder contains a run of other settings, which is never overwritten.

    Without run.json, results.json is compared instead.

    Raises:
        AnotherRun: names the settings, with both values.
    """
    recorded = read_run(folder)
    if recorded is None:
        if (config := recorded_config(folder)) is None:
            return
        node = method_node(str(identity.settings.get("TRAINER.NAME")))
        settings, epoch = run_settings(config, node), identity.epoch
    else:
        settings, epoch = recorded.settings, recorded.epoch
    differences = setting_differences(settings, identity.settings, default_settings())
    if epoch != identity.epoch:
        differences.append(("--load-epoch", epoch, identity.epoch))
    if differences:
        raise AnotherRun(
            f"{folder} holds another run: {describe(differences)}. Choose another --output-dir, or "
            "delete the old run"
        )


def check_inputs(folder: Path, identity: Identity) -> None:
    """Raise if a folder contains a run on other weights of the backbone, or on other data.

    Raises:
        AnotherRun: names both digests, or the splits.
    """
    recorded = read_run(folder)
    if recorded is None:
        return
    if recorded.weights and identity.weights and recorded.weights != identity.weights:
        raise AnotherRun(
            f"{folder} holds a run on other weights of {identity.settings['MODEL.BACKBONE.NAME']}:"
            f" digest {recorded.weights} there, {identity.weights} here. Choose another "
            "--output-dir, or delete the old run"
        )
    changed = changed_splits(recorded.data or {}, identity.data or {})
    if recorded.data and identity.data and changed:
        raise AnotherRun(
            f"{folder} holds a run on other data: the images or labels of {', '.join(changed)} in "
            f"{identity.settings['DATASET.NAME']} have changed since. Choose another "
            "--output-dir, or delete the old run"
        )


def check_tested(folder: Path, identity: Identity) -> str:
    """Compare a test with the training in `folder`; return allowed differences as a note.

    A training without run.json is not compared.

    Raises:
        ValueError: a setting differs that must be the training's; names both values.
    """
    recorded = read_run(folder)
    differences = _tested_differences(recorded, identity) if recorded else []
    refused = [
        difference
        for difference in differences
        if difference[0] == TRANSFORMS or _fixed_by_training(difference[0])
    ]
    if refused:
        raise ValueError(
            f"{folder} was trained with other settings, and tested with these it is another "
            f"method: {describe(refused)}"
        )
    if differences:
        return f"Note: the training in {folder} had other settings: {describe(differences)}"
    return ""


def _tested_differences(recorded: Identity, identity: Identity) -> list[Difference]:
    return [
        (key, recorded.settings[key], value)
        for key, value in identity.settings.items()
        if (key.startswith(("SEED", "TRAINER.")) or key == TRANSFORMS or _fixed_by_training(key))
        and key in recorded.settings
        and _tested_value(key, recorded.settings[key]) != _tested_value(key, value)
    ]


def _tested_value(key: str, value: Any) -> Any:
    return NORMALISATIONS & set(value) if key == TRANSFORMS else value


def _fixed_by_training(key: str) -> bool:
    if key in SETTINGS:
        return SETTINGS[key].fixed_by_training
    for name in TRAINER_REGISTRY.registered_names():
        trainer = TRAINER_REGISTRY.get(name)
        node = f"TRAINER.{getattr(trainer, 'config_node', None)}."
        if key.startswith(node):
            row = trainer.settings_table.get(key.removeprefix(node))
            return row is not None and row.fixed_by_training
    return False


def saved_checkpoints(folder: Path) -> str:
    """Return a text on the checkpoints that a stopped run has saved, and on how to continue."""
    saved = sorted(
        f"{path.parent.name}/{last_written(path.parent)}" for path in folder.glob(f"*/{POINTER}")
    )
    what = f"{folder} holds {', '.join(saved)}" if saved else f"nothing is saved in {folder} yet"
    return f"{what}; repeat the command to continue from there"
