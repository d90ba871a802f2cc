"""`SymbolModule`: a symbol on devices, for given shapes of its inputs.

It ties the symbol's `Inputs`, a `ParameterSet`, and an `ExecutorGroup` per set of input shapes together:
memory and computation. `Module` adds what training needs: values, an optimizer, a store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from dmod.base import InvalidArgument, NotReadyError
from dmod.context import Context
from dmod.executor.binder import grad_reqs
from dmod.executor.storage import row_sparse_gradients
from dmod.io import DataDesc
from dmod.module.base_module import BaseModule
from dmod.module.inputs import Inputs
from dmod.module.placement import contexts_of, group2ctxs_of, work_load_of
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.worker import DeviceState, ExecutorGroup, ParameterSet
from dmod.worker.group import infer_parameters

__all__ = ["SymbolModule"]

MAX_GROUPS = 8
"""How many sets of input shapes keep their executors; the one unused for longest is let go first."""


class SymbolModule(BaseModule):
    """A symbol with memory and executors on one or more devices; for the parameters see `Module`."""

    def __init__(
        self,
        symbol: Symbol,
        inputs: Inputs,
        logger: Any,
        context: Context | Sequence[Context] | None,
        work_load_list: Sequence[float] | None,
        group2ctxs: Any,
    ):
        super().__init__(logger)
        self._symbol = symbol
        self._inputs = inputs
        self._contexts = contexts_of(context)
        self._group2ctxs = group2ctxs_of(group2ctxs, len(self._contexts))
        self._work_load = work_load_of(work_load_list, len(self._contexts))
        self._devices = DeviceState(self._contexts)
        self._params: ParameterSet | None = None
        self._groups: OrderedDict[Any, ExecutorGroup] = OrderedDict()
        self._exec_group: ExecutorGroup | None = None
        self._reqs: dict[str, str] = {}
        self._monitors: tuple[Any, ...] = ()
        self._computed = False
        self._warned_of_labels = False

    # ---- names and shapes

    @property
    def data_names(self) -> list[str]:
        """The names of the data inputs."""
        return self._inputs.data

    @property
    def label_names(self) -> list[str]:
        """The names of the labels."""
        return self._inputs.labels

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

    @property
    def contexts(self) -> list[Context]:
        """The devices."""
        return self._contexts

    def _group(self, call: str) -> ExecutorGroup:
        if self._exec_group is None:
            raise NotReadyError(f"{call}: call bind() first")
        return self._exec_group

    # ---- memory and executors

    def _allocate(
        self,
        data_shapes: Any,
        label_shapes: Any,
        for_training: bool,
        inputs_need_grad: bool,
        grad_req: Any,
        shared_module: Any,
    ) -> bool:
        """What `bind` does, but for the parameters' values; whether there is a new set of parameters."""
        data, labels = self._inputs.check(data_shapes, label_shapes)
        self._reqs = self._grad_reqs(grad_req, for_training, inputs_need_grad)
        fresh = self._make_params([*data, *labels], shared_module)
        self._groups.clear()
        self.for_training, self.inputs_need_grad = for_training, inputs_need_grad
        self._exec_group = self._group_for(data, labels)
        return fresh

    def _grad_reqs(self, grad_req: Any, for_training: bool, inputs_need_grad: bool) -> dict[str, str]:
        """`grad_req` of every argument: only trained parameters, and data if asked, get gradients."""
        arguments = self._inputs.arguments
        reqs = grad_reqs(grad_req, arguments) if for_training else dict.fromkeys(arguments, "null")
        for name in arguments:
            if name in self._inputs.data:
                if not inputs_need_grad:
                    reqs[name] = "null"
                elif reqs[name] == "null" and for_training:
                    reqs[name] = "write"
            elif name in self._inputs.fixed or name not in self._inputs.parameters:
                reqs[name] = "null"
        return reqs

    def _make_params(self, inputs: list[DataDesc], shared: Any) -> bool:
        """Lay the parameters out, or take over a set that fits; whether they are laid out anew."""
        params, aux = self._infer_parameters(inputs)
        if shared is not None:
            if shared._params is None:
                raise NotReadyError("bind: shared_module must be bound first")
            shared._params.check_covers([*params, *aux], "bind")
            self._params, self._devices = shared._params, shared._devices
            return False
        trained = {name for name, _, _ in params if self._reqs[name] != "null"}
        attrs = self._symbol.attr_dict()
        groups_of = {name: a["__ctx_group__"] for name, a in attrs.items() if "__ctx_group__" in a}
        sparse = row_sparse_gradients(self._symbol)
        fresh = ParameterSet(self._contexts, params, aux, trained, self._group2ctxs, groups_of, sparse)
        fresh.accumulated = {name for name in trained if self._reqs[name] == "add"}
        old = self._params
        if old is not None and old.same_layout(fresh):
            old.accumulated = fresh.accumulated
            return False
        self._params = fresh
        return True

    def _infer_parameters(self, inputs: list[DataDesc]) -> tuple[list[Any], list[Any]]:
        return infer_parameters(self._symbol, inputs, self._inputs.all(), self._work_load)

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
                self._inputs.states,
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

    def reserve_memory(self) -> None:
        """Compile now what the next step will run, so that memory has its size from the start."""
        for executor in self._group("reserve_memory").execs:
            executor.plan(self.for_training)

    def reshape(self, data_shapes: Any, label_shapes: Any = None) -> None:
        """Go on with inputs of other shapes; parameters, optimizer and states stay.

        Executors of shapes that were used before are taken up again.
        """
        self._need("reshape", params=False)
        data, labels = self._inputs.check(data_shapes, label_shapes)
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

    # ---- computation

    def get_states(self, merge_multi_context: bool = True) -> list[Any]:
        """The arrays of the state inputs."""
        self._need("get_states")
        return self._group("get_states").get_states(merge_multi_context)

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the state inputs: a list per state of one array per device, or one number for all."""
        self._need("set_states")
        self._group("set_states").set_states(states, value)

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
        group.forward(data_batch, is_train)
        self._computed = True

    def _warn_of_lost_labels(self, group: ExecutorGroup) -> None:
        """Say so, once, if a batch has labels that the module was not bound for."""
        if self._inputs.labels and not group.label_shapes and not self._warned_of_labels:
            self._warned_of_labels = True
            self.logger.warning(
                "forward: the batch's labels are ignored, %r stays zero: bind with label_shapes",
                self._inputs.labels[0],
            )

    def _reshape_for(self, batch: Any) -> None:
        """Take up executors for a batch's shapes."""
        group = self._group("forward")
        if len(batch.data) != len(self._inputs.data):
            raise InvalidArgument(
                f"forward: the batch has {len(batch.data)} data arrays, expected {len(self._inputs.data)}: "
                f"{', '.join(self._inputs.data)}"
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
        self._devices.turns.take()  # the next batch is copied anew, to where the monitor looks
        for group in self._groups.values():
            group.install_monitor(mon)
