"""Module: the whole life of one, in the order of its API; and what it says when used wrongly."""

from __future__ import annotations

import logging
from collections import namedtuple

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, NotReadyError

Batch = namedtuple("Batch", ["data"])


def mlp(dropout=False):
    net = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(net, name="fc1", num_hidden=8)
    net = mx.sym.BatchNorm(net, name="bn", fix_gamma=False)
    net = mx.sym.Activation(net, name="relu1", act_type="relu")
    if dropout:
        net = mx.sym.Dropout(net, p=0.3)
    net = mx.sym.FullyConnected(net, name="fc2", num_hidden=3)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def separable(n=60, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.randn(n, 5).astype("float32")
    y = (x @ rng.randn(5, 3)).argmax(1).astype("float32")
    return x, y


def iterator(n=60, batch_size=20, **kwargs):
    return mx.io.NDArrayIter(*separable(n), batch_size, **kwargs)


def bound(batch_size=4, **kwargs):
    mod = mx.mod.Module(mlp(), **kwargs)
    mod.bind([("data", (batch_size, 5))], [("softmax_label", (batch_size,))])
    mx.random.seed(1)
    mod.init_params(mx.init.Xavier())
    return mod


def batch(n=4, seed=0):
    x, y = separable(n, seed)
    return mx.io.DataBatch([mx.nd.array(x)], [mx.nd.array(y)])


def fitted(epochs=2, seed=3, **kwargs):
    mx.random.seed(seed)
    mod = mx.mod.Module(mlp(), context=kwargs.pop("context", mx.cpu()))
    kwargs.setdefault("optimizer_params", {"learning_rate": 0.1, "momentum": 0.9})
    mod.fit(iterator(), num_epoch=epochs, initializer=mx.init.Xavier(), **kwargs)
    return mod


def params_of(mod):
    args, aux = mod.get_params()
    return {name: value.asnumpy() for name, value in {**args, **aux}.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


# ---- names, shapes, order of calls


def test_names_and_shapes():
    mod = mx.mod.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)])
    assert mod.data_names == ["data"] and mod.label_names == ["softmax_label"]
    assert mod.output_names == ["softmax_output"] and mod.symbol.name == "softmax"
    mod.bind([("data", (4, 5))], [("softmax_label", (4,))])
    assert [(d.name, d.shape) for d in mod.data_shapes] == [("data", (4, 5))]
    assert [(d.name, d.shape) for d in mod.label_shapes] == [("softmax_label", (4,))]
    assert mod.output_shapes == [("softmax_output", (4, 3))]


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda m: m.data_shapes, "bind"),
        (lambda m: m.forward(batch()), "bind"),
        (lambda m: m.init_params(), "bind"),
        (lambda m: m.get_params(), "bind"),
        (lambda m: m.score(iterator(), "acc"), "bind"),
        (lambda m: m.predict(iterator()), "bind"),
        (lambda m: m.init_optimizer(), "bind"),
        (lambda m: m.reshape([("data", (2, 5))]), "bind"),
        (lambda m: m.save_checkpoint("x", 1), "bind"),
        (lambda m: m.install_monitor(None), "bind"),
    ],
)
def test_calls_before_bind_name_it(call, missing):
    with pytest.raises(NotReadyError, match=rf"call {missing}\(\) first"):
        call(mx.mod.Module(mlp()))


def test_calls_before_parameters_and_optimizer_name_these():
    mod = mx.mod.Module(mlp())
    mod.bind([("data", (4, 5))], [("softmax_label", (4,))])
    for call in (lambda: mod.forward(batch()), mod.backward, mod.get_params, mod.update, mod.get_outputs):
        with pytest.raises(NotReadyError, match=r"call init_params\(\)"):
            call()
    mod.init_params()
    for call in (mod.update, lambda: mod.save_optimizer_states("x"), lambda: mod.load_optimizer_states("x")):
        with pytest.raises(NotReadyError, match=r"call init_optimizer\(\)"):
            call()
    with pytest.raises(NotReadyError, match=r"forward\(is_train=True\)"):
        mod.backward()
    with pytest.raises(NotReadyError, match="inputs_need_grad=True"):
        mod.get_input_grads()


