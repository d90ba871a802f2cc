"""`BaseModule`: what all modules are, and how they are trained, in terms of what each kind provides.

This file has the loop that trains (`fit`). What a kind of module provides is in `interface`, loops that only
look are in `evaluation`. None of the three knows anything of symbols, devices or stores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import dmod.metric as metrics
from dmod.base import EpochEnded, InvalidArgument
from dmod.checkpoint import BatchEndParam
from dmod.device.compiling import seconds_compiling
from dmod.initializer import Uniform
from dmod.io import PrefetchingIter
from dmod.log import show_progress
from dmod.module.evaluation import Evaluation, as_list
from dmod.module.interface import DEFAULT_PARAMS, OptimizerParams
from dmod.ndarray import NDArray
from dmod.recovery import CheckpointManager
from dmod.worker import ClusterMetrics, Snapshot

__all__ = ["BaseModule"]


def _time_since(started: float, compiled_before: float) -> str:
    """Seconds, such as '1.234'; what went into compiling kernels, which happens once, is told apart."""
    compiled = seconds_compiling() - compiled_before
    elapsed = time.monotonic() - started
    if compiled < 0.1:
        return f"{elapsed:.3f}"
    return f"{max(0.0, elapsed - compiled):.3f} (besides {compiled:.1f} s for compiling kernels, once)"


class BaseModule(Evaluation):
    """A computation with parameters: it can be bound, initialised, run, and trained.

    Its states follow each other: bound (memory is there), parameters initialised, optimizer initialised.
    A call that comes too early raises `NotReadyError`, which names the missing call.

    Attributes
    ----------
    binded, for_training, inputs_need_grad, params_initialized, optimizer_initialized : bool
    """

    def fit(
        self,
        train_data: Any,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: OptimizerParams = DEFAULT_PARAMS,
        eval_end_callback: Any = None,
        eval_batch_end_callback: Any = None,
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_rebind: bool = False,
        force_init: bool = False,
        begin_epoch: int = 0,
        num_epoch: int | None = None,
        validation_metric: Any = None,
        monitor: Any = None,
        sparse_row_id_fn: Callable[..., Any] | None = None,
        checkpoint: str | os.PathLike[str] | CheckpointManager | None = None,
        resume: str | None = "auto",
    ) -> None:
        """Train.

        Workers of a 'dist' store end every epoch together: when one has no batch left, the round that
        the others have in flight is dropped, on all of them.

        Parameters
        ----------
        train_data : DataIter
            One that says it is ``prefetchable`` is drawn from in a thread, one batch ahead.
        eval_data : DataIter, optional
            Evaluated after every epoch.
        eval_metric : str, EvalMetric, callable, or list of them
        epoch_end_callback : callable or list, optional
            Called with epoch, symbol, arg_params, aux_params.
        batch_end_callback : callable or list, optional
            Called with a `BatchEndParam`.
        kvstore : str or KVStore
            How devices and workers share gradients: 'local', 'device', 'dist_sync'.
        optimizer : str or Optimizer
        optimizer_params : dict, or sequence of pairs
        eval_end_callback, eval_batch_end_callback : callable or list, optional
            Called during evaluation.
        initializer : Initializer
            For parameters that have no value yet.
        arg_params, aux_params : dict of str to NDArray, optional
            Values to start from.
        allow_missing : bool
            Whether these may lack parameters, which are then initialised.
        force_rebind, force_init : bool
            Whether to bind, and to initialise parameters, again.
        begin_epoch, num_epoch : int
            The first epoch, and the one to stop before.
        validation_metric : optional
            Default: `eval_metric`.
        monitor : Monitor, optional
        sparse_row_id_fn : callable, optional
            Passed to `prepare`.
        checkpoint : str, path or CheckpointManager, optional
            The directory in which to keep checkpoints of the training, one after every epoch; a manager says
            more. They hold all that decides the result: a training that is cut short anywhere, and started
            again, ends with the bits of one that was not.
        resume : {'auto', None}
            Whether to go on from the newest whole checkpoint of this network, if there is one.
        """
        if num_epoch is None:
            raise InvalidArgument("fit: num_epoch is missing; give the number of epochs to train for")
        if not hasattr(train_data, "provide_data"):
            raise InvalidArgument(
                "fit: expected an iterator, such as mx.io.NDArrayIter(data, label), "
                f"got {type(train_data).__name__}"
            )
        for given in (batch_end_callback, epoch_end_callback, eval_end_callback, eval_batch_end_callback):
            as_list(given)  # complain before there is work to lose
        show_progress()
        if force_rebind or not self.binded:  # what is done already stays, without a warning
            self.bind(
                data_shapes=train_data.provide_data,
                label_shapes=train_data.provide_label,
                for_training=True,
                force_rebind=force_rebind,
            )
        if monitor is not None:
            self.install_monitor(monitor)
        manager = CheckpointManager(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
        resumed = manager is not None and manager.restore_params(self, resume)
        given = arg_params is not None or aux_params is not None
        if not resumed and (force_init or not self.params_initialized or given):
            self.init_params(
                initializer=initializer,
                arg_params=arg_params,
                aux_params=aux_params,
                allow_missing=allow_missing,
                force_init=force_init,
            )
        self.init_optimizer(kvstore=kvstore, optimizer=optimizer, optimizer_params=optimizer_params)
        metric = eval_metric if isinstance(eval_metric, metrics.EvalMetric) else metrics.create(eval_metric)
        validation = metric if validation_metric is None else metrics.create(validation_metric)
        batch_callbacks = as_list(batch_end_callback)
        cluster = ClusterMetrics(self._store_of_workers(), self.logger)
        if getattr(train_data, "prefetchable", False):
            train_data = PrefetchingIter(train_data)
        with self._looking_ahead(train_data) as train_data:
            if manager is not None:
                ends = (epoch_end_callback, eval_end_callback, eval_batch_end_callback)
                callbacks = [*batch_callbacks, *(c for given in ends for c in as_list(given))]
                train_data = manager.begin(self, train_data, metric, callbacks)
            for epoch in range(manager.epoch if resumed and manager is not None else begin_epoch, num_epoch):
                started, compiled_before = time.monotonic(), seconds_compiling()
                if manager is None or manager.nbatch == 0:  # else it goes on
                    metric.reset()
                snapshots = self._fit_epoch(
                    epoch, train_data, metric, batch_callbacks, monitor, sparse_row_id_fn, manager
                )
                self._end_epoch()
                values, anyone_scores = cluster.train(snapshots, eval_data is not None)
                for name, value in values:
                    self.logger.info("Epoch[%d] Train-%s=%f", epoch, name, value)
                if manager is not None:
                    manager.metrics_done("train", values)
                self.logger.info("Epoch[%d] Time cost=%s", epoch, _time_since(started, compiled_before))
                trained_args, trained_aux = self.get_params()
                self.set_params(trained_args, trained_aux)
                for callback in as_list(epoch_end_callback):
                    callback(epoch, self.symbol, trained_args, trained_aux)
                if eval_data is not None:
                    self.score(
                        eval_data,
                        validation,
                        score_end_callback=eval_end_callback,
                        batch_end_callback=eval_batch_end_callback,
                        epoch=epoch,
                    )
                if anyone_scores:
                    values = cluster.validation(validation, eval_data is not None)
                    for name, value in values:
                        self.logger.info("Epoch[%d] Validation-%s=%f", epoch, name, value)
                    if manager is not None:
                        manager.metrics_done("validation", values)
                train_data.reset()
                if manager is not None:
                    manager.epoch_done(epoch)
            if manager is not None:
                manager.finish()

    def _fit_epoch(
        self,
        epoch: int,
        train_data: Any,
        eval_metric: Any,
        callbacks: list[Any],
        monitor: Any,
        sparse_row_id_fn: Callable[..., Any] | None,
        manager: CheckpointManager | None,
    ) -> list[Snapshot]:
        """Train on every batch once; returns how the metrics stand.

        The next batch is fetched and prepared for while the present one is still in the outputs. The
        local names are those that MXNet's callbacks find in ``BatchEndParam.locals``.
        """
        data_iter = iter(train_data)
        data_batch = next(data_iter, None)
        nbatch = 0 if manager is None else manager.nbatch  # of an epoch that goes on, some are done
        if data_batch is None and nbatch == 0:
            raise InvalidArgument(
                "fit: the training data has no batch; is it reset, and not shorter than a batch?"
            )
        while data_batch is not None:
            if monitor is not None:
                monitor.tic()
            self._update_follows(monitor is None)
            try:
                self.forward_backward(data_batch)
            finally:
                self._update_follows(False)
            self._stage_next(train_data)
            try:
                self.update()
            except EpochEnded:
                break
            self._update_metric_of(eval_metric, data_batch)
            if manager is not None:
                manager.batch_done(epoch, nbatch, callbacks_follow=True)
            next_data_batch = next(data_iter, None)
            if next_data_batch is not None:
                self.prepare(next_data_batch, sparse_row_id_fn=sparse_row_id_fn)
            if monitor is not None:
                monitor.toc_print()
            values = None
            if callbacks:
                values = Snapshot.of(eval_metric) if next_data_batch is None else None
                param = BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=eval_metric, locals=locals())
                for callback in callbacks:
                    callback(param)
            if manager is not None:
                manager.callbacks_done(epoch_goes_on=next_data_batch is not None)
            if values is not None:
                return values
            nbatch += 1
            data_batch = next_data_batch
        return Snapshot.of(eval_metric)

    def _store_of_workers(self) -> Any:
        """The store that connects this worker with others, if there is one."""
        stores = (getattr(learner, "store", None) for learner in self.learners)
        return next((store for store in stores if store is not None and store.num_workers > 1), None)
