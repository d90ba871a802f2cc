"""BucketingModule: one set of parameters, one memory, one optimizer for networks of several lengths."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError


def recurrent(length):
    """A recurrent net, unrolled; the words of a vocabulary of 7 are embedded, the last state classified."""
    words = mx.sym.Variable("data")
    embedded = mx.sym.Embedding(words, input_dim=7, output_dim=4, name="embed")
    steps = mx.sym.SliceChannel(embedded, num_outputs=length, axis=1, squeeze_axis=True)
    x_weight, h_weight = mx.sym.Variable("x_weight"), mx.sym.Variable("h_weight")
    state = None
    for i in range(length):
        step = steps[i] if length > 1 else steps
        x = mx.sym.FullyConnected(step, x_weight, num_hidden=6, no_bias=True, name=f"x{i}")
        h = mx.sym.FullyConnected(state, h_weight, num_hidden=6, no_bias=True, name=f"h{i}") if i else None
        state = mx.sym.tanh(x + h if i else x)
    net = mx.sym.FullyConnected(state, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax"), ("data",), ("softmax_label",)


def batch(length, seed=0, n=5, label=True):
    rng = np.random.RandomState(seed)
    words, y = rng.randint(7, size=(n, length)), rng.randint(3, size=n)
    return mx.io.DataBatch(
        [mx.nd.array(words)],
        [mx.nd.array(y)] if label else None,
        bucket_key=length,
        provide_data=[mx.io.DataDesc("data", (n, length))],
        provide_label=[mx.io.DataDesc("softmax_label", (n,))] if label else None,
    )


class Sentences(mx.io.DataIter):
    """Batches whose class is the last word's, modulo 3; their lengths alternate."""

    def __init__(self, lengths=(3, 5, 2), n=20, count=12, default=5):
        super().__init__(n)
        rng = np.random.RandomState(1)
        self.default_bucket_key = default
        self.provide_data = [mx.io.DataDesc("data", (n, default))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (n,))]
        self.batches, self.at = [], 0
        for i in range(count):
            made = batch(lengths[i % len(lengths)], n=n)
            words = rng.randint(7, size=made.data[0].shape)
            made.data, made.label = [mx.nd.array(words)], [mx.nd.array(words[:, -1] % 3)]
            self.batches.append(made)

    def reset(self):
        self.at = 0

    def next(self):
        if self.at == len(self.batches):
            raise StopIteration
        self.at += 1
        return self.batches[self.at - 1]


def bound(default=5, optimizer=None, sym_gen=recurrent, **kwargs):
    mod = mx.mod.BucketingModule(sym_gen, default_bucket_key=default, **kwargs)
    mod.bind([("data", (5, default))], [("softmax_label", (5,))])
    mx.random.seed(1)
    mod.init_params(mx.init.Xavier())
    if optimizer:
        mod.init_optimizer(optimizer_params=optimizer)
    return mod


def params_of(mod):
    return {name: value.asnumpy().copy() for part in mod.get_params() for name, value in part.items()}


def single(length, values):
    """A plain module for one length, to compare with."""
    symbol, data_names, label_names = recurrent(length)
    mod = mx.mod.Module(symbol, data_names, label_names)
    mod.bind([("data", (5, length))], [("softmax_label", (5,))])
    mod.set_params({name: mx.nd.array(value) for name, value in values.items()}, {}, allow_extra=True)
    return mod


def test_names_shapes_and_symbol_are_the_current_buckets():
    mod = mx.mod.BucketingModule(recurrent, default_bucket_key=5)
    assert mod.data_names == ["data"] and mod.output_names == ["softmax_output"]
    for call in (lambda: mod.symbol, lambda: mod.data_shapes, lambda: mod.output_shapes):
        with pytest.raises(NotReadyError, match=r"call bind\(\) first"):
            call()
    mod = bound()
    whole = mod.symbol
    assert mod.data_shapes[0].shape == (5, 5) and mod.label_shapes[0].shape == (5,)
    mod.switch_bucket(3, [("data", (5, 3))], [("softmax_label", (5,))])
    assert mod.data_shapes[0].shape == (5, 3) and mod.label_shapes[0].shape == (5,)
    assert mod.output_shapes == [("softmax_output", (5, 3))]
    assert len(mod.symbol.get_internals().list_outputs()) < len(whole.get_internals().list_outputs())


