"""Small graphs that MXNet 1.9.1 and dmod both run: `make_fixtures.py` records MXNet's numbers, tests compare.

Runs under the oracle's Python too (3.8 or newer, NumPy 1.23), so it imports neither dmod nor MXNet: each
case is a function of the `sym` namespace. Inputs follow from the case's name alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A graph, the shapes of its inputs and how to run it."""

    build: Callable[[Any], Any]
    shapes: dict[str, tuple[int, ...]]
    train: bool = True
    classes: int = 0  # labels are whole numbers below this, -1 included; 0: labels like any other input
    scale: float = 1.0  # of the data
    grad_req: str = "write"
    head_grads: bool = True  # pass gradients of the outputs to backward
    dtype: str = "float32"
    atol: float = 2e-6  # of float32 results


CASES: dict[str, Case] = {}


def case(name: str, build: Callable[[Any], Any], **kwargs: Any) -> None:
    shapes = kwargs.pop("shapes", {"data": (4, 6)})
    CASES[name] = Case(build, shapes, **kwargs)


def _shared_weight(sym: Any) -> Any:
    weight, x = sym.Variable("w"), sym.Variable("data")
    for name in "ab":
        x = sym.FullyConnected(x, weight, num_hidden=6, no_bias=True, name=name)
    return x


def _fully_connected() -> None:
    for suffix, options, shape in [
        ("", {}, (4, 6)),
        ("_no_bias", {"no_bias": True}, (4, 6)),
        ("_flattens", {}, (3, 2, 4)),
        ("_flatten_false", {"flatten": False}, (3, 2, 4)),
        ("_flatten_false_no_bias", {"flatten": False, "no_bias": True}, (2, 3, 2, 4)),
        ("_one_row", {}, (1, 6)),
    ]:
        case(
            "fully_connected" + suffix,
            lambda sym, options=options: sym.FullyConnected(
                sym.Variable("data"), num_hidden=5, name="fc", **options
            ),
            shapes={"data": shape},
        )
    case(
        "fully_connected_float64",
        lambda sym: sym.FullyConnected(sym.Variable("data"), num_hidden=5, name="fc"),
        dtype="float64",
    )
    case("fully_connected_shared_weight", _shared_weight)
    case(
        "fully_connected_grad_add",
        lambda sym: sym.FullyConnected(sym.Variable("data"), num_hidden=5, name="fc"),
        grad_req="add",
    )


def _activation() -> None:
    for act_type in ("relu", "sigmoid", "tanh", "softrelu", "softsign"):
        for suffix, scale in (("", 1.0), ("_large", 60.0)):
            case(
                "activation_" + act_type + suffix,
                lambda sym, t=act_type: sym.Activation(sym.Variable("data"), act_type=t, name="act"),
                scale=scale,
                atol=5e-6 if act_type == "softrelu" else 2e-6,  # MXNet's never comes below 3.8e-6
            )


def _batch_norm() -> None:
    for suffix, options, shape in [
        ("", {}, (8, 3)),
        ("_scale", {"fix_gamma": False}, (8, 3)),
        ("_image", {"fix_gamma": False, "eps": 1e-5}, (4, 3, 2, 5)),
        ("_global_stats", {"fix_gamma": False, "use_global_stats": True}, (8, 3)),
        ("_momentum", {"fix_gamma": False, "momentum": 0.5, "eps": 0.1}, (8, 3)),
        ("_last_axis", {"fix_gamma": False, "axis": -1}, (4, 2, 5, 3)),
        ("_mean_var", {"fix_gamma": False, "output_mean_var": True}, (8, 3)),
    ]:
        for train in (True, False):
            case(
                "batch_norm" + suffix + ("" if train else "_inference"),
                lambda sym, options=options: sym.BatchNorm(sym.Variable("data"), name="bn", **options),
                shapes={"data": shape},
                train=train,
            )


def _shapes() -> None:
    case("flatten", lambda sym: sym.Flatten(sym.Variable("data"), name="flat"), shapes={"data": (2, 3, 4)})
    for code, shape in [
        ((4, 6), (2, 3, 4)),
        ((0, -1), (2, 3, 4)),
        ((-1,), (2, 3, 4)),
        ((-2,), (2, 3, 4)),
        ((-2, 1, 1), (2, 3, 4)),
        ((-3, 0), (2, 3, 4)),
        ((0, -3), (2, 3, 4)),
        ((-4, 1, 2, -2), (2, 3, 4)),
        ((0, -4, -1, 3, 0), (2, 6, 4)),
        ((-1, 0), (2, 3, 4)),
    ]:
        label = "_".join(str(n).replace("-", "m") for n in code)
        case(
            "reshape_" + label,
            lambda sym, code=code: sym.Reshape(sym.Variable("data"), shape=code, name="re"),
            shapes={"data": shape},
        )
    case(
        "reshape_reverse",
        lambda sym: sym.Reshape(sym.Variable("data"), shape=(-1, 0), reverse=True, name="re"),
        shapes={"data": (2, 3, 4)},
    )


