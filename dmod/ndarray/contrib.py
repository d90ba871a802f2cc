"""``mx.nd.contrib``: the operators named ``_contrib_*`` in the operator table."""

from __future__ import annotations

from dmod.ndarray.invoke import make_namespace

_GENERATED = make_namespace("contrib")
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