def test_forward_backward_update_do_what_a_module_of_that_length_does():
    mod = bound(optimizer={"learning_rate": 0.5})
    for length in (3, 5, 2):
        other = single(length, params_of(mod))
        other.init_optimizer(optimizer_params={"learning_rate": 0.5})
        for m in (mod, other):
            m.forward(batch(length), is_train=True)
            m.backward()
            m.update()
        np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), other.get_outputs()[0].asnumpy())
        for name, value in params_of(other).items():
            np.testing.assert_array_equal(params_of(mod)[name], value, name)


def test_get_and_set_params_are_those_of_all_buckets():
    mod = bound()
    mod.forward(batch(3))
    values = {name: mx.nd.array(np.full_like(value, 0.25)) for name, value in params_of(mod).items()}
    mod.set_params(values, {})
    mod.forward(batch(2), is_train=False)
    other = single(2, {name: value.asnumpy() for name, value in values.items()})
    other.forward(batch(2), is_train=False)
    np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), other.get_outputs()[0].asnumpy())
    mod.init_params(mx.init.One(), force_init=True)
    assert (mod.get_params()[0]["fc_weight"].asnumpy() == 1).all()


def test_init_params_reaches_buckets_that_were_bound_before():
    mod = mx.mod.BucketingModule(recurrent, default_bucket_key=5)
    mod.bind([("data", (5, 5))], [("softmax_label", (5,))])
    mod.switch_bucket(2, [("data", (5, 2))], [("softmax_label", (5,))])
    mod.init_params()
    mod.forward(batch(2))
    assert mod.get_outputs()[0].shape == (5, 3)


def test_gradients_of_what_a_bucket_does_not_use_are_zero():
    mod = bound(optimizer={"learning_rate": 0.5})
    mod.forward_backward(batch(5))
    gradient = mod._default._params.grad_arrays[0]["h_weight"]
    assert gradient.asnumpy().any()
    mod.forward_backward(batch(1))  # one word: no recurrence
    assert not gradient.asnumpy().any()
    before = params_of(mod)
    mod.update()
    after = params_of(mod)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "embed_weight",
        "x_weight",
        "fc_weight",
        "fc_bias",
    }


def test_accumulated_gradients_stay_when_a_bucket_does_not_use_them():
    mod = mx.mod.BucketingModule(recurrent, default_bucket_key=5)
    mod.bind([("data", (5, 5))], [("softmax_label", (5,))], grad_req="add")
    mod.init_params(mx.init.Xavier())
    mod.forward_backward(batch(5))
    gradient = mod._default._params.grad_arrays[0]["h_weight"]
    before = gradient.asnumpy()
    mod.forward_backward(batch(1))
    np.testing.assert_array_equal(gradient.asnumpy(), before)


def test_the_optimizer_is_one_for_all_buckets():
    mod = bound(optimizer={"learning_rate": 0.1, "momentum": 0.9})
    for length in (5, 3, 5, 2):
        mod.forward_backward(batch(length))
        mod.update()
    assert mod._buckets[3]._strategy is mod._buckets[2]._strategy is mod._default._strategy
    assert mod._default._strategy.get_states().entries[0].count == 4


def test_prepare_binds_a_bucket_and_keeps_the_current_one():
    mod = bound()
    mod.forward(batch(3), is_train=False)
    outputs = mod.get_outputs()[0].asnumpy().copy()
    mod.prepare(batch(2))
    assert 2 in mod._buckets and mod.data_shapes[0].shape == (5, 3)
    np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), outputs)
    with pytest.warns(UserWarning, match="sparse_row_id_fn"):
        mod.prepare(batch(2), sparse_row_id_fn=lambda b: {})