def test_a_module_bound_for_inference_does_not_train():
    mod = mx.mod.Module(mlp())
    mod.bind([("data", (4, 5))], for_training=False)
    mod.init_params()
    assert mod.label_shapes is None
    with pytest.raises(NotReadyError, match="for_training=True"):
        mod.backward()
    with pytest.raises(NotReadyError, match="for_training=True"):
        mod.init_optimizer()
    mod.fit(iterator(), num_epoch=1, force_rebind=True)
    assert mod.for_training


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mx.mod.Module(3), "expected a Symbol"),
        (lambda: mx.mod.Module(mlp(), data_names=["dat"]), "did you mean 'data'"),
        (lambda: mx.mod.Module(mlp(), data_names="data"), "expected a list"),
        (lambda: mx.mod.Module(mlp(), fixed_param_names=["fc1"]), "no argument of the symbol"),
        (lambda: mx.mod.Module(mlp(), context=[mx.cpu(0), mx.cpu(0)]), "a device twice"),
        (
            lambda: mx.mod.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)], work_load_list=[1]),
            "1 work loads for 2",
        ),
        (
            lambda: mx.mod.Module(mlp()).fit(
                iterator(), num_epoch=1, optimizer_params={"momentun": 0.9}, initializer="xavier"
            ),
            "no parameter 'momentun'; did you mean 'momentum'?",
        ),
        (
            lambda: mx.mod.Module(mlp()).fit(iterator(), num_epoch=1, initializer="savier"),
            "'savier'; did you mean 'xavier'?",
        ),
        (lambda: mx.mod.Module(mlp()).bind([("x", (4, 5))]), "data_names are ['data']"),
        (lambda: mx.mod.Module(mlp()).bind([("data", (4, 5))], [("x", (4,))]), "label_names are"),
        (lambda: mx.mod.Module(mlp()).bind([("data", (4, 5))], [("softmax_label", (5,))]), "has 5 samples"),
        (
            lambda: mx.mod.Module(mlp()).bind([("data", (4, 5))], [("softmax_label", (4, 2))]),
            "label: expected (4,)",
        ),
        (lambda: mx.mod.Module(mlp()).bind(["data"]), "(name, shape)"),
        (
            lambda: mx.mod.Module(mlp(), context=[mx.cpu(0), mx.cpu(1)]).bind([("data", (1, 5))]),
            "cannot be cut",
        ),
        (lambda: mx.mod.Module(mlp()).bind([("data", (4, 5))], grad_req="foo"), "'foo'"),
        (lambda: mx.mod.Module(mlp()).fit(iterator()), "num_epoch is missing"),
        (
            lambda: mx.mod.Module(mx.sym.Variable("w") * 2, data_names=[], label_names=[]).bind([]),
            "batch axis",
        ),
        (lambda: bound().init_optimizer(optimizer="sdg"), "did you mean 'sgd'"),
        (lambda: bound().init_optimizer(kvstore="dist_snyc"), "did you mean 'dist_sync'"),
        (lambda: bound().init_optimizer(kvstore=3), "expected a name, a KVStore or None, got int"),
        (lambda: bound().score(iterator(), "acuracy"), "did you mean 'accuracy'"),
    ],
)
def test_wrong_arguments_are_named(make, words):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert words in str(caught.value)


# ---- parameters


