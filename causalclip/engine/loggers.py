"""Loggers of a training in addition to TensorBoard: Weights & Biases and MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from causalclip.errors import UserError


class Wandb:
    """A run of Weights & Biases, which reads WANDB_MODE, WANDB_PROJECT and so on."""

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        project = os.environ.get("WANDB_PROJECT", "causalclip")
        self.run = wandb.init(dir=folder, project=project, config=dict(config))

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        """Write one number."""
        self.run.log({tag: float(value), "step": step})  # wandb's own step may not decrease

    def close(self) -> None:
        """End the run."""
        self.run.finish()


class MLflow:
    """A run of MLflow, which reads MLFLOW_TRACKING_URI and so on."""

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self.client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "causalclip")
        experiment = self.client.get_experiment_by_name(name)
        known = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(known, run_name=folder).info.run_id
        for key, value in config.items():
            self.client.log_param(self.run_id, key, str(value)[:500])

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        """Write one number."""
        self.client.log_metric(self.run_id, tag, float(value), step=step or 0)

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run_id)


LOGGERS: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "wandb": Wandb,
    "mlflow": MLflow,
}
"""Loggers by their name in TRAIN.LOGGERS; each makes a writer like torch's SummaryWriter."""


class Several:
    """Several writers as one."""

    def __init__(self, writers: Sequence[Any]) -> None:
        self.writers = writers

    def add_scalar(self, tag: str, value: float, step: int | None = None) -> None:
        """Write one number to all writers."""
        for writer in self.writers:
            writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Close all writers."""
        for writer in self.writers:
            writer.close()


def open_loggers(names: Sequence[str], folder: str, config: Mapping[str, Any]) -> list[Any]:
    """Return the writers of these names; Dassl opens TensorBoard's itself.

    Raises:
        UserError: a logger that is not installed.
    """
    writers = []
    for name in names:
        try:
            writers.append(LOGGERS[name](folder, config))
        except ImportError as error:
            raise UserError(f"TRAIN.LOGGERS {name}: pip install 'causalclip[{name}]'") from error
    return writers
