"""Networks with row_sparse weights, trained in the same way here and under MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS, BATCH = 30, 8
RANDOM = np.random.RandomState(4)
DATA = ((RANDOM.rand(40, ROWS) < 0.07) * RANDOM.randn(40, ROWS)).astype("float32")
LABEL = (DATA @ RANDOM.randn(ROWS) > 0).astype("float32")
WORDS = RANDOM.randint(0, ROWS, (40, 3)).astype("float32")
START = RANDOM.randn(ROWS, 2).astype("float32")


def linear(mx: Any) -> Any:
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("weight", stype="row_sparse", shape=(ROWS, 2))
    bias = mx.sym.Variable("bias", shape=(2,))
    scores = mx.sym.broadcast_add(mx.sym.sparse.dot(data, weight), bias)
    return mx.sym.SoftmaxOutput(scores, name="softmax")


def embedding(mx: Any) -> Any:
    weight = mx.sym.Variable("weight", stype="row_sparse")
    rows = mx.sym.Embedding(mx.sym.Variable("data"), weight, input_dim=ROWS, output_dim=2, sparse_grad=True)
    bias = mx.sym.Variable("bias", shape=(2,))
    return mx.sym.SoftmaxOutput(mx.sym.broadcast_add(mx.sym.sum(rows, axis=1), bias), name="softmax")


OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("sgd", {"learning_rate": 0.5, "wd": 0.01}),
    "momentum": ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01}),
    "eager": ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01, "lazy_update": False}),
    "adam": ("adam", {"learning_rate": 0.01, "wd": 0.01}),
    "adagrad": ("adagrad", {"learning_rate": 0.1}),
}
CASES = {
    f"{network.__name__} {name}": (network, *options)
    for network in (linear, embedding)
    for name, options in OPTIMIZERS.items()
}


def batches(mx: Any, network: Any) -> Any:
    for start in range(0, len(DATA), BATCH):
        part = slice(start, start + BATCH)
        data = mx.nd.array((DATA if network is linear else WORDS)[part])
        if network is linear:
            data = data.tostype("csr")
        yield mx.io.DataBatch([data], [mx.nd.array(LABEL[part])])


def module(
    mx: Any, network: Any, optimizer: str, params: Any, context: Any = None, kvstore: Any = None
) -> Any:
    """A module, ready to be trained."""
    mod = mx.mod.Module(network(mx), context=context or mx.cpu())
    width = ROWS if network is linear else WORDS.shape[1]
    mod.bind([("data", (BATCH, width))], [("softmax_label", (BATCH,))])
    start = mx.nd.array(START)
    mod.init_params(arg_params={"weight": start, "bias": mx.nd.zeros((2,))})
    store = mx.kv.create("local") if kvstore is None else kvstore
    mod.init_optimizer(kvstore=store, optimizer=optimizer, optimizer_params=params)
    return mod


def trained(
    mx: Any, network: Any, optimizer: str, params: Any, epochs: int = 3, **options: Any
) -> dict[str, list[Any]]:
    """The parameters after some epochs."""
    mod = module(mx, network, optimizer, params, **options)

    def rows_of(batch: Any) -> dict[str, Any]:
        data = batch.data[0]
        return {"weight": data.indices if network is linear else data}

    for _ in range(epochs):
        for batch in batches(mx, network):
            mod.prepare(batch, sparse_row_id_fn=rows_of)
            mod.forward(batch, is_train=True)
            mod.backward()
            mod.update()
    mod.prepare(batch, sparse_row_id_fn=lambda _: {"weight": mx.nd.arange(ROWS)})
    return {name: value.asnumpy().tolist() for name, value in mod.get_params()[0].items()}
