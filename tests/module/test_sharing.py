"""What modules share: parameters, memory and an optimizer with each other, and a network between devices."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError


def placed():
    """Two layers in two groups."""
    with mx.AttrScope(ctx_group="low"):
        net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
        net = mx.sym.Activation(net, act_type="tanh", name="act")
    with mx.AttrScope(ctx_group="high"):
        net = mx.sym.FullyConnected(net, num_hidden=3, name="fc2")
        return mx.sym.SoftmaxOutput(net, name="softmax")


def data(n=40):
    rng = np.random.RandomState(0)
    x = rng.randn(n, 4).astype("float32")
    return mx.io.NDArrayIter(x, (x @ rng.randn(4, 3)).argmax(1).astype("float32"), 20)


def fitted(context=None, kvstore="local", optimizer="sgd", **kwargs):
    mx.random.seed(0)
    mod = mx.mod.Module(placed(), context=context or mx.cpu(), **kwargs)
    mod.fit(
        data(),
        num_epoch=3,
        kvstore=kvstore,
        optimizer=optimizer,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
    )
    return mod


def values(mod):
    return {name: value.asnumpy() for part in mod.get_params() for name, value in part.items()}


# ---- groups of nodes on other devices


@pytest.mark.parametrize("update_on_kvstore", ["0", "1"])
@pytest.mark.parametrize(
    ("context", "group2ctxs"),
    [
        (mx.cpu(0), {"high": mx.cpu(1)}),
        (mx.cpu(0), [{"low": mx.cpu(2), "high": mx.cpu(1)}]),
        ([mx.cpu(0), mx.cpu(1)], {"low": mx.cpu(2), "high": [mx.cpu(3), mx.cpu(4)]}),
        ([mx.cpu(0), mx.cpu(1)], [{"high": mx.cpu(2)}, {"high": mx.cpu(3)}]),
    ],
)
def test_groups_on_other_devices_compute_the_same(monkeypatch, context, group2ctxs, update_on_kvstore):
    monkeypatch.setenv("DMOD_UPDATE_ON_KVSTORE", update_on_kvstore)
    here, there = fitted(context), fitted(context, group2ctxs=group2ctxs)
    for name, value in values(here).items():
        np.testing.assert_array_equal(values(there)[name], value, name)


def test_parameters_lie_where_their_group_is():
    mod = fitted([mx.cpu(0), mx.cpu(1)], group2ctxs={"high": [mx.cpu(2), mx.cpu(3)]})
    executors = mod._exec_group.execs
    assert [e.arg_dict["fc1_weight"].context for e in executors] == [mx.cpu(0), mx.cpu(1)]
    assert [e.arg_dict["fc2_weight"].context for e in executors] == [mx.cpu(2), mx.cpu(3)]
    assert [e.grad_dict["fc2_weight"].context for e in executors] == [mx.cpu(2), mx.cpu(3)]


def test_optimizer_states_of_groups_go_through_a_file(tmp_path):
    mod, other = (fitted(group2ctxs={"high": mx.cpu(1)}) for _ in range(2))
    mod.save_optimizer_states(str(tmp_path / "x.states"))
    other.load_optimizer_states(str(tmp_path / "x.states"))
    assert sorted(other._strategy.get_states().entries) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("context", "group2ctxs", "words"),
    [
        (mx.cpu(), {"low": "cpu"}, "expected a Context"),
        (mx.cpu(), [{}, {}], "2 dicts for 1 devices"),
        ([mx.cpu(0), mx.cpu(1)], {"low": [mx.cpu(0)] * 3}, "3 contexts for 2 devices"),
    ],
)
def test_wrong_groups_are_named(context, group2ctxs, words):
    with pytest.raises(InvalidArgument, match=words):
        mx.mod.Module(placed(), context=context, group2ctxs=group2ctxs)


# ---- modules that share


def bound(**kwargs):
    mod = mx.mod.Module(placed())
    mod.bind(data().provide_data, data().provide_label, **kwargs)
    return mod


def test_borrow_optimizer_uses_the_other_modules_states():
    one = bound()
    one.init_params(mx.init.Xavier())
    two = bound(shared_module=one)
    with pytest.raises(NotReadyError, match=r"init_optimizer\(\) first"):
        two.borrow_optimizer(one)
    one.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
    two.borrow_optimizer(one)
    for mod in (one, two, one):
        mod.forward_backward(data().next())
        mod.update()
    assert one._strategy.get_states().entries[0].count == 3


def test_an_optimizer_of_other_parameters_is_not_borrowed():
    one, two = bound(), bound()
    one.init_params()
    one.init_optimizer()
    with pytest.raises(InvalidArgument, match="share"):
        two.borrow_optimizer(one)


def test_prepare_takes_a_sparse_row_id_fn():
    mod = bound()
    with pytest.warns(UserWarning, match="sparse_row_id_fn has no effect"):
        mod.prepare(data().next(), sparse_row_id_fn=lambda batch: {})


def test_compression_between_devices_leaves_what_mxnet_leaves():
    net = mx.sym.MakeLoss(
        mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
    )
    mod = mx.mod.Module(
        net,
        label_names=None,
        context=[mx.cpu(0), mx.cpu(1)],
        compression_params={"type": "2bit", "threshold": 0.5},
    )
    mod.bind([("data", (2, 3))])
    mod.init_params(mx.init.Zero())
    with pytest.raises(InvalidArgument, match="'local' store moves nothing"):
        mod.init_optimizer("local")
    mod.init_optimizer("device", optimizer_params={"learning_rate": 1.0, "rescale_grad": 1.0})
    batch = mx.io.DataBatch([mx.nd.array([[0.3, 0.6, -2.0], [0.3, 0.2, 0.0]])])
    for _ in range(2):
        mod.forward_backward(batch)
        mod.update()
    # each device keeps what is below the threshold for later
    np.testing.assert_array_equal(mod.get_params()[0]["fc_weight"].asnumpy(), [[-1.0, -1.0, 1.0]])


def test_states_of_all_devices_or_joined():
    net = mx.sym.Variable("data") + mx.sym.Variable("state")
    mod = mx.mod.Module(net, label_names=None, state_names=["state"], context=[mx.cpu(0), mx.cpu(1)])
    mod.bind([("data", (4, 2))], for_training=False)
    mod.init_params()
    mod.set_states(states=[[mx.nd.ones((2, 2)), mx.nd.zeros((2, 2))]])
    assert [x.shape for x in mod.get_states(merge_multi_context=False)[0]] == [(2, 2), (2, 2)]
    assert mod.get_states()[0].asnumpy().tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_the_optimized_symbol_is_the_one_that_was_bound():
    symbol = placed()
    executor = symbol.simple_bind(mx.cpu(), data=(2, 4))
    assert executor.get_optimized_symbol().tojson() == symbol.tojson()


def test_checkpoints_load_and_reshape(tmp_path):
    mod = bound()
    mod.init_params(mx.init.Xavier())
    mod.save_checkpoint(str(tmp_path / "m"), 4)
    again = mx.mod.Module.load(str(tmp_path / "m"), 4)
    again.bind(data().provide_data, data().provide_label)
    x = mx.nd.array(np.random.RandomState(0).randn(6, 4))
    for module in (mod, again):
        module.reshape([("data", (6, 4))], [("softmax_label", (6,))])
        assert module.data_shapes[0].shape == (6, 4)
        module.forward(mx.io.DataBatch([x]), is_train=False)
    np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), again.get_outputs()[0].asnumpy())


def test_a_monitor_sees_other_shapes_too():
    mod, monitor, seen = bound(), mx.mon.Monitor(1, pattern="fc2_output"), []
    mod.init_params()
    mod.install_monitor(monitor)
    for n in (20, 6):
        monitor.tic()
        mod.forward(mx.io.DataBatch([mx.nd.ones((n, 4))]), is_train=False)
        seen += [name for _, name, _ in monitor.toc()]
    assert seen == ["fc2_output", "fc2_output"]


def test_init_params_takes_given_values_and_makes_the_rest():
    mod = bound()
    mod.init_params(mx.init.One(), arg_params={"fc1_weight": mx.nd.full((8, 4), 7)}, allow_missing=True)
    assert (values(mod)["fc1_weight"] == 7).all() and (values(mod)["fc2_weight"] == 1).all()
    mod.init_params(mx.init.Zero())  # they are there already
    assert (values(mod)["fc2_weight"] == 1).all()
    mod.init_params(mx.init.Zero(), force_init=True)
    assert not values(mod)["fc2_weight"].any()
    with pytest.raises(InvalidArgument, match="arg_params lacks 'fc1_bias'"):
        mod.init_params(arg_params={"fc1_weight": mx.nd.full((8, 4), 7)}, force_init=True)
