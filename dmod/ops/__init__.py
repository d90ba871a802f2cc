"""The operator table: one file per family; `registry` says what an operator is.

Importing the package imports every file in it, and each file puts its operators into the table.
"""

from __future__ import annotations

import importlib
import pkgutil

from dmod.ops.registry import OPERATORS, Attrs, Call, Operator, get_operator

__all__ = ["OPERATORS", "Attrs", "Call", "Operator", "get_operator"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
