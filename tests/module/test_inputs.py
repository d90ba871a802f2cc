"""Mistakes with names of inputs, and others of a first day: the message has what came, and the remedy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument


def network(name: str = "softmax", **inputs: Any) -> mx.Symbol:
    hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc1")
    return mx.sym.SoftmaxOutput(hidden, name=name, **inputs)


def data(**names: str) -> mx.io.NDArrayIter:
    return mx.io.NDArrayIter(np.ones((20, 4)), np.zeros(20), 10, **names)


def said(module: mx.mod.Module, train: Any) -> str:
    with pytest.raises(InvalidArgument) as caught:
        module.fit(train, num_epoch=1)
    return str(caught.value)


@pytest.mark.parametrize(
    ("symbol", "label"),
    [
        (network("sm"), "sm_label"),  # misspelt, or just another name of the output
        (network(label=mx.sym.Variable("target")), "target"),  # nothing in the name says that it is a label
        (network(label=mx.sym.Variable("y_label")), "y_label"),
    ],
    ids=["output", "label", "ending"],
)
def test_a_label_that_became_a_parameter(symbol: mx.Symbol, label: str, caplog: Any) -> None:
    message = said(mx.mod.Module(symbol), data())
    assert f"'{label}' looks like a label but is not among label_names" in message
    assert f"arguments are 'data', 'fc1_weight', 'fc1_bias', '{label}': 'data' taken for data" in message
    assert "none for labels (there is no 'softmax_label')" in message
    assert f"Module(..., label_names=['{label}']) and NDArrayIter(..., label_name='{label}')" in message
    assert "let the symbol call it 'softmax_label'" in message
    assert "moving_mean" not in message  # advice about initializers would lead astray
    assert f"the symbol has no 'softmax_label'; '{label}' would be a parameter" in caplog.text
    mx.mod.Module(symbol, label_names=[label]).fit(data(label_name=label), num_epoch=1)  # the remedy


def test_a_parameter_with_a_name_that_no_rule_is_for() -> None:
    scaled = mx.sym.broadcast_mul(mx.sym.Variable("data"), mx.sym.Variable("scale", shape=(1, 4)))
    hidden = mx.sym.FullyConnected(scaled, num_hidden=3, name="fc1")
    message = said(mx.mod.Module(mx.sym.SoftmaxOutput(hidden, name="softmax")), data())
    assert "parameter 'scale': no rule for its name" in message and "init=mx.init.Zero()" in message
    assert "'data' taken for data, 'softmax_label' for labels, the others for parameters" in message
    assert "name what batches provide in data_names or label_names" in message


@pytest.mark.parametrize(
    ("options", "names", "remedy"),
    [
        ({}, {"data_name": "x"}, "give the iterator that name: NDArrayIter(..., data_name='data')"),
        (
            {},
            {"label_name": "y"},
            "give the iterator that name: NDArrayIter(..., label_name='softmax_label')",
        ),
        (
            {"label_names": ["softmaxlabel"]},
            {},
            "the symbol has no 'softmaxlabel'; say Module(..., label_names=['softmax_label'])",
        ),
        ({"data_names": ["dat"]}, {}, "'dat', which is no argument of the symbol; did you mean 'data'?"),
        ({"label_names": "softmax_label"}, {}, "label_names is 'softmax_label', expected a list of names"),
    ],
)
def test_names_of_iterator_and_module_that_differ(
    options: dict[str, Any], names: dict[str, str], remedy: str
) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(remedy)):
        mx.mod.Module(network(), **options).fit(data(**names), num_epoch=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initializer": mx.init.Xavier}, "the initializer is a class; call it: mx.init.Xavier()"),
        ({"batch_end_callback": 5}, "a callback is 5, expected a function"),
        ({"epoch_end_callback": ["x"]}, "a callback is 'x', expected a function"),
        (
            {"optimizer_params": {"lr_scheduler": 0.5}},
            "SGD: lr_scheduler is 0.5, expected a schedule, such as",
        ),
    ],
)
def test_what_fit_cannot_call_is_refused_before_the_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        mx.mod.Module(network()).fit(data(), num_epoch=1, **options)


@pytest.mark.parametrize("call", ["infer_shape", "infer_shape_partial", "infer_type", "infer_type_partial"])
def test_inference_from_what_is_no_argument(call: str) -> None:
    with pytest.raises(InvalidArgument, match="no argument 'dat'; did you mean 'data'"):
        getattr(network(), call)(dat=(1, 2))
