"""scripts/ray.sbatch beside stand-ins for Slurm and Ray that say how they were called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/ray.sbatch"
STANDINS = {
    "scontrol": 'echo "$SLURM_JOB_NODELIST" | tr , "\\n"',
    # What stands before the command are options.
    "srun": """
options=
until [[ $1 == hostname || $1 == ray ]]; do options+="$1 "; shift; done
ON="$options" exec "$@"
""",
    # As Debian has it: the name is one of the loopback's.
    "hostname": '[[ $1 == --ip-address ]] && echo 127.0.1.1 || echo "fd00::7 10.0.0.7 172.17.0.1"',
    "ray": '[[ $1 == health-check ]] || echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN|$ON|$*" >> "$CALLS"',
    "causalclip": """
for _ in {1..2000}; do
    [[ $(wc -l < "$CALLS") == "$STARTED" ]] && break
    sleep 0.05
done
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN||$*" >> "$CALLS"
exit 3
""",
}


@pytest.fixture
def submitted(tmp_path):
    """A function: a job's nodes -> its exit status, and what was called: token, node, command."""
    for name, body in STANDINS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def submit(*nodes):
        facts = {
            "CALLS": str(tmp_path / "calls.txt"),
            "STARTED": str(min(2, len(nodes))),
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": ",".join(nodes),
            "SLURM_JOB_NUM_NODES": str(len(nodes)),
            "SLURM_JOB_ID": "40042",
            "SLURM_CPUS_ON_NODE": "8",
        }
        (tmp_path / "calls.txt").touch()
        command = ["bash", str(SCRIPT), "base2new", "--data", "a b"]
        status = subprocess.run(command, env={**os.environ, **facts}, timeout=600).returncode
        calls = [line.split("|") for line in (tmp_path / "calls.txt").read_text().splitlines()]
        return status, sorted(calls, key=lambda call: call[2])

    return submit


def test_a_job_is_one_cluster_with_a_token_of_its_own_and_its_status_is_the_commands(submitted):
    status, calls = submitted("n1", "n2", "n3")
    run, others, head = calls
    assert status == 3
    assert run[2] == "run base2new --data a b --engine ray --address 10.0.0.7:20042"
    assert head[2] == "start --head --port 20042 --num-cpus 8 --block"
    assert "--nodes 1 --ntasks 1 --nodelist n1 " in head[1]
    assert others[2] == "start --address 10.0.0.7:20042 --num-cpus 8 --block"
    assert "--nodes 2 --ntasks 2 --exclude n1 " in others[1]
    (token,) = {call[0] for call in calls}
    assert re.fullmatch("token [0-9a-f]{64}", token)


def test_a_node_alone_has_no_others_to_start(submitted):
    _, calls = submitted("n1")
    assert len(calls) == 2
