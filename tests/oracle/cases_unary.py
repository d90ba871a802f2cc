"""Functions of one array, casts, blocked gradients and losses made of anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.family import Table, Values

CASES = Table()
SHAPE = (3, 5)


def op(sym: Any, name: str) -> Any:
    """An operator's function; MXNet has those with an underscore in a place of their own."""
    return getattr(sym if not name.startswith("_") else getattr(sym, "_internal", sym), name)


def uniform(low: float, high: float) -> Values:
    return lambda rng, shape: rng.uniform(low, high, shape)


def integers(low: int, high: int) -> Values:
    return lambda rng, shape: rng.randint(low, high, shape)


def exactly(*values: float) -> Values:
    return lambda rng, shape: np.array(values).reshape(shape)


ODD = (-2.5, -1.5, -1, -0.5, -0.0, 0, 0.5, 1, 1.5, 2.5, np.inf, -np.inf)
ODD_NUMBERS = exactly(*ODD, np.nan)

# The interval on which a function is smooth, and whether its odd points are compared.
UNARY: dict[str, tuple[float, float]] = {
    "abs": (-2, 2),
    "arccos": (-0.9, 0.9),
    "arccosh": (1.1, 4),
    "arcsin": (-0.9, 0.9),
    "arcsinh": (-3, 3),
    "arctan": (-3, 3),
    "arctanh": (-0.9, 0.9),
    "cbrt": (0.1, 3),
    "ceil": (-3, 3),
    "cos": (-4, 4),
    "cosh": (-3, 3),
    "degrees": (-4, 4),
    "erf": (-2.5, 2.5),
    "erfinv": (-0.95, 0.95),
    "exp": (-4, 4),
    "expm1": (-2, 2),
    "fix": (-3, 3),
    "floor": (-3, 3),
    "gamma": (0.2, 5),
    "gammaln": (0.2, 9),
    "identity": (-2, 2),
    "log": (0.1, 5),
    "log10": (0.1, 5),
    "log1p": (-0.8, 3),
    "log2": (0.1, 5),
    "logical_not": (-1, 1),
    "negative": (-2, 2),
    "ones_like": (-2, 2),
    "radians": (-200, 200),
    "rcbrt": (0.1, 3),
    "reciprocal": (0.2, 4),
    "relu": (-2, 2),
    "rint": (-3, 3),
    "round": (-3, 3),
    "rsqrt": (0.1, 4),
    "sigmoid": (-5, 5),
    "sign": (-1, 1),
    "sin": (-4, 4),
    "sinh": (-3, 3),
    "softsign": (-5, 5),
    "sqrt": (0.1, 4),
    "square": (-3, 3),
    "tan": (-1.3, 1.3),
    "tanh": (-3, 3),
    "trunc": (-3, 3),
    "zeros_like": (-2, 2),
    "BlockGrad": (-2, 2),
    "stop_gradient": (-2, 2),
    "hard_sigmoid": (-4, 4),
    "smooth_l1": (-2, 2),
}
SPECIAL = ("gamma", "gammaln", "erfinv")
# Odd points at which MXNet's own value has no reason: digamma's and Cody's poles, and NaN in others.
PLAIN_ONLY = (*SPECIAL, "relu", "smooth_l1", "softsign")
# In float64 too, MXNet has constants of these in float32.
ROUGH = ("degrees", "radians", "erf", "hard_sigmoid")
WHOLE = (
    *("abs", "ceil", "fix", "floor", "identity", "logical_not", "negative", "ones_like", "relu", "rint"),
    *("round", "sign", "square", "trunc", "zeros_like", "BlockGrad", "tan"),
)
HALF = (
    "abs",
    "exp",
    "gamma",
    "identity",
    "log",
    "relu",
    "rint",
    "rsqrt",
    "sigmoid",
    "sqrt",
    "square",
    "tanh",
)
TO_INTEGERS = ("arctan", "cbrt", "cosh", "degrees", "exp", "log1p", "sigmoid", "sin", "sqrt", "tanh", "erf")


