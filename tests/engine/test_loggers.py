"""The numbers of a training reach each logger of TRAIN.LOGGERS, without a network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from causalclip.engine.loggers import open_loggers
from causalclip.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logged(monkeypatch):
    """Calls that a stub in place of wandb receives."""
    logged, wandb = [], ModuleType("wandb")

    def init(**options):
        logged.append(options)
        return SimpleNamespace(log=logged.append, finish=lambda: logged.append("finished"))

    wandb.init = init
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return logged


def test_a_training_writes_its_settings_losses_and_metrics_and_ends_the_run(
    logged, make_trainer, tmp_path
):
    make_trainer("CoOp", tmp_path, "TRAIN.LOGGERS", ["wandb"]).train()
    options, *rows, last = logged
    assert options["config"]["OPTIM.MAX_EPOCH"] == 1
    assert options["dir"] == str(tmp_path)
    tags = {tag for row in rows for tag in row}
    assert tags >= {"train/loss", "train/lr", "test/accuracy", "test/ece", "step"}
    assert last == "finished"
    assert not list(tmp_path.glob("tensorboard/*"))  # Dassl itself makes the folder


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"LOGGERS {name}: pip install 'causalclip\[{name}\]'"):
        open_loggers([name], str(tmp_path), {})


# In the folder of a checkout, whose `datasets` is not the package of that name.
CODE = """
import sys
sys.path.insert(0, "")
from causalclip.engine.loggers import open_loggers
(writer,) = open_loggers([sys.argv[1]], sys.argv[2], {"OPTIM.LR": 0.002})
writer.add_scalar("train/loss", 1.5, 3)
writer.close()
"""


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_library_writes_offline_in_a_checkout(name, tmp_path):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    variables = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db"}
    command = [sys.executable, "-c", CODE, name, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=True)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"train/loss" in path.read_bytes() for path in written)
