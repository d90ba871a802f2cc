"""``mx.sym`` functions that are no operator's own: arrays of constants, split_v2, histogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops import get_operator
from dmod.symbol.symbol import Symbol, create, pop_attributes

__all__ = ["arange", "eye", "full", "histogram", "linspace", "ones", "split_v2", "zeros"]


def _make(
    op: str, inputs: list[Symbol], name: str | None, attr: dict[str, str] | None, **params: Any
) -> Symbol:
    return create(get_operator(op), inputs, params, name, attr, hint=op)


def _dtype(dtype: Any) -> str:
    return np.dtype(np.float32 if dtype is None else dtype).name


def _no_more(function: str, kwargs: dict[str, Any]) -> tuple[str | None, dict[str, str] | None]:
    """The node's name and attributes; nothing else may be given."""
    name, attr = kwargs.pop("name", None), pop_attributes(kwargs)
    kwargs.pop("ctx", None)
    if kwargs:
        raise TypeError(f"{function}: unexpected argument {next(iter(kwargs))!r}")
    return name, attr


def zeros(shape: int | Sequence[int], dtype: Any = None, **kwargs: Any) -> Symbol:
    """An array of zeros.

    Parameters
    ----------
    shape : int or sequence of int
        0 stands for a length that follows from how the array is used.
    dtype : str or numpy dtype, optional
        Default float32.
    name : str, optional

    Examples
    --------
    >>> from dmod.symbol import zeros
    >>> zeros((2, 3)).infer_shape()[1]
    [(2, 3)]
    """
    return _make("_zeros", [], *_no_more("zeros", kwargs), shape=shape, dtype=_dtype(dtype))


def ones(shape: int | Sequence[int], dtype: Any = None, **kwargs: Any) -> Symbol:
    """An array of ones; see `zeros`."""
    return _make("_ones", [], *_no_more("ones", kwargs), shape=shape, dtype=_dtype(dtype))


def full(shape: int | Sequence[int], val: float, dtype: Any = None, **kwargs: Any) -> Symbol:
    """An array with `val` everywhere; see `zeros`."""
    name, attr = _no_more("full", kwargs)
    return _make("_full", [], name, attr, shape=shape, dtype=_dtype(dtype), value=float(val))


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool = False,
    name: str | None = None,
    dtype: Any = None,
) -> Symbol:
    """Numbers from `start` to before `stop`, or with one number from 0 to before it.

    Parameters
    ----------
    start, stop, step : float
    repeat : int
        How often each number stands.
    infer_range : bool
        Take the length from how the array is used, not from `stop`.
    dtype : str or numpy dtype, optional
        Default float32.

    Examples
    --------
    >>> from dmod.symbol import arange
    >>> arange(2, 10, 3).infer_shape()[1]
    [(3,)]
    """
    params = {"start": start, "stop": stop, "step": step, "repeat": repeat, "infer_range": infer_range}
    return _make("_arange", [], name, None, **params, dtype=_dtype(dtype))


def linspace(
    start: float, stop: float, num: int, endpoint: bool = True, name: str | None = None, dtype: Any = None
) -> Symbol:
    """`num` numbers at equal distances from `start` to `stop`, which is included if `endpoint`."""
    params = {"start": start, "stop": stop, "num": num, "endpoint": endpoint}
    return _make("_linspace", [], name, None, **params, dtype=_dtype(dtype))


def eye(N: int, M: int = 0, k: int = 0, dtype: Any = None, **kwargs: Any) -> Symbol:
    """A matrix (N, M) with ones on diagonal number k and zeros elsewhere; M = 0 stands for N."""
    name, attr = _no_more("eye", kwargs)
    return _make("_eye", [], name, attr, N=N, M=M, k=k, dtype=_dtype(dtype))


def histogram(
    a: Symbol, bins: int | Symbol = 10, range: tuple[float, float] | None = None, **kwargs: Any
) -> Symbol:
    """Count the elements of `a` that fall into each bin.

    Parameters
    ----------
    a : Symbol
    bins : int or Symbol
        The number of equal bins, or a vector of all edges.
    range : (float, float)
        The lowest and the highest edge; needed if `bins` is a number.

    Returns
    -------
    Symbol
        Two outputs: the counts (int64) and the edges.
    """
    name, attr = _no_more("histogram", kwargs)
    if isinstance(bins, Symbol):
        return _make("_histogram", [a, bins], name, attr)
    if range is None:
        raise InvalidArgument("histogram: a number of bins needs their range, such as range=(0, 1)")
    return _make("_histogram", [a], name, attr, bin_cnt=bins, range=tuple(range))


def split_v2(
    ary: Symbol, indices_or_sections: int | Sequence[int], axis: int = 0, squeeze_axis: bool = False
) -> Symbol:
    """Cut an array along an axis, into a number of equal parts or at given indices.

    Parameters
    ----------
    ary : Symbol
    indices_or_sections : int or sequence of int
        The number of parts, or where the second and each further part begin.
    axis : int
    squeeze_axis : bool
        Drop the axis; each part has length 1 there.

    Examples
    --------
    >>> from dmod.symbol import Variable, split_v2
    >>> split_v2(Variable('x'), (1, 3)).infer_shape(x=(5, 2))[1]
    [(1, 2), (2, 2), (2, 2)]
    """
    indices: list[int] = []
    sections = 0
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
    else:
        indices = [0, *(int(i) for i in indices_or_sections)]
    params = {"indices": indices, "axis": axis, "squeeze_axis": squeeze_axis, "sections": sections}
    return _make("_split_v2", [ary], None, None, **params)
