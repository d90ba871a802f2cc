"""`CheckpointManager`: when a checkpoint is taken, and how training goes on from one.

All workers are between the same two rounds when they take theirs: each takes it after the same update, and
none contributes to the next round before it has. Whether one is due, and its number, worker 0 announces: by
a tiny round of its own, a sum of what every worker has to say, so that all come to the same answer.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from dmod.base import ClusterError, FormatError, InvalidArgument, MXNetError, NotReadyError
from dmod.checkpoint import load_params
from dmod.config import settings
from dmod.io.resume import resumable
from dmod.kvstore.base import KVStore
from dmod.kvstore.fingerprint import fingerprint
from dmod.log import logger
from dmod.ndarray import NDArray
from dmod.ndarray.flat import FlatLayout
from dmod.optimizer import OptimizerStates
from dmod.recovery.contents import MODEL, contents_of, states_name
from dmod.recovery.directory import CheckpointDirectory
from dmod.recovery.image import Images
from dmod.recovery.manifest import Manifest
from dmod.recovery.packing import unpack
from dmod.recovery.snapshot import restore_worker, take_callbacks, take_metric, take_worker
from dmod.recovery.writer import Job, Writer, worker_name
from dmod.symbol.digest import digest_of

__all__ = ["CheckpointManager"]

_BUSY, _NOT_DUE, _SERIAL, _FOUND, _DIFFERS, _UNFIT, _PASS = range(7)
_VOTES = 7
_MOST_PASSED = 1000
_PART_TIMEOUT_S = 60.0
_LAST_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class _Found:
    """A checkpoint to go on from."""

    manifest: Manifest
    arg_params: dict[str, NDArray]
    aux_params: dict[str, NDArray]


class CheckpointManager:
    """Takes checkpoints of a training, and goes on from the newest one.

    ``fit(checkpoint=...)`` makes and drives one; a loop of one's own calls, in this order, `init_params`,
    ``init_optimizer`` of the module, `begin`, then `batch_done` and `epoch_done`, and `finish`. With
    'dist_async', whose workers do not wait for each other, there is none within an epoch.

    A checkpoint is a directory: the network in MXNet's files (``model-symbol.json`` and so on, which
    `Module.load` reads), optimizer states, a file for every worker, and a manifest with checksums, written
    last. What is not whole does not count. Writing goes on in a thread beside the training.

    Parameters
    ----------
    directory : str or path
        Where checkpoints lie; all workers of a job see the same.
    every_n_epochs : int or None
        Take one after so many epochs.
    every_n_batches : int or None
        Take one after so many batches of an epoch, too.
    keep : int
        How many to keep; older ones are removed.
    max_overhead : float or None
        Leave one out while those before took a larger share of the time: 0.02 is 2 %. The last one is
        always taken. None: leave none out, and wait for the disk instead.

    Raises
    ------
    InvalidArgument
        A number makes no sense.

    Attributes
    ----------
    epoch, nbatch : int
        Where to go on: the epoch, and how many batches of it are done already.
    step : int
        Updates since the start.

    Examples
    --------
    >>> manager = CheckpointManager('run1', every_n_batches=100)
    >>> manager.epoch, manager.nbatch
    (0, 0)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every_n_epochs: int | None = 1,
        every_n_batches: int | None = None,
        keep: int = 2,
        max_overhead: float | None = 0.02,
    ):
        for name, value in (("every_n_epochs", every_n_epochs), ("every_n_batches", every_n_batches)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidArgument(f"CheckpointManager: {name}={value!r}, expected a number >= 1 or None")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise InvalidArgument(f"CheckpointManager: keep={keep!r}, expected a number >= 1")
        if max_overhead is not None and not 0 < max_overhead <= 1:
            raise InvalidArgument(
                f"CheckpointManager: max_overhead={max_overhead!r}, expected 0 to 1 or None"
            )
        self._directory = CheckpointDirectory(directory)
        self._every_n_epochs, self._every_n_batches = every_n_epochs, every_n_batches
        self._max_overhead = max_overhead
        self._images = Images()
        self._writer = Writer(self._directory, keep, _PART_TIMEOUT_S)
        self._found: _Found | None = None
        self._module: Any = None
        self._network = ""  # the digest of the module's symbols
        self._store: KVStore | None = None
        self._layout = FlatLayout.plan([(0, "votes", (_VOTES,))], "float64")
        self._votes = ""
        self._serial = 0
        self._held: Job | None = None
        self._begun_s = math.inf
        self._asked = 0  # how often, since then, a checkpoint might have been taken
        self._pass = 0  # how often the workers need not ask each other whether to take one
        self._taken_at = -1  # the step of the last checkpoint
        self._taken_s = -math.inf  # when it was taken, and how long that held up the training
        self._held_up_s = 0.0
        self.epoch = self.nbatch = self.step = 0

    # ---- going on

    def init_params(self, module: Any, *, resume: str | None = "auto", **given: Any) -> bool:
        """Initialise a bound module's parameters, from the newest checkpoint of its network if there is one.

        Parameters
        ----------
        module : BaseModule
            Bound, and without an optimizer as yet.
        resume : {'auto', None}
            None begins anew, whatever there is.
        **given
            For ``module.init_params``, if training begins.

        Returns
        -------
        bool
            Whether there was a checkpoint.

        Raises
        ------
        InvalidArgument
            The directory cannot be used.
        NotReadyError
            There is a checkpoint, but the module has an optimizer already.
        """
        if self.restore_params(module, resume):
            return True
        module.init_params(**given)
        return False

    def restore_params(self, module: Any, resume: str | None = "auto") -> bool:
        """`init_params`, but for a training that begins: that leaves the parameters as they are."""
        if resume not in ("auto", None):
            raise InvalidArgument(f"resume={resume!r}: expected 'auto' or None")
        self._directory.prepare()
        self._network = digest_of(learner.symbol for learner in module.learners)
        self._found = self._newest(self._network) if resume == "auto" else None
        if self._found is None:
            return False
        if module.optimizer_initialized:
            raise NotReadyError(
                f"resuming from {self._folder()}: the module has an optimizer already; resume with a new "
                "module, or pass resume=None"
            )
        module.init_params(
            initializer=None,
            arg_params=self._found.arg_params,
            aux_params=self._found.aux_params,
            force_init=True,
        )
        return True

    def _folder(self) -> str:
        assert self._found is not None
        return str(self._directory.folder(self._found.manifest.serial))

    def _newest(self, network: str) -> _Found | None:
        """The newest whole checkpoint of a network, with its parameters."""
        for manifest in self._directory.valid():
            folder = self._directory.folder(manifest.serial)
            if manifest.network != network:
                logger.warning("%s is of another network than this module's and left out", folder)
                continue
            try:
                return _Found(manifest, *load_params(str(folder / MODEL), manifest.epoch))
            except (MXNetError, OSError) as error:
                logger.warning("%s is left out: %s", folder, error)
        return None

    def begin(self, module: Any, train_data: Any, metric: Any = None, callbacks: Sequence[Any] = ()) -> Any:
        """Put back what `init_params` has not: optimizer states, iterator, generators and all the rest.

        Parameters
        ----------
        module : BaseModule
            With its optimizer.
        train_data : DataIter
            At the beginning of an epoch.
        metric : EvalMetric, optional
        callbacks : list, optional
            Those that have ``state_dict`` and ``load_state_dict`` go on too.

        Returns
        -------
        DataIter
            The iterator to train with: `train_data`, or one around it that can be replayed.

        Raises
        ------
        ClusterError
            The workers have found different checkpoints.
        """
        self._module, self._metric, self._callbacks = module, metric, list(callbacks)
        self._train_data = train_data = resumable(train_data)
        self._connect(module)
        if self._store is not None and self._store.asynchronous and self._every_n_batches is not None:
            logger.warning(
                "Checkpoints under %s are taken after epochs only, not every %d batches: workers of a %r "
                "store do not wait for each other within an epoch",
                self._directory.path, self._every_n_batches, self._store.type,
            )  # fmt: skip
            self._every_n_batches, self._every_n_epochs = None, self._every_n_epochs or 1
        manifest = None if self._found is None else self._found.manifest
        state = self._agree_on(manifest)
        if manifest is not None:
            self._restore(manifest, state)
            self._taken_at = self.step
        elif self._rank == 0:
            logger.info("Nothing to go on from under %s: training begins", self._directory.path)
        self._found = None
        if not self._votes:  # else servers would have to send what they have for this
            self._images.prepare(content.nbytes for content in contents_of(module, self.epoch).values())
        self._begun_s = time.monotonic()
        serials = self._directory.serials()
        self._serial = serials[-1] if serials else 0
        return train_data

    def _connect(self, module: Any) -> None:
        """Register the round by which workers agree, and compare what they have found."""
        stores = [
            s for s in (getattr(learner, "store", None) for learner in module.learners) if s is not None
        ]
        self._store = stores[0] if stores else None
        store = self._store
        if store is None or store.num_workers == 1:
            return
        number = store.__dict__.setdefault("_checkpoint_managers", 0)
        store.__dict__["_checkpoint_managers"] = number + 1
        self._votes = f"checkpoint{number}"
        store.init_flat(self._votes, self._layout, [np.zeros(self._layout.size)], mode="sum")

    def _agree_on(self, manifest: Manifest | None) -> dict[str, Any] | None:
        """See that all workers have found the same; this worker's part, if every worker's fits."""
        mine = 0 if manifest is None else manifest.serial
        leads = self._rank == 0
        first = int(self._vote({_FOUND: mine if leads else 0})[_FOUND])
        state = None if manifest is None else self._own_part(manifest)
        said = self._vote({_DIFFERS: mine != first, _UNFIT: state is None})
        if said[_DIFFERS]:
            others = "another worker another one" if mine == first else f"worker 0 {first or 'none'}"
            raise ClusterError(
                f"worker {self._rank} found checkpoint {mine or 'none'} under {str(self._directory.path)!r}, "
                f"{others}; the directory must be the same, on a file system that all hosts share"
            )
        return None if said[_UNFIT] else state

    def _own_part(self, manifest: Manifest) -> dict[str, Any] | None:
        """What this worker kept for itself, if it has the same devices now, and there are as many workers."""
        if manifest.num_workers != self._shape()[0]:
            return None
        path = self._directory.folder(manifest.serial) / worker_name(self._rank)
        try:
            state: dict[str, Any] = unpack(path.read_bytes(), str(path))
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror}") from None
        then = [len(devices["streams"]) for devices in state["devices"]]
        return state if then == [len(learner.contexts) for learner in self._module.learners] else None

    def _vote(self, mine: dict[int, float]) -> np.ndarray:
        """The sum over all workers of what each says."""
        said: np.ndarray = np.zeros(self._layout.size)
        for place, value in mine.items():
            said[place] = value
        if self._votes:
            assert self._store is not None
            self._store.pushpull_flat(self._votes, [said], [said], exact=True)
        return said

    def _restore(self, manifest: Manifest, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint; without `state` with the job's part of it alone."""
        module, folder = self._module, self._directory.folder(manifest.serial)
        for number, learner in enumerate(module.learners):
            learner.set_optimizer_states(OptimizerStates.load(folder / states_name(manifest.epoch, number)))
        self.epoch, self.nbatch, self.step = manifest.epoch, manifest.nbatch, manifest.step
        if state is None:
            self.nbatch = 0
            logger.warning(
                "%s was taken with %d workers of %d devices, there are %d of %d now: parameters and "
                "optimizer states go on, from the beginning of epoch %d; the order of the data and random "
                "numbers do not, so the result will differ in its bits",
                folder, manifest.num_workers, manifest.num_devices, *self._shape(), self.epoch,
            )  # fmt: skip
            return
        here = _fingerprint()
        differ = sorted(
            k for k in {*here, *manifest.fingerprint} if here.get(k) != manifest.fingerprint.get(k)
        )
        if differ:
            pairs = (
                f"{k} {manifest.fingerprint.get(k, 'none')} then, {here.get(k, 'none')} now" for k in differ
            )
            logger.warning("%s: the result may differ in its bits: %s", folder, "; ".join(pairs))
        where = str(folder / worker_name(self._rank))
        restore_worker(state, module, self._train_data, self._metric, self._callbacks, where)
        if self._rank == 0:
            logger.info(
                "Resumed from %s: epoch %d, batch %d, after %d updates",
                folder, self.epoch, self.nbatch, self.step,
            )  # fmt: skip

    @property
    def _rank(self) -> int:
        return 0 if self._store is None else self._store.rank

    def _shape(self) -> tuple[int, int]:
        """Workers, and devices of this one."""
        contexts = max((len(learner.contexts) for learner in self._module.learners), default=1)
        return (1 if self._store is None else self._store.num_workers), contexts

    # ---- taking checkpoints

    def batch_done(self, epoch: int, nbatch: int, callbacks_follow: bool = False) -> None:
        """Note that batch `nbatch`, counted from 0, of an epoch is done: updated, and in the metric.

        The iterator must not have been asked for the next batch.

        Parameters
        ----------
        epoch, nbatch : int
        callbacks_follow : bool
            Whether the batch's callbacks are still to be called; `callbacks_done` comes after them.
        """
        self.step += 1
        if self._every_n_batches is not None and (nbatch + 1) % self._every_n_batches == 0:
            self._take(epoch, nbatch + 1, wait=False, hold=callbacks_follow)

    def callbacks_done(self, epoch_goes_on: bool) -> None:
        """Note that the callbacks of the batch have been called.

        What they count is taken now. So is the metric, which they may reset; but not after the last batch
        of an epoch, as its figures are those from before.
        """
        job, self._held = self._held, None
        if job is None:
            return
        job.worker.update(take_callbacks(self._callbacks))
        if epoch_goes_on:
            job.worker.update(take_metric(self._metric))
        self._writer.start(job)

    def metrics_done(self, kind: str, figures: Sequence[tuple[str, float]]) -> None:
        """Hear an epoch's metrics, those of all workers; for managers that report them.

        Parameters
        ----------
        kind : str
            'train' or 'validation'.
        figures : sequence of (str, float)
        """

    def epoch_done(self, epoch: int) -> None:
        """Note that an epoch is done, and the iterator is reset."""
        self.nbatch = 0
        self.epoch = epoch + 1
        if self._every_n_epochs is not None and (epoch + 1) % self._every_n_epochs == 0:
            self._take(epoch + 1, 0, wait=False)

    def finish(self) -> None:
        """Take a last checkpoint, unless this moment has one, and wait until it is written."""
        if self._taken_at != self.step:
            self._take(self.epoch, 0, wait=True)
        if not self._writer.wait(_LAST_TIMEOUT_S):
            logger.warning(
                "The last checkpoint under %s is not written after %g s; what there is stays valid",
                self._directory.path,
                _LAST_TIMEOUT_S,
            )

    def _take(self, epoch: int, nbatch: int, wait: bool, hold: bool = False) -> None:
        """Take a checkpoint, if all workers can and worker 0 wants to; `callbacks_done` writes one held."""
        self._asked += 1
        wait = wait or self._max_overhead is None
        if wait:
            self._writer.wait(_LAST_TIMEOUT_S)
        elif self._pass > 0:
            self._pass -= 1
            return
        leads, busy = self._rank == 0, self._writer.busy
        early_s = self._too_early_s() if leads and not wait and not busy else 0.0
        serial = max(self._serial + 1, 1) if leads else 0
        passing = self._passing(early_s)
        said = self._vote({_BUSY: busy, _NOT_DUE: early_s > 0, _SERIAL: serial, _PASS: passing})
        if said[_BUSY] or said[_NOT_DUE]:
            self._pass = int(said[_PASS])
            return
        started = time.monotonic()
        self._serial = int(said[_SERIAL])
        manifest = Manifest(
            self._serial,
            epoch,
            nbatch,
            self.step,
            self._network,
            *self._shape(),
            "" if self._store is None else self._store.type,
            _fingerprint(),
        )
        worker = take_worker(self._module, self._train_data, self._metric, self._callbacks)
        shared = self._images.take(contents_of(self._module, epoch)) if leads else None
        job = Job(manifest, self._rank, worker, shared)
        if hold:
            self._held = job
        else:
            self._writer.start(job)
        self._taken_at = self.step
        self._taken_s = time.monotonic()
        self._held_up_s = self._taken_s - started

    def _too_early_s(self) -> float:
        """How long to wait with the next one, if the last one is to take no larger share than allowed."""
        if self._max_overhead is None:
            return 0.0
        cost_s = self._held_up_s + self._writer.cost_s
        return cost_s / self._max_overhead - (time.monotonic() - self._taken_s)

    def _passing(self, early_s: float) -> int:
        """How often no worker need ask, if a checkpoint comes too early by so many seconds.

        Half as often as it would take if all went on as before: it may come to take longer.
        """
        if early_s <= 0 or not self._votes:
            return 0
        return min(int(early_s * self._asked / (time.monotonic() - self._begun_s) / 2), _MOST_PASSED)


@cache
def _fingerprint() -> dict[str, str]:
    """Of this process: what computes does not change while it runs."""
    return fingerprint(settings())