def _dropout() -> None:
    drop = lambda sym, **options: sym.Dropout(sym.Variable("data"), name="drop", **options)  # noqa: E731
    case("dropout_inference", lambda sym: drop(sym, p=0.7), train=False)
    case("dropout_of_nothing", lambda sym: drop(sym, p=0.0))


def _softmax_output() -> None:
    def softmax(**options: Any) -> Callable[[Any], Any]:
        return lambda sym: sym.SoftmaxOutput(sym.Variable("data"), name="softmax", **options)

    rows = {"data": (6, 4), "softmax_label": (6,)}
    image = {"data": (3, 4, 2, 2), "softmax_label": (3, 2, 2)}
    image_flat = {"data": (3, 4, 2, 2), "softmax_label": (3, 4)}
    # No case has out_grad: with it MXNet 1.9.1 multiplies by its own output, not by the head gradient.
    kept = {"data": (3, 2, 4), "softmax_label": (3, 2)}
    plain: dict[str, Any] = {"classes": 4, "head_grads": False}
    case("softmax_output", softmax(), shapes=rows, **plain)
    case("softmax_output_inference", softmax(), shapes=rows, train=False, **plain)
    case("softmax_output_large", softmax(), shapes=rows, scale=200.0, **plain)
    case("softmax_output_flattens", softmax(), shapes=kept, **plain)
    case("softmax_output_flattens_batch", softmax(normalization="batch"), shapes=kept, **plain)
    case(
        "softmax_output_of_distributions",
        softmax(grad_scale=2.0),
        shapes={"data": (6, 4), "softmax_label": (6, 4)},
        head_grads=False,
    )
    case("softmax_output_odd_labels", softmax(), shapes=rows, **plain)
    case("softmax_output_smooth", softmax(smooth_alpha=0.1), shapes=rows, **plain)
    case(
        "softmax_output_smooth_ignore",
        softmax(smooth_alpha=0.1, use_ignore=True, normalization="valid"),
        shapes=rows,
        **plain,
    )
    case("softmax_output_float64", softmax(), shapes=rows, dtype="float64", **plain)
    for normalization in ("null", "batch", "valid"):
        for ignore in (None, -1, 2):
            options: dict[str, Any] = {"normalization": normalization, "grad_scale": 0.5}
            if ignore is not None:
                options.update(use_ignore=True, ignore_label=ignore)
            suffix = (
                "_" + normalization + ("" if ignore is None else "_ignore_" + str(ignore).replace("-", "m"))
            )
            case("softmax_output" + suffix, softmax(**options), shapes=rows, **plain)
            case(
                "softmax_output_multi" + suffix, softmax(multi_output=True, **options), shapes=image, **plain
            )
            case(
                "softmax_output_kept" + suffix, softmax(preserve_shape=True, **options), shapes=kept, **plain
            )
    case("softmax_output_multi_flat_label", softmax(multi_output=True), shapes=image_flat, **plain)


def _linear_regression_output() -> None:
    for suffix, options, shapes in [
        ("", {}, {"data": (6, 1), "lro_label": (6, 1)}),
        ("_vector", {}, {"data": (6, 3), "lro_label": (6, 3)}),
        ("_scaled", {"grad_scale": 3.0}, {"data": (6, 3), "lro_label": (6, 3)}),
        ("_flat_label", {}, {"data": (6, 1), "lro_label": (6,)}),
        ("_image", {"grad_scale": 0.5}, {"data": (2, 3, 4), "lro_label": (2, 3, 4)}),
    ]:
        case(
            "linear_regression_output" + suffix,
            lambda sym, options=options: sym.LinearRegressionOutput(
                sym.Variable("data"), name="lro", **options
            ),
            shapes=shapes,
            head_grads=False,
        )


def _arithmetic() -> None:
    two = {"a": (3, 4), "b": (3, 4)}
    binary: dict[str, Callable[[Any, Any], Any]] = {
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a / b,
        "power": lambda a, b: (a * a + 1) ** b,
        "modulo": lambda a, b: a % b,
        "reused_inputs": lambda a, b: a * a + a * b - a,
    }
    for name, f in binary.items():
        case("arithmetic_" + name, lambda sym, f=f: f(sym.Variable("a"), sym.Variable("b")), shapes=two)
    scalar: dict[str, Callable[[Any], Any]] = {
        "add_scalar": lambda a: a + 1.5,
        "add_scalar_left": lambda a: 1.5 + a,
        "subtract_scalar": lambda a: a - 1.5,
        "subtract_from_scalar": lambda a: 1.5 - a,
        "multiply_scalar": lambda a: a * -2.5,
        "divide_scalar": lambda a: a / 0.75,
        "divide_into_scalar": lambda a: 2.0 / a,
        "power_scalar": lambda a: a**3,
        "square_root": lambda a: (a * a + 0.5) ** 0.5,
        "modulo_scalar": lambda a: a % 0.7,
        "negative": lambda a: -a,
    }
    for name, g in scalar.items():
        case("arithmetic_" + name, lambda sym, g=g: g(sym.Variable("a")), shapes={"a": (3, 4)})
    case("arithmetic_variable_alone", lambda sym: sym.Variable("a"), shapes={"a": (3, 4)})


