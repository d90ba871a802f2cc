"""Operators that move, cut, join and repeat elements: gradients, inference, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
sym = mx.sym
a, b, c = (sym.Variable(name) for name in "abc")


def run(net, is_train=False, **arrays):
    """The outputs of a network for float32 arrays."""
    exe = net.bind(mx.cpu(), {k: mx.nd.array(v) for k, v in arrays.items()}, grad_req="null")
    return [out.asnumpy() for out in exe.forward(is_train=is_train)]


GRADIENTS = {
    "concat": (sym.concat(a, b * 2, a, dim=1), {"a": (2, 3), "b": (2, 2)}),
    "concat_three_axes": (sym.concat(a, b, dim=-1), {"a": (2, 3, 1), "b": (2, 3, 2)}),
    "stack": (sym.stack(a, b, a, axis=1), {"a": (2, 3), "b": (2, 3)}),
    "split": (sym.split(a, num_outputs=2, axis=0), {"a": (4, 3)}),
    "split_squeezed": (sym.split(a, num_outputs=3, squeeze_axis=True), {"a": (2, 3, 2)}),
    "split_v2": (sym.split_v2(a, (1, 3), axis=1), {"a": (2, 4)}),
    "slice": (sym.slice(a, begin=(None, 1), end=(None, 4), step=(-1, 2)), {"a": (3, 5)}),
    "slice_axis": (sym.slice_axis(a, axis=1, begin=-3, end=None), {"a": (2, 5)}),
    "slice_like": (sym.slice_like(a, b), {"a": (3, 4), "b": (2, 3)}),
    "crop": (sym.Crop(a, b, center_crop=True), {"a": (1, 2, 4, 4), "b": (1, 1, 2, 3)}),
    "transpose": (sym.transpose(a, axes=(2, 0, 1)), {"a": (2, 3, 2)}),
    "swapaxes": (sym.swapaxes(a, dim1=0, dim2=2), {"a": (2, 3, 2)}),
    "reverse": (sym.reverse(a, axis=(0, 1)), {"a": (2, 3)}),
    "depth_to_space": (sym.depth_to_space(a, block_size=2), {"a": (1, 4, 2, 2)}),
    "space_to_depth": (sym.space_to_depth(a, block_size=2), {"a": (1, 1, 4, 2)}),
    "expand_dims": (sym.expand_dims(a * 2, axis=1) * 3, {"a": (2, 3)}),
    "squeeze": (sym.squeeze(a * a, axis=1) * 3, {"a": (2, 1, 3)}),
    "reshape_like": (sym.reshape_like(a * a, b) * b, {"a": (2, 3), "b": (3, 2)}),
    "tile": (sym.tile(a, reps=(2, 1, 2)), {"a": (2, 3)}),
    "repeat": (sym.repeat(a, repeats=3, axis=0), {"a": (2, 3)}),
    "repeat_flat": (sym.repeat(a, repeats=2), {"a": (2, 3)}),
    "pad_constant": (sym.pad(a, mode="constant", pad_width=(0, 0, 0, 0, 1, 2, 0, 1)), {"a": (1, 2, 2, 3)}),
    "pad_edge": (sym.pad(a, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 3, 1)), {"a": (1, 1, 2, 3)}),
    "pad_reflect": (sym.pad(a, mode="reflect", pad_width=(0, 0, 0, 0, 1, 1, 2, 1)), {"a": (1, 1, 2, 3)}),
    "diag": (sym.diag(a, k=1), {"a": (3, 4)}),
    "diag_of_planes": (sym.diag(a, k=-1, axis1=2, axis2=0), {"a": (2, 2, 3)}),
    "diag_matrix": (sym.diag(a, k=-2), {"a": (3,)}),
    "zeros": (sym.zeros((2, 3)) + a, {"a": (2, 3)}),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_the_numeric_one(name):
    net, shapes = GRADIENTS[name]
    if name == "zeros":
        net = sym.zeros((2, 3), dtype="float64") + a
    assert worst_gradient_error(net, shapes) < TOLERANCE


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_add_to_what_is_there(name):
    net, shapes = GRADIENTS[name]
    once, twice = (net.simple_bind(mx.cpu(), grad_req=req, **shapes) for req in ("write", "add"))
    for exe in (once, twice):
        for arg in exe.arg_arrays:
            arg[:] = np.random.RandomState(0).uniform(0.5, 1.5, arg.shape)
    for grad in twice.grad_arrays:
        grad[:] = 1
    heads = [mx.nd.ones(out.shape) for out in once.outputs]
    for exe in (once, twice):
        exe.forward(is_train=True)
        exe.backward(heads)
    for name, grad in once.grad_dict.items():
        np.testing.assert_allclose(twice.grad_dict[name].asnumpy(), grad.asnumpy() + 1, rtol=1e-6)


def test_concat_infers_a_part_from_the_whole():
    net = sym.concat(a, b, dim=1)
    args, outs, _ = net.infer_shape_partial(a=(2, 3), b=(0, 4))
    assert args == [(2, 3), (2, 4)] and outs == [(2, 7)]
    args, _, _ = (sym.concat(a, b, dim=0) + sym.reshape(c, shape=(5, 3))).infer_shape(a=(2, 3), c=(15,))
    assert args == [(2, 3), (3, 3), (15,)]


def test_split_infers_the_whole_from_a_part():
    args, outs, _ = (sym.split(a, num_outputs=2)[1] * 2 + sym.reshape(b, shape=(2, 3))).infer_shape(b=(6,))
    assert args == [(2, 6), (6,)] and outs == [(2, 3)]


def test_transpose_infers_backwards():
    args, _, _ = (sym.transpose(a, axes=(2, 0, 1)) + sym.reshape(b, shape=(2, 3, 4))).infer_shape(b=(24,))
    assert args[0] == (3, 4, 2)


def test_zeros_take_lengths_from_their_use():
    assert (sym.zeros((0, 3)) + a).infer_shape(a=(2, 3))[1] == [(2, 3)]
    assert (sym.arange(2, infer_range=True) + a).infer_shape(a=(4,))[1] == [(4,)]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8", "float16"])
def test_dtypes_pass_through(dtype):
    x = mx.nd.array(np.arange(6).reshape(2, 3), dtype=dtype)
    nets = [
        sym.concat(a, a, dim=0),
        sym.transpose(a),
        sym.slice(a, begin=(0, 1), end=(1, 3)),
        sym.tile(a, reps=(2,)),
        sym.repeat(a, repeats=2),
        sym.reverse(a, axis=0),
        sym.split(a, num_outputs=3)[1],
        sym.expand_dims(a, axis=0),
        sym.diag(a),
    ]
    for net in nets:
        out = net.eval(a=x)[0]
        assert out.dtype == np.dtype(dtype), net


def test_slice_may_be_empty():
    assert run(sym.slice(a, begin=(2,), end=(1,)), a=np.ones((3, 2)))[0].shape == (0, 2)
    assert run(sym.repeat(a, repeats=0), a=np.ones((3, 2)))[0].shape == (0,)
    assert run(sym.diag(a, k=7), a=np.ones((3, 2)))[0].shape == (0,)


BAD = {
    "dim": (lambda: sym.concat(a, b, dim=2), {"a": (2, 3), "b": (2, 3)}, "Concat 'concat0': dim is 2"),
    "parts": (
        lambda: sym.concat(a, b, dim=0),
        {"a": (2, 3), "b": (2, 4)},
        "arg1: expected .-1, 3., got .2, 4.",
    ),
    "stack": (lambda: sym.stack(a, b), {"a": (2, 3), "b": (2, 4)}, "stack 'stack0': arg1"),
    "split": (lambda: sym.split(a, num_outputs=4), {"a": (2, 6)}, "length 6, which is no multiple of 4"),
    "squeeze_axis": (lambda: sym.split(a, num_outputs=3, squeeze_axis=True), {"a": (2, 6)}, "squeeze_axis"),
    "indices": (lambda: sym.split_v2(a, (3, 1), axis=1), {"a": (2, 6)}, "ascending order"),
    "indices_beyond": (lambda: sym.split_v2(a, (7,), axis=1), {"a": (2, 6)}, "from 0 to 6"),
    "axes": (lambda: sym.transpose(a, axes=(0, 0)), {"a": (2, 3)}, "expected an order of 0 to 1"),
    "swap": (lambda: sym.swapaxes(a, dim1=0, dim2=2), {"a": (2, 3)}, "dim2 is 2, expected -2 to 1"),
    "reverse": (lambda: sym.reverse(a, axis=2), {"a": (2, 3)}, "expected 0 to 1"),
    "expand": (lambda: sym.expand_dims(a, axis=3), {"a": (2, 3)}, "axis is 3, expected -3 to 2"),
    "squeeze": (lambda: sym.squeeze(a, axis=0), {"a": (2, 1)}, "has length 2, expected 1"),
    "squeeze_twice": (lambda: sym.squeeze(a, axis=(0, -2)), {"a": (1, 1)}, "names an axis twice"),
    "like": (
        lambda: sym.reshape_like(a, b),
        {"a": (2, 3), "b": (2, 2)},
        "6 elements; the new shape .2, 2. has 4",
    ),
    "like_range": (
        lambda: sym.reshape_like(a, b, lhs_end=5),
        {"a": (2, 3), "b": (2, 3)},
        "lhs_end=5 name no range",
    ),
    "step": (lambda: sym.slice(a, begin=(0,), end=(1,), step=(0,)), {"a": (2, 3)}, "has a 0"),
    "many": (lambda: sym.slice(a, begin=(0, 0, 0), end=(1, 1, 1)), {"a": (2, 3)}, "more axes than shape"),
    "uneven": (lambda: sym.slice(a, begin=(0, 0), end=(1,)), {"a": (2, 3)}, "differ in their numbers"),
    "before": (lambda: sym.slice(a, begin=(-9,), end=(1,)), {"a": (2, 3)}, "before the first element"),
    "range": (
        lambda: sym.slice_axis(a, axis=0, begin=1, end=9),
        {"a": (2, 3)},
        "no range of axis 0, of length 2",
    ),
    "slice_like": (lambda: sym.slice_like(a, b), {"a": (2, 3), "b": (4, 3)}, "of data only 2"),
    "crop": (lambda: sym.Crop(a, h_w=(5, 1)), {"a": (1, 1, 4, 4)}, "does not lie within images"),
    "crop_axes": (lambda: sym.Crop(a, h_w=(1, 1)), {"a": (4, 4)}, "expected 4 axes"),
    "repeats": (lambda: sym.repeat(a, repeats=-1), {"a": (2, 3)}, "repeats is -1"),
    "reps": (lambda: sym.tile(a, reps=(2, 0)), {"a": (2, 3)}, "at least 1"),
    "pad_axes": (lambda: sym.pad(a, mode="edge", pad_width=(0,) * 4), {"a": (2, 3)}, "expected 4 or 5 axes"),
    "pad_batch": (
        lambda: sym.pad(a, mode="edge", pad_width=(1,) * 8),
        {"a": (1, 1, 2, 2)},
        "0 for the first two",
    ),
    "mirror": (
        lambda: sym.pad(a, mode="reflect", pad_width=(0,) * 7 + (2,)),
        {"a": (1, 1, 2, 2)},
        "no mirror image 2 wide",
    ),
    "blocks": (
        lambda: sym.depth_to_space(a, block_size=2),
        {"a": (1, 3, 2, 2)},
        "multiple of block_size squared",
    ),
    "diagonal": (lambda: sym.diag(a, axis1=0, axis2=-2), {"a": (2, 3)}, "are the same axis"),
    "storage": (lambda: sym.cast_storage(a, stype="csr"), {"a": (2, 3)}, "dense arrays"),
    "mask": (
        lambda: sym._contrib_boolean_mask(a, b),
        {"a": (2, 3), "b": (2,)},
        "depends on the values of index",
    ),
    "no_numbers": (lambda: sym.arange(5, 2) + a, {"a": (2, 3)}, "name no numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    make, shapes, message = BAD[name]
    with mx.name.NameManager(), pytest.raises(InvalidArgument, match=message):
        make().infer_shape(**shapes)


def test_constants_survive_that_their_memory_is_shared():
    """A plan may use a constant's memory for later results; the next step needs the constant again."""
    x = sym.arange(4) + a
    net = sym.Activation(sym.Activation(x * 2, act_type="relu") * 3, act_type="relu")
    exe = net.bind(mx.cpu(), {"a": mx.nd.ones((4,))}, grad_req="null")
    first = exe.forward()[0].asnumpy()
    assert np.array_equal(first, 6 * (np.arange(4) + 1))
    assert np.array_equal(exe.forward()[0].asnumpy(), first)


def test_functions_of_constants_name_their_arguments():
    assert sym.zeros(3, dtype=np.int32).infer_type()[1] == [np.int32]
    assert sym.eye(2, name="unit").list_outputs() == ["unit_output"]
    assert run(sym.full((2,), 1.5) + a, a=np.zeros(2))[0].tolist() == [1.5, 1.5]
    with pytest.raises(TypeError, match="zeros: unexpected argument 'shap'"):
        sym.zeros((2,), shap=3)
    with pytest.raises(InvalidArgument, match="needs their range"):
        sym.histogram(a, 5)
