"""Placement of buffers: nothing that lives at the same time overlaps; what need not stay is used again."""

from __future__ import annotations

import random

import pytest

import dmod as mx
from dmod.executor.memory import assign_offsets


@pytest.mark.parametrize("seed", range(20))
def test_no_two_living_buffers_overlap(seed):
    rng = random.Random(seed)
    intervals = []
    for _ in range(rng.randint(1, 60)):
        first = rng.randint(0, 30)
        intervals.append((first, first + rng.randint(0, 10), rng.randint(0, 1000)))
    offsets, total = assign_offsets(intervals)
    placed = list(zip(intervals, offsets, strict=True))
    for i, ((first, last, nbytes), offset) in enumerate(placed):
        assert offset % 64 == 0 and offset + nbytes <= total
        for (first2, last2, nbytes2), offset2 in placed[:i]:
            if first <= last2 and first2 <= last:
                assert offset + nbytes <= offset2 or offset2 + nbytes2 <= offset


def chain(depth, width=256):
    net = mx.sym.Variable("data")
    for i in range(depth):
        net = mx.sym.Activation(net * 2, act_type="tanh", name=f"act{i}")
    return net.simple_bind(mx.cpu(), data=(4, width))


def test_inference_needs_no_more_memory_for_a_deeper_network():
    assert chain(40).plan(False).nbytes == chain(4).plan(False).nbytes


def test_training_keeps_what_backward_reads_and_no_more():
    """Each tanh's output is kept; products and gradients share what is left."""
    assert chain(20).plan(True).nbytes <= (20 + 3) * 4 * 256 * 4


def test_views_take_no_step():
    net = mx.sym.Flatten(mx.sym.Reshape(mx.sym.Variable("data") * 2, shape=(0, -1))) + 1
    plan = net.simple_bind(mx.cpu(), data=(2, 3, 4)).plan(True)
    assert len(plan.forward) == 2 and len(plan.backward) == 2


def test_nothing_is_computed_below_an_operator_that_passes_no_gradient_on():
    net = mx.sym.BlockGrad(mx.sym.Activation(mx.sym.Variable("data"), act_type="tanh") * 2)
    exe = net.simple_bind(mx.cpu(), data=(2, 3))
    assert len(exe.plan(True).backward) == 1  # the gradient is set to zero
    exe.grad_dict["data"][:] = 7
    exe.forward(is_train=True)
    exe.backward(mx.nd.ones((2, 3)))
    assert not exe.grad_dict["data"].asnumpy().any()
