"""Executors: arrays, forward and backward, gradient requirements, reshape, errors."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError

a, b = mx.sym.Variable("a"), mx.sym.Variable("b")


def test_bind_uses_the_callers_own_arrays():
    x, y, dx = mx.nd.ones((2,)), mx.nd.ones((2,)) * 3, mx.nd.zeros((2,))
    exe = (a * b).bind(mx.cpu(), {"a": x, "b": y}, {"a": dx})
    assert exe.forward(is_train=True)[0].asnumpy().tolist() == [3, 3]
    x[:] = 5
    assert exe.forward(is_train=True)[0].asnumpy().tolist() == [15, 15]
    exe.backward(mx.nd.ones((2,)))
    assert dx.asnumpy().tolist() == [3, 3]
    assert exe.grad_dict["b"] is None
    assert exe.arg_arrays[0] is x and exe.arg_dict["b"] is y


def test_outputs_stay_the_same_arrays():
    exe = (a + 1).simple_bind(mx.cpu(), a=(2,))
    out = exe.outputs[0]
    exe.forward(a=np.array([1, 2]))
    assert (
        out.asnumpy().tolist() == [2, 3] and exe.output_dict == {"_plusscalar0_output": out}
    ) or exe.outputs[0] is out
    exe.forward(is_train=True, a=np.array([3, 4]))
    assert out.asnumpy().tolist() == [4, 5]


@pytest.mark.parametrize("form", ["str", "dict", "list"])
def test_gradients_are_written_added_or_left_out(form):
    reqs = {"str": "add", "dict": {"a": "add"}, "list": ["add", "null"]}[form]
    exe = (a * b).simple_bind(mx.cpu(), grad_req=reqs, a=(2,), b=(2,))
    exe.arg_dict["b"][:] = 2
    for _ in range(3):
        exe.forward(is_train=True)
        exe.backward([mx.nd.ones((2,))])
    assert exe.grad_dict["a"].asnumpy().tolist() == [6, 6]
    assert (exe.grad_dict["b"] is None) == (form != "str")


def test_an_argument_that_nothing_depends_on_gets_zero():
    exe = mx.sym.Group([a * 2, mx.sym.SoftmaxOutput(b, name="s")]).simple_bind(mx.cpu(), a=(2,), b=(2, 2))
    exe.grad_dict["s_label"][:] = 7
    exe.forward(is_train=True)
    exe.backward([mx.nd.ones((2,))])
    assert exe.grad_dict["s_label"].asnumpy().tolist() == [0, 0]
    assert exe.grad_dict["a"].asnumpy().tolist() == [2, 2]


def test_the_heads_gradient_of_the_caller_is_left_alone():
    h = a * 2
    exe = mx.sym.Group([h, h + 1]).simple_bind(mx.cpu(), a=(2,))
    head = mx.nd.ones((2,))
    for _ in range(2):
        exe.forward(is_train=True)
        exe.backward([head, head])
        assert exe.grad_dict["a"].asnumpy().tolist() == [4, 4] and head.asnumpy().tolist() == [1, 1]


def test_backward_needs_a_forward_in_training():
    exe = (a * b).simple_bind(mx.cpu(), a=(2,), b=(2,))
    with pytest.raises(NotReadyError, match="is_train=True"):
        exe.backward(mx.nd.ones((2,)))
    exe.forward(is_train=True)
    exe.forward(is_train=False)
    with pytest.raises(NotReadyError, match="inference pass"):
        exe.backward(mx.nd.ones((2,)))


def test_training_and_inference_agree_where_nothing_is_random():
    net = mx.sym.FullyConnected(
        mx.sym.Activation(mx.sym.Flatten(a), act_type="tanh"), num_hidden=3, name="fc"
    )
    exe = net.simple_bind(mx.cpu(), a=(2, 3, 2))
    rng = np.random.RandomState(0)
    for array in exe.arg_arrays:
        array[:] = rng.randn(*array.shape)
    train = exe.forward(is_train=True)[0].asnumpy()
    assert np.array_equal(train, exe.forward()[0].asnumpy())


def test_monitor_sees_every_output():
    net = mx.sym.Activation(mx.sym.Flatten(a * 2, name="flat"), act_type="relu", name="act")
    exe = net.simple_bind(mx.cpu(), a=(2, 1, 2))
    seen = {}
    exe.set_monitor_callback(lambda name, array: seen.update({name: array.asnumpy()}), monitor_all=True)
    exe.forward(is_train=True, a=np.arange(4).reshape(2, 1, 2))
    assert next(iter(seen)) == "a" and "flat_output" in seen
    assert seen["flat_output"].tolist() == [[0, 2], [4, 6]] and seen["act_output"].tolist() == [
        [0, 2],
        [4, 6],
    ]
    exe.set_monitor_callback(None)


def test_copy_params_from():
    net = mx.sym.BatchNorm(a, name="bn")
    exe = net.simple_bind(mx.cpu(), a=(2, 3))
    exe.copy_params_from({"bn_gamma": mx.nd.ones((3,))}, {"bn_moving_var": mx.nd.ones((3,)) * 2})
    assert exe.aux_dict["bn_moving_var"].asnumpy().tolist() == [2, 2, 2]
    exe.copy_params_from({"foo": mx.nd.ones((3,))}, allow_extra_params=True)
    with pytest.raises(InvalidArgument, match="did you mean 'bn_gamma'"):
        exe.copy_params_from({"bn_gama": mx.nd.ones((3,))})
    with pytest.raises(InvalidArgument, match=r"shape \(4,\), bound as \(3,\)"):
        exe.copy_params_from({"bn_gamma": mx.nd.ones((4,))})


def test_reshape_shares_what_stays():
    net = mx.sym.FullyConnected(a, num_hidden=3, name="fc")
    exe = net.simple_bind(mx.cpu(), a=(4, 2))
    exe.arg_dict["fc_weight"][:] = 1
    small = exe.reshape(a=(2, 2))
    assert small.arg_dict["fc_weight"] is exe.arg_dict["fc_weight"] and small.outputs[0].shape == (2, 3)
    assert small.forward(a=np.ones((2, 2)))[0].asnumpy().tolist() == [[2, 2, 2]] * 2
    with pytest.raises(InvalidArgument, match="allow_up_sizing"):
        exe.reshape(a=(8, 2))
    assert exe.reshape(allow_up_sizing=True, a=(8, 2)).outputs[0].shape == (8, 3)
    with pytest.raises(InvalidArgument, match=r"'fc_weight' would change from \(3, 2\) to \(3, 5\)"):
        exe.reshape(a=(1, 5))


CPU, ONE = mx.cpu(), mx.nd.ones((2,))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mx.sym.FullyConnected(a, num_hidden=2).simple_bind(CPU), "do not determine those of a"),
        (lambda: (a * b).simple_bind(CPU, a=(2,), b=(3,)), "expected (2,), got (3,)"),
        (lambda: (a * b).simple_bind(CPU, grad_req="foo", a=(2,)), "'foo', expected one of write, add, null"),
        (lambda: (a * b).simple_bind(CPU, grad_req={"c": "add"}, a=(2,)), "no argument 'c'"),
        (lambda: (a * b).simple_bind(CPU, grad_req=["add"], a=(2,)), "1 values for 2 arguments"),
        (lambda: (a * b).bind(CPU, {"a": ONE}), "args lacks 'b'"),
        (lambda: (a * b).bind(CPU, [ONE]), "args has 1 arrays, expected 2"),
        (lambda: (a * b).bind(CPU, {"a": ONE, "b": mx.nd.ones((3,))}), "expected (2,), got (3,)"),
        (lambda: (a * b).bind(CPU, {"a": 1, "b": 2}), "expected an NDArray"),
        (lambda: (a * b).simple_bind(CPU, a=(2,)).forward(a=np.ones(3)), "has shape (3,), bound as (2,)"),
        (lambda: (a * b).simple_bind(CPU, a=(2,)).forward(c=np.ones(3)), "no argument 'c'"),
        (lambda: mx.sym.Group([a, mx.sym.var("a")]).simple_bind(CPU, a=(2,)), "two arguments are named 'a'"),
        (lambda: (a + 1).simple_bind(mx.gpu(0), a=(2,)), "gpu(0)"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(mx.MXNetError) as caught:
        call()
    assert words in str(caught.value)


def test_missing_head_gradients_are_named():
    exe = mx.sym.Group([a * 2, a * 3]).simple_bind(mx.cpu(), a=(2,))
    exe.forward(is_train=True)
    with pytest.raises(InvalidArgument, match="_output' is no loss"):
        exe.backward()
    with pytest.raises(InvalidArgument, match="1 gradients for 2 outputs"):
        exe.backward(mx.nd.ones((2,)))
    with pytest.raises(InvalidArgument, match=r"shape \(3,\), expected \(2,\)"):
        exe.backward([mx.nd.ones((3,)), mx.nd.ones((2,))])


def test_moving_statistics_change_in_backward_only():
    exe = mx.sym.BatchNorm(a, name="bn", momentum=0.5).simple_bind(mx.cpu(), a=(4, 2))
    x = np.arange(8.0).reshape(4, 2)
    exe.forward(is_train=True, a=x)
    assert exe.aux_dict["bn_moving_mean"].asnumpy().tolist() == [0, 0]
    exe.backward(mx.nd.ones((4, 2)))
    assert exe.aux_dict["bn_moving_mean"].asnumpy().tolist() == [1.5, 2]
    np.testing.assert_allclose(exe.aux_dict["bn_moving_var"].asnumpy(), [2.5, 2.5], rtol=1e-6)


def test_division_by_zero_warns_nobody():
    (out,) = (1 / a).eval(a=mx.nd.zeros((2,)))
    assert np.isinf(out.asnumpy()).all()


def test_an_output_listed_twice_is_computed_for_both():
    y = a * 2
    exe = mx.sym.Group([y, y, a]).simple_bind(mx.cpu(), a=(2,))
    outputs = exe.forward(is_train=True, a=[1, 2])
    assert [o.asnumpy().tolist() for o in outputs] == [[2, 4], [2, 4], [1, 2]]
    exe.backward([mx.nd.ones((2,)), mx.nd.ones((2,)) * 10, mx.nd.ones((2,))])
    assert exe.grad_dict["a"].asnumpy().tolist() == [23, 23]


def test_shapes_of_what_is_no_argument_are_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    """As MXNet does without a word; scripts give the label's shape for networks without a loss too."""
    assert (a * b).simple_bind(CPU, a=(2,), softmax_label=(2,)).outputs[0].shape == (2,)
    assert "simple_bind: no argument 'softmax_label', ignored" in caplog.text
