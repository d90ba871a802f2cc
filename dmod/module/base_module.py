"""`BaseModule`: what all modules can do, written in terms of a few methods that each kind provides.

This file has the loops (`fit`, `score`, `predict`); it knows nothing of symbols, devices or stores.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import dmod.metric as metrics
from dmod.base import EpochEnded, InvalidArgument, NotReadyError
from dmod.checkpoint import BatchEndParam, join_params, split_params
from dmod.device.compiling import seconds_compiling
from dmod.initializer import Uniform
from dmod.io import DataBatch, PrefetchingIter
from dmod.io.look_ahead import LookAhead, look_ahead
from dmod.log import logger as dmod_logger
from dmod.log import show_progress
from dmod.ndarray import NDArray, concatenate, save
from dmod.recovery import CheckpointManager
from dmod.worker import ClusterMetrics, Snapshot

__all__ = ["BaseModule"]

OptimizerParams = Any
_DEFAULT_PARAMS = (("learning_rate", 0.01),)


def as_list(value: Any) -> list[Any]:
    """A list of callbacks from None, one, or a list of them."""
    if value is None:
        return []
    callbacks = list(value) if isinstance(value, (list, tuple)) else [value]
    for callback in callbacks:
        if not callable(callback):
            raise InvalidArgument(f"a callback is {callback!r}, expected a function, or a list of them")
    return callbacks


def _time_since(started: float, compiled_before: float) -> str:
    """Seconds, such as '1.234'; what went into compiling kernels, which happens once, is told apart."""
    compiled = seconds_compiling() - compiled_before
    elapsed = time.monotonic() - started
    if compiled < 0.1:
        return f"{elapsed:.3f}"
    return f"{max(0.0, elapsed - compiled):.3f} (besides {compiled:.1f} s for compiling kernels, once)"


class BaseModule:
    """A computation with parameters: it can be bound, initialised, run, and trained.

    Its states follow each other: bound (memory is there), parameters initialised, optimizer initialised.
    A call that comes too early raises `NotReadyError`, which names the missing call.

    Attributes
    ----------
    binded, for_training, inputs_need_grad, params_initialized, optimizer_initialized : bool
    """

    def __init__(self, logger: Any = dmod_logger):
        self.logger = logger
        self.binded = False
        self.for_training = False
        self.inputs_need_grad = False
        self.params_initialized = False
        self.optimizer_initialized = False
        self._symbol: Any = None

    def _need(self, call: str, *, params: bool = True, optimizer: bool = False) -> None:
        """Raise `NotReadyError` unless the calls that `call` depends on have been made."""
        if not self.binded:
            raise NotReadyError(f"{call}: call bind() first")
        if params and not self.params_initialized:
            raise NotReadyError(f"{call}: call init_params() or set_params() first")
        if optimizer and not self.optimizer_initialized:
            raise NotReadyError(f"{call}: call init_optimizer() first")

    # ---- high level

    def forward_backward(self, data_batch: Any) -> None:
        """Compute outputs and gradients for a batch."""
        self.forward(data_batch, is_train=True)
        self.backward()

    def score(
        self,
        eval_data: Any,
        eval_metric: Any,
        num_batch: int | None = None,
        batch_end_callback: Any = None,
        score_end_callback: Any = None,
        reset: bool = True,
        epoch: int = 0,
        sparse_row_id_fn: Callable[..., Any] | None = None,
    ) -> list[tuple[str, float]]:
        """Evaluate on a data set.

        Parameters
        ----------
        eval_data : DataIter
        eval_metric : EvalMetric, str, or list of either
        num_batch : int, optional
            The number of batches; default: all.
        batch_end_callback, score_end_callback : callable or list, optional
            Called with a `BatchEndParam` after every batch, and at the end.
        reset : bool
            Whether to reset the iterator first.
        epoch : int
            Passed to callbacks.
        sparse_row_id_fn : callable, optional
            Passed to `prepare`.

        Returns
        -------
        list of (name, value)
        """
        self._need("score")
        metric = eval_metric if isinstance(eval_metric, metrics.EvalMetric) else metrics.create(eval_metric)
        metric.reset()
        nbatch = 0
        for nbatch, batch in self._forwarded(eval_data, num_batch, reset, sparse_row_id_fn):
            self._update_metric_of(metric, batch)
            param = BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=metric, locals=locals())
            for callback in as_list(batch_end_callback):
                callback(param)
            nbatch += 1
        if score_end_callback is not None:
            param = BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=metric, locals=locals())
            for callback in as_list(score_end_callback):
                callback(param)
        return metric.get_name_value()

    def _forwarded(
        self,
        data: Any,
        num_batch: int | None,
        reset: bool,
        sparse_row_id_fn: Callable[..., Any] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """The first `num_batch` batches of an iterator, numbered, with their outputs computed."""
        if reset:
            data.reset()
        with self._looking_ahead(data) as data:
            for nbatch, batch in enumerate(data):
                if num_batch is not None and nbatch == num_batch:
                    return
                self.prepare(batch, sparse_row_id_fn=sparse_row_id_fn)
                self.forward(batch, is_train=False)
                self._stage_next(data)
                yield nbatch, batch

    @contextmanager
    def _looking_ahead(self, data: Any) -> Iterator[Any]:
        """A loop over an iterator's batches, of which devices copy the next one while they compute.

        What it gives goes in the iterator's place.
        """
        ahead = look_ahead(data) if self._can_copy_ahead() else data
        if not isinstance(ahead, LookAhead):
            yield data
            return
        before = self._want_ahead(True)
        try:
            yield ahead
        finally:
            self._want_ahead(before)
            ahead.put_back()

    def _stage_next(self, data: Any) -> None:
        """Have the devices copy the batch that comes next, if they do so ahead; in `_looking_ahead`."""
        if isinstance(data, LookAhead):
            batch = data.peek()
            if batch is not None:
                self._stage(batch)

    def _can_copy_ahead(self) -> bool:
        """Whether the devices can copy a batch while they compute another, and nobody would notice."""
        return False

    def _want_ahead(self, wanted: bool) -> bool:
        """Get ready to copy batches ahead, or stop it; returns what was before."""
        return False

    def _stage(self, batch: Any) -> None:
        """Begin to copy the batch of the next `forward` to the devices."""

    def _update_metric_of(self, metric: Any, batch: Any) -> None:
        if isinstance(batch, list):
            self.update_metric(metric, [b.label for b in batch], pre_sliced=True)
        else:
            self.update_metric(metric, batch.label)

    def iter_predict(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        reset: bool = True,
        sparse_row_id_fn: Callable[..., Any] | None = None,
    ) -> Iterator[tuple[list[NDArray], int, Any]]:
        """Iterate over predictions.

        Yields
        ------
        (outputs, nbatch, batch)
            The outputs without padding, the number of the batch, and the batch.
        """
        self._need("iter_predict")
        for nbatch, batch in self._forwarded(eval_data, num_batch, reset, sparse_row_id_fn):
            yield self._unpadded(batch), nbatch, batch

    def _unpadded(self, batch: Any) -> list[NDArray]:
        """The outputs, without the samples that only fill a batch up."""
        pad = getattr(batch, "pad", 0) or 0
        return [out[: out.shape[0] - pad] if pad else out for out in self.get_outputs()]

    def predict(
        self,
        eval_data: Any,
        num_batch: int | None = None,
        merge_batches: bool = True,
        reset: bool = True,
        always_output_list: bool = False,
        sparse_row_id_fn: Callable[..., Any] | None = None,
    ) -> Any:
        """Run over a data set and collect the outputs.

        Parameters
        ----------
        eval_data : DataIter, NDArray or numpy.ndarray
            An array is one batch.
        num_batch : int, optional
            The number of batches; default: all.
        merge_batches : bool
            Whether to join the outputs of all batches.
        reset : bool
            Whether to reset the iterator first.
        always_output_list : bool
            Whether to return a list even for a single output.
        sparse_row_id_fn : callable, optional
            Passed to `prepare`.

        Returns
        -------
        NDArray, or list of NDArray
            Each output, joined over batches; with ``merge_batches=False`` a list per batch.
        """
        self._need("predict")
        if isinstance(eval_data, (NDArray, np.ndarray)):
            data = NDArray(eval_data) if isinstance(eval_data, np.ndarray) else eval_data
            self.forward(DataBatch([data]), is_train=False)
            return self.get_outputs()[0]
        collected = []
        for _, batch in self._forwarded(eval_data, num_batch, reset, sparse_row_id_fn):
            collected.append([out.copy() for out in self._unpadded(batch)])
        if not collected or not merge_batches:
            return collected
        if len({len(outputs) for outputs in collected}) > 1:
            raise InvalidArgument(
                "predict: batches have different numbers of outputs; use merge_batches=False"
            )
        joined = [concatenate(parts) for parts in zip(*collected, strict=True)]
        return joined[0] if len(joined) == 1 and not always_output_list else joined

    def fit(
        self,
        train_data: Any,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: OptimizerParams = _DEFAULT_PARAMS,
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

    def _update_follows(self, follows: bool) -> None:
        """Whether the next backward pass is for certain followed by `update`, with no change of gradients."""

    def _end_epoch(self) -> None:
        """Called by `fit` after the last batch of an epoch."""

    def _undo_step(self) -> None:
        """Called when an update was dropped because another worker has ended the epoch."""

    @property
    def learners(self) -> list[Any]:
        """The modules that this one consists of, as far as they have parameters and an optimizer."""
        return []

    # ---- what it needs and gives

    @property
    def symbol(self) -> Any:
        """The symbol that the module computes, if it has one."""
        return self._symbol

    @property
    def data_names(self) -> list[str]:
        """The names of the data inputs."""
        raise NotImplementedError

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs."""
        raise NotImplementedError

    @property
    def data_shapes(self) -> Any:
        """The shapes of the data: a list of `DataDesc`, or of (name, shape) pairs."""
        raise NotImplementedError

    @property
    def label_shapes(self) -> Any:
        """The shapes of the labels, likewise; None or empty without labels."""
        raise NotImplementedError

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The names and shapes of the outputs."""
        raise NotImplementedError

    # ---- parameters

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """The parameters: ``(arg_params, aux_params)``, on the CPU."""
        raise NotImplementedError

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Initialise parameters from given values, or by an initializer.

        Parameters
        ----------
        initializer : Initializer
            Called for parameters that have no given value.
        arg_params, aux_params : dict of str to NDArray, optional
            Given values.
        allow_missing : bool
            Whether they may lack parameters, which are then initialised.
        force_init : bool
            Whether to do it again.
        allow_extra : bool
            Whether they may have names that the module does not know, without a warning.
        """
        raise NotImplementedError

    def set_params(
        self,
        arg_params: dict[str, NDArray],
        aux_params: dict[str, NDArray] | None,
        allow_missing: bool = False,
        force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:
        """Assign parameters; those that are missing must be allowed to, and keep their values."""
        self.init_params(
            initializer=None,
            arg_params=arg_params,
            aux_params=aux_params,
            allow_missing=allow_missing,
            force_init=force_init,
            allow_extra=allow_extra,
        )

    def save_params(self, fname: str) -> None:
        """Save the parameters to a file that MXNet reads."""
        save(fname, join_params(*self.get_params()))

    def load_params(self, fname: str) -> None:
        """Load parameters that `save_params`, or MXNet, wrote.

        Raises
        ------
        FormatError
            The file is corrupt, or of another kind.
        """
        self.set_params(*split_params(fname))

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """The arrays of the state inputs; a module without states has none."""
        self._need("get_states")
        return []

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the arrays of the state inputs."""
        self._need("set_states")
        if states or value is not None:
            raise InvalidArgument(f"set_states: {type(self).__name__} has no states")

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor watch all executors."""
        raise NotImplementedError

    # ---- computation

    def prepare(self, data_batch: Any, sparse_row_id_fn: Callable[..., Any] | None = None) -> None:
        """Get ready for a batch, before `forward`; most modules need not."""
        if sparse_row_id_fn is not None:
            warnings.warn("sparse_row_id_fn has no effect: all parameters are dense", stacklevel=2)

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs for a batch.

        Parameters
        ----------
        data_batch : DataBatch
            Anything with `data`, and `label` if the module has labels.
        is_train : bool, optional
            Default: whether the module was bound for training.
        """
        raise NotImplementedError

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients.

        Parameters
        ----------
        out_grads : NDArray or list of NDArray, optional
            The gradients of the outputs; not needed for losses.
        """
        raise NotImplementedError

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The outputs of the last `forward`; with False, a list per output with one array per device."""
        raise NotImplementedError

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradients of the data; with False, a list per input with one array per device."""
        raise NotImplementedError

    def update(self) -> None:
        """Update the parameters by the gradients of the last `backward`."""
        raise NotImplementedError

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Feed a metric with the outputs of the last `forward` and the labels."""
        raise NotImplementedError

    # ---- setting up

    def bind(
        self,
        data_shapes: Any,
        label_shapes: Any = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Any = None,
        grad_req: Any = "write",
    ) -> None:
        """Allocate memory and make executors."""
        raise NotImplementedError

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: OptimizerParams = _DEFAULT_PARAMS,
        force_init: bool = False,
    ) -> None:
        """Install an optimizer and a store."""
        raise NotImplementedError
