"""MXNet's documented programs run unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from tests.seeds.documents import Document, write_letters

# They ask for 'mse' between class numbers and probabilities, as MXNet permits.
pytestmark = pytest.mark.filterwarnings("ignore:metric mse:")


@pytest.fixture(autouse=True)
def as_mxnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`import mxnet` gives dmod, files go to a directory of the test's own, and random numbers repeat."""
    monkeypatch.setitem(sys.modules, "mxnet", mx)
    monkeypatch.chdir(tmp_path)
    mx.random.seed(3)
    np.random.seed(3)


def digits(count: int = 600, batch_size: int = 20) -> mx.io.NDArrayIter:
    """Ten classes that a linear model could tell apart, for documents that leave the data open."""
    rng = np.random.RandomState(0)
    centres = 4 * rng.standard_normal((10, 64))
    label = rng.randint(10, size=count)
    data = centres[label] + rng.standard_normal((count, 64))
    return mx.io.NDArrayIter(data.astype("float32"), label.astype("float32"), batch_size)


def letters(batch_size: int = 32) -> tuple[mx.io.NDArrayIter, mx.io.NDArrayIter]:
    rows = [line.split(",") for line in Path("letter-recognition.data").read_text().splitlines()]
    data = np.array([row[1:] for row in rows], "float32")
    label = np.array([ord(row[0]) - ord("A") for row in rows], "float32")
    split = int(len(data) * 0.8)
    return (
        mx.io.NDArrayIter(data[:split], label[:split], batch_size, shuffle=True),
        mx.io.NDArrayIter(data[split:], label[split:], batch_size),
    )


def accuracy(module: mx.mod.Module, data: mx.io.NDArrayIter) -> float:
    value = dict(module.score(data, "acc"))["accuracy"]
    data.reset()
    return value


def test_000_module_howto() -> None:
    train = digits()
    document = Document("000", train_dataiter=train, val_dataiter=digits(60), n_epoch=12, n_epoch_load=2)
    document.run()  # the symbol and the module
    document.run()  # bind and init_params
    document.run(("Module(softmax)", "Module(out)"))  # fit
    assert accuracy(document.names["mod"], train) > 0.9
    document.run()  # predict
    document.run(("# do something...", "assert pred_label.shape == label.shape"))  # iter_predict
    document.names["metric"] = mx.metric.create("acc")
    document.run()  # score
    assert document.names["metric"].get()[1] > 0.9
    document.run(("fit(...,", "fit(train_dataiter, num_epoch=2,"))  # with checkpoints
    document.run()  # load_checkpoint
    document.run(("fit(...,", "fit(train_dataiter, num_epoch=4,"))  # resume
    document.assert_all_run()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # the tutorial leaves a file for the collector to close
def test_001_module_tutorial() -> None:
    write_letters(Path("letter-recognition.data"))
    document = Document("001")
    url = (
        "http://archive.ics.uci.edu/ml/machine-learning-databases/letter-recognition/letter-recognition.data"
    )
    document.run((url, str(Path("letter-recognition.data").resolve())))  # the data
    document.run()  # the network, and its plot
    document.run()  # the module
    document.run()  # fit
    assert accuracy(document.names["mod"], document.names["val_iter"]) > 0.9
    document.run()  # predict
    document.run()  # score
    document.run()  # fit with checkpoints
    document.run()  # load_checkpoint
    document.run()  # resume
    assert accuracy(document.names["mod"], document.names["val_iter"]) > 0.9
    document.run()  # the loop written out
    assert accuracy(document.names["mod"], document.names["val_iter"]) > 0.9
    document.assert_all_run()


def test_002_module_overview() -> None:
    document = Document("002", mx=mx)
    document.run()  # the symbol and the module
    document.names.update(data=digits(), new_data=digits(60))
    document.run()  # bind and init_params
    document.run(("num_epoch=10, ...)", "num_epoch=10)"))  # fit and predict
    assert accuracy(document.names["mod"], document.names["data"]) > 0.9
    document.names["data_batch"] = digits().next()
    before = document.names["mod"].get_params()[0]["fc1_weight"].asnumpy()
    document.run()  # forward, backward, update
    assert (before != document.names["mod"].get_params()[0]["fc1_weight"].asnumpy()).any()
    document.assert_all_run()


