"""``mx.nd._internal``: the operators whose names start with an underscore."""

from __future__ import annotations

from dmod.ndarray.invoke import make_functions

_GENERATED = {name: f for name, f in make_functions().items() if name.startswith("_")}
globals().update(_GENERATED)
__all__ = sorted(_GENERATED)