def _unary() -> None:
    for name, (low, high) in UNARY.items():

        def build(sym: Any, name: str = name) -> Any:
            return op(sym, name)(sym.Variable("data"))

        rtol = 5e-5 if name in SPECIAL else 0.0
        CASES.add(name, build, {"data": SHAPE}, values={"data": uniform(low, high)}, rtol=rtol)
        if name not in SPECIAL:  # which MXNet computes in float32 only, by series of its own
            CASES.add(
                name + "_float64",
                build,
                {"data": SHAPE},
                values={"data": uniform(low, high)},
                dtype="float64",
                rtol=2e-7 if name in ROUGH else 0.0,
            )
        if name in HALF:
            CASES.add(
                name + "_float16",
                build,
                {"data": SHAPE},
                values={"data": uniform(low, high)},
                dtype="float16",
            )
        if name not in PLAIN_ONLY:
            CASES.add(name + "_odd", build, {"data": (13,)}, values={"data": ODD_NUMBERS})
        if name in WHOLE + TO_INTEGERS:
            CASES.add(
                name + "_int32",
                build,
                {"data": SHAPE},
                values={"data": integers(0, 5)},
                dtype="int32",
                train=name in WHOLE,
            )
    CASES.add(
        "square_grad_add",
        lambda sym: sym.square(sym.Variable("data")),
        {"data": SHAPE},
        grad_req="add",
    )
    CASES.add(
        "exp_of_a_chain",
        lambda sym: sym.exp(sym.log(sym.abs(sym.identity(sym.sqrt(sym.Variable("data")))) + 1)) * 2,
        {"data": SHAPE},
        values={"data": uniform(0.1, 4)},
    )


def _with_parameters() -> None:
    for label, name, options, heads in [
        ("clip_inside", "clip", {"a_min": -0.5, "a_max": 1.0}, True),
        ("clip_crossed", "clip", {"a_min": 1.0, "a_max": -0.5}, True),
        ("hard_sigmoid_steep", "hard_sigmoid", {"alpha": 0.7, "beta": 0.1}, True),
        ("smooth_l1_2", "smooth_l1", {"scalar": 2.0}, True),
        ("smooth_l1_half", "smooth_l1", {"scalar": 0.5}, True),
        ("make_loss", "make_loss", {}, False),
        ("MakeLoss", "MakeLoss", {}, False),
        ("MakeLoss_batch", "MakeLoss", {"grad_scale": 2.0, "normalization": "batch"}, False),
        (
            "MakeLoss_valid",
            "MakeLoss",
            {"grad_scale": 2.0, "normalization": "valid", "valid_thresh": 0.2},
            False,
        ),
        ("MakeLoss_none_valid", "MakeLoss", {"normalization": "valid", "valid_thresh": 99.0}, False),
        ("sparse_reg", "IdentityAttachKLSparseReg", {"penalty": 0.1, "sparseness_target": 0.2}, True),
        ("cast_float64", "Cast", {"dtype": "float64"}, True),
        ("cast_float16", "cast", {"dtype": "float16"}, True),
        ("cast_int32", "Cast", {"dtype": "int32"}, True),
        ("amp_cast_float16", "amp_cast", {"dtype": "float16"}, True),
    ]:
        CASES.add(
            label,
            lambda sym, name=name, options=options: getattr(sym, name)(
                data=sym.Variable("data"), name="y", **options
            ),
            {"data": SHAPE},
            values={"y_moving_avg": uniform(0.2, 0.8), "data": uniform(-2, 2)},
            heads=heads,
            rtol=1e-3 if "float16" in label else 0.0,
        )
    CASES.add(
        "clip_edges",
        lambda sym: sym.clip(sym.Variable("data"), a_min=-1.5, a_max=2),
        {"data": (7,)},
        values={"data": exactly(-2, -1.5, 0, 2, 3, np.nan, np.inf)},
    )
    CASES.add(
        "clip_int32",
        lambda sym: sym.clip(sym.Variable("data"), a_min=-1.5, a_max=2.5),
        {"data": SHAPE},
        values={"data": integers(-5, 5)},
        dtype="int32",
    )
    CASES.add(
        "smooth_l1_edges",
        lambda sym: sym.smooth_l1(sym.Variable("data"), scalar=2),
        {"data": (5,)},
        values={"data": exactly(-0.25, 0.25, 0, 3, -3)},
    )
    CASES.add(
        "amp_cast_int32",
        lambda sym: sym.amp_cast(sym.Variable("data"), dtype="float16"),
        {"data": SHAPE},
        dtype="int32",
        values={"data": integers(-5, 5)},
    )
    CASES.add(
        "make_loss_below_more",
        lambda sym: sym.make_loss(sym.square(sym.Variable("data"))) * 3,
        {"data": SHAPE},
    )


for _add in (_unary, _with_parameters):
    _add()
