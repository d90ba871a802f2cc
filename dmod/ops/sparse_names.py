"""The names that MXNet's ``sparse`` namespace has for ordinary operators; no operators.

``mx.sym.sparse.relu`` is ``mx.sym.relu``: which arrays are sparse follows from the arrays, not from the name.
"""

from __future__ import annotations

from dmod.ops import (  # noqa: F401  (they put into the table what is named here)
    binary,
    fully_connected,
    identity,
    join,
    reduce,
    regression,
    rounding,
    select,
    slicing,
    special,
    statistics,
    take,
    unary,
    views,
)
from dmod.ops.registry import OPERATORS

_NAMES = (
    *("ElementWiseSum", "Embedding", "FullyConnected", "LinearRegressionOutput", "LogisticRegressionOutput"),
    *("MAERegressionOutput", "abs", "add_n", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh"),
    *("broadcast_add", "broadcast_div", "broadcast_minus", "broadcast_mul", "broadcast_plus"),
    *("broadcast_sub", "cast_storage", "cbrt", "ceil", "clip", "concat", "cos", "cosh", "degrees"),
    *("elemwise_add", "elemwise_div", "elemwise_mul", "elemwise_sub", "exp", "expm1", "fix", "floor"),
    *("gamma", "gammaln", "log", "log10", "log1p", "log2", "make_loss", "mean", "negative", "norm"),
    *("radians", "relu", "rint", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "slice", "sqrt"),
    *("square", "stop_gradient", "sum", "tan", "tanh", "trunc", "where", "zeros_like"),
)

for _name in _NAMES:
    OPERATORS.setdefault(f"_sparse_{_name}", OPERATORS[_name])