def test_parameters_go_in_and_out():
    mod = bound()
    args, aux = mod.get_params()
    assert list(args) == ["fc1_weight", "fc1_bias", "bn_gamma", "bn_beta", "fc2_weight", "fc2_bias"]
    assert list(aux) == ["bn_moving_mean", "bn_moving_var"]
    doubled = {name: value * 2 for name, value in args.items()}
    mod.set_params(doubled, aux)
    assert_equal(params_of(mod), {n: v.asnumpy() for n, v in {**doubled, **aux}.items()})
    other = bound(context=[mx.cpu(0), mx.cpu(1)])
    other.set_params(*mod.get_params())
    assert_equal(params_of(mod), params_of(other))


def test_wrong_parameters_change_nothing(caplog):
    mod = bound()
    before = params_of(mod)
    args, aux = mod.get_params()
    with pytest.raises(
        InvalidArgument, match=r"arg_params\['fc1_weight'\]: shape \(2, 2\), the network needs \(8, 5\)"
    ):
        mod.set_params({**args, "fc1_weight": mx.nd.ones((2, 2))}, aux)
    less = {name: value for name, value in args.items() if name != "fc2_bias"}
    with pytest.raises(InvalidArgument, match="lacks 'fc2_bias'; it has 'fc2_bais'"):
        mod.set_params({**less, "fc2_bais": args["fc2_bias"]}, aux)
    with pytest.raises(InvalidArgument, match="expected an NDArray"):
        mod.set_params({**args, "fc1_weight": np.ones((8, 5))}, aux)
    assert_equal(before, params_of(mod))
    mod.set_params({"fc2_bias": mx.nd.ones((3,))}, {}, allow_missing=True)
    assert params_of(mod)["fc2_bias"].tolist() == [1, 1, 1]
    assert np.array_equal(params_of(mod)["fc1_weight"], before["fc1_weight"])
    with caplog.at_level(logging.WARNING, "dmod"):
        mod.set_params({**args, "fc9_bias": mx.nd.ones((1,))}, aux)
    assert "'fc9_bias' not in the network, ignored; did you mean" in caplog.text


def test_variables_choose_their_own_initializer_and_rate():
    weight = mx.sym.Variable("w", init=mx.init.Constant(3), lr_mult=0)
    net = mx.sym.LinearRegressionOutput(
        mx.sym.FullyConnected(mx.sym.Variable("data"), weight, num_hidden=1, name="fc"), name="softmax"
    )
    mod = mx.mod.Module(net)
    mod.fit(mx.io.NDArrayIter(np.ones((4, 2)), np.ones((4, 1)), 2), num_epoch=1)
    args, _ = mod.get_params()
    assert args["w"].asnumpy().tolist() == [[3, 3]] and args["fc_bias"].asnumpy().tolist() != [0]


def test_parameter_files(tmp_path):
    path = str(tmp_path / "net.params")
    mod, other = bound(), bound()
    other.init_params(mx.init.One(), force_init=True)
    mod.save_params(path)
    other.load_params(path)
    assert_equal(params_of(mod), params_of(other))
    mx.nd.save(path, {"foo:w": mx.nd.ones((1,))})
    with pytest.raises(FormatError, match="'foo:w'; expected 'arg:' or 'aux:'"):
        other.load_params(path)
    mx.nd.save(path, [mx.nd.ones((1,))])
    with pytest.raises(FormatError, match="without names"):
        other.load_params(path)
    assert_equal(params_of(mod), params_of(other))


def test_fixed_parameters_stay():
    mx.random.seed(0)
    mod = mx.mod.Module(mlp(), fixed_param_names=["fc1_weight", "bn_gamma"])
    mod.bind([("data", (20, 5))], [("softmax_label", (20,))])
    mod.init_params(mx.init.Xavier())
    before = params_of(mod)
    mod.fit(iterator(), num_epoch=1, optimizer_params={"learning_rate": 0.1})
    after = params_of(mod)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {"fc1_weight", "bn_gamma"}


# ---- computation


