"""What mx.rnn does with weights and sentences, asked of MXNet and of dmod in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np

MODES = [("lstm", 2, True), ("gru", 1, False), ("rnn_tanh", 2, False), ("rnn_relu", 1, True)]
SENTENCES = [list(range(k, k + 1 + k * 7 % 9)) for k in range(60)]


def _lists(arrays: Any) -> Any:
    return {name: array.asnumpy().tolist() for name, array in arrays.items()}


def _shapes(net: Any) -> Any:
    shapes = net.infer_shape(data=(1, 2, 3))[0]
    return {name: shapes[i] for i, name in enumerate(net.list_arguments())}


def _unpacked(mx: Any) -> Any:
    """Every packed vector with its elements' numbers as values, taken apart."""
    found = {}
    for mode, layers, both in MODES:
        cell = mx.rnn.FusedRNNCell(2, layers, mode, both, prefix=mode + "_p_")
        net, _ = cell.unroll(2, mx.sym.Variable("data"), merge_outputs=True)
        sizes = _shapes(net)
        name = mode + "_p_parameters"
        found[mode] = _lists(cell.unpack_weights({name: mx.nd.arange(sizes[name][0])}))
    return found


def _unpacked_dense(mx: Any) -> Any:
    """The gates of single cells."""
    found = {}
    for cell, gates in ((mx.rnn.LSTMCell(2), 4), (mx.rnn.GRUCell(2), 3), (mx.rnn.RNNCell(2), 1)):
        prefix = cell.params._prefix
        rows = 2 * gates
        args = {
            prefix + "i2h_weight": mx.nd.arange(rows * 3).reshape((rows, 3)),
            prefix + "h2h_weight": mx.nd.arange(rows * 2).reshape((rows, 2)),
            prefix + "i2h_bias": mx.nd.arange(rows),
            prefix + "h2h_bias": mx.nd.arange(rows),
            "other": mx.nd.ones((1,)),
        }
        found.update(_lists(cell.unpack_weights(args)))
    return found


def _initialized(mx: Any) -> Any:
    """Packed vectors initialized by way of the variable's attribute."""
    found = {}
    for mode, layers, both in MODES:
        net, _ = mx.rnn.FusedRNNCell(2, layers, mode, both, forget_bias=4.0, prefix="q_").unroll(
            2, mx.sym.Variable("data"), merge_outputs=True
        )
        sizes = _shapes(net)
        array = mx.nd.zeros(sizes["q_parameters"])
        mx.init.Constant(7)(mx.init.InitDesc("q_parameters", net.attr_dict()["q_parameters"]), array)
        found[mode] = array.asnumpy().tolist()
    return found


def _encoded(mx: Any) -> Any:
    words = [["a", "b"], ["b", "c", "\n"]]
    encode = mx.rnn.encode_sentences
    return [
        encode(words),
        encode(words, start_label=5, invalid_label=7),
        encode(words, invalid_label=0),
        encode(words, start_label=-2, invalid_key="c"),
        encode(words[:1], vocab={"a": 3, "b": 4}),
        encode([["a", "q"]], vocab={"a": 3, "b": 4}, unknown_token="q"),
    ]


FACTS = {
    "unpacked": _unpacked,
    "unpacked_dense": _unpacked_dense,
    "initialized": _initialized,
    "encoded": _encoded,
}


def batches(mx: Any) -> Any:
    """Two epochs of batches, in two layouts; the caller seeds `random` and `numpy.random`."""
    found = []
    for options in ({}, {"buckets": [6, 3], "layout": "TN", "dtype": "int32", "invalid_label": 0}):
        it = mx.rnn.BucketSentenceIter(SENTENCES, 4, **options)
        found.append([it.buckets, it.default_bucket_key, [list(d.shape) for d in it.provide_data]])
        for _ in range(2):
            found.extend(
                [b.bucket_key, b.data[0].asnumpy().tolist(), b.label[0].asnumpy().tolist(), b.pad] for b in it
            )
            it.reset()
    return found


def network(mx: Any) -> Any:
    """A fused cell, its network and its parameters."""
    cell = mx.rnn.FusedRNNCell(3, 2, "lstm", prefix="f_")
    net, _ = cell.unroll(2, mx.sym.Variable("data"), merge_outputs=True)
    size = _shapes(net)["f_parameters"]
    values = np.random.RandomState(1).standard_normal(size).astype("float32")
    return cell, net, {"f_parameters": mx.nd.array(values)}
