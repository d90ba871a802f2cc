"""Executors: a symbol compiled into flat lists of steps over preallocated buffers."""

from __future__ import annotations

from dmod.executor import binder as _binder
from dmod.executor.executor import Executor
from dmod.symbol.executor_methods import set_binder as _set_binder

_set_binder(_binder)

__all__ = ["Executor"]
