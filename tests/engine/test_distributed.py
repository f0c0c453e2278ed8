"""A run in several processes gives the prompts and predictions of one, up to rounding.

Two gloo processes on the CPU, forks of one that has imported all, train every method of the list in
one go (`two_processes`); what one process makes of the same configuration is made here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dassl.utils import load_checkpoint

from causalclip.engine import distributed
from causalclip.engine.loading import Epochs
from causalclip.errors import UserError
from causalclip.runs import train

ROOT = Path(__file__).parents[2]
SHARED = [
    *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.TEST.BATCH_SIZE", 150),
    *("DATASET.NUM_SHOTS", 3, "OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 1),
]
# Fifteen images: three whole batches, or one that is smaller than a batch and not divided evenly.
WHOLE, SMALLER = (["DATALOADER.TRAIN_X.BATCH_SIZE", size] for size in (4, 16))
OFFSET = ["TRAINER.CDC.EVIDENCE_OFFSET", "training"]
CASES = {
    "CoOp": ["TEST.CALIBRATION", True, "TEST.FINAL_MODEL", "best_val", *WHOLE],
    # Stopped in its second epoch: what it goes on from is saved for that alone.
    "MaPLe": [*WHOLE, "TRAIN.CHECKPOINT_FREQ", 0],
    "PromptSRC": [*WHOLE, "OPTIM.MAX_EPOCH", 2],
    "CDC": [*SMALLER, "OPTIM.MAX_EPOCH", 2, "TRAINER.CDC.BETA_IMAGE", 0.3, *OFFSET],
}

TWO = """
import json, os, signal, sys, torch
import sklearn.metrics, torch._dynamo, torchmetrics  # with what follows: what both would import
from causalclip import plugin  # patches Dassl where it is not minidassl
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from causalclip.engine.distributed import from_main, processes, rank
from causalclip.engine.stopping import Stopped, stoppable
from yacs.config import CfgNode

def stop(trainer):
    before = trainer.before_epoch
    def before_epoch():
        before()
        if trainer.epoch == 1 and rank() == 1:  # one of the two alone
            os.kill(os.getpid(), signal.SIGTERM)
    trainer.before_epoch = before_epoch

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
plugin.register_all()
torch.use_deterministic_algorithms(True)
facts = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[3]}
first = os.fork()
number = int(first == 0)
facts |= {"RANK": number, "LOCAL_RANK": number}
os.environ.update({key: str(value) for key, value in facts.items()})  # as torchrun does
with processes(seed=1, gpu=False):
    for name, text in json.load(open(sys.argv[1])).items():
        cfg = plugin.default_cfg()
        cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
        set_random_seed(cfg.SEED)
        if name == "MaPLe":  # stopped after two epochs and started again
            trainer = build_trainer(cfg)
            stop(trainer)
            try:
                with stoppable():
                    trainer.train()
            except Stopped as stopped:
                assert stopped.number == signal.SIGTERM
        trainer = build_trainer(cfg)
        trainer.train()
        assert trainer.start_epoch == (2 if name == "MaPLe" else 0), trainer.start_epoch
        state = {key: value.tolist() for key, value in trainer.model.state_dict().items()
                 if torch.is_tensor(value)}
        json.dump(state, open(f"{sys.argv[2]}/{name}-{rank()}.json", "w"))
        from_main(None)  # wait
if first:
    assert os.waitpid(first, 0)[1] == 0
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def cases(all_digits):
    """CASES, of all digits for CoOp: of some of them its temperature ends at its bound."""
    return {**CASES, "CoOp": [*CASES["CoOp"], "DATASET.ROOT", str(all_digits)]}


@pytest.fixture(scope="module")
def two_processes(make_cfg, cases, tmp_path_factory):
    """The folder in which two processes have trained every case, with their final weights."""
    folder = tmp_path_factory.mktemp("two")
    texts = {
        name: make_cfg(name, folder / name, *SHARED, *options).dump()
        for name, options in cases.items()
    }
    (folder / "cases.json").write_text(json.dumps(texts))
    command = [sys.executable, "-c", TWO, folder / "cases.json", folder, str(free_port())]
    # With a cache of their own, so that they encode what they read.
    own = {**os.environ, "CAUSALCLIP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def one_process(make_trainer, cases, tmp_path):
    """A function (case) -> the trainer after the same training in this process."""

    def trained(case):
        trainer = make_trainer(case, tmp_path, *SHARED, *cases[case])
        trainer.train()
        return trainer

    return trained


def learned(folder: Path, case: str, number: int) -> dict[str, torch.Tensor]:
    state = json.loads((folder / f"{case}-{number}.json").read_text())
    return {key: torch.tensor(value) for key, value in state.items()}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_and_answer_what_one_does(case, two_processes, one_process, tmp_path):
    alone = one_process(case)
    both = [learned(two_processes, case, number) for number in range(2)]
    for key, _ in alone.model.named_parameters():
        assert torch.equal(both[0][key], both[1][key]), key
    for key, value in alone.model.state_dict().items():
        if torch.is_tensor(value):
            # A temperature is what a search found, which ends at a tolerance of its own.
            atol = 1e-4 if key == "temperature" else 1e-6
            torch.testing.assert_close(both[0][key], value, atol=atol, rtol=0, check_dtype=False)
    found, expected = (
        dict(np.load(place / "predictions.npz")) for place in (two_processes / case, tmp_path)
    )
    assert found.keys() == expected.keys()
    for key in ("path", "label"):
        np.testing.assert_array_equal(found[key], expected[key])
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)