def test_documented_example_of_other_shapes():
    out = mx.sym.Variable("data") * 2
    mod = mx.mod.Module(symbol=out, label_names=None)
    mod.bind(data_shapes=[("data", (1, 10))])
    mod.init_params()
    mod.forward(Batch([mx.nd.ones((1, 10))]))
    assert (mod.get_outputs()[0].asnumpy() == np.full((1, 10), 2)).all()
    mod.forward(Batch([mx.nd.ones((3, 5))]))
    assert (mod.get_outputs()[0].asnumpy() == np.full((3, 5), 2)).all()


def test_batches_of_other_sizes_use_the_same_parameters():
    mod = bound()
    mod.init_optimizer(optimizer_params={"learning_rate": 0.1})
    for n in (4, 7, 4, 2, 7):
        mod.forward_backward(batch(n))
        mod.update()
        assert mod.get_outputs()[0].shape == (n, 3) and mod.data_shapes[0].shape == (n, 5)
    assert len(mod._groups) == 3
    with pytest.raises(InvalidArgument, match=r"would change 'fc1_weight' from \(8, 5\) to \(8, 6\)"):
        mod.forward(mx.io.DataBatch([mx.nd.ones((4, 6))], [mx.nd.ones((4,))]))
    with pytest.raises(InvalidArgument, match="2 data arrays, expected 1: data"):
        mod.forward(mx.io.DataBatch([mx.nd.ones((4, 5))] * 2))


def test_devices_compute_what_one_does():
    one, two = bound(8), bound(8, context=[mx.cpu(0), mx.cpu(1)])
    three = bound(8, context=[mx.cpu(i) for i in range(3)], work_load_list=[2, 1, 1])
    for mod in (one, two, three):
        mod.forward(batch(8), is_train=False)
    outputs = [mod.get_outputs()[0].asnumpy() for mod in (one, two, three)]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5)
    np.testing.assert_allclose(outputs[0], outputs[2], rtol=1e-5)
    assert [x.shape for x in three.get_outputs(merge_multi_context=False)[0]] == [(4, 3), (2, 3), (2, 3)]


def test_gradients_of_inputs():
    net = mx.sym.Variable("data") * mx.sym.Variable("w")
    mod = mx.mod.Module(net, label_names=None, context=[mx.cpu(0), mx.cpu(1)])
    mod.bind([("data", (4, 2))], inputs_need_grad=True)
    mod.set_params({"w": mx.nd.full((2, 2), 3)}, {})
    mod.forward(Batch([mx.nd.ones((4, 2))]))
    mod.backward([mx.nd.array(np.arange(8).reshape(4, 2))])
    assert mod.get_input_grads()[0].asnumpy().tolist() == [[0, 3], [6, 9], [12, 15], [18, 21]]
    parts = mod.get_input_grads(merge_multi_context=False)[0]
    assert [p.shape for p in parts] == [(2, 2), (2, 2)]


def test_accumulated_gradients():
    once, twice = bound(), mx.mod.Module(mlp())
    twice.bind([("data", (4, 5))], [("softmax_label", (4,))], grad_req="add")
    twice.set_params(*once.get_params())
    for mod, steps in ((once, 1), (twice, 2)):
        for _ in range(steps):
            mod.forward_backward(batch())
    one = once._params.grad_arrays[0]["fc2_weight"].asnumpy()
    np.testing.assert_allclose(twice._params.grad_arrays[0]["fc2_weight"].asnumpy(), 2 * one, rtol=1e-5)


def test_state_inputs_keep_their_values():
    net = mx.sym.Variable("data") + mx.sym.Variable("state")
    mod = mx.mod.Module(net, label_names=None, state_names=["state"])
    mod.bind([("data", (2, 2))], for_training=False)
    mod.init_params()
    mod.set_states(value=5)
    mod.forward(Batch([mx.nd.ones((2, 2))]))
    assert mod.get_outputs()[0].asnumpy().tolist() == [[6, 6], [6, 6]]
    mod.set_states(states=[[mx.nd.ones((2, 2))]])
    assert mod.get_states()[0].asnumpy().tolist() == [[1, 1], [1, 1]]
    with pytest.raises(InvalidArgument, match="either states or value"):
        mod.set_states()


