"""What the devices of a module hold besides weights, for checkpoints of a training."""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.device import copy, to_host
from dmod.ndarray import NDArray
from dmod.worker import DeviceState, ParameterSet

__all__ = ["read_devices", "write_devices"]


def read_devices(params: ParameterSet, devices: DeviceState) -> dict[str, Any]:
    """Auxiliary states, counts of random streams, and gradients that add up, of each device; copies."""
    return {
        "aux": [[to_host(v).copy() for v in group.values] for group in params.aux_groups],
        "streams": [stream.get_state() for stream in devices.streams],
        "grads": [{name: grad.asnumpy() for name, grad in grads.items()} for grads in _accumulated(params)],
    }


def write_devices(state: dict[str, Any], params: ParameterSet, devices: DeviceState) -> None:
    """Put back what `read_devices` gave.

    Raises
    ------
    InvalidArgument
        It is of another network, or other devices.
    """
    here = [[v.shape for v in group.values] for group in params.aux_groups]
    if here != [[v.shape for v in values] for values in state["aux"]]:
        raise InvalidArgument("set_device_states: auxiliary states of other shapes, or other devices")
    for group, values in zip(params.aux_groups, state["aux"], strict=True):
        for own, value in zip(group.values, values, strict=True):
            copy(own, value)
    for stream, counts in zip(devices.streams, state["streams"], strict=True):
        stream.set_state(counts)
    for grads, kept in zip(_accumulated(params), state["grads"], strict=True):
        for name, grad in grads.items():
            if name in kept:
                grad[:] = kept[name]


def _accumulated(params: ParameterSet) -> list[dict[str, NDArray]]:
    """The gradients with ``grad_req='add'`` of each device."""
    names = sorted(params.accumulated - {name for _, name, _, _ in params.sparse})
    return [{name: grads[name] for name in names} for grads in params.grad_arrays]
