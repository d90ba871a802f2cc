"""Packed weights, checkpoints, first values: the same arrays under the same names as in MXNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.oracle import rnn_facts

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
FACTS = json.loads((FIXTURES / "rnn.json").read_text())
DATA = (2, 3, 4)


@pytest.mark.parametrize("name", ["unpacked", "unpacked_dense", "initialized"])
def test_weights_are_those_of_mxnet(name):
    assert json.loads(json.dumps(rnn_facts.FACTS[name](mx))) == FACTS[name]


def random_args(net, shape=DATA, seed=1):
    rng = np.random.RandomState(seed)
    shapes = dict(zip(net.list_arguments(), net.infer_shape(data=shape)[0], strict=True))
    return {n: mx.nd.array(rng.standard_normal(s) / 2) for n, s in shapes.items() if n != "data"}


def outputs_and_gradient(net, args, data):
    exe = net.simple_bind(mx.cpu(), grad_req={"data": "write"}, data=data.shape)
    exe.copy_params_from(args)
    exe.arg_dict["data"][:] = data
    outputs = [out.asnumpy() for out in exe.forward(is_train=True)]
    exe.backward([mx.nd.array(np.cos(out)) for out in outputs])
    return [*outputs, exe.grad_dict["data"].asnumpy()]


@pytest.mark.parametrize("mode", ["rnn_relu", "rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layout", ["NTC", "TNC"])
def test_a_fused_cell_computes_what_its_unfused_cells_do(mode, both, layout):
    fused = mx.rnn.FusedRNNCell(5, num_layers=2, mode=mode, bidirectional=both)
    stack = fused.unfuse()
    x = mx.sym.Variable("data")
    nets = [c.unroll(3, x, layout=layout, merge_outputs=True)[0] for c in (fused, stack)]
    data = np.random.RandomState(2).standard_normal(DATA if layout == "NTC" else (3, 2, 4))
    args = random_args(nets[0], data.shape)
    found = outputs_and_gradient(nets[0], args, data)
    wanted = outputs_and_gradient(nets[1], stack.pack_weights(fused.unpack_weights(args)), data)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def cells():
    lstm, gru = (lambda p: mx.rnn.LSTMCell(3, prefix=p)), (lambda p: mx.rnn.GRUCell(3, prefix=p))
    stack = mx.rnn.SequentialRNNCell()
    stack.add(mx.rnn.BidirectionalCell(lstm("l_"), gru("r_")))
    stack.add(mx.rnn.DropoutCell(0.2))
    stack.add(mx.rnn.ZoneoutCell(lstm("z_"), 0.1, 0.1))
    stack.add(mx.rnn.ResidualCell(mx.rnn.FusedRNNCell(3, prefix="f_")))
    shared = mx.rnn.SequentialRNNCell()
    params = mx.rnn.RNNParams("s_")
    for prefix in "ab":
        shared.add(mx.rnn.LSTMCell(4, prefix=prefix, params=params))
    return [mx.rnn.RNNCell(2), lstm("x_"), gru("y_"), mx.rnn.FusedRNNCell(3, 2, "gru", True), stack, shared]


@pytest.mark.parametrize("number", range(6))
def test_packing_undoes_unpacking(number):
    cell = cells()[number]
    args = random_args(cell.unroll(3, mx.sym.Variable("data"), merge_outputs=True)[0])
    args["other"] = mx.nd.ones((1,))
    unpacked = cell.unpack_weights(args)
    packed = cell.pack_weights(unpacked)
    assert packed.keys() == args.keys() and "other" in unpacked
    assert all(np.array_equal(packed[n].asnumpy(), args[n].asnumpy()) for n in args)
    assert not any(np.shares_memory(unpacked[n].asnumpy(), args[n]._data) for n in args if n in unpacked)


def test_a_checkpoint_of_mxnet_is_read_by_fused_and_by_single_cells():
    cell, _, wanted = rnn_facts.network(mx)
    net, args, aux = mx.rnn.load_rnn_checkpoint(cell, str(FIXTURES / "rnn"), 3)
    assert aux == {} and list(args) == ["f_parameters"]
    assert np.array_equal(args["f_parameters"].asnumpy(), wanted["f_parameters"].asnumpy())
    assert net.list_arguments()[:2] == ["data", "f_parameters"]
    _, single, _ = mx.rnn.load_rnn_checkpoint(cell.unfuse(), str(FIXTURES / "rnn"), 3)
    assert single["f_l1_i2h_weight"].shape == (12, 3)


def test_a_checkpoint_callback_saves_unpacked_weights_every_period(tmp_path):
    cell, net, args = rnn_facts.network(mx)
    callback = mx.rnn.do_rnn_checkpoint([cell], str(tmp_path / "m"), period=2)
    for epoch in range(4):
        callback(epoch, net, args, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-0002.params", "m-0004.params", "m-symbol.json"]
    assert "arg:f_l0_i2h_f_weight" in mx.nd.load(str(tmp_path / "m-0004.params"))
    assert list(mx.rnn.load_rnn_checkpoint(cell, str(tmp_path / "m"), 4)[1]) == ["f_parameters"]


def test_a_module_initializes_packed_weights_and_the_forget_gates():
    cell = mx.rnn.FusedRNNCell(4, prefix="f_", forget_bias=2.0)
    module = mx.mod.Module(cell.unroll(3, mx.sym.Variable("data"))[0], label_names=None)
    module.bind([("data", DATA)], for_training=False)
    module.init_params(mx.init.Xavier())
    gates = cell.unpack_weights(module.get_params()[0])
    assert gates["f_l0_i2h_f_bias"].asnumpy().tolist() == [2.0] * 4
    assert not gates["f_l0_i2h_i_bias"].asnumpy().any()
    bound = np.sqrt(3 / 4)  # of a gate's own (4, 4), not of the vector
    weight = gates["f_l0_h2h_c_weight"].asnumpy()
    assert 0 < abs(weight).max() <= bound and abs(weight).max() > bound / 2


def test_an_initializer_given_to_fused_rnn_goes_before_the_global_one():
    init = mx.init.FusedRNN(mx.init.One(), 2, 1, "gru")
    array = mx.nd.zeros((3 * 2 * 3 + 3 * 2 * 2 + 12,))
    mx.init.Zero()(mx.init.InitDesc("p", {"__init__": init.dumps()}), array)
    assert array.asnumpy().tolist() == [1.0] * 30 + [0.0] * 12


def test_an_unfused_lstm_keeps_the_forget_bias():
    cell = mx.rnn.FusedRNNCell(2, forget_bias=3.0).unfuse()
    attrs = cell.unroll(1, mx.sym.Variable("data"), merge_outputs=True)[0].attr_dict()
    assert attrs["lstm_l0_i2h_bias"]["__init__"] == '["lstmbias", {"forget_bias": 3.0}]'


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mx.rnn.LSTMCell(2).unpack_weights({}), "LSTMCell: there is no parameter 'lstm_i2h_weight'"),
        (lambda: mx.rnn.LSTMCell(2).pack_weights({}), "no parameter 'lstm_i2h_i_weight'"),
        (
            lambda: mx.rnn.LSTMCell(2).unpack_weights({"lstm_i2h_weight": mx.nd.ones((7, 2))}),
            "'lstm_i2h_weight' has 7 rows, no multiple of 4",
        ),
        (lambda: mx.rnn.FusedRNNCell(2).unpack_weights({}), "no parameter 'lstm_parameters'"),
        (lambda: mx.rnn.FusedRNNCell(2).pack_weights({}), "no parameter 'lstm_l0_i2h_i_weight'"),
        (
            lambda: mx.rnn.FusedRNNCell(2).unpack_weights({"lstm_parameters": mx.nd.ones((7,))}),
            "lstm_parameters: 7 elements are not the parameters",
        ),
        (
            lambda: mx.init.FusedRNN("one", 2, 1, "gru")._init_weight("p", mx.nd.ones((7,))),
            "7 elements are not the parameters",
        ),
        (lambda: mx.init.FusedRNN(None, 2, 1, "gru")._init_weight("p", mx.nd.ones((7,))), "no initializer"),
    ],
)
def test_weights_that_do_not_fit_are_named(call, words):
    with pytest.raises(InvalidArgument, match=words):
        call()
