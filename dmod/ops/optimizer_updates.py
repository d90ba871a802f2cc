"""One step of an optimizer as an operator: sgd_update, adam_update and the others.

The output is the new weight; states such as a momentum are inputs that the step changes in place. The
``mp_`` forms take weights and gradients of low precision, and keep the true weight in float32 as the
last input. (Modules update through `dmod.optimizer`, which works on flat buffers; these operators are
for scripts that call them.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register

__all__ = ["clipped", "rescaled"]

LR = Param("lr", number, doc="The learning rate.")
WD = Param("wd", number, 0.0, "Weight decay.")
RESCALE = Param("rescale_grad", number, 1.0, "A factor for the gradient.")
CLIP = Param("clip_gradient", number, -1.0, "Limit for the gradient's elements; none if not positive.")
MOMENTUM = Param("momentum", number, 0.0, "The share of the last step that is made again.")
LAZY = Param("lazy_update", boolean, True, "Whether rows without gradient stay as they are; for sparse ones.")
BETAS = [
    Param("beta1", number, 0.9, "The decay of the mean."),
    Param("beta2", number, 0.999, "The decay of the variance."),
]

Formula = Callable[..., Any]
"""``formula(xp, attrs, weight, grad, *states) -> new weight``; it changes the states in place."""


def clipped(xp: Any, grad: Any, limit: float) -> Any:
    """`grad`, limited to ``[-limit, limit]`` if limit is positive."""
    return xp.clip(grad, -limit, limit) if limit > 0 else grad


def rescaled(xp: Any, attrs: Attrs, grad: Any) -> Any:
    """The gradient times rescale_grad, clipped."""
    return clipped(xp, grad * grad.dtype.type(attrs.rescale_grad), attrs.clip_gradient)


def _decayed(xp: Any, attrs: Attrs, weight: Any, grad: Any) -> Any:
    """The rescaled gradient plus the weight decay, clipped together, as the adaptive optimizers have it."""
    return clipped(xp, grad * attrs.rescale_grad + attrs.wd * weight, attrs.clip_gradient)


def sgd(xp: Any, attrs: Attrs, weight: Any, grad: Any) -> Any:
    return weight - attrs.lr * (rescaled(xp, attrs, grad) + attrs.wd * weight)


def sgd_mom(xp: Any, attrs: Attrs, weight: Any, grad: Any, mom: Any) -> Any:
    mom[...] = attrs.momentum * mom - attrs.lr * (rescaled(xp, attrs, grad) + attrs.wd * weight)
    return weight + mom


def _nag_mom(xp: Any, attrs: Attrs, weight: Any, grad: Any, mom: Any) -> Any:
    step = attrs.lr * (rescaled(xp, attrs, grad) + attrs.wd * weight)
    mom[...] = attrs.momentum * mom - step
    return weight + attrs.momentum * mom - step


def _adam(xp: Any, attrs: Attrs, weight: Any, grad: Any, mean: Any, var: Any) -> Any:
    grad = _decayed(xp, attrs, weight, grad)
    mean[...] = attrs.beta1 * mean + (1 - attrs.beta1) * grad
    var[...] = attrs.beta2 * var + (1 - attrs.beta2) * grad * grad
    return weight - attrs.lr * mean / (xp.sqrt(var) + attrs.epsilon)


def _ftml(xp: Any, attrs: Attrs, weight: Any, grad: Any, d: Any, v: Any, z: Any) -> Any:
    grad = clipped(xp, grad * attrs.rescale_grad + attrs.wd * weight, attrs.clip_grad)
    v[...] = attrs.beta2 * v + (1 - attrs.beta2) * grad * grad
    new_d = (1 - attrs.beta1**attrs.t) / attrs.lr * (xp.sqrt(v / (1 - attrs.beta2**attrs.t)) + attrs.epsilon)
    z[...] = attrs.beta1 * z + (1 - attrs.beta1) * grad - (new_d - attrs.beta1 * d) * weight
    d[...] = new_d
    return -z / d


def _ftrl(xp: Any, attrs: Attrs, weight: Any, grad: Any, z: Any, n: Any) -> Any:
    grad = rescaled(xp, attrs, grad)
    total = n + grad * grad
    z[...] = z + grad - (xp.sqrt(total) - xp.sqrt(n)) * weight / attrs.lr
    n[...] = total
    scale = (attrs.beta + xp.sqrt(n)) / attrs.lr + attrs.wd
    return (xp.sign(z) * attrs.lamda1 - z) / scale * (xp.abs(z) > attrs.lamda1)


def _rmsprop(xp: Any, attrs: Attrs, weight: Any, grad: Any, n: Any) -> Any:
    grad = _decayed(xp, attrs, weight, grad)
    n[...] = (1 - attrs.gamma1) * grad * grad + attrs.gamma1 * n
    weight = weight - attrs.lr * grad / xp.sqrt(n + attrs.epsilon)
    return clipped(xp, weight, attrs.clip_weights)


def _rmspropalex(xp: Any, attrs: Attrs, weight: Any, grad: Any, n: Any, g: Any, delta: Any) -> Any:
    grad = _decayed(xp, attrs, weight, grad)
    n[...] = (1 - attrs.gamma1) * grad * grad + attrs.gamma1 * n
    g[...] = (1 - attrs.gamma1) * grad + attrs.gamma1 * g
    delta[...] = attrs.gamma2 * delta - attrs.lr * grad / xp.sqrt(n - g * g + attrs.epsilon)
    return clipped(xp, weight + delta, attrs.clip_weights)


def _signsgd(xp: Any, attrs: Attrs, weight: Any, grad: Any) -> Any:
    return (1 - attrs.lr * attrs.wd) * weight - attrs.lr * xp.sign(grad)


def _signum(xp: Any, attrs: Attrs, weight: Any, grad: Any, mom: Any) -> Any:
    grad = rescaled(xp, attrs, grad)
    mom[...] = attrs.momentum * mom - (1 - attrs.momentum) * (attrs.wd * weight + grad)
    return (1 - attrs.lr * attrs.wd_lh) * weight + attrs.lr * xp.sign(mom)


def lamb_direction(xp: Any, attrs: Attrs, weight: Any, grad: Any, mean: Any, var: Any) -> Any:
    """The direction of LAMB, before it is scaled by norms."""
    grad = rescaled(xp, attrs, grad)
    mean[...] = attrs.beta1 * mean + (1 - attrs.beta1) * grad
    var[...] = attrs.beta2 * var + (1 - attrs.beta2) * grad * grad
    mean_hat, var_hat = mean, var
    if attrs.bias_correction:
        mean_hat, var_hat = mean / (1 - attrs.beta1**attrs.t), var / (1 - attrs.beta2**attrs.t)
    return mean_hat / (xp.sqrt(var_hat) + attrs.epsilon) + attrs.wd * weight


def lamb_step(xp: Any, attrs: Attrs, weight: Any, g: Any, r1: Any, r2: Any) -> Any:
    """The new weight, for the norms r1 of the weight and r2 of the direction g."""
    if attrs.lower_bound > 0:
        r1 = xp.maximum(r1, attrs.lower_bound)
    if attrs.upper_bound > 0:
        r1 = xp.minimum(r1, attrs.upper_bound)
    ratio = xp.where((r1 == 0) | (r2 == 0), 1, r1 / r2).astype(weight.dtype)
    return weight - attrs.lr * ratio * g


def _adagrad(xp: Any, attrs: Attrs, weight: Any, grad: Any, history: Any) -> Any:
    if attrs.wd:
        raise InvalidArgument(f"adagrad_update: wd is {attrs.wd}, only 0 is supported")
    grad = rescaled(xp, attrs, grad)
    history[...] = history + grad * grad
    return weight - attrs.lr * grad / xp.sqrt(history + attrs.epsilon)


def _group_adagrad(xp: Any, attrs: Attrs, weight: Any, grad: Any, history: Any) -> Any:
    grad = rescaled(xp, attrs, grad)
    rows = (grad * grad).reshape(grad.shape[0], -1).mean(axis=1)
    history[...] = history + rows.reshape(history.shape)
    scale = xp.sqrt(history.reshape(-1, *[1] * (grad.ndim - 1)) + attrs.epsilon)
    return weight - attrs.lr * grad / scale


def adamw(xp: Any, attrs: Attrs, weight: Any, grad: Any, mean: Any, var: Any, rescale: Any) -> Any:
    """AdamW; a `rescale` that is 0 or not finite skips the step."""
    scale = float(rescale.reshape(-1)[0])
    if scale == 0 or not np.isfinite(scale):
        return weight
    grad = clipped(xp, grad * scale, attrs.clip_gradient)
    mean[...] = attrs.beta1 * mean + (1 - attrs.beta1) * grad
    var[...] = attrs.beta2 * var + (1 - attrs.beta2) * grad * grad
    return weight - attrs.eta * (attrs.lr * mean / (xp.sqrt(var) + attrs.epsilon) + attrs.wd * weight)


_ONE = ("r1", "r2", "rescale_grad")  # inputs of one element


def _infer(names: Sequence[str]) -> Any:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        weight = outputs[0]
        for name, dims in zip(names, inputs, strict=True):
            if name not in (*_ONE, "history"):
                weight = merge_shapes(weight, dims, name)
        filled = [
            dims if name in (*_ONE, "history") and dims is not None else ((1,) if name in _ONE else weight)
            for name, dims in zip(names, inputs, strict=True)
        ]
        return filled, [weight], []

    return infer


def _infer_type(names: Sequence[str], mp: bool, out_wide: bool) -> Any:
    wide = np.dtype(np.float32)

    def infer(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        weight = inputs[0]
        if not mp:
            return [t if t is not None else weight for t in inputs], [weight], []
        low = [t if t is not None else weight for t in inputs[:2]]
        return [*low, *[t if t is not None else wide for t in inputs[2:]]], [wide if out_wide else weight], []

    return infer


def _update(names: Sequence[str], formula: Formula, mp: bool, changes_master: bool) -> Callable[[Call], Step]:
    def forward(call: Call) -> Step:
        xp, attrs, (out,), arrays = call.xp, call.attrs, call.outputs, list(call.inputs)
        master = arrays.pop(names.index("weight32")) if mp else arrays[0]
        grad, states = arrays[1], arrays[2:]

        def run() -> None:
            first = grad.astype(np.float32) if mp else grad
            new = formula(xp, attrs, master, first, *states)
            if mp and changes_master:
                xp.copyto(master, new)
            xp.copyto(out, new, casting="same_kind")

        return run

    return forward


def _register(
    name: str,
    formula: Formula,
    inputs: Sequence[str],
    params: Sequence[Param],
    doc: str,
    *,
    mp: bool = False,
    out_wide: bool = False,
    aliases: Sequence[str] = (),
) -> None:
    register(
        name,
        aliases=aliases,
        params=params,
        arguments=list(inputs),
        infer_shape=_infer(inputs),
        infer_type=_infer_type(inputs, mp, out_wide),
        forward=_update(inputs, formula, mp, changes_master=not out_wide),
        backward=None,
        doc=doc,
    )


_SGD = [LR, WD, RESCALE, CLIP]
_SGD_MOM = [LR, MOMENTUM, WD, RESCALE, CLIP]
_PLAIN = ("weight", "grad")

_register(
    "sgd_update",
    sgd,
    _PLAIN,
    [*_SGD, LAZY],
    "``weight - lr * (grad + wd * weight)``.",
    aliases=["_sparse_sgd_update"],
)
_register(
    "sgd_mom_update",
    sgd_mom,
    (*_PLAIN, "mom"),
    [*_SGD_MOM, LAZY],
    "``mom = momentum * mom - lr * (grad + wd * weight)``; the new weight is ``weight + mom``.",
    aliases=["_sparse_sgd_mom_update"],
)
_register(
    "mp_sgd_update",
    sgd,
    (*_PLAIN, "weight32"),
    [*_SGD, LAZY],
    "`sgd_update` of a weight of low precision with its master copy weight32.",
    mp=True,
)
_register(
    "mp_sgd_mom_update",
    sgd_mom,
    (*_PLAIN, "mom", "weight32"),
    [*_SGD_MOM, LAZY],
    "`sgd_mom_update` of a weight of low precision with its master copy weight32.",
    mp=True,
)
_register(
    "nag_mom_update",
    _nag_mom,
    (*_PLAIN, "mom"),
    _SGD_MOM,
    "Nesterov's accelerated gradient: the momentum's next step is taken ahead.",
)
_register(
    "mp_nag_mom_update",
    _nag_mom,
    (*_PLAIN, "mom", "weight32"),
    _SGD_MOM,
    "`nag_mom_update` of a weight of low precision with its master copy weight32.",
    mp=True,
)
_EPSILON = Param("epsilon", number, 1e-8, "What is added to a root, so that nothing is divided by 0.")
_register(
    "adam_update",
    _adam,
    (*_PLAIN, "mean", "var"),
    [LR, *BETAS, _EPSILON, WD, RESCALE, CLIP, LAZY],
    "Adam (Kingma and Ba, 2014) without bias correction, which belongs into lr.",
    aliases=["_sparse_adam_update"],
)
_register(
    "ftml_update",
    _ftml,
    (*_PLAIN, "d", "v", "z"),
    [
        LR,
        Param("beta1", number, 0.6, "The decay of the direction."),
        Param("beta2", number, 0.999, "The decay of the variance."),
        _EPSILON,
        Param("t", integer, doc="The number of this update, from 1."),
        WD,
        RESCALE,
        Param("clip_grad", number, -1.0, "Limit for the gradient's elements; none if not positive."),
    ],
    "Follow the moving leader (Zheng and Kwok, 2017).",
)
_register(
    "ftrl_update",
    _ftrl,
    (*_PLAIN, "z", "n"),
    [
        LR,
        Param("lamda1", number, 0.01, "The weight of the L1 norm."),
        Param("beta", number, 1.0, "What is added to the root of n."),
        WD,
        RESCALE,
        CLIP,
    ],
    "Follow the regularised leader (McMahan et al., 2013).",
    aliases=["_sparse_ftrl_update"],
)
_CLIP_WEIGHTS = Param("clip_weights", number, -1.0, "Limit for the weight's elements; none if not positive.")
_register(
    "rmsprop_update",
    _rmsprop,
    (*_PLAIN, "n"),
    [LR, Param("gamma1", number, 0.95, "The decay of n."), _EPSILON, WD, RESCALE, CLIP, _CLIP_WEIGHTS],
    "RMSProp (Tieleman and Hinton, 2012).",
)
_register(
    "rmspropalex_update",
    _rmspropalex,
    (*_PLAIN, "n", "g", "delta"),
    [
        LR,
        Param("gamma1", number, 0.95, "The decay of n and g."),
        Param("gamma2", number, 0.9, "The decay of delta."),
        _EPSILON,
        WD,
        RESCALE,
        CLIP,
        _CLIP_WEIGHTS,
    ],
    "RMSProp centred, with a momentum (Graves, 2013).",
)
_register(
    "signsgd_update",
    _signsgd,
    _PLAIN,
    _SGD,
    "A step of length lr against the sign of each element of the gradient.",
)
_register(
    "signum_update",
    _signum,
    (*_PLAIN, "mom"),
    [*_SGD_MOM, Param("wd_lh", number, 0.0, "Weight decay that does not go into the momentum.")],
    "A step of length lr along the sign of each element of the momentum.",
)
_LAMB = [
    *BETAS,
    Param("epsilon", number, 1e-6, "What is added to a root, so that nothing is divided by 0."),
    Param("t", integer, doc="The number of this update, from 1."),
    Param("bias_correction", boolean, True, "Whether mean and var are corrected for their start at 0."),
    Param("wd", number, doc="Weight decay."),
    RESCALE,
    CLIP,
]
_LAMB2 = [
    LR,
    Param("lower_bound", number, -1.0, "A lower limit for r1; none if not positive."),
    Param("upper_bound", number, -1.0, "An upper limit for r1; none if not positive."),
]
_register(
    "lamb_update_phase1",
    lamb_direction,
    (*_PLAIN, "mean", "var"),
    _LAMB,
    "The direction g of LAMB (You et al., 2019); `lamb_update_phase2` scales and applies it.",
)
_register(
    "lamb_update_phase2",
    lamb_step,
    ("weight", "g", "r1", "r2"),
    _LAMB2,
    "``weight - lr * r1 / r2 * g``, for the norms r1 of weight and r2 of g, both of shape (1,).",
)
_register(
    "mp_lamb_update_phase1",
    lamb_direction,
    (*_PLAIN, "mean", "var", "weight32"),
    _LAMB,
    "`lamb_update_phase1` of a weight of low precision with its master copy; g is float32.",
    mp=True,
    out_wide=True,
)
_register(
    "mp_lamb_update_phase2",
    lamb_step,
    ("weight", "g", "r1", "r2", "weight32"),
    _LAMB2,
    "`lamb_update_phase2` of a weight of low precision with its master copy weight32.",
    mp=True,
)
_ADAMW = [
    LR,
    *BETAS,
    _EPSILON,
    WD,
    Param("eta", number, doc="A factor for the whole step."),
    CLIP,
]
_register(
    "_adamw_update",
    adamw,
    (*_PLAIN, "mean", "var", "rescale_grad"),
    _ADAMW,
    "AdamW (Loshchilov and Hutter, 2017). rescale_grad is an input; 0 or not-a-number skips the step.",
)
_register(
    "_mp_adamw_update",
    adamw,
    (*_PLAIN, "mean", "var", "weight32", "rescale_grad"),
    _ADAMW,
    "`_adamw_update` of a weight of low precision with its master copy weight32.",
    mp=True,
)
_register(
    "_sparse_adagrad_update",
    _adagrad,
    (*_PLAIN, "history"),
    [LR, Param("epsilon", number, 1e-7, "What is added to the history."), WD, RESCALE, CLIP],
    "AdaGrad (Duchi et al., 2011).",
)
_register(
    "_contrib_group_adagrad_update",
    _group_adagrad,
    (*_PLAIN, "history"),
    [LR, RESCALE, CLIP, Param("epsilon", number, 1e-5, "What is added to the history.")],
    "AdaGrad with one rate per row of the weight: history has one element per row.",
)
