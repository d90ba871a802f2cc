"""``mx.sym.linalg``: linear algebra: the operators named ``linalg_*`` in the operator table."""

from __future__ import annotations

from dmod.symbol.functions import make_namespace

_GENERATED = make_namespace("linalg")
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
