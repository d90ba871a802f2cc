"""One process of benchmarks/scaling.py: ``scaling_worker.py dmod|mxnet|torch MODEL alone|together``.

Runs under MXNet's and torch's Python as well as under dmod's. A request names a number of batches; the
answer is the seconds that training on them took, through `Module.fit` or DistributedDataParallel.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs import answer, requests

MODELS: dict[str, tuple[tuple[int, ...], int]] = {
    "small MLP": ((784,), 64),
    "large MLP": ((784,), 128),
    "ResNet-20": ((3, 32, 32), 32),
}
"""By name: the shape of a sample, and the batch size."""
HIDDEN = {"small MLP": (128, 64), "large MLP": (1024, 1024)}
DISTINCT = 8
"""Different batches, which are gone through again and again."""

Train = Callable[[int], None]


def batches(model: str, rank: int) -> tuple[np.ndarray, np.ndarray]:
    shape, size = MODELS[model]
    rng = np.random.RandomState(rank)
    data = rng.standard_normal((DISTINCT * size, *shape)).astype("float32")
    return data, rng.randint(10, size=DISTINCT * size).astype("float32")


def symbol(mx: Any, model: str) -> Any:
    net = mx.sym.Variable("data")
    for i, width in enumerate(HIDDEN.get(model, ()), 1):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=width)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
    if model == "ResNet-20":
        net = resnet20(mx, net)
    net = mx.sym.FullyConnected(net, name="out", num_hidden=10)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def resnet20(mx: Any, net: Any) -> Any:
    """The residual network for CIFAR-10 of 20 layers: He et al., 2016, section 4.2."""

    def convolution(x: Any, name: str, width: int, stride: int, size: int = 3) -> Any:
        x = mx.sym.Convolution(
            x,
            name=name,
            num_filter=width,
            kernel=(size, size),
            stride=(stride, stride),
            pad=(size // 2, size // 2),
            no_bias=True,
        )
        return mx.sym.BatchNorm(x, name=f"{name}_bn", fix_gamma=False)

    net = mx.sym.Activation(convolution(net, "stem", 16, 1), act_type="relu")
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            inner = mx.sym.Activation(convolution(net, f"{name}a", width, stride), act_type="relu")
            inner = convolution(inner, f"{name}b", width, 1)
            if stride == 2:
                net = convolution(net, f"{name}s", width, 2, size=1)
            net = mx.sym.Activation(net + inner, act_type="relu")
    net = mx.sym.Pooling(net, kernel=(8, 8), pool_type="avg", global_pool=True)
    return mx.sym.Flatten(net)


def fit(mx: Any, module: Any, source: Any, kv: Any, count: int) -> None:
    """Train on `count` batches of a source, through `Module.fit`."""
    module.fit(
        mx.io.ResizeIter(source, count),
        kvstore=kv,
        optimizer_params={"learning_rate": 0.01, "momentum": 0.9},
        initializer=mx.init.Xavier(),
        num_epoch=1,
    )


def module_trainer(package: str, model: str, together: bool) -> tuple[Train, Callable[[], None]]:
    mx: Any = importlib.import_module(package)
    logging.disable(logging.WARNING)  # fit says each time that the module is bound already
    kv = mx.kv.create("dist_sync" if together else "local")
    data, label = batches(model, kv.rank)
    source = mx.io.NDArrayIter(data, label, MODELS[model][1])
    module = mx.mod.Module(symbol(mx, model))

    def train(count: int) -> None:
        fit(mx, module, source, kv, count)

    return train, getattr(kv, "close", lambda: None) if together else lambda: None


def torch_trainer(model: str, together: bool) -> tuple[Train, Callable[[], None]]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net: Any
    if model in HIDDEN:
        layers: list[Any] = []
        width = MODELS[model][0][0]
        for hidden in HIDDEN[model]:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        net = nn.Sequential(*layers, nn.Linear(width, 10))
    else:
        net = torch_resnet20(nn)
    rank = 0
    if together:
        torch.distributed.init_process_group("gloo")
        rank = torch.distributed.get_rank()
        net = nn.parallel.DistributedDataParallel(net)
    data, label = batches(model, rank)
    inputs, labels = torch.from_numpy(data), torch.from_numpy(label).long()
    pairs = list(zip(inputs.chunk(DISTINCT), labels.chunk(DISTINCT), strict=True))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loss = nn.CrossEntropyLoss()

    def train(count: int) -> None:
        for i in range(count):
            x, y = pairs[i % DISTINCT]
            optimizer.zero_grad()
            loss(net(x), y).backward()
            optimizer.step()

    return train, torch.distributed.destroy_process_group if together else lambda: None


def torch_resnet20(nn: Any) -> Any:
    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, width: int, stride: int):
            super().__init__()
            self.inner = nn.Sequential(
                nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(width),
            )
            self.shortcut = nn.Sequential()
            if stride == 2:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, width, 1, 2, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.inner(x) + self.shortcut(x))

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    inputs = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            layers.append(Block(inputs, width, 2 if stage and not block else 1))
            inputs = width
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def main() -> None:
    system, model, together = sys.argv[1], sys.argv[2], sys.argv[3] == "together"
    if system == "torch":
        train, close = torch_trainer(model, together)
    else:
        train, close = module_trainer(system, model, together)
    for request in requests():
        begin = time.perf_counter()
        train(request["batches"])
        answer({"seconds": time.perf_counter() - begin})
    close()


if __name__ == "__main__":
    main()
