"""Loops over batches that only look: `score`, `predict`, `iter_predict`; and what all loops share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import dmod.metric as metrics
from dmod.base import InvalidArgument
from dmod.checkpoint import BatchEndParam
from dmod.io import DataBatch
from dmod.io.look_ahead import LookAhead, look_ahead
from dmod.module.interface import ModuleInterface
from dmod.ndarray import NDArray, concatenate

__all__ = ["Evaluation", "as_list"]


def as_list(value: Any) -> list[Any]:
    """A list of callbacks from None, one, or a list of them."""
    if value is None:
        return []
    callbacks = list(value) if isinstance(value, (list, tuple)) else [value]
    for callback in callbacks:
        if not callable(callback):
            raise InvalidArgument(f"a callback is {callback!r}, expected a function, or a list of them")
    return callbacks


class Evaluation(ModuleInterface):
    """A module that can be evaluated."""

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

    # ---- what loops share

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

    def _update_metric_of(self, metric: Any, batch: Any) -> None:
        if isinstance(batch, list):
            self.update_metric(metric, [b.label for b in batch], pre_sliced=True)
        else:
            self.update_metric(metric, batch.label)
