"""``mx.nd.op``: the operators with public names, without what ``mx.nd`` has beside them."""

from __future__ import annotations

from dmod.ndarray.invoke import make_functions

_GENERATED = {name: f for name, f in make_functions().items() if not name.startswith("_")}
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
