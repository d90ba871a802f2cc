"""``mx.sym.image``: the operators named ``_image_*`` in the operator table."""

from __future__ import annotations

from dmod.symbol.functions import make_namespace

_GENERATED = make_namespace("image")
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
