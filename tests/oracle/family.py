"""Cases of one family of operators: like `cases`, with inputs and tolerances of their own.

Runs under the oracle's Python too (3.8 or newer, NumPy 1.23). A family is a module `cases_<family>` with a
`Table`; `make_family_fixtures.py` records MXNet's numbers in ``tests/fixtures/operators_<family>.npz``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Values = Callable[[np.random.RandomState, "tuple[int, ...]"], Any]


class Case(NamedTuple):
    """A graph, the shapes of its inputs and how to run it."""

    build: Callable[[Any], Any]
    shapes: dict[str, tuple[int, ...]]
    values: dict[str, Values]  # of inputs that are not standard normal
    dtypes: dict[str, str]  # of inputs whose dtype is not `dtype`
    dtype: str = "float32"
    train: bool = True  # also run backward
    heads: bool = True  # pass gradients of the outputs to backward
    no_grad: tuple[str, ...] = ()  # inputs without gradient
    grad_req: str = "write"
    rtol: float = 0.0  # 0: by dtype
    atol: float = 2e-6
    skip: tuple[str, ...] = ()  # results that are not compared, such as 'out/1'


class Table(dict):
    """Cases by name."""

    def add(
        self, name: str, build: Callable[[Any], Any], shapes: dict[str, tuple[int, ...]], **options: Any
    ) -> None:
        """Put a case in; see `Case` for the options."""
        if name in self:
            raise ValueError(f"two cases are named {name}")
        self[name] = Case(build, shapes, options.pop("values", {}), options.pop("dtypes", {}), **options)


def op(sym: Any, name: str) -> Callable[..., Any]:
    """An operator's function by its name in a graph; ``_contrib_X`` is ``contrib.X`` where that exists."""
    _, space, short = [*name.split("_", 2), "", ""][:3]
    place = getattr(sym, space, None) if name.startswith("_") else None
    return getattr(sym, name) if place is None else getattr(place, short)


def value(case: Case, case_name: str, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What an input or head gradient is set to: the same on every machine."""
    rng = np.random.RandomState(zlib.crc32((case_name + "/" + name).encode()))
    make = case.values.get(name)
    array = rng.standard_normal(shape) if make is None else make(rng, shape)
    return np.asarray(np.broadcast_to(array, shape), dtype)


def run(mx: Any, case_name: str, case: Case, ctx: Any = None) -> dict[str, np.ndarray]:
    """Run a case through an executor, on the CPU or on `ctx`.

    Gives outputs, gradients and states by name, and the names of operators, inputs and outputs.
    """
    net = case.build(mx.sym)
    names = net.list_arguments()
    reqs = {n: "null" if n in case.no_grad or not case.train else case.grad_req for n in names}
    types = {n: np.dtype(case.dtypes.get(n, case.dtype)) for n in names}
    exe = net.simple_bind(ctx or mx.cpu(), grad_req=reqs, type_dict=types, **case.shapes)
    for arrays in (exe.arg_dict, exe.aux_dict):
        for name, array in arrays.items():
            array[:] = value(case, case_name, name, array.shape, array.dtype)
    found: dict[str, np.ndarray] = {}
    for _ in range(2 if case.grad_req == "add" else 1):
        outputs = exe.forward(is_train=case.train)
        found.update({"out/" + str(i): o.asnumpy() for i, o in enumerate(outputs)})
        if case.train:
            heads = [
                mx.nd.array(value(case, case_name, "head" + str(i), o.shape, o.dtype), dtype=o.dtype)
                for i, o in enumerate(outputs)
            ]
            exe.backward(heads if case.heads else None)
    if case.train:
        found.update({"grad/" + n: g.asnumpy() for n, g in exe.grad_dict.items() if g is not None})
    found.update({"arg/" + n: a.asnumpy() for n, a in exe.arg_dict.items() if n.startswith("state")})
    found.update({"aux/" + n: a.asnumpy() for n, a in exe.aux_dict.items()})
    nodes = json.loads(net.tojson())["nodes"]
    found["ops"] = np.array([n["op"] for n in nodes])
    found["names"] = np.array(net.list_arguments() + net.list_auxiliary_states() + net.list_outputs())
    return {key: array for key, array in found.items() if key not in case.skip}
