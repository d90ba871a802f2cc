"""``mx.sym.sparse``: the operators that know sparse arrays; in a graph their results are dense."""

from __future__ import annotations

from dmod.symbol.functions import make_namespace

_GENERATED = make_namespace("sparse")
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
