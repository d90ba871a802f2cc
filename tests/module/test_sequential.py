"""SequentialModule, and modules in Python, in a chain and alone."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError


def body():
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
    return mx.sym.Activation(mx.sym.BatchNorm(net, fix_gamma=False, name="bn"), act_type="tanh", name="act")


def head(name="features"):
    net = mx.sym.FullyConnected(mx.sym.Variable(name), num_hidden=3, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def whole():
    return head()(features=body())


def data(n=60, batch_size=20):
    rng = np.random.RandomState(0)
    x = rng.randn(n, 5).astype("float32")
    y = (x @ rng.randn(5, 3)).argmax(1)
    return mx.io.NDArrayIter(x, y.astype("float32"), batch_size)


def chain(**kwargs):
    seq = mx.mod.SequentialModule()
    seq.add(mx.mod.Module(body(), label_names=None, **kwargs))
    seq.add(mx.mod.Module(head(), data_names=["features"], **kwargs), take_labels=True, auto_wiring=True)
    return seq


def bound(seq=None, **kwargs):
    seq = seq or chain()
    seq.bind(data().provide_data, data().provide_label, **kwargs)
    mx.random.seed(1)
    seq.init_params(mx.init.Xavier())
    return seq


def params_of(mod):
    return {name: value.asnumpy().copy() for part in mod.get_params() for name, value in part.items()}


# ---- chains


def test_add_chains_and_unbinds():
    seq = mx.mod.SequentialModule()
    assert seq.data_names == [] and seq.output_names == []
    assert seq.add(mx.mod.Module(body(), label_names=None)) is seq
    seq.bind(data().provide_data)
    seq.add(mx.mod.Module(head(), data_names=["features"]), take_labels=True, auto_wiring=True)
    assert not seq.binded


def test_names_and_shapes_are_those_of_the_ends():
    seq = chain()
    for call in (lambda: seq.data_shapes, lambda: seq.label_shapes, lambda: seq.output_shapes):
        with pytest.raises(NotReadyError, match=r"call bind\(\) first"):
            call()
    seq = bound(seq)
    assert seq.data_names == ["data"] and seq.output_names == ["softmax_output"]
    assert seq.data_shapes[0].shape == (20, 5) and seq.label_shapes[0].shape == (20,)
    assert seq.output_shapes == [("softmax_output", (20, 3))] and seq.symbol is None


def test_a_chain_computes_what_one_symbol_does():
    seq = bound(inputs_need_grad=True)
    one = mx.mod.Module(whole())
    one.bind(data().provide_data, data().provide_label, inputs_need_grad=True)
    one.set_params(*seq.get_params())
    for mod in (seq, one):
        mod.init_optimizer(optimizer_params={"learning_rate": 0.5, "momentum": 0.9})
        for batch in data():
            mod.forward(batch, is_train=True)
            mod.backward()
            mod.update()
    np.testing.assert_array_equal(seq.get_outputs()[0].asnumpy(), one.get_outputs()[0].asnumpy())
    np.testing.assert_array_equal(seq.get_input_grads()[0].asnumpy(), one.get_input_grads()[0].asnumpy())
    mine, others = params_of(seq), params_of(one)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value, others[name], name)


@pytest.mark.parametrize("context", [mx.cpu(), [mx.cpu(0), mx.cpu(1)]])
def test_fit_learns_scores_and_saves(tmp_path, context):
    mx.random.seed(0)
    seq = chain(context=context)
    seq.fit(
        data(),
        num_epoch=20,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.5, "momentum": 0.9},
        epoch_end_callback=mx.callback.do_checkpoint(str(tmp_path / "seq"), period=20),
    )
    score = dict(seq.score(data(), "acc"))["accuracy"]
    assert score > 0.9
    seq.save_params(str(tmp_path / "seq.params"))
    for name in ("seq.params", "seq-0020.params"):
        other = bound(chain())
        other.load_params(str(tmp_path / name))
        assert dict(other.score(data(), "acc"))["accuracy"] == score
    assert seq.predict(data()).shape == (60, 3)


def test_batches_of_other_sizes_go_through_the_chain():
    seq = bound()
    seq.init_optimizer()
    batch = data(7, 7).next()
    seq.prepare(batch)
    seq.forward_backward(batch)
    seq.update()
    assert seq.get_outputs()[0].shape == (7, 3)


def test_outputs_are_wired_by_name_without_auto_wiring():
    x = mx.sym.Variable("data")
    two = mx.sym.Group([mx.sym.identity(x * 2, name="a"), mx.sym.identity(x * 3, name="b")])
    join = mx.sym.Variable("b_output") - mx.sym.Variable("a_output")
    seq = mx.mod.SequentialModule()
    seq.add(mx.mod.Module(two, label_names=None))
    seq.add(mx.mod.Module(join, data_names=["b_output", "a_output"], label_names=None))
    seq.bind([("data", (1, 2))], inputs_need_grad=True)
    seq.init_params()
    seq.forward(mx.io.DataBatch([mx.nd.array([[1, 2]])]))
    assert seq.get_outputs()[0].asnumpy().tolist() == [[1, 2]]
    seq.backward([mx.nd.array([[1, 10]])])
    assert seq.get_input_grads()[0].asnumpy().tolist() == [[1, 10]]
    assert seq.get_input_grads(merge_multi_context=False)[0][0].shape == (1, 2)


def test_set_and_init_params_reach_every_module():
    seq = bound()
    values = {name: mx.nd.array(value) for name, value in params_of(seq).items()}
    args, aux = seq.get_params()
    assert set(args) == {"fc1_weight", "fc1_bias", "bn_gamma", "bn_beta", "fc2_weight", "fc2_bias"}
    assert set(aux) == {"bn_moving_mean", "bn_moving_var"}
    values["fc2_bias"][:] = 7
    seq.set_params({name: values[name] for name in args}, {name: values[name] for name in aux})
    assert (seq.get_params()[0]["fc2_bias"].asnumpy() == 7).all()
    seq.init_params(mx.init.Zero(), force_init=True)
    assert not seq.get_params()[0]["fc2_weight"].asnumpy().any()


def test_init_optimizer_is_every_modules():
    seq = bound()
    seq.init_optimizer(optimizer_params={"learning_rate": 0.1})
    assert seq.optimizer_initialized and all(m.optimizer_initialized for m in seq._modules)


def test_update_metric_asks_those_that_take_labels():
    seq, metric, batch = bound(), mx.metric.create("acc"), data().next()
    seq.forward(batch, is_train=False)
    seq.update_metric(metric, batch.label)
    assert metric.num_inst == 20


def test_a_monitor_sees_every_module():
    seq, monitor = bound(), mx.mon.Monitor(1, pattern="fc.*_output")
    seq.install_monitor(monitor)
    monitor.tic()
    seq.forward(data().next(), is_train=False)
    assert [name for _, name, _ in monitor.toc()] == ["fc1_output", "fc2_output"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mx.mod.SequentialModule().add(body()), InvalidArgument, "expected a module, got Symbol"),
        (lambda: chain().add(mx.mod.Module(body()), take_label=True), InvalidArgument, "mean 'take_labels'"),
        (lambda: mx.mod.SequentialModule().bind([("data", (1,))]), NotReadyError, r"call add\(\) first"),
        (lambda: bound(shared_module=bound()), InvalidArgument, "cannot share"),
        (lambda: bound(for_training=False, inputs_need_grad=True), InvalidArgument, "needs for_training"),
        (lambda: chain().forward(data().next()), NotReadyError, r"call bind\(\)"),
        (lambda: bound().update(), NotReadyError, r"call init_optimizer\(\)"),
        (lambda: bound().get_input_grads(), NotReadyError, "inputs_need_grad=True"),
        (lambda: bound(chain().add(mx.mod.Module(body()))), InvalidArgument, "auto_wiring=True. joins"),
        (
            lambda: bound(chain().add(mx.mod.Module(body(), label_names=None), auto_wiring=True)),
            InvalidArgument,
            "modules 0 and 2 both have a parameter 'fc1_weight'",
        ),
    ],
)
def test_mistakes_in_chains_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ---- modules in Python


class Squares(mx.mod.PythonModule):
    """Squares its input: the least that a derived class has to say."""

    def __init__(self):
        super().__init__(["x"], None, ["squares"])

    def _compute_output_shapes(self):
        return [("squares", self.data_shapes[0].shape)]

    def forward(self, data_batch, is_train=None):
        self.x = data_batch.data[0]

    def get_outputs(self, merge_multi_context=True):
        return [self.x * self.x]

    def backward(self, out_grads=None):
        self.grad = out_grads[0] * self.x * 2

    def get_input_grads(self, merge_multi_context=True):
        return [self.grad]


def test_a_python_module_reports_what_it_was_bound_with():
    mod = mx.mod.PythonModule(["x"], ["y"], ["z"])
    assert mod.data_names == ["x"] and mod.output_names == ["z"]
    with pytest.raises(NotImplementedError):
        mod.bind([("x", (2, 3))])
    mod = Squares()
    mod.bind([("x", (2, 3))])
    assert [d.shape for d in mod.data_shapes] == [(2, 3)] and mod.label_shapes == []
    assert mod.output_shapes == [("squares", (2, 3))]
    mod.bind([("x", (4, 3))], force_rebind=True, for_training=False)
    assert mod.data_shapes[0].shape == (4, 3) and not mod.for_training


def test_a_python_module_has_no_parameters_and_nothing_to_update():
    mod = Squares()
    mod.bind([("x", (2, 3))])
    mod.init_params()
    mod.init_optimizer()
    mod.update()
    mod.install_monitor(None)
    assert mod.get_params() == ({}, {}) and mod.params_initialized and mod.optimizer_initialized


def test_a_python_module_feeds_a_metric_if_it_has_labels():
    mod = mx.mod.PythonLossModule()
    mod.bind([("data", (2, 3))], [("softmax_label", (2,))])
    metric, labels = mx.metric.create("acc"), [mx.nd.array([1, 2])]
    mod.forward(mx.io.DataBatch([mx.nd.array(np.eye(3)[1:])], labels))
    mod.update_metric(metric, labels)
    assert metric.get()[1] == 1
    with pytest.raises(InvalidArgument, match="cannot be sliced"):
        mod.update_metric(metric, labels, pre_sliced=True)
    without = Squares()
    without.bind([("x", (2, 3))])
    without.update_metric(metric, labels)
    assert metric.num_inst == 2


def softmax_gradient(scores, labels):
    x = scores.asnumpy()
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return (p - np.eye(x.shape[1], dtype=x.dtype)[labels.asnumpy().astype(int)]).astype("float32")


def test_a_loss_in_python_gives_back_scores_and_the_users_gradient():
    loss = mx.mod.PythonLossModule(name="mine", grad_func=softmax_gradient)
    assert loss.data_names == ["data"] and loss.output_names == ["mine_output"]
    loss.bind([("data", (2, 3))], [("softmax_label", (2,))])
    assert loss.output_shapes == [("mine_output", (2, 3))]
    loss.init_params()
    scores, labels = mx.nd.array([[1, 2, 3], [0, 0, 0]]), mx.nd.array([2, 0])
    with pytest.raises(NotReadyError, match=r"forward\(is_train=True\)"):
        loss.backward()
    loss.forward(mx.io.DataBatch([scores], [labels]))
    with pytest.raises(NotReadyError, match=r"call backward\(\)"):
        loss.get_input_grads()
    loss.backward()
    assert loss.get_outputs()[0] is scores and loss.get_outputs(merge_multi_context=False) == [[scores]]
    np.testing.assert_array_equal(loss.get_input_grads()[0].asnumpy(), softmax_gradient(scores, labels))
    loss.install_monitor(None)


def test_python_modules_train_within_a_chain():
    scores = mx.sym.FullyConnected(mx.sym.Variable("h"), num_hidden=3, name="fc2")
    seq = mx.mod.SequentialModule()
    linear = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=9, name="fc1")
    seq.add(mx.mod.Module(linear, label_names=None))
    seq.add(Squares(), auto_wiring=True)
    seq.add(mx.mod.Module(scores, data_names=["h"], label_names=None), auto_wiring=True)
    seq.add(mx.mod.PythonLossModule(grad_func=softmax_gradient), take_labels=True, auto_wiring=True)
    mx.random.seed(0)
    parameters = {"learning_rate": 0.02, "momentum": 0.9}
    seq.fit(data(), num_epoch=40, initializer=mx.init.Xavier(), optimizer_params=parameters)
    assert dict(seq.score(data(), "acc"))["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Squares().bind([("y", (1,))]), InvalidArgument, r"data_names are \['x'\]"),
        (lambda: Squares().bind([("x", (1,))], [("l", (1,))]), InvalidArgument, "label_names are None"),
        (lambda: Squares().bind([("x", (1,))], grad_req="add"), InvalidArgument, "only writes"),
        (lambda: mx.mod.PythonLossModule(data_names=["a", "b"]), InvalidArgument, "list of one name"),
        (lambda: mx.mod.PythonLossModule(grad_func=3), InvalidArgument, "expected a function"),
        (lambda: mx.mod.PythonLossModule().get_outputs(), NotReadyError, r"call forward\(\)"),
        (lambda: mx.mod.PythonLossModule().backward([1]), InvalidArgument, "takes no out_grads"),
    ],
)
def test_mistakes_with_python_modules_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
