"""FeedForward: arrays in, arrays out."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError


def network():
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def arrays(n=50):
    rng = np.random.RandomState(0)
    x = rng.randn(n, 4)
    return x, (x @ rng.randn(4, 3)).argmax(1)


def model(**kwargs):
    kwargs = {"num_epoch": 30, "numpy_batch_size": 10, "learning_rate": 0.5, "momentum": 0.9, **kwargs}
    return mx.model.FeedForward(network(), **kwargs)


def fitted(**kwargs):
    mx.random.seed(0)
    np.random.seed(0)
    made = model(**kwargs)
    made.fit(*arrays())
    return made


def accuracy(made, x, y):
    return (made.predict(x).argmax(1) == y).mean()


@pytest.mark.parametrize("ctx", [None, mx.cpu(), [mx.cpu(0), mx.cpu(1)]])
def test_fit_and_predict_on_arrays(ctx):
    made, (x, y) = fitted(ctx=ctx), arrays()
    out = made.predict(x)
    assert isinstance(out, np.ndarray) and out.shape == (50, 3) and accuracy(made, x, y) > 0.9
    np.testing.assert_array_equal(made.predict(mx.nd.array(x)), out)
    np.testing.assert_array_equal(made.predict(x[:13]), made.predict(x)[:13])  # the last batch is padded


def test_labels_may_be_a_column():
    made, (x, y) = model(), arrays()
    made.fit(x, y.reshape(-1, 1))
    assert accuracy(made, x, y) > 0.9


def test_fit_takes_iterators_and_evaluates():
    x, y = arrays()
    made, seen = model(num_epoch=2), []
    train = mx.io.NDArrayIter(x, y, 10)
    for eval_data in ((x, y), mx.io.NDArrayIter(x, y, 10)):
        made.fit(train, eval_data=eval_data, eval_end_callback=lambda p: seen.append(p.eval_metric.get()[1]))
    assert len(seen) == 4 and 0 < seen[-1] <= 1


def test_score_is_the_metrics_value():
    made, (x, y) = fitted(), arrays()
    assert made.score(mx.io.NDArrayIter(x, y, 10)) == accuracy(made, x, y)
    assert len(made.score(mx.io.NDArrayIter(x, y, 10), ["acc", "ce"], num_batch=2)) == 2


def test_predict_returns_data_too():
    made, (x, y) = fitted(), arrays()
    data = mx.io.NDArrayIter(x, y, 20)
    out, seen, labels = made.predict(data, return_data=True)
    np.testing.assert_allclose(seen, x, rtol=1e-6)
    np.testing.assert_array_equal(labels, y)
    assert out.shape == (50, 3) and made.predict(data, num_batch=1).shape == (20, 3)
    with pytest.raises(InvalidArgument, match="no batch"):
        list(data)
        made.predict(data, reset=False)


def test_epoch_size_is_in_batches():
    x, y = arrays()
    counts = []
    model(num_epoch=3, epoch_size=2).fit(
        x, y, batch_end_callback=lambda p: counts.append((p.epoch, p.nbatch))
    )
    assert counts == [(e, n) for e in range(3) for n in range(2)]


def test_create_is_construction_and_fit():
    x, y = arrays()
    mx.random.seed(0)
    made = mx.model.FeedForward.create(
        network(), x, y, num_epoch=30, learning_rate=0.5, momentum=0.9, numpy_batch_size=10
    )
    assert accuracy(made, x, y) > 0.9


def test_save_load_and_resume(tmp_path):
    prefix, made, (x, y) = str(tmp_path / "m"), fitted(), arrays()
    made.save(prefix)
    assert (tmp_path / "m-0030.params").exists()
    again = mx.model.FeedForward.load(prefix, 30, num_epoch=32, learning_rate=0.1)
    np.testing.assert_array_equal(again.predict(x), made.predict(x))
    epochs = []
    again.fit(x, y, epoch_end_callback=lambda epoch, *rest: epochs.append(epoch))
    assert epochs == [30, 31]


def test_pickling_keeps_parameters_and_leaves_memory():
    made, (x, _) = fitted(num_epoch=1), arrays()
    out = made.predict(x)
    state = made.__getstate__()
    assert state["_predictor"] is None
    again = model()
    again.__setstate__(state)
    np.testing.assert_array_equal(again.predict(x), out)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).predict(x), out)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mx.model.FeedForward(3), InvalidArgument, "expected a Symbol, got int"),
        (lambda: model(num_epoch=None).fit(*arrays()), InvalidArgument, "num_epoch is missing"),
        (lambda: model().fit(arrays()[0]), InvalidArgument, "y is missing"),
        (lambda: model().fit(arrays()[0], [1, 2]), InvalidArgument, "50 samples, but 2 labels"),
        (lambda: model().fit("data"), InvalidArgument, "an array or a DataIter, got str"),
        (lambda: model().fit(*arrays(), eval_data=(1, 2, 3)), InvalidArgument, "has 3 parts"),
        (lambda: model().predict(arrays()[0]), NotReadyError, r"call fit\(\) first"),
        (lambda: model().save("x"), NotReadyError, r"call fit\(\) first"),
        (lambda: model(num_epoch=None, arg_params={}).save("x"), InvalidArgument, "epoch is missing"),
    ],
)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
