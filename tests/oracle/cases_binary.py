"""Functions of two arrays or of an array and a number, comparisons, sums and broadcasting."""

from __future__ import annotations

from typing import Any

from tests.oracle.cases_unary import SHAPE, exactly, integers, op, uniform
from tests.oracle.family import Table

CASES = Table()

BINARY = ("add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot")
LOGIC = (
    *("equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal"),
    *("logical_and", "logical_or", "logical_xor"),
)
TIES = exactly(1, 2, 0, -1, 3, 0, 2.5, -2, 1)
OTHERS = exactly(1, 1, 0, 2, 0, 5, 2.5, -3, -1)


def _same_name(name: str) -> str:
    return f"elemwise_{name}" if name in ("add", "sub", "mul", "div") else f"_{name}"


def _one_array_broadcast(sym: Any) -> Any:
    a = sym.Variable("a")
    return sym.broadcast_mul(a, a) + a


def _repeated(sym: Any) -> Any:
    a = sym.Variable("a")
    return sym.add_n(a, a, a, sym.Variable("b"))


def _leaky(sym: Any) -> Any:
    a = sym.Variable("a")
    return sym.where(a > 0, a, a * 0.1)


def _mask(a: Any, b: Any) -> Any:
    return a * (a > b) + b * (b >= a)


def _two_arrays() -> None:
    for name in BINARY + LOGIC:

        def same(sym: Any, name: str = name) -> Any:
            return op(sym, _same_name(name))(sym.Variable("a"), sym.Variable("b"))

        def spread(sym: Any, name: str = name) -> Any:
            return getattr(sym, "broadcast_" + name)(sym.Variable("a"), sym.Variable("b"), name="y")

        positive = {"a": uniform(0.5, 3), "b": uniform(0.5, 3)}
        coarse = {"a": integers(0, 3), "b": integers(0, 3)}
        values = coarse if name in LOGIC else positive
        CASES.add(f"same_{name}", same, {"a": SHAPE, "b": SHAPE}, values=values)
        CASES.add(f"same_{name}_ties", same, {"a": (9,), "b": (9,)}, values={"a": TIES, "b": OTHERS})
        CASES.add(
            f"same_{name}_int32",
            same,
            {"a": SHAPE, "b": SHAPE},
            values={"a": integers(1, 6), "b": integers(1, 4)},
            dtype="int32",
            train=name not in ("div", "mod", "power", "hypot"),
        )
        for a, b in [((2, 3, 4), (1, 3, 1)), ((2, 1, 4), (2, 3, 1)), ((3, 4), (1, 1))]:
            label = "_".join(map(str, (*a, *b)))
            CASES.add(f"broadcast_{name}_{label}", spread, {"a": a, "b": b}, values=values)
        CASES.add(
            f"broadcast_{name}_float64",
            spread,
            {"a": (2, 1, 3, 2), "b": (1, 4, 1, 2)},
            values=values,
            dtype="float64",
        )
    for name in ("plus", "minus"):
        CASES.add(
            f"broadcast_{name}",
            lambda sym, name=name: getattr(sym, "broadcast_" + name)(sym.Variable("a"), sym.Variable("b")),
            {"a": (2, 3), "b": (1, 3)},
        )
    CASES.add(
        "broadcast_mul_grad_add",
        lambda sym: sym.broadcast_mul(sym.Variable("a"), sym.Variable("b")),
        {"a": (2, 3), "b": (2, 1)},
        grad_req="add",
    )
    CASES.add("broadcast_of_one_array", _one_array_broadcast, {"a": (2, 3)})


