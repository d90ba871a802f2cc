"""Steps of an optimizer over several weights at once: multi_sgd_update and the others, and multi_lars.

The inputs lie interleaved: weight, gradient and states of the first one, then those of the second.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.optimizer_updates import (
    BETAS,
    CLIP,
    MOMENTUM,
    RESCALE,
    adamw,
    lamb_direction,
    lamb_step,
    sgd,
    sgd_mom,
)
from dmod.ops.params import Param, boolean, integer, number, numbers, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register

_LRS = Param("lrs", numbers, doc="The learning rates.")
_WDS = Param("wds", numbers, doc="The weight decays.")
_NUM = Param("num_weights", integer, 1, "How many weights there are.")
_WIDE = np.dtype(np.float32)


class _Layout:
    """How the inputs of such an operator lie: `width` per weight, `shared` ones at the end.

    With `mp` the last one of each weight is its float32 master copy.
    """

    def __init__(self, count: str, width: int, shared: int, mp: bool, shared_shape: Any):
        self.count, self.width, self.shared, self.mp = count, width, shared, mp
        self.shared_shape = shared_shape  # of an input at the end, from the number of weights

    def number(self, attrs: Attrs) -> int:
        """How many weights there are."""
        return int(getattr(attrs, self.count))

    def arguments(self, attrs: Attrs) -> list[str]:
        """The names of the inputs."""
        return [f"data_{i}" for i in range(self.number(attrs) * self.width + self.shared)]

    def outputs(self, attrs: Attrs) -> list[str]:
        """The names of the outputs."""
        n = self.number(attrs)
        return ["output"] if n == 1 else [f"output{i}" for i in range(n)]

    def groups(self, items: Any) -> tuple[list[list[Any]], list[Any]]:
        """The inputs of each weight, and those at the end."""
        end = len(items) - self.shared
        return [list(items[i : i + self.width]) for i in range(0, end, self.width)], list(items[end:])

    def infer_shape(self, attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        """All arrays of a weight have its shape."""
        groups, shared = self.groups(inputs)
        filled: list[Any] = []
        weights = []
        for i, group in enumerate(groups):
            weight = outputs[i]
            for j, dims in enumerate(group):
                weight = merge_shapes(weight, dims, f"data_{i * self.width + j}")
            filled += [weight] * self.width
            weights.append(weight)
        ends = [self.shared_shape(len(groups)) if dims is None else dims for dims in shared]
        return [*filled, *ends], weights, []

    def infer_type(self, attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        """One dtype; with `mp`, states and master copies are float32."""
        groups, shared = self.groups(inputs)
        first = next((t for group in groups for t in group[:2] if t is not None), None)
        filled: list[Any] = []
        for group in groups:
            rest = _WIDE if self.mp else first
            filled += [t if t is not None else (first if j < 2 else rest) for j, t in enumerate(group)]
        ends = [t if t is not None else _WIDE for t in shared]
        return [*filled, *ends], [first] * len(groups), []


def _forward(layout: _Layout, formula: Any, attrs_of: Any) -> Any:
    """The builder of a step that applies ``formula(xp, attrs, weight, grad, *states)`` to each weight."""

    def build(call: Call) -> Step:
        xp, attrs = call.xp, call.attrs
        groups, shared = layout.groups(call.inputs)

        def run() -> None:
            values = attrs_of(attrs, shared)
            for i, (group, out) in enumerate(zip(groups, call.outputs, strict=True)):
                arrays = list(group)
                master = arrays.pop() if layout.mp else arrays[0]
                grad = arrays[1].astype(_WIDE) if layout.mp else arrays[1]
                new = formula(xp, values(i), master, grad, *arrays[2:])
                if layout.mp:
                    xp.copyto(master, new)
                xp.copyto(out, new, casting="same_kind")

        return run

    return build


def _from_params(attrs: Attrs, shared: list[Any]) -> Any:
    """The settings of weight i, from tuples among the parameters."""
    return lambda i: SimpleNamespace(**{**vars(attrs), "lr": attrs.lrs[i], "wd": attrs.wds[i]})


def _from_arrays(attrs: Attrs, shared: list[Any]) -> Any:
    """The settings of weight i, from the two arrays at the end of the inputs."""
    lrs, wds = ([float(x) for x in array] for array in shared)
    return lambda i: SimpleNamespace(**{**vars(attrs), "lr": lrs[i], "wd": wds[i]})


def _adamw_settings(attrs: Attrs, shared: list[Any]) -> Any:
    def settings(i: int) -> Attrs:
        own = {"lr": attrs.lrs[i], "wd": attrs.wds[i], "eta": attrs.etas[i], "rescale": shared[0]}
        return SimpleNamespace(**{**vars(attrs), **own})

    return settings


def _multi_adamw(xp: Any, attrs: Attrs, weight: Any, grad: Any, mean: Any, var: Any) -> Any:
    return adamw(xp, attrs, weight, grad, mean, var, attrs.rescale)


def _lamb_settings(attrs: Attrs, shared: list[Any]) -> Any:
    def settings(i: int) -> Attrs:
        own = {"lr": attrs.learning_rates[i], "wd": attrs.wds[i], "t": attrs.step_count[i]}
        return SimpleNamespace(**{**vars(attrs), **own})

    return settings


def _multi_lamb(xp: Any, attrs: Attrs, weight: Any, grad: Any, mean: Any, var: Any) -> Any:
    direction = lamb_direction(xp, attrs, weight, grad, mean, var)
    r1, r2 = xp.sqrt((weight * weight).sum()), xp.sqrt((direction * direction).sum())
    return lamb_step(xp, attrs, weight, direction, r1, r2)


def _register(
    name: str,
    formula: Any,
    width: int,
    params: list[Param],
    settings: Any,
    doc: str,
    *,
    shared: int = 0,
    mp: bool = False,
    shared_shape: Any = lambda n: (n,),
    count: str = "num_weights",
) -> None:
    layout = _Layout(count, width, shared, mp, shared_shape)

    def infer_shape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        for param in ("lrs", "wds", "etas", "learning_rates", "step_count"):
            given, n = getattr(attrs, param, None), layout.number(attrs)
            if given is not None and len(given) != n:
                raise InvalidArgument(f"{param} has {len(given)} numbers for {n} weights")
        return layout.infer_shape(attrs, inputs, outputs)

    register(
        name,
        params=params,
        arguments=layout.arguments,
        outputs=layout.outputs,
        num_visible=layout.number,
        variadic=count,
        infer_shape=infer_shape,
        infer_type=layout.infer_type,
        forward=_forward(layout, formula, settings),
        backward=None,
        doc=doc,
    )


for _mom in (False, True):
    for _mp in (False, True):
        _width = 2 + _mom + _mp
        _kind = f"{'mp_' if _mp else ''}sgd_{'mom_' if _mom else ''}update"
        _parts = ["weight", "gradient", *["momentum"] * _mom, *["weight32"] * _mp]
        _rest = [*[MOMENTUM] * _mom, RESCALE, CLIP, _NUM]
        _register(
            f"multi_{_kind}",
            sgd_mom if _mom else sgd,
            _width,
            [_LRS, _WDS, *_rest],
            _from_params,
            f"`{_kind}` of several weights; the inputs are {', '.join(_parts)} of each in turn.",
            mp=_mp,
        )
        _register(
            f"preloaded_multi_{_kind}",
            sgd_mom if _mom else sgd,
            _width,
            _rest,
            _from_arrays,
            f"`multi_{_kind}` with arrays of learning rates and weight decays as the last two inputs.",
            shared=2,
            mp=_mp,
        )

for _mp in (False, True):
    _register(
        f"_multi_{'mp_' if _mp else ''}adamw_update",
        _multi_adamw,
        4 + _mp,
        [
            _LRS,
            *BETAS,
            Param("epsilon", number, 1e-8, "What is added to a root, so that nothing is divided by 0."),
            _WDS,
            Param("etas", numbers, doc="Factors for the steps."),
            CLIP,
            _NUM,
        ],
        _adamw_settings,
        "AdamW of several weights; the last input is the factor for the gradients, of shape (1,).",
        shared=1,
        mp=_mp,
        shared_shape=lambda n: (1,),
    )
    _register(
        f"_multi_{'mp_' if _mp else ''}lamb_update",
        _multi_lamb,
        4 + _mp,
        [
            Param("learning_rates", numbers, doc="The learning rates."),
            *BETAS,
            Param("epsilon", number, 1e-6, "What is added to a root, so that nothing is divided by 0."),
            _WDS,
            RESCALE,
            Param("lower_bound", number, -1.0, "A lower limit for a weight's norm; none if not positive."),
            Param("upper_bound", number, -1.0, "An upper limit for a weight's norm; none if not positive."),
            CLIP,
            Param("bias_correction", boolean, True, "Whether the moments are corrected for their start."),
            Param("step_count", shape, doc="The number of each weight's update, from 1."),
            Param("num_tensors", integer, 1, "How many weights there are."),
        ],
        _lamb_settings,
        "LAMB of several weights (You et al., 2019).",
        mp=_mp,
        count="num_tensors",
    )


def _multi_lars(call: Call) -> Step:
    xp, attrs, (lrs, weights, grads, wds), (out,) = call.xp, call.attrs, call.inputs, call.outputs

    def run() -> None:
        weight, grad = xp.sqrt(weights), xp.sqrt(grads) * attrs.rescale_grad
        ratio = attrs.eta * weight / (grad + wds * weight + attrs.eps)
        xp.copyto(out, lrs * xp.where((weight > 0) & (grad > 0), ratio, 1), casting="same_kind")

    return run


register(
    "multi_lars",
    params=[
        Param("eta", number, doc="The trust coefficient."),
        Param("eps", number, doc="What is added to a divisor."),
        RESCALE,
    ],
    arguments=["lrs", "weights_sum_sq", "grads_sum_sq", "wds"],
    infer_shape=same_shape,
    forward=_multi_lars,
    backward=None,
    doc="""Learning rates after LARS (You et al., 2017), from sums of squares of weights and gradients.

All are of shape (n,), for n weights.""",
)
