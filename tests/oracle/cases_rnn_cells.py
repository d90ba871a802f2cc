"""Cells of mx.rnn: names, structure, outputs, states and gradients of what they unroll to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.oracle.family import Case, Table, run

CASES = Table()
BUILD: dict[str, Callable[[Any], Any]] = {}
DATA, STEPS = (2, 3, 4), 3


def outputs_and_states(mx: Any, unrolled: Any) -> Any:
    """All outputs and states in one symbol.

    States doubled: MXNet drops a head's gradient where an entry is listed twice.
    """
    outputs, states = unrolled
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return mx.sym.Group([*outputs, *(state * 2 for state in _flat(states))])


def _flat(states: Any) -> list[Any]:
    if not isinstance(states, list):
        return [states]
    return [state for part in states for state in _flat(part)]


def add(name: str, unroll: Callable[[Any, Any], Any], **options: Any) -> None:
    """A case: `unroll` gets the package and the input, and gives outputs and states."""
    shapes = options.pop("shapes", {"data": DATA})
    BUILD[name] = lambda mx: outputs_and_states(mx, unroll(mx, mx.sym.Variable("data")))
    CASES.add(name, lambda mx: None, shapes, rtol=2e-5, **options)


def run_with_arrays(mx: Any, case_name: str) -> dict[str, np.ndarray]:
    """Numbers and structure of a case."""
    net = BUILD[case_name](mx)
    case: Case = CASES[case_name]._replace(build=lambda sym: net)
    return {**run(mx, case_name, case), "nodes": np.array([json.dumps(n) for n in nodes(net)])}


def nodes(net: Any) -> list[Any]:
    """Operator, name, inputs and parameters of each node, and the heads."""
    graph = json.loads(net.tojson())
    found = []
    for node in graph["nodes"]:
        attrs = node.get("attrs", {})
        if node["op"] == "null":  # MXNet copies parameters of operators to their variables
            attrs = {k: v for k, v in attrs.items() if k.startswith("__")}
        inputs = [edge[:2] for edge in node["inputs"]]
        found.append([node["op"], node["name"], inputs, sorted(attrs.items())])
    return [*found, [head[:2] for head in graph["heads"]]]


def _plain() -> None:
    for kind in ("RNNCell", "LSTMCell", "GRUCell"):
        for layout in ("NTC", "TNC"):
            for merged in (None, True):
                add(
                    kind + "_" + layout + ("_merged" if merged else ""),
                    lambda mx, x, kind=kind, layout=layout, merged=merged: getattr(mx.rnn, kind)(5).unroll(
                        STEPS, x, layout=layout, merge_outputs=merged
                    ),
                    shapes={"data": DATA if layout == "NTC" else (3, 2, 4)},
                )
        add(
            kind + "_states_given",
            lambda mx, x, kind=kind: (
                lambda cell: cell.unroll(2, [x, x * 2], cell.begin_state(func=mx.sym.Variable))
            )(getattr(mx.rnn, kind)(4, prefix="c_")),
            shapes={"data": (2, 4)},
        )
    add(
        "step",
        lambda mx, x: (lambda cell: cell(x, cell.begin_state()))(mx.rnn.LSTMCell(3)),
        shapes={"data": (2, 4)},
    )
    add("RNNCell_relu", lambda mx, x: mx.rnn.RNNCell(5, activation="relu").unroll(STEPS, x))
    add(
        "list_merged",
        lambda mx, x: mx.rnn.GRUCell(4).unroll(2, [x, x], layout="TNC", merge_outputs=True),
        shapes={"data": (2, 4)},
    )
    add("shared_params", _shared)


def _shared(mx: Any, x: Any) -> Any:
    params = mx.rnn.RNNParams("shared_")
    stack = mx.rnn.SequentialRNNCell()
    stack.add(mx.rnn.LSTMCell(4, prefix="a_", params=params))
    stack.add(mx.rnn.LSTMCell(4, prefix="b_", params=params))
    return stack.unroll(STEPS, x)


def _fused() -> None:
    for mode in ("rnn_relu", "rnn_tanh", "lstm", "gru"):
        add(
            "fused_" + mode,
            lambda mx, x, mode=mode: mx.rnn.FusedRNNCell(3, 2, mode, True, get_next_state=True).unroll(
                STEPS, x
            ),
            values={mode + "_parameters": _small},
        )
    add("fused_list", lambda mx, x: mx.rnn.FusedRNNCell(3).unroll(2, [x, x]), shapes={"data": (2, 4)})
    add(
        "fused_TNC_split",
        lambda mx, x: mx.rnn.FusedRNNCell(3, mode="gru", prefix="q_").unroll(
            3, x, layout="TNC", merge_outputs=False
        ),
        shapes={"data": (3, 2, 4)},
    )
    for mode, both in (("lstm", False), ("gru", True), ("rnn_relu", False)):
        add(
            "unfused_" + mode,
            lambda mx, x, mode=mode, both=both: (
                mx.rnn.FusedRNNCell(3, 2, mode, both, 0.5).unfuse().unroll(STEPS, x)
            ),
            train=False,
        )


def _small(rng: np.random.RandomState, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape) / 2


def _stack(mx: Any, *cells: Any) -> Any:
    stack = mx.rnn.SequentialRNNCell()
    for cell in cells:
        stack.add(cell)
    return stack


def _both(mx: Any, kind: str = "RNNCell", **options: Any) -> Any:
    make = getattr(mx.rnn, kind)
    return mx.rnn.BidirectionalCell(make(3, prefix="l_"), make(3, prefix="r_"), **options)


def _containers() -> None:
    for merged in (None, True, False):
        add(
            "stack_" + str(merged),
            lambda mx, x, merged=merged: _stack(
                mx, mx.rnn.RNNCell(3, prefix="a_"), mx.rnn.DropoutCell(0.3), mx.rnn.LSTMCell(3, prefix="b_")
            ).unroll(STEPS, x, merge_outputs=merged),
            train=False,
        )
        add(
            "both_" + str(merged),
            lambda mx, x, merged=merged: _both(mx).unroll(STEPS, x, merge_outputs=merged),
        )
        add(
            "both_fused_" + str(merged),
            lambda mx, x, merged=merged: _both(mx, "FusedRNNCell").unroll(STEPS, x, merge_outputs=merged),
        )
    add(
        "both_TNC",
        lambda mx, x: _both(mx, "GRUCell", output_prefix="o_").unroll(2, x, layout="TNC", merge_outputs=True),
    )
    add(
        "both_mixed",
        lambda mx, x: mx.rnn.BidirectionalCell(
            mx.rnn.FusedRNNCell(3, prefix="l_"), mx.rnn.RNNCell(3, prefix="r_")
        ).unroll(STEPS, x),
    )
    add(
        "both_above_both",
        lambda mx, x: _stack(
            mx,
            _both(mx),
            mx.rnn.BidirectionalCell(
                mx.rnn.GRUCell(2, prefix="k_"), mx.rnn.GRUCell(2, prefix="m_"), output_prefix="top_"
            ),
        ).unroll(STEPS, x),
    )
    add(
        "both_of_stacks",
        lambda mx, x: mx.rnn.BidirectionalCell(
            _stack(mx, mx.rnn.RNNCell(3, prefix="l_")), _stack(mx, mx.rnn.RNNCell(3, prefix="r_"))
        ).unroll(STEPS, x),
    )


def _modifiers() -> None:
    for merged in (None, True, False):
        add(
            "residual_" + str(merged),
            lambda mx, x, merged=merged: mx.rnn.ResidualCell(mx.rnn.GRUCell(4)).unroll(
                STEPS, x, merge_outputs=merged
            ),
        )
        add(
            "dropout_" + str(merged),
            lambda mx, x, merged=merged: mx.rnn.DropoutCell(0.4).unroll(STEPS, x, merge_outputs=merged),
            train=False,
        )
    add("residual_fused", lambda mx, x: mx.rnn.ResidualCell(mx.rnn.FusedRNNCell(4)).unroll(STEPS, x))
    add(
        "residual_list_merged",
        lambda mx, x: mx.rnn.ResidualCell(mx.rnn.RNNCell(4)).unroll(2, [x, x * 2], merge_outputs=True),
        shapes={"data": (2, 4)},
    )
    add(
        "residual_both",
        lambda mx, x: mx.rnn.ResidualCell(
            mx.rnn.BidirectionalCell(mx.rnn.RNNCell(2, prefix="l_"), mx.rnn.RNNCell(2, prefix="r_"))
        ).unroll(STEPS, x),
    )
    for outputs, states in ((0.3, 0.4), (0.3, 0.0), (0.0, 0.3)):
        add(
            f"zoneout_{outputs}_{states}",
            lambda mx, x, p=(outputs, states): mx.rnn.ZoneoutCell(mx.rnn.LSTMCell(3), *p).unroll(STEPS, x),
            train=False,
        )
    add(
        "zoneout_in_stack",
        lambda mx, x: _stack(
            mx,
            mx.rnn.ZoneoutCell(mx.rnn.LSTMCell(3), 0.1, 0.2),
            mx.rnn.ResidualCell(mx.rnn.LSTMCell(3, prefix="k_")),
        ).unroll(2, x, merge_outputs=True),
        shapes={"data": (2, 2, 3)},
        train=False,
    )


def _convolutional() -> None:
    for kind in ("ConvRNNCell", "ConvLSTMCell", "ConvGRUCell"):
        add(
            kind,
            lambda mx, x, kind=kind: getattr(mx.rnn, kind)((1, 2, 4, 5), 3).unroll(2, x),
            shapes={"data": (2, 2, 2, 4, 5)},
            values={kind[:-4] + "_h2h_weight": _small},
        )
    add(
        "conv_options",
        lambda mx, x: mx.rnn.ConvLSTMCell(
            (1, 2, 7, 6),
            2,
            h2h_kernel=(5, 3),
            h2h_dilate=(1, 2),
            i2h_kernel=(2, 3),
            i2h_stride=(2, 1),
            i2h_pad=(1, 0),
            i2h_weight_initializer=mx.init.One(),
            h2h_weight_initializer="zeros",
            activation="tanh",
            prefix="p_",
        ).unroll(2, x, merge_outputs=True),
        shapes={"data": (2, 2, 2, 7, 6)},
    )


_plain()
_fused()
_containers()
_modifiers()
_convolutional()
