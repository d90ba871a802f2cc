"""Checkpoints: a network in ``prefix-symbol.json``, its parameters in ``prefix-0001.params``."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping

import dmod.symbol as sym
from dmod.base import FormatError
from dmod.ndarray import NDArray, load, save
from dmod.symbol import Symbol

__all__ = [
    "BatchEndParam",
    "join_params",
    "load_checkpoint",
    "load_params",
    "save_checkpoint",
    "split_params",
]

BatchEndParam = namedtuple("BatchEndParam", ["epoch", "nbatch", "eval_metric", "locals"])
"""What batch callbacks get: the epoch, the number of the batch, the metric, and the loop's variables."""


def save_checkpoint(
    prefix: str,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, NDArray],
    aux_params: Mapping[str, NDArray],
    remove_amp_cast: bool = True,
) -> None:
    """Write a network and its parameters, in files that MXNet reads.

    Parameters
    ----------
    prefix : str
        The files are ``prefix-symbol.json`` and ``prefix-%04d.params`` with the epoch.
    epoch : int
    symbol : Symbol or None
        None writes no symbol file.
    arg_params, aux_params : dict of str to NDArray
    remove_amp_cast : bool
        Accepted; dmod's symbols have no such casts.
    """
    if symbol is not None:
        symbol.save(f"{prefix}-symbol.json")
    save(f"{prefix}-{epoch:04d}.params", join_params(arg_params, aux_params))


def join_params(arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """One dict, with 'arg:' and 'aux:' before the names."""
    joined = {f"arg:{name}": value for name, value in arg_params.items()}
    joined.update({f"aux:{name}": value for name, value in aux_params.items()})
    return joined


def split_params(fname: str) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Read a file of parameters; returns ``(arg_params, aux_params)``.

    Raises
    ------
    FormatError
        The file is corrupt, or its arrays are not named 'arg:...' and 'aux:...'.
    """
    parts: dict[str, dict[str, NDArray]] = {"arg": {}, "aux": {}}
    loaded = load(fname)
    if not isinstance(loaded, dict):
        if loaded:
            raise FormatError(f"{fname}: arrays without names; expected names such as 'arg:fc1_weight'")
        return {}, {}
    for key, value in loaded.items():
        kind, _, name = key.partition(":")
        if kind not in parts or not name:
            raise FormatError(f"{fname}: an array named {key!r}; expected 'arg:' or 'aux:' before the name")
        parts[kind][name] = value
    return parts["arg"], parts["aux"]


def load_params(prefix: str, epoch: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Read the parameters of a checkpoint; returns ``(arg_params, aux_params)``."""
    return split_params(f"{prefix}-{epoch:04d}.params")


def load_checkpoint(prefix: str, epoch: int) -> tuple[Symbol, dict[str, NDArray], dict[str, NDArray]]:
    """Read a checkpoint that dmod or MXNet wrote.

    Returns
    -------
    (symbol, arg_params, aux_params)

    Raises
    ------
    MXNetError
        A file is missing, or malformed; the message names it.
    """
    symbol = sym.load(f"{prefix}-symbol.json")
    return (symbol, *load_params(prefix, epoch))
