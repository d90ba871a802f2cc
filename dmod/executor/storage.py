"""Storage types of a graph's arrays: which are sparse, and dense copies for operators that take no other.

Sparse are: inputs whose variable says ``stype='csr'``; gradients of variables with ``stype='row_sparse'``,
and of the weights of embeddings with ``sparse_grad``. The weights themselves are dense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dmod.context import Context
from dmod.ndarray.sparse_array import CSRNDArray, RowSparseNDArray
from dmod.ops.registry import Call, Step
from dmod.ops.sparse_rows import is_sparse
from dmod.symbol import Symbol

__all__ = ["clear_rows", "csr_inputs", "densified", "empty_csr", "empty_rows", "row_sparse_gradients"]

_ROW_SPARSE, _CSR = "1", "2"  # as __storage_type__ has them


def csr_inputs(symbol: Symbol) -> set[str]:
    """The names of the variables with ``stype='csr'``."""
    return {n.name for n in symbol._order() if n.is_variable and n.raw.get("__storage_type__") == _CSR}


def row_sparse_gradients(symbol: Symbol) -> set[str]:
    """The names of the variables whose gradients are row_sparse."""
    found = set()
    for node in symbol._order():
        if node.is_variable and node.raw.get("__storage_type__") == _ROW_SPARSE:
            found.add(node.name)
        elif node.op is not None and getattr(node.attrs, "sparse_grad", False) and len(node.inputs) > 1:
            weight = node.inputs[1].node
            if weight.is_variable and node.op.name in ("Embedding", "_contrib_SparseEmbedding"):
                found.add(weight.name)
    return found


def empty_csr(shape: tuple[int, ...], dtype: Any, ctx: Context) -> CSRNDArray:
    """A csr array of zeros."""
    indptr, columns = np.zeros(shape[0] + 1, np.int64), np.zeros(0, np.int64)
    return CSRNDArray(np.zeros(0, dtype), [indptr, columns], shape, ctx)


def empty_rows(shape: tuple[int, ...], dtype: Any, ctx: Context) -> RowSparseNDArray:
    """A row_sparse array of zeros."""
    return RowSparseNDArray(np.zeros((0, *shape[1:]), dtype), [np.zeros(0, np.int64)], shape, ctx)


def clear_rows(array: Any) -> None:
    """Let a row_sparse array have no rows."""
    array._set(np.zeros((0, *array.shape[1:]), array.dtype), [np.zeros(0, np.int64)])


def densified(build: Callable[[Call], Step], call: Call) -> Step:
    """A step over dense copies of a call's sparse arrays; of row_sparse gradients, all but zero rows stay."""
    device = call.device
    inputs = [(device.zeros(a.shape, a.dtype), a) if is_sparse(a) else (a, None) for a in call.inputs]
    grads = [(device.zeros(a.shape, a.dtype), a) if is_sparse(a) else (a, None) for a in call.in_grads]
    step = build(replace(call, inputs=[a for a, _ in inputs], in_grads=[a for a, _ in grads]))

    def run() -> None:
        for dense, sparse in inputs:
            if sparse is not None:
                device.copy_in(dense, sparse._to_dense())
        step()
        for dense, sparse in grads:
            if sparse is not None:
                host = np.empty(dense.shape, dense.dtype)
                device.copy_out(host, dense)
                sparse[:] = host

    return run
