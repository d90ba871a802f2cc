"""Operators written in Python: in graphs, on arrays, on other devices, in Module, and their errors."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError
from dmod.device.standin import stand_in_gpus
from dmod.operator import CustomOp, CustomOpProp, register
from tests.gradients import worst_gradient_error

calls: list = []


class Sigmoid(CustomOp):
    """1 / (1 + exp(-k x)); it keeps its result for backward, and counts its passes in its state."""

    def __init__(self, k):
        self.k = k

    def forward(self, is_train, req, in_data, out_data, aux):
        calls.append(("forward", is_train, tuple(req)))
        self.y = 1 / (1 + np.exp(-in_data[0].asnumpy() * self.k))
        self.assign(out_data[0], req[0], mx.nd.array(self.y, dtype=in_data[0].dtype))
        aux[0][:] += 1

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        calls.append(("backward", tuple(req)))
        slope = mx.nd.array(self.y * (1 - self.y) * self.k, dtype=in_data[0].dtype)
        self.assign(in_grad[0], req[0], out_grad[0] * slope)


@register("test_sigmoid")
class SigmoidProp(CustomOpProp):
    def __init__(self, k="1", flag=None):
        super().__init__(need_top_grad=True)
        self.k, self.flag = float(k), flag

    def list_auxiliary_states(self):
        return ["count"]

    def infer_shape(self, in_shape):
        return in_shape, [in_shape[0]], [[1]]

    def create_operator(self, ctx, in_shapes, in_dtypes):
        calls.append(("create", str(ctx), in_shapes, in_dtypes))
        return Sigmoid(self.k)


class SoftmaxLoss(CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0].softmax(axis=1))

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        classes = in_data[1].one_hot(out_data[0].shape[1])
        self.assign(in_grad[0], req[0], out_data[0] - classes)


@register("test_softmax")
class SoftmaxProp(CustomOpProp):
    def __init__(self):
        super().__init__(need_top_grad=False)

    def list_arguments(self):
        return ["data", "label"]

    def infer_shape(self, in_shape):
        return [in_shape[0], [in_shape[0][0]]], [in_shape[0]], []

    def create_operator(self, ctx, in_shapes, in_dtypes):
        return SoftmaxLoss()


@register("test_two")
class TwoProp(CustomOpProp):
    """Two outputs, of which the second's gradient is often not asked for."""

    def list_outputs(self):
        return ["a", "b"]

    def infer_shape(self, in_shape):
        return in_shape, [in_shape[0], (1,)], []

    def create_operator(self, ctx, in_shapes, in_dtypes):
        class Two(CustomOp):
            def forward(self, is_train, req, in_data, out_data, aux):
                self.assign(out_data[0], req[0], in_data[0] * 2)
                self.assign(out_data[1], req[1], in_data[0].sum())

            def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
                self.assign(in_grad[0], req[0], out_grad[0] * 2 + out_grad[1])

        return Two()


@register("test_fails")
class FailsProp(CustomOpProp):
    def __init__(self, where="forward"):
        super().__init__()
        if where == "init":
            raise RuntimeError("broken in init")
        self.where = where

    def infer_shape(self, in_shape):
        if self.where == "infer_shape":
            raise RuntimeError("broken in infer_shape")
        return (in_shape,) if self.where == "parts" else super().infer_shape(in_shape)

    def create_operator(self, ctx, in_shapes, in_dtypes):
        if self.where == "create_operator":
            raise RuntimeError("broken in create_operator")
        where = self.where

        class Fails(CustomOp):
            def forward(self, is_train, req, in_data, out_data, aux):
                if where == "forward":
                    raise RuntimeError("broken in forward")

            def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
                raise RuntimeError("broken in backward")

        return Fails()


def sigmoid(**kwargs):
    return mx.sym.Custom(mx.sym.Variable("x"), op_type="test_sigmoid", name="cu", **kwargs)


def test_composition_names_and_json():
    symbol = sigmoid(k=2, flag=(1, 2))
    assert symbol.list_arguments() == ["x"] and symbol.list_auxiliary_states() == ["cu_count"]
    assert symbol.list_outputs() == ["cu_output"]
    assert symbol.attr_dict()["cu"] == {"flag": "(1, 2)", "k": "2", "op_type": "test_sigmoid"}
    again = mx.sym.load_json(symbol.tojson())
    assert again.tojson() == symbol.tojson() and again.infer_shape(x=(2, 3))[1] == [(2, 3)]
    made = mx.sym.Custom(data=mx.sym.Variable("x"), op_type="test_softmax", name="z")
    assert made.list_arguments() == ["x", "z_label"]
    assert made.infer_shape(x=(4, 3))[0] == [(4, 3), (4,)] and made.infer_shape() == (None, None, None)
    assert symbol.infer_type(x="float64")[1:] == ([np.float64], [np.float64])


