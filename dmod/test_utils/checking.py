"""Checking symbols: their results and their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.executor import Executor
from dmod.ndarray import NDArray, array
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.test_utils.comparing import as_numpy, assert_almost_equal, get_atol, get_rtol
from dmod.test_utils.generating import default_context

__all__ = [
    "check_numeric_gradient",
    "check_symbolic_backward",
    "check_symbolic_forward",
    "numeric_grad",
    "simple_forward",
]

Values = Mapping[str, Any] | Sequence[Any] | None


def _by_name(given: Values, names: list[str], what: str) -> dict[str, Any]:
    """Values by name, from a dict or a list in the order of `names`."""
    if given is None:
        given = {}
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise InvalidArgument(f"no {what} {name!r}{nearest(str(name), names)}")
        return dict(given)
    if len(given) != len(names):
        raise InvalidArgument(f"{len(given)} values for {len(names)} {what}s: {', '.join(names)}")
    return dict(zip(names, given, strict=True))


def _arrays(given: Values, names: list[str], what: str, ctx: Context, dtype: Any) -> dict[str, NDArray]:
    found = _by_name(given, names, what)
    missing = [name for name in names if name not in found]
    if missing:
        raise InvalidArgument(f"no value for {what} {missing[0]!r}")

    def made(value: Any) -> NDArray:
        values = value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)
        return array(values, ctx=ctx, dtype=values.dtype if dtype == "asnumpy" else dtype)

    return {name: made(found[name]) for name in names}


def _requests(grad_req: Any, names: list[str]) -> dict[str, str]:
    if isinstance(grad_req, str):
        return dict.fromkeys(names, grad_req)
    return dict.fromkeys(names, "null") | _by_name(grad_req, names, "argument")


def _bound(
    sym: Symbol, location: Values, aux_states: Values, ctx: Context | None, dtype: Any, grad_req: Any = "null"
) -> Executor:
    """An executor with these values; gradients begin with random numbers, so that 'add' can be told."""
    ctx = ctx or default_context()
    args = _arrays(location, sym.list_arguments(), "argument", ctx, dtype)
    aux = _arrays(aux_states, sym.list_auxiliary_states(), "auxiliary state", ctx, dtype)
    reqs = _requests(grad_req, sym.list_arguments())
    grads = {
        name: array(np.random.normal(size=args[name].shape), ctx=ctx, dtype=args[name].dtype)
        for name, req in reqs.items()
        if req != "null"
    }
    return sym.bind(ctx, args, args_grad=grads, grad_req=reqs, aux_states=aux)


def simple_forward(sym: Symbol, ctx: Context | None = None, is_train: bool = False, **inputs: Any) -> Any:
    """The outputs of a symbol for these inputs, as numpy arrays; of one output, the array alone.

    Examples
    --------
    >>> from dmod.symbol import Variable
    >>> simple_forward(Variable('a') * 2, a=np.array([1., 2.])).tolist()
    [2.0, 4.0]
    """
    executor = _bound(sym, inputs, None, ctx, np.float32)
    outputs = [out.asnumpy() for out in executor.forward(is_train=is_train)]
    return outputs[0] if len(outputs) == 1 else outputs


def check_symbolic_forward(
    sym: Symbol,
    location: Values,
    expected: Values,
    rtol: Any = None,
    atol: Any = None,
    aux_states: Values = None,
    ctx: Context | None = None,
    equal_nan: bool = False,
    dtype: Any = np.float32,
) -> list[NDArray]:
    """Raise AssertionError unless a symbol has the expected outputs.

    Parameters
    ----------
    sym : Symbol
    location : list or dict of array-like
        The arguments, in order or by name.
    expected : list or dict of array-like
        The outputs, in order or by name.
    rtol, atol : float, optional
        See `assert_almost_equal`.
    aux_states : list or dict of array-like, optional
    ctx : Context, optional
    equal_nan : bool
    dtype : numpy dtype or 'asnumpy'
        What the arguments become; 'asnumpy' leaves theirs.

    Returns
    -------
    list of NDArray
        The outputs.

    Examples
    --------
    >>> from dmod.symbol import Variable
    >>> _ = check_symbolic_forward(Variable('a') + Variable('b'), [[1, 2], [3, 4]], [[4, 6]])
    """
    executor = _bound(sym, location, aux_states, ctx, dtype)
    outputs = executor.forward(is_train=False)
    names = sym.list_outputs()
    values = dict(zip(names, outputs, strict=True))
    for name, value in _by_name(expected, names, "output").items():
        assert_almost_equal(value, values[name], rtol, atol, (f"expected {name}", f"found {name}"), equal_nan)
    return outputs


def check_symbolic_backward(
    sym: Symbol,
    location: Values,
    out_grads: Values,
    expected: Values,
    rtol: Any = None,
    atol: Any = None,
    aux_states: Values = None,
    grad_req: Any = "write",
    ctx: Context | None = None,
    grad_stypes: Mapping[str, str] | None = None,
    equal_nan: bool = False,
    dtype: Any = np.float32,
) -> list[NDArray | None]:
    """Raise AssertionError unless a symbol has the expected gradients.

    Parameters
    ----------
    sym, location, rtol, atol, aux_states, ctx, equal_nan, dtype
        See `check_symbolic_forward`.
    out_grads : list or dict of array-like, or None
        The gradients of the outputs; None for losses.
    expected : list or dict of array-like
        The gradients of the arguments; of a dict, those that it names are compared.
    grad_req : str, or list or dict of str
        With 'add', `expected` is what is added to random numbers; with 'null', nothing is compared.
    grad_stypes : dict, optional
        Accepted: gradients are dense.

    Returns
    -------
    list of NDArray or None
        The gradients of the arguments.
    """
    executor = _bound(sym, location, aux_states, ctx, dtype, grad_req)
    before = {name: g.asnumpy() for name, g in executor.grad_dict.items() if g is not None}
    outputs = executor.forward(is_train=True)
    heads = None
    if out_grads is not None:
        names = sym.list_outputs()
        given = _by_name(out_grads, names, "output")
        heads = [
            array(as_numpy(given[name]), ctx=out.context, dtype=out.dtype) if name in given else None
            for name, out in zip(names, outputs, strict=True)
        ]
    executor.backward(heads)
    reqs = _requests(grad_req, sym.list_arguments())
    for name, value in _by_name(expected, sym.list_arguments(), "argument").items():
        if reqs[name] != "null":
            found = executor.grad_dict[name].asnumpy()  # type: ignore[union-attr]
            found = found - before[name] if reqs[name] == "add" else found
            what = (f"expected gradient of {name}", f"found gradient of {name}")
            assert_almost_equal(as_numpy(value), found, rtol, atol, what, equal_nan)
    return executor.grad_arrays


def _loss(
    executor: Executor, heads: list[np.ndarray], is_train: bool, aux: Mapping[str, np.ndarray]
) -> float:
    """A weighted sum of the outputs, with the random numbers and auxiliary states of the first pass."""
    executor._stream._counts = [0, 0]
    for name, value in aux.items():
        executor.aux_dict[name][:] = value
    outputs = executor.forward(is_train=is_train)
    return float(
        sum((out.asnumpy().astype(np.float64) * head).sum() for out, head in zip(outputs, heads, strict=True))
    )


def numeric_grad(
    executor: Executor,
    location: Values,
    aux_states: Values = None,
    eps: float = 1e-4,
    use_forward_train: bool = True,
    dtype: Any = np.float32,
    heads: list[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The gradients of the sum of an executor's outputs by finite differences.

    Parameters
    ----------
    executor : Executor
        Best of float64.
    location : list or dict of array-like
        Where; floats only get gradients.
    aux_states : list or dict of array-like, optional
        Default: those that the executor has.
    eps : float
        The distance of the two points of a central difference.
    use_forward_train : bool
        Whether the forward passes are ones of training.
    dtype : numpy dtype
        Accepted; the executor's own decides.
    heads : list of ndarray, optional
        Weights of the outputs' elements; default: ones.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    names = executor._symbol.list_arguments()
    values = {name: as_numpy(value) for name, value in _by_name(location, names, "argument").items()}
    for name, value in values.items():
        executor.arg_dict[name][:] = value
    given = _by_name(aux_states, executor._symbol.list_auxiliary_states(), "auxiliary state")
    aux = {name: a.asnumpy() for name, a in executor.aux_dict.items()}
    aux |= {name: as_numpy(value) for name, value in given.items()}
    weights = heads or [np.ones(out.shape) for out in executor.outputs]

    def loss(name: str, point: np.ndarray) -> float:
        executor.arg_dict[name][:] = point
        return _loss(executor, weights, use_forward_train, aux)

    found = {}
    for name, value in values.items():
        if value.dtype.kind != "f":
            continue
        grad, point = np.zeros(value.shape), value.astype(np.float64)
        for index in np.ndindex(value.shape):
            old = point[index]
            point[index] = old + eps / 2
            above = loss(name, point)
            point[index] = old - eps / 2
            grad[index] = (above - loss(name, point)) / eps
            point[index] = old
        executor.arg_dict[name][:] = value
        found[name] = grad
    return found


def check_numeric_gradient(
    sym: Symbol,
    location: Values,
    aux_states: Values = None,
    numeric_eps: float | None = None,
    rtol: Any = None,
    atol: Any = None,
    grad_nodes: Any = None,
    use_forward_train: bool = True,
    ctx: Context | None = None,
    grad_stype_dict: Mapping[str, str] | None = None,
    dtype: Any = np.float32,
) -> None:
    """Raise AssertionError unless a symbol's gradients are those of finite differences.

    The outputs get random gradients. Gradients are computed in `dtype`; differences are taken in float64,
    so that they are exact enough to compare with.

    Parameters
    ----------
    sym : Symbol
    location : list or dict of array-like
        Where: every argument, in order or by name.
    aux_states : list or dict of array-like, optional
    numeric_eps : float, optional
        The distance of the two points of a central difference.
    rtol, atol : float, optional
        See `assert_almost_equal`; the defaults are those for `dtype`.
    grad_nodes : list of str, or dict of str to str, optional
        The arguments to check; as a dict, with their ``grad_req``. Default: all.
    use_forward_train : bool
        Whether differences are taken between forward passes of training.
    ctx : Context, optional
    grad_stype_dict : dict, optional
        Accepted: gradients are dense.
    dtype : numpy dtype

    Examples
    --------
    >>> from dmod.symbol import Variable
    >>> check_numeric_gradient(Variable('a') * Variable('b'), [np.array([1., 2.]), np.array([3., 4.])])
    """
    names = sym.list_arguments()
    if grad_nodes is None:
        reqs = dict.fromkeys(names, "write")
    elif isinstance(grad_nodes, Mapping):
        reqs = dict(grad_nodes)
    else:
        reqs = dict.fromkeys(grad_nodes, "write")
    values = {name: as_numpy(value) for name, value in _by_name(location, names, "argument").items()}
    executor = _bound(sym, values, aux_states, ctx, dtype, reqs)
    exact = _bound(sym, values, aux_states, ctx, np.float64)
    exact._stream.slot = executor._stream.slot
    outputs = exact.forward(is_train=use_forward_train)
    heads = [np.random.normal(0, 0.1, out.shape) + 1 for out in outputs]
    before = {name: g.asnumpy() for name, g in executor.grad_dict.items() if g is not None}
    executor.forward(is_train=True)
    executor.backward(
        [array(head, ctx=out.context, dtype=out.dtype) for head, out in zip(heads, outputs, strict=True)]
    )
    wanted = {name: values[name].astype(np.float64) for name, req in reqs.items() if req != "null"}
    for name, value in values.items():
        exact.arg_dict[name][:] = value
    expected = numeric_grad(exact, wanted, aux_states, numeric_eps or 1e-4, use_forward_train, heads=heads)
    for name in wanted:
        found = executor.grad_dict[name].asnumpy()  # type: ignore[union-attr]
        found = found - before[name] if reqs[name] == "add" else found
        what = (f"numeric gradient of {name}", f"gradient of {name}")
        assert_almost_equal(expected[name], found, get_rtol(rtol, dtype), get_atol(atol, dtype), what)
