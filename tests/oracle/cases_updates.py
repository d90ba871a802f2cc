"""Steps of optimizers, which change some of their inputs. MXNet has them as functions of arrays only.

A case is (operator, shapes of the inputs, attributes, dtypes); all inputs are compared afterwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A call of one operator."""

    op: str
    shapes: list[tuple[int, ...]]
    attrs: dict[str, Any]
    dtypes: list[str]
    outputs: int
    kinds: str


CASES: dict[str, Case] = {}


def _add(op: str, kinds: str, suffix: str = "", outputs: int = 1, **attrs: Any) -> None:
    """`kinds` has a letter per input.

    w weight, h of float16, m its master copy, s state, 1 one element, n one element per weight.
    """
    shapes = {"1": (1,), "n": (outputs,)}
    CASES[op + suffix] = Case(
        op,
        [shapes.get(kind, (3, 4)) for kind in kinds],
        attrs,
        ["float16" if kind == "h" else "float32" for kind in kinds],
        outputs,
        kinds,
    )


def arrays(name: str) -> list[np.ndarray]:
    """The inputs, positive where a state has to be."""
    case = CASES[name]
    rng = np.random.RandomState(len(name))
    found = []
    for i, (shape, dtype) in enumerate(zip(case.shapes, case.dtypes)):  # noqa: B905  (Python 3.8)
        signed = i < 2 and shape == (3, 4)
        array = rng.standard_normal(shape) if signed else rng.uniform(0.3, 1.0, shape)
        if case.kinds[i] == "m":
            array = found[case.kinds.rindex("hh", 0, i)]
        found.append(np.asarray(array, dtype))
    return found


BOTH = {"rescale_grad": 2.0, "wd": 0.1}
for _suffix, _rest in (("", {}), ("_decayed", BOTH), ("_clipped", {**BOTH, "clip_gradient": 0.7})):
    _add("sgd_update", "ww", _suffix, lr=0.1, **_rest)
    _add("sgd_mom_update", "wws", _suffix, lr=0.1, momentum=0.9, **_rest)
    _add("mp_sgd_update", "hhm", _suffix, lr=0.1, **_rest)
    _add("mp_sgd_mom_update", "hhsm", _suffix, lr=0.1, momentum=0.9, **_rest)
    _add("nag_mom_update", "wws", _suffix, lr=0.1, momentum=0.9, **_rest)
    _add("mp_nag_mom_update", "hhsm", _suffix, lr=0.1, momentum=0.9, **_rest)
    _add("adam_update", "wwss", _suffix, lr=0.1, **_rest)
    _add("ftrl_update", "wwss", _suffix, lr=0.1, **_rest)
    _add("rmsprop_update", "wws", _suffix, lr=0.1, **_rest)
    _add("rmspropalex_update", "wwsss", _suffix, lr=0.01, epsilon=1.5, **_rest)
    _add("signsgd_update", "ww", _suffix, lr=0.1, **_rest)
    _add("signum_update", "wws", _suffix, lr=0.1, momentum=0.9, **_rest)
    _ftml = {("clip_grad" if k == "clip_gradient" else k): v for k, v in _rest.items()}
    _add("ftml_update", "wwsss", _suffix, lr=0.1, t=3, **_ftml)
    for _bias in (True, False):
        _lamb = {"wd": 0.0, **_rest, "t": 3, "bias_correction": _bias}
        _add("lamb_update_phase1", "wwss", f"{_suffix}_{_bias:d}", **_lamb)
        _add("mp_lamb_update_phase1", "hhssm", f"{_suffix}_{_bias:d}", **_lamb)
    _adamw = {k: v for k, v in _rest.items() if k != "rescale_grad"}
    _add("_adamw_update", "wwss1", _suffix, lr=0.1, eta=0.5, **_adamw)
    _add("_mp_adamw_update", "hhssm1", _suffix, lr=0.1, eta=0.5, **_adamw)
    _multi = {k: v for k, v in _rest.items() if k != "wd"}
    _lists = {"lrs": (0.1, 0.2), "wds": (0.1, 0.3), "num_weights": 2}
    _add("multi_sgd_update", "wwww", _suffix, 2, **_lists, **_multi)
    _add("multi_sgd_mom_update", "wwswws", _suffix, 2, momentum=0.9, **_lists, **_multi)
    _add("multi_mp_sgd_update", "hhmhhm", _suffix, 2, **_lists, **_multi)
    _add("multi_mp_sgd_mom_update", "hhsmhhsm", _suffix, 2, momentum=0.9, **_lists, **_multi)
    _two = {"num_weights": 2}
    _add("preloaded_multi_sgd_update", "wwwwnn", _suffix, 2, **_two, **_multi)
    _add("preloaded_multi_sgd_mom_update", "wwswwsnn", _suffix, 2, momentum=0.9, **_two, **_multi)
    _add("preloaded_multi_mp_sgd_update", "hhmhhmnn", _suffix, 2, **_two, **_multi)
    _add("preloaded_multi_mp_sgd_mom_update", "hhsmhhsmnn", _suffix, 2, momentum=0.9, **_two, **_multi)
    _clip = {k: v for k, v in _rest.items() if k == "clip_gradient"}
    _add("_multi_adamw_update", "wwsswwss1", _suffix, 2, etas=(0.5, 0.7), **_lists, **_clip)
    _add("_multi_mp_adamw_update", "hhssmhhssm1", _suffix, 2, etas=(0.5, 0.7), **_lists, **_clip)
    _lists = {"learning_rates": (0.1, 0.2), "wds": (0.1, 0.3), "num_tensors": 2, "step_count": (3, 4)}
    _add("_multi_lamb_update", "wwsswwss", _suffix, 2, **_lists, **_multi)
    _add("_multi_mp_lamb_update", "hhssmhhssm", _suffix, 2, **_lists, **_multi)
