"""The workloads in MXNet's Symbol and Module API: the same code runs on dmod and on MXNet 1.9.1."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.step_workloads import LEARNING_RATE, MOMENTUM, Workload


def _mlp(mx: Any, work: Workload) -> Any:
    net = mx.sym.Variable("data")
    for i, width in enumerate(work.hidden, 1):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=width)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
    net = mx.sym.FullyConnected(net, name="output", num_hidden=work.classes)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _lenet(mx: Any, work: Workload) -> Any:
    net = mx.sym.Variable("data")
    for i, filters in enumerate((20, 50), 1):
        net = mx.sym.Convolution(net, name=f"conv{i}", kernel=(5, 5), num_filter=filters)
        net = mx.sym.Activation(net, name=f"tanh{i}", act_type="tanh")
        net = mx.sym.Pooling(net, name=f"pool{i}", pool_type="max", kernel=(2, 2), stride=(2, 2))
    net = mx.sym.FullyConnected(mx.sym.Flatten(net), name="fc1", num_hidden=work.hidden[0])
    net = mx.sym.Activation(net, name="tanh3", act_type="tanh")
    net = mx.sym.FullyConnected(net, name="output", num_hidden=work.classes)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _resnet(mx: Any, work: Workload) -> Any:
    """ResNet-20 (He et al., 2015), with 1 x 1 convolutions where the width changes."""

    def conv_bn(data: Any, name: str, filters: int, kernel: int, stride: int) -> Any:
        conv = mx.sym.Convolution(
            data, name=f"{name}_conv", num_filter=filters, kernel=(kernel, kernel),
            stride=(stride, stride), pad=(kernel // 2, kernel // 2), no_bias=True,
        )  # fmt: skip
        return mx.sym.BatchNorm(conv, name=f"{name}_bn", fix_gamma=False, eps=1e-5)

    def relu(data: Any, name: str) -> Any:
        return mx.sym.Activation(data, name=name, act_type="relu")

    net = relu(conv_bn(mx.sym.Variable("data"), "stem", 16, 3, 1), "stem_relu")
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            name, stride = f"stage{stage}_block{block}", 2 if stage and not block else 1
            left = relu(conv_bn(net, f"{name}_a", filters, 3, stride), f"{name}_a_relu")
            left = conv_bn(left, f"{name}_b", filters, 3, 1)
            right = conv_bn(net, f"{name}_short", filters, 1, 2) if stride == 2 else net
            net = relu(left + right, f"{name}_relu")
    net = mx.sym.Pooling(net, name="pool", pool_type="avg", global_pool=True, kernel=(8, 8))
    net = mx.sym.FullyConnected(mx.sym.Flatten(net), name="output", num_hidden=work.classes)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def _lstm(mx: Any, work: Workload) -> Any:
    steps, width = work.shape[0], work.hidden[0]
    data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
    net = mx.sym.Embedding(data, name="embed", input_dim=work.classes, output_dim=width)
    cell = mx.rnn.FusedRNNCell(width, num_layers=len(work.hidden), mode="lstm", prefix="lstm_")
    net, _ = cell.unroll(steps, net, layout="NTC", merge_outputs=True)
    net = mx.sym.FullyConnected(
        mx.sym.Reshape(net, shape=(-1, width)), name="output", num_hidden=work.classes
    )
    return mx.sym.SoftmaxOutput(net, mx.sym.Reshape(label, shape=(-1,)), name="softmax")


NETWORKS = {"mlp": _mlp, "lenet": _lenet, "resnet": _resnet, "lstm": _lstm}


def train(
    system: str,
    work: Workload,
    threads: int,
    pace: Any,
    make_data: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Run `Module.fit` for ever; the callbacks keep time, and end it by raising."""
    mx = importlib.import_module(system)
    if system == "dmod":
        # Others have their code generator and oneDNN once they are imported; here they come when needed.
        importlib.import_module("dmod.device.kernels").compiled_kernels()
        importlib.import_module("dmod.device.onednn").onednn()
    is_lstm = work.kind == "lstm"
    metric = mx.metric.Perplexity(None) if is_lstm else mx.metric.Accuracy()
    data, label = make_data()
    pace.imported()
    mx.mod.Module(NETWORKS[work.kind](mx, work)).fit(
        mx.io.NDArrayIter(data, label, work.batch),
        eval_metric=metric,
        initializer=mx.init.Mixed([".*lstm_parameters", ".*"], [mx.init.Uniform(0.08), mx.init.Xavier()]),
        optimizer_params={
            "learning_rate": LEARNING_RATE,
            "momentum": MOMENTUM,
            "rescale_grad": 1.0 / (work.batch * (work.shape[0] if is_lstm else 1)),
        },
        batch_end_callback=lambda param: pace.step_end(param.nbatch),
        epoch_end_callback=lambda *_: pace.epoch_end(),
        num_epoch=1 << 30,
    )
