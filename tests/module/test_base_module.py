"""BaseModule: what it does with the few methods that a kind of module provides, and which ones it wants."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError


class Scale(mx.mod.BaseModule):
    """Multiplies by one number, and learns it by gradient descent: the interface without any symbol."""

    def __init__(self):
        super().__init__()
        self.w = mx.nd.zeros((1,))
        self.calls = []

    @property
    def data_names(self):
        return ["x"]

    @property
    def output_names(self):
        return ["y"]

    data_shapes = label_shapes = output_shapes = ()

    def bind(self, data_shapes, label_shapes=None, for_training=True, **kwargs):
        self.data_shapes, self.label_shapes = data_shapes, label_shapes
        self.output_shapes = [("y", data_shapes[0][1])]
        self.binded, self.for_training = True, for_training

    def init_params(self, initializer=None, arg_params=None, aux_params=None, **kwargs):
        if arg_params:
            self.w = arg_params["w"].copy()
        self.params_initialized = True

    def get_params(self):
        return {"w": self.w.copy()}, {}

    def init_optimizer(self, kvstore="local", optimizer="sgd", optimizer_params=(), force_init=False):
        self.rate = dict(optimizer_params)["learning_rate"]
        self.optimizer_initialized = True

    def install_monitor(self, mon):
        self.calls.append("install_monitor")

    def prepare(self, data_batch, sparse_row_id_fn=None):
        self.calls.append("prepare")

    def forward(self, data_batch, is_train=None):
        self.x, self.label = data_batch.data[0].asnumpy(), data_batch.label
        self.calls.append(f"forward {is_train}")

    def get_outputs(self, merge_multi_context=True):
        return [mx.nd.array(self.x * self.w.asnumpy())]

    def backward(self, out_grads=None):
        error = self.x * self.w.asnumpy() - self.label[0].asnumpy()
        self.grad = float((error * self.x).mean())
        self.calls.append("backward")

    def update(self):
        self.w -= self.rate * self.grad
        self.calls.append("update")

    def update_metric(self, eval_metric, labels, pre_sliced=False):
        eval_metric.update(labels, self.get_outputs())


def data(n=10):
    x = np.linspace(1, 2, n, dtype="float32")
    return mx.io.NDArrayIter(x, 3 * x, 4, last_batch_handle="pad", data_name="x", label_name="l")


def ready():
    mod = Scale()
    mod.bind(data().provide_data)
    mod.init_params(arg_params={"w": mx.nd.full((1,), 2)})
    return mod


def test_fit_needs_no_more_than_the_interface():
    mod, epochs = Scale(), []
    mod.fit(
        data(12),
        eval_metric="mse",
        num_epoch=9,
        optimizer_params={"learning_rate": 0.3},
        epoch_end_callback=lambda epoch, symbol, args, aux: epochs.append((epoch, symbol, sorted(args))),
    )
    assert mod.binded and mod.params_initialized and mod.optimizer_initialized
    np.testing.assert_allclose(mod.get_params()[0]["w"].asnumpy(), [3], rtol=1e-3)
    assert epochs == [(i, None, ["w"]) for i in range(9)]
    assert mod.calls[:4] == ["forward True", "backward", "update", "prepare"]


def test_forward_backward_is_both_in_training():
    mod = ready()
    mod.forward_backward(data().next())
    assert mod.calls == ["forward True", "backward"]


def test_predict_and_iter_predict_leave_padding_out():
    mod, x = ready(), np.linspace(1, 2, 10, dtype="float32")
    np.testing.assert_allclose(mod.predict(data()).asnumpy(), 2 * x)
    assert [out.shape for out in mod.predict(data(), always_output_list=True)] == [(10,)]
    assert mod.predict(data(), num_batch=2).shape == (8,)
    parts = mod.predict(data(), merge_batches=False)
    assert [out.shape for (out,) in parts] == [(4,), (4,), (2,)]
    seen = [(i, out[0].shape, batch.pad) for out, i, batch in mod.iter_predict(data(), num_batch=3)]
    assert seen == [(0, (4,), 0), (1, (4,), 0), (2, (2,), 2)]


def test_score_calls_back():
    mod, batches, ends = ready(), [], []
    result = mod.score(
        data(12),
        "mse",
        num_batch=2,
        batch_end_callback=lambda p: batches.append(p.nbatch),
        score_end_callback=lambda p: ends.append((p.epoch, p.nbatch)),
        epoch=7,
    )
    x = np.linspace(1, 2, 12)[:8]
    assert result[0][0] == "mse" and abs(result[0][1] - (x**2).mean()) < 1e-5
    assert batches == [0, 1] and ends == [(7, 2)]


def test_parameters_go_through_files_and_set_params(tmp_path):
    mod, other = ready(), ready()
    mod.set_params({"w": mx.nd.full((1,), 5)}, {})
    mod.save_params(str(tmp_path / "w.params"))
    other.load_params(str(tmp_path / "w.params"))
    assert other.get_params()[0]["w"].asscalar() == 5


def test_a_module_without_states_has_none():
    mod = ready()
    assert mod.get_states() == []
    mod.set_states(states=[])
    with pytest.raises(InvalidArgument, match="Scale has no states"):
        mod.set_states(value=1)
    with pytest.raises(NotReadyError, match=r"call bind\(\) first"):
        Scale().get_states()


def test_prepare_does_nothing_by_itself_and_says_so_of_sparse_rows():
    mod = mx.mod.BaseModule()
    mod.prepare(data().next())
    with pytest.warns(UserWarning, match="sparse_row_id_fn"):
        mod.prepare(data().next(), sparse_row_id_fn=lambda batch: {})


def test_the_symbol_of_a_module_without_one_is_none():
    assert ready().symbol is None


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.data_names,
        lambda m: m.output_names,
        lambda m: m.data_shapes,
        lambda m: m.label_shapes,
        lambda m: m.output_shapes,
        lambda m: m.get_params(),
        lambda m: m.init_params(),
        lambda m: m.bind([("data", (1,))]),
        lambda m: m.init_optimizer(),
        lambda m: m.forward(None),
        lambda m: m.backward(),
        lambda m: m.update(),
        lambda m: m.get_outputs(),
        lambda m: m.get_input_grads(),
        lambda m: m.update_metric(None, []),
        lambda m: m.install_monitor(None),
    ],
)
def test_what_a_kind_of_module_must_provide(call):
    with pytest.raises(NotImplementedError):
        call(mx.mod.BaseModule())
