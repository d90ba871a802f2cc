"""Modules that are written in Python: `PythonModule`, and `PythonLossModule` for a loss at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dmod.base import InvalidArgument, NotReadyError
from dmod.initializer import Uniform
from dmod.log import logger as dmod_logger
from dmod.module.base_module import BaseModule
from dmod.ndarray import NDArray, array
from dmod.worker.slicing import as_descs

__all__ = ["PythonLossModule", "PythonModule"]


class PythonModule(BaseModule):
    """A module without parameters, to derive from: much of the interface does nothing.

    A derived class provides `_compute_output_shapes`, `forward`, `backward`, `get_outputs` and
    `get_input_grads`.

    Parameters
    ----------
    data_names : list of str
    label_names : list of str or None
    output_names : list of str
    logger : logging.Logger
    """

    def __init__(
        self,
        data_names: Sequence[str],
        label_names: Sequence[str] | None,
        output_names: Sequence[str],
        logger: Any = dmod_logger,
    ):
        super().__init__(logger)
        self._data_names = list(data_names)
        self._label_names = None if label_names is None else list(label_names)
        self._output_names = list(output_names)
        self._data_shapes: list[Any] = []
        self._label_shapes: list[Any] = []
        self._output_shapes: list[tuple[str, tuple[int, ...]]] = []

    @property
    def data_names(self) -> list[str]:
        """The names of the data."""
        return self._data_names

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs."""
        return self._output_names

    @property
    def data_shapes(self) -> list[Any]:
        """Names and shapes of the data, as bound."""
        return self._data_shapes

    @property
    def label_shapes(self) -> list[Any]:
        """Names and shapes of the labels, as bound; empty without labels."""
        return self._label_shapes

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the outputs."""
        return self._output_shapes

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
        """Take note of the shapes; see `Module.bind`."""
        if self.binded and not force_rebind:
            self.logger.warning("bind: already bound, nothing done; use force_rebind=True to bind again")
            return
        if grad_req != "write":
            raise InvalidArgument(f"bind: grad_req is {grad_req!r}; a {type(self).__name__} only writes")
        data, labels = as_descs(data_shapes, "data_shapes"), as_descs(label_shapes, "label_shapes")
        if [d.name for d in data] != self._data_names:
            raise InvalidArgument(
                f"bind: data_shapes has {[d.name for d in data]}, data_names are {self._data_names}"
            )
        if labels and [d.name for d in labels] != (self._label_names or []):
            raise InvalidArgument(
                f"bind: label_shapes has {[d.name for d in labels]}, label_names are {self._label_names}"
            )
        self._data_shapes, self._label_shapes = list(data), list(labels)
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        self._output_shapes = self._compute_output_shapes()
        self.binded = True

    def _compute_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the outputs from `data_shapes` and `label_shapes`: for a derived class."""
        raise NotImplementedError

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """``({}, {})``: there are no parameters."""
        return {}, {}

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Do nothing: there are no parameters."""
        self.params_initialized = True

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Do nothing: there is nothing to update."""
        self.optimizer_initialized = True

    def update(self) -> None:
        """Do nothing: there are no parameters."""

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Feed a metric with the outputs, if the module was bound with labels."""
        if not self._label_shapes:
            return
        if pre_sliced:
            raise InvalidArgument("update_metric: a Python module has one device; labels cannot be sliced")
        eval_metric.update(labels, self.get_outputs())

    def install_monitor(self, mon: Any) -> None:
        """Do nothing: there is no executor to watch."""


class PythonLossModule(PythonModule):
    """A loss in Python: outputs are the scores that come in, and their gradient is the user's function.

    Parameters
    ----------
    name : str
        The output is called ``name + '_output'``.
    data_names, label_names : list of str
        One name each.
    logger : logging.Logger
    grad_func : callable, optional
        ``grad_func(scores, labels)`` returns the gradient with respect to the scores, as an NDArray or
        numpy array. Without it, a derived class provides `_backward_impl`.

    Examples
    --------
    >>> import dmod as mx
    >>> loss = mx.mod.PythonLossModule(grad_func=lambda scores, labels: scores - labels)
    >>> loss.bind([('data', (2,))], [('softmax_label', (2,))])
    >>> loss.forward(mx.io.DataBatch([mx.nd.array([3, 5])], [mx.nd.array([1, 1])]))
    >>> loss.backward()
    >>> loss.get_input_grads()[0].asnumpy().tolist()
    [2.0, 4.0]
    """

    def __init__(
        self,
        name: str = "pyloss",
        data_names: Sequence[str] = ("data",),
        label_names: Sequence[str] = ("softmax_label",),
        logger: Any = dmod_logger,
        grad_func: Callable[[NDArray, NDArray], Any] | None = None,
    ):
        for what, names in (("data_names", data_names), ("label_names", label_names)):
            if isinstance(names, str) or len(names) != 1:
                raise InvalidArgument(f"PythonLossModule: {what} is {names!r}, expected a list of one name")
        if grad_func is not None and not callable(grad_func):
            raise InvalidArgument(f"PythonLossModule: grad_func is {grad_func!r}, expected a function")
        super().__init__(data_names, label_names, [f"{name}_output"], logger)
        self._name = name
        self._grad_func = grad_func
        self._scores: NDArray | None = None
        self._labels: NDArray | None = None
        self._scores_grad: NDArray | None = None

    def _compute_output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(self._output_names[0], tuple(self._data_shapes[0][1]))]

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Keep the scores, and in training the labels, for `backward`."""
        self._need("forward", params=False)
        self._scores = data_batch.data[0]
        self._scores_grad = None
        if self.for_training if is_train is None else is_train:
            if not data_batch.label:
                raise InvalidArgument("forward: a loss needs labels; add the module with take_labels=True")
            self._labels = data_batch.label[0]

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The scores."""
        if self._scores is None:
            raise NotReadyError("get_outputs: call forward() first")
        return [self._scores] if merge_multi_context else [[self._scores]]

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradient of the scores.

        Parameters
        ----------
        out_grads : None
            A loss takes none.
        """
        if out_grads is not None:
            raise InvalidArgument("backward: a loss takes no out_grads")
        if not self.for_training:
            raise NotReadyError("backward: call bind(for_training=True) first")
        if self._scores is None or self._labels is None:
            raise NotReadyError("backward: call forward(is_train=True) first")
        self._backward_impl()

    def _backward_impl(self) -> None:
        """Set `_scores_grad` from `_scores` and `_labels`."""
        if self._grad_func is None:
            raise NotImplementedError(f"{type(self).__name__}: give grad_func, or define _backward_impl")
        assert self._scores is not None and self._labels is not None
        grad = self._grad_func(self._scores, self._labels)
        self._scores_grad = grad if isinstance(grad, NDArray) else array(grad, dtype=self._scores.dtype)

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradient of the scores from the last `backward`."""
        if self._scores_grad is None:
            raise NotReadyError("get_input_grads: call backward() first")
        return [self._scores_grad] if merge_multi_context else [[self._scores_grad]]
