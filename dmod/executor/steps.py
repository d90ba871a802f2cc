"""A step of a plan, from an operator and the arrays that it works on.

An operator that must run on the host gets copies there, one that takes no sparse arrays gets dense ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dmod.device import HOST, Backend
from dmod.executor.storage import densified
from dmod.ops.registry import Call, Operator, Step
from dmod.ops.sparse_rows import is_sparse

__all__ = ["build_step", "nothing", "on_device"]


def on_device(device: Backend, step: Step) -> Step:
    """A step that runs with its device active; where all steps share one, the executor does that."""

    def run() -> None:
        with device.activate():
            step()

    return run


def build_step(op: Operator, build: Callable[[Call], Step], call: Call) -> Step:
    """Build a step; one that needs the host gets copies there, and its results are copied back.

    One that doesn't take sparse arrays gets dense copies of them.
    """
    if any(map(is_sparse, (*call.inputs, *call.in_grads))) and not op.takes_sparse(call):
        return densified(lambda dense: build_step(op, build, dense), call)
    if not op.host or call.device.is_host:
        return build(call)
    pairs: list[tuple[Any, Any]] = []

    def mirrored(arrays: list[Any]) -> list[Any]:
        mirrors = [None if a is None else HOST.zeros(a.shape, a.dtype) for a in arrays]
        pairs.extend((m, a) for m, a in zip(mirrors, arrays, strict=True) if a is not None)
        return mirrors

    mirror = replace(call, device=HOST, xp=HOST.xp, scratch=HOST.empty)
    for field_name in ("inputs", "outputs", "aux", "out_grads", "in_grads"):
        setattr(mirror, field_name, mirrored(getattr(call, field_name)))
    step = build(mirror)

    def run() -> None:
        for host, own in pairs:
            call.device.copy_out(host, own)
        step()
        for host, own in pairs:
            call.device.copy_in(own, host)

    return run


def nothing() -> None:
    """The step of a network that starts with a view."""
