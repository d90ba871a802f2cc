"""Chains of convolutions in oneDNN's layouts give what the operators one by one give."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.device.onednn import onednn
from dmod.executor import passes
from tests.executor.passes.comparing import assert_agree, found, graph_of, results

if onednn() is None:
    pytest.skip("oneDNN is not installed: there are no blocked layouts", allow_module_level=True)

BLOCKED = "blocked_layouts"


@pytest.fixture(autouse=True)
def fresh_names():
    with mx.name.NameManager():
        yield


def conv(data, filters=16, kernel=(3, 3), pad=(1, 1), **kwargs):
    return mx.sym.Convolution(data, num_filter=filters, kernel=kernel, pad=pad, **kwargs)


def relu(data):
    return mx.sym.Activation(data, act_type="relu")


def tanh(data):
    return mx.sym.Activation(data, act_type="tanh")


def pool(data, kernel=(2, 2), stride=(2, 2), kind="max", **kwargs):
    return mx.sym.Pooling(data, kernel=kernel, stride=stride, pool_type=kind, **kwargs)


def norm(data, **kwargs):
    return mx.sym.BatchNorm(data, fix_gamma=False, eps=1e-4, **kwargs)


DATA = mx.sym.Variable("data")


def residual():
    """A unit whose shortcut is the block's input, and one with a convolution in it."""
    body = relu(norm(conv(DATA)))
    body = relu(conv(tanh(norm(conv(body)))) + body)
    left = conv(body, 32, stride=(2, 2))
    return left + conv(body, 32, (1, 1), (0, 0), stride=(2, 2))


