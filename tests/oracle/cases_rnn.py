"""The fused RNN."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table

CASES = Table()


def half(rng: Any, shape: Any) -> Any:
    return rng.standard_normal(shape) * 0.5


def _case(suffix: str, options: dict, shape: Any = (4, 3, 2), **rest: Any) -> None:
    CASES.add(
        "rnn_" + suffix,
        lambda sym: sym.RNN(sym.Variable("data"), name="y", state_size=3, **options),
        {"data": shape},
        values={"y_parameters": half},
        atol=rest.pop("atol", 5e-6),
        **rest,
    )


for _mode in ("rnn_relu", "rnn_tanh", "lstm", "gru"):
    for _layers in (1, 2, 3):
        for _both in (False, True):
            for _outputs in (False, True):
                _case(
                    f"{_mode}_{_layers}{'_both' if _both else ''}{'_states' if _outputs else ''}",
                    {
                        "mode": _mode,
                        "num_layers": _layers,
                        "bidirectional": _both,
                        "state_outputs": _outputs,
                    },
                )
    _case(_mode + "_inference", {"mode": _mode, "num_layers": 2, "p": 0.5}, train=False)
    _case(_mode + "_one_step", {"mode": _mode, "num_layers": 1, "state_outputs": True}, (1, 2, 4))
    _case(_mode + "_one_sample", {"mode": _mode, "num_layers": 2}, (3, 1, 3))
    _case(_mode + "_grad_add", {"mode": _mode, "num_layers": 2}, grad_req="add")
    # MXNet's relu cell computes in float32.
    _rtol = 1e-5 if _mode == "rnn_relu" else 0.0
    _both_ways = {"mode": _mode, "num_layers": 2, "bidirectional": True}
    _case(_mode + "_float64", _both_ways, dtype="float64", rtol=_rtol)
    _case(_mode + "_no_data_grad", {"mode": _mode, "num_layers": 2}, no_grad=("data", "y_state"))
    _case(_mode + "_only_data_grad", {"mode": _mode, "num_layers": 2}, no_grad=("y_parameters",))

# MXNet's CPU has the projection in inference only.
for _both in (False, True):
    _case(
        "lstm_projection" + ("_both" if _both else ""),
        {
            "mode": "lstm",
            "num_layers": 2,
            "projection_size": 2,
            "state_outputs": True,
            "bidirectional": _both,
        },
        train=False,
    )