_add("sgd_mom_update", "wws", "_plain", lr=0.1)
_add("signum_update", "wws", "_wd_lh", lr=0.1, momentum=0.9, wd_lh=0.3)
_add("rmsprop_update", "wws", "_clip_weights", lr=0.1, clip_weights=0.4)
_add("rmspropalex_update", "wwsss", "_clip_weights", lr=0.1, epsilon=1.5, clip_weights=0.4)
for _suffix, _rest in (("", {}), ("_low", {"lower_bound": 2.0}), ("_high", {"upper_bound": 0.2})):
    _add("lamb_update_phase2", "ww11", _suffix, lr=0.1, **_rest)
    _add("mp_lamb_update_phase2", "hs11s", _suffix, lr=0.1, **_rest)
_add("multi_lars", "nnnn", "", 1, eta=0.5, eps=1e-3, rescale_grad=0.3)


def function(nd: Any, op: str) -> Any:
    """MXNet's function of arrays for an operator."""
    if op.startswith("_contrib_"):
        return getattr(nd.contrib, op.removeprefix("_contrib_"))
    return getattr(nd._internal if op.startswith("_") else nd, op)


def run_with_arrays(mx: Any, name: str) -> dict[str, np.ndarray]:
    """Call the function of arrays; the results, and the inputs as they are afterwards."""
    case = CASES[name]
    inputs = [mx.nd.array(a, dtype=a.dtype) for a in arrays(name)]
    given = case.outputs > 1
    outs = [mx.nd.zeros((3, 4), dtype=case.dtypes[0]) for _ in range(case.outputs)]
    result = function(mx.nd, case.op)(*inputs, **case.attrs, **({"out": outs} if given else {}))
    found = {f"out/{i}": o.asnumpy() for i, o in enumerate(outs if given else [result])}
    found.update({f"in/{i}": a.asnumpy() for i, a in enumerate(inputs)})
    return found
