"""``mx.sym``: graphs of operators, described before they are computed."""

from __future__ import annotations

from typing import Any

from dmod.registry import no_operator as _no_operator
from dmod.symbol import _internal as _internal
from dmod.symbol import contrib, image, linalg, op, random, sparse
from dmod.symbol import fluent as _fluent
from dmod.symbol import functions as _functions
from dmod.symbol.arithmetic import hypot, maximum, minimum, pow, power
from dmod.symbol.creation import arange, eye, full, histogram, linspace, ones, split_v2, zeros
from dmod.symbol.functions import Group, Variable, var
from dmod.symbol.symbol import Symbol, load, load_json

_GENERATED = _functions.make_functions()
globals().update({name: f for name, f in _GENERATED.items() if not name.startswith("_")})
_fluent.set_functions({**_GENERATED, "split_v2": split_v2})

__all__ = ["Group", "Symbol", "Variable", "load", "load_json", "var"]
__all__ += ["arange", "eye", "full", "histogram", "linspace", "ones", "split_v2", "zeros"]
__all__ += ["hypot", "maximum", "minimum", "pow", "power"]
__all__ += ["contrib", "image", "linalg", "op", "random", "sparse"]
__all__ += sorted(name for name in _GENERATED if not name.startswith("_"))

_NAMESPACES = {"contrib": contrib, "image": image, "linalg": linalg, "random": random, "sparse": sparse}


def __getattr__(name: str) -> Any:
    """Names with an underscore, such as ``mx.sym._plus_scalar``, are there but not exported."""
    try:
        return _GENERATED[name]
    except KeyError:
        raise AttributeError(_no_operator(__name__, name, __all__, _NAMESPACES)) from None
