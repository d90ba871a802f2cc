"""``mx.sym.op``: the operators with public names, without what ``mx.sym`` has beside them."""

from __future__ import annotations

from dmod.symbol.functions import make_functions

_GENERATED = {name: f for name, f in make_functions().items() if not name.startswith("_")}
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