def mlp(sym: Any) -> Any:
    """A multilayer perceptron of every operator that takes part in training one, dropout at rest."""
    x = sym.Flatten(sym.Variable("data"), name="flat")
    x = sym.FullyConnected(x * 0.5 + 1, name="fc1", num_hidden=8)
    x = sym.BatchNorm(x, name="bn1", fix_gamma=False, momentum=0.9)
    x = sym.Activation(x, name="relu1", act_type="relu")
    x = sym.Dropout(x, name="drop1", p=0.0)
    y = sym.FullyConnected(sym.Reshape(x, shape=(0, -1), name="re1"), name="fc2", num_hidden=8, no_bias=True)
    x = sym.Activation(x + y, name="tanh1", act_type="tanh")
    x = sym.FullyConnected(x, name="fc3", num_hidden=4)
    return sym.SoftmaxOutput(x, name="softmax")


def two_heads(sym: Any) -> Any:
    """Two outputs over one trunk, with attributes on the variables."""
    data = sym.Variable("data", shape=(0, 6))
    weight = sym.Variable("fc1_weight", lr_mult=2.0, wd_mult=0.0)
    x = sym.Activation(
        sym.FullyConnected(data, weight=weight, name="fc1", num_hidden=8), act_type="sigmoid", name="s"
    )
    left = sym.SoftmaxOutput(sym.FullyConnected(x, name="left", num_hidden=4), name="softmax")
    right = sym.LinearRegressionOutput(
        sym.FullyConnected(x, name="right", num_hidden=1), name="lro", grad_scale=0.1
    )
    return sym.Group([left, right])


def _networks() -> None:
    shapes = {"data": (6, 2, 3), "softmax_label": (6,)}
    case("network_mlp", mlp, shapes=shapes, classes=4, head_grads=False)
    case("network_mlp_inference", mlp, shapes=shapes, classes=4, head_grads=False, train=False)
    case(
        "network_two_heads",
        two_heads,
        shapes={"data": (6, 6), "softmax_label": (6,), "lro_label": (6, 1)},
        classes=4,
        head_grads=False,
    )


for _add in (
    _fully_connected,
    _activation,
    _batch_norm,
    _shapes,
    _dropout,
    _softmax_output,
    _linear_regression_output,
    _arithmetic,
    _networks,
):
    _add()


def value(case_name: str, kind: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The input, auxiliary state or head gradient that a case is run with: the same on every machine."""
    this = CASES[case_name]
    rng = np.random.RandomState(zlib.crc32((case_name + "/" + kind + "/" + name).encode()))
    if name == "softmax_label" and this.classes:
        odd = "odd_labels" in case_name
        low = -1 if odd or "ignore_m1" in case_name or "smooth_ignore" in case_name else 0
        array = rng.randint(low, this.classes + 2 * odd, shape)
    elif name == "softmax_label":
        array = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    elif name.endswith("_moving_var"):
        array = rng.uniform(0.5, 2.0, shape)
    else:
        array = rng.standard_normal(shape) * (this.scale if name == "data" else 1.0)
    return np.asarray(array, this.dtype)


def run(mx: Any, case_name: str, net: Any = None) -> dict[str, np.ndarray]:
    """Run a case, or `net` in its stead, through an executor; the outputs, gradients and states by name."""
    this = CASES[case_name]
    net = this.build(mx.sym) if net is None else net
    names = net.list_arguments()
    executor = net.simple_bind(
        mx.cpu(), grad_req=this.grad_req, type_dict={n: np.dtype(this.dtype) for n in names}, **this.shapes
    )
    for kind, arrays in (("arg", executor.arg_dict), ("aux", executor.aux_dict)):
        for name, array in arrays.items():
            array[:] = value(case_name, kind, name, array.shape)
    found: dict[str, np.ndarray] = {}
    for _ in range(2 if this.grad_req == "add" else 1):
        outputs = executor.forward(is_train=this.train)
        found.update({"out/" + str(i): o.asnumpy() for i, o in enumerate(outputs)})
        if this.train:
            heads = [
                mx.nd.array(value(case_name, "head", str(i), o.shape), dtype=o.dtype)
                for i, o in enumerate(outputs)
            ]
            executor.backward(heads if this.head_grads else None)
    if this.train:
        found.update({"grad/" + n: g.asnumpy() for n, g in executor.grad_dict.items() if g is not None})
    found.update({"aux/" + n: a.asnumpy() for n, a in executor.aux_dict.items()})
    return found
