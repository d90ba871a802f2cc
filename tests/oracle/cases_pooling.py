"""Pooling and Pooling_v1."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table

CASES = Table()


def _case(op: str, suffix: str, options: dict, shape: Any, **rest: Any) -> None:
    CASES.add(
        f"{op.lower()}_{suffix}",
        lambda sym: getattr(sym, op)(sym.Variable("data"), name="y", **options),
        {"data": shape},
        **rest,
    )


def few_values(rng: Any, shape: Any) -> Any:
    """Numbers among which there are equal ones in most windows."""
    return rng.randint(-3, 2, shape)


def positive(rng: Any, shape: Any) -> Any:
    return rng.uniform(0.5, 2, shape)


SHAPE = (2, 3, 7, 6)
WINDOWS: dict[str, dict] = {
    "halves": {"kernel": (2, 2), "stride": (2, 2)},
    "overlap": {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)},
    "dense": {"kernel": (3, 2)},
    "uneven": {"kernel": (3, 2), "stride": (1, 3), "pad": (2, 0)},
    "full": {"kernel": (3, 3), "stride": (2, 2), "pooling_convention": "full"},
    "full_padded": {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1), "pooling_convention": "full"},
    "sparse": {"kernel": (2, 1), "stride": (3, 2)},
    "global": {"global_pool": True},
    "global_ignores": {"kernel": (2, 2), "stride": (2, 2), "global_pool": True},
}

for _suffix, _window in WINDOWS.items():
    for _kind in ("max", "avg", "sum"):
        # In float32 the gradient of this average divides by another number than the average does.
        _dtype = "float64" if (_kind, _suffix) == ("avg", "full") else "float32"
        _case("Pooling", f"{_kind}_{_suffix}", {"pool_type": _kind, **_window}, SHAPE, dtype=_dtype)
        if _suffix != "global":
            _v1 = {"kernel": (2, 2), **_window}
            _case("Pooling_v1", f"{_kind}_{_suffix}", {"pool_type": _kind, **_v1}, SHAPE)
    _case("Pooling", "max_ties_" + _suffix, {**_window}, SHAPE, values={"data": few_values})

for _suffix in ("halves", "overlap", "global_ignores"):
    _case("Pooling_v1", "max_ties_" + _suffix, WINDOWS[_suffix], SHAPE, values={"data": few_values})

for _suffix in ("overlap", "uneven", "full_padded"):
    for _include in (True, False):
        _case(
            "Pooling",
            f"avg_{_suffix}_{'with' if _include else 'without'}_pad",
            {"pool_type": "avg", "count_include_pad": _include, **WINDOWS[_suffix]},
            SHAPE,
        )

for _p in (1, 2, 3):
    for _suffix in ("halves", "overlap", "full", "global_ignores"):
        _case(
            "Pooling",
            f"lp{_p}_{_suffix}",
            {"pool_type": "lp", "p_value": _p, **WINDOWS[_suffix]},
            SHAPE,
            values={"data": positive},
        )
_case("Pooling", "lp2_signed", {"pool_type": "lp", "p_value": 2, "kernel": (2, 2)}, SHAPE)
_case("Pooling", "lp3_signed", {"pool_type": "lp", "p_value": 3, "kernel": (2, 2)}, SHAPE, rtol=1e-4)
_case("Pooling", "lp1_signed", {"pool_type": "lp", "p_value": 1, "kernel": (2, 2)}, SHAPE)

for _kind in ("max", "avg"):
    _one_axis = {"kernel": (3,), "stride": (2,), "pad": (1,), "pool_type": _kind}
    _case("Pooling", _kind + "_1d", _one_axis, (2, 3, 9))
    _case("Pooling", _kind + "_1d_global", {"global_pool": True, "pool_type": _kind}, (2, 3, 9))
    _three = {"kernel": (2, 3, 2), "stride": (1, 2, 2), "pad": (1, 1, 0), "pool_type": _kind}
    _case("Pooling", _kind + "_3d", _three, (2, 3, 4, 5, 4))
    _case("Pooling", _kind + "_3d_global", {"global_pool": True, "pool_type": _kind}, (2, 3, 4, 5, 4))
    _last = {"kernel": (2, 2), "stride": (2, 1), "layout": "NHWC", "pool_type": _kind}
    _case("Pooling", _kind + "_nhwc", _last, (2, 5, 4, 3))
    _case("Pooling", _kind + "_nwc", {"kernel": (2,), "layout": "NWC", "pool_type": _kind}, (2, 5, 3))
    _half = {"kernel": (2, 2), "stride": (2, 2), "pool_type": _kind}
    _case("Pooling", _kind + "_float64", _half, SHAPE, dtype="float64")
    _case("Pooling", _kind + "_grad_add", _half, SHAPE, grad_req="add")
_case("Pooling", "max_float16", {"kernel": (2, 2), "stride": (2, 2)}, SHAPE, dtype="float16")
_case("Pooling", "max_nhwc_global", {"global_pool": True, "layout": "NHWC"}, (2, 5, 4, 3))
_case("Pooling", "max_inference", {"kernel": (2, 2)}, SHAPE, train=False)
