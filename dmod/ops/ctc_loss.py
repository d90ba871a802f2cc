"""CTCLoss: connectionist temporal classification (Graves et al., 2006).

The probability that a sequence of class scores spells a shorter label, summed over all alignments, by
the forward-backward recursion in logarithms. All samples of a batch go through it together. Sequential
over time, so it runs on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register


def _arguments(attrs: Attrs) -> list[str]:
    names = ["data", "label"]
    if attrs.use_data_lengths:
        names.append("data_lengths")
    if attrs.use_label_lengths:
        names.append("label_lengths")
    return names


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, label, *lengths = inputs
    if data is not None and len(data) != 3:
        raise InvalidArgument(f"data has shape {data}, expected (sequence length, batch size, classes)")
    batch = data[1] if data is not None else -1
    if label is not None and len(label) != 2:
        raise InvalidArgument(f"label has shape {label}, expected ({batch}, label length)")
    if label is not None and batch != -1:
        label = merge_shapes((batch, -1), label, "label")
    known = [
        merge_shapes((batch,), shape, name)
        for name, shape in zip(_arguments(attrs)[2:], lengths, strict=True)
    ]
    return [data, label, *known], [(batch,), data], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data = inputs[0]
    return [data, *(t if t is not None else data for t in inputs[1:])], [data, data], []


class _Batch:
    """The labels of a batch with blanks around each class: (N, 2 L + 1), and how much of them counts."""

    def __init__(self, attrs: Attrs, inputs: list[Any]):
        data, label = inputs[:2]
        (steps, n, classes), first = data.shape, attrs.blank_label == "first"
        label = np.asarray(label, np.int64)
        lengths = iter(inputs[2:])
        self.steps = np.full(n, steps)
        if attrs.use_data_lengths:
            self.steps = np.clip(np.asarray(next(lengths), np.int64), 0, steps)
        padded = np.column_stack([label, np.full(n, 0 if first else -1)]) == (0 if first else -1)
        self.lengths = padded.argmax(axis=1)
        if attrs.use_label_lengths:
            self.lengths = np.clip(np.asarray(next(lengths), np.int64), 0, label.shape[1])
        self.rows = np.arange(n)
        self.extended = np.full((n, 2 * label.shape[1] + 1), 0 if first else classes - 1)
        self.extended[:, 1::2] = np.clip(label, 0, classes - 1)
        repeats = np.zeros(self.extended.shape, bool)  # places that the place two before cannot jump to
        repeats[:, 3::2] = self.extended[:, 3::2] == self.extended[:, 1:-2:2]
        self.closed = repeats
        self.closed[:, ::2] = True
        self.closed[:, :2] = True
        inside = np.arange(self.extended.shape[1]) < 2 * self.lengths[:, None]
        needed = self.lengths + (repeats[:, 3::2] & inside[:, 3::2]).sum(axis=1)
        self.feasible = needed <= self.steps


def _shifted(array: np.ndarray, by: int) -> np.ndarray:
    """The array moved along its last axis, with zero probability moving in."""
    out = np.full_like(array, -np.inf)
    if by > 0:
        out[:, by:] = array[:, :-by]
    else:
        out[:, :by] = array[:, -by:]
    return out


def _loss_and_grad(attrs: Attrs, inputs: list[Any], with_grad: bool) -> tuple[Any, Any]:
    data = np.asarray(inputs[0], np.float64)
    batch = _Batch(attrs, inputs)
    rows, extended = batch.rows, batch.extended
    logits = data - data.max(axis=2, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    emit = log_p[:, rows[:, None], extended]  # (T, N, S)
    alphas = np.full(emit.shape, -np.inf)
    alphas[0, :, 0] = emit[0, :, 0]
    if extended.shape[1] > 1:
        alphas[0, :, 1] = np.where(batch.lengths > 0, emit[0, :, 1], -np.inf)
    for t in range(1, len(emit)):
        before = alphas[t - 1]
        jump = np.where(batch.closed, -np.inf, _shifted(before, 2)) if extended.shape[1] > 2 else -np.inf
        total = np.logaddexp(np.logaddexp(before, _shifted(before, 1)), jump) + emit[t]
        alphas[t] = np.where((t < batch.steps)[:, None], total, before)
    end, last = 2 * batch.lengths, alphas[-1]
    before_end = np.where(batch.lengths > 0, last[rows, np.maximum(end - 1, 0)], -np.inf)
    log_z = np.logaddexp(last[rows, end], before_end)
    loss = np.where(batch.feasible, -log_z, 0.0)
    if not with_grad:
        return loss, None
    occupied = _occupancy(batch, emit, alphas, log_z, data.shape)
    live = batch.feasible[None, :] & (np.arange(len(emit))[:, None] < batch.steps[None, :])
    return loss, np.where(live[:, :, None], np.exp(log_p) - occupied, 0.0)


def _occupancy(batch: _Batch, emit: Any, alphas: Any, log_z: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The expected number of times that each class is emitted at each time, given the label."""
    rows, end = batch.rows, 2 * batch.lengths
    start = np.full(emit.shape[1:], -np.inf)
    start[rows, end] = 0.0
    has_label = batch.lengths > 0
    start[rows[has_label], end[has_label] - 1] = 0.0
    occupied = np.zeros(shape)
    beta = start
    for t in reversed(range(len(emit))):
        if t + 1 < len(emit):
            ahead = beta + emit[t + 1]
            jump: Any = -np.inf
            if emit.shape[2] > 2:
                jump = _shifted(np.where(batch.closed, -np.inf, ahead), -2)
            beta = np.logaddexp(np.logaddexp(ahead, _shifted(ahead, -1)), jump)
        beta = np.where((t >= batch.steps - 1)[:, None], start, beta)
        share = np.exp(alphas[t] + beta - log_z[:, None])
        np.add.at(occupied[t], (rows[:, None], batch.extended), share)
    return occupied


def _forward(call: Call) -> Step:
    loss, grad = call.outputs

    def run() -> None:
        found, found_grad = _loss_and_grad(call.attrs, call.inputs, call.is_train)
        np.copyto(loss, found, casting="same_kind")
        if found_grad is not None:
            np.copyto(grad, found_grad, casting="same_kind")

    return run


def _backward(call: Call) -> Step:
    grad, dy, (dx, *others) = call.outputs[1], call.out_grads[0], call.in_grads
    zeros = [g for g in others if g is not None]

    def run() -> None:
        if dx is not None:
            np.multiply(grad, dy[None, :, None], out=dx)
        for other in zeros:
            other.fill(0)

    return run


register(
    "CTCLoss",
    aliases=["ctc_loss", "_contrib_CTCLoss", "_contrib_ctc_loss"],
    params=[
        Param("use_data_lengths", boolean, False, "Whether `data_lengths` says how long each sequence is."),
        Param(
            "use_label_lengths",
            boolean,
            False,
            "Whether `label_lengths` says how long each label is; else the padding value ends it.",
        ),
        Param(
            "blank_label",
            choice(("first", "last")),
            "first",
            "Which class is the blank: 0 (labels are padded by 0), or the last one (by -1).",
        ),
    ],
    arguments=_arguments,
    slots=("data", "label", "data_lengths", "label_lengths"),
    outputs=["output0", "output1"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((), (1,)),
    host=True,
    doc="""The negative log-likelihood of each label, of shape (N,).

data (T, N, C) holds scores, before any softmax; label (N, L) class numbers. A label that does not fit
into its sequence costs 0 and has no gradient.""",
)
