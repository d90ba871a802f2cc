"""Finds Ray, and a cluster of it: the package is imported here, and only when it is asked for.

No more of Ray is started than a job needs: no dashboard, a small object store, no usage statistics.
"""

from __future__ import annotations

import importlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmod.base import ClusterError, InvalidArgument

__all__ = ["cluster", "is_this_machine", "load_ray", "place"]

OLDEST, NEWEST = (2, 44), (3, 0)
"""Ray 2.44 gave `ray.tune` a configuration of its own; the next major version may change anything."""
OBJECT_STORE_BYTES = 100 << 20
"""Of a Ray that is started here: through it travel lines of output, never gradients."""
WAIT_S = 60.0
"""How long a job waits for its share of a cluster that others use too, or that grows."""
_ANSWER_S = 10.0
_TOKEN = Path("~/.ray/auth_token").expanduser()
_TOKEN_HINT = ". If the cluster asks for a token: it is in ~/.ray/auth_token of its head"
_LEFT_OUT = [".git", ".venv", "__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", ".pytest_cache"]
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray is going to do anyway, without its warning
    # Of a Ray that is started here. By its own choice, 15, a job would stand behind all else on a machine.
    "RAY_worker_niceness": "0",
}


def load_ray() -> Any:
    """The module `ray`.

    Raises
    ------
    InvalidArgument
        It is not installed, or of a version that does not fit.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise InvalidArgument(f"Ray cannot be imported ({error}): pip install 'dmod[ray]'") from None
    check_version(ray.__version__)
    return ray


def check_version(version: str) -> None:
    """Refuse a Ray that this package does not know.

    Examples
    --------
    >>> check_version('2.60.0')
    >>> check_version('1.13.0')
    Traceback (most recent call last):
    dmod.base.InvalidArgument: Ray 1.13.0 is installed; expected 2.44 or newer, below 3.0: ...
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not OLDEST <= numbers < NEWEST:
        raise InvalidArgument(
            f"Ray {version} is installed; expected {OLDEST[0]}.{OLDEST[1]} or newer, below "
            f"{NEWEST[0]}.{NEWEST[1]}: pip install 'dmod[ray]'"
        )


@contextmanager
def cluster(
    address: str | None = None, num_cpus: int | None = None, ship: bool = False
) -> Iterator[tuple[Any, bool]]:
    """Connect to a Ray cluster, or start one on this machine, for as long as the context lasts.

    Parameters
    ----------
    address : str, optional
        'auto' for the cluster that runs on this machine, ``ray://HOST:10001``, or ``HOST:6379``; default: the
        one that this process is connected to, else ``RAY_ADDRESS``, else a new one.
    num_cpus : int, optional
        Of a new one; default: the processors of this machine.
    ship : bool
        Whether processes run in a copy of this directory, which Ray takes to the nodes, even if all of them
        are on this machine. If one is not, they do in any case.

    Yields
    ------
    ray : module
    is_own : bool
        Whether it was started here, and so will not grow.

    Raises
    ------
    ClusterError
        There is none at the address.
    """
    ray = load_ray()
    if ray.is_initialized():
        if address not in (None, "auto"):
            raise InvalidArgument(
                f"address={address!r}: this process is connected to a Ray cluster already; leave it out, or "
                "call ray.shutdown() first"
            )
        yield ray, False
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_that_somebody_listens(address)
    # To a cluster that asks for no token, none must be shown, unless this process has no part in it.
    if address.startswith("ray://") or (":" in address and _asks_for_token(address)):
        _show_token()
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        options |= {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "num_cpus": num_cpus,
        }
    try:
        ray.init(address=address, **options)
        if ship or not is_this_machine(
            ray
        ):  # which is known now, and Ray takes directories at the start only
            ray.shutdown()
            ray.init(address=address, runtime_env={"working_dir": ".", "excludes": _LEFT_OUT}, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        hint = "" if address == "local" else _TOKEN_HINT
        raise ClusterError(f"Ray, at address {address!r}: {reason.rstrip('.')}{hint}") from None
    try:
        yield ray, address == "local"
    finally:
        ray.shutdown()


def _asks_for_token(address: str) -> bool:
    """Whether a cluster refuses whoever shows no token; Ray itself finds out in 20 s, and then gives up."""
    try:
        grpc: Any = importlib.import_module("grpc")
    except ImportError:
        return False
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=_ANSWER_S)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _show_token() -> None:
    """Let Ray show a token, if there is one; by itself it does so for the address 'auto' only."""
    has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if "RAY_AUTH_MODE" in os.environ or not (has_token or _TOKEN.is_file()):
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    with suppress(ImportError, AttributeError):  # of a version without tokens
        importlib.import_module("ray._raylet").Config.initialize("")  # it has read its variables already


