"""Checking that devices, dtypes, symbols and optimizers agree; and how long a pass takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.ndarray import waitall
from dmod.optimizer import Optimizer
from dmod.symbol import Symbol
from dmod.test_utils.comparing import as_numpy, assert_almost_equal, compare_ndarray_tuple, get_rtol
from dmod.test_utils.generating import default_context, rand_ndarray

__all__ = ["check_consistency", "check_speed", "compare_optimizer", "same_symbol_structure"]

_CONSISTENT = {2: 1e-1, 4: 1e-3, 8: 1e-5}  # by the size of the narrower float


def check_consistency(
    sym: Symbol | Sequence[Symbol],
    ctx_list: Sequence[Mapping[str, Any]],
    scale: float = 1.0,
    grad_req: Any = "write",
    arg_params: Mapping[str, Any] | None = None,
    aux_params: Mapping[str, Any] | None = None,
    rtol: Any = None,
    atol: Any = None,
    raise_on_err: bool = True,
    ground_truth: Mapping[str, Any] | None = None,
    equal_nan: bool = False,
    use_uniform: bool = False,
    rand_type: Any = np.float64,
) -> dict[str, np.ndarray]:
    """Raise AssertionError unless devices and dtypes give the same outputs and gradients.

    Parameters
    ----------
    sym : Symbol, or one for each of `ctx_list`
    ctx_list : list of dict
        Arguments of `Symbol.simple_bind`: ``ctx``, ``type_dict`` and the inputs' shapes.
    scale : float
        The spread of random arguments.
    grad_req : str, or list or dict of str
    arg_params, aux_params : dict, optional
        Values of arguments and auxiliary states; others are random, and zero.
    rtol, atol : float or dict of dtype to float, optional
        Default: 0.1 for float16, 1e-3 for float32, 1e-5 for float64, of the narrower dtype.
    raise_on_err : bool
        False prints what differs.
    ground_truth : dict of str to array-like, optional
        What to compare with; default: what the widest dtype gives.
    equal_nan : bool
    use_uniform : bool
        Random arguments are uniform, not normal.
    rand_type : numpy dtype
        Random arguments are rounded to it.

    Returns
    -------
    dict of str to numpy.ndarray
        What was compared with: outputs by name, gradients by the argument's.
    """
    syms = [sym] * len(ctx_list) if isinstance(sym, Symbol) else list(sym)
    executors = [
        s.simple_bind(grad_req=grad_req, **options) for s, options in zip(syms, ctx_list, strict=True)
    ]
    draw = np.random.uniform if use_uniform else np.random.normal
    size = {"low": -scale, "high": scale} if use_uniform else {"scale": scale}
    values = {name: as_numpy(value) for name, value in (arg_params or {}).items()}
    for name, arg in executors[0].arg_dict.items():
        values.setdefault(name, draw(size=arg.shape, **size).astype(rand_type))
    found = []
    for executor in executors:
        for name, arg in executor.arg_dict.items():
            arg[:] = values[name]
        for name, aux in executor.aux_dict.items():
            aux[:] = as_numpy((aux_params or {}).get(name, np.zeros(aux.shape)))
        for grad in executor.grad_arrays:
            if grad is not None:
                grad[:] = 0
        outputs = executor.forward(is_train=True)
        if any(grad is not None for grad in executor.grad_arrays):
            executor.backward([out.copy() for out in outputs])
        one = dict(zip(executor._symbol.list_outputs(), (o.asnumpy() for o in outputs), strict=True))
        one |= {name: g.asnumpy() for name, g in executor.grad_dict.items() if g is not None}
        found.append(one)
    widths = [max((a.dtype.itemsize for a in one.values()), default=0) for one in found]
    best = (
        {k: as_numpy(v) for k, v in ground_truth.items()}
        if ground_truth
        else found[widths.index(max(widths))]
    )
    for number, one in enumerate(found):
        for name, value in one.items():
            if name not in best or value is best[name]:
                continue
            floats = [d for d in (value.dtype, best[name].dtype) if d.kind == "f"]
            narrow = min(floats, key=lambda d: d.itemsize, default=np.dtype(np.int64))
            default = _CONSISTENT.get(narrow.itemsize, 0) if narrow.kind == "f" else 0
            rel, absolute = (default if t is None else get_rtol(t, narrow) for t in (rtol, atol))
            try:
                names = (f"{name} of {ctx_list[number].get('ctx')} ({value.dtype})", "what it should be")
                assert_almost_equal(value, best[name], rel, absolute, names, equal_nan)
            except AssertionError as error:
                if raise_on_err:
                    raise
                print(error)
    return best


def check_speed(
    sym: Symbol,
    location: Mapping[str, Any] | None = None,
    ctx: Context | None = None,
    N: int = 20,
    grad_req: Any = None,
    typ: str = "whole",
    **kwargs: Any,
) -> float:
    """Seconds per pass of a symbol.

    Parameters
    ----------
    sym : Symbol
    location : dict of str to array-like, optional
        Arguments; default: random ones of the shapes in `kwargs`.
    ctx : Context, optional
    N : int
        How many passes to average.
    grad_req : str, or list or dict of str, optional
        Default: 'write'.
    typ : {'whole', 'forward'}
        Forward and backward, or forward only.
    **kwargs
        Shapes, for `Symbol.simple_bind`.
    """
    if typ not in ("whole", "forward"):
        raise InvalidArgument(f"check_speed: typ={typ!r}, expected 'whole' or 'forward'")
    ctx = ctx or default_context()
    shapes = kwargs if location is None else {name: np.shape(value) for name, value in location.items()}
    executor = sym.simple_bind(ctx, grad_req=grad_req or "write", **shapes)
    for name, arg in executor.arg_dict.items():
        arg[:] = np.random.normal(size=arg.shape) if location is None else as_numpy(location[name])
    heads = [out.copy() for out in executor.outputs]

    def once() -> None:
        executor.forward(is_train=typ == "whole")
        if typ == "whole":
            executor.backward(heads)

    once()
    waitall()
    start = time.perf_counter()
    for _ in range(N):
        once()
    waitall()
    return (time.perf_counter() - start) / N


def same_symbol_structure(sym1: Symbol, sym2: Symbol) -> bool:
    """Whether two symbols have the same operators in the same places, whatever their names."""
    left, right = sym1._order(), sym2._order()

    def described(order: list[Any]) -> list[Any]:
        numbers = {id(node): i for i, node in enumerate(order)}
        return [
            (
                node.op.name if node.op is not None else None,
                [(numbers[id(e.node)], e.index) for e in node.inputs],
            )
            for node in order
        ]

    return described(left) == described(right)


def compare_optimizer(
    opt1: Optimizer,
    opt2: Optimizer,
    shape: tuple[int, ...],
    dtype: Any,
    w_stype: str = "default",
    g_stype: str = "default",
    rtol: float = 1e-4,
    atol: float = 1e-5,
    compare_states: bool = True,
    ntensors: int = 1,
) -> None:
    """Raise AssertionError unless two optimizers do the same to random weights.

    Parameters
    ----------
    opt1, opt2 : Optimizer
    shape : tuple of int
    dtype : numpy dtype
    w_stype, g_stype : str
        Storage types of weights and gradients.
    rtol, atol : float
    compare_states : bool
        Compare their states too.
    ntensors : int
        How many weights to update, one after another.
    """
    for index in range(ntensors):
        weight = rand_ndarray(shape, w_stype, dtype=dtype, density=1)
        grad = rand_ndarray(shape, g_stype, dtype=dtype, density=0.5)
        results: list[Any] = []
        for optimizer in (opt1, opt2):
            own = weight.copy()
            state = optimizer.create_state_multi_precision(index, own)
            optimizer.update_multi_precision(index, own, grad.copy(), state)
            results.append((own, state))
        if compare_states:
            compare_ndarray_tuple(results[0][1], results[1][1], rtol, atol)
        assert_almost_equal(results[0][0], results[1][0], rtol, atol, ("first optimizer's", "second's"))