def test_memory_grows_with_the_largest_bucket_not_with_their_number():
    def trained(lengths):
        mod = bound(12, optimizer={"learning_rate": 0.1})
        for length in lengths:
            mod.forward_backward(batch(length))
            mod.update()
        return mod

    one = trained([12])
    for lengths in ([12, 9, 6, 3, 2], [2, 3, 6, 9, 12]):
        many = trained(lengths)
        assert len(many._buckets) == 5
        assert (
            many._default._devices.workspaces[0]._block.size
            == one._default._devices.workspaces[0]._block.size
        )
        assert many._default._devices.nbytes == one._default._devices.nbytes
        for module in many._buckets.values():
            assert module._devices is many._default._devices
            assert np.shares_memory(module._exec_group.execs[0].outputs[0]._data, many.get_outputs()[0]._data)


def test_plans_over_an_outgrown_block_are_dropped_and_come_again():
    mod = bound(2)  # the default bucket is the smallest
    mod.forward(batch(2), is_train=False)
    first = mod.get_outputs()[0].asnumpy().copy()
    workspace = mod._default._devices.workspaces[0]
    size, small = workspace._block.size, weakref.ref(workspace._block)
    mod.forward_backward(batch(9, n=50))
    assert workspace._block.size > size
    gc.collect()
    assert small() is None  # nobody keeps the old memory
    assert not mod._default._exec_group.execs[0]._plans
    mod.forward(batch(2), is_train=False)
    np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), first)


def test_input_gradients_and_bind_twice():
    def sym_gen(length):
        weight = mx.sym.Variable("weight", shape=(1, 1))
        return mx.sym.broadcast_mul(mx.sym.Variable("data"), weight), ["data"], None

    mod = mx.mod.BucketingModule(sym_gen, default_bucket_key=3)
    mod.bind([("data", (2, 3))], inputs_need_grad=True)
    mod.init_params(mx.init.Constant(4))
    mod.forward(mx.io.DataBatch([mx.nd.ones((2, 2))], bucket_key=2, provide_data=[("data", (2, 2))]))
    mod.backward([mx.nd.ones((2, 2))])
    assert (mod.get_input_grads()[0].asnumpy() == 4).all()
    assert mod.get_input_grads(merge_multi_context=False)[0][0].shape == (2, 2)
    mod.bind([("data", (6, 3))], for_training=False, force_rebind=True)
    assert mod.data_shapes[0].shape == (6, 3) and list(mod._buckets) == [3]
    assert (mod.get_params()[0]["weight"].asnumpy() == 4).all()


def test_states_are_the_current_buckets():
    def sym_gen(length):
        return mx.sym.Variable("data") + mx.sym.Variable("state"), ["data"], None

    mod = mx.mod.BucketingModule(sym_gen, default_bucket_key=3, state_names=["state"])
    mod.bind([("data", (1, 3))], for_training=False)
    mod.init_params()
    mod.set_states(value=2)
    assert mod.get_states()[0].asnumpy().tolist() == [[2, 2, 2]]
    mod.switch_bucket(1, [("data", (1, 1))])
    mod.set_states(states=[[mx.nd.full((1, 1), 9)]])
    assert mod.get_states()[0].asnumpy().tolist() == [[9]]


def test_metric_and_monitor_follow_the_bucket():
    mod, seen = bound(), []
    monitor = mx.mon.Monitor(1, pattern="fc_output")
    mod.install_monitor(monitor)
    metric = mx.metric.create("acc")
    for length in (5, 2):
        monitor.tic()
        mod.forward(batch(length))
        mod.update_metric(metric, batch(length).label)
        seen += [name for _, name, _ in monitor.toc()]
    assert metric.num_inst == 10 and seen == ["fc_output", "fc_output"]


@pytest.mark.parametrize("context", [mx.cpu(), [mx.cpu(0), mx.cpu(1)]])
def test_fit_learns_over_buckets(context):
    mx.random.seed(2)
    mod = mx.mod.BucketingModule(recurrent, default_bucket_key=5, context=context)
    train = Sentences()
    mod.fit(
        train,
        num_epoch=30,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.5, "momentum": 0.9},
    )
    train.reset()
    assert dict(mod.score(train, "acc"))["accuracy"] > 0.9
    assert sorted(mod._buckets) == [2, 3, 5]
    train.reset()
    assert len(mod.predict(train, merge_batches=False)) == 12


