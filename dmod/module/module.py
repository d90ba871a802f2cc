"""`Module`: a symbol that can be trained and run, on one device or several, in one process or many.

It ties together what lies below: a `ParameterSet`, an `ExecutorGroup` per set of input shapes, and an
`UpdateStrategy`. Each of these does its work; this file decides when.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dmod.kvstore as kvs
import dmod.optimizer as opt
from dmod.base import EpochEnded, InvalidArgument, MXNetError, NotReadyError
from dmod.checkpoint import load_checkpoint, save_checkpoint
from dmod.config import settings
from dmod.context import Context, current_context
from dmod.device import copy, to_host
from dmod.executor.binder import grad_reqs
from dmod.executor.storage import row_sparse_gradients
from dmod.initializer import InitDesc, Uniform
from dmod.initializer import create as create_initializer
from dmod.io import DataDesc
from dmod.kvstore.compression import Compression
from dmod.log import logger as dmod_logger
from dmod.module.base_module import BaseModule
from dmod.ndarray import NDArray, array
from dmod.optimizer import OptimizerStates
from dmod.recovery.schedule import schedule_state, set_schedule_state
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.symbol.digest import digest_of
from dmod.worker import DeviceState, ExecutorGroup, ParameterSet, choose_strategy
from dmod.worker.group import infer_parameters
from dmod.worker.overlap import overlap_of
from dmod.worker.slicing import as_descs

__all__ = ["Module"]

MAX_GROUPS = 8
"""How many sets of input shapes keep their executors; the one unused for longest is let go first."""


class Module(BaseModule):
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
        super().__init__(logger)
        if not isinstance(symbol, Symbol):
            raise InvalidArgument(f"Module: expected a Symbol, got {type(symbol).__name__}")
        self._symbol = symbol
        self._compression_params = compression_params
        if compression_params:
            Compression.parse(compression_params)  # complain here, rather than when there is a store
        self._contexts = _contexts(context)
        self._group2ctxs = _group2ctxs(group2ctxs, len(self._contexts))
        self._work_load = list(work_load_list) if work_load_list is not None else [1] * len(self._contexts)
        if len(self._work_load) != len(self._contexts):
            raise InvalidArgument(
                f"Module: {len(self._work_load)} work loads for {len(self._contexts)} devices"
            )
        arguments = symbol.list_arguments()
        self._data_names = _check_names("data_names", data_names, arguments)
        self._label_names = [n for n in (label_names or ()) if n in arguments]
        self._unused_labels = [n for n in (label_names or ()) if n not in arguments]
        self._warn_of_labels(arguments)
        self._state_names = _check_names("state_names", state_names, arguments)
        self._fixed = set(_check_names("fixed_param_names", fixed_param_names, arguments))
        inputs = {*self._data_names, *self._label_names, *self._state_names}
        self._param_names = [n for n in arguments if n not in inputs]
        self._aux_names = symbol.list_auxiliary_states()
        self._arg_params: dict[str, NDArray] = {}
        self._aux_params: dict[str, NDArray] = {}
        self._params_dirty = False
        self._devices = DeviceState(self._contexts)
        self._params: ParameterSet | None = None
        self._groups: OrderedDict[Any, ExecutorGroup] = OrderedDict()
        self._exec_group: ExecutorGroup | None = None
        self._reqs: dict[str, str] = {}
        self._optimizer: opt.Optimizer | None = None
        self._kvstore: kvs.KVStore | None = None
        self._strategy: Any = None
        self._computed = False
        self._has_gradients = False
        self._warned_of_labels = False
        self._states_to_load: str | None = None

    def _warn_of_labels(self, arguments: list[str]) -> None:
        """Say so if what looks like a label would be taken for a parameter."""
        named = {*self._data_names, *self._label_names}
        labels = [n for n in arguments if n.endswith("_label") and n not in named]
        if labels and self._unused_labels:
            self.logger.warning(
                "Module: the symbol has no %r; %r would be a parameter: name it in label_names, "
                "or give the output a name that makes the two agree",
                self._unused_labels[0],
                labels[0],
            )

    # ---- names and shapes

    @property
    def data_names(self) -> list[str]:
        """The names of the data inputs."""
        return self._data_names

    @property
    def label_names(self) -> list[str]:
        """The names of the labels."""
        return self._label_names

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs."""
        return self._symbol.list_outputs()

    @property
    def data_shapes(self) -> list[DataDesc]:
        """Names and shapes of the data, as last bound."""
        return self._group("data_shapes").data_shapes

    @property
    def label_shapes(self) -> list[DataDesc] | None:
        """Names and shapes of the labels, as last bound; None without labels."""
        return self._group("label_shapes").label_shapes or None

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the outputs for a whole batch."""
        return self._group("output_shapes").output_shapes()

    def _group(self, call: str) -> ExecutorGroup:
        if self._exec_group is None:
            raise NotReadyError(f"{call}: call bind() first")
        return self._exec_group

    # ---- binding

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
        data, labels = self._check_inputs(data_shapes, label_shapes)
        self._reqs = self._grad_reqs(grad_req, for_training, inputs_need_grad)
        self._make_params([*data, *labels], shared_module)
        self._groups.clear()
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        self._exec_group = self._group_for(data, labels)
        self.binded = True
        if shared_module is not None and shared_module.params_initialized:
            self._arg_params, self._aux_params = shared_module._arg_params, shared_module._aux_params
            self.params_initialized = True
        elif self.params_initialized:
            assert self._params is not None
            self._params.write(self._arg_params, self._aux_params)
        if shared_module is not None and shared_module.optimizer_initialized:
            self.borrow_optimizer(shared_module)

    def _check_inputs(self, data_shapes: Any, label_shapes: Any) -> tuple[list[DataDesc], list[DataDesc]]:
        data, labels = as_descs(data_shapes, "data_shapes"), as_descs(label_shapes, "label_shapes")
        if sorted(d.name for d in data) != sorted(self._data_names):
            raise InvalidArgument(
                f"bind: data_shapes has {[d.name for d in data]}, data_names are {self._data_names}"
            )
        data.sort(key=lambda d: self._data_names.index(d.name))
        known = {*self._label_names, *self._unused_labels}
        for desc in labels:
            if desc.name not in known:
                raise InvalidArgument(
                    f"bind: label_shapes has {desc.name!r}, the module's label_names are {self._label_names}"
                )
        return data, labels

    def _grad_reqs(self, grad_req: Any, for_training: bool, inputs_need_grad: bool) -> dict[str, str]:
        """`grad_req` of every argument: only trained parameters, and data if asked, get gradients."""
        arguments = self._symbol.list_arguments()
        reqs = grad_reqs(grad_req, arguments) if for_training else dict.fromkeys(arguments, "null")
        for name in arguments:
            if name in self._data_names:
                if not inputs_need_grad:
                    reqs[name] = "null"
                elif reqs[name] == "null" and for_training:
                    reqs[name] = "write"
            elif name in self._fixed or name not in self._param_names:
                reqs[name] = "null"
        return reqs

    def _make_params(self, inputs: list[DataDesc], shared: Any) -> None:
        """Lay the parameters out, or take over a set that fits."""
        params, aux = self._infer_parameters(inputs)
        if shared is not None:
            if shared._params is None:
                raise NotReadyError("bind: shared_module must be bound first")
            shared._params.check_covers([*params, *aux], "bind")
            self._params, self._devices = shared._params, shared._devices
            return
        trained = {name for name, _, _ in params if self._reqs[name] != "null"}
        attrs = self._symbol.attr_dict()
        groups_of = {name: a["__ctx_group__"] for name, a in attrs.items() if "__ctx_group__" in a}
        sparse = row_sparse_gradients(self._symbol)
        fresh = ParameterSet(self._contexts, params, aux, trained, self._group2ctxs, groups_of, sparse)
        fresh.accumulated = {name for name in trained if self._reqs[name] == "add"}
        old = self._params
        if old is not None and old.same_layout(fresh):
            old.accumulated = fresh.accumulated
            return
        self._params = fresh
        if self._strategy is not None:
            self.optimizer_initialized = False
            self._strategy = None
            self.logger.warning("bind: other parameters are trained now; call init_optimizer() again")
        for values, host in zip((self._arg_params, self._aux_params), fresh.host_arrays(), strict=True):
            _check_shapes("bind", values, host)

    def _infer_parameters(self, inputs: list[DataDesc]) -> tuple[list[Any], list[Any]]:
        input_names = [*self._data_names, *self._label_names, *self._state_names]
        return infer_parameters(self._symbol, inputs, input_names, self._work_load)

    def _group_for(self, data: list[DataDesc], labels: list[DataDesc]) -> ExecutorGroup:
        """The executors for these shapes: those that are there, or new ones."""
        key = tuple((d.name, tuple(d.shape), str(d.dtype), d.layout) for d in [*data, *labels])
        group = self._groups.get(key)
        if group is None:
            assert self._params is not None
            group = ExecutorGroup(
                self._symbol,
                self._work_load,
                data,
                labels,
                self._state_names,
                self._params,
                self._devices,
                self._reqs,
            )
            self._groups[key] = group
            if len(self._groups) > MAX_GROUPS:
                self._groups.popitem(last=False)
            if self._monitors:
                for monitor in self._monitors:
                    group.install_monitor(monitor)
        self._groups.move_to_end(key)
        return group

    _monitors: tuple[Any, ...] = ()
    _leave_early = False  # whether gradients may be pushed while the backward pass goes on

    def reserve_memory(self) -> None:
        """Compile now what the next step will run, so that memory has its size from the start."""
        for executor in self._group("reserve_memory").execs:
            executor.plan(self.for_training)

    def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Go on with inputs of other shapes; parameters, optimizer and states stay.

        Executors of shapes that were used before are taken up again.
        """
        self._need("reshape", params=False)
        data, labels = self._check_inputs(data_shapes, label_shapes)
        params, aux = self._infer_parameters([*data, *labels])
        assert self._params is not None
        have = {**self._params.arg_arrays[0], **self._params.aux_arrays[0]}
        for name, shape, _ in [*params, *aux]:
            if have[name].shape != tuple(shape):
                raise InvalidArgument(
                    f"reshape: inputs {[(d.name, d.shape) for d in data]} would change {name!r} "
                    f"from {have[name].shape} to {tuple(shape)}; bind(force_rebind=True) with new parameters"
                )
        self._exec_group = self._group_for(data, labels)

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
        if isinstance(initializer, str):
            initializer = create_initializer(initializer)
        self._check_given(arg_params, aux_params, initializer, allow_missing, allow_extra)
        attrs = self._symbol.attr_dict()
        for values, given in ((new_args, arg_params), (new_aux, aux_params)):
            for name in sorted(values):
                if given is not None and name in given:
                    given[name].copyto(values[name])
                elif initializer is not None:
                    initializer(InitDesc(name, attrs.get(name)), values[name])
        self._arg_params, self._aux_params = new_args, new_aux
        self.params_initialized = True
        self._params_dirty = False
        self._params.write(new_args, new_aux)

    def _check_given(
        self,
        arg_params: Mapping[str, NDArray] | None,
        aux_params: Mapping[str, NDArray] | None,
        initializer: Any,
        allow_missing: bool,
        allow_extra: bool,
    ) -> None:
        """Check given values before any is used."""
        assert self._params is not None
        host_args, host_aux = self._params.host_arrays()
        for what, given, have in (
            ("arg_params", arg_params, host_args),
            ("aux_params", aux_params, host_aux),
        ):
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise InvalidArgument(
                    f"{what}: expected a dict of names to NDArray, got {type(given).__name__}"
                )
            extra = [name for name in given if name not in have]
            missing = [name for name in have if name not in given]
            if missing and not allow_missing:
                hint = f"; it has {extra[0]!r}, which the network does not" if extra else ""
                raise InvalidArgument(
                    f"{what} lacks {', '.join(map(repr, missing))}{hint}; or use allow_missing=True"
                )
            if extra and not allow_extra:
                self._warn_extra(what, extra, have)
            _check_shapes(what, given, have)

    def _warn_extra(self, what: str, extra: list[str], have: Mapping[str, Any]) -> None:
        hint = nearest(extra[0], have)
        self.logger.warning(
            "%s: %s not in the network, ignored%s (allow_extra=True says that this is meant)",
            what,
            ", ".join(map(repr, extra)),
            hint,
        )

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """``(arg_params, aux_params)`` on the CPU; auxiliary states are means over devices."""
        self._need("get_params")
        self._sync_params()
        return self._arg_params, self._aux_params

    def take_params(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Keep the parameters of a checkpoint, which `bind` will use."""
        _check_known("load", {**arg_params, **aux_params}, [*self._param_names, *self._aux_names])
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

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """The arrays of the state inputs."""
        self._need("get_states")
        return self._group("get_states").get_states(merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the state inputs: a list per state of one array per device, or one number for all."""
        self._need("set_states")
        self._group("set_states").set_states(states, value)

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
        store = self._create_store(kvstore)
        if self._compression_params and store is not None:
            store.set_gradient_compression(self._compression_params)
        self._optimizer = self._create_optimizer(optimizer, optimizer_params, store)
        if store is not None:
            self._devices.set_first_slot(store.first_slot(len(self._contexts)))
        self._kvstore = store
        digest = digest_of([self._symbol])
        update_on_kvstore = settings().update_on_kvstore
        self._strategy = choose_strategy(store, self._optimizer, self._params, digest, update_on_kvstore)
        self.optimizer_initialized = True
        self._params_dirty = True
        if self._states_to_load is not None:
            self.load_optimizer_states(self._states_to_load)
            self._states_to_load = None

    def _create_store(self, kvstore: Any) -> kvs.KVStore | None:
        if kvstore is None or isinstance(kvstore, kvs.KVStore):
            if kvstore is None and len(self._contexts) > 1:
                return kvs.create("local")
            return kvstore
        if not isinstance(kvstore, str):
            raise InvalidArgument(
                f"kvstore: expected a name, a KVStore or None, got {type(kvstore).__name__}"
            )
        if len(self._contexts) == 1 and not kvs.KVStoreType.parse(kvstore).distributed:
            return None
        return kvs.create(kvstore)

    def _create_optimizer(self, optimizer: Any, params: Any, store: kvs.KVStore | None) -> opt.Optimizer:
        samples = self._group("init_optimizer").batch_size * (store.num_workers if store is not None else 1)
        names = dict(enumerate(self._param_names))
        if isinstance(optimizer, str):
            arguments = dict(params)
            if store is not None and store.asynchronous:
                samples //= store.num_workers  # each worker's push is an update of its own
            arguments.setdefault("rescale_grad", 1.0 / samples)
            return opt.create(optimizer, sym=self._symbol, param_idx2name=names, **arguments)
        if not isinstance(optimizer, opt.Optimizer):
            raise InvalidArgument(
                f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}"
            )
        if optimizer.rescale_grad != 1.0 / samples:
            self.logger.warning(
                "The optimizer's rescale_grad is %g, not 1/%d for the samples of a step; is this meant?",
                optimizer.rescale_grad,
                samples,
            )
        if not optimizer.idx2name:
            optimizer.idx2name = names
        return optimizer

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
    def store(self) -> kvs.KVStore | None:
        """The store through which devices and workers share gradients, if there is one."""
        return self._kvstore

    @property
    def contexts(self) -> list[Context]:
        """The devices."""
        return self._contexts

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
        return {
            "aux": [[to_host(v).copy() for v in group.values] for group in self._params.aux_groups],
            "streams": [stream.get_state() for stream in self._devices.streams],
            "inputs": [
                [a.asnumpy() for a in arrays] for arrays in self.get_states(merge_multi_context=False)
            ],
            "grads": [
                {name: grad.asnumpy() for name, grad in grads.items()} for grads in self._accumulated_grads()
            ],
            "schedule": schedule_state(getattr(self._optimizer, "lr_scheduler", None)),
        }

    def _accumulated_grads(self) -> list[dict[str, NDArray]]:
        """The gradients with ``grad_req='add'`` of each device."""
        assert self._params is not None
        names = sorted(self._params.accumulated - {name for _, name, _, _ in self._params.sparse})
        return [{name: grads[name] for name in names} for grads in self._params.grad_arrays]

    def set_device_states(self, state: dict[str, Any]) -> None:
        """Put back what `get_device_states` gave.

        Raises
        ------
        InvalidArgument
            It is of another network, or other devices.
        """
        self._need("set_device_states")
        assert self._params is not None
        here = [[v.shape for v in group.values] for group in self._params.aux_groups]
        if here != [[v.shape for v in values] for values in state["aux"]]:
            raise InvalidArgument("set_device_states: auxiliary states of other shapes, or other devices")
        for group, values in zip(self._params.aux_groups, state["aux"], strict=True):
            for own, value in zip(group.values, values, strict=True):
                copy(own, value)
        for stream, counts in zip(self._devices.streams, state["streams"], strict=True):
            stream.set_state(counts)
        if state["inputs"]:
            self.set_states([[array(a) for a in arrays] for arrays in state["inputs"]])
        for grads, kept in zip(self._accumulated_grads(), state["grads"], strict=True):
            for name, grad in grads.items():
                if name in kept:
                    grad[:] = kept[name]
        set_schedule_state(getattr(self._optimizer, "lr_scheduler", None), state["schedule"])
        self._params_dirty = True

    # ---- computation

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs for a batch; one of other shapes is taken as `reshape` does."""
        self._need("forward")
        if not isinstance(getattr(data_batch, "data", None), (list, tuple)):
            raise InvalidArgument(
                f"forward: expected a DataBatch, with a list of arrays as data, got "
                f"{type(data_batch).__name__}"
            )
        group = self._group("forward")
        if is_train is None:
            is_train = self.for_training
        shapes = [tuple(x.shape) for x in data_batch.data]
        if shapes != [tuple(d.shape) for d in group.data_shapes]:
            self._reshape_for(data_batch)
            group = self._group("forward")
        if is_train and getattr(data_batch, "label", None):
            self._warn_of_lost_labels(group)
        if is_train and self._may_drop:
            self._kvstore.settle()  # type: ignore[union-attr]
        group.forward(data_batch, is_train)
        self._computed = True

    def _warn_of_lost_labels(self, group: ExecutorGroup) -> None:
        """Say so, once, if a batch has labels that the module was not bound for."""
        if self._label_names and not group.label_shapes and not self._warned_of_labels:
            self._warned_of_labels = True
            self.logger.warning(
                "forward: the batch's labels are ignored, %r stays zero: bind with label_shapes",
                self._label_names[0],
            )

    def _reshape_for(self, batch: Any) -> None:
        """Take up executors for a batch's shapes."""
        group = self._group("forward")
        if len(batch.data) != len(self._data_names):
            raise InvalidArgument(
                f"forward: the batch has {len(batch.data)} data arrays, expected {len(self._data_names)}: "
                f"{', '.join(self._data_names)}"
            )
        data = getattr(batch, "provide_data", None) or [
            DataDesc(d.name, x.shape, d.dtype, d.layout)
            for d, x in zip(group.data_shapes, batch.data, strict=True)
        ]
        labels = getattr(batch, "provide_label", None)
        if not labels and getattr(batch, "label", None):
            labels = [
                DataDesc(d.name, x.shape, d.dtype, d.layout)
                for d, x in zip(group.label_shapes, batch.label, strict=False)
            ]
        self.reshape(data, labels or None)

    def prepare(self, data_batch: Any, sparse_row_id_fn: Callable[[Any], Any] | None = None) -> None:
        """Get ready for a batch, before `forward`.

        Every worker has all rows of its parameters, up to date, so there are none to pull.

        Parameters
        ----------
        data_batch : DataBatch
        sparse_row_id_fn : callable, optional
            What MXNet needs to know: from the batch to a dict of names of row_sparse parameters to the
            numbers of the rows that the batch uses. The names are checked.
        """
        known = {name for _, name, _, _ in self._params.sparse} if self._params is not None else set()
        if sparse_row_id_fn is None or not known:
            super().prepare(data_batch, sparse_row_id_fn)
            return
        for name in dict(sparse_row_id_fn(data_batch)):
            if name not in known:
                raise InvalidArgument(
                    f"prepare: sparse_row_id_fn names {name!r}; row_sparse parameters are "
                    f"{', '.join(map(repr, sorted(known)))}{nearest(name, known)}"
                )

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

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The outputs of the last `forward`."""
        self._need("get_outputs")
        if not self._computed:
            raise NotReadyError("get_outputs: nothing is computed yet; call forward() first")
        return self._group("get_outputs").get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradients of the data from the last `backward`."""
        self._need("get_input_grads")
        if not self.inputs_need_grad:
            raise NotReadyError("get_input_grads: call bind(..., inputs_need_grad=True) first")
        return self._group("get_input_grads").get_input_grads(merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Feed a metric with the outputs of the last `forward` and the labels."""
        self._need("update_metric")
        self._group("update_metric").update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor watch all executors, also those that come later."""
        self._need("install_monitor", params=False)
        self._monitors = (*self._monitors, mon)
        for group in self._groups.values():
            group.install_monitor(mon)

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


def _contexts(context: Context | Sequence[Context] | None) -> list[Context]:
    contexts = (
        [context or current_context()] if context is None or isinstance(context, Context) else list(context)
    )
    if not contexts or not all(isinstance(c, Context) for c in contexts):
        raise InvalidArgument(f"Module: context is {context!r}, expected a Context or a list of them")
    if len(set(contexts)) != len(contexts):
        raise InvalidArgument(f"Module: context names a device twice: {contexts}")
    return contexts


def _group2ctxs(given: Any, count: int) -> list[dict[str, Context]]:
    """`group2ctxs` as one dict for each of `count` devices."""
    if isinstance(given, Mapping):
        lists = {g: list(c) if isinstance(c, (list, tuple)) else [c] * count for g, c in given.items()}
        short = [g for g, contexts in lists.items() if len(contexts) not in (1, count)]
        if short:
            raise InvalidArgument(
                f"Module: group2ctxs[{short[0]!r}] has {len(lists[short[0]])} contexts for {count} devices"
            )
        given = [{g: c[i % len(c)] for g, c in lists.items()} for i in range(count)]
    groups = [dict(g) for g in given] if given else [{} for _ in range(count)]
    if len(groups) != count:
        raise InvalidArgument(f"Module: group2ctxs has {len(groups)} dicts for {count} devices")
    for name, ctx in (item for g in groups for item in g.items()):
        if not isinstance(ctx, Context):
            raise InvalidArgument(f"Module: group2ctxs[{name!r}] is {ctx!r}, expected a Context")
    return groups


def _check_names(what: str, names: Sequence[str] | None, arguments: list[str]) -> list[str]:
    if isinstance(names, str):
        raise InvalidArgument(f"Module: {what} is {names!r}, expected a list of names")
    for name in names or ():
        if name not in arguments:
            raise InvalidArgument(
                f"Module: {what} has {name!r}, which is no argument of the symbol{nearest(name, arguments)}"
            )
    return list(names or ())


def _check_shapes(what: str, given: Mapping[str, Any], have: Mapping[str, NDArray]) -> None:
    for name, value in given.items():
        if not isinstance(value, NDArray):
            raise InvalidArgument(f"{what}[{name!r}]: expected an NDArray, got {type(value).__name__}")
        if name in have and value.shape != have[name].shape:
            raise InvalidArgument(
                f"{what}[{name!r}]: shape {value.shape}, the network needs {have[name].shape}"
            )


def _check_known(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise InvalidArgument(f"{what}: the checkpoint lacks {', '.join(map(repr, missing))}")


_STEP = ("forward_backward", "forward", "backward", "update")
_OWN_STEP = tuple(getattr(Module, name) for name in _STEP)
"""What a step of `fit` consists of, unless a subclass or an object has methods of its own."""
