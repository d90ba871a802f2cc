"""Methods of symbols that are operators, and those that are refused."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import dmod as mx
from dmod.base import MXNetError, NotImplementedForSymbol
from dmod.ops.calling import FLUENT
from dmod.symbol.fluent import ONLY_OF_ARRAYS


def node(symbol):
    """The last node's name, operator and attributes."""
    last = json.loads(symbol.tojson())["nodes"][-1]
    return last["name"], last["op"], last.get("attrs", {})


# Names and attributes were observed in MXNet 1.9.1.
CASES = [
    (lambda x: x.sum(), "sum0", "sum", {}),
    (lambda x: x.astype("float16"), "cast0", "Cast", {"dtype": "float16"}),
    (lambda x: x.astype(np.float16), "cast0", "Cast", {"dtype": "float16"}),
    (lambda x: x.slice((0,), (1,)), "slice0", "slice", {"begin": "(0,)", "end": "(1,)"}),
    (lambda x: x.reshape((1, 2)), "reshape0", "Reshape", {"shape": "(1, 2)"}),
    (
        lambda x: x.reshape(shape=(1, 2), reverse=True),
        "reshape0",
        "Reshape",
        {"reverse": "True", "shape": "(1, 2)"},
    ),
    (lambda x: x.flatten(), "flatten0", "Flatten", {}),
    (lambda x: x.expand_dims(0), "expand_dims0", "expand_dims", {"axis": "0"}),
    (lambda x: x.squeeze(), "squeeze0", "squeeze", {"axis": "None"}),
    (lambda x: x.diag(), "diag0", "diag", {"k": "0"}),
    (lambda x: x.split(2), "split0", "SliceChannel", {"num_outputs": "2"}),
    (lambda x: abs(x), "abs0", "abs", {}),
    (lambda x: x.clip(0, 1), "clip0", "clip", {"a_max": "1", "a_min": "0"}),
    (lambda x: x.mean(axis=(0, 1), keepdims=True), "mean0", "mean", {"axis": "(0, 1)", "keepdims": "True"}),
    (lambda x: x.one_hot(3), "one_hot0", "one_hot", {"depth": "3"}),
    (lambda x: x.sum(name="foo"), "foo", "sum", {}),
    (lambda x: x.__div__(2), "_divscalar0", "_div_scalar", {"scalar": "2"}),
    (lambda x: mx.sym.linalg.gemm2(x, x), "gemm20", "_linalg_gemm2", {}),
    (lambda x: mx.sym.sparse.dot(x, x), "dot0", "dot", {}),
    (
        lambda x: mx.sym.random.uniform(shape=(2,)),
        "_random_uniform0",
        "_random_uniform",
        {"high": "1", "low": "0", "shape": "(2,)"},
    ),
    (lambda x: mx.sym.random.normal(x, x, (2,)), "_sample_normal0", "_sample_normal", {"shape": "(2,)"}),
    (
        lambda x: mx.sym.random.exponential(2, shape=2),
        "_random_exponential0",
        "_random_exponential",
        {"lam": "0.5", "shape": "2"},
    ),
    (lambda x: mx.sym.random.shuffle(x), "_shuffle0", "_shuffle", {}),
    (lambda x: mx.sym.random.uniform_like(x), "uniform_like0", "_random_uniform_like", {}),
]


@pytest.mark.parametrize(("make", "name", "op", "attrs"), CASES)
def test_nodes_are_those_of_mxnet(make, name, op, attrs):
    with mx.name.NameManager():
        assert node(make(mx.sym.Variable("x"))) == (name, op, attrs)


def test_results_are_those_of_arrays():
    values = np.arange(6, dtype="f").reshape(2, 3)
    x, array = mx.sym.Variable("x"), mx.nd.array(values)
    for compute in (
        lambda y: y.sum(axis=1).sqrt(),
        lambda y: y.slice_axis(axis=1, begin=1, end=None),
        lambda y: y.squeeze().expand_dims(1).transpose((2, 1, 0)),
        lambda y: y.softmax(axis=0).reshape((3, 2)).flatten(),
        lambda y: y.broadcast_to((2, 3)).topk(k=2),
        lambda y: abs(-y).clip(1, 3).tile((2, 1)),
    ):
        assert np.array_equal(compute(x).eval(x=array)[0].asnumpy(), compute(array).asnumpy())
    parts = x.split_v2(3, axis=1).eval(x=array)
    assert [p.asnumpy().tolist() for p in parts] == [p.asnumpy().tolist() for p in array.split_v2(3, axis=1)]


def test_every_fluent_name_is_a_documented_method():
    assert all(getattr(mx.sym.Symbol, name).__doc__ for name in (*FLUENT, *ONLY_OF_ARRAYS))


def test_what_only_arrays_have_is_refused():
    x = mx.sym.Variable("x")
    for name in ONLY_OF_ARRAYS:
        with pytest.raises(NotImplementedForSymbol, match=f"Symbol.{name}"):
            getattr(x, name)()
    with pytest.raises(NotImplementedForSymbol, match="in place"):
        x += 1
    for call in (lambda: x.gradient(["x"]), lambda: x.optimize_for("TensorRT"), x.as_np_ndarray):
        with pytest.raises(MXNetError):
            call()
    assert x.as_nd_ndarray() is x


def test_partial_types():
    x, y = mx.sym.Variable("x"), mx.sym.Variable("y")
    assert x.infer_type_partial() == ([None], [None], [])
    assert (x + y).infer_type_partial(x="float16") == ([np.float16, np.float16], [np.float16], [])


def test_json_leaves_out_the_casts_of_mixed_precision():
    x = mx.sym.amp_cast(mx.sym.Variable("x"), dtype="float16", name="inner")
    net = mx.sym.exp(x, name="e")
    assert [n["op"] for n in json.loads(net.tojson())["nodes"]] == ["null", "exp"]
    assert [n["op"] for n in json.loads(net.tojson(remove_amp_cast=False))["nodes"]] == [
        "null",
        "amp_cast",
        "exp",
    ]
    assert [n["op"] for n in json.loads(x.tojson())["nodes"]] == ["null", "amp_cast"]  # an output stays
    for same in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net)):
        assert same.tojson(remove_amp_cast=False) == net.tojson(remove_amp_cast=False)


def test_a_group_can_be_of_another_class():
    class MySymbol(mx.sym.Symbol):
        pass

    x = mx.sym.Variable("x")
    assert type(mx.sym.Group([x, x * 2], create_fn=MySymbol)) is MySymbol
