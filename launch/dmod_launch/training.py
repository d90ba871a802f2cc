"""What a training function sees of the job that runs it: its rank, checkpoints, and whom to report to.

Outside a job the same calls work too: checkpoints are left out, and reports go nowhere. So a training
function can be called by itself, in a notebook or a debugger.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dmod.base import ClusterError, InvalidArgument
from dmod.recovery import CheckpointManager

__all__ = ["Context", "get_context", "report", "reporting"]

_EVERYTHING = 1 << 30
_WRITTEN_S = 300.0
"""How long a report waits for its checkpoint to be on the disk."""


@dataclass
class Context:
    """A training function's place in its job.

    Attributes
    ----------
    rank, num_workers : int
    directory : Path or None
        Where the job keeps its results, on storage that all nodes share.
    checkpoints : Path or None
        Where its checkpoints lie, on such storage too; for a trial of a sweep only as long as it runs.
    keep : int or None
        How many checkpoints to keep; None: all.
    waits : bool
        Whether every report must leave a whole checkpoint: whoever hears it may stop the training, to let it
        go on later.
    """

    rank: int = 0
    num_workers: int = 1
    directory: Path | None = None
    checkpoints: Path | None = None
    keep: int | None = 2
    waits: bool = False
    channel: Connection | None = None


_context = Context()


def get_context() -> Context:
    """The context of the training function that runs in this process.

    Examples
    --------
    >>> get_context().rank
    0
    """
    return _context


def set_context(context: Context) -> None:
    """For whoever runs the function."""
    global _context
    _context = context


def report(metrics: Mapping[str, float], epoch: int | None = None, checkpoint: int | None = None) -> None:
    """Tell whoever runs the job how the training stands; waits until that is heard.

    Worker 0 speaks for all; in the others, and outside a job, nothing happens.

    Parameters
    ----------
    metrics : mapping of str to float
    epoch : int, optional
        The one that they are of, counted from 0. One that was reported before a restart may be reported
        again.
    checkpoint : int, optional
        The number of the checkpoint of this moment.

    Raises
    ------
    InvalidArgument
        A value is no number.
    ClusterError
        Nobody is there to hear it any more.
    """
    values = {}
    for name, value in metrics.items():
        try:
            values[str(name)] = float(value)
        except (TypeError, ValueError):
            raise InvalidArgument(f"report: {name}={value!r}, expected a number") from None
    if _context.rank != 0 or _context.channel is None:
        return
    exchange({"kind": "report", "metrics": values, "epoch": epoch, "checkpoint": checkpoint})


def exchange(message: Mapping[str, Any]) -> bytes:
    """Send a message to whoever runs the job, and take the answer."""
    channel = _context.channel
    assert channel is not None
    try:
        channel.send_bytes(json.dumps(message).encode())
        return channel.recv_bytes()
    except (EOFError, OSError):
        raise ClusterError("the launcher of this job is gone, and with it the job") from None


class ReportingManager(CheckpointManager):
    """Takes checkpoints, and reports the metrics of every epoch once its checkpoint is taken."""

    def __init__(self, directory: str | os.PathLike[str], **options: Any):
        super().__init__(directory, **options)
        self._values: dict[str, float] = {}

    def metrics_done(self, kind: str, figures: Sequence[tuple[str, float]]) -> None:
        """See `CheckpointManager.metrics_done`; keeps them for the report."""
        found = {f"{kind}-{name}": float(value) for name, value in figures}
        self._values |= {name: value for name, value in found.items() if not math.isnan(value)}

    def epoch_done(self, epoch: int) -> None:
        """See `CheckpointManager.epoch_done`; then reports."""
        super().epoch_done(epoch)
        is_taken = self._taken_at == self.step
        if is_taken and _context.waits:
            is_taken = self._writer.wait(_WRITTEN_S)
        values, self._values = self._values, {}
        report(values, epoch, self._serial if is_taken else None)


def reporting(checkpoints: Mapping[str, Any] | None = None, **callbacks: Any) -> dict[str, Any]:
    """The arguments by which ``fit`` reports the metrics of every epoch, and takes checkpoints.

    Metrics are reported as ``train-accuracy``, ``validation-accuracy`` and so on: those that ``fit`` logs, of
    the data of all workers.

    Parameters
    ----------
    checkpoints : mapping, optional
        For `CheckpointManager`, such as ``{'every_n_batches': 100}``.
    **callbacks
        Further arguments of ``fit``, which are passed on: ``epoch_end_callback``, ``eval_end_callback``.

    Returns
    -------
    dict
        For ``module.fit(train, num_epoch=3, **reporting())``.

    Examples
    --------
    >>> reporting()
    {'checkpoint': None}
    """
    unknown = sorted(set(callbacks) - {"epoch_end_callback", "eval_end_callback"})
    if unknown:
        raise InvalidArgument(
            f"reporting: {', '.join(unknown)}: expected epoch_end_callback or eval_end_callback; pass others "
            "to fit itself"
        )
    if _context.checkpoints is None:
        return {"checkpoint": None, **callbacks}
    options: dict[str, Any] = {"keep": _context.keep or _EVERYTHING}
    if _context.waits:
        options["max_overhead"] = None
    return {
        "checkpoint": ReportingManager(_context.checkpoints, **{**options, **(checkpoints or {})}),
        **callbacks,
    }
