"""What all modules can do: their states, names, parameters and computation, as each kind provides them.

Below are the methods that a kind of module overrides; those with an underscore are for the loops. Loops over
batches are not here: `evaluation` has those that only look, `base_module` the one that trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from dmod.base import InvalidArgument, NotReadyError
from dmod.checkpoint import join_params, split_params
from dmod.initializer import Uniform
from dmod.log import logger as dmod_logger
from dmod.ndarray import NDArray, save

__all__ = ["DEFAULT_PARAMS", "ModuleInterface", "OptimizerParams"]

OptimizerParams = Any
DEFAULT_PARAMS = (("learning_rate", 0.01),)


class ModuleInterface:
    """A module without its loops; see `BaseModule`."""

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

    def forward_backward(self, data_batch: Any) -> None:
        """Compute outputs and gradients for a batch."""
        self.forward(data_batch, is_train=True)
        self.backward()

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
        optimizer_params: OptimizerParams = DEFAULT_PARAMS,
        force_init: bool = False,
    ) -> None:
        """Install an optimizer and a store."""
        raise NotImplementedError

    # ---- for the loops over batches

    def _can_copy_ahead(self) -> bool:
        """Whether the devices can copy a batch while they compute another, and nobody would notice."""
        return False

    def _want_ahead(self, wanted: bool) -> bool:
        """Get ready to copy batches ahead, or stop it; returns what was before."""
        return False

    def _stage(self, batch: Any) -> None:
        """Begin to copy the batch of the next `forward` to the devices."""

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