def test_a_shared_module_shares_parameters_and_optimizer():
    mod = bound()
    mod.init_optimizer(optimizer_params={"learning_rate": 0.1})
    other = mx.mod.Module(mlp())
    other.bind([("data", (2, 5))], [("softmax_label", (2,))], shared_module=mod)
    assert other.params_initialized and other.optimizer_initialized
    before = params_of(mod)["fc1_weight"]
    other.forward_backward(batch(2))
    other.update()
    mod.forward(batch(), is_train=False)
    assert not np.array_equal(mod._params.arg_arrays[0]["fc1_weight"].asnumpy(), before)
    assert mod._params is other._params


# ---- training


def test_fit_learns_and_reports(caplog):
    with caplog.at_level(logging.INFO, "dmod"):
        mod = fitted(epochs=25, eval_data=iterator())
    assert mod.score(iterator(), "acc")[0][1] > 0.9
    assert "Epoch[24] Train-accuracy=" in caplog.text and "Epoch[24] Validation-accuracy=" in caplog.text


@pytest.mark.parametrize("context", [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]], ids=["one", "two"])
@pytest.mark.parametrize("kvstore", [None, "local", "device"])
def test_two_runs_give_the_same_bits(context, kvstore):
    one, other = (fitted(context=context, kvstore=kvstore) for _ in range(2))
    assert_equal(params_of(one), params_of(other))


def test_the_store_and_the_worker_update_alike(monkeypatch):
    context = [mx.cpu(0), mx.cpu(1)]
    on_store = fitted(context=context)
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
    assert_equal(params_of(on_store), params_of(fitted(context=context)))


def test_fit_is_the_loop_that_one_writes_by_hand():
    mod = fitted(epochs=2)
    mx.random.seed(3)
    hand = mx.mod.Module(mlp())
    data = iterator()
    hand.bind(data.provide_data, data.provide_label)
    hand.init_params(mx.init.Xavier())
    hand.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
    metric = mx.metric.create("acc")
    for _ in range(2):
        data.reset()
        metric.reset()
        for one in data:
            hand.forward(one, is_train=True)
            hand.update_metric(metric, one.label)
            hand.backward()
            hand.update()
    assert_equal(params_of(mod), params_of(hand))


def test_callbacks_see_what_mxnet_shows_them():
    seen = {"batch": [], "epoch": [], "eval": [], "eval_batch": []}
    fitted(
        epochs=1,
        eval_data=iterator(),
        batch_end_callback=[lambda p: seen["batch"].append((p.epoch, p.nbatch, "data_batch" in p.locals))],
        epoch_end_callback=lambda epoch, symbol, arg, aux: seen["epoch"].append(
            (epoch, symbol.name, len(arg), len(aux))
        ),
        eval_end_callback=lambda p: seen["eval"].append(p.nbatch),
        eval_batch_end_callback=lambda p: seen["eval_batch"].append(p.nbatch),
    )
    assert seen == {
        "batch": [(0, 0, True), (0, 1, True), (0, 2, True)],
        "epoch": [(0, "softmax", 6, 2)],
        "eval": [3],
        "eval_batch": [0, 1, 2],
    }


def test_resuming_from_a_checkpoint_gives_the_bits_of_the_whole_run(tmp_path):
    prefix = str(tmp_path / "net")
    whole = fitted(epochs=4)
    half = fitted(epochs=2)
    half.save_checkpoint(prefix, 2, save_optimizer_states=True)
    again = mx.mod.Module.load(prefix, 2, load_optimizer_states=True)
    again.fit(
        iterator(), begin_epoch=2, num_epoch=4, optimizer_params={"learning_rate": 0.1, "momentum": 0.9}
    )
    assert_equal(params_of(whole), params_of(again))


