"""What cells do beyond MXNet's numbers: what is random, what is refused, cells of one's own."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError

x = mx.sym.Variable("data")


def both(kind=mx.rnn.LSTMCell):
    return mx.rnn.BidirectionalCell(kind(3, prefix="l_"), kind(3, prefix="r_"))


def stack(*cells):
    found = mx.rnn.SequentialRNNCell()
    for cell in cells:
        found.add(cell)
    return found


@pytest.mark.parametrize(
    ("cell", "shapes"),
    [
        (mx.rnn.RNNCell(3), [(0, 3)]),
        (mx.rnn.LSTMCell(3), [(0, 3)] * 2),
        (mx.rnn.GRUCell(3), [(0, 3)]),
        (mx.rnn.FusedRNNCell(3, 2, "lstm", True), [(4, 0, 3)] * 2),
        (mx.rnn.FusedRNNCell(3, 2, "gru"), [(2, 0, 3)]),
        (mx.rnn.DropoutCell(0.5), []),
        (mx.rnn.ZoneoutCell(mx.rnn.LSTMCell(3)), [(0, 3)] * 2),
        (mx.rnn.ConvLSTMCell((8, 2, 5, 4), 3), [(0, 3, 5, 4)] * 2),
        (stack(both(), mx.rnn.GRUCell(2)), [(0, 3)] * 4 + [(0, 2)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_states_have_shape_and_layout(cell, shapes):
    assert cell.state_shape == shapes
    assert [info["__layout__"].find("N") for info in cell.state_info] == [s.index(0) for s in shapes]
    assert len(cell.begin_state()) == len(shapes)


def test_first_states_are_made_by_the_given_function():
    cell = stack(mx.rnn.LSTMCell(3, prefix="a_"), mx.rnn.ZoneoutCell(mx.rnn.RNNCell(3, prefix="b_")))
    states = cell.begin_state(func=mx.sym.Variable)
    assert [s.name for s in states] == ["a_begin_state_0", "a_begin_state_1", "b_begin_state_0"]
    assert states[0].attr_dict()["a_begin_state_0"] == {"__layout__": "NC", "__shape__": "(0, 3)"}
    ones = mx.rnn.RNNCell(3).begin_state(func=mx.sym.ones, dtype="float64")[0]
    assert (ones + mx.sym.Variable("a")).infer_type(a="float64")[1] == [np.float64]


def test_a_sequence_in_two_pieces_gives_what_it_gives_in_one():
    cell, states, outputs = mx.rnn.GRUCell(3), None, []
    for begin in (0, 2):
        piece = mx.sym.slice_axis(x, axis=1, begin=begin, end=begin + 2)
        output, states = cell.unroll(2, piece, states, merge_outputs=True)
        outputs.append(output)
    found = []
    for net in (mx.sym.Concat(*outputs, dim=1), mx.rnn.GRUCell(3).unroll(4, x, merge_outputs=True)[0]):
        exe = net.simple_bind(mx.cpu(), data=(2, 4, 3))
        for name, array in exe.arg_dict.items():
            array[:] = np.random.RandomState(len(name)).standard_normal(array.shape)
        found.append(exe.forward()[0].asnumpy())
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_states_of_a_bidirectional_cell_are_nested_and_taken_so():
    cell = stack(both(mx.rnn.GRUCell), mx.rnn.LSTMCell(2))
    states = cell.unroll(4, x)[1]
    assert [len(s) if isinstance(s, list) else s.name for s in states] == [
        1,
        1,
        "lstm_t3_out",
        "lstm_t3_state",
    ]
    assert len(cell.unroll(4, x, states)[1]) == 4


def test_dropout_and_zoneout_act_in_training_only():
    mx.random.seed(2)
    for cell in (mx.rnn.DropoutCell(0.5), mx.rnn.ZoneoutCell(mx.rnn.RNNCell(50), 0.5, 0.5)):
        net = cell.unroll(2, x, merge_outputs=True)[0]
        exe = net.simple_bind(mx.cpu(), data=(4, 2, 50))
        for array in exe.arg_dict.values():
            array[:] = 0.5
        still = exe.forward(is_train=False)[0].asnumpy()
        moved = exe.forward(is_train=True)[0].asnumpy()
        assert (still > 0).all()
        share = (moved[:, 0] == 0).mean()  # of the first step, which follows zeros
        assert 0.3 < share < 0.7
        assert np.array_equal(still, exe.forward(is_train=False)[0].asnumpy())


def test_zoneout_keeps_the_last_output_where_it_does_not_take_the_new_one():
    mx.random.seed(1)
    net = mx.sym.Group(mx.rnn.ZoneoutCell(mx.rnn.RNNCell(40), zoneout_outputs=0.5).unroll(2, x)[0])
    exe = net.simple_bind(mx.cpu(), data=(5, 2, 3))
    for name, array in exe.arg_dict.items():
        array[:] = np.random.RandomState(len(name)).standard_normal(array.shape)
    first, second = (out.asnumpy() for out in exe.forward(is_train=True))
    kept = first == second
    assert 0.3 < kept[first != 0].mean() < 0.7


def test_a_cell_of_ones_own_can_be_unrolled_and_modified():
    class Sum(mx.rnn.BaseRNNCell):
        @property
        def state_info(self):
            return [{"shape": (0, 3), "__layout__": "NC"}]

        def __call__(self, inputs, states):
            total = inputs + states[0]
            return total, [total]

    net = mx.rnn.ResidualCell(Sum("sum_")).unroll(3, x, merge_outputs=True)[0]
    data = np.arange(18.0).reshape(2, 3, 3)
    found = net.eval(mx.cpu(), data=mx.nd.array(data))[0].asnumpy()
    np.testing.assert_array_equal(found, np.cumsum(data, axis=1) + data)


def test_rnn_unroll_makes_its_inputs():
    with pytest.warns(DeprecationWarning, match="cell.unroll"):
        outputs, states = mx.rnn.rnn_unroll(mx.rnn.RNNCell(3), 2, input_prefix="in_")
    assert len(outputs) == 2 and len(states) == 1
    assert {"in_t0_data", "in_t1_data"} <= set(outputs[1].list_arguments())


def test_convolutional_cells_take_one_initializer_per_parameter():
    cell = mx.rnn.ConvGRUCell((1, 2, 5, 5), 2, h2h_weight_initializer=mx.init.One())
    module = mx.mod.Module(cell.unroll(2, x, merge_outputs=True)[0], label_names=None)
    module.bind([("data", (1, 2, 2, 5, 5))], for_training=False)
    module.init_params(mx.init.Constant(3))
    values = {name: array.asnumpy().flat[0] for name, array in module.get_params()[0].items()}
    assert values == {
        "ConvGRU_i2h_weight": 3,
        "ConvGRU_h2h_weight": 1,
        "ConvGRU_i2h_bias": 0,
        "ConvGRU_h2h_bias": 0,
    }


def inside():
    cell = mx.rnn.LSTMCell(3)
    mx.rnn.ZoneoutCell(cell)
    return cell


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mx.rnn.FusedRNNCell(3)(x, []), NotImplementedError, "unfuse it first"),
        (lambda: both()(x, []), NotImplementedError, "call unroll"),
        (lambda: mx.rnn.BaseRNNCell()(x, []), NotImplementedError, "__call__"),
        (lambda: mx.rnn.BaseRNNCell().begin_state(), NotImplementedError, "state_info"),
        (lambda: mx.rnn.ModifierCell(mx.rnn.RNNCell(3))(x, []), NotImplementedError, "__call__"),
        (lambda: inside().begin_state(), NotReadyError, "LSTMCell 'lstm_' is inside of a modifier"),
        (lambda: inside().unroll(2, x), NotReadyError, "call the modifier"),
        (lambda: mx.rnn.ZoneoutCell(mx.rnn.FusedRNNCell(3)), InvalidArgument, "unfuse it first"),
        (lambda: mx.rnn.ZoneoutCell(both()), InvalidArgument, "into its cells"),
        (lambda: mx.rnn.DropoutCell("a"), InvalidArgument, "dropout='a'"),
        (lambda: mx.rnn.FusedRNNCell(3, mode="gruu"), InvalidArgument, "mode='gruu', expected one of"),
        (lambda: mx.rnn.RNNCell(3).unroll(2, None), InvalidArgument, "inputs=None"),
        (lambda: mx.rnn.RNNCell(3).unroll(2, [x]), InvalidArgument, "1 inputs, expected one for each of 2"),
        (lambda: mx.rnn.RNNCell(3).unroll(2, mx.sym.Group([x, x])), InvalidArgument, "has 2 outputs"),
        (lambda: mx.rnn.RNNCell(3).unroll(2, x, layout="NC"), InvalidArgument, "layout='NC'"),
        (lambda: mx.rnn.LSTMCell(3).unroll(2, x, [x]), InvalidArgument, "1 states .* expected 2"),
        (lambda: mx.rnn.LSTMCell(3).unroll(2, x, 7), InvalidArgument, "begin_state=7"),
        (
            lambda: mx.rnn.SequentialRNNCell(mx.rnn.RNNParams("p_")).add(mx.rnn.RNNCell(3)),
            InvalidArgument,
            "not to both; RNNCell 'rnn_'",
        ),
        (lambda: mx.rnn.ConvRNNCell((1, 2, 5, 5), 3, h2h_kernel=(2, 3)), InvalidArgument, "odd numbers"),
    ],
)
def test_what_cannot_work_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_state_whose_batch_nothing_tells_is_named_when_bound():
    with pytest.raises(InvalidArgument, match=r"_zeros 'rnn_begin_state_0': shape \(0, 3\)"):
        mx.rnn.RNNCell(3).begin_state()[0].simple_bind(mx.cpu())


@pytest.mark.parametrize(
    "use",
    [
        lambda state: mx.sym.FullyConnected(state, num_hidden=3, flatten=False) + x,
        lambda state: mx.sym.FullyConnected(mx.sym.FullyConnected(state, num_hidden=4), num_hidden=3) + x,
        lambda state: mx.sym.expand_dims(state, axis=0) + mx.sym.expand_dims(x, axis=0),
        lambda state: mx.sym.Concat(x, state, dim=1),
        lambda state: mx.sym.where(x, state, x),
    ],
)
def test_a_first_state_learns_its_batch_from_how_it_is_used(use):
    exe = use(mx.sym.zeros((0, 3))).simple_bind(mx.cpu(), data=(4, 3))
    assert 4 in exe.forward()[0].shape
