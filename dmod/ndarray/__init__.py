"""``mx.nd``: arrays on devices and functions on them.

One function per operator comes from the operator table; what is defined by hand goes before it.
"""

from __future__ import annotations

from dmod.ndarray import _internal as _internal
from dmod.ndarray import contrib, image, linalg, op, random, sparse
from dmod.ndarray import fluent as _fluent
from dmod.ndarray import invoke as _invoke
from dmod.ndarray import sparse_rules as _sparse_rules  # noqa: F401  (registers them)
from dmod.ndarray.arithmetic import (
    add,
    divide,
    equal,
    greater,
    greater_equal,
    lesser,
    lesser_equal,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    modulo,
    multiply,
    not_equal,
    power,
    subtract,
    true_divide,
)
from dmod.ndarray.files import load, load_frombuffer, save
from dmod.ndarray.functions import (
    from_dlpack,
    histogram,
    imdecode,
    moveaxis,
    onehot_encode,
    split_v2,
    to_dlpack_for_read,
    to_dlpack_for_write,
)
from dmod.ndarray.indexing import (
    get_indexing_dispatch_code,
    get_oshape_of_gather_nd_op,
    indexing_key_expand_implicit_axes,
)
from dmod.ndarray.ndarray import (
    NDArray,
    arange,
    array,
    concatenate,
    empty,
    eye,
    from_numpy,
    full,
    linspace,
    ones,
    waitall,
    zeros,
)
from dmod.ndarray.sparse_array import CSRNDArray, RowSparseNDArray, cast_storage
from dmod.registry import no_operator as _no_operator

__all__ = [
    "CSRNDArray",
    "NDArray",
    "RowSparseNDArray",
    "add",
    "arange",
    "array",
    "cast_storage",
    "concatenate",
    "contrib",
    "divide",
    "empty",
    "equal",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "get_indexing_dispatch_code",
    "get_oshape_of_gather_nd_op",
    "greater",
    "greater_equal",
    "histogram",
    "image",
    "imdecode",
    "indexing_key_expand_implicit_axes",
    "lesser",
    "lesser_equal",
    "linalg",
    "linspace",
    "load",
    "load_frombuffer",
    "logical_and",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "modulo",
    "moveaxis",
    "multiply",
    "not_equal",
    "onehot_encode",
    "ones",
    "op",
    "power",
    "random",
    "save",
    "sparse",
    "split_v2",
    "subtract",
    "to_dlpack_for_read",
    "to_dlpack_for_write",
    "true_divide",
    "waitall",
    "zeros",
]

_GENERATED = _invoke.make_functions()
_PUBLIC = {name: f for name, f in _GENERATED.items() if not name.startswith("_") and name not in __all__}
globals().update(_PUBLIC)
__all__ += sorted(_PUBLIC)
_fluent.set_functions({**_GENERATED, "cast_storage": cast_storage})

_NAMESPACES = {"contrib": contrib, "image": image, "linalg": linalg, "random": random, "sparse": sparse}


def __getattr__(name: str) -> object:
    """Names with an underscore, such as ``mx.nd._plus_scalar``, are there but not exported."""
    try:
        return _GENERATED[name]
    except KeyError:
        raise AttributeError(_no_operator(__name__, name, __all__, _NAMESPACES)) from None
