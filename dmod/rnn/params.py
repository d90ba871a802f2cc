"""`RNNParams`: the variables of a cell, which other cells may share."""

from __future__ import annotations

from typing import Any

import dmod.symbol as symbol
from dmod.symbol import Symbol

__all__ = ["RNNParams"]


class RNNParams:
    """Variables by name, made when they are first asked for.

    Parameters
    ----------
    prefix : str
        Stands before the name of every variable.

    Examples
    --------
    >>> params = RNNParams('lstm_')
    >>> params.get('i2h_weight').name, params.get('i2h_weight') is params.get('i2h_weight')
    ('lstm_i2h_weight', True)
    """

    def __init__(self, prefix: str = ""):
        self._prefix = prefix
        self._params: dict[str, Symbol] = {}

    def get(self, name: str, **kwargs: Any) -> Symbol:
        """The variable `name`; `kwargs` go to `mx.sym.Variable` if it has to be made."""
        name = self._prefix + name
        if name not in self._params:
            self._params[name] = symbol.Variable(name, **kwargs)
        return self._params[name]