def test_module_checkpoint_and_do_checkpoint(tmp_path):
    prefix, other = str(tmp_path / "a"), str(tmp_path / "b")
    mod = mx.mod.Module(mlp())
    mod.fit(
        iterator(),
        num_epoch=2,
        epoch_end_callback=[
            mx.callback.do_checkpoint(prefix),
            mx.callback.module_checkpoint(mod, other, save_optimizer_states=True),
        ],
    )
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == [
        "a-0001.params", "a-0002.params", "a-symbol.json",
        "b-0001.params", "b-0001.states", "b-0002.params", "b-0002.states", "b-symbol.json",
    ]  # fmt: skip
    symbol, args, aux = mx.model.load_checkpoint(prefix, 2)
    assert symbol.tojson() == mlp().tojson()
    assert_equal({n: v.asnumpy() for n, v in {**args, **aux}.items()}, params_of(mod))


def test_damaged_states_change_nothing(tmp_path):
    path = tmp_path / "x.states"
    mod = bound()
    mod.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
    mod.forward_backward(batch())
    mod.update()
    mod.save_optimizer_states(str(path))
    good = path.read_bytes()
    before = mod._strategy.get_states().entries[0].arrays[0].copy()
    path.write_bytes(good[:-1])
    with pytest.raises(FormatError, match=r"x\.states"):
        mod.load_optimizer_states(str(path))
    plain = bound()
    plain.init_optimizer()
    path.write_bytes(good)
    with pytest.raises(InvalidArgument, match="expected 0"):
        plain.load_optimizer_states(str(path))
    with pytest.raises(mx.MXNetError, match=r"cannot read .*gone\.states"):
        mod.load_optimizer_states(str(tmp_path / "gone.states"))
    assert np.array_equal(mod._strategy.get_states().entries[0].arrays[0], before)


def test_an_optimizer_of_the_users_own_class_is_applied_array_by_array():
    class Halve(mx.optimizer.Optimizer):
        def create_state(self, index, weight):
            return None

        def update(self, index, weight, grad, state):
            weight[:] = weight * 0.5

    for context in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        mod = bound(context=context)
        before = params_of(mod)["fc1_weight"]
        mod.init_optimizer(optimizer=Halve())
        mod.forward_backward(batch())
        mod.update()
        assert np.array_equal(params_of(mod)["fc1_weight"], before * 0.5)


def test_monitor_reports_through_fit(caplog):
    monitor = mx.mon.Monitor(1, pattern=".*output")
    with caplog.at_level(logging.INFO):
        fitted(epochs=1, monitor=monitor)
    assert "fc1_output" in caplog.text and "softmax_output" in caplog.text


# ---- score and predict


def test_predict_leaves_padding_out():
    mod = fitted(epochs=1)
    x, y = separable(50)
    data = mx.io.NDArrayIter(x, y, 20)
    out = mod.predict(data)
    assert out.shape == (50, 3)
    assert mod.predict(data, num_batch=1).shape == (20, 3)
    assert isinstance(mod.predict(data, always_output_list=True), list)
    assert [o[0].shape for o in mod.predict(data, merge_batches=False)] == [(20, 3), (20, 3), (10, 3)]
    parts = [(pred[0].shape[0], i, b.pad) for pred, i, b in mod.iter_predict(data)]
    assert parts == [(20, 0, 0), (20, 1, 0), (10, 2, 10)]
    assert np.array_equal(mod.predict(x[:20]).asnumpy(), out.asnumpy()[:20])
    assert np.array_equal(mod.predict(mx.nd.array(x[:7])).asnumpy().argmax(1), out.asnumpy()[:7].argmax(1))


def test_score_takes_metrics_in_every_form():
    mod = fitted(epochs=1)
    data = iterator()
    names = [name for name, _ in mod.score(data, ["acc", "ce"])]
    assert names == ["accuracy", "cross-entropy"]
    metric = mx.metric.create("acc")
    mod.score(data, metric, num_batch=1)
    assert metric.num_inst == 20


