"""A Ray cluster of several nodes on this machine, which can be taken away."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

MEMORY = 100 * 2**20  # bytes of each node's object store


@contextmanager
def nodes(cpus: Sequence[int]) -> Iterator[Cluster]:
    """A cluster whose nodes have so many CPUs, the head first."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # on a busy machine
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the local engine's; Ray's is 15
    from ray.cluster_utils import Cluster  # here: an extra

    head = {"num_cpus": cpus[0], "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for count in cpus[1:]:
        cluster.add_node(num_cpus=count, object_store_memory=MEMORY)
    try:
        yield cluster
    finally:
        cluster.shutdown()
