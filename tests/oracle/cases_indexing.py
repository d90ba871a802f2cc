"""Operators with indices: looking up, picking, scattering, ordering; sequences and histograms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.oracle.family import Table, op

CASES = Table()


def below(high: int, low: int = 0) -> Callable[[Any, Any], Any]:
    """Whole numbers in [low, high)."""
    return lambda rng, shape: rng.randint(low, high, shape)


def fractions(high: float, low: float = 0.0) -> Callable[[Any, Any], Any]:
    return lambda rng, shape: rng.uniform(low, high, shape)


def distinct(count: int) -> Callable[[Any, Any], Any]:
    """Numbers without ties, so that there is one order."""
    return lambda rng, shape: rng.permutation(count).reshape(shape) - count / 3.0


def _case(
    name: str, label: str, options: dict[str, Any], shapes: dict[str, tuple[int, ...]], **rest: Any
) -> None:
    CASES.add(
        "_".join([name.lstrip("_"), label]).strip("_"),
        lambda sym, names=tuple(shapes): (
            op(getattr(sym, "_internal", sym), name)(*map(sym.Variable, names), name="y", **options)
            if name.startswith(("_scatter", "_backward"))
            else op(sym, name)(*map(sym.Variable, names), name="y", **options)
        ),
        shapes,
        **rest,
    )


def _looked_up() -> None:
    for mode in ("clip", "wrap"):
        for axis in (0, 1, -1):
            _case(
                "take",
                f"{mode}_{axis % 3}",
                {"axis": axis, "mode": mode},
                {"data": (3, 4, 2), "index": (2, 3)},
                values={"index": below(7, -4)},
            )
        _case(
            "take",
            f"{mode}_fractions",
            {"mode": mode},
            {"data": (4, 2), "index": (9,)},
            values={"index": fractions(6, -5)},
        )
    _case("take", "raise", {"mode": "raise"}, {"data": (4, 2), "index": (5,)}, values={"index": below(4)})
    for dtype in ("int32", "int64", "uint8", "float64", "float16"):
        _case(
            "take",
            dtype,
            {},
            {"data": (4, 2), "index": (5,)},
            values={"index": below(6)},
            dtypes={"index": dtype},
            no_grad=("index",),
        )
    _case("take", "half", {}, {"data": (4, 2), "index": (5,)}, values={"index": below(4)}, dtype="float16")
    _case(
        "take",
        "grad_add",
        {},
        {"data": (4, 2), "index": (5,)},
        values={"index": below(4)},
        grad_req="add",
        no_grad=("index",),
    )
    for label, shape, options in [
        ("rows", (5,), {}),
        ("words", (3, 4), {}),
        ("double", (6,), {"dtype": "float64"}),
    ]:
        _case(
            "Embedding",
            label,
            {"input_dim": 5, "output_dim": 3, **options},
            {"data": shape},
            values={"data": below(7, -1)},
            no_grad=("data",),
            dtypes={"y_weight": options.get("dtype", "float32")},
        )
    _case(
        "Embedding",
        "int32",
        {"input_dim": 5, "output_dim": 3},
        {"data": (2, 3)},
        values={"data": below(5)},
        dtypes={"data": "int32"},
        no_grad=("data",),
    )
    CASES.add(
        "embedding_shared",
        lambda sym: (
            sym.Embedding(sym.Variable("a"), sym.Variable("w"), input_dim=5, output_dim=2)
            + sym.Embedding(sym.Variable("b"), sym.Variable("w2"), input_dim=4, output_dim=2)
        ),
        {"a": (3, 2), "b": (3, 2)},
        values={"a": below(5), "b": below(4)},
        no_grad=("a", "b"),
    )


def _picked() -> None:
    for label, options, shape, index in [
        ("last", {}, (3, 4), (3,)),
        ("first", {"axis": 0}, (3, 4), (4,)),
        ("middle", {"axis": 1}, (2, 3, 4), (2, 4)),
        ("keepdims", {"axis": 1, "keepdims": True}, (2, 3, 4), (2, 1, 4)),
        ("keepdims_short_index", {"axis": -1, "keepdims": True}, (2, 3), (2,)),
        ("long_index", {"axis": 1}, (3, 4), (3, 1)),
        ("wrap", {"mode": "wrap"}, (3, 4), (3,)),
        ("vector", {"axis": 0, "keepdims": True}, (5,), (1,)),
    ]:
        _case("pick", label, options, {"data": shape, "index": index}, values={"index": below(6, -3)})
    _case("pick", "fractions", {}, {"data": (8, 4), "index": (8,)}, values={"index": fractions(5, -2)})
    _case(
        "pick",
        "int32",
        {},
        {"data": (3, 4), "index": (3,)},
        values={"index": below(4)},
        dtypes={"index": "int32"},
        no_grad=("index",),
    )
    _case("choose_element_0index", "", {}, {"data": (3, 4), "index": (3,)}, values={"index": below(4)})
    _case(
        "batch_take",
        "",
        {},
        {"a": (3, 4), "indices": (3,)},
        values={"indices": below(6, -1)},
        dtypes={"indices": "int32"},
        train=False,
    )
    for label, options, shape in [
        ("plain", {"depth": 3}, (4,)),
        ("matrix", {"depth": 2, "on_value": 8.5, "off_value": -1}, (2, 3)),
        ("int32", {"depth": 3, "on_value": 8, "off_value": 1, "dtype": "int32"}, (4,)),
        ("half", {"depth": 3, "dtype": "float16"}, (4,)),
    ]:
        _case(
            "one_hot",
            label,
            options,
            {"indices": shape},
            values={"indices": below(4, -1)},
            train="dtype" not in options,
        )
    _case("one_hot", "fractions", {"depth": 3}, {"indices": (9,)}, values={"indices": fractions(4, -1.5)})


def _scattered() -> None:
    for label, data, index, high in [
        ("elements", (3, 4), (2, 5), 3),
        ("rows", (3, 4), (1, 2, 3), 3),
        ("vector", (6,), (1, 4), 6),
        ("deep", (3, 3, 2), (2, 2, 2), 3),
    ]:
        _case("gather_nd", label, {}, {"data": data, "indices": index}, values={"indices": below(high)})
        shapes = {"data": (*index[1:], *data[index[0] :]), "indices": index}
        _case("_backward_gather_nd", label, {"shape": data}, shapes, values={"indices": below(high)})
    _case(  # MXNet 1.9.1 loses the gradient of negative indices.
        "gather_nd",
        "negative",
        {},
        {"data": (3, 4), "indices": (2, 5)},
        values={"indices": below(3, -3)},
        dtypes={"indices": "int64"},
        train=False,
    )
    apart = lambda rng, shape: [[0, 2, 1], [3, 0, 0]]  # noqa: E731  (no index twice: their order is open)
    _case(
        "scatter_nd",
        "elements",
        {"shape": (3, 4)},
        {"data": (3,), "indices": (2, 3)},
        values={"indices": apart},
    )
    _case(
        "scatter_nd",
        "rows",
        {"shape": (4, 2)},
        {"data": (3, 2), "indices": (1, 3)},
        values={"indices": lambda rng, shape: [[3, 0, 2]]},
    )
    CASES.add(
        "index_copy",
        lambda sym: op(sym, "_contrib_index_copy")(*map(sym.Variable, ("old", "index", "new")), name="y"),
        {"old": (4, 2), "index": (3,), "new": (3, 2)},
        values={"index": lambda rng, shape: [3, 0, 2]},
        dtypes={"index": "int32"},
        no_grad=("index",),
    )
    for shape in ((3, 4), (-1, 4)):
        _case(
            "ravel_multi_index",
            str(abs(shape[0])),
            {"shape": shape},
            {"data": (2, 5)},
            values={"data": below(3)},
        )
        _case(
            "unravel_index", str(abs(shape[0])), {"shape": shape}, {"data": (5,)}, values={"data": below(30)}
        )
    _case(
        "ravel_multi_index",
        "int64",
        {"shape": (3, 4, 5)},
        {"data": (3, 6)},
        values={"data": below(3)},
        dtypes={"data": "int64"},
        train=False,
    )
    _case(
        "unravel_index",
        "int32",
        {"shape": (3, 4, 5)},
        {"data": (6,)},
        values={"data": below(60)},
        dtypes={"data": "int32"},
        train=False,
    )


def _ordered() -> None:
    tied = {"data": below(4)}
    for ascending in (True, False):
        for axis in (-1, 0, 1):
            options = {"axis": axis, "is_ascend": ascending}
            label = f"{'up' if ascending else 'down'}_{axis % 3}"
            shapes = {"data": (3, 4, 5)}
            _case("sort", label, options, shapes, values={"data": distinct(60)})
            _case("argsort", label, options, shapes, values=tied)
        options = {"axis": None, "is_ascend": ascending}
        label = f"{'up' if ascending else 'down'}_flat"
        # MXNet 1.9.1 cannot take the gradient of a flat sort.
        _case("sort", label, options, {"data": (3, 4)}, values=tied, train=False)
        _case("argsort", label, options, {"data": (3, 4)}, values=tied)
        for ret_typ in ("indices", "value", "both", "mask"):
            for axis, k in [(-1, 2), (0, 1), (1, 3), (None, 4), (-1, 0)]:
                options = {"axis": axis, "k": k, "ret_typ": ret_typ, "is_ascend": ascending}
                _case(
                    "topk",
                    f"{ret_typ}_{axis}_{k}_{'up' if ascending else 'down'}".replace("-", "m"),
                    options,
                    {"data": (2, 3, 4)},
                    values={"data": distinct(24)},
                )
    _case("argsort", "int64", {"dtype": "int64"}, {"data": (2, 5)}, values=tied, train=False)
    _case("topk", "int32", {"dtype": "int32", "k": 2}, {"data": (2, 5)}, values=tied, train=False)
    _case("topk", "default", {}, {"data": (2, 5)}, values=tied)
    _case("topk", "tied", {"k": 3, "ret_typ": "both"}, {"data": (3, 6)}, values=tied)
    for dtype in ("uint8", "int32", "float64"):
        _case(
            "sort",
            dtype,
            {"is_ascend": False},
            {"data": (2, 5)},
            values={"data": below(9)},
            dtype=dtype,
            train=False,
        )


def _sequences() -> None:
    for axis in (0, 1):
        for shape in ((4, 3), (4, 3, 2), (4, 3, 2, 2)):
            lengths = {"data": shape, "length": (shape[1 - axis],)}
            label = f"{axis}_{len(shape)}"
            for name in ("SequenceMask", "SequenceLast", "SequenceReverse"):
                if name == "SequenceReverse" and axis == 1:
                    continue
                options = {"axis": axis} if name != "SequenceReverse" else {}
                value = {"value": -2.5} if name == "SequenceMask" else {}
                _case(name, label + "_whole", {**options, **value}, {"data": shape})
                _case(
                    name,
                    label,
                    {**options, **value, "use_sequence_length": True},
                    lengths,
                    values={"length": below(4, 1)},
                    no_grad=("length",),
                )
    for name in ("SequenceMask", "SequenceReverse"):
        _case(
            name,
            "fractions",
            {"use_sequence_length": True},
            {"data": (4, 3), "length": (3,)},
            values={"length": lambda rng, shape: [1.9, 0.0, 4.0]},
            no_grad=("length",),
        )
        _case(
            name,
            "half",
            {"use_sequence_length": True},
            {"data": (4, 3), "length": (3,)},
            values={"length": below(5)},
            no_grad=("length",),
            dtype="float16",
        )
    CASES.add(
        "sequence_mask_named",
        lambda sym: sym.SequenceMask(sym.Variable("data"), use_sequence_length=True, name="y"),
        {"data": (4, 3)},
        values={"y_sequence_length": below(4)},
        no_grad=("y_sequence_length",),
    )


def _counted() -> None:
    for dtype in ("float32", "float64", "int32"):
        CASES.add(
            "histogram_" + dtype,
            lambda sym: sym.histogram(sym.Variable("data"), 5, (0, 5), name="y"),
            {"data": (4, 5)},
            values={"data": below(7, -1)},
            dtype=dtype,
            train=False,
        )
    CASES.add(
        "histogram_edges",
        lambda sym: sym.histogram(sym.Variable("data"), sym.Variable("edges"), name="y"),
        {"data": (4, 5), "edges": (4,)},
        values={"data": fractions(5), "edges": lambda rng, shape: [0, 1.5, 2, 4.5]},
        train=False,
    )


for _add in (_looked_up, _picked, _scattered, _ordered, _sequences, _counted):
    _add()
