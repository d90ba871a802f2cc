"""The only reader of the environment: ``DMLC_*`` and ``DMOD_*`` become one frozen `Settings`.

It refuses to guess: a variable that does not parse is an error that names it and what was expected.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dmod.base import InvalidArgument

__all__ = ["Settings", "kernel_variables", "settings"]

ROLES = ("worker", "server", "scheduler")
TRANSPORTS = ("auto", "shm", "ipc", "tcp")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Settings:
    """What the environment says about this process and its job.

    Attributes
    ----------
    role : str
        ``DMLC_ROLE``: 'worker', 'server', 'scheduler', or '' outside a cluster.
    root_uri, root_port : str, int
        ``DMLC_PS_ROOT_URI`` and ``DMLC_PS_ROOT_PORT``: where the scheduler listens.
    num_workers, num_servers : int
        ``DMLC_NUM_WORKER`` and ``DMLC_NUM_SERVER``.
    node_host, interface : str
        ``DMLC_NODE_HOST`` and ``DMLC_INTERFACE``: the address, or the interface, to listen on.
    rank : int or None
        ``DMLC_WORKER_ID`` or ``DMLC_SERVER_ID``, else ``DMLC_RANK``; None lets the scheduler choose.
    job : str
        ``DMOD_JOB``: processes of different jobs refuse each other.
    transport : str
        ``DMOD_TRANSPORT``: 'shm' (shared memory), 'ipc', 'tcp', or 'auto': the first of these that a worker
        and a server can use.
    shm_bytes : int or None
        ``DMOD_SHM_BYTES``: most shared memory that a process takes for the arrays it sends; what does not fit
        travels through sockets. None: what the system gives.
    insecure_network : bool
        ``DMOD_INSECURE_NETWORK``: permits addresses other than loopback, without authentication.
    timeout_s : float
        ``DMOD_TIMEOUT_S``: after so many silent seconds a process counts as dead.
    join_timeout_s : float
        ``DMOD_JOIN_TIMEOUT_S``: how long a process waits for the others to join.
    wait_s : float
        ``DMOD_WAIT_S``: the longest that one call of a store may wait for workers that are alive.
    deaths_on_stdin : bool
        ``DMOD_DEATHS_ON_STDIN``: who has started the scheduler tells it on its standard input which
        processes have ended: a line of role, rank and reason for each.
    heartbeat_s : float
        ``DMOD_HEARTBEAT_S``: seconds between two signs of life.
    unit_bytes : int
        ``DMOD_UNIT_BYTES``: the size of the units in which large arrays travel.
    overlap : bool or None
        ``DMOD_OVERLAP``: whether gradients leave during `fit`'s backward pass. None: if any server
        is on another host.
    test_network : tuple of (float, float) or None
        ``DMOD_TEST_NETWORK``: ``latency_ms,MB/s`` of a network that is pretended, for tests.
    cluster_metrics : bool
        ``DMOD_CLUSTER_METRICS``: whether `fit` reports metrics of all workers rather than each its own.
    update_on_kvstore : bool
        ``DMOD_UPDATE_ON_KVSTORE`` or ``MXNET_UPDATE_ON_KVSTORE``: whether the store runs the optimizer.
    allow_mixed : bool
        ``DMOD_ALLOW_MIXED``: admits workers whose fingerprints differ, which gives up equal bits.
    numba : bool
        ``DMOD_NUMBA``: whether compiled kernels are used where numba is installed.
    onednn : str
        ``DMOD_ONEDNN``: the file of the oneDNN library; '' searches for one, '0' does without.
    num_threads : int or None
        ``DMOD_NUM_THREADS``: threads per device, for all that computes with several: BLAS and oneDNN. Unset,
        the workers of a job on one host (its root is a loopback address) share the processors evenly, unless
        ``OMP_NUM_THREADS`` or ``OPENBLAS_NUM_THREADS`` are set; None leaves the libraries' own settings.
    copy_ahead : bool
        ``DMOD_COPY_AHEAD``: whether the next batch is copied to GPUs while they compute the present one.
    restart : int
        ``DMOD_RESTART``: how many times ``dmod-launch --max-restarts`` has started this job again.
    passes : str
        ``DMOD_PASSES``: which passes of the plan compiler run, such as 'all', 'none', '-fuse_elementwise'.
    cache_dir : str
        ``DMOD_CACHE_DIR``: where generated kernels are kept; default: ``$XDG_CACHE_HOME/dmod``, or
        ``~/.cache/dmod``; '' if there is no home directory.
    """

    role: str = ""
    root_uri: str = ""
    root_port: int = 0
    num_workers: int = 1
    num_servers: int = 1
    node_host: str = ""
    interface: str = ""
    rank: int | None = None
    job: str = "default"
    transport: str = "auto"
    shm_bytes: int | None = None
    insecure_network: bool = False
    timeout_s: float = 10.0
    join_timeout_s: float = 60.0
    wait_s: float = 600.0
    deaths_on_stdin: bool = False
    heartbeat_s: float = 1.0
    unit_bytes: int = 4 << 20
    overlap: bool | None = None
    test_network: tuple[float, float] | None = None
    cluster_metrics: bool = True
    update_on_kvstore: bool = True
    allow_mixed: bool = False
    numba: bool = True
    onednn: str = ""
    num_threads: int | None = None
    copy_ahead: bool = True
    restart: int = 0
    passes: str = "all"
    cache_dir: str = ""


class _Reader:
    """Typed look-ups in one environment; every failure names the variable."""

    def __init__(self, environ: Mapping[str, str]):
        self._environ = environ

    def text(self, name: str, default: str = "", choices: tuple[str, ...] = ()) -> str:
        value = self._environ.get(name, default).strip()
        if choices and value and value not in choices:
            raise InvalidArgument(f"{name}={value!r}: expected one of {', '.join(choices)}")
        return value

    def integer(self, name: str, default: int, low: int) -> int:
        text = self._environ.get(name, "").strip()
        try:
            value = int(text) if text else default
        except ValueError:
            raise InvalidArgument(f"{name}={text!r}: expected a whole number") from None
        if value < low:
            raise InvalidArgument(f"{name}={value}: expected at least {low}")
        return value

    def optional_integer(self, names: tuple[str, ...], low: int) -> int | None:
        for name in names:
            if self._environ.get(name, "").strip():
                return self.integer(name, 0, low)
        return None

    def seconds(self, name: str, default: float) -> float:
        text = self._environ.get(name, "").strip()
        try:
            value = float(text) if text else default
        except ValueError:
            raise InvalidArgument(f"{name}={text!r}: expected seconds, such as {default:g}") from None
        if not 0 < value < 1e9:
            raise InvalidArgument(f"{name}={text}: expected a positive number of seconds")
        return value

    def optional_flag(self, name: str) -> bool | None:
        return self.flag((name,), False) if self._environ.get(name, "").strip() else None

    def network(self, name: str) -> tuple[float, float] | None:
        """Seconds of latency, and bytes per second."""
        text = self._environ.get(name, "").strip()
        if not text:
            return None
        try:
            latency, speed = (float(part) for part in text.split(","))
        except ValueError:
            latency = speed = -1.0
        if latency < 0 or speed <= 0:
            raise InvalidArgument(f"{name}={text!r}: expected milliseconds and MB/s, such as 0.5,100")
        return latency / 1e3, speed * 1e6

    def flag(self, names: tuple[str, ...], default: bool) -> bool:
        for name in names:
            text = self._environ.get(name)
            if text is None:
                continue
            if text.strip().lower() in _TRUE:
                return True
            if text.strip().lower() in _FALSE:
                return False
            raise InvalidArgument(f"{name}={text!r}: expected 0 or 1")
        return default


def settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: this process's environment).

    Raises
    ------
    InvalidArgument
        A variable does not parse, or lies outside its range.
    """
    read = _Reader(os.environ if environ is None else environ)
    role = read.text("DMLC_ROLE", choices=ROLES)
    rank_names = {"worker": ("DMLC_WORKER_ID", "DMLC_RANK"), "server": ("DMLC_SERVER_ID", "DMLC_RANK")}
    timeout_s = read.seconds("DMOD_TIMEOUT_S", 10.0)
    heartbeat_s = read.seconds("DMOD_HEARTBEAT_S", min(1.0, timeout_s / 5))
    if heartbeat_s > timeout_s / 2:
        raise InvalidArgument(
            f"DMOD_HEARTBEAT_S={heartbeat_s:g} with DMOD_TIMEOUT_S={timeout_s:g}: "
            "expected at least two heartbeats within the timeout"
        )
    return Settings(
        role=role,
        root_uri=read.text("DMLC_PS_ROOT_URI"),
        root_port=read.integer("DMLC_PS_ROOT_PORT", 0, 0),
        num_workers=read.integer("DMLC_NUM_WORKER", 1, 1),
        num_servers=read.integer("DMLC_NUM_SERVER", 1, 1),
        node_host=read.text("DMLC_NODE_HOST"),
        interface=read.text("DMLC_INTERFACE"),
        rank=read.optional_integer(rank_names.get(role, ()), 0),
        job=read.text("DMOD_JOB", "default"),
        transport=read.text("DMOD_TRANSPORT", "auto", TRANSPORTS) or "auto",
        shm_bytes=read.optional_integer(("DMOD_SHM_BYTES",), 0),
        insecure_network=read.flag(("DMOD_INSECURE_NETWORK",), False),
        timeout_s=timeout_s,
        join_timeout_s=read.seconds("DMOD_JOIN_TIMEOUT_S", 60.0),
        wait_s=read.seconds("DMOD_WAIT_S", 600.0),
        deaths_on_stdin=read.flag(("DMOD_DEATHS_ON_STDIN",), False),
        heartbeat_s=heartbeat_s,
        unit_bytes=read.integer("DMOD_UNIT_BYTES", 4 << 20, 1024),
        overlap=read.optional_flag("DMOD_OVERLAP"),
        test_network=read.network("DMOD_TEST_NETWORK"),
        cluster_metrics=read.flag(("DMOD_CLUSTER_METRICS",), True),
        update_on_kvstore=read.flag(("DMOD_UPDATE_ON_KVSTORE", "MXNET_UPDATE_ON_KVSTORE"), True),
        allow_mixed=read.flag(("DMOD_ALLOW_MIXED",), False),
        numba=read.flag(("DMOD_NUMBA",), True),
        onednn=read.text("DMOD_ONEDNN"),
        num_threads=read.optional_integer(("DMOD_NUM_THREADS",), 1) or _share_of_processors(read, role),
        copy_ahead=read.flag(("DMOD_COPY_AHEAD",), True),
        restart=read.integer("DMOD_RESTART", 0, 0),
        passes=read.text("DMOD_PASSES", "all") or "all",
        cache_dir=read.text("DMOD_CACHE_DIR") or _user_cache(read),
    )


def kernel_variables() -> dict[str, str]:
    """The variables in the environment by which BLAS, OpenMP and oneDNN choose kernels and threads."""
    prefixes = ("OMP_", "OPENBLAS_", "MKL_", "GOTO_", "ONEDNN_", "DNNL_", "KMP_", "NUMBA_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}


def _user_cache(read: _Reader) -> str:
    """This package's part of the user's cache directory."""
    base = read.text("XDG_CACHE_HOME") or (read.text("HOME") and os.path.join(read.text("HOME"), ".cache"))
    return os.path.join(base, "dmod") if os.path.isabs(base) else ""


def _share_of_processors(read: _Reader, role: str) -> int | None:
    """How many threads each of several workers on this host gets; None where there is only one, or who knows.

    Threads that wait for others spin: with more of them than processors a step takes many times as long.
    """
    num_workers = read.integer("DMLC_NUM_WORKER", 1, 1)
    root = read.text("DMLC_PS_ROOT_URI")
    is_local = root == "localhost" or root.startswith("127.") or root == "::1"
    if role != "worker" or num_workers == 1 or not is_local:
        return None
    if read.text("OMP_NUM_THREADS") or read.text("OPENBLAS_NUM_THREADS"):
        return None
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, processors // num_workers)
