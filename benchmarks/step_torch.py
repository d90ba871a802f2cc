"""The workloads in PyTorch, eager and compiled, in an ordinary training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.step_workloads import LEARNING_RATE, MOMENTUM, Workload


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a way round them."""

    def __init__(self, before: int, filters: int, stride: int):
        super().__init__()
        self.left = nn.Sequential(
            _conv_bn(before, filters, 3, stride), nn.ReLU(inplace=True), _conv_bn(filters, filters, 3, 1)
        )
        self.right = nn.Identity() if stride == 1 else _conv_bn(before, filters, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.left(x) + self.right(x))


def _conv_bn(before: int, filters: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(before, filters, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters))


class _Lstm(nn.Module):
    """A language model: words in, scores of the next words out."""

    def __init__(self, work: Workload):
        super().__init__()
        width = work.hidden[0]
        self.embed = nn.Embedding(work.classes, width)
        self.lstm = nn.LSTM(width, width, num_layers=len(work.hidden), batch_first=True)
        self.output = nn.Linear(width, work.classes)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.lstm(self.embed(words))[0]).flatten(0, 1)
        return found


def _network(work: Workload) -> nn.Module:
    if work.kind == "lstm":
        return _Lstm(work)
    layers: list[nn.Module] = []
    if work.kind == "mlp":
        width = work.shape[0]
        for hidden in work.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(inplace=True)]
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, work.classes))
    if work.kind == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(800, work.hidden[0]), nn.Tanh(), nn.Linear(work.hidden[0], work.classes),
        )  # fmt: skip
    width = 16
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            layers.append(_Block(width, filters, 2 if stage and not block else 1))
            width = filters
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, work.classes))
    return nn.Sequential(_conv_bn(3, 16, 3, 1), nn.ReLU(inplace=True), *layers, *head)


def train(
    system: str,
    work: Workload,
    threads: int,
    pace: Any,
    make_data: Callable[[], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Train for ever; `pace` keeps time, and ends it by raising."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    is_lstm = work.kind == "lstm"
    data, label = make_data()
    batches = [slice(i * work.batch, (i + 1) * work.batch) for i in range(work.batches)]
    pace.imported()
    model = _network(work)
    run = torch.compile(model) if system == "torch.compile" else model
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    loss_of = nn.CrossEntropyLoss()
    x = torch.empty((work.batch, *work.shape), dtype=torch.int64 if is_lstm else torch.float32)
    y = torch.empty((work.batch, *(work.shape if is_lstm else ())), dtype=torch.int64)
    while True:
        total = 0.0
        for number, part in enumerate(batches):
            x.copy_(torch.from_numpy(data[part]))
            y.copy_(torch.from_numpy(label[part]))
            optimizer.zero_grad(set_to_none=True)
            scores = run(x)
            loss = loss_of(scores, y.flatten())
            loss.backward()
            optimizer.step()
            if is_lstm:
                total += loss.item()
            else:
                total += (scores.detach().argmax(1) == y).sum().item()
            pace.step_end(number)
        pace.epoch_end()
