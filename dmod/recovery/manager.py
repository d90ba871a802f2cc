"""`CheckpointManager`: when a checkpoint is taken, and how training goes on from one.

All workers are between the same two rounds when they take theirs: each takes it after the same update, and
none contributes to the next round before it has. Whether one is due, and its number, worker 0 announces: by
a tiny round of its own, a sum of what every worker has to say, so that all come to the same answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import ClusterError, InvalidArgument, NotReadyError
from dmod.io.resume import resumable
from dmod.kvstore.base import KVStore
from dmod.log import logger
from dmod.ndarray.flat import FlatLayout
from dmod.recovery.contents import contents_of
from dmod.recovery.directory import CheckpointDirectory
from dmod.recovery.hyperparameters import Hyperparameters
from dmod.recovery.image import Images
from dmod.recovery.manifest import Manifest
from dmod.recovery.pace import Pace
from dmod.recovery.resuming import Found, fingerprint_here, newest, own_part, restore_own, restore_states
from dmod.recovery.snapshot import take_callbacks, take_metric, take_worker
from dmod.recovery.writer import Job, Writer
from dmod.symbol.digest import digest_of

__all__ = ["CheckpointManager"]

_BUSY, _NOT_DUE, _SERIAL, _FOUND, _DIFFERS, _UNFIT, _PASS = range(7)
_VOTES = 7
_PART_TIMEOUT_S = 60.0
_LAST_TIMEOUT_S = 300.0


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
        self._pace, self._waits = Pace(max_overhead), max_overhead is None
        self._images = Images()
        self._writer = Writer(self._directory, keep, _PART_TIMEOUT_S)
        self._found: Found | None = None
        self._module: Any = None
        self._network = ""  # the digest of the module's symbols
        self._store: KVStore | None = None
        self._layout = FlatLayout.plan([(0, "votes", (_VOTES,))], "float64")
        self._votes = ""
        self._serial = 0
        self._held: Job | None = None
        self._pass = 0  # how often the workers need not ask each other whether to take one
        self._taken_at = -1  # the step of the last checkpoint
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
        self._found = newest(self._directory, self._network) if resume == "auto" else None
        if self._found is None:
            return False
        if module.optimizer_initialized:
            raise NotReadyError(
                f"resuming from {self._found.folder}: the module has an optimizer already; resume with a new "
                "module, or pass resume=None"
            )
        module.init_params(
            initializer=None,
            arg_params=self._found.arg_params,
            aux_params=self._found.aux_params,
            force_init=True,
        )
        return True

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
        self._told = Hyperparameters(module, train_data)
        found, state = self._found, self._agree()
        if found is not None:
            then = found.manifest
            restore_states(found, self._told, module, self._rank == 0)
            parts = (module, train_data, metric, self._callbacks)
            restore_own(found, state, self._shape(), self._told, parts, self._rank)
            self.epoch, self.step = then.epoch, then.step
            self.nbatch = 0 if state is None else then.nbatch
            self._taken_at = self.step
        elif self._rank == 0:
            logger.info("Nothing to go on from under %s: training begins", self._directory.path)
        self._found = None
        if not self._votes:  # else servers would have to send what they have for this
            self._images.prepare(content.nbytes for content in contents_of(module, self.epoch).values())
        self._pace.begin()
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
        self._votes = f"checkpoint{store.next_user('checkpoint')}"
        store.init_flat(self._votes, self._layout, [np.zeros(self._layout.size)], mode="sum")

    def _agree(self) -> dict[str, Any] | None:
        """See that all workers have found the same; this worker's part, if every worker's fits."""
        found, mine = self._found, 0 if self._found is None else self._found.manifest.serial
        leads = self._rank == 0
        first = int(self._vote({_FOUND: mine if leads else 0})[_FOUND])
        state = None
        if found is not None:
            state = own_part(found, self._rank, self._shape()[0], self._told, self._module)
        said = self._vote({_DIFFERS: mine != first, _UNFIT: state is None})
        if said[_DIFFERS]:
            others = "another worker another one" if mine == first else f"worker 0 {first or 'none'}"
            raise ClusterError(
                f"worker {self._rank} found checkpoint {mine or 'none'} under {str(self._directory.path)!r}, "
                f"{others}; the directory must be the same, on a file system that all hosts share"
            )
        return None if said[_UNFIT] else state

    def _vote(self, mine: dict[int, float]) -> np.ndarray:
        """The sum over all workers of what each says."""
        said: np.ndarray = np.zeros(self._layout.size)
        for place, value in mine.items():
            said[place] = value
        if self._votes:
            assert self._store is not None
            self._store.pushpull_flat(self._votes, [said], [said], exact=True)
        return said

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
        self._pace.chance()
        wait = wait or self._waits
        if wait:
            self._writer.wait(_LAST_TIMEOUT_S)
        elif self._pass > 0:
            self._pass -= 1
            return
        leads, busy = self._rank == 0, self._writer.busy
        early_s = self._pace.early_s(self._writer.cost_s) if leads and not wait and not busy else 0.0
        serial = max(self._serial + 1, 1) if leads else 0
        idle_s = self._pace.since_s if busy else early_s  # writing goes on for as long again, it may be
        passing = self._pace.chances_within(idle_s) if leads and self._votes and not wait else 0
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
            dict(fingerprint_here()),
            self._told.given,
            self._told.changed(),
        )
        worker = take_worker(self._module, self._train_data, self._metric, self._callbacks)
        shared = self._images.take(contents_of(self._module, epoch)) if leads else None
        job = Job(manifest, self._rank, worker, shared)
        if hold:
            self._held = job
        else:
            self._writer.start(job)
        self._taken_at = self.step
        self._pace.taken(started)
