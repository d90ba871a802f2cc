"""``mx.model``: checkpoints, and `FeedForward`, the interface that `Module` replaced.

`FeedForward` does nothing itself: it makes iterators from arrays, and leaves the rest to a `Module`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import dmod.metric as metrics
from dmod.base import InvalidArgument, NotReadyError
from dmod.callback import LogValidationMetricsCallback
from dmod.checkpoint import (
    BatchEndParam,
    load_checkpoint,
    load_params,
    save_checkpoint,
    split_params,
)
from dmod.context import Context, cpu
from dmod.initializer import Uniform
from dmod.io import NDArrayIter, ResizeIter
from dmod.log import logger as dmod_logger
from dmod.module.module import Module
from dmod.ndarray import NDArray
from dmod.symbol import Symbol

__all__ = [
    "BatchEndParam",
    "FeedForward",
    "load_checkpoint",
    "load_params",
    "save_checkpoint",
    "split_params",
]


class FeedForward:
    """A network that is trained on arrays or iterators, in MXNet's older interface.

    Parameters
    ----------
    symbol : Symbol
    ctx : Context or list of Context, optional
        The devices to train on; prediction uses the first.
    num_epoch : int, optional
        The epoch to stop before; `fit` needs it.
    epoch_size : int, optional
        Batches per epoch; default: all that the iterator has.
    optimizer : str or Optimizer
    initializer : Initializer
    numpy_batch_size : int
        The batch size for arrays.
    arg_params, aux_params : dict of str to NDArray, optional
        Values to start from.
    allow_extra_params : bool
        Whether these may have names that the network does not.
    begin_epoch : int
    **kwargs
        Arguments of the optimizer.

    Examples
    --------
    >>> import dmod as mx
    >>> import numpy as np
    >>> x = np.eye(4, dtype='float32')
    >>> net = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=4, name='fc')
    >>> model = mx.model.FeedForward(mx.sym.SoftmaxOutput(net, name='softmax'), num_epoch=30,
    ...                              learning_rate=1.0, momentum=0.9)
    >>> model.fit(x, np.arange(4))
    >>> model.predict(x).argmax(axis=1).tolist()
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        symbol: Symbol,
        ctx: Context | Sequence[Context] | None = None,
        num_epoch: int | None = None,
        epoch_size: int | None = None,
        optimizer: Any = "sgd",
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        numpy_batch_size: int = 128,
        arg_params: Mapping[str, NDArray] | None = None,
        aux_params: Mapping[str, NDArray] | None = None,
        allow_extra_params: bool = False,
        begin_epoch: int = 0,
        **kwargs: Any,
    ):
        if not isinstance(symbol, Symbol):
            raise InvalidArgument(f"FeedForward: expected a Symbol, got {type(symbol).__name__}")
        self.symbol = symbol
        self.ctx = [cpu()] if ctx is None else [ctx] if isinstance(ctx, Context) else list(ctx)
        self.num_epoch = num_epoch
        self.epoch_size = epoch_size
        self.optimizer = optimizer
        self.initializer = initializer
        self.numpy_batch_size = numpy_batch_size
        self.arg_params = dict(arg_params) if arg_params is not None else None
        self.aux_params = dict(aux_params) if aux_params is not None else None
        self.allow_extra_params = allow_extra_params
        self.begin_epoch = begin_epoch
        self.kwargs = kwargs
        self._predictor: Module | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the memory of the last prediction."""
        return {**self.__dict__, "_predictor": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what `__getstate__` gave."""
        self.__dict__.update(state)

    # ---- data

    def _iterator(self, X: Any, y: Any, is_train: bool) -> Any:
        """An iterator over arrays; an iterator stays what it is."""
        if not isinstance(X, (np.ndarray, NDArray, list)):
            if not hasattr(X, "provide_data"):
                raise InvalidArgument(
                    f"FeedForward: data must be an array or a DataIter, got {type(X).__name__}"
                )
            return X
        values = _array(X)
        labels: np.ndarray
        if y is None:
            if is_train:
                raise InvalidArgument("FeedForward.fit: y is missing; an array X needs its labels")
            labels = np.zeros(len(values), np.float32)
        else:
            labels = _array(y)
            if labels.shape[1:] == (1,):
                labels = labels.ravel()
        if len(labels) != len(values):
            raise InvalidArgument(f"FeedForward: {len(values)} samples, but {len(labels)} labels")
        size = min(len(values), self.numpy_batch_size)
        ends = "roll_over" if is_train else "pad"
        return NDArrayIter(values, labels, size, shuffle=is_train, last_batch_handle=ends)

    def _eval_iterator(self, data: Any) -> Any:
        if isinstance(data, (tuple, list)):
            if len(data) != 2:
                raise InvalidArgument(
                    f"FeedForward.fit: eval_data has {len(data)} parts, expected (data, label)"
                )
            return self._iterator(_array(data[0]), _array(data[1]), is_train=False)
        return data

    def _module(self, data: Any, ctx: Sequence[Context], **kwargs: Any) -> Module:
        """A module whose inputs are those that the iterator has, as far as the network knows them."""
        arguments = self.symbol.list_arguments()
        data_names = [d[0] for d in data.provide_data]
        labels = [d[0] for d in data.provide_label or ()]
        # an output operator's own label, of which a prediction has no need
        labels += [n for n in arguments if n.endswith("label") and n not in (*labels, *data_names)]
        return Module(self.symbol, data_names, labels, context=list(ctx), **kwargs)

    # ---- training

    def fit(
        self,
        X: Any,
        y: Any = None,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        logger: logging.Logger | None = None,
        work_load_list: Sequence[float] | None = None,
        monitor: Any = None,
        eval_end_callback: Any = LogValidationMetricsCallback(),  # noqa: B008  (it has no state)
        eval_batch_end_callback: Any = None,
        checkpoint: Any = None,
        resume: str | None = "auto",
    ) -> None:
        """Train; afterwards `arg_params` and `aux_params` are the trained ones.

        Parameters
        ----------
        X : DataIter, numpy.ndarray or NDArray
            An array is shuffled and cut into batches of `numpy_batch_size`.
        y : array-like of shape (n,) or (n, 1), optional
            The labels, if X is an array.
        eval_data : DataIter, or (data, label), optional
        eval_metric, epoch_end_callback, batch_end_callback, kvstore, monitor
            As in `Module.fit`.
        eval_end_callback, eval_batch_end_callback
            As in `Module.fit`.
        logger : logging.Logger, optional
        work_load_list : list of float, optional
            The devices' shares of a batch.
        checkpoint, resume
            As in `Module.fit`.
        """
        if self.num_epoch is None:
            raise InvalidArgument("FeedForward.fit: num_epoch is missing; give it to FeedForward(...)")
        data = self._iterator(X, y, is_train=True)
        if self.epoch_size is not None:
            data = ResizeIter(data, self.epoch_size, reset_internal=False)
        module = self._module(data, self.ctx, logger=logger or dmod_logger, work_load_list=work_load_list)
        module.bind(data.provide_data, data.provide_label)
        module.init_params(
            self.initializer,
            self.arg_params,
            self.aux_params,
            allow_missing=True,
            allow_extra=self.allow_extra_params,
        )
        module.fit(
            data,
            self._eval_iterator(eval_data),
            eval_metric,
            epoch_end_callback,
            batch_end_callback,
            kvstore,
            self.optimizer,
            self.kwargs or (("learning_rate", 0.01),),
            eval_end_callback,
            eval_batch_end_callback,
            begin_epoch=self.begin_epoch,
            num_epoch=self.num_epoch,
            monitor=monitor,
            checkpoint=checkpoint,
            resume=resume,
        )
        self.arg_params, self.aux_params = module.get_params()

    @staticmethod
    def create(
        symbol: Symbol,
        X: Any,
        y: Any = None,
        ctx: Context | Sequence[Context] | None = None,
        num_epoch: int | None = None,
        epoch_size: int | None = None,
        optimizer: Any = "sgd",
        initializer: Any = Uniform(0.01),  # noqa: B008
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        logger: logging.Logger | None = None,
        work_load_list: Sequence[float] | None = None,
        eval_end_callback: Any = LogValidationMetricsCallback(),  # noqa: B008
        eval_batch_end_callback: Any = None,
        **kwargs: Any,
    ) -> FeedForward:
        """A trained model: the constructor and `fit` in one call."""
        model = FeedForward(
            symbol,
            ctx=ctx,
            num_epoch=num_epoch,
            epoch_size=epoch_size,
            optimizer=optimizer,
            initializer=initializer,
            **kwargs,
        )
        model.fit(
            X,
            y,
            eval_data,
            eval_metric,
            epoch_end_callback,
            batch_end_callback,
            kvstore,
            logger,
            work_load_list,
            eval_end_callback=eval_end_callback,
            eval_batch_end_callback=eval_batch_end_callback,
        )
        return model

    # ---- prediction

    def _ready(self, call: str, data: Any) -> Module:
        """A module on the first device, bound for the data, with the present parameters."""
        if self.arg_params is None:
            raise NotReadyError(f"FeedForward.{call}: call fit() first, or give arg_params")
        names = [d[0] for d in data.provide_data]
        module = self._predictor
        if module is None or module.data_names != names:
            module = self._predictor = self._module(data, self.ctx[:1])
        labels = [d for d in data.provide_label or () if d[0] in self.symbol.list_arguments()]
        module.bind(data.provide_data, labels or None, for_training=False, force_rebind=True)
        module.init_params(
            None,
            self.arg_params,
            self.aux_params or {},
            force_init=True,
            allow_extra=self.allow_extra_params,
        )
        return module

    def predict(
        self,
        X: Any,
        num_batch: int | None = None,
        return_data: bool = False,
        reset: bool = True,
    ) -> Any:
        """The outputs for a data set.

        Parameters
        ----------
        X : DataIter, numpy.ndarray or NDArray
        num_batch : int, optional
            The number of batches; default: all.
        return_data : bool
            Whether to return data and labels too.
        reset : bool
            Whether to reset the iterator first.

        Returns
        -------
        numpy.ndarray, or list of them if the network has several outputs
            With `return_data`: ``(outputs, data, label)``.
        """
        data = self._iterator(X, None, is_train=False)
        module = self._ready("predict", data)
        columns: list[list[list[np.ndarray]]] = [[], [], []]
        for outputs, _, batch in module.iter_predict(data, num_batch, reset):
            size = batch.data[0].shape[0] - (batch.pad or 0)
            columns[0].append([x.asnumpy().copy() for x in outputs])
            columns[1].append([x.asnumpy()[:size].copy() for x in batch.data])
            columns[2].append([x.asnumpy()[:size].copy() for x in batch.label or ()])
        if not columns[0]:
            raise InvalidArgument("FeedForward.predict: the data has no batch; is it reset?")
        joined = [[np.concatenate(parts) for parts in zip(*column, strict=True)] for column in columns]
        results = [part[0] if len(part) == 1 else part for part in joined]
        return tuple(results) if return_data else results[0]

    def score(
        self,
        X: Any,
        eval_metric: Any = "acc",
        num_batch: int | None = None,
        batch_end_callback: Any = None,
        reset: bool = True,
    ) -> Any:
        """The value of a metric over a data set; a list if the metric has several.

        Parameters
        ----------
        X : DataIter
            With labels.
        eval_metric : str, EvalMetric, callable, or list of them
        num_batch : int, optional
            The number of batches; default: all.
        batch_end_callback : callable or list, optional
        reset : bool
            Whether to reset the iterator first.
        """
        data = self._iterator(X, None, is_train=False)
        metric = eval_metric if isinstance(eval_metric, metrics.EvalMetric) else metrics.create(eval_metric)
        self._ready("score", data).score(data, metric, num_batch, batch_end_callback, reset=reset)
        return metric.get()[1]

    # ---- files

    def save(self, prefix: str, epoch: int | None = None, remove_amp_cast: bool = True) -> None:
        """Write a checkpoint; see `save_checkpoint`.

        Parameters
        ----------
        prefix : str
        epoch : int, optional
            Default: `num_epoch`.
        remove_amp_cast : bool
            Accepted; dmod's symbols have no such casts.
        """
        epoch = self.num_epoch if epoch is None else epoch
        if epoch is None:
            raise InvalidArgument("FeedForward.save: epoch is missing, and num_epoch is not set")
        if self.arg_params is None:
            raise NotReadyError("FeedForward.save: call fit() first, or give arg_params")
        save_checkpoint(prefix, epoch, self.symbol, self.arg_params, self.aux_params or {}, remove_amp_cast)

    @staticmethod
    def load(
        prefix: str, epoch: int, ctx: Context | Sequence[Context] | None = None, **kwargs: Any
    ) -> FeedForward:
        """A model from a checkpoint; training goes on at `epoch`.

        Parameters
        ----------
        prefix : str
        epoch : int
        ctx : Context or list of Context, optional
        **kwargs
            Arguments of `FeedForward`.
        """
        symbol, args, aux = load_checkpoint(prefix, epoch)
        return FeedForward(symbol, ctx, arg_params=args, aux_params=aux, begin_epoch=epoch, **kwargs)


def _array(values: Any) -> np.ndarray:
    host = values.asnumpy() if isinstance(values, NDArray) else np.asarray(values)
    return host.astype(np.float32) if host.dtype == np.float64 else host
