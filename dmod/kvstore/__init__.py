"""Arrays that devices and workers share, by key, and the parameter server behind them."""

from __future__ import annotations

from dmod.kvstore.base import KVStore, KVStoreBase, KVStoreType, create

__all__ = ["KVStore", "KVStoreBase", "KVStoreType", "create"]
