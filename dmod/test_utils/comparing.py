"""Comparing arrays, within tolerances that depend on their dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dmod.ndarray import NDArray

__all__ = [
    "almost_equal",
    "as_numpy",
    "assert_allclose",
    "assert_almost_equal",
    "assert_almost_equal_ignore_nan",
    "assert_almost_equal_with_err",
    "assert_exception",
    "collapse_sum_like",
    "compare_ndarray_tuple",
    "default_atols",
    "default_numeric_eps",
    "default_rtols",
    "get_atol",
    "get_etol",
    "get_rtol",
    "np_reduce",
    "same",
    "same_array",
]

Tolerance = float | Mapping[Any, float] | None

_RTOL = {2: 1e-2, 4: 1e-4, 8: 1e-5}  # by the size of a float
_ATOL = {2: 1e-1, 4: 1e-3, 8: 1e-20}
_NUMERIC_EPS = {2: 2.0**-6, 4: 2.0**-9, 8: 2.0**-14}
_EXACT = ("bool", "int8", "uint8", "int32", "uint32", "int64", "uint64")


def _of_dtypes(by_size: Mapping[int, float]) -> dict[np.dtype, float]:
    found: dict[np.dtype, float] = {np.dtype(f"f{size}"): value for size, value in by_size.items()}
    return found | {np.dtype(name): 0 for name in _EXACT if by_size is not _NUMERIC_EPS}


def default_rtols() -> dict[np.dtype, float]:
    """The default relative tolerances, by dtype."""
    return _of_dtypes(_RTOL)


def default_atols() -> dict[np.dtype, float]:
    """The default absolute tolerances, by dtype."""
    return _of_dtypes(_ATOL)


def default_numeric_eps() -> dict[np.dtype, float]:
    """The default steps of numeric gradients, by dtype."""
    return _of_dtypes(_NUMERIC_EPS)


def get_rtol(rtol: Tolerance = None, dtype: Any = np.float64) -> float:
    """`rtol`, or the default for `dtype`."""
    return _tolerance(rtol, default_rtols(), dtype)


def get_atol(atol: Tolerance = None, dtype: Any = np.float64) -> float:
    """`atol`, or the default for `dtype`."""
    return _tolerance(atol, default_atols(), dtype)


def get_etol(etol: float | None = None) -> float:
    """`etol`, or the default: no element may differ."""
    return 0 if etol is None else etol


def _tolerance(given: Tolerance, defaults: Mapping[np.dtype, float], dtype: Any) -> float:
    if given is None:
        return defaults.get(np.dtype(dtype), 0)
    if isinstance(given, Mapping):
        return {np.dtype(key): value for key, value in given.items()}.get(np.dtype(dtype), 0)
    return given


def as_numpy(x: Any) -> np.ndarray:
    """The values of an NDArray, or of anything like an array."""
    return x.asnumpy() if isinstance(x, NDArray) else np.asarray(x)


def _tolerances(a: np.ndarray, b: np.ndarray, rtol: Tolerance, atol: Tolerance) -> tuple[float, float]:
    """The tolerances for two arrays: those of the narrower dtype."""
    floats = [x.dtype for x in (a, b) if x.dtype.kind == "f"]
    dtype = min(floats, key=lambda d: d.itemsize) if floats else np.dtype(np.int64)
    return get_rtol(rtol, dtype), get_atol(atol, dtype)


def same(a: Any, b: Any) -> bool:
    """Whether two arrays are equal in every element."""
    return np.array_equal(as_numpy(a), as_numpy(b))


def same_array(array1: NDArray, array2: NDArray) -> bool:
    """Whether two NDArrays share memory."""
    return array1.context == array2.context and np.shares_memory(array1._data, array2._data)


def almost_equal(
    a: Any,
    b: Any,
    rtol: Tolerance = None,
    atol: Tolerance = None,
    equal_nan: bool = False,
    use_broadcast: bool = True,
) -> bool:
    """Whether two arrays are equal within ``atol + rtol * abs(b)``; see `assert_almost_equal`."""
    left, right = as_numpy(a), as_numpy(b)
    if not use_broadcast and left.shape != right.shape:
        return False
    rtol, atol = _tolerances(left, right, rtol, atol)
    return np.allclose(left, right, rtol, atol, equal_nan)


def assert_almost_equal(
    a: Any,
    b: Any,
    rtol: Tolerance = None,
    atol: Tolerance = None,
    names: tuple[str, str] = ("a", "b"),
    equal_nan: bool = False,
    use_broadcast: bool = True,
    mismatches: tuple[int, int] = (10, 10),
) -> None:
    """Raise AssertionError unless two arrays are equal within ``atol + rtol * abs(b)``.

    Parameters
    ----------
    a, b : array-like or NDArray
    rtol, atol : float or dict of dtype to float, optional
        Default: by the narrower dtype of the two.
    names : pair of str
        What the message calls them.
    equal_nan : bool
        Count NaNs as equal.
    use_broadcast : bool
        Spread the smaller over the larger.
    mismatches : pair of int
        Accepted; the message shows numpy's choice of differences.
    """
    left, right = as_numpy(a), as_numpy(b)
    rtol, atol = _tolerances(left, right, rtol, atol)
    what = f"{names[0]} and {names[1]} differ"
    if not use_broadcast and left.shape != right.shape:
        raise AssertionError(f"{what}: shapes {left.shape} and {right.shape}")
    np.testing.assert_allclose(left, right, rtol, atol, equal_nan, err_msg=what)


def assert_allclose(a: Any, b: Any, rtol: float = 1e-07, atol: float = 0, equal_nan: bool = True) -> None:
    """`assert_almost_equal` with fixed tolerances."""
    assert_almost_equal(a, b, rtol, atol, equal_nan=equal_nan)


def assert_almost_equal_ignore_nan(
    a: Any, b: Any, rtol: Tolerance = None, atol: Tolerance = None, names: tuple[str, str] = ("a", "b")
) -> None:
    """`assert_almost_equal` of what is NaN in neither array."""
    left, right = np.broadcast_arrays(as_numpy(a), as_numpy(b))
    kept = ~(np.isnan(left) | np.isnan(right))
    assert_almost_equal(left[kept], right[kept], rtol, atol, names)


def assert_almost_equal_with_err(
    a: Any,
    b: Any,
    rtol: Tolerance = None,
    atol: Tolerance = None,
    etol: float | None = None,
    names: tuple[str, str] = ("a", "b"),
    equal_nan: bool = False,
    mismatches: tuple[int, int] = (10, 10),
) -> None:
    """`assert_almost_equal`, but a share of `etol` of the elements may differ."""
    left, right = as_numpy(a), as_numpy(b)
    found = _tolerances(left, right, rtol, atol)
    wrong = ~np.isclose(left, right, *found, equal_nan)
    if np.mean(wrong) > get_etol(etol):
        assert_almost_equal(left, right, *found, names, equal_nan)


def compare_ndarray_tuple(t1: Any, t2: Any, rtol: Tolerance = None, atol: Tolerance = None) -> None:
    """`assert_almost_equal` of nested tuples of arrays; None equals None."""
    if isinstance(t1, tuple):
        for left, right in zip(t1, t2, strict=True):
            compare_ndarray_tuple(left, right, rtol, atol)
    elif t1 is not None and t2 is not None:
        assert_almost_equal(t1, t2, rtol, atol)


def assert_exception(
    f: Callable[..., Any], exception_type: type[BaseException], *args: Any, **kwargs: Any
) -> None:
    """Raise AssertionError unless ``f(*args, **kwargs)`` raises `exception_type`."""
    try:
        f(*args, **kwargs)
    except exception_type:
        return
    raise AssertionError(f"{getattr(f, '__name__', f)} did not raise {exception_type.__name__}")


def np_reduce(dat: np.ndarray, axis: Any, keepdims: bool, numpy_reduce_func: Callable[..., Any]) -> Any:
    """``numpy_reduce_func`` over several axes, one after another.

    Parameters
    ----------
    dat : numpy.ndarray
    axis : int, sequence of int, or None
    keepdims : bool
    numpy_reduce_func : callable
        Such as ``numpy.sum``: takes ``axis=``.

    Examples
    --------
    >>> np_reduce(np.ones((2, 3, 4)), (0, 2), True, np.sum).shape
    (1, 3, 1)
    """
    axes = range(dat.ndim) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    chosen = sorted(a % dat.ndim for a in axes)
    found = dat
    for a in reversed(chosen):
        found = numpy_reduce_func(found, axis=a)
    if keepdims:
        found = np.asarray(found).reshape([1 if a in chosen else n for a, n in enumerate(dat.shape)])
    return found


def collapse_sum_like(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum `a` over the axes along which an array of `shape` would be spread to become like it."""
    extra = a.ndim - len(shape)
    spread = [axis + extra for axis, n in enumerate(shape) if n == 1 and a.shape[axis + extra] != 1]
    return a.sum(axis=(*range(extra), *spread)).reshape(shape)
