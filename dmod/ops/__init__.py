"""The operator table: one file per family; `registry` says what an operator is."""

from __future__ import annotations

from dmod.ops import (  # noqa: F401  (each import fills the table)
    activation,
    batch_norm,
    dropout,
    elementwise,
    fully_connected,
    regression,
    shape,
    softmax_output,
)
from dmod.ops.registry import OPERATORS, Attrs, Call, Operator, get_operator

__all__ = ["OPERATORS", "Attrs", "Call", "Operator", "get_operator"]
