"""Dropout's random numbers: what they depend on, and what they do not."""

from __future__ import annotations

import numpy as np

import dmod as mx
from dmod.device.random import SlotStream
from dmod.executor.executor import Executor, Handle


def bound(slot=0, p=0.3, **attrs):
    net = mx.sym.Dropout(mx.sym.Variable("a"), p=p, **attrs)
    args = {"a": mx.nd.ones((200, 50))}
    return Executor(Handle(args, stream=SlotStream(slot)), net, mx.cpu(), {})


def masks(exe, steps=2, is_train=True):
    return [exe.forward(is_train=is_train)[0].asnumpy() for _ in range(steps)]


def test_same_seed_and_slot_give_the_same_masks():
    mx.random.seed(3)
    first = masks(bound())
    mx.random.seed(3)
    again = masks(bound())
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_seed_restarts_an_executor_that_is_bound_already():
    exe = bound()
    mx.random.seed(3)
    first = masks(exe)
    mx.random.seed(3)
    assert np.array_equal(first, masks(exe))


def test_slots_and_seeds_give_different_masks():
    mx.random.seed(3)
    one, other = masks(bound(0))[0], masks(bound(1))[0]
    mx.random.seed(4)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, masks(bound(0))[0])


def test_inference_does_not_disturb_the_masks_of_training():
    mx.random.seed(3)
    plain = masks(bound(), 2)
    mx.random.seed(3)
    exe = bound()
    first = masks(exe, 1)[0]
    masks(exe, 3, is_train=False)
    assert np.array_equal(plain, [first, masks(exe, 1)[0]])


def test_elements_are_dropped_with_probability_p_and_the_rest_scaled():
    mx.random.seed(0)
    out = masks(bound(p=0.3), 1)[0]
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.02


def test_inference_is_the_identity_unless_mode_is_always():
    assert (masks(bound(), 1, is_train=False)[0] == 1).all()
    assert (masks(bound(mode="always"), 1, is_train=False)[0] == 0).any()


def test_axes_share_one_decision():
    mx.random.seed(0)
    out = masks(bound(axes=(1,)), 1)[0]
    assert (out == out[:, :1]).all()
    assert len(np.unique(out[:, 0])) == 2
