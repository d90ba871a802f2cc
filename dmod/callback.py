"""``mx.callback``: what to do after a batch or an epoch of `fit`.

They report through the logger 'dmod', which a program that has not set logging up sees on stderr.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.checkpoint import save_checkpoint
from dmod.log import logger, show_progress

__all__ = [
    "LogValidationMetricsCallback",
    "ProgressBar",
    "Speedometer",
    "do_checkpoint",
    "log_train_metric",
    "module_checkpoint",
]


def _report(message: str, *args: Any) -> None:
    show_progress()
    logger.info(message, *args)


def _directory_of(prefix: str) -> str:
    return os.path.dirname(os.path.abspath(prefix))


def _check_directory(call: str, prefix: str) -> None:
    """See that files can be written under `prefix`, rather than find out after an epoch."""
    there = _directory_of(prefix)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise InvalidArgument(f"{call}({prefix!r}): {there!r} is no directory; give another prefix")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InvalidArgument(f"{call}({prefix!r}): {there!r} cannot be written to; give another prefix")


def do_checkpoint(prefix: str, period: int = 1) -> Callable[[int, Any, Any, Any], None]:
    """An epoch-end callback that saves network and parameters every `period` epochs.

    Parameters
    ----------
    prefix : str
        The files are ``prefix-symbol.json`` and ``prefix-0001.params``, with the number of epochs done. Their
        directory is made when the first are saved.
    period : int

    Raises
    ------
    InvalidArgument
        There can be no such directory, or nothing can be written there.

    Examples
    --------
    >>> save = do_checkpoint('model/mlp')  # module.fit(..., epoch_end_callback=save)
    """
    period = int(max(1, period))
    _check_directory("do_checkpoint", prefix)

    def _callback(iter_no: int, sym: Any, arg: Any, aux: Any) -> None:
        if (iter_no + 1) % period == 0:
            os.makedirs(_directory_of(prefix), exist_ok=True)
            save_checkpoint(prefix, iter_no + 1, sym, arg, aux)
            _report('Saved checkpoint to "%s-%04d.params"', prefix, iter_no + 1)

    return _callback


def module_checkpoint(
    mod: Any, prefix: str, period: int = 1, save_optimizer_states: bool = False
) -> Callable[..., None]:
    """An epoch-end callback that lets a module save its checkpoint every `period` epochs.

    Parameters
    ----------
    mod : BaseModule
    prefix : str
    period : int
    save_optimizer_states : bool
        Save ``prefix-0001.states`` too, to go on training from there.

    Raises
    ------
    InvalidArgument
        There can be no directory for such files, or nothing can be written there.
    """
    period = int(max(1, period))
    _check_directory("module_checkpoint", prefix)

    def _callback(iter_no: int, sym: Any = None, arg: Any = None, aux: Any = None) -> None:
        if (iter_no + 1) % period == 0:
            os.makedirs(_directory_of(prefix), exist_ok=True)
            mod.save_checkpoint(prefix, iter_no + 1, save_optimizer_states)

    return _callback


def log_train_metric(period: int, auto_reset: bool = False) -> Callable[[Any], None]:
    """A batch-end callback that logs the training metric every `period` batches.

    Parameters
    ----------
    period : int
    auto_reset : bool
        Let the metric begin anew after each report; its figure for the epoch stays.
    """

    def _callback(param: Any) -> None:
        if param.nbatch % period == 0 and param.eval_metric is not None:
            for name, value in param.eval_metric.get_name_value():
                _report("Iter[%d] Batch[%d] Train-%s=%f", param.epoch, param.nbatch, name, value)
            if auto_reset:
                param.eval_metric.reset_local()

    return _callback


class Speedometer:
    """A batch-end callback that logs samples per second, and the training metric, every `frequent` batches.

    Parameters
    ----------
    batch_size : int
        Samples per batch.
    frequent : int
        Batches between two reports.
    auto_reset : bool
        Let the metric begin anew after each report, so that each tells of its own batches; the metric's
        figure for the epoch stays.
    """

    def __init__(self, batch_size: int, frequent: int = 50, auto_reset: bool = True):
        self.batch_size = batch_size
        self.frequent = frequent
        self.auto_reset = auto_reset
        self.init = False
        self.tic = 0.0
        self.last_count = 0

    def __call__(self, param: Any) -> None:
        """Count a batch; report if it is time to."""
        count = param.nbatch
        if self.last_count > count:  # another epoch
            self.init = False
        self.last_count = count
        if not self.init:
            self.init = True
            self.tic = time.perf_counter()
        elif count % self.frequent == 0:
            elapsed = time.perf_counter() - self.tic
            speed = self.frequent * self.batch_size / elapsed if elapsed > 0 else math.inf
            self._log(param, count, speed)
            self.tic = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Where it stands in the epoch, for checkpoints."""
        return {"init": self.init, "last_count": self.last_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the time that has passed since does not count."""
        self.init, self.last_count = state["init"], state["last_count"]
        self.tic = time.perf_counter()

    def _log(self, param: Any, count: int, speed: float) -> None:
        if param.eval_metric is None:
            _report("Iter[%d] Batch [%d]\tSpeed: %.2f samples/sec", param.epoch, count, speed)
            return
        figures = "".join(f"\t{name}={value:f}" for name, value in param.eval_metric.get_name_value())
        first = count - self.frequent if self.auto_reset else 0
        if self.auto_reset:
            param.eval_metric.reset_local()
        _report(
            "Epoch[%d] Batch [%d-%d]\tSpeed: %.2f samples/sec%s", param.epoch, first, count, speed, figures
        )


class ProgressBar:
    """A batch-end callback that draws how much of the epoch is done.

    Parameters
    ----------
    total : int
        Batches per epoch.
    length : int
        Characters of the whole bar.
    """

    def __init__(self, total: int, length: int = 80):
        self.bar_len = length
        self.total = total

    def __call__(self, param: Any) -> None:
        """Draw the bar."""
        done = min(1.0, param.nbatch / self.total) if self.total > 0 else 1.0
        filled = round(self.bar_len * done)
        bar = "=" * filled + "-" * (self.bar_len - filled)
        text = f"[{bar}] {math.ceil(100.0 * done)}%"
        if logging.getLogger().handlers:
            logger.info(text)
        else:  # nobody set logging up, so somebody watches: draw over the last bar
            print(text, end="\n" if done == 1.0 else "\r", file=sys.stderr, flush=True)


class LogValidationMetricsCallback:
    """An eval-end callback that logs the validation metric."""

    def __call__(self, param: Any) -> None:
        """Log each figure."""
        if param.eval_metric is not None:
            for name, value in param.eval_metric.get_name_value():
                _report("Epoch[%d] Validation-%s=%f", param.epoch, name, value)