DYING = """
import os, time
import torch._dynamo  # with what follows: what both would import
from torch.distributed.run import main
import causalclip.plugin  # patches Dassl 0.6.3
from causalclip.engine.distributed import rank
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.runs import train

before = PromptTrainer.before_epoch

def before_epoch(trainer):
    if trainer.epoch == 2:
        if rank() == 1:
            os.kill(os.getpid(), 9)
        time.sleep(3)  # the other one's end is seen first
    before(trainer)

PromptTrainer.before_epoch = before_epoch
main()
"""


def test_a_process_that_dies_ends_the_run_and_the_same_command_goes_on(
    data_root, random_clip, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # the logger takes its place

    def arguments(folder):
        configs = ROOT / "configs"
        files = ["--dataset-config-file", configs / "datasets" / "handwritten_digits.yaml"]
        files += ["--config-file", configs / "trainers" / "CoOp" / "tiny.yaml"]
        names = ["--root", data_root, "--output-dir", folder, "--backbone", random_clip]
        options = [*SHARED, "DATASET.SUBSAMPLE_CLASSES", "base", "USE_CUDA", False]
        words = ["--trainer", "CoOp", "--seed", 1, *names, *files, *options]
        return [str(word) for word in words]

    torchrun = [sys.executable, "-c", DYING, "--standalone", "--nproc-per-node=2"]
    forked = [*torchrun, "--start-method=fork", "--run-path", ROOT / "train.py"]
    run = [*forked, *arguments(tmp_path / "run")]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode != 0 and "Signal 9 (SIGKILL)" in done.stderr
    folder = tmp_path / "run" / "prompt_learner"
    assert (folder / "checkpoint").read_text().strip() == "model.pth.tar-2"
    assert train.main(arguments(tmp_path / "run")) == 0
    assert train.main(arguments(tmp_path / "whole")) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["training"]["resumed_from_epoch"] == 2
    ours, expected = (
        load_checkpoint(str(tmp_path / name / "prompt_learner" / "model.pth.tar-3"))["state_dict"]
        for name in ("run", "whole")
    )
    torch.testing.assert_close(ours["ctx"], expected["ctx"], atol=1e-6, rtol=0)


def test_a_method_that_needs_the_whole_batch_is_refused(three, make_cfg, tmp_path):
    for name in ("ProGrad", "LinearProbe"):
        with pytest.raises(UserError, match=f"{name} runs in one process: call it without torchr"):
            train.trainer_for(make_cfg(name, tmp_path))


@pytest.fixture
def three(monkeypatch):
    """Pretend that there are three processes."""
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(train, "world_size", lambda: 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["DATALOADER.DRAWS", "dassl"], "several processes need DATALOADER.DRAWS item"),
        ([], "BATCH_SIZE must be a multiple of the 3 processes, got 8"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(
    three, options, said, make_trainer, tmp_path
):
    with pytest.raises(ValueError, match=said):
        make_trainer("CoOp", tmp_path, *options)


def test_a_batch_is_divided_without_a_rest(three, monkeypatch):
    def parts(count):
        for number in range(3):
            monkeypatch.setattr(distributed, "rank", lambda number=number: number)
            loader = object.__new__(Epochs)
            loader.batch_size = 3
            yield distributed.divided(loader).part(list(range(count)))

    assert list(parts(6)) == [[0, 1], [2, 3], [4, 5]]
    assert [image for part in parts(8) for image in part] == list(range(8))
    with pytest.raises(ValueError, match="a batch of 2 images cannot be divided by 3 processes"):
        list(parts(2))


def test_processes_without_a_seed_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(ValueError, match="SEED must be 0 or more, got -1"),
        distributed.processes(seed=-1, gpu=False),
    ):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ValueError, match="a GPU of its own, there are 2: give torchrun"),
        distributed.processes(seed=1, gpu=True),
    ):
        pass
