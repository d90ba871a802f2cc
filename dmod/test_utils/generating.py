"""Random shapes and arrays, and the device that tests use.

Random numbers come from numpy's global generator: ``numpy.random.seed`` restarts them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context, current_context, num_gpus
from dmod.ndarray import NDArray, array
from dmod.ndarray.sparse import csr_matrix, row_sparse_array

__all__ = [
    "assign_each",
    "assign_each2",
    "create_2d_tensor",
    "create_vector",
    "default_context",
    "default_dtype",
    "list_gpus",
    "rand_coord_2d",
    "rand_ndarray",
    "rand_shape_2d",
    "rand_shape_3d",
    "rand_shape_nd",
    "rand_sparse_ndarray",
    "random_arrays",
    "random_sample",
    "random_uniform_arrays",
    "retry",
    "set_default_context",
]

_default: list[Context] = []


def default_context() -> Context:
    """The device that tests use: that of `set_default_context`, or of the innermost ``with context:``."""
    return current_context()


def set_default_context(ctx: Context) -> None:
    """Let `ctx` be the device wherever no ``with context:`` says otherwise."""
    stack = Context._entered.__dict__.setdefault("stack", [])
    if _default and stack[:1] == _default:
        stack[0] = ctx
    else:
        stack.insert(0, ctx)
    _default[:] = [ctx]


def default_dtype() -> type:
    """float32."""
    return np.float32


def list_gpus() -> range:
    """The numbers of the GPUs."""
    return range(num_gpus())


def _dimension(most: int, allow_zero_size: bool) -> int:
    return int(np.random.randint(0 if allow_zero_size else 1, most + 1))


def rand_shape_nd(num_dim: int, dim: int = 10, allow_zero_size: bool = False) -> tuple[int, ...]:
    """A random shape of `num_dim` axes, each from 1 to `dim`."""
    return tuple(_dimension(dim, allow_zero_size) for _ in range(num_dim))


def rand_shape_2d(dim0: int = 10, dim1: int = 10, allow_zero_size: bool = False) -> tuple[int, int]:
    """A random shape of two axes."""
    return _dimension(dim0, allow_zero_size), _dimension(dim1, allow_zero_size)


def rand_shape_3d(
    dim0: int = 10, dim1: int = 10, dim2: int = 10, allow_zero_size: bool = False
) -> tuple[int, int, int]:
    """A random shape of three axes."""
    return (*rand_shape_2d(dim0, dim1, allow_zero_size), _dimension(dim2, allow_zero_size))


def rand_coord_2d(x_low: int, x_high: int, y_low: int, y_high: int) -> tuple[int, int]:
    """A random place: ``x_low <= x < x_high``, ``y_low <= y < y_high``."""
    return int(np.random.randint(x_low, x_high)), int(np.random.randint(y_low, y_high))


def random_arrays(*shapes: tuple[int, ...]) -> Any:
    """Normally distributed float32 numpy arrays of these shapes; of one shape, the array alone."""
    arrays: list[np.ndarray] = [np.asarray(np.random.randn(*shape), default_dtype()) for shape in shapes]
    return arrays[0] if len(arrays) == 1 else arrays


def random_uniform_arrays(
    *shapes: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = None
) -> list:
    """Uniformly distributed numpy arrays of these shapes."""
    return [np.asarray(np.random.uniform(low, high, shape), dtype or default_dtype()) for shape in shapes]


def random_sample(population: Sequence[Any], k: int) -> list[Any]:
    """`k` different elements in random order."""
    return [population[i] for i in np.random.permutation(len(population))[:k]]


def rand_ndarray(
    shape: tuple[int, ...],
    stype: str = "default",
    density: float | None = None,
    dtype: Any = None,
    modifier_func: Callable[[Any], Any] | None = None,
    shuffle_csr_indices: bool = False,
    distribution: str | None = None,
    ctx: Context | None = None,
) -> NDArray:
    """A random array, uniform on [-1, 1).

    Parameters
    ----------
    shape : tuple of int
    stype : {'default', 'row_sparse', 'csr'}
    density : float, optional
        Of sparse ones: the share of rows, or elements, that are there; default: random.
    dtype : optional
        Default: float32.
    modifier_func : callable, optional
        Applied to every number.
    shuffle_csr_indices, distribution
        Accepted; columns stay sorted, and places are uniformly distributed.
    ctx : Context, optional
    """
    if stype != "default":
        return rand_sparse_ndarray(shape, stype, density, dtype, modifier_func=modifier_func, ctx=ctx)[0]
    values = random_uniform_arrays(shape, low=-1.0, high=1.0, dtype=dtype)[0]
    if modifier_func is not None:
        values = assign_each(values, modifier_func)
    return array(values, ctx=ctx or default_context(), dtype=dtype or default_dtype())


def rand_sparse_ndarray(
    shape: tuple[int, ...],
    stype: str,
    density: float | None = None,
    dtype: Any = None,
    distribution: str | None = None,
    data_init: float | None = None,
    rsp_indices: Any = None,
    modifier_func: Callable[[Any], Any] | None = None,
    shuffle_csr_indices: bool = False,
    ctx: Context | None = None,
) -> tuple[Any, tuple[np.ndarray, ...]]:
    """A random sparse array, and the numpy arrays that it is made of.

    Parameters
    ----------
    shape, stype, density, dtype, modifier_func, ctx
        See `rand_ndarray`.
    data_init : float, optional
        All numbers that are there.
    rsp_indices : array-like of int, optional
        The rows that are there.

    Returns
    -------
    array : RowSparseNDArray or CSRNDArray
    parts : tuple of numpy.ndarray
        ``(data, indices)``, or ``(indptr, indices, data)``.
    """
    density = np.random.rand() if density is None else density
    dtype = np.dtype(dtype or default_dtype())

    def numbers(*size: int) -> np.ndarray:
        values = np.random.uniform(-1.0, 1.0, size) if data_init is None else np.full(size, data_init)
        return (values if modifier_func is None else assign_each(values, modifier_func)).astype(dtype)

    if stype == "row_sparse":
        rows = np.flatnonzero(np.random.rand(shape[0]) < density) if rsp_indices is None else rsp_indices
        rows = np.asarray(rows, np.int64)
        data = numbers(len(rows), *shape[1:])
        made: Any = row_sparse_array((data, rows), shape=shape, ctx=ctx, dtype=dtype)
        return made, (data, rows)
    if stype != "csr" or len(shape) != 2:
        raise InvalidArgument(
            f"rand_sparse_ndarray: stype={stype!r} of shape {shape}, expected 'row_sparse', or 'csr' of 2-D"
        )
    there = np.random.rand(*shape) < density
    indptr = np.concatenate(([0], there.sum(1).cumsum())).astype(np.int64)
    columns, data = np.nonzero(there)[1].astype(np.int64), numbers(int(there.sum()))
    made = csr_matrix((data, columns, indptr), shape=shape, ctx=ctx, dtype=dtype)
    return made, (indptr, columns, data)


def create_vector(size: int, dtype: Any = np.int64) -> NDArray:
    """0, 1, 2, ..."""
    return array(np.arange(size), dtype=dtype)


def create_2d_tensor(rows: int, columns: int, dtype: Any = np.int64) -> NDArray:
    """A matrix whose elements are the numbers of their rows."""
    return array(np.repeat(np.arange(rows), columns).reshape(rows, columns), dtype=dtype)


def assign_each(the_input: np.ndarray, function: Callable[[Any], Any] | None) -> np.ndarray:
    """`function` of every element; without one, a copy."""
    values = np.asarray(the_input)
    if function is None:
        return values.copy()
    return np.array([function(x) for x in values.reshape(-1)], values.dtype).reshape(values.shape)


def assign_each2(
    input1: np.ndarray, input2: np.ndarray, function: Callable[[Any, Any], Any] | None
) -> np.ndarray:
    """`function` of every pair of elements; without one, a copy of the first."""
    left, right = np.broadcast_arrays(input1, input2)
    if function is None:
        return np.array(input1)
    pairs = zip(left.reshape(-1), right.reshape(-1), strict=True)
    return np.array([function(x, y) for x, y in pairs], left.dtype).reshape(left.shape)


def retry(n: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator for tests of random things: an AssertionError counts only at the `n`-th time."""
    if n < 1:
        raise InvalidArgument(f"retry({n}): expected at least 1")

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> Any:
            for _ in range(n - 1):
                try:
                    return test(*args, **kwargs)
                except AssertionError:
                    pass
            return test(*args, **kwargs)

        return run

    return decorate
