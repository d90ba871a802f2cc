"""Operators on arrays: out=, states in place, random draws, devices, and what is refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError
from dmod.device.standin import stand_in_gpus
from dmod.ops import OPERATORS
from dmod.ops.calling import FLUENT

nd = mx.nd


def test_every_operator_has_a_function_with_its_signature():
    for name, op in OPERATORS.items():
        function = getattr(nd, name)
        parameters = inspect.signature(function).parameters
        assert {p.name for p in op.params} - {"sections", "indices"} <= set(parameters) or name in (
            "cast_storage",
            "split_v2",
            "histogram",
        ), name
        assert function.__name__ == name or name in nd.__all__ or name.startswith("_")
        assert function.__doc__, name


def test_every_fluent_name_is_a_method_that_calls_the_operator():
    x = nd.array([[1, 4], [9, 16]])
    assert x.sqrt().asnumpy().tolist() == [[1, 2], [3, 4]]
    assert x.sum(axis=1, keepdims=True).shape == (2, 1) and x.max().asscalar() == 16
    assert x.slice_axis(axis=1, begin=1, end=None).asnumpy().tolist() == [[4], [16]]
    assert x.clip(2, 10).asnumpy().tolist() == [[2, 4], [9, 10]] and x.softmax(axis=0).shape == (2, 2)
    assert x.one_hot(3).shape == (2, 2, 3) and x.take(nd.array([1])).shape == (1, 2)
    assert [part.shape for part in x.split(2, axis=1)] == [(2, 1)] * 2 and x.tile((2, 1)).shape == (4, 2)
    assert x.broadcast_like(nd.ones((2, 2))).shape == (2, 2) and x.diag().asnumpy().tolist() == [1, 16]
    assert all(callable(getattr(nd.NDArray, name)) and getattr(nd.NDArray, name).__doc__ for name in FLUENT)


def test_results_go_to_out():
    x = nd.array([[1, 2], [3, 4]])
    out = nd.zeros((2, 2))
    assert nd.square(x, out=out) is out and out.asnumpy().tolist() == [[1, 4], [9, 16]]
    assert nd.dot(x, x, out=x) is x and x.asnumpy().tolist() == [[7, 10], [15, 22]]  # read before written
    column = nd.zeros((2, 3))
    view = nd.NDArray(column._data[:, 1:], mx.cpu())  # not one block of memory
    nd.square(out, out=view)
    assert column.asnumpy().tolist() == [[0, 1, 16], [0, 81, 256]]
    mean, var = nd.zeros((2,)), nd.zeros((2,))
    assert nd.moments(out, axes=(1,), out=[mean, var])[0] is mean and mean.asnumpy().tolist() == [2.5, 12.5]
    with pytest.raises(InvalidArgument, match=r"square: output: expected \(2, 2\), got \(3,\)"):
        nd.square(x, out=nd.zeros((3,)))
    with pytest.raises(InvalidArgument, match="out has dtype int32, expected float32"):
        nd.square(x, out=nd.zeros((2, 2), dtype="int32"))
    with pytest.raises(InvalidArgument, match="out has 2 arrays, there are 1 outputs"):
        nd.square(x, out=[out, out])


def test_states_are_updated_in_place():
    weight, grad, momentum = nd.ones((3,)), nd.full((3,), 2), nd.zeros((3,))
    nd.sgd_mom_update(weight, grad, momentum, lr=0.5, momentum=0.9, out=weight)
    assert weight.asnumpy().tolist() == [0, 0, 0] and momentum.asnumpy().tolist() == [-1, -1, -1]
    states = nd.NDArray(np.ones((3, 2), "f")[:, 0], mx.cpu())  # a state that is no block of memory
    nd.sgd_mom_update(weight, grad, states, lr=1, momentum=1, out=weight)
    assert states.asnumpy().tolist() == [-1, -1, -1]


def test_inputs_by_name_and_position():
    data, weight, bias = nd.ones((2, 3)), nd.ones((4, 3)), nd.ones((4,))
    wanted = [[4.0] * 4] * 2
    assert nd.FullyConnected(data, weight, bias, num_hidden=4).asnumpy().tolist() == wanted
    assert nd.FullyConnected(data=data, bias=bias, weight=weight, num_hidden=4).asnumpy().tolist() == wanted
    assert nd.FullyConnected(data, weight, num_hidden=4, no_bias=True).asnumpy().tolist() == [[3.0] * 4] * 2
    assert nd.concat(data, data, dim=1).shape == (2, 6) and nd.concat([data, data], dim=0).shape == (4, 3)
    assert nd.add_n(data, data, data).asnumpy().tolist() == [[3.0] * 3] * 2
    assert nd.BatchNorm(data, bias[:3], bias[:3], nd.zeros((3,)), nd.ones((3,))).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nd.FullyConnected(nd.ones((2, 3)), num_hidden=4), "input 'weight' is missing"),
        (lambda: nd.FullyConnected(nd.ones((2, 3)), nd.ones((4, 5)), num_hidden=4, no_bias=True), "weight"),
        (
            lambda: nd.FullyConnected(nd.ones((2, 3)), waight=nd.ones((4, 3)), num_hidden=4),
            "no input 'waight'",
        ),
        (lambda: nd.square(nd.ones((2,)), axis=1), "no parameter 'axis'"),
        (lambda: nd.sum(nd.ones((2,)), axis="x"), "axis"),
        (lambda: nd.Activation(nd.ones((2,)), act_type="rulu"), "did you mean 'relu'"),
        (lambda: nd.Activation(nd.ones((2,))), "needs act_type"),
        (lambda: nd.concat(nd.ones((2,)), data=nd.ones((2,))), "by position or by name"),
        (lambda: nd.random_uniform(shape=(2,), ctx="cpu(x)"), "expected a context"),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises((InvalidArgument, TypeError), match=words):
        call()


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="square: data needs an NDArray, got list"):
        nd.square([1, 2])
    with pytest.raises(TypeError, match="positional arguments"):
        nd.square(nd.ones((1,)), 1, 2, 3)


def test_random_draws_follow_the_seed_and_only_draws_move_on():
    def draw(between):
        mx.random.seed(5)
        first = nd.random_uniform(shape=(4,)).asnumpy()
        if between:
            nd.square(nd.ones((3,)))
        return first, nd.random_normal(shape=(4,)).asnumpy()

    first, second = draw(False)
    again, after = draw(True)
    assert np.array_equal(first, again) and np.array_equal(second, after)
    assert not np.array_equal(first, nd.random_uniform(shape=(4,)).asnumpy())
    out = nd.zeros((2, 3), dtype="float64")
    assert nd.random_uniform(out=out) is out and (out.asnumpy() > 0).all()
    shuffled = nd.random.shuffle(nd.arange(50)).asnumpy()
    assert sorted(shuffled) == list(range(50)) and nd.random.uniform_like(nd.ones((2, 2))).shape == (2, 2)


def test_namespaces_mirror_the_table():
    x = nd.array([[2, 0], [0, 2]])
    assert nd.linalg.gemm2(x, x).asnumpy().tolist() == [[4, 0], [0, 4]]
    assert nd.linalg.gemm2 is not nd.linalg_gemm2 and nd.op.dot(x, x).shape == (2, 2)
    assert nd._internal._plus_scalar(x, scalar=1).asnumpy().tolist() == [[3, 1], [1, 3]]
    assert nd._plus_scalar(x, scalar=1).shape == (2, 2)
    for which, prefix in (("linalg", "_linalg_"), ("contrib", "_contrib_"), ("image", "_image_")):
        names = {name.removeprefix(prefix) for name in OPERATORS if name.startswith(prefix)}
        assert names == set(getattr(nd, which).__all__) == set(getattr(mx.sym, which).__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        nd.nothing_like_it  # noqa: B018


def test_operators_run_where_their_arrays_are():
    with stand_in_gpus():
        ctx = mx.gpu(1)
        x = nd.array([[1, 2], [3, 4]], ctx=ctx)
        y = nd.random_uniform(shape=(2,), ctx=ctx)
        for result in (
            nd.square(x),
            nd.dot(x, x),
            x.softmax(),
            y,
            nd.linalg.potrf(x * 0 + nd.eye(2, ctx=ctx)),
        ):
            assert result.context == ctx
        weight, momentum = nd.ones((2, 2), ctx=ctx), nd.zeros((2, 2), ctx=ctx)
        nd.sgd_mom_update(weight, x, momentum, lr=1, momentum=0.5, out=weight)
        assert momentum.asnumpy().tolist() == [[-1, -2], [-3, -4]]
    with pytest.raises(MXNetError, match="gpu"):
        nd.zeros((2,), ctx=mx.gpu(7))
