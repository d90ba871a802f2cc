"""Operators that move, cut, join and repeat elements."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table, op

CASES = Table()


def _one(name: str, options: dict[str, Any], shape: tuple[int, ...], label: str = "", **rest: Any) -> None:
    """A case of an operator with one input; its label tells the options apart."""
    text = label or "_".join(f"{k}_{v}" for k, v in options.items())
    kept = "".join(c if c.isalnum() else "m" if c == "-" else "_" for c in text)
    parts = "_".join([name, kept, *map(str, shape), *([rest["dtype"]] if "dtype" in rest else [])])
    CASES.add(
        parts,
        lambda sym: op(sym, name)(sym.Variable("data"), name="y", **options),
        {"data": shape},
        **rest,
    )


def _two(name: str, options: dict[str, Any], lhs: tuple[int, ...], rhs: tuple[int, ...], **rest: Any) -> None:
    CASES.add(
        "_".join([name, *map(str, lhs), "by", *map(str, rhs), *(f"{k}_{v}" for k, v in options.items())]),
        lambda sym: op(sym, name)(sym.Variable("data"), sym.Variable("other"), name="y", **options),
        {"data": lhs, "other": rhs},
        **rest,
    )


def _joined() -> None:
    for dim, shapes in [
        (0, {"a": (2, 3), "b": (4, 3)}),
        (1, {"a": (2, 3), "b": (2, 1), "c": (2, 4)}),
        (-1, {"a": (2, 2, 3), "b": (2, 2, 1)}),
        (2, {"a": (2, 2, 3), "b": (2, 2, 1)}),
    ]:
        CASES.add(
            f"concat_{dim}",
            lambda sym, dim=dim, names=tuple(shapes): sym.concat(*map(sym.Variable, names), dim=dim),
            shapes,
        )
    CASES.add("concat_single", lambda sym: sym.Concat(sym.Variable("a"), dim=1, name="y"), {"a": (2, 3)})
    CASES.add("concat_default", lambda sym: sym.Concat(*map(sym.Variable, "ab")), {"a": (2, 3), "b": (2, 2)})
    CASES.add(
        "concat_named",
        lambda sym: sym.Concat(num_args=2, dim=0),
        {"concat0_arg0": (2, 3), "concat0_arg1": (1, 3)},
    )
    CASES.add("concat_same_input", lambda sym: sym.concat(*[sym.Variable("a")] * 3, dim=0), {"a": (2, 3)})
    CASES.add(
        "concat_grad_add",
        lambda sym: sym.concat(*map(sym.Variable, "ab"), dim=0),
        {"a": (2, 3), "b": (1, 3)},
        grad_req="add",
    )
    for axis in (0, 1, 2, -1):
        CASES.add(
            f"stack_{axis}",
            lambda sym, axis=axis: sym.stack(*map(sym.Variable, "abc"), axis=axis),
            dict.fromkeys("abc", (2, 4)),
        )


def _cut() -> None:
    for options, shape in [
        ({"num_outputs": 3}, (2, 6)),
        ({"num_outputs": 2, "axis": 0}, (4, 3)),
        ({"num_outputs": 2, "axis": -1}, (2, 3, 4)),
        ({"num_outputs": 3, "axis": 1, "squeeze_axis": True}, (2, 3, 4)),
        ({"num_outputs": 1}, (2, 3)),
    ]:
        _one("SliceChannel", options, shape)
    CASES.add(
        "split_one_is_read",
        lambda sym: sym.split(sym.Variable("data"), num_outputs=3, axis=1)[1] * 2,
        {"data": (2, 6)},
    )
    for indices, axis, squeeze, shape in [
        (2, 0, False, (4, 3)),
        (3, 1, True, (2, 3, 2)),
        ((1, 3), 1, False, (2, 6)),
        ((2,), -1, False, (2, 5)),
        ((1, 2), 0, True, (3, 2)),
    ]:
        CASES.add(
            f"split_v2_{indices}_{axis}_{squeeze}",
            lambda sym, a=(indices, axis, squeeze): sym.split_v2(sym.Variable("data"), *a),
            {"data": shape},
        )
    for begin, end, step in [
        ((1,), (3,), None),
        ((None, 1), (None, 4), None),
        ((-2, -3), (None, -1), None),
        ((None, 3), (None, 0), (2, -2)),
        ((None, None, None), (None, None, None), (-1, -1, -1)),
        ((0, 1, 1), (9, 9, 9), (1, 2, 1)),
        ((2,), (None,), (-2,)),
    ]:
        options = {"begin": begin, "end": end, **({"step": step} if step else {})}
        _one("slice", options, (3, 4, 3))
    _one("crop", {"begin": (0, 1), "end": (2, 3)}, (3, 4))
    _one("slice", {"begin": (1,), "end": (3,)}, (3, 4), dtype="float16")
    for axis, begin, end in [(0, 1, 3), (1, -3, -1), (-1, 2, None), (1, 0, None)]:
        _one("slice_axis", {"axis": axis, "begin": begin, "end": end}, (3, 4))
    _two("slice_like", {}, (3, 4), (2, 3))
    _two("slice_like", {"axes": (1,)}, (3, 4), (2, 3, 5))
    _two("slice_like", {"axes": (0, -1)}, (3, 4, 5), (2, 9, 2))
    for options in ({"h_w": (2, 3)}, {"h_w": (2, 3), "offset": (1, 2)}, {"h_w": (2, 3), "center_crop": True}):
        _one("Crop", options, (2, 2, 4, 6))
    _two("Crop", {}, (2, 2, 4, 6), (1, 1, 3, 2))
    _two("Crop", {"offset": (1, 3)}, (2, 2, 4, 6), (1, 1, 3, 2))
    _two("Crop", {"center_crop": True}, (2, 2, 4, 6), (1, 1, 3, 3))
    for step in ((), (1, 2)):
        region = {"begin": (0, 1), "end": (2, 5), **({"step": step} if step else {})}
        CASES.add(
            f"slice_assign_{len(step)}",
            lambda sym, region=region: getattr(sym, "_internal", sym)._slice_assign(
                sym.Variable("a"), sym.Variable("b"), **region
            ),
            {"a": (3, 6), "b": (2, 2 if step else 4)},
            train=False,
        )
    for name in ("_slice_assign_scalar", "_crop_assign_scalar"):
        CASES.add(
            name[1:],
            lambda sym, name=name: getattr(getattr(sym, "_internal", sym), name)(
                sym.Variable("a"), scalar=2.5, begin=(None, 4), end=(None, 1), step=(2, -2)
            ),
            {"a": (3, 6)},
            train=False,
        )


def _moved() -> None:
    for axes in (None, (1, 0, 2), (2, 0, 1), (0, 1, 2)):
        _one("transpose", {"axes": axes} if axes else {}, (2, 3, 4))
    for dim1, dim2 in [(0, 1), (0, 2), (-1, -2), (1, 1)]:
        _one("SwapAxis", {"dim1": dim1, "dim2": dim2}, (2, 3, 4))
    _one("swapaxes", {}, (2, 3))
    for axis in (0, 1, (0, 2), (0, 1, 2)):
        _one("reverse", {"axis": axis}, (2, 3, 4))
    _one("flip", {"axis": 1}, (2, 3))
    for axis in (0, 1, 2, -1, -3):
        _one("expand_dims", {"axis": axis}, (2, 3))
    for axis in (None, 0, (0, 2), -2, ()):
        _one("squeeze", {} if axis is None else {"axis": axis}, (1, 2, 1, 3))
    _one("squeeze", {}, (1, 1))
    _one("squeeze", {"axis": None}, (1, 3))
    _two("reshape_like", {}, (3, 4), (2, 6))
    _two("reshape_like", {"lhs_begin": 0, "lhs_end": 1, "rhs_begin": 0, "rhs_end": 2}, (6, 2), (3, 2, 5))
    _two("reshape_like", {"lhs_begin": -1, "lhs_end": None, "rhs_begin": 1}, (3, 8), (5, 2, 4))
    CASES.add(
        "identity_like",
        lambda sym: (
            getattr(sym, "_internal", sym)._identity_with_attr_like_rhs(
                sym.Variable("a") * 2, sym.Variable("b") * 3
            )
            + 1
        ),
        {"a": (2, 3), "b": (2, 3)},
    )
    CASES.add(
        "reshape_like_computed",
        lambda sym: sym.reshape_like(sym.Variable("a") * 2, sym.Variable("b") * 3) + sym.Variable("c"),
        {"a": (2, 3), "b": (3, 2), "c": (3, 2)},
    )
    _one("cast_storage", {"stype": "default"}, (2, 3))
    _one("depth_to_space", {"block_size": 2}, (2, 8, 2, 3))
    _one("depth_to_space", {"block_size": 3}, (1, 9, 1, 2))
    _one("space_to_depth", {"block_size": 2}, (2, 3, 4, 2))
    _one("space_to_depth", {"block_size": 1}, (2, 3, 4, 2))
    for options, shape in [
        ({}, (3,)),
        ({"k": 2}, (3,)),
        ({"k": -1}, (3,)),
        ({}, (3, 4)),
        ({"k": 1}, (3, 4)),
        ({"k": -2}, (3, 4)),
        ({}, (2, 3, 4)),
        ({"k": 1, "axis1": -1, "axis2": 0}, (2, 3, 4)),
        ({"k": -1, "axis1": 1, "axis2": 2}, (2, 3, 4)),
    ]:
        _one("diag", options, shape)


def _repeated() -> None:
    for reps, shape in [
        ((2,), (2, 3)),
        ((2, 1, 3), (2, 3)),
        ((1, 2), (2, 3)),
        ((2, 2), (3,)),
        ((), (2, 3)),
        (3, (2,)),
    ]:
        _one("tile", {"reps": reps}, shape)
    for options, shape in [
        ({"repeats": 2}, (2, 3)),
        ({"repeats": 3, "axis": 0}, (2, 3)),
        ({"repeats": 2, "axis": 1}, (2, 3, 2)),
        ({"repeats": 2, "axis": -1}, (2, 3)),
        ({"repeats": 1, "axis": None}, (2, 3)),
    ]:
        _one("repeat", options, shape)
    for mode in ("constant", "edge", "reflect"):
        _one(
            "Pad", {"mode": mode, "pad_width": (0, 0, 0, 0, 1, 2, 2, 1), "constant_value": 1.5}, (2, 2, 3, 4)
        )
        _one("pad", {"mode": mode, "pad_width": (0, 0, 0, 0, 0, 1, 2, 0, 1, 1)}, (1, 2, 3, 3, 4))
        _one("pad", {"mode": mode, "pad_width": (0, 0, 0, 0, 0, 0, 3, 3)}, (1, 2, 2, 4), dtype="float64")


def _created() -> None:
    made = {
        "zeros": lambda sym: sym.zeros((2, 3)),
        "ones": lambda sym: sym.ones((2, 3), name="y"),
        "full": lambda sym: sym.full((2, 3), 2.5),
        "eye": lambda sym: sym.eye(2, 3, 1),
        "eye_below": lambda sym: sym.eye(2, 3, -1, dtype="float32"),
        "arange": lambda sym: sym.Reshape(sym.arange(6), shape=(2, 3)),
        "arange_step": lambda sym: sym.Reshape(sym.arange(1, 2.5, 0.25), shape=(2, 3)),
        "arange_repeat": lambda sym: sym.Reshape(sym.arange(3, repeat=2), shape=(2, 3)),
        "arange_down": lambda sym: sym.Reshape(sym.arange(0.6, 0, step=-0.1), shape=(2, 3)),
        "linspace": lambda sym: sym.Reshape(sym.linspace(0, 1, 6), shape=(2, 3)),
        "linspace_open": lambda sym: sym.Reshape(sym.linspace(2, -1, 6, endpoint=False), shape=(2, 3)),
    }
    for name, make in made.items():
        CASES.add("create_" + name, lambda sym, make=make: make(sym) * sym.Variable("data"), {"data": (2, 3)})
    for dtype in ("int32", "float64", "uint8"):
        CASES.add(
            "create_alone_" + dtype,
            lambda sym, dtype=dtype: sym.Group(
                [
                    sym.zeros((2, 3), dtype=dtype),
                    sym.ones(3, dtype=dtype),
                    sym.full((2,), 2, dtype=dtype),
                    sym.arange(2, 7, 2, repeat=2, dtype=dtype),
                    sym.linspace(0, 9, 4, dtype=dtype),
                    sym.eye(3, dtype=dtype),
                    sym.Variable("data"),
                ]
            ),
            {"data": (1,)},
            train=False,
        )
    CASES.add("create_zeros_infer", lambda sym: sym.zeros((0, 3)) + sym.Variable("data"), {"data": (2, 3)})
    CASES.add(
        "create_arange_infer",
        lambda sym: sym.arange(1, step=0.5, infer_range=True) + sym.Variable("data"),
        {"data": (5,)},
    )
    for options in (
        {},
        {"start": 1, "step": 0.5},
        {"axis": -1},
        {"axis": 0, "start": 2.0},
        {"repeat": 2},
    ):
        _one("_contrib_arange_like", options, (2, 4))
    _one("_contrib_arange_like", {}, (3,), dtype="float16")
    _one("_contrib_index_array", {}, (2, 3), train=False)
    _one("_contrib_index_array", {"axes": (1, -3)}, (2, 3, 2), train=False)


for _add in (_joined, _cut, _moved, _repeated, _created):
    _add()