def test_forward_backward_and_states_share_one_operator():
    executor = sigmoid(k=2).simple_bind(mx.cpu(), x=(2, 3))
    x = np.arange(6).reshape(2, 3) / 3
    calls.clear()
    y = executor.forward(is_train=True, x=mx.nd.array(x))[0].asnumpy()
    executor.backward(mx.nd.ones((2, 3)))
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-2 * x)), rtol=1e-6)
    np.testing.assert_allclose(executor.grad_dict["x"].asnumpy(), 2 * y * (1 - y), rtol=1e-6)
    executor.forward(is_train=False)
    assert executor.aux_dict["cu_count"].asnumpy().tolist() == [2]
    assert calls == [
        ("create", "cpu(0)", [(2, 3), (1,)], [np.float32, np.float32]),
        ("forward", True, ("write",)),
        ("backward", ("write",)),
        ("forward", False, ("write",)),
    ]


def test_gradient_is_that_of_differences():
    assert worst_gradient_error(sigmoid(k=2), {"x": (2, 3)}) < 1e-6


def test_executors_have_operators_of_their_own():
    symbol = sigmoid()
    first, second = (symbol.simple_bind(mx.cpu(), x=(1,)) for _ in range(2))
    first.forward(is_train=True, x=mx.nd.array([0]))
    second.forward(is_train=True, x=mx.nd.array([50]))
    first.backward(mx.nd.ones((1,)))
    assert first.grad_dict["x"].asnumpy().tolist() == [0.25]  # not that of the second's result


def test_gradients_of_several_outputs():
    x = mx.sym.Variable("x")
    two = mx.sym.Custom(x, op_type="test_two", name="w")
    assert two.list_outputs() == ["w_a", "w_b"]
    executor = (two[0] * 3).simple_bind(mx.cpu(), x=(2,))
    executor.forward(is_train=True, x=mx.nd.ones((2,)))
    executor.backward(mx.nd.ones((2,)))
    assert executor.grad_dict["x"].asnumpy().tolist() == [6, 6]
    blocked = mx.sym.Group([mx.sym.BlockGrad(two[0]), x * 2]).simple_bind(mx.cpu(), x=(2,))
    blocked.forward(is_train=True, x=mx.nd.ones((2,)))
    blocked.backward([mx.nd.ones((2,)), mx.nd.ones((2,))])
    assert blocked.grad_dict["x"].asnumpy().tolist() == [2, 2]
    executor = two.simple_bind(mx.cpu(), x=(2,), grad_req="add")
    for _ in range(2):
        executor.forward(is_train=True, x=mx.nd.ones((2,)))
        executor.backward([mx.nd.ones((2,)), mx.nd.ones((1,))])
    assert executor.grad_dict["x"].asnumpy().tolist() == [6, 6]


def test_on_arrays():
    y = mx.nd.Custom(mx.nd.array([0, 1]), mx.nd.zeros((1,)), op_type="test_sigmoid", k=3)
    np.testing.assert_allclose(y.asnumpy(), 1 / (1 + np.exp([0, -3])), rtol=1e-6)
    count = mx.nd.zeros((1,))
    mx.nd.Custom(data=mx.nd.array([0, 1]), count=count, op_type="test_sigmoid")
    assert count.asnumpy().tolist() == [1]
    a, b = mx.nd.Custom(mx.nd.array([1, 2]), op_type="test_two")
    assert a.asnumpy().tolist() == [2, 4] and b.asnumpy().tolist() == [3]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("init", "the property class raised RuntimeError: broken in init"),
        ("infer_shape", "infer_shape raised RuntimeError: broken in infer_shape"),
        ("parts", r"infer_shape returned \[1, 0, 0\] entries for \[1, 1, 0\]"),
        ("create_operator", "create_operator raised RuntimeError: broken"),
        ("forward", "forward raised RuntimeError: broken in forward"),
        ("backward", "backward raised RuntimeError: broken in backward"),
    ],
)
def test_errors_of_the_users_code_name_the_node(where, words):
    with pytest.raises(MXNetError, match=words) as caught:
        symbol = mx.sym.Custom(mx.sym.Variable("x"), op_type="test_fails", where=where, name="culprit")
        executor = symbol.simple_bind(mx.cpu(), x=(2,))
        executor.forward(is_train=True)
        executor.backward(mx.nd.ones((2,)))
    assert "'culprit'" in str(caught.value)
    if where != "parts":
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_bad_input_is_named():
    x = mx.sym.Variable("x")
    with pytest.raises(
        InvalidArgument, match=r"no custom operator 'test_sigmoit'.*did you mean 'test_sigmoid'"
    ):
        mx.sym.Custom(x, op_type="test_sigmoit")
    with pytest.raises(InvalidArgument, match="needs op_type"):
        mx.sym.Custom(x)
    with pytest.raises(MXNetError, match="unexpected keyword argument 'kk'"):
        sigmoid(kk=1)
    with pytest.raises(InvalidArgument, match="no input 'lable'"):
        mx.sym.Custom(data=x, lable=x, op_type="test_softmax")
    with pytest.raises(InvalidArgument, match="subclass of CustomOpProp"):
        register("test_none")(int)
    with pytest.raises(InvalidArgument, match="req is 'sum'"):
        CustomOp().assign(mx.nd.zeros((1,)), "sum", 1)


