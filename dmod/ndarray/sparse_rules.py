"""What operators do with sparse inputs, where they need no dense copies. `invoke` asks here first.

A rule gets the operator, its attributes, the inputs and the arrays of ``out=``, and returns the result,
or None to leave the work to dense copies. Updates of optimizers write into their weight and states.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device import to_host
from dmod.ndarray import sparse_math
from dmod.ndarray.invoke import SPARSE_RULES, run
from dmod.ndarray.ndarray import NDArray, zeros
from dmod.ndarray.sparse_array import BaseSparseNDArray, CSRNDArray, RowSparseNDArray, cast_storage
from dmod.ops import Operator
from dmod.ops.registry import Attrs

__all__: list[str] = []

_ZERO_STAYS_ZERO = (
    *("abs", "sign", "round", "rint", "ceil", "floor", "trunc", "fix", "square", "sqrt", "cbrt", "negative"),
    *("sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh", "degrees", "radians"),
    *("expm1", "log1p", "relu", "_copy", "BlockGrad", "make_loss", "_mul_scalar", "_div_scalar", "Cast"),
)
_LAZY_UPDATES = {
    "sgd_update": "lazy_update",
    "sgd_mom_update": "lazy_update",
    "mp_sgd_update": "lazy_update",
    "mp_sgd_mom_update": "lazy_update",
    "adam_update": "lazy_update",
    "ftrl_update": "",
    "_sparse_adagrad_update": "",
    "_contrib_group_adagrad_update": "",
}
"""Updates that touch only the rows of a row_sparse gradient, and the parameter that turns this off."""


def _on_values(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """Apply the operator to the stored values."""
    x = arrays[0]
    values = run(op, attrs, [NDArray(x._data, x.context)], [], None, op.name)
    *aux, _ = x._parts()
    return x._with((*aux, to_host(values._data)))


def _clip(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    return _on_values(op, attrs, arrays, outs) if attrs.a_min <= 0 <= attrs.a_max else None


def _zeros_like(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    x = arrays[0]
    return zeros(x.shape, x.context, x.dtype, x.stype)


def _binary(name: str) -> Any:
    def rule(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
        left, right = arrays
        if isinstance(left, BaseSparseNDArray):
            return left._binary_array(right, name)
        return right._binary_array(left, name) if name == "multiply" else None

    return rule


def _divide_columns(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """A csr matrix over a dense array that broadcasts to it: what is not stored stays zero."""
    left, right = arrays
    if not isinstance(left, CSRNDArray) or right.stype != "default" or right.shape == left.shape:
        return None
    return left._times_dense(1 / right)


def _add_n(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    if len({a.stype for a in arrays}) > 1:
        return None
    total = arrays[0]
    for other in arrays[1:]:
        total = total._binary_array(other, "add")
    return total.copy() if len(arrays) == 1 else total


def _norm(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """The norm of everything is that of the stored values."""
    if getattr(attrs, "axis", None) or getattr(attrs, "keepdims", False):
        return None
    return run(op, attrs, [NDArray(arrays[0]._data, arrays[0].context)], [], None, op.name)


def _dot(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    left, right = arrays
    flip_left, flip_right = attrs.transpose_a, attrs.transpose_b
    if isinstance(left, CSRNDArray) and right.ndim == 2 and right.stype != "csr":
        if flip_right and right.stype != "default":
            return None
        dense = to_host(right._dense()._data)
        dense = np.ascontiguousarray(dense.T) if flip_right else dense
        if left.shape[0 if flip_left else 1] != len(dense) or left.dtype != right.dtype:
            return None  # the dense operator says what is wrong
        return _csr_dot(left, dense, flip_left, getattr(attrs, "forward_stype", None))
    if left.stype == "default" and isinstance(right, CSRNDArray):
        product = run(op, attrs, [left, right._dense()], [], None, op.name)
        return cast_storage(product, "csr") if product.ndim == 2 else product
    return None


def _csr_dot(left: CSRNDArray, dense: np.ndarray, flip: bool, stype: Any) -> Any:
    indptr, columns, values = left._parts()
    if not flip:
        return _dense_result(left, sparse_math.csr_dot(indptr, columns, values, dense))
    rows, product = sparse_math.csr_transposed_dot(indptr, columns, values, dense)
    shape = (left.shape[1], dense.shape[1])
    result = RowSparseNDArray(product, [rows], shape, left.context)
    return result._dense() if stype == "default" else result


def _dense_result(like: NDArray, host: np.ndarray) -> NDArray:
    return NDArray(like._memory.from_host(host), like.context)


def _fully_connected(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    data, weight = arrays[:2]
    if not isinstance(data, CSRNDArray) or weight.ndim != 2 or data.dtype != weight.dtype:
        return None
    if data.shape[1] != weight.shape[1]:
        return None
    product = _csr_dot(data, np.ascontiguousarray(to_host(weight._dense()._data).T), False, None)
    return product if attrs.no_bias else product + arrays[2]


def _sum(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """Sums of a csr matrix over one axis."""
    x, axis = arrays[0], attrs.axis
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    if not isinstance(x, CSRNDArray) or axis not in (0, 1, -1, -2) or attrs.exclude:
        return None
    indptr, columns, values = x._parts()
    at = columns if axis % 2 == 0 else sparse_math.csr_row_numbers(indptr)
    out = np.zeros(x.shape[1 - axis % 2], values.dtype)
    np.add.at(out, at, values)
    if op.name == "mean":
        out /= max(1, x.shape[axis])
    return _dense_result(x, np.expand_dims(out, axis) if attrs.keepdims else out)


def _slice(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    x = arrays[0]
    if not isinstance(x, CSRNDArray) or any(s not in (None, 1) for s in attrs.step or ()):
        return None
    steps = [slice(b, e) for b, e in zip(attrs.begin, attrs.end, strict=True)]
    part = x[steps[0]]
    if len(steps) == 1:
        return part
    indptr, columns, values = part._parts()
    begin, end, _ = steps[1].indices(x.shape[1])
    kept = (columns >= begin) & (columns < end)
    row = sparse_math.csr_row_numbers(indptr)[kept]
    shape = (len(part), max(0, end - begin))
    coordinates = sparse_math.csr_of_coordinates(row, columns[kept] - begin, values[kept], len(part))
    return x._with(coordinates, shape)


def _concat(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """csr matrices below each other."""
    if attrs.dim != 0 or any(not isinstance(a, CSRNDArray) for a in arrays):
        return None
    if len({a.shape[1] for a in arrays}) > 1 or len({a.dtype for a in arrays}) > 1:
        return None
    parts = [a._parts() for a in arrays]
    starts = np.cumsum([0, *(p[0][-1] for p in parts)])
    indptr = np.concatenate([[0], *(p[0][1:] + s for p, s in zip(parts, starts, strict=False))])
    joined = (indptr, np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]))
    return arrays[0]._with(joined, (len(indptr) - 1, arrays[0].shape[1]))


def _embedding(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """Look up rows of a row_sparse weight, of which only those that are asked for become dense."""
    data, weight = arrays
    if not isinstance(weight, RowSparseNDArray):
        return None
    last = len(weight) - 1
    asked = np.clip(to_host(data._dense()._data).astype(np.int64), 0, last)
    rows, values = weight._parts()
    wanted, kept = sparse_math.rows_retain(rows, values, asked.reshape(-1))
    return _dense_result(weight, kept[np.searchsorted(wanted, asked)])


def _lazy_update(op: Operator, attrs: Attrs, arrays: list[Any], outs: list[NDArray]) -> Any:
    """Update the rows of the weight, and of its states, that a row_sparse gradient has."""
    weight, grad, *states = arrays
    switch = _LAZY_UPDATES[op.name]
    if not isinstance(grad, RowSparseNDArray) or (switch and not getattr(attrs, switch, True)):
        return None
    sources = [weight, *states]
    targets = [outs[0] if outs else weight, *states]
    whole = [x._dense() for x in sources]
    rows = grad.indices
    parts = [x[rows] for x in whole]
    new = run(op, attrs, [parts[0], NDArray(grad._data, grad.context), *parts[1:]], [], None, op.name)
    parts[0] = new[0] if isinstance(new, list) else new
    for source, target, dense, part in zip(sources, targets, whole, parts, strict=True):
        changed = dense if target is source else dense.copy()
        changed[rows] = part
        if changed is not target:
            changed.copyto(target)
    return targets[0]


for _name in _ZERO_STAYS_ZERO:
    SPARSE_RULES[_name] = _on_values
for _name in _LAZY_UPDATES:
    SPARSE_RULES[_name] = _lazy_update
for _name, _function in (("add", "add"), ("sub", "subtract"), ("mul", "multiply")):
    SPARSE_RULES[f"elemwise_{_name}"] = SPARSE_RULES[f"broadcast_{_name}"] = _binary(_function)
SPARSE_RULES |= {
    "clip": _clip,
    "zeros_like": _zeros_like,
    "broadcast_div": _divide_columns,
    "add_n": _add_n,
    "norm": _norm,
    "dot": _dot,
    "FullyConnected": _fully_connected,
    "sum": _sum,
    "mean": _sum,
    "slice": _slice,
    "Concat": _concat,
    "Embedding": _embedding,
    "_contrib_SparseEmbedding": _embedding,
}
