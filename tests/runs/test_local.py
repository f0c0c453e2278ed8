"""The local engine: the results of separate processes to the bit, and workers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from causalclip.runs import local
from causalclip.runs.local import Local
from causalclip.runs.plan import PlanError, Request, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.stop import Stop

EPOCH = ("OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0", "USE_CUDA", "False")


@pytest.fixture
def runs(tmp_path, data_root, random_clip):
    """A function: folder -> the runs of three methods on a small random CLIP."""

    def make(folder, *methods):
        settings = ("MODEL.BACKBONE.NAME", random_clip, "DATASET.NUM_SHOTS", "2", *EPOCH)
        request = Request(
            PROTOCOLS["base2new"],
            methods or ("CoOp", "CoCoOp"),
            ("handwritten_digits",),
            data=data_root,
            output=tmp_path / folder,
            settings=settings,
        )
        return plan(request, list)

    return make


def outcomes(engine, runs):
    return list(engine(runs, Stop()))


def same(a, b) -> bool:
    """Whether two nested states hold the same numbers to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


# Forked after the imports and before anything else: each run has a process that has done nothing.
ALONE = """
import json, os, sys
import sklearn.metrics, torchmetrics  # which a run imports for its figures
from causalclip.runs import train
for arguments in json.loads(sys.argv[1]):
    if not os.fork():
        os._exit(train.main(arguments))
    assert os.wait()[1] == 0, arguments
"""


@pytest.mark.slow
def test_results_are_those_of_separate_processes_to_the_bit(runs, tmp_path):
    alone = runs("alone")
    arguments = json.dumps([run.arguments for run in alone])
    command = [sys.executable, "-c", ALONE, arguments]
    environment = Local(threads=1).environment(0)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    together = runs("together")
    ended = outcomes(Local(jobs=2, threads=1, show="runs"), together)
    assert [outcome.state for outcome in ended] == ["finished"] * 4
    for one, other in zip(alone, together, strict=True):
        first, second = (np.load(run.folder / "predictions.npz") for run in (one, other))
        assert first.files == second.files
        for name in first.files:
            assert first[name].tobytes() == second[name].tobytes()
    for run, twin in zip(alone[::2], together[::2], strict=True):
        (file,) = (path.relative_to(run.folder) for path in run.folder.glob("*/model.pth.tar-1"))
        states = (torch.load(place.folder / file, weights_only=False) for place in (run, twin))
        assert same(*(state["state_dict"] for state in states))


@pytest.mark.slow
def test_a_killed_worker_is_replaced_a_failure_is_one_sentence_and_the_rest_goes_on(
    runs, monkeypatch
):
    started = []
    start = local.start_worker

    def start_and_kill_the_first(number, settings):
        worker = start(number, settings)
        started.append(worker)
        if len(started) == 1:
            threading.Thread(target=kill_at_work, args=[worker]).start()
        return worker

    def kill_at_work(worker):
        while not (worker.run and (worker.run.folder / "log.txt").is_file()):
            time.sleep(0.05)
        os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(local, "start_worker", start_and_kill_the_first)
    (run,) = runs("out", "CoOp")[:1]
    bad, *_ = runs("bad", "CoOp")
    bad = replace(bad, arguments=(*bad.arguments, "TRAINER.COOP.PREC", "half"))
    good, *_ = runs("good", "ZeroshotCLIP")
    again, ended, failed, last = outcomes(Local(show="runs"), [run, bad, good])
    assert (again.state, ended.state) == ("again", "finished")
    assert again.run == ended.run == run and "SIGKILL" in again.reason
    assert len(started) == 2
    assert (run.folder / "results.json").is_file()
    assert failed.state == "failed" and "TRAINER.COOP.PREC must be one of" in failed.reason
    assert last.state == "finished"


def test_a_worker_ends_soon_after_who_started_it(tmp_path):
    code = """
import time
from causalclip.runs.local import Local, start_worker
print(start_worker(0, Local(show="runs")).process.pid, flush=True)
time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(starter.stdout.readline())
    os.kill(pid, 0)  # it is there
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# What a process gets


def test_each_process_has_as_many_threads_as_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Local(threads=2).environment(0)["OMP_NUM_THREADS"] == "2"
    assert Local(threads=None).environment(0)["OMP_NUM_THREADS"] == "7"


def test_gpus_are_handed_out_whole_and_in_parts(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    whole = Local(jobs=2, gpus_per_run=2)
    assert [whole.devices(n) for n in range(2)] == ["4,5", "6,7"]
    half = Local(jobs=4, gpus_per_run=0.5)
    assert [half.devices(n) for n in range(4)] == ["4", "4", "5", "5"]
    assert Local(jobs=4).devices(3) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jobs": 0}, "must be positive"),
        ({"jobs": 3, "gpus_per_run": 2}, "3 jobs with 2 GPUs each need 6, there are 4"),
        ({"jobs": 9, "gpus_per_run": 0.5}, "9 jobs with 0.5 GPUs each need 5, there are 4"),
        ({"gpus_per_run": 1.5}, "must be a whole number, or a part between 0 and 1, got 1.5"),
        ({"gpus_per_run": -1}, "must be a whole number, or a part .*, got -1"),
        ({"gpus_per_run": float("nan")}, "must be a whole number, or a part .*, got nan"),
    ],
)
def test_more_than_there_is_is_refused(settings, said, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with pytest.raises(PlanError, match=said):
        Local(**settings).check()
