"""`Module`: a symbol that can be trained and run, on one device or several, in one process or many.

`SymbolModule` computes; here are the parameters' values, the optimizer, the store, and what is kept in files.
An `UpdateStrategy` does the work of an update; this file decides when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dmod.kvstore as kvs
import dmod.optimizer as opt
from dmod.base import EpochEnded, InvalidArgument, MXNetError, NotReadyError
from dmod.checkpoint import load_checkpoint, save_checkpoint
from dmod.config import settings
from dmod.context import Context
from dmod.initializer import InitDesc, NoRuleError, Uniform
from dmod.initializer import create as create_initializer
from dmod.kvstore.compression import Compression
from dmod.log import logger as dmod_logger
from dmod.module.device_states import read_devices, write_devices
from dmod.module.given_values import check_given, check_known, check_shapes
from dmod.module.inputs import Inputs
from dmod.module.optimizing import create_optimizer, create_store, note_installed
from dmod.module.symbol_module import SymbolModule
from dmod.ndarray import NDArray, array
from dmod.optimizer import OptimizerStates
from dmod.recovery.schedule import schedule_state, set_schedule_state
from dmod.symbol import Symbol
from dmod.symbol.digest import digest_of
from dmod.worker import choose_strategy
from dmod.worker.overlap import overlap_of

__all__ = ["Module"]


class Module(SymbolModule):
    """A symbol with parameters, executors on one or more devices, and an optimizer.

    Parameters
    ----------
    symbol : Symbol
    data_names, label_names : sequence of str
        The inputs that batches provide. All other arguments of the symbol are parameters.
    logger : logging.Logger
    context : Context or list of Context
        The devices; default: the current context. Batches are cut over them.
    work_load_list : list of float, optional
        The devices' shares of a batch; default: equal ones.
    fixed_param_names : list of str, optional
        Parameters that are not trained.
    state_names : list of str, optional
        Inputs that keep their values from batch to batch; see `set_states`.
    group2ctxs : dict of str to Context or list of Context, or list of dict, optional
        Where the nodes of each ``ctx_group`` are computed (see `AttrScope`): one context per group, or one
        per device and group. Their parameters lie there too.
    compression_params : dict, optional
        How gradients travel, such as ``{'type': '2bit', 'threshold': 0.5}``; see
        `KVStore.set_gradient_compression`.

    Examples
    --------
    >>> import dmod as mx
    >>> net = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3, name='fc')
    >>> mod = mx.mod.Module(net, label_names=None)
    >>> mod.bind(data_shapes=[('data', (4, 5))], for_training=False)
    >>> mod.init_params(mx.init.One())
    >>> mod.forward(mx.io.DataBatch([mx.nd.ones((4, 5))]))
    >>> mod.get_outputs()[0].shape
    (4, 3)
    """

    def __init__(
        self,
        symbol: Symbol,
        data_names: Sequence[str] | None = ("data",),
        label_names: Sequence[str] | None = ("softmax_label",),
        logger: Any = dmod_logger,
        context: Context | Sequence[Context] | None = None,
        work_load_list: Sequence[float] | None = None,
        fixed_param_names: Sequence[str] | None = None,
        state_names: Sequence[str] | None = None,
        group2ctxs: Any = None,
        compression_params: Any = None,
    ):
        if not isinstance(symbol, Symbol):
            raise InvalidArgument(f"Module: expected a Symbol, got {type(symbol).__name__}")
        inputs = Inputs(symbol, data_names, label_names, state_names, fixed_param_names)
        super().__init__(symbol, inputs, logger, context, work_load_list, group2ctxs)
        inputs.warn(logger)
        self._warned = False
        self._compression_params = compression_params
        if compression_params:
            Compression.parse(compression_params)  # complain here, rather than when there is a store
        self._arg_params: dict[str, NDArray] = {}
        self._aux_params: dict[str, NDArray] = {}
        self._params_dirty = False
        self._optimizer: opt.Optimizer | None = None
        self._kvstore: kvs.KVStore | None = None
        self._strategy: Any = None
        self._has_gradients = False
        self._leave_early = False  # whether gradients may be pushed while the backward pass goes on
        self._states_to_load: str | None = None

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
        """Allocate memory for given shapes of the inputs and make executors.

        Parameters
        ----------
        data_shapes, label_shapes : list of DataDesc, or of (name, shape)
            Such as an iterator's ``provide_data`` and ``provide_label``.
        for_training : bool
            Whether gradients are needed.
        inputs_need_grad : bool
            Whether those of the data are too.
        force_rebind : bool
            Whether to do it again; parameters keep their values.
        shared_module : Module, optional
            A module whose parameters, and memory, this one shares.
        grad_req : {'write', 'add', 'null'}, or list or dict of them
            Per argument; what is 'add' accumulates over backward passes.

        Raises
        ------
        InvalidArgument
            Names or shapes do not fit the symbol.
        """
        if self.binded and not force_rebind:
            self.logger.warning("bind: already bound, nothing done; use force_rebind=True to bind again")
            return
        if inputs_need_grad and not for_training:
            raise InvalidArgument("bind: inputs_need_grad needs for_training=True")
        if self.binded:
            self._sync_params()
        fresh = self._allocate(
            data_shapes, label_shapes, for_training, inputs_need_grad, grad_req, shared_module
        )
        assert self._params is not None
        if fresh:
            self._need_other_optimizer()
            host_args, host_aux = self._params.host_arrays()
            check_shapes("bind", self._arg_params, host_args)
            check_shapes("bind", self._aux_params, host_aux)
        self.binded = True
        if shared_module is not None and shared_module.params_initialized:
            self._arg_params, self._aux_params = shared_module._arg_params, shared_module._aux_params
            self.params_initialized = True
        elif self.params_initialized:
            self._params.write(self._arg_params, self._aux_params)
        if shared_module is not None and shared_module.optimizer_initialized:
            self.borrow_optimizer(shared_module)

    def _need_other_optimizer(self) -> None:
        """Let go of the optimizer of parameters that are no longer trained."""
        if self._strategy is not None:
            self.optimizer_initialized = False
            self._strategy = None
            self.logger.warning("bind: other parameters are trained now; call init_optimizer() again")

    # ---- parameters

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Initialise parameters from given values, or by an initializer; see `BaseModule.init_params`.

        Raises
        ------
        InvalidArgument
            A given value is missing and may not be, or has another shape; no parameter is changed.
        """
        if self.params_initialized and not force_init:
            self.logger.warning(
                "init_params: already initialised, nothing done; use force_init=True to do it again"
            )
            return
        self._need("init_params", params=False)
        assert self._params is not None
        new_args, new_aux = self._params.host_arrays()
        if self.params_initialized:
            self._sync_params()
            for old, new in ((self._arg_params, new_args), (self._aux_params, new_aux)):
                for name, value in new.items():
                    old[name].copyto(value)
        if isinstance(initializer, type):
            name = initializer.__name__
            raise InvalidArgument(f"init_params: the initializer is a class; call it: mx.init.{name}()")
        if isinstance(initializer, str):
            initializer = create_initializer(initializer)
        check_given("arg_params", arg_params, new_args, allow_missing, allow_extra, self.logger)
        check_given("aux_params", aux_params, new_aux, allow_missing, allow_extra, self.logger)
        attrs = self._symbol.attr_dict()
        for values, given in ((new_args, arg_params), (new_aux, aux_params)):
            for name in sorted(values):
                if given is not None and name in given:
                    given[name].copyto(values[name])
                elif initializer is not None:
                    self._initialize(initializer, InitDesc(name, attrs.get(name)), values[name])
        self._warn_of_servers(new_args)
        self._arg_params, self._aux_params = new_args, new_aux
        self.params_initialized = True
        self._params_dirty = False
        self._params.write(new_args, new_aux)

    def _warn_of_servers(self, args: Mapping[str, NDArray]) -> None:
        """Say once that other parameters than there were, which are set now, do not last, if so."""
        if not self.optimizer_initialized or self._kvstore is None or self._params is None or self._warned:
            return
        if not (self._strategy.in_store and self._kvstore.keeps_weights):
            return
        now, aux = self._params.host_arrays()
        self._params.read(now, aux)
        if any((now[name].asnumpy() != value.asnumpy()).any() for name, value in args.items()):
            self._warned = True
            self.logger.warning(
                "The parameters that are set now last until the next update only: the servers keep the "
                "weights. init_optimizer(kvstore=..., force_init=True) by all workers gives them those of "
                "worker 0; with DMOD_UPDATE_ON_KVSTORE=0 each worker keeps its own"
            )

    def _initialize(self, initializer: Any, name: InitDesc, value: NDArray) -> None:
        try:
            initializer(name, value)
        except NoRuleError as error:  # perhaps a label that has become a parameter
            raise NoRuleError(self._inputs.explain(str(name), str(error))) from None

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """``(arg_params, aux_params)`` on the CPU; auxiliary states are means over devices."""
        self._need("get_params")
        self._sync_params()
        return self._arg_params, self._aux_params

    def take_params(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Keep the parameters of a checkpoint, which `bind` will use."""
        names = [*self._inputs.parameters, *self._symbol.list_auxiliary_states()]
        check_known("load", {**arg_params, **aux_params}, names)
        self._arg_params, self._aux_params = dict(arg_params), dict(aux_params)
        self.params_initialized = True

    def mark_changed(self) -> None:
        """Note that a module which shares the parameters has changed them."""
        self._params_dirty = True

    def _sync_params(self) -> None:
        """Copy the devices' values to the host if they have changed."""
        if self._params_dirty and self._params is not None:
            self._params.read(self._arg_params, self._aux_params)
            self._params_dirty = False

    # ---- optimizer

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer, and the store through which devices and workers share gradients.

        Parameters
        ----------
        kvstore : str, KVStore or None
            With one device and a local store, none is needed, and none is made.
        optimizer : str or Optimizer
            A name gets ``rescale_grad`` = 1 / (samples per step over all devices and workers) by default.
        optimizer_params : dict, or sequence of pairs
        force_init : bool
            Whether to do it again.
        """
        self._need("init_optimizer")
        if self.optimizer_initialized and not force_init:
            name = type(self._optimizer).__name__
            self.logger.warning(
                "Going on with the installed %s, whatever optimizer and parameters are given now; "
                "init_optimizer(..., force_init=True) before fit replaces it",
                name,
            )
            return
        if not self.for_training:
            raise NotReadyError("init_optimizer: call bind(for_training=True) first")
        assert self._params is not None
        store = create_store(kvstore, len(self._contexts))
        if self._compression_params and store is not None:
            store.set_gradient_compression(self._compression_params)
        self._optimizer = create_optimizer(
            optimizer,
            optimizer_params,
            store,
            self._group("init_optimizer").batch_size,
            self._symbol,
            self._inputs.parameters,
            self.logger,
        )
        if store is not None:
            self._devices.set_first_slot(store.first_slot(len(self._contexts)))
        self._kvstore = store
        digest = digest_of([self._symbol])
        update_on_kvstore = settings().update_on_kvstore
        self._strategy = choose_strategy(store, self._optimizer, self._params, digest, update_on_kvstore)
        if store is not None and self._strategy.in_store:
            note_installed(self, store, self._optimizer, self.logger)
        self.optimizer_initialized = True
        self._params_dirty = True
        if self._states_to_load is not None:
            self.load_optimizer_states(self._states_to_load)
            self._states_to_load = None

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use another module's optimizer, store and states; both share their parameters."""
        if not shared_module.optimizer_initialized:
            raise NotReadyError("borrow_optimizer: the other module needs init_optimizer() first")
        if self._params is None or self._params is not shared_module._params:
            raise InvalidArgument(
                "borrow_optimizer: the modules do not share their parameters; bind(shared_module=...) first"
            )
        self._optimizer, self._kvstore = shared_module._optimizer, shared_module._kvstore
        self._strategy = shared_module._strategy
        self.optimizer_initialized = True

    # ---- for checkpoints of a training

    @property
    def learners(self) -> list[Module]:
        """This module: it has parameters and an optimizer of its own."""
        return [self]

    @property
    def optimizer(self) -> opt.Optimizer | None:
        """What updates the parameters, here or on servers; None before `init_optimizer`."""
        return self._optimizer

    @property
    def contexts(self) -> list[Context]:
        """The devices."""
        return self._contexts

    @property
    def store(self) -> kvs.KVStore | None:
        """The store through which devices and workers share gradients, if there is one."""
        return self._kvstore

    def get_optimizer_states(self, copy: bool = True) -> OptimizerStates:
        """The optimizer's states, of this process or of all servers.

        Parameters
        ----------
        copy : bool
            Whether the next update must leave them as they are.
        """
        self._need("get_optimizer_states", optimizer=True)
        states: OptimizerStates = self._strategy.get_states(copy)
        return states

    def set_optimizer_states(self, states: OptimizerStates) -> None:
        """Take over optimizer states; in a job with servers all workers call this."""
        self._need("set_optimizer_states", optimizer=True)
        self._strategy.set_states(states)

    def get_device_states(self) -> dict[str, Any]:
        """What each device holds besides weights: auxiliary states, counts of random streams, state inputs.

        `get_params` gives the auxiliary states' mean over devices; these are the devices' own. Gradients
        are among them where they add up from step to step, and the state of a schedule of the user's.
        """
        self._need("get_device_states")
        assert self._params is not None
        inputs = [[a.asnumpy() for a in arrays] for arrays in self.get_states(merge_multi_context=False)]
        schedule = schedule_state(getattr(self._optimizer, "lr_scheduler", None))
        return {**read_devices(self._params, self._devices), "inputs": inputs, "schedule": schedule}

    def set_device_states(self, state: dict[str, Any]) -> None:
        """Put back what `get_device_states` gave.

        Raises
        ------
        InvalidArgument
            It is of another network, or other devices.
        """
        self._need("set_device_states")
        assert self._params is not None
        write_devices(state, self._params, self._devices)
        if state["inputs"]:
            self.set_states([[array(a) for a in arrays] for arrays in state["inputs"]])
        set_schedule_state(getattr(self._optimizer, "lr_scheduler", None), state["schedule"])
        self._params_dirty = True

    # ---- steps

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs for a batch; one of other shapes is taken as `reshape` does."""
        if self._may_drop and (self.for_training if is_train is None else is_train):
            self._kvstore.settle()  # type: ignore[union-attr]
        super().forward(data_batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients of the parameters, and of the data if it was bound so."""
        self._need("backward")
        if not self.for_training:
            raise NotReadyError(
                "backward: bound for inference; call bind(for_training=True, force_rebind=True) first"
            )
        if self._may_drop and self._params is not None:
            self._params.remember_aux()
            self._kvstore.settle()  # type: ignore[union-attr]
        group = self._group("backward")
        overlap = None
        if self._leave_early and out_grads is None and not self._monitors:
            overlap = overlap_of(group, self._strategy)
        group.backward(out_grads, () if overlap is None else overlap.stops)
        self._has_gradients = True
        self._params_dirty = True  # auxiliary states move in backward

    def _update_follows(self, follows: bool) -> None:
        own = (type(self).forward_backward, type(self).forward, type(self).backward, type(self).update)
        self._leave_early = follows and own == _OWN_STEP and self.__dict__.keys().isdisjoint(_STEP)

    def _can_copy_ahead(self) -> bool:
        methods = (type(self).forward_backward, type(self).forward, type(self).prepare)
        own = methods == _OWN_READERS and self.__dict__.keys().isdisjoint(_READERS)
        return (
            own  # others may change batches
            and self._exec_group is not None
            and not self._monitors
            and self._exec_group.can_copy_ahead
            and settings().copy_ahead
        )

    def _want_ahead(self, wanted: bool) -> bool:
        return self._devices.turns.want(wanted)

    def _stage(self, batch: Any) -> None:
        if not self._monitors:  # which may have come since
            self._group("fit").stage(batch)

    def update(self) -> None:
        """Update the parameters from the gradients, on all devices and with all workers.

        Raises
        ------
        EpochEnded
            Another worker has ended the epoch; nothing was updated, and the step's traces in auxiliary
            states and random streams are removed. `fit` handles this.
        """
        self._need("update", optimizer=True)
        if not self._has_gradients:
            raise NotReadyError("update: there are no gradients yet; call backward() first")
        self._params_dirty = True
        try:
            self._strategy.update()
        except EpochEnded:
            self._undo_step()
            raise

    def _undo_step(self) -> None:
        """Remove the traces of a step whose update was dropped."""
        assert self._params is not None
        self._params.restore_aux()
        for stream in self._devices.streams:
            stream.step_back()

    @property
    def _may_drop(self) -> bool:
        """Whether a round may be dropped after its backward pass: when there are other workers."""
        return self._kvstore is not None and self._kvstore.num_workers > 1

    def _end_epoch(self) -> None:
        """End the epoch with all workers; auxiliary states become their mean over all devices."""
        self._strategy.end_epoch()
        self._params_dirty = True

    # ---- files

    @staticmethod
    def load(prefix: str, epoch: int, load_optimizer_states: bool = False, **kwargs: Any) -> Module:
        """A module from a checkpoint; `bind` comes next.

        Parameters
        ----------
        prefix : str
        epoch : int
        load_optimizer_states : bool
            Whether to load ``prefix-0001.states`` too, when the optimizer is installed.
        **kwargs
            Arguments of `Module`.
        """
        symbol, args, aux = load_checkpoint(prefix, epoch)
        mod = Module(symbol=symbol, **kwargs)
        mod.take_params(args, aux)
        if load_optimizer_states:
            mod._states_to_load = f"{prefix}-{epoch:04d}.states"
        return mod

    def save_checkpoint(
        self, prefix: str, epoch: int, save_optimizer_states: bool = False, remove_amp_cast: bool = True
    ) -> None:
        """Write symbol and parameters, and the optimizer's states if asked; see `save_checkpoint`."""
        self._need("save_checkpoint")
        save_checkpoint(prefix, epoch, self._symbol, *self.get_params())
        self.logger.info("Saved checkpoint to %s-%04d.params", prefix, epoch)
        if save_optimizer_states:
            self.save_optimizer_states(f"{prefix}-{epoch:04d}.states")
            self.logger.info("Saved optimizer states to %s-%04d.states", prefix, epoch)

    def save_optimizer_states(self, fname: str) -> None:
        """Write the optimizer's states: of this process, or of all servers."""
        self._need("save_optimizer_states", optimizer=True)
        self._strategy.get_states().save(fname)

    def load_optimizer_states(self, fname: str) -> None:
        """Read what `save_optimizer_states` wrote.

        Raises
        ------
        MXNetError
            The file is missing, corrupt, or of other parameters; nothing is changed.
        """
        self._need("load_optimizer_states", optimizer=True)
        try:
            states = OptimizerStates.load(fname)
        except OSError as error:
            raise MXNetError(
                f"load_optimizer_states: cannot read {fname}: {error.strerror or error}"
            ) from error
        self._strategy.set_states(states)


_STEP = ("forward_backward", "forward", "backward", "update")
_OWN_STEP = tuple(getattr(Module, name) for name in _STEP)
"""What a step of `fit` consists of, unless a subclass or an object has methods of its own."""
_READERS = ("forward_backward", "forward", "prepare")
_OWN_READERS = tuple(getattr(Module, name) for name in _READERS)
"""What reads a batch before it is computed, likewise."""