def _check_that_somebody_listens(address: str) -> None:
    """Ray itself tries for minutes, and then speaks of other things."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"Ray, at address {address!r}: nobody answers there ({reason}); expected the head of a cluster: "
            f"ray start --head --port {'6379' if address.startswith('ray://') else port}"
        ) from None


def is_this_machine(ray: Any) -> bool:
    """Whether all nodes of the cluster are on this machine."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    addresses = {node["NodeManagerAddress"] for node in nodes}
    return len(addresses) == 1 and {node["NodeManagerHostname"] for node in nodes} == {socket.gethostname()}


def place(
    ray: Any,
    bundles: Sequence[Mapping[str, float]],
    strategy: str,
    wait_s: float,
    say: Callable[[str], None],
    may_grow: bool = True,
) -> Any:
    """Reserve resources: a placement group with all of `bundles`.

    Parameters
    ----------
    ray : module
    bundles : sequence of mapping
        Such as ``{'CPU': 1}``, one per process that takes resources.
    strategy : str
        'SPREAD', 'PACK', 'STRICT_SPREAD' or 'STRICT_PACK'.
    wait_s : float
        How long to wait for them.
    say : callable
        Tells the user that the job waits.
    may_grow : bool
        Whether nodes may join the cluster; if not, what it has not got is not waited for.

    Raises
    ------
    ClusterError
        They have not come; says what was asked, what there is, and how long that was waited for.
    """
    asked = _sums(bundles)
    total = ray.cluster_resources()
    if not may_grow and any(amount > total.get(kind, 0) for kind, amount in asked.items()):
        raise ClusterError(
            f"too few resources: {_compared(ray, bundles)}; not waited for, since this Ray was started for "
            "the job, and gets no more. Ask for less (fewer workers, or less for each, such as "
            "--cpus-per-worker 0.5), or use a cluster (--address)"
        )
    group = ray.util.placement_group([dict(bundle) for bundle in bundles], strategy=strategy)
    deadline = time.monotonic() + wait_s
    try:
        if group.wait(min(wait_s, 2.0)):
            return group
        if wait_s > 2.0:
            say(f"waiting up to {wait_s:g} s for resources: {_compared(ray, bundles)}")
            if group.wait(max(0.0, deadline - time.monotonic())):
                return group
        raise ClusterError(
            f"too few resources: {_compared(ray, bundles)}; waited {wait_s:g} s. Ask for less (fewer "
            "workers, or less for each: --cpus-per-worker, --gpus-per-worker), add nodes, or wait longer "
            "(--wait-resources S)"
        )
    except BaseException:
        ray.util.remove_placement_group(group)
        raise


def _sums(bundles: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How much of each kind is asked for."""
    kinds = sorted({kind for bundle in bundles for kind in bundle})
    return {kind: sum(bundle.get(kind, 0) for bundle in bundles) for kind in kinds}


def _compared(ray: Any, bundles: Sequence[Mapping[str, float]]) -> str:
    """What is asked, and what there is: of the kinds that the cluster has too little of, if there are any."""
    asked, total, free = _sums(bundles), ray.cluster_resources(), ray.available_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    lacking = [kind for kind, amount in asked.items() if amount > total.get(kind, 0)]
    texts = []
    for kind in lacking or asked:
        parts = [f"{bundle[kind]:g}" for bundle in bundles if bundle.get(kind)]
        listed = f" ({' + '.join(parts)})" if len(parts) > 1 else ""
        texts.append(
            f"asked for {asked[kind]:g} {kind}{listed}, there are "
            f"{total.get(kind, 0):g} on {nodes} node{'s' * (nodes != 1)}, {free.get(kind, 0):g} of them free"
        )
    return "; ".join(texts)