def test_data_without_labels_can_be_predicted():
    mod = fitted(epochs=1)
    fresh = mx.mod.Module(mlp())
    fresh.bind([("data", (20, 5))], for_training=False)
    fresh.set_params(*mod.get_params())
    out = fresh.predict(mx.io.NDArrayIter(separable()[0], batch_size=20))
    assert np.array_equal(out.asnumpy(), mod.predict(iterator()).asnumpy())


# ---- mistakes that are easily made


def test_updates_and_outputs_need_what_they_are_made_from():
    mod = bound()
    mod.init_optimizer(optimizer_params={"learning_rate": 0.1, "wd": 0.1})
    with pytest.raises(NotReadyError, match=r"update: .* call backward\(\) first"):
        mod.update()
    with pytest.raises(NotReadyError, match=r"get_outputs: .* call forward\(\) first"):
        mod.get_outputs()


def test_labels_that_nobody_takes_are_spoken_of(caplog):
    mod = mx.mod.Module(mlp())
    mod.bind([("data", (4, 5))])
    mod.init_params()
    with caplog.at_level(logging.WARNING, "dmod"):
        mod.forward(batch(), is_train=True)
        mod.forward(batch(), is_train=True)
    assert caplog.text.count("labels are ignored, 'softmax_label' stays zero") == 1


def test_a_label_that_would_be_a_parameter_is_spoken_of(caplog):
    net = mx.sym.SoftmaxOutput(mx.sym.Variable("data"), name="out")
    with caplog.at_level(logging.WARNING, "dmod"):
        mx.mod.Module(net)
    assert "no 'softmax_label'; 'out_label' would be a parameter: name it in label_names" in caplog.text


def test_other_things_than_batches_and_iterators_are_named():
    with pytest.raises(InvalidArgument, match="forward: expected a DataBatch"):
        bound().forward(mx.nd.ones((4, 5)))
    with pytest.raises(InvalidArgument, match="fit: expected an iterator"):
        bound().fit(np.ones((4, 5)), num_epoch=1)


def test_a_store_with_an_optimizer_only_sums_for_a_module_that_updates_itself():
    """The second module's optimizer does not run in the store, where the first one's is installed."""

    class Subtract(mx.optimizer.Optimizer):
        def create_state(self, index, weight):
            return None

        def update(self, index, weight, grad, state):
            weight[:] = weight - grad

    kv = mx.kv.create("local")
    results = []
    for store in (kv, mx.kv.create("local")):
        if store is kv:
            bound(context=[mx.cpu(0), mx.cpu(1)]).init_optimizer(kvstore=kv, optimizer="sgd")
        mod = bound(context=[mx.cpu(0), mx.cpu(1)])
        mod.init_optimizer(kvstore=store, optimizer=Subtract(rescale_grad=0.25))
        mod.forward_backward(batch())
        mod.update()
        results.append(params_of(mod))
    assert_equal(*results)


def test_a_store_has_the_optimizer_of_the_last_module(caplog):
    store = mx.kv.create("local")
    data = mx.io.NDArrayIter(np.ones((4, 3), "f"), np.zeros(4, "f"), 4)
    rates = (0.1, 0.1, 0.2)
    weights = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    modules = [mx.mod.Module(mx.sym.SoftmaxOutput(weights, name="softmax")) for _ in rates]
    for module, rate in zip(modules, rates, strict=True):
        assert not caplog.records
        module.bind(data.provide_data, data.provide_label)
        module.init_params()
        with caplog.at_level(logging.WARNING, "dmod"):
            module.init_optimizer(kvstore=store, optimizer_params={"learning_rate": rate})
    assert (
        "all its modules by SGD(learning_rate=0.2" in caplog.text
        and "asked for SGD(learning_rate=0.1" in caplog.text
    )
