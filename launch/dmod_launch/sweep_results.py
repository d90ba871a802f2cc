"""What a sweep has found: as a table, as CSV, and as pictures."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from dmod_launch.sweep_news import Curves

__all__ = ["SweepResult"]


@dataclass(frozen=True)
class SweepResult:
    """All trials of a sweep.

    Attributes
    ----------
    table : pandas.DataFrame
        A row per trial, the best first: its name, last settings, last metrics, how many epochs it has run
        (those of the trial whose checkpoint it has gone on from included), and its error or ''.
    best : ray.tune.Result or None
        The best trial: ``best.config``, ``best.metrics``, ``best.checkpoint``.
    metric, mode : str
    directory : Path
    curves : dict of str to list of (int, float)
        By trial: epochs, counted from 1, and their metric, as they came. A trial that has gone on from
        another's checkpoint may have an epoch twice.
    """

    table: Any
    best: Any
    metric: str
    mode: str
    directory: Path
    curves: Curves

    @classmethod
    def of(cls, grid: Any, metric: str, mode: str, directory: Path, curves: Curves) -> SweepResult:
        """From what Tune returns."""
        pandas = importlib.import_module("pandas")
        rows, found = [], []
        for result in grid:
            metrics = result.metrics or {}
            # Not the id among the metrics: with another's checkpoint a trial gets its metrics, too.
            trial = Path(result.path).name.removeprefix("trial_")
            value = metrics.get(metric)
            values = {name: v for name, v in metrics.items() if name.startswith(("train-", "validation-"))}
            row = {"trial": trial, **(result.config or {}), **values}
            if value is not None:
                row[metric] = value
                found.append((float(value), trial, result))
            row["epochs_run"] = metrics.get("training_iteration", 0)
            row["error"] = _last_line(result.error)
            rows.append(row)
        table = pandas.DataFrame(rows)
        if metric not in table:
            table[metric] = float("nan")
        table = table.sort_values([metric, "trial"], ascending=[mode == "min", True], na_position="last")
        best = None
        if found:
            choose = min if mode == "min" else max
            top = choose(value for value, _, _ in found)
            best = min(
                [(trial, result) for value, trial, result in found if value == top], key=itemgetter(0)
            )[1]
        return cls(table.reset_index(drop=True), best, metric, mode, directory, curves)

    def __str__(self) -> str:
        return str(self.table.to_string(index=False))

    def save(self, directory: str | Path | None = None) -> list[Path]:
        """Write ``trials.csv``, and pictures if matplotlib is there: curves, and settings against the metric.

        Parameters
        ----------
        directory : str or Path, optional
            Default: that of the sweep.

        Returns
        -------
        list of Path
            What was written.
        """
        folder = Path(directory or self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "trials.csv"]
        self.table.to_csv(written[0], index=False)
        try:
            figures = importlib.import_module("matplotlib.figure")
        except ImportError:
            return written
        for name, draw in (("curves.png", self._draw_curves), ("settings.png", self._draw_settings)):
            figure = draw(figures)
            if figure is not None:
                figure.savefig(folder / name, dpi=120)
                written.append(folder / name)
        return written

    def _draw_curves(self, figures: Any) -> Any:
        figure = figures.Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        for trial in self.table["trial"]:
            points = self.curves.get(trial, [])
            is_best = self.best is not None and trial == self.table["trial"][0]
            axes.plot(
                [epoch for epoch, _ in points],
                [value for _, value in points],
                marker=".",
                color="tab:blue" if is_best else "0.7",
                zorder=2 if is_best else 1,
            )
        axes.set(xlabel="epoch", ylabel=self.metric, title="trials, the best in blue")
        return figure

    def _draw_settings(self, figures: Any) -> Any:
        names = [name for name in self._settings() if self.table[name].astype(str).nunique() > 1]
        if not names:
            return None
        figure = figures.Figure(figsize=(3 * len(names) + 0.6, 3.2), layout="constrained")
        for place, name in zip(
            figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True
        ):
            values = self.table[name]
            is_number = values.dtype.kind in "if"
            place.plot(values if is_number else values.astype(str), self.table[self.metric], "o", alpha=0.7)
            if is_number and (values > 0).all() and values.max() > 50 * values.min():
                place.set_xscale("log")
            place.set_xlabel(name)
        figure.supylabel(self.metric)
        return figure

    def _settings(self) -> list[str]:
        """Those that a picture can show: numbers and words."""
        config = {} if self.best is None else self.best.config
        kinds = (int, float, str)
        return [name for name in config if name in self.table and isinstance(config[name], kinds)]


def _last_line(error: Any) -> str:
    """What an error of a trial says, without the traceback from its actor; '' for None."""
    if error is None:
        return ""
    lines = [
        line.strip() for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()
    ]
    return lines[-1] if lines else type(error).__name__
