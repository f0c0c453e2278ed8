"""Pools of processes: same bits as separate processes; processes that die or are stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from pathlib import Path

import dying
import numpy as np
import pytest
import torch

from causalclip.errors import UserError
from causalclip.runs import command, schedule
from causalclip.runs.executor import LocalPool, RayTasks, check_answers, in_parallel
from causalclip.runs.plan import plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request
from causalclip.runs.schedule import Schedule, Stop
from causalclip.runs.worker import perform_run

DIGITS = ("handwritten_digits",)
EPOCH = ("OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0", "USE_CUDA", "False")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_root, random_clip):
    """A function: folder -> the runs of some methods on a small random CLIP."""
    root = tmp_path_factory.mktemp("runs")

    def make(folder, *methods, epoch=EPOCH):
        settings = ("MODEL.BACKBONE.NAME", random_clip, "DATASET.NUM_SHOTS", "2", *epoch)
        places = {"data": data_root, "output": root / folder}
        return plan(
            Request(PROTOCOLS["base2new"], methods, DIGITS, settings=settings, **places), list
        )

    return make


@pytest.fixture(scope="module")
def warm():
    """A pool of two processes, which import torch once for all tests that train."""
    made = LocalPool(jobs=2)
    yield made
    made.close()


@pytest.fixture
def pool():
    """A function like LocalPool whose processes end with the test."""
    made = []

    def make(*arguments, **options):
        made.append(LocalPool(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def assert_same_predictions(runs, others):
    for one, other in zip(runs, others, strict=True):
        first, second = (np.load(run.folder / "predictions.npz") for run in (one, other))
        assert first.files == second.files
        for name in first.files:
            assert first[name].tobytes() == second[name].tobytes()


# Forked after the imports and before anything else: each run has a process that has done nothing.
ALONE = """
import json, os, sys
import sklearn.metrics, torch._dynamo, torchmetrics  # which a run imports later
from causalclip.runs import train
for arguments in json.loads(sys.argv[1]):
    if not os.fork():
        os._exit(train.main(arguments))
    assert os.wait()[1] == 0, arguments
"""


@pytest.fixture(scope="module")
def alone(runs):
    """The runs of CoOp and KgCoOp, each done by train.py in a process of its own."""
    done = runs("alone", "CoOp", "KgCoOp")
    words = [sys.executable, "-c", ALONE, json.dumps([run.arguments for run in done])]
    environment = {**os.environ, **LocalPool().environment(0)}
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    return done


@pytest.mark.slow
def test_results_are_those_of_separate_processes_to_the_bit_and_a_failure_is_one_sentence(
    runs, warm, alone
):
    bad, *_ = runs("bad", "CoOp")
    bad = replace(bad, arguments=(*bad.arguments, "TRAINER.COOP.PREC", "half"))
    together = runs("together", "CoOp", "KgCoOp")
    outcomes = Schedule([bad, *together], warm).outcomes(Stop())
    ended = {outcome.run.folder: outcome for outcome in outcomes}
    failed = ended.pop(bad.folder)
    assert failed.state == "failed" and "TRAINER.COOP.PREC must be one of" in failed.reason
    assert "\n" not in failed.reason
    assert [outcome.state for outcome in ended.values()] == ["finished"] * 4
    assert perform_run(together[0], os.getcwd()).state == "skipped"
    assert_same_predictions(alone, together)
    for run, twin in zip(alone[::2], together[::2], strict=True):
        (file,) = (path.relative_to(run.folder) for path in run.folder.glob("*/model.pth.tar-1"))
        states = (torch.load(place.folder / file, weights_only=False) for place in (run, twin))
        learned = (state["state_dict"] for state in states)
        torch.testing.assert_close(*learned, rtol=0, atol=0)


@pytest.mark.slow
def test_a_training_under_sigterm_is_saved_and_goes_on_in_another_process(runs, warm, monkeypatch):
    # more epochs than a fast machine ends between two looks
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.05)
    (run,) = runs("out", "CoOp", epoch=("OPTIM.MAX_EPOCH", "60", "USE_CUDA", "False"))[:1]
    holder, log = run.folder / "run.lock.json", run.folder / "log.txt"
    planned, pid = Schedule([run], warm), None

    class Watching(Stop):
        """Sends the signal when the training has begun an epoch."""

        @property
        def asked(self):
            nonlocal pid
            if pid is None and log.is_file() and "epoch [2/" in log.read_text():
                pid = json.loads(holder.read_text())["pid"]
                os.kill(pid, signal.SIGTERM)
            return 0

    watched = planned.outcomes(Watching())
    again = next(watched)
    assert again.state == "again" and "process died" in again.reason
    assert list(run.folder.glob("*/model-step.pth.tar*"))  # saved before it died
    assert [outcome.state for outcome in watched] == ["finished"]


# Processes


def test_a_process_that_dies_costs_its_own_task_alone_and_is_replaced(tmp_path, pool):
    processes = pool(jobs=2)
    slow = processes.submit(time.sleep, 3)
    dies = processes.submit(os.kill, processes.submit(os.getpid).result(), signal.SIGKILL)
    assert isinstance(dies.exception(), BrokenExecutor)
    assert processes.submit(os.getpid).result() != os.getpid()
    assert slow.result() is None
    tasks = [(name, dying.die_once, (tmp_path / name,)) for name in "ab"]
    assert set(in_parallel(processes, tasks)) == {"a", "b"}


def test_a_task_whose_process_always_dies_is_given_up(pool):
    with pytest.raises(BrokenExecutor):
        list(in_parallel(pool(), [("a", os._exit, (1,))]))


def test_a_process_ends_soon_after_its_parent():
    code = """
