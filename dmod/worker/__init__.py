"""What a worker process does: cut a batch over its devices, run an executor on each, update.

`parameters` holds the flat buffers, `group` the executors of one set of shapes, `update` the strategies.
"""

from __future__ import annotations

from dmod.worker.cluster_metrics import ClusterMetrics, Snapshot
from dmod.worker.group import DeviceState, ExecutorGroup
from dmod.worker.parameters import ParameterSet
from dmod.worker.update import UpdateStrategy, choose_strategy

__all__ = [
    "ClusterMetrics",
    "DeviceState",
    "ExecutorGroup",
    "ParameterSet",
    "Snapshot",
    "UpdateStrategy",
    "choose_strategy",
]
