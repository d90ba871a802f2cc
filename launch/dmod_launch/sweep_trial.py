"""A trial of a sweep: one training, as Ray Tune stops, pauses and resumes it, from dmod's checkpoints.

The training runs in processes of its own and waits after every epoch until Tune has heard of it. A trial of
one worker runs beside its actor; one of several is a job in the placement group of the trial.

Tune may keep several actors for one trial: one that has paused it, one in which it goes on, and one made for
it in vain. So each has a directory of its own for checkpoints, and none disturbs another's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import queue
import shutil
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from dmod.base import ClusterError
from dmod_launch.function_job import FunctionJob, Report, Shipped
from dmod_launch.ray_job import RayOptions

__all__ = ["TrialMixin", "TrialSettings", "remove_working_copies", "trial_class"]

_STATE = "trial.json"
_WORKING = "checkpoints-"
"""What the directories are called into which a training writes its checkpoints; Tune is given copies."""
_END_S = 10.0


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share.

    Attributes
    ----------
    function : Shipped
    num_workers, num_servers : int
    options : RayOptions
    directory : Path
        Of the sweep; each trial has one below it.
    threads : int
        Of each worker.
    """

    function: Shipped
    num_workers: int
    num_servers: int
    options: RayOptions
    directory: Path
    threads: int


class _Talk:
    """Between the training of one start of a trial and Tune; what a training says late, nobody hears."""

    def __init__(self) -> None:
        self._said: queue.Queue[Report | BaseException | None] = queue.Queue()
        self._go_on = threading.Semaphore(0)
        self._is_waited_for = False

    def hear(self, report: Report) -> None:
        """Pass a report on; the worker waits for as long as this takes."""
        self._said.put(report)
        self._go_on.acquire()

    def over(self, error: BaseException | None = None) -> None:
        """The training has ended."""
        self._said.put(error)

    def next(self) -> Report | BaseException | None:
        """Let the worker go on, and wait for its next report, or its end."""
        if self._is_waited_for:
            self._go_on.release()
        said = self._said.get()
        self._is_waited_for = isinstance(said, Report)
        return said

    def end(self) -> None:
        """Wait for nothing any more."""
        self._go_on.release()


def _run(job: FunctionJob, talk: _Talk) -> None:
    try:
        job.run(max_restarts=0)  # Tune starts it again, in another place if need be
        talk.over()
    except BaseException as error:
        talk.over(error)


class TrialMixin:
    """The methods that Ray's `tune.Trainable` calls; see there when."""

    trial_id: str

    def setup(self, config: dict[str, Any], settings: TrialSettings) -> None:
        """Make ready to train; starts nothing."""
        self._given, self._settings = config, settings
        self._directory = settings.directory / "trials" / self.trial_id
        self._directory.mkdir(parents=True, exist_ok=True)
        # Empty: the trial goes on from what Tune gives it, or from the beginning.
        self._checkpoints = Path(tempfile.mkdtemp(prefix=_WORKING, dir=self._directory))
        self._job: FunctionJob | None = None
        self._thread: threading.Thread | None = None
        self._log: BinaryIO | None = None
        self._talk = _Talk()
        self._epoch = -1  # the last one that Tune has heard of
        self._checkpoint: int | None = None  # the number of this moment's

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, or the same one with other settings; saves the start of an actor."""
        self.cleanup()
        TrialMixin.setup(self, new_config, self._settings)
        return True

    def step(self) -> dict[str, Any]:
        """Train for another epoch."""
        if self._job is None:
            self._begin()
        while True:
            said = self._talk.next()
            if said is None:
                return {"__duplicate__": True, "done": True}
            if isinstance(said, BaseException):
                raise said
            self._checkpoint = said.checkpoint
            epoch = self._epoch + 1 if said.epoch is None else said.epoch
            if epoch > self._epoch:  # else Tune has heard of it, before the trial was cut short
                self._epoch = epoch
                return {**said.metrics, "epoch": epoch}

    def _begin(self) -> None:
        settings, talk = self._settings, self._talk
        options, ray = settings.options, importlib.import_module("ray")
        is_alone = settings.num_workers == 1 and settings.num_servers == 0
        if not is_alone:
            options = replace(options, group=ray.util.get_current_placement_group())
        self._log = open(self._directory / "output.log", "ab", buffering=0)  # noqa: SIM115  (for the trial)
        self._job = FunctionJob(
            ray,
            options,
            settings.function.configured(self._given),
            settings.num_workers,
            settings.num_servers,
            self._directory,
            2,
            talk.hear,
            waits=True,
            extra={"DMOD_NUM_THREADS": str(settings.threads), "OMP_NUM_THREADS": str(settings.threads)},
            log=self._log,
            here=is_alone,
            checkpoints=self._checkpoints,
        )
        self._thread = threading.Thread(target=_run, args=(self._job, talk), name="job of the trial")
        self._thread.start()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Give Tune the checkpoint of this moment, if the function takes any."""
        target = Path(checkpoint_dir)
        if self._checkpoint is not None:
            name = f"checkpoint-{self._checkpoint:06d}"
            shutil.copytree(self._checkpoints / name, target / name)
        (target / _STATE).write_text(json.dumps({"epoch": self._epoch, "checkpoint": self._checkpoint}))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from such a checkpoint: one of this trial, or of another one."""
        source = Path(checkpoint_dir)
        self._end()
        state = json.loads((source / _STATE).read_text())
        # Tune may ask for this moment's checkpoint again before the training has taken another one.
        self._epoch, self._checkpoint = state["epoch"], state["checkpoint"]
        shutil.rmtree(self._checkpoints)
        shutil.copytree(source, self._checkpoints, ignore=shutil.ignore_patterns(_STATE))

    def cleanup(self) -> None:
        """End the training, and remove what only it has a use for."""
        self._end()
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _end(self) -> None:
        job, thread = self._job, self._thread
        if job is not None and thread is not None:
            job.stop()
            self._talk.end()
            thread.join(_END_S)
            if thread.is_alive():
                raise ClusterError(f"trial {self.trial_id}: its processes have not ended within {_END_S:g} s")
        self._job = self._thread = None
        self._talk = _Talk()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
            self._log = None


def remove_working_copies(directory: Path) -> None:
    """Remove what actors that were killed have left in the directory of a sweep that has ended."""
    for folder in (directory / "trials").glob(f"*/{_WORKING}*"):
        shutil.rmtree(folder, ignore_errors=True)


def trial_class(tune: Any) -> Any:
    """The class that Tune makes trials of; Ray's is known only now."""
    return type("Training", (TrialMixin, tune.Trainable), {"__module__": "dmod_launch.trials", "__doc__": ""})
