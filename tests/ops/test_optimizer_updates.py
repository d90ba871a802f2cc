"""Steps of optimizers as operators: MXNet's numbers, for the new weight and for the states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.device.standin import stand_in_gpus
from tests.oracle import cases_updates

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
NUMBERS = np.load(FIXTURES / "operators_updates.npz")
# What MXNet 1.9.1 computes otherwise than its documentation says, and dmod as documented.
MXNET_ERRS = [
    r".*adamw_update.*/in/[156]",  # leaves the gradients scaled
    r"mp_nag_mom_update_.*/in/2",  # decays the momentum by the weight after the step
    r"mp_lamb_update_phase2.*/in/4",  # leaves the master copy as it was
]


def run(op, inputs, attrs, ctx=None):
    """The outputs of an operator, and its inputs afterwards."""
    symbols = [mx.sym.Variable(f"i{k}") for k in range(len(inputs))]
    net = getattr(mx.sym, op)(*symbols, name="y", **attrs)
    args = {f"i{k}": mx.nd.array(a, ctx, a.dtype) for k, a in enumerate(inputs)}
    exe = net.bind(ctx or mx.cpu(), args)
    found = {f"out/{k}": o.asnumpy() for k, o in enumerate(exe.forward())}
    return {**found, **{f"in/{k}": args[f"i{k}"].asnumpy() for k in range(len(inputs))}}


@pytest.mark.parametrize("name", cases_updates.CASES)
def test_update_is_that_of_mxnet(name):
    case = cases_updates.CASES[name]
    found = run(case.op, cases_updates.arrays(name), case.attrs)
    for key, array in found.items():
        if any(re.fullmatch(pattern, f"{name}/{key}") for pattern in MXNET_ERRS):
            continue
        wanted = NUMBERS[f"{name}/{key}"]
        assert array.dtype == wanted.dtype, key
        tolerance = 1e-3 if array.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(array, wanted, tolerance, tolerance, err_msg=f"{name}/{key}")


@pytest.mark.parametrize("name", cases_updates.CASES)
def test_update_works_on_a_stand_in_gpu(name):
    case, inputs = cases_updates.CASES[name], cases_updates.arrays(name)
    wanted = run(case.op, inputs, case.attrs)
    with stand_in_gpus(1):
        found = run(case.op, inputs, case.attrs, mx.gpu(0))
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


def test_adagrad():
    weight, grad, history = np.random.RandomState(0).uniform(0.5, 1, (3, 2, 4))
    found = run("_sparse_adagrad_update", [weight, grad, history], {"lr": 0.1, "rescale_grad": 2.0})
    total = history + 4 * grad**2
    np.testing.assert_allclose(found["in/2"], total)
    np.testing.assert_allclose(found["out/0"], weight - 0.1 * 2 * grad / np.sqrt(total + 1e-7))


def test_group_adagrad_has_one_rate_per_row():
    weight, grad = np.random.RandomState(0).uniform(0.5, 1, (2, 3, 4))
    history = np.array([[0.1], [0.2], [0.3]])
    found = run("_contrib_group_adagrad_update", [weight, grad, history], {"lr": 0.1})
    total = history + (grad**2).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found["in/2"], total)
    np.testing.assert_allclose(found["out/0"], weight - 0.1 * grad / np.sqrt(total + 1e-5))


@pytest.mark.parametrize("scale", [0.0, np.inf, np.nan])
def test_adamw_skips_a_step_whose_scale_overflowed(scale):
    arrays = [np.ones((2,), np.float32) for _ in range(4)] + [np.array([scale], np.float32)]
    found = run("_adamw_update", arrays, {"lr": 0.1, "eta": 1.0})
    assert all((found[f"in/{k}"] == 1).all() for k in range(4))
    assert (found["out/0"] == 1).all()


def test_errors_name_node_argument_and_shapes():
    a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
    with pytest.raises(InvalidArgument, match=r"sgd_update 'y'.*grad.*\(2,\).*\(3,\)"):
        mx.sym.sgd_update(a, b, lr=0.1, name="y").infer_shape(a=(2,), b=(3,))
    with pytest.raises(InvalidArgument, match=r"'y'.*lrs has 2 numbers for 1 weights"):
        net = mx.sym.multi_sgd_update(a, b, lrs=(1, 2), wds=(1,), num_weights=1, name="y")
        net.infer_shape(a=(2,), b=(2,))
    with pytest.raises(InvalidArgument, match=r"needs lr"):
        mx.sym.sgd_update(a, b)
