"""Small functions of contrib, attention, and images as arrays."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table, op

CASES = Table()


def _add(name: str, suffix: str, inputs: dict, options: dict, **rest: Any) -> None:
    CASES.add(
        name.lstrip("_") + suffix,
        lambda sym: op(sym, name)(*[sym.Variable(n) for n in inputs], name="y", **options),
        inputs,
        **rest,
    )


def pixels(rng: Any, shape: Any) -> Any:
    return rng.randint(0, 256, shape)


def large(rng: Any, shape: Any) -> Any:
    return rng.uniform(-3, 3, shape)


_add("_contrib_div_sqrt_dim", "", {"a": (2, 3, 5)}, {})
_add("_contrib_gradientmultiplier", "", {"a": (2, 3)}, {"scalar": -0.5, "is_int": False})
_add("_contrib_quadratic", "", {"a": (2, 3)}, {"a": 0.5, "b": 2.0, "c": -1.0})
_add("_contrib_round_ste", "", {"a": (4, 5)}, {}, values={"a": large})
_add("_contrib_sign_ste", "", {"a": (4, 5)}, {}, values={"a": large})
for _i, _other in enumerate((1.0, 1 + 2e-6, 1.1)):
    _add(
        "_contrib_allclose",
        f"_{_i}",
        {"a": (2, 2), "b": (2, 2)},
        {},
        values={"a": lambda rng, shape: 1.0, "b": lambda rng, shape, other=_other: other},
        train=False,
    )
_PROJECTED: dict[str, Any] = {"dtype": "float32", "atol": 1e-5}
_add("_contrib_interleaved_matmul_selfatt_qk", "", {"a": (4, 2, 3 * 3 * 5)}, {"heads": 3}, **_PROJECTED)
_add(
    "_contrib_interleaved_matmul_selfatt_valatt",
    "",
    {"a": (4, 2, 3 * 3 * 5), "m": (6, 4, 4)},
    {"heads": 3},
    **_PROJECTED,
)
_add(
    "_contrib_interleaved_matmul_encdec_qk",
    "",
    {"a": (4, 2, 3 * 5), "b": (6, 2, 3 * 2 * 5)},
    {"heads": 3},
    **_PROJECTED,
)
_add(
    "_contrib_interleaved_matmul_encdec_valatt",
    "",
    {"a": (6, 2, 3 * 2 * 5), "m": (6, 4, 6)},
    {"heads": 3},
    **_PROJECTED,
)
for _shape in ((4, 5, 3), (2, 4, 5, 3)):
    _end = f"_{len(_shape)}"
    for _dtype in ("uint8", "float32"):
        _add(
            "_image_to_tensor",
            f"{_end}_{_dtype}",
            {"a": _shape},
            {},
            values={"a": pixels},
            dtypes={"a": _dtype},
            train=False,
        )
    _add(
        "_image_crop",
        _end,
        {"a": _shape},
        {"x": 1, "y": 2, "width": 3, "height": 2},
    )
    for _interp in (0, 1):
        for _j, _size in enumerate(((7, 6), (3, 3), (6,))):
            _add(
                "_image_resize",
                f"{_end}_{_interp}_{_j}",
                {"a": _shape},
                {"size": _size, "interp": _interp},
                train=False,
                atol=1e-5,
            )
    _add(
        "_image_resize",
        f"{_end}_ratio",
        {"a": _shape},
        {"size": 6, "keep_ratio": True},
        train=False,
        atol=1e-5,
    )
for _way in ("left_right", "top_bottom"):
    _add("_image_flip_" + _way, "", {"a": (4, 6, 3)}, {}, train=False)
_add("_image_normalize", "_3", {"a": (3, 4, 5)}, {"mean": (0, 1, 2), "std": (3, 2, 1)})
_add("_image_normalize", "_4", {"a": (2, 3, 4, 5)}, {"mean": (0.5,), "std": (2,)})
# A range of one factor leaves nothing to chance. MXNet's random_saturation takes only blue for gray, and
# its random_color_jitter writes nothing where all is 0: those are not compared.
for _name, _factor in (("brightness", 1.7), ("contrast", 0.4), ("hue", 0.3)):
    for _dtype in ("uint8", "float32"):
        if (_name, _dtype) != ("hue", "uint8"):
            _add(
                f"_image_random_{_name}",
                f"_{_dtype}",
                {"a": (4, 5, 3)},
                {"min_factor": _factor, "max_factor": _factor},
                values={"a": pixels},
                dtype=_dtype,
                train=False,
                atol=2e-3,
            )
for _dtype in ("uint8", "float32"):
    _add(
        "_image_adjust_lighting",
        f"_{_dtype}",
        {"a": (4, 5, 3)},
        {"alpha": (0.1, 0.2, -0.3)},
        values={"a": pixels},
        dtype=_dtype,
        train=False,
        atol=1e-4,
    )