def test_assign_does_what_req_says():
    out = mx.nd.zeros((2,))
    for req, value in (("null", 0), ("write", 5), ("add", 10), ("inplace", 5)):
        CustomOp().assign(out, req, 5)
        assert out.asnumpy().tolist() == [value, value], req


def test_defaults_of_a_property():
    prop = CustomOpProp()
    assert (prop.list_arguments(), prop.list_outputs(), prop.list_auxiliary_states()) == (
        ["data"],
        ["output"],
        [],
    )
    assert prop.declare_backward_dependency([0], [1, 2], [3]) == [0, 1, 2, 3]
    assert CustomOpProp(False).declare_backward_dependency([0], [1, 2], [3]) == [1, 2, 3]
    assert prop.infer_type([np.float64]) == ([np.float64], [np.float64], [])
    assert prop.infer_storage_type(["default"]) == (["default"], ["default"], [])
    assert prop.infer_storage_type_backward(["csr"], [], [], [], []) == (["default"], [], [], [], [])
    assert isinstance(prop.create_operator(None, [], []), CustomOp)


def test_another_device_gets_its_results_back():
    with stand_in_gpus():
        executor = sigmoid().simple_bind(mx.gpu(0), x=(2,))
        y = executor.forward(is_train=True, x=mx.nd.array([0, 1]))[0]
        assert y.context == mx.gpu(0)
        executor.backward(mx.nd.ones((2,), ctx=mx.gpu(0)))
        assert executor.grad_dict["x"].asnumpy()[0] == 0.25
        assert executor.aux_dict["cu_count"].asnumpy().tolist() == [1]
        count = mx.nd.zeros((1,), ctx=mx.gpu(1))
        y = mx.nd.Custom(mx.nd.array([0], ctx=mx.gpu(1)), count, op_type="test_sigmoid")
        assert y.context == mx.gpu(1) and y.asnumpy().tolist() == [0.5] and count.asnumpy().tolist() == [1]


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_module_trains_with_a_loss_in_python(contexts):
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 120)
    data = np.eye(3)[label] + generator.normal(size=(120, 3)) * 0.1
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    net = mx.sym.Custom(net, mx.sym.Variable("softmax_label"), op_type="test_softmax", name="softmax")
    module = mx.mod.Module(net, context=[mx.cpu(i) for i in range(contexts)])
    batches = mx.io.NDArrayIter(data, label, batch_size=20)
    module.fit(batches, num_epoch=10, optimizer_params={"learning_rate": 0.5}, initializer=mx.init.Xavier())
    assert dict(module.score(batches, "acc"))["accuracy"] == 1


class OldSquare(mx.operator.NumpyOp):
    def forward(self, in_data, out_data):
        out_data[0][:] = in_data[0] ** 2

    def backward(self, out_grad, in_data, out_data, in_grad):
        in_grad[0][:] = 2 * in_data[0] * out_grad[0]


class OldDouble(mx.operator.NDArrayOp):
    def forward(self, in_data, out_data):
        out_data[0][:] = in_data[0] * 2

    def backward(self, out_grad, in_data, out_data, in_grad):
        in_grad[0][:] = out_grad[0] * 2


def test_operators_of_the_older_kind():
    x = mx.sym.Variable("x")
    symbol = OldDouble()(OldSquare().get_symbol(x, name="square"), name="double")
    executor = symbol.simple_bind(mx.cpu(), x=(2,))
    y = executor.forward(is_train=True, x=mx.nd.array([1, 3]))[0]
    executor.backward(mx.nd.ones((2,)))
    assert y.asnumpy().tolist() == [2, 18] and executor.grad_dict["x"].asnumpy().tolist() == [4, 12]
    assert mx.operator.PythonOp(False).need_top_grad() is False
    assert OldDouble().declare_backward_dependency([0], [1], [2]) == [0, 1, 2]


def test_operators_are_listed():
    names = mx.operator.get_all_registered_operators()
    assert {"Custom", "FullyConnected", "_plus_scalar"} <= set(names)
    found = mx.operator.get_operator_arguments("FullyConnected")
    assert found.narg == len(found.names) == len(found.types) and found.names[:3] == [
        "data",
        "weight",
        "bias",
    ]
    with pytest.raises(InvalidArgument, match="unknown operator"):
        mx.operator.get_operator_arguments("NoSuchThing")