def test_003_notes_on_the_tutorial() -> None:
    write_letters(Path("letter-recognition.data"))
    train, validation = letters()
    document = Document("003", mx=mx, train_iter=train, val_iter=validation)
    document.run()  # network and module
    document.run()  # the loop written out
    assert accuracy(document.names["mod"], validation) > 0.9
    document.run()  # fit
    assert accuracy(document.names["mod"], validation) > 0.9
    document.run()  # predict
    document.run()  # score
    document.run()  # checkpoints, load, resume
    assert accuracy(document.names["mod"], validation) > 0.9
    document.assert_all_run()


def test_004_api_reference(capsys: pytest.CaptureFixture[str]) -> None:
    train = digits()
    document = Document("004", mx=mx, nd_iter=train, new_nd_iter=digits(60))
    names = document.names
    document.run()  # a module
    document.run()  # bind and init_params
    document.run(("num_epoch=10, ...)", "num_epoch=10)"))  # fit and predict
    names["data_batch"] = digits().next()
    document.run()  # forward, backward, update

    document.run()  # the class's example
    mod = names["mod"]
    mod.fit(train, num_epoch=1, optimizer_params={"learning_rate": 0.1})
    names.update(
        module=mod, eval_data=train, train_dataiter=train, val_dataiter=digits(240), train_iter=train
    )
    document.run()  # score
    document.run(("iterator\n", "iterator\n    assert pred[0].shape == (20, 10)\n"))  # iter_predict
    document.run()  # predict
    train.reset()
    for epoch in (3, 12):
        mod.save_checkpoint("model", epoch)
    names.update(model_prefix="model", n_epoch_load=12)
    document.run()  # fit from a checkpoint
    document.run()  # get_params
    document.run()  # init_params
    document.run()  # set_params
    document.run()  # save_params
    document.run()  # load_params

    capsys.readouterr()
    document.run()  # forward with batches of two shapes
    printed = capsys.readouterr().out
    assert (
        printed.replace(" ", "") == "[[2.2.2.2.2.2.2.2.2.2.]]\n[[2.2.2.2.2.]\n[2.2.2.2.2.]\n[2.2.2.2.2.]]\n"
    )

    names["mod"] = mod = mx.mod.Module(mod.symbol)
    mod.bind(train.provide_data, train.provide_label, inputs_need_grad=True)
    mod.init_params()
    mod.forward(names["data_batch"])
    document.run()  # backward
    document.run()  # get_outputs
    document.run()  # get_input_grads
    assert mod.get_input_grads()[0].shape == (20, 64)
    document.run()  # init_optimizer, backward, update
    names["metric"] = mx.metric.create("acc")
    document.run()  # update_metric

    names["mod"] = mx.mod.Module(mod.symbol)
    document.run(("# Assume", "mod = mx.mod.Module(mod.symbol)\n#"))  # bind
    names["mod"] = mx.mod.Module(mod.symbol)
    names["mod"].bind(train.provide_data, train.provide_label)
    names["mod"].init_params()
    document.run()  # init_optimizer
    document.run()  # set_params of Module
    document.run()  # set_params of BucketingModule, which is the same call
    features = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc1")
    names["mod1"] = mx.mod.Module(features, label_names=None)
    names["mod2"] = mx.mod.Module(
        mx.sym.SoftmaxOutput(mx.sym.Variable("fc1_output"), name="softmax"), ["fc1_output"]
    )
    document.run()  # add to a SequentialModule
    names["seq_mod"].bind(train.provide_data, for_training=False)
    names["seq_mod"].init_params()
    assert names["seq_mod"].predict(digits(60)).shape == (60, 10)
    document.assert_all_run()