def _numbers() -> None:
    for name in (*("maximum", "minimum", "hypot"), *LOGIC):
        for suffix, dtype in (("", "float32"), ("_int32", "int32")):
            CASES.add(
                f"{name}_scalar{suffix}",
                lambda sym, name=name: op(sym, f"_{name}_scalar")(sym.Variable("data"), scalar=1.0),
                {"data": SHAPE},
                values={"data": integers(-2, 4)},
                dtype=dtype,
                train=name != "hypot" or not suffix,
            )
    for name in ("plus", "minus", "rminus", "mul", "div", "rdiv", "mod", "rmod", "power", "rpower"):
        CASES.add(
            f"{name}_scalar_int32",
            lambda sym, name=name: op(sym, f"_{name}_scalar")(sym.Variable("data"), scalar=2.5),
            {"data": SHAPE},
            values={"data": integers(1, 6)},
            dtype="int32",
            train=name in ("plus", "minus", "rminus", "mul"),
        )
    for exponent in (2, 3, 1, 0.5, -1, -0.5, 0, 2.5):
        CASES.add(
            f"power_of_{exponent}".replace("-", "m"),
            lambda sym, exponent=exponent: sym.Variable("data") ** exponent,
            {"data": SHAPE},
            values={"data": uniform(0.2, 3)},
        )
    for label, build in {
        "equal": lambda a, b: a == b,
        "not_equal": lambda a, b: a != b,
        "greater": lambda a, b: a > b,
        "greater_equal": lambda a, b: a >= b,
        "lesser": lambda a, b: a < b,
        "lesser_equal": lambda a, b: a <= b,
        "equal_number": lambda a, b: a == 1,
        "not_equal_number": lambda a, b: a != 1,
        "greater_number": lambda a, b: a > 1.0,
        "greater_equal_number": lambda a, b: a >= 1,
        "lesser_number": lambda a, b: a < 1,
        "lesser_equal_number": lambda a, b: a <= 1,
        "number_on_the_left": lambda a, b: a < 1,
        "mask": _mask,
    }.items():
        CASES.add(
            "operator_" + label,
            lambda sym, build=build: build(sym.Variable("a"), sym.Variable("b")) * 1,
            {"a": SHAPE, "b": SHAPE} if "number" not in label else {"a": SHAPE},
            values={"a": integers(0, 3), "b": integers(0, 3)},
        )
    for label, build_in in {
        "maximum": lambda sym, a, b: sym.maximum(a, b),
        "maximum_number": lambda sym, a, b: sym.maximum(a, 0.5),
        "maximum_left": lambda sym, a, b: sym.maximum(1, a),
        "minimum": lambda sym, a, b: sym.minimum(a, b),
        "minimum_left": lambda sym, a, b: sym.minimum(1, a),
        "power": lambda sym, a, b: sym.power(a, b),
        "power_number": lambda sym, a, b: sym.power(a, 2),
        "power_left": lambda sym, a, b: sym.power(2, a),
        "pow_left": lambda sym, a, b: sym.pow(2.5, a),
        "hypot": lambda sym, a, b: sym.hypot(a, b),
        "hypot_left": lambda sym, a, b: sym.hypot(3, a),
    }.items():
        CASES.add(
            "function_" + label,
            lambda sym, build_in=build_in: build_in(sym, sym.Variable("a"), sym.Variable("b")) * 1,
            {"a": SHAPE, "b": SHAPE} if "_" not in label else {"a": SHAPE},
            values={"a": uniform(0.3, 2), "b": uniform(0.3, 2)},
        )


def _several() -> None:
    for count in (1, 2, 4):
        names = "abcd"[:count]
        for name in ("add_n", "ElementWiseSum"):
            CASES.add(
                f"{name}_{count}",
                lambda sym, name=name, names=names: getattr(sym, name)(*map(sym.Variable, names)),
                dict.fromkeys(names, SHAPE),
            )
    CASES.add(
        "add_n_repeated",
        _repeated,
        {"a": SHAPE, "b": SHAPE},
    )
    for label, condition, dtype in [
        ("", SHAPE, "float32"),
        ("_rows", SHAPE[:1], "float32"),
        ("_int32", SHAPE, "int32"),
    ]:
        CASES.add(
            "where" + label,
            lambda sym: sym.where(sym.Variable("c"), sym.Variable("a"), sym.Variable("b"), name="y"),
            {"c": condition, "a": SHAPE, "b": SHAPE},
            values={"c": integers(0, 3)},
            dtypes={"c": dtype},
        )
    CASES.add(
        "where_one_array_twice",
        _leaky,
        {"a": SHAPE},
    )


def _spreading() -> None:
    for label, name, options, shape in [
        ("to", "broadcast_to", {"shape": (3, 4)}, (3, 1)),
        ("to_kept", "broadcast_to", {"shape": (0, 2, 4)}, (3, 1, 4)),
        ("to_all", "broadcast_to", {"shape": (3, 4)}, (1, 1)),
        ("axis", "broadcast_axis", {"axis": 1, "size": 4}, (3, 1, 2)),
        ("axes", "broadcast_axes", {"axis": (0, 2), "size": (2, 3)}, (1, 4, 1)),
    ]:
        CASES.add(
            "broadcast_" + label,
            lambda sym, name=name, options=options: getattr(sym, name)(sym.Variable("data"), **options),
            {"data": shape},
        )
    for label, options, left, right in [
        ("", {}, (2, 1, 4), (2, 3, 4)),
        ("_axes", {"lhs_axes": (0, 2), "rhs_axes": (1, 0)}, (1, 4, 1), (2, 3)),
        ("_last", {"lhs_axes": (0,), "rhs_axes": (-1,)}, (1,), (2, 3)),
    ]:
        CASES.add(
            "broadcast_like" + label,
            lambda sym, options=options: sym.broadcast_like(sym.Variable("a"), sym.Variable("b"), **options),
            {"a": left, "b": right},
        )


for _add in (_two_arrays, _numbers, _several, _spreading):
    _add()
