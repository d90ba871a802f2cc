"""What a sweep does at news of a trial: keeps its curve, tells how it ends, removes old checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

__all__ = ["Curves", "kept_by", "news"]

Curves = dict[str, list[tuple[int, float]]]
"""For every trial, its epochs, counted from 1, and their metric, in the order in which they came.

Tune has them too, but its logger (Ray 2.60) forgets epochs of trials that pause.
"""


def kept_by(scheduler: Any) -> tuple[int | None, int | None]:
    """How many of a trial's checkpoints Tune keeps (None: all), and if that is all, how many `news` leaves.

    Under `PopulationBasedTraining` a trial goes on from what another one has saved when it was last compared
    with others, up to an interval ago.
    """
    if scheduler in (None, "fifo", "asha"):
        return 2, None
    interval = getattr(scheduler, "_perturbation_interval", None)
    if interval is None:
        return 4, None
    counts_epochs = getattr(scheduler, "_time_attr", None) == "training_iteration"
    return None, int(interval) + 4 if counts_epochs else None


def news(tune: Any, say: Callable[[str], None], metric: str, curves: Curves, keep: int | None) -> Any:
    """The callback for Tune.

    Parameters
    ----------
    tune : module
    say : callable
        Is told how trials end.
    metric : str
    curves : dict
        Is filled.
    keep : int or None
        How many of a trial's newest checkpoints are left, beside those that any trial goes on from; None:
        all.
    """
    taken: dict[str, list[str]] = {}

    def on_result(self: Any, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        if metric in result:
            point = int(result["training_iteration"]), float(result[metric])
            curves.setdefault(trial.trial_id, []).append(point)

    def on_checkpoint(self: Any, trials: Any, trial: Any, checkpoint: Any, **info: Any) -> None:
        if keep is None:
            return
        own = taken.setdefault(trial.trial_id, [])
        if checkpoint.path in own:  # a trial that was started again may write one again
            own.remove(checkpoint.path)
        own.append(checkpoint.path)
        wanted = {other.checkpoint.path for other in trials if other.checkpoint is not None}
        for path in [path for path in own[:-keep] if path not in wanted]:
            own.remove(path)
            shutil.rmtree(path, ignore_errors=True)

    def on_complete(self: Any, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        value = trial.last_result.get(metric)
        text = "nothing reported" if value is None else f"{metric}={value:g}"
        say(f"{trial}: {text} after {trial.last_result.get('training_iteration', 0)} epochs")

    def on_error(self: Any, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        say(f"{trial}: failed; the others go on")

    methods = {
        "on_trial_result": on_result,
        "on_checkpoint": on_checkpoint,
        "on_trial_complete": on_complete,
        "on_trial_error": on_error,
    }
    return type("News", (tune.Callback,), methods)()
