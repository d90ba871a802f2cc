"""The names of the kinds of stores, read once: nothing else looks into a name."""

from __future__ import annotations

from dataclasses import dataclass

from dmod.base import InvalidArgument
from dmod.registry import nearest

__all__ = ["KVStoreType"]

_LOCAL = ("local", "local_update_cpu", "local_allreduce_cpu")
_DEVICE = ("device", "local_allreduce_device", "nccl")
_SYNC = ("dist", "dist_sync", "dist_device", "dist_device_sync", "dist_sync_device")
_ASYNC = ("dist_async", "dist_device_async", "dist_async_device")
_ALL = (*_LOCAL, *_DEVICE, *_SYNC, *_ASYNC)


@dataclass(frozen=True)
class KVStoreType:
    """What the name of a kind of store says.

    Attributes
    ----------
    name : str
        The name, in lower case.
    distributed : bool
        Shared between worker processes, through servers; else within this process.
    on_device : bool
        Sums over this process's devices are taken on the devices.
    asynchronous : bool
        Each worker's push is applied when it arrives, and nobody waits for the others.
    """

    name: str
    distributed: bool
    on_device: bool
    asynchronous: bool = False

    @classmethod
    def parse(cls, name: str) -> KVStoreType:
        """Read a name such as 'dist_sync'.

        Raises
        ------
        InvalidArgument
            There is no such kind.

        Examples
        --------
        >>> KVStoreType.parse('dist_device_sync')
        KVStoreType(name='dist_device_sync', distributed=True, on_device=True, asynchronous=False)
        """
        if not isinstance(name, str):
            raise InvalidArgument(
                f"kvstore.create({name!r}): expected a name such as 'local', got {type(name).__name__}"
            )
        lower = name.strip().lower()
        if lower not in _ALL:
            hint = nearest(lower, _ALL) or "; known: 'local', 'device', 'nccl', 'dist_sync', 'dist_async'"
            raise InvalidArgument(f"kvstore.create({name!r}): unknown kind of store{hint}")
        on_device = "device" in lower or lower == "nccl"
        return cls(lower, lower in (*_SYNC, *_ASYNC), on_device, lower in _ASYNC)