# Network; shape of the data; how many operators oneDNN computes. tanh and pooling by averages keep results
# smooth, so that rounding does not decide which way a gradient goes.
NETWORKS = {
    "convolution": (conv(DATA), (2, 16, 6, 6), 1),
    "no bias": (conv(DATA, no_bias=True), (2, 16, 6, 6), 1),
    "three channels": (conv(DATA), (2, 3, 8, 8), 1),
    "one channel": (conv(DATA, 20, (5, 5), (0, 0)), (2, 1, 12, 12), 1),
    "no multiple of 8": (conv(DATA, 50, (5, 5), (0, 0)), (3, 20, 12, 12), 1),
    "small output": (conv(conv(DATA, 12), 20, (5, 5), (0, 0)), (9, 3, 8, 7), 2),
    "groups": (conv(DATA, 32, num_group=2), (2, 32, 5, 5), 1),
    "depthwise": (conv(DATA, 16, num_group=16), (2, 16, 6, 6), 1),
    "dilation": (conv(DATA, 16, pad=(2, 2), dilate=(2, 2)), (2, 16, 8, 8), 1),
    "stride": (conv(DATA, 32, stride=(2, 2)), (2, 16, 9, 9), 1),
    "one axis": (conv(DATA, 16, (3,), (1,)), (2, 16, 9), 1),
    "three axes": (conv(DATA, 16, (3, 3, 3), (1, 1, 1)), (2, 16, 4, 4, 4), 1),
    "function": (tanh(conv(DATA)), (2, 3, 8, 8), 2),
    "sigmoid": (mx.sym.Activation(conv(DATA, 20), act_type="sigmoid"), (2, 3, 8, 8), 2),
    "batch norm": (norm(conv(DATA)), (4, 3, 8, 8), 2),
    "batch norm, function": (tanh(norm(conv(DATA))), (4, 3, 8, 8), 3),
    "batch norm, ReLU": (relu(norm(conv(DATA))), (4, 3, 8, 8), 3),
    "gamma held": (mx.sym.BatchNorm(conv(DATA), eps=1e-3), (4, 3, 8, 8), 2),
    "global statistics": (norm(conv(DATA), use_global_stats=True), (4, 3, 8, 8), 2),
    "maximum": (pool(conv(DATA)), (2, 3, 8, 8), 2),
    "maximum, overlapping": (pool(conv(DATA), (3, 3), (2, 2), pad=(1, 1)), (2, 3, 8, 8), 2),
    "maximum, full": (pool(conv(DATA), (3, 3), (2, 2), pooling_convention="full"), (2, 3, 8, 8), 2),
    "average": (pool(conv(DATA), (3, 3), (2, 2), "avg", pad=(1, 1)), (2, 3, 9, 9), 2),
    "average without pad": (
        pool(conv(DATA), (3, 3), (2, 2), "avg", pad=(1, 1), count_include_pad=False),
        (2, 3, 8, 8),
        2,
    ),
    "average of all": (mx.sym.Pooling(conv(DATA), global_pool=True, pool_type="avg"), (2, 3, 8, 8), 2),
    "maximum of a function": (pool(tanh(conv(DATA))), (2, 3, 8, 8), 3),
    "maximum of a normalised function": (pool(tanh(norm(conv(DATA, 20)))), (4, 3, 8, 8), 4),
    "sum": (conv(DATA) + conv(DATA, 16, (1, 1), (0, 0)), (2, 16, 6, 6), 3),
    "sum of one twice": (conv(DATA) * 2 + tanh(conv(DATA)), (2, 16, 6, 6), 3),
    "function of a sum": (relu(norm(conv(DATA)) + norm(conv(DATA))), (2, 16, 6, 6), 6),
    "flattened": (mx.sym.FullyConnected(mx.sym.Flatten(pool(conv(DATA))), num_hidden=5), (2, 3, 8, 8), 2),
    "residual": (residual(), (4, 16, 8, 8), 12),
    "read twice": (mx.sym.Group([tanh(conv(DATA, name="c")), mx.sym.sin(conv(DATA))]), (2, 16, 6, 6), 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_agrees_with_the_plain_operators(name, monkeypatch):
    symbol, shape, count = NETWORKS[name]
    assert found(symbol, BLOCKED, data=shape) == count
    assert_agree(monkeypatch, BLOCKED, symbol, {"data": shape}, rtol=2e-4, atol=2e-4, runs=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_agrees_with_the_plain_operators(name, monkeypatch):
    symbol, shape, _ = NETWORKS[name]
    assert_agree(monkeypatch, BLOCKED, symbol, {"data": shape}, rtol=2e-4, atol=2e-4, is_train=False)


@pytest.mark.parametrize("name", ["no multiple of 8", "batch norm, ReLU", "residual"])
def test_two_runs_have_equal_bits(name, monkeypatch):
    symbol, shape, _ = NETWORKS[name]
    first, second = (results(monkeypatch, "all", symbol, {"data": shape}) for _ in range(2))
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key], err_msg=key)


@pytest.mark.parametrize(
    "reqs",
    [
        {"data": "null", "convolution0_weight": "write", "convolution0_bias": "null"},
        {"data": "write", "convolution0_weight": "null", "convolution0_bias": "null"},
        {"data": "null", "convolution0_weight": "null", "convolution0_bias": "write"},
        {"data": "add", "convolution0_weight": "add", "convolution0_bias": "add"},
    ],
    ids=["weight", "data", "bias", "add"],
)
def test_only_the_gradients_that_are_wanted_are_written(reqs, monkeypatch):
    assert_agree(
        monkeypatch, BLOCKED, tanh(conv(DATA)), {"data": (2, 16, 6, 6)}, 2e-4, 2e-4, grad_req=reqs, runs=2
    )


def test_an_output_that_others_read_too_is_given_in_both_layouts(monkeypatch):
    first = conv(DATA, name="first")
    symbol = mx.sym.Group([first, conv(first), mx.sym.sin(first)])
    assert found(symbol, BLOCKED, data=(2, 16, 6, 6)) == 2
    assert_agree(monkeypatch, BLOCKED, symbol, {"data": (2, 16, 6, 6)}, 2e-4, 2e-3)


def test_a_sum_and_a_function_become_part_of_the_convolution():
    graph = graph_of(relu(conv(DATA) + conv(DATA)), data=(2, 16, 6, 6))
    passes.apply(graph, f"none,{BLOCKED}")
    names = [node.op.name for node in graph.order if node.op is not None]
    assert names.count("_onednn_convolution") == 2
    assert "_onednn_addition" not in names and "_onednn_function" not in names


def test_what_is_not_float32_or_not_one_of_its_operators_stays_plain():
    assert found(conv(DATA), BLOCKED, type_dict={"data": np.float64}, data=(2, 16, 6, 6)) == 0
    assert found(norm(DATA), BLOCKED, data=(2, 16, 6, 6)) == 0
    assert found(pool(conv(DATA), kind="sum"), BLOCKED, data=(2, 16, 6, 6)) == 1
    assert found(norm(conv(DATA), axis=2), BLOCKED, data=(2, 16, 6, 6)) == 1
    assert found(norm(conv(DATA), output_mean_var=True)[1], BLOCKED, data=(2, 16, 6, 6)) == 1


def test_without_the_library_nothing_is_found(without_onednn):
    assert found(conv(DATA), BLOCKED, data=(2, 16, 6, 6)) == 0


def test_a_module_trains_on_any_batch_size_and_number_of_contexts():
    """Two contexts sum the same gradients as one, and a last batch of another size is reshaped."""
    net = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.Flatten(pool(relu(conv(DATA, name="c")))), num_hidden=4, name="fc"),
        name="softmax",
    )
    rng = np.random.RandomState(1)
    data, label = rng.rand(8, 3, 8, 8).astype("float32"), rng.randint(4, size=8)
    weights = []
    for contexts in ([mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]):
        module = mx.mod.Module(net, context=contexts)
        module.bind([("data", (4, 3, 8, 8))], [("softmax_label", (4,))])
        mx.random.seed(3)
        module.init_params(mx.init.Xavier())
        module.init_optimizer(optimizer_params={"learning_rate": 0.1})
        for start, stop in ((0, 4), (4, 6), (4, 8)):
            batch = mx.io.DataBatch([mx.nd.array(data[start:stop])], [mx.nd.array(label[start:stop])])
            module.forward_backward(batch)
            module.update()
        weights.append({k: v.asnumpy() for k, v in module.get_params()[0].items()})
    for name, array in weights[0].items():
        np.testing.assert_allclose(array, weights[1][name], rtol=1e-4, atol=1e-6, err_msg=name)
