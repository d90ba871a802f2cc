"""Operators with indices, orderings and sequences: gradients, odd indices, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
sym = mx.sym
a, b, c = (sym.Variable(name) for name in "abc")


def run(net, **arrays):
    """The outputs of a network; arrays keep their dtypes."""
    args = {k: mx.nd.array(v, dtype=np.asarray(v).dtype) for k, v in arrays.items()}
    return [out.asnumpy() for out in net.bind(mx.cpu(), args, grad_req="null").forward()]


PLACES = np.array([[2, 0, 2], [1, 3, 1]], np.float64)
GRADIENTS = {
    "take": (sym.take(a, b), {"a": (4, 2), "b": (2, 3)}, {"b": PLACES}),
    "take_axis": (sym.take(a, b, axis=1, mode="wrap"), {"a": (2, 4, 2), "b": (2, 3)}, {"b": PLACES - 4}),
    "embedding": (sym.Embedding(b, a, input_dim=4, output_dim=3), {"b": (2, 3)}, {"b": PLACES}),
    "pick": (sym.pick(a, b, axis=1), {"a": (2, 4, 3), "b": (2, 3)}, {"b": PLACES}),
    "pick_keepdims": (sym.pick(a, b, axis=0, keepdims=True), {"a": (4, 3), "b": (1, 3)}, {"b": PLACES[:1]}),
    "gather_nd": (sym.gather_nd(a, b), {"a": (3, 4, 2), "b": (2, 3)}, {"b": PLACES}),
    "scatter_nd": (sym.scatter_nd(a, b, shape=(4, 2)), {"a": (3, 2), "b": (1, 3)}, {"b": [[3, 0, 2]]}),
    "gather_nd_gradient": (
        sym._backward_gather_nd(a, b, shape=(3, 4)),
        {"a": (3,), "b": (2, 3)},
        {"b": PLACES},
    ),
    "index_copy": (
        sym._contrib_index_copy(a, b, c),
        {"a": (4, 2), "b": (2,), "c": (2, 2)},
        {"b": [3, 1]},
    ),
    "sort": (sym.sort(a, axis=0, is_ascend=False), {"a": (4, 3)}, {}),
    "sort_flat": (sym.sort(a, axis=None), {"a": (2, 3)}, {}),
    "topk": (sym.topk(a, k=2, axis=1, ret_typ="value"), {"a": (2, 4, 2)}, {}),
    "topk_both": (sym.topk(a, k=3, ret_typ="both", is_ascend=True, dtype="int32")[0], {"a": (2, 4)}, {}),
    "sequence_mask": (
        sym.SequenceMask(a, b, use_sequence_length=True, value=2),
        {"a": (3, 2, 2), "b": (2,)},
        {"b": [1, 3]},
    ),
    "sequence_mask_axis": (
        sym.SequenceMask(a, b, use_sequence_length=True, axis=1),
        {"a": (2, 3), "b": (2,)},
        {"b": [0, 2]},
    ),
    "sequence_last": (
        sym.SequenceLast(a, b, use_sequence_length=True),
        {"a": (3, 2, 2), "b": (2,)},
        {"b": [1, 3]},
    ),
    "sequence_last_axis": (
        sym.SequenceLast(a, b, use_sequence_length=True, axis=1),
        {"a": (2, 3, 2), "b": (2,)},
        {"b": [1, 3]},
    ),
    "sequence_reverse": (
        sym.SequenceReverse(a, b, use_sequence_length=True),
        {"a": (3, 2, 2), "b": (2,)},
        {"b": [2, 3]},
    ),
    "sequence_whole": (
        sym.SequenceReverse(a * 2) + sym.SequenceMask(a * 3),
        {"a": (3, 2)},
        {},
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_the_numeric_one(name):
    net, shapes, values = GRADIENTS[name]
    assert worst_gradient_error(net, shapes, values=values, skip=("b",)) < TOLERANCE


@pytest.mark.parametrize("name", [name for name in GRADIENTS if "b" in GRADIENTS[name][1]])
def test_indices_get_a_gradient_of_zero(name):
    net, shapes, values = GRADIENTS[name]
    exe = net.simple_bind(mx.cpu(), **shapes)
    exe.arg_dict["b"][:] = values["b"]
    exe.grad_dict["b"][:] = 5
    exe.forward(is_train=True)
    exe.backward([mx.nd.ones(out.shape) for out in exe.outputs])
    assert not exe.grad_dict["b"].asnumpy().any()


ODD = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, -0.9], np.float32)


def test_odd_indices_are_the_nearest_ones():
    rows = np.arange(4, dtype=np.float32)
    wanted = [0, 3, 0, 3, 0, 2, 0]
    assert run(sym.take(a, b), a=rows, b=ODD)[0].tolist() == wanted
    embed = sym.Embedding(b, a, input_dim=4, output_dim=1)
    assert run(embed, a=rows[:, None], b=ODD)[0][:, 0].tolist() == wanted
    assert run(sym.pick(a, b), a=np.tile(rows, (7, 1)), b=ODD)[0].tolist() == wanted
    assert run(sym.one_hot(b, depth=4), b=ODD)[0].argmax(1).tolist()[5:] == [2, 0]
    assert not run(sym.one_hot(b, depth=4), b=ODD)[0][:5].any()


def test_indices_near_the_limits_of_float16_stay_within_the_array():
    rows = np.arange(70_000, dtype=np.float32)
    found = run(sym.take(a, b), a=rows, b=np.array([65504, 2048, -1], np.float16))[0]
    assert found.tolist() == [65504, 2048, 0]


@pytest.mark.parametrize("index", [[0, 4], [-1, 0]])
def test_take_raises_for_an_index_out_of_bounds(index):
    with pytest.raises(InvalidArgument, match="take: an index lies outside of 0 to 3"):
        run(sym.take(a, b, mode="raise"), a=np.zeros(4), b=np.array(index, np.float32))


def test_gather_nd_refuses_an_index_out_of_bounds():
    net = sym.gather_nd(a, b)
    with pytest.raises(InvalidArgument, match="outside of axis 1, of length 4"):
        run(net, a=np.zeros((3, 4)), b=np.array([[0], [4]]))
    assert run(net, a=np.arange(12).reshape(3, 4), b=np.array([[-1], [-4]]))[0] == [8]


def test_embedding_adds_the_gradients_of_repeated_words():
    exe = sym.Embedding(a, input_dim=3, output_dim=2, name="e").simple_bind(mx.cpu(), a=(4,))
    exe.forward(is_train=True, a=np.array([1, 1, 2, 1]))
    exe.backward(mx.nd.array([[1, 2], [3, 4], [5, 6], [7, 8]]))
    assert exe.grad_dict["e_weight"].asnumpy().tolist() == [[0, 0], [11, 14], [5, 6]]


def test_equal_elements_keep_their_order():
    x = np.array([2, 1, 2, 1, 1], np.uint8)
    assert run(sym.argsort(a, dtype="int32"), a=x)[0].tolist() == [1, 3, 4, 0, 2]
    assert run(sym.argsort(a, is_ascend=False, dtype="int32"), a=x)[0].tolist() == [0, 2, 1, 3, 4]
    assert run(sym.sort(a, is_ascend=False), a=np.array([-128, 5, 127], np.int8))[0].tolist() == [
        127,
        5,
        -128,
    ]


def test_scatter_set_and_fill_change_only_what_is_named():
    old = np.arange(6, dtype=np.float32).reshape(2, 3)
    net = sym._scatter_set_nd(a, b, c, shape=(2, 3))
    found = run(net, a=old, b=np.float32([8, 9]), c=np.array([[0, 1], [2, 0]]))[0]
    assert found.tolist() == [[0, 1, 8], [9, 4, 5]]
    found = run(sym.fill_element_0index(a, b, c), a=old, b=np.float32([7, 8]), c=np.float32([2, 0]))[0]
    assert found.tolist() == [[0, 1, 7], [8, 4, 5]]


def shuffled(steps=2):
    exe = sym.shuffle(a).bind(mx.cpu(), {"a": mx.nd.array(np.arange(60).reshape(30, 2))}, grad_req="null")
    return [exe.forward()[0].asnumpy() for _ in range(steps)]


def test_shuffle_moves_whole_rows_and_follows_the_seed():
    mx.random.seed(3)
    first, second = shuffled()
    assert not np.array_equal(first, second)
    assert sorted(map(tuple, first)) == [(2 * i, 2 * i + 1) for i in range(30)]
    mx.random.seed(3)
    assert np.array_equal(shuffled(1)[0], first)


BAD = {
    "take": (lambda: sym.take(a, b, axis=2), {"a": (2, 3), "b": (2,)}, "take 'take0': axis is 2"),
    "weight": (
        lambda: sym.Embedding(a, b, input_dim=3, output_dim=2),
        {"a": (2,), "b": (3, 4)},
        "weight: expected .3, 2., got .3, 4.",
    ),
    "vocabulary": (lambda: sym.Embedding(a, input_dim=0, output_dim=2), {"a": (2,)}, "input_dim is 0"),
    "pick": (lambda: sym.pick(a, b), {"a": (2, 3), "b": (3,)}, "index: expected .2,., got .3,."),
    "pick_all": (lambda: sym.pick(a, b, axis=None), {"a": (2, 3), "b": (3,)}, "axis is None"),
    "batch_take": (lambda: sym.batch_take(a, b), {"a": (2, 3, 4), "b": (2,)}, "expected two axes"),
    "depth": (lambda: sym.one_hot(a, depth=0), {"a": (2,)}, "depth is 0"),
    "gather": (lambda: sym.gather_nd(a, b), {"a": (2, 3), "b": (3, 4)}, "counts axes of the array"),
    "scatter": (
        lambda: sym.scatter_nd(a, b, shape=(2, 3)),
        {"a": (5,), "b": (2, 4)},
        "data: expected .4,., got .5,.",
    ),
    "index_copy": (
        lambda: sym._contrib_index_copy(a, b, c),
        {"a": (2, 3), "c": (4, 3)},
        "more than old_tensor",
    ),
    "ravel": (lambda: sym.ravel_multi_index(a, shape=(2, 3)), {"a": (3, 4)}, "expected .2, N."),
    "ravel_shape": (lambda: sym.ravel_multi_index(a), {"a": (3, 4)}, "expected lengths of axes"),
    "topk": (lambda: sym.topk(a, k=4), {"a": (2, 3)}, "more than the 3 elements"),
    "sequence": (lambda: sym.SequenceMask(a), {"a": (2,)}, "at least two axes"),
    "sequence_axis": (lambda: sym.SequenceReverse(a, axis=1), {"a": (2, 3)}, "axis is 1, expected 0"),
    "lengths": (
        lambda: sym.SequenceLast(a, b, use_sequence_length=True),
        {"a": (4, 3), "b": (4,)},
        "sequence_length: expected .3,., got .4,.",
    ),
    "bins": (lambda: sym._histogram(a, bin_cnt=3), {"a": (4,)}, "lowest, highest"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    make, shapes, message = BAD[name]
    with mx.name.NameManager(), pytest.raises(InvalidArgument, match=message):
        make().infer_shape(**shapes)


@pytest.mark.parametrize("net", [sym.shuffle(a), sym.batch_take(a, b)], ids=["shuffle", "batch_take"])
def test_operators_without_gradient_say_so(net):
    exe = net.simple_bind(
        mx.cpu(), a=(2, 3), type_dict={"b": "int32"} if len(net.list_arguments()) > 1 else {}
    )
    with pytest.raises(mx.MXNetError, match="has no gradient"):
        exe.forward(is_train=True)
        exe.backward([mx.nd.ones(out.shape) for out in exe.outputs])


def test_a_mask_of_rows_is_for_arrays():
    from dmod.ops.unsized import masked_rows

    data = np.arange(6).reshape(3, 2)
    assert masked_rows(np, data, np.array([1.0, 0, 2])).tolist() == [[0, 1], [4, 5]]
    with pytest.raises(InvalidArgument, match="index has shape"):
        masked_rows(np, data, np.zeros(2))
