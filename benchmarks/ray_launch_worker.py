"""What the workers of benchmarks/ray_launch.py run: steps of a perceptron, after some to warm up."""

from __future__ import annotations

import statistics
import sys
import time

print(f"began {time.time()}", flush=True)

import numpy as np  # noqa: E402  (importing is part of the training's time, not of the launcher's)

import dmod as mx  # noqa: E402

WARM_UP = 30


def main(steps: int) -> None:
    kv = mx.kv.create("dist_sync")
    net = mx.sym.Variable("data")
    for number, hidden in enumerate((512, 512, 10), 1):
        net = mx.sym.FullyConnected(net, num_hidden=hidden, name=f"fc{number}")
        net = mx.sym.Activation(net, act_type="relu") if number < 3 else net
    rows = np.random.RandomState(kv.rank)
    batch = mx.io.DataBatch(
        [mx.nd.array(rows.randn(64, 784).astype("float32"))], [mx.nd.array(rows.randint(0, 10, 64))]
    )
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    module.bind([("data", (64, 784))], [("softmax_label", (64,))])
    module.init_params(mx.init.Xavier())
    module.init_optimizer(kvstore=kv, optimizer_params={"learning_rate": 0.01, "momentum": 0.9})
    taken = []
    for number in range(WARM_UP + steps):
        started = time.perf_counter()
        module.forward_backward(batch)
        module.update()
        module.get_outputs()[0].asnumpy()
        if number >= WARM_UP:
            taken.append(time.perf_counter() - started)
    print(f"step {statistics.median(taken)}\nended {time.time()}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
