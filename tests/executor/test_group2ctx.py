"""Parts of a network on several devices: the same numbers, with copies where an edge crosses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.device import backend_of
from dmod.device.standin import stand_in_gpus


@pytest.fixture(autouse=True)
def gpus() -> Iterator[None]:
    with stand_in_gpus(2):
        yield


def net():
    """Two groups whose edges cross both ways; one result is read on both sides."""
    data = mx.sym.Variable("data")
    with mx.AttrScope(ctx_group="first"):
        one = mx.sym.FullyConnected(data, num_hidden=4, name="fc1")
        act = mx.sym.Activation(one, act_type="tanh")
    with mx.AttrScope(ctx_group="second"):
        two = mx.sym.FullyConnected(act, num_hidden=4, name="fc2") * act
    with mx.AttrScope(ctx_group="first"):
        return mx.sym.Group([mx.sym.Flatten(two + act), mx.sym.SoftmaxOutput(two, name="softmax")])


def run(ctx, group2ctx, grad_req="write"):
    exe = net().simple_bind(ctx, grad_req=grad_req, group2ctx=group2ctx, data=(3, 5))
    rng = np.random.RandomState(0)
    for array in exe.arg_arrays:
        array[:] = rng.randn(*array.shape)
    exe.arg_dict["softmax_label"][:] = [0, 1, 3]
    results = []
    for _ in range(2):
        outputs = exe.forward(is_train=True)
        exe.backward([mx.nd.array(np.ones((3, 4))), None])
        results.append([a.asnumpy() for a in (*outputs, *exe.grad_arrays)])
    return exe, results


@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_numbers_do_not_depend_on_the_placement(grad_req, without_numba):
    _, expected = run(mx.cpu(), None, grad_req)
    for groups in (
        {"first": mx.gpu(0), "second": mx.gpu(1)},
        {"first": mx.cpu(1), "second": mx.gpu(1)},
        {"second": mx.gpu(0)},
    ):
        _, found = run(mx.cpu(), groups, grad_req)
        for one, other in zip(expected, found, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_arrays_lie_where_their_group_is():
    exe, _ = run(mx.gpu(0), {"second": mx.gpu(1)})
    assert exe.arg_dict["fc1_weight"].context == mx.gpu(0)
    assert exe.arg_dict["fc2_weight"].context == exe.grad_dict["fc2_weight"].context == mx.gpu(1)
    assert backend_of(exe.outputs[1]._data).name == "gpu(0)"


def test_groups_need_contexts():
    with pytest.raises(InvalidArgument, match=r"group2ctx\['first'\]: expected a Context, got str"):
        net().simple_bind(mx.cpu(), group2ctx={"first": "gpu"}, data=(3, 5))