def test_checkpoints_are_mxnets(tmp_path):
    mod = bound()
    mod.forward(batch(2))
    prefix = str(tmp_path / "model")
    mod.save_checkpoint(prefix, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-0003.params",
        "model-2-symbol.json",
        "model-5-symbol.json",
        "model.buckets",
    ]
    assert mx.nd.load(f"{prefix}.buckets")[0].asnumpy().tolist() == [5, 2]
    for again in (
        mx.mod.BucketingModule.load(prefix, 3, sym_gen=recurrent, default_bucket_key=5),
        mx.mod.BucketingModule.load(prefix, 3, sym_gen=recurrent),
        mx.mod.BucketingModule.load_dict({2: recurrent(2)[0]}, recurrent, 5, *mod.get_params()),
    ):
        assert again.params_initialized and not again.binded
        again.bind([("data", (5, 5))], [("softmax_label", (5,))])
        for length in (5, 2):
            again.forward(batch(length), is_train=False)
            mod.forward(batch(length), is_train=False)
            np.testing.assert_array_equal(mod.get_outputs()[0].asnumpy(), again.get_outputs()[0].asnumpy())
    with pytest.raises(InvalidArgument, match="sym_gen is missing"):
        mx.mod.BucketingModule.load(prefix, 3)
    with pytest.raises(InvalidArgument, match="arg_params is missing"):
        mx.mod.BucketingModule.load_dict({}, recurrent, 5)


def test_optimizer_states_go_through_a_file(tmp_path):
    mod = bound(optimizer={"learning_rate": 0.1, "momentum": 0.9})
    mod.forward_backward(batch(3))
    mod.update()
    mod.save_optimizer_states(str(tmp_path / "x.states"))
    other = bound(optimizer={"learning_rate": 0.1, "momentum": 0.9})
    other.load_optimizer_states(str(tmp_path / "x.states"))
    assert other._default._strategy.get_states().entries[0].count == 1


def wider(length):
    net = recurrent(length)[0].get_internals()["fc_output"]
    if length == 9:
        net = mx.sym.FullyConnected(net, num_hidden=3, name="extra")
    return mx.sym.SoftmaxOutput(net, name="softmax"), ("data",), ("softmax_label",)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mx.mod.BucketingModule(None, 5), "sym_gen is None"),
        (lambda: mx.mod.BucketingModule(recurrent), "default_bucket_key is missing"),
        (lambda: mx.mod.BucketingModule(lambda k: recurrent(k)[0], 5), "returned Symbol, expected"),
        (lambda: mx.mod.BucketingModule(lambda k: (None, [], []), 5), "expected a Symbol, got NoneType"),
        (
            lambda: mx.mod.BucketingModule(recurrent, 5, compression_params={"type": "3bit"}),
            "unknown type '3bit'",
        ),
        (lambda: bound().bind([("data", (5, 5))], shared_module=bound(), force_rebind=True), "cannot share"),
        (lambda: bound().bind([("data", (5, 5))], grad_req=["write"], force_rebind=True), "one word for all"),
        (lambda: bound().forward(mx.io.DataBatch([mx.nd.ones((5, 5))])), "the batch has no bucket_key"),
        (lambda: bound().forward(mx.io.DataBatch([mx.nd.ones((5, 5))], bucket_key=5)), "no provide_data"),
        (lambda: bound(sym_gen=wider).forward(batch(9)), "bucket 9: .*'extra_weight', 'extra_bias'.*default"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(InvalidArgument, match=words):
        call()


def test_an_unknown_bucket_key_changes_nothing():
    known = {5: recurrent(5), 2: recurrent(2)}
    mod = bound(sym_gen=known.__getitem__)
    with pytest.raises(InvalidArgument, match="sym_gen knows no bucket 3"):
        mod.forward(batch(3))
    assert mod.data_shapes[0].shape == (5, 5)
    mod.forward(batch(2))