import os, time
from causalclip.runs.executor import LocalPool
if __name__ == "__main__":
    print(LocalPool().submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)  # it is there
        parent.kill()
    deadline = time.monotonic() + 300
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_has_its_environment_before_it_imports_and_loads_as_others_do(pool):
    processes = pool(threads=3)
    assert processes.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"
    begun = processes.submit(eval, "set(__import__('sys').modules)").result()
    assert not begun & {"torch", "numpy", "dassl", "PIL", "ray"}
    method = processes.submit(multiprocessing.get_start_method).result()
    assert method == multiprocessing.get_start_method()


def test_gpus_are_handed_out_whole_and_in_parts(monkeypatch):
    def seen(pool):
        return [pool.environment(n).get("CUDA_VISIBLE_DEVICES") for n in range(pool.jobs)]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert seen(LocalPool(jobs=2, gpus_per_run=2)) == ["4,5", "6,7"]
    assert seen(LocalPool(jobs=4, gpus_per_run=0.5)) == ["4", "4", "5", "5"]
    assert seen(LocalPool(jobs=1)) == [None]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jobs": 0}, "--jobs must be positive, got 0"),
        ({"threads": 0}, "--threads must be positive, got 0"),
        ({"jobs": 3, "gpus_per_run": 2}, "3 jobs with 2 GPUs each need 6, there are 4"),
        ({"jobs": 9, "gpus_per_run": 0.5}, "9 jobs with 0.5 GPUs each need 5, there are 4"),
        ({"gpus_per_run": 1.5}, "must be a whole number, or a part between 0 and 1, got 1.5"),
        ({"gpus_per_run": -1}, "must be a whole number, or a part .*, got -1"),
        ({"gpus_per_run": float("nan")}, "must be a whole number, or a part .*, got nan"),
    ],
)
def test_more_than_there_is_is_refused(settings, said, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with pytest.raises(UserError, match=said):
        LocalPool(**settings).check()


# Ray


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one CPU each, and a connection to them."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's is 15: beside other work they hardly run
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        made.add_node(**small)
        ray.init(made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_rays_results_are_those_of_separate_processes_and_a_dead_process_is_one_task(
    runs, alone, tmp_path
):
    tasks = RayTasks()
    tasks.check()
    assert tasks.places() == 2
    done = runs("ray", "CoOp")
    ended = list(Schedule(done, tasks).outcomes(Stop()))
    assert [outcome.state for outcome in ended] == ["finished"] * 2
    assert_same_predictions(alone[:2], done)
    tasks.ray.cloudpickle.register_pickle_by_value(dying)
    dies = [(name, dying.die_once, (tmp_path / name,)) for name in "ab"]
    assert set(in_parallel(tasks, dies)) == {"a", "b"}
    with pytest.raises(UserError, match="needs 1 CPUs and 2 GPUs of one machine.* at most 1 and 0"):
        RayTasks(gpus_per_run=2).check()


def test_an_address_where_nobody_is_is_refused():
    with pytest.raises(UserError, match="no Ray cluster answers at 127.0.0.1:9: .*refused"):
        check_answers("127.0.0.1:9")
    with pytest.raises(UserError, match="must be HOST:PORT or auto, got here"):
        check_answers("here")


LINE = ["base2new", "--methods", "CoOp", "--datasets", "handwritten_digits"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "ray"], "pip install 'causalclip[ray]'"),
        (["--address", "auto"], "--address auto is for --engine ray"),
    ],
)
def test_a_cluster_without_ray_is_refused_in_a_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command.main([*LINE, *words]) == 2
    assert said in capsys.readouterr().err
