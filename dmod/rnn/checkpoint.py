"""Checkpoints with the weights of cells told apart by gate: fused and single cells read each other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dmod.checkpoint import load_checkpoint, save_checkpoint
from dmod.log import logger, show_progress
from dmod.ndarray import NDArray
from dmod.rnn.base_cell import Arrays, BaseRNNCell
from dmod.symbol import Symbol

__all__ = ["do_rnn_checkpoint", "load_rnn_checkpoint", "save_rnn_checkpoint"]

Cells = BaseRNNCell | Sequence[BaseRNNCell]


def _listed(cells: Cells) -> list[BaseRNNCell]:
    return [cells] if isinstance(cells, BaseRNNCell) else list(cells)


def save_rnn_checkpoint(
    cells: Cells,
    prefix: str,
    epoch: int,
    symbol: Symbol | None,
    arg_params: Mapping[str, NDArray],
    aux_params: Mapping[str, NDArray],
) -> None:
    """Write a network and its parameters, the cells' weights unpacked; see `mx.model.save_checkpoint`.

    Parameters
    ----------
    cells : BaseRNNCell or list of them
        The cells of the network.
    prefix : str
    epoch : int
    symbol : Symbol or None
    arg_params, aux_params : dict of str to NDArray
    """
    args = dict(arg_params)
    for cell in _listed(cells):
        args = cell.unpack_weights(args)
    save_checkpoint(prefix, epoch, symbol, args, aux_params)


def load_rnn_checkpoint(cells: Cells, prefix: str, epoch: int) -> tuple[Symbol, Arrays, Arrays]:
    """Read a checkpoint of `save_rnn_checkpoint`, and pack the cells' weights.

    Returns
    -------
    (symbol, arg_params, aux_params)
    """
    symbol, args, aux = load_checkpoint(prefix, epoch)
    for cell in _listed(cells):
        args = cell.pack_weights(args)
    return symbol, args, aux


def do_rnn_checkpoint(cells: Cells, prefix: str, period: int = 1) -> Callable[[int, Any, Any, Any], None]:
    """An epoch-end callback that calls `save_rnn_checkpoint` every `period` epochs."""
    period = int(max(1, period))

    def _callback(iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None) -> None:
        if (iter_no + 1) % period == 0:
            save_rnn_checkpoint(cells, prefix, iter_no + 1, sym, arg, aux)
            show_progress()
            logger.info('Saved checkpoint to "%s-%04d.params"', prefix, iter_no + 1)

    return _callback
