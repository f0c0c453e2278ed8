"""The Ray engine on a local cluster of three nodes, machines and processes that die included."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from causalclip.runs import command
from causalclip.runs.local import Local
from causalclip.runs.plan import PlanError, Request, Run, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.stop import Stop

ray_engine = pytest.importorskip("causalclip.runs.ray_engine")
DIGITS = ("handwritten_digits",)
EPOCH = ("OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0", "USE_CUDA", "False")
SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
# From Python 3.13 on a forked child drops what atexit held. Where nothing else held a node of Ray,
# its client ends in the child, which dies of it: every fork of a later test would fail.
KEPT = []


@pytest.fixture(scope="module")
def cluster():
    """Three nodes with one CPU each, and a connection to them."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's is 15: beside other work they hardly run
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        head = {**SMALL, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = [cluster.head_node, *(cluster.add_node(**SMALL) for _ in range(2))]
        KEPT.extend(nodes)  # the cluster itself lets go of a node that is removed
        ray.init(cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def sleeping(monkeypatch):
    """Runs sleep, say where they begin, and leave a result; the first one's process dies once."""

    def sleep(errand, parcels):
        from causalclip.runs.errand import Answer

        folder = errand.run.folder
        folder.mkdir(exist_ok=True)
        first = not (folder / "begun").exists()
        with open(folder / "begun", "a") as file:
            file.write(f"{os.getpid()}\n")
        if folder.name == "0" and first:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)
        (folder / "results.json").write_text('{"metrics": {}}')
        return Answer(seconds=0.5)

    monkeypatch.setattr(ray_engine, "do", sleep)


@pytest.mark.slow
@pytest.mark.usefixtures("sleeping")
def test_runs_of_a_node_that_is_gone_and_of_a_dead_process_begin_again(cluster, tmp_path):
    runs = [Run("fewshot", "train", tmp_path / str(n), ()) for n in range(12)]
    ended = []
    for outcome in ray_engine.Ray()(runs, Stop()):
        ended.append(outcome)
        if len(ended) == 3:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert sorted(outcome.run.folder for outcome in ended) == sorted(run.folder for run in runs)
    assert {outcome.state for outcome in ended} == {"finished"}
    assert all((run.folder / "results.json").is_file() for run in runs)
    begun = [(run.folder / "begun").read_text().split() for run in runs]
    assert len(begun[0]) >= 2  # its process died
    assert len({pid for pids in begun for pid in pids}) < 12  # processes do one after the other
    assert not list(tmp_path.glob(".ray-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_results_are_those_of_a_serial_process_seen_folder_or_not(tmp_path, data_root, random_clip):
    def runs(output):
        settings = ("MODEL.BACKBONE.NAME", random_clip, "DATASET.NUM_SHOTS", "2", *EPOCH)
        chosen = {"data": data_root, "output": output, "settings": settings}
        return plan(Request(PROTOCOLS["base2new"], ("CoOp",), DIGITS, **chosen), list)

    serial = runs(tmp_path / "serial")
    calls = [f"main({list(run.arguments)})" for run in serial]
    code = "\n".join(["from causalclip.runs.train import main", *calls])
    subprocess.run([sys.executable, "-c", code], env=Local().environment(0), check=True)
    (tmp_path / "hidden").mkdir()
    ours = os.open(tmp_path / "hidden", os.O_RDONLY)  # a path that no other process has
    for output in (tmp_path / "shared", Path(f"/proc/self/fd/{ours}/out")):
        done = runs(output)
        assert [o.state for o in ray_engine.Ray()(done, Stop())] == ["finished"] * 2
        for one, other in zip(serial, done, strict=True):
            first, second = (np.load(run.folder / "predictions.npz") for run in (one, other))
            assert first.files == second.files
            for name in first.files:
                assert first[name].tobytes() == second[name].tobytes()
    os.close(ours)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_more_than_any_machine_has_is_refused():
    with pytest.raises(PlanError, match="needs 1 CPUs and 2 GPUs of one machine.* at most 1 and 0"):
        ray_engine.Ray(gpus_per_run=2).check()


# Without a cluster


def test_an_address_where_nobody_is_or_somebody_else_is_refused(monkeypatch):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(PlanError, match=f"no Ray cluster answers at {free}: .*refused"):
            ray_engine.check_answers(free)
        mute.listen()
        monkeypatch.setattr(ray_engine, "ANSWER_WITHIN", 1.0)
        with pytest.raises(PlanError, match="it is not Ray"):
            ray_engine.check_answers(free)
    with pytest.raises(PlanError, match="must be HOST:PORT or auto, got here"):
        ray_engine.check_answers("here")


def test_a_cluster_that_wants_its_token_says_how_to_give_it(monkeypatch):
    def refused(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr=b"RPC error: InvalidAuthToken: ...")

    monkeypatch.setattr(ray_engine.subprocess, "run", refused)
    with socket.socket() as mute, pytest.raises(PlanError, match="RAY_AUTH_MODE=token"):
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        ray_engine.check_answers(f"127.0.0.1:{mute.getsockname()[1]}")


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


def test_the_mark_of_a_killed_driver_is_removed_and_that_of_another_at_work_stays(tmp_path):
    (tmp_path / ".ray-left").touch()
    held = tmp_path / ".ray-held"
    command = [sys.executable, "-S", "-c", HOLD, str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with ray_engine.marked([tmp_path / "1", tmp_path / "2"]) as mark:
            assert set(tmp_path.iterdir()) == {mark, held}
        other.stdin.close()
    assert list(tmp_path.iterdir()) == [held]


@pytest.mark.parametrize(
    ("settings", "machines", "room"),
    [
        ({}, [{"CPU": 8.0}, {"CPU": 3.0}, {}], 11),
        ({"threads": 4}, [{"CPU": 8.0}, {"CPU": 3.0}], 2),
        ({"gpus_per_run": 0.5}, [{"CPU": 8.0, "GPU": 2.0}], 4),
        ({"gpus_per_run": 0.4}, [{"CPU": 8.0, "GPU": 2.0}], 4),  # a part is of one GPU
        ({"gpus_per_run": 2}, [{"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 4.0}], 3),
        ({"gpus_per_run": 1, "threads": 8}, [{"CPU": 8.0, "GPU": 4.0}], 1),
    ],
)
def test_there_is_room_for_what_each_machine_can_take(settings, machines, room, monkeypatch):
    monkeypatch.setattr(ray_engine, "machines", lambda: machines)
    assert ray_engine.Ray(**settings).room() == room


LINE = ["base2new", "--methods", "CoOp", "--datasets", "handwritten_digits"]


def test_without_ray_it_is_said_how_to_get_it(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "causalclip.runs.ray_engine")
    assert command.main([*LINE, "--engine", "ray"]) == 2
    assert "pip install 'causalclip[ray]'" in capsys.readouterr().err


def test_an_address_is_for_ray_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([*LINE, "--address", "auto"]) == 2
    assert "--address auto is for --engine ray" in capsys.readouterr().err
