"""`SequentialModule`: modules in a chain, each fed with the outputs of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmod.base import EpochEnded, InvalidArgument, NotReadyError
from dmod.initializer import Uniform
from dmod.io import DataBatch, DataDesc
from dmod.log import logger as dmod_logger
from dmod.module.base_module import BaseModule
from dmod.ndarray import NDArray
from dmod.registry import nearest

__all__ = ["SequentialModule"]


class SequentialModule(BaseModule):
    """A chain of modules.

    One symbol for the whole network is faster; a chain is for what one symbol cannot say, such as a
    module in Python between two others.

    Examples
    --------
    >>> import dmod as mx
    >>> net = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3, name='fc')
    >>> head = mx.sym.SoftmaxOutput(mx.sym.Variable('scores'), name='softmax')
    >>> chain = mx.mod.SequentialModule()
    >>> _ = chain.add(mx.mod.Module(net, label_names=None))
    >>> _ = chain.add(mx.mod.Module(head, data_names=['scores']), take_labels=True, auto_wiring=True)
    >>> chain.bind([('data', (4, 5))], [('softmax_label', (4,))])
    >>> chain.output_shapes
    [('softmax_output', (4, 3))]
    """

    META_TAKE_LABELS = "take_labels"
    META_AUTO_WIRING = "auto_wiring"

    def __init__(self, logger: Any = dmod_logger):
        super().__init__(logger)
        self._modules: list[BaseModule] = []
        self._metas: list[dict[str, Any]] = []
        self._label_shapes: Any = None
        self._orders: list[list[int]] = []

    def add(self, module: BaseModule, **kwargs: Any) -> SequentialModule:
        """Add a module to the end of the chain, which must then be bound anew.

        Parameters
        ----------
        module : BaseModule
        take_labels : bool
            Whether the module gets the batch's labels. Several may; all get the same.
        auto_wiring : bool
            Whether the outputs of the module before become this one's data in their order; else names
            must agree.

        Returns
        -------
        SequentialModule
            This one, so that calls can be chained.

        Raises
        ------
        InvalidArgument
            Something else than a module, or an unknown keyword.
        """
        if not isinstance(module, BaseModule):
            raise InvalidArgument(f"add: expected a module, got {type(module).__name__}")
        known = (self.META_TAKE_LABELS, self.META_AUTO_WIRING)
        for name in kwargs:
            if name not in known:
                raise InvalidArgument(f"add: unknown keyword {name!r}{nearest(name, known)}")
        self._modules.append(module)
        self._metas.append(kwargs)
        self.binded = self.params_initialized = self.optimizer_initialized = False
        return self

    def _takes_labels(self, i: int) -> bool:
        return bool(self._metas[i].get(self.META_TAKE_LABELS))

    def _chain(self, call: str) -> list[BaseModule]:
        if not self._modules:
            raise NotReadyError(f"{call}: the chain is empty; call add() first")
        return self._modules

    # ---- names and shapes

    @property
    def data_names(self) -> list[str]:
        """The names of the first module's data."""
        return self._modules[0].data_names if self._modules else []

    @property
    def output_names(self) -> list[str]:
        """The names of the last module's outputs."""
        return self._modules[-1].output_names if self._modules else []

    @property
    def data_shapes(self) -> Any:
        """Names and shapes of the first module's data."""
        self._need("data_shapes", params=False)
        return self._modules[0].data_shapes

    @property
    def label_shapes(self) -> Any:
        """Names and shapes of the labels; None if no module takes any."""
        self._need("label_shapes", params=False)
        return self._label_shapes

    @property
    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the last module's outputs."""
        self._need("output_shapes", params=False)
        return self._modules[-1].output_shapes

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
        """Bind the modules one after the other, each to the outputs of the one before.

        Parameters
        ----------
        data_shapes : list of DataDesc, or of (name, shape)
            For the first module.
        label_shapes : list of DataDesc, or of (name, shape)
            For those that take labels.
        for_training, inputs_need_grad, force_rebind, grad_req
            As in `Module.bind`.
        shared_module : None
            Not supported.
        """
        modules = self._chain("bind")
        if self.binded and not force_rebind:
            self.logger.warning("bind: already bound, nothing done; use force_rebind=True to bind again")
            return
        if shared_module is not None:
            raise InvalidArgument("bind: a SequentialModule cannot share another module's parameters")
        if inputs_need_grad and not for_training:
            raise InvalidArgument("bind: inputs_need_grad needs for_training=True")
        self._orders = []
        shapes = data_shapes
        for i, module in enumerate(modules):
            if i:
                shapes = self._wired(i, shapes)
            module.bind(
                shapes,
                label_shapes if self._takes_labels(i) else None,
                for_training,
                inputs_need_grad or (for_training and i > 0),
                force_rebind,
                grad_req=grad_req,
            )
            shapes = module.output_shapes
        taken = any(self._takes_labels(i) for i in range(len(modules)))
        self._label_shapes = label_shapes if taken else None
        self.for_training, self.inputs_need_grad, self.binded = for_training, inputs_need_grad, True
        self.params_initialized = all(module.params_initialized for module in modules)

    def _wired(self, i: int, outputs: list[tuple[str, tuple[int, ...]]]) -> list[DataDesc]:
        """The shapes of module `i`'s data from those of the outputs before it; notes which is which."""
        names, given = self._modules[i].data_names, [name for name, _ in outputs]
        if self._metas[i].get(self.META_AUTO_WIRING):
            if len(names) != len(given):
                raise InvalidArgument(f"bind: module {i} has data {names}, the one before gives {given}")
            order = list(range(len(names)))
        elif sorted(names) == sorted(given):
            order = [given.index(name) for name in names]
        else:
            raise InvalidArgument(
                f"bind: module {i} has data {names}, the one before gives {given}; "
                "add(..., auto_wiring=True) joins them in their order"
            )
        self._orders.append(order)
        return [DataDesc(name, outputs[k][1]) for name, k in zip(names, order, strict=True)]

    def init_params(
        self,
        initializer: Any = Uniform(0.01),  # noqa: B008  (it has no state)
        arg_params: dict[str, NDArray] | None = None,
        aux_params: dict[str, NDArray] | None = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Initialise the parameters of all modules; see `BaseModule.init_params`.

        Raises
        ------
        InvalidArgument
            Two modules have a parameter of the same name.
        """
        if self.params_initialized and not force_init:
            return
        self._need("init_params", params=False)
        for module in self._modules:  # what one does not know is another's
            module.init_params(initializer, arg_params, aux_params, allow_missing, force_init, True)
        self._check_names()
        known = {name for module in self._modules for part in module.get_params() for name in part}
        extra = [name for part in (arg_params, aux_params) for name in part or () if name not in known]
        if extra and not allow_extra:
            self.logger.warning("init_params: %s not in the network, ignored", ", ".join(map(repr, extra)))
        self.params_initialized = True

    def _check_names(self) -> None:
        """Raise `InvalidArgument` if two modules have a parameter of the same name."""
        owners: dict[str, int] = {}
        for i, module in enumerate(self._modules):
            for name in (name for part in module.get_params() for name in part):
                if name in owners:
                    raise InvalidArgument(
                        f"init_params: modules {owners[name]} and {i} both have a parameter {name!r}"
                    )
                owners[name] = i

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """``(arg_params, aux_params)`` of all modules together."""
        self._need("get_params")
        args: dict[str, NDArray] = {}
        aux: dict[str, NDArray] = {}
        for module in self._modules:
            more_args, more_aux = module.get_params()
            args.update(more_args)
            aux.update(more_aux)
        return args, aux

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install an optimizer in every module; see `Module.init_optimizer`."""
        self._need("init_optimizer")
        if self.optimizer_initialized and not force_init:
            self.logger.warning("init_optimizer: already there; force_init=True replaces it")
            return
        for module in self._modules:
            module.init_optimizer(kvstore, optimizer, optimizer_params, force_init)
        self.optimizer_initialized = True

    # ---- computation

    def _can_copy_ahead(self) -> bool:
        own = type(self).forward_backward is BaseModule.forward_backward
        own = own and (type(self).forward, type(self).prepare) == _OWN_READERS
        return own and bool(self._modules) and self._modules[0]._can_copy_ahead()

    def _want_ahead(self, wanted: bool) -> bool:
        return self._modules[0]._want_ahead(wanted)

    def _stage(self, batch: Any) -> None:
        self._modules[0]._stage(batch)

    def forward(self, data_batch: Any, is_train: bool | None = None) -> None:
        """Compute the outputs of all modules, in order."""
        self._need("forward")
        labels = getattr(data_batch, "label", None)
        batch = data_batch
        for i, module in enumerate(self._modules):
            if i:
                outputs = self._modules[i - 1].get_outputs()
                data = [outputs[k] for k in self._orders[i - 1]]
                described = getattr(data_batch, "provide_label", None) if self._takes_labels(i) else None
                batch = DataBatch(
                    data,
                    labels if self._takes_labels(i) else None,
                    pad=getattr(data_batch, "pad", None),
                    bucket_key=getattr(data_batch, "bucket_key", None),
                    provide_data=[
                        DataDesc(n, x.shape, x.dtype) for n, x in zip(module.data_names, data, strict=True)
                    ],
                    provide_label=described,
                )
            module.forward(batch, is_train)

    def backward(self, out_grads: Any = None) -> None:
        """Compute the gradients of all modules, from the last to the first."""
        self._need("backward")
        for i in reversed(range(len(self._modules))):
            self._modules[i].backward(out_grads)
            if i:
                grads = self._modules[i].get_input_grads()
                order = self._orders[i - 1]
                out_grads = [grads[order.index(k)] for k in range(len(order))]

    def update(self) -> None:
        """Update the parameters of all modules; see `Module.update`.

        Raises
        ------
        EpochEnded
            Another worker has ended the epoch; no module was updated.
        """
        self._need("update", optimizer=True)
        for module in self._modules:
            try:
                module.update()
            except EpochEnded:  # workers push in the same order, so it is the first push that is dropped
                for other in self._modules:
                    if other is not module:
                        other._undo_step()
                raise

    @property
    def learners(self) -> list[Any]:
        """What the modules of the chain consist of."""
        return [learner for module in self._modules for learner in module.learners]

    def _undo_step(self) -> None:
        for module in self._modules:
            module._undo_step()

    def _end_epoch(self) -> None:
        for module in self._modules:
            module._end_epoch()

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Get ready for a batch; only the first module sees what comes from outside."""
        self._need("prepare")
        self._modules[0].prepare(data_batch, sparse_row_id_fn)

    def get_outputs(self, merge_multi_context: bool = True) -> list[Any]:
        """The outputs of the last module."""
        self._need("get_outputs")
        return self._modules[-1].get_outputs(merge_multi_context)

    def get_input_grads(self, merge_multi_context: bool = True) -> list[Any]:
        """The gradients of the first module's data."""
        self._need("get_input_grads")
        if not self.inputs_need_grad:
            raise NotReadyError("get_input_grads: call bind(..., inputs_need_grad=True) first")
        return self._modules[0].get_input_grads(merge_multi_context)

    def update_metric(self, eval_metric: Any, labels: Sequence[Any], pre_sliced: bool = False) -> None:
        """Feed a metric with the labels and the outputs of each module that takes labels."""
        self._need("update_metric")
        for i, module in enumerate(self._modules):
            if self._takes_labels(i):
                module.update_metric(eval_metric, labels, pre_sliced)

    def install_monitor(self, mon: Any) -> None:
        """Let a monitor watch all modules."""
        self._need("install_monitor", params=False)
        for module in self._modules:
            module.install_monitor(mon)


_OWN_READERS = (SequentialModule.forward, SequentialModule.prepare)
"""What reads a batch before it is computed, unless a subclass has methods of its own."""
