"""`Executor`: a bound symbol. It owns compiled plans and runs them over fixed arrays.

Training and inference have a plan each, compiled when first used. Arrays are never replaced: feeding
data, setting parameters and reading outputs all go through the same buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, NotReadyError
from dmod.config import settings
from dmod.context import Context
from dmod.device import Backend, backend, copy
from dmod.device.random import SlotStream
from dmod.device.threads import limit_threads
from dmod.executor.memory import Pool, Workspace
from dmod.executor.passes.graph import needs_gradient
from dmod.executor.plan import Binding, Plan, compile_plan
from dmod.ndarray import NDArray
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.symbol.graph import Node, check_unique
from dmod.symbol.infer import entry_key, infer_dtypes, infer_shapes, is_complete

__all__ = ["Executor", "Handle"]

GRAD_REQS = ("write", "add", "null")


@dataclass(frozen=True)
class Handle:
    """What an executor runs over: the arrays of a symbol's variables, and memory to work in.

    Attributes
    ----------
    args, grads, aux : dict of str to NDArray
        Arguments, the gradients of some of them, and auxiliary states.
    workspace : Workspace, optional
        Memory that is shared with other executors; default: one of its own.
    stream : SlotStream, optional
        Where its random numbers come from.
    pool : Pool, optional
        Where its outputs come from, if it shares them with executors that run at other times.
    heads : Executor, optional
        One of the same symbol, whose outputs and their gradients are its own too.
    """

    args: Mapping[str, NDArray]
    grads: Mapping[str, NDArray] = field(default_factory=dict)
    aux: Mapping[str, NDArray] = field(default_factory=dict)
    workspace: Workspace | None = None
    stream: SlotStream | None = None
    pool: Pool | None = None
    heads: Executor | None = None


class Executor:
    """A symbol with memory: computes outputs and gradients.

    Executors come from `Symbol.bind` and `Symbol.simple_bind`.

    Parameters
    ----------
    handle : Handle
        The arrays and the memory.
    symbol : Symbol
    ctx : Context
    grad_req : dict of str to str
        'write', 'add' or 'null' for each argument; one without a gradient array counts as 'null'.
    group2ctx : dict of str to Context
        Where the nodes of each ``ctx_group`` are computed, if not on `ctx`.

    Attributes
    ----------
    arg_arrays, grad_arrays, aux_arrays : list of NDArray
        In the order of the symbol's arguments and auxiliary states; a gradient that is not wanted is None.
    outputs : list of NDArray
        Written anew by every `forward`.
    """

    def __init__(
        self,
        handle: Handle,
        symbol: Symbol,
        ctx: Context,
        grad_req: Mapping[str, str],
        group2ctx: Mapping[str, Context] | None = None,
    ):
        self._symbol = symbol
        self._ctx = ctx
        self._backend = backend(ctx)
        limit_threads()
        self._arg_names = check_unique(symbol.list_arguments(), "arguments")
        self._aux_names = check_unique(symbol.list_auxiliary_states(), "auxiliary states")
        self._args, self._aux = dict(handle.args), dict(handle.aux)
        grads = handle.grads
        self._reqs = {n: grad_req.get(n, "null") if n in grads else "null" for n in self._arg_names}
        self._grads = {name: grads[name] for name in self._arg_names if self._reqs[name] != "null"}
        self._workspace = handle.workspace or Workspace(self._backend)
        self._workspace.admit(self)
        self._stream = handle.stream or SlotStream()
        self._group2ctx = dict(group2ctx or {})
        self._plans: dict[tuple[bool, bool], Plan] = {}  # by is_train, and whether a monitor watches
        self._trained: Plan | None = None  # whose forward ran last
        self._monitor: tuple[Callable[[str, NDArray], None], bool] | None = None
        self._pool = handle.pool
        self._heads = handle.heads
        self._binding = self._bind()
        self._takes_gradients = any(target is not None for target in self._binding.head_grads)
        self.arg_arrays = [self._args[n] for n in self._arg_names]
        self.grad_arrays = [self._grads.get(n) for n in self._arg_names]
        self.aux_arrays = [self._aux[n] for n in self._aux_names]
        self.outputs: list[NDArray]
        if self._heads is not None:
            self.outputs = self._heads.outputs
        else:
            self.outputs = [NDArray(a, ctx) for a in self._binding.outputs]

    def _bind(self) -> Binding:
        """Infer everything from the arrays, and check that they fit."""
        symbol = self._symbol
        order = symbol._order()
        arrays = {**self._args, **self._aux}
        shapes = infer_shapes(order, {n: a.shape for n, a in arrays.items()})
        dtypes = infer_dtypes(order, {n: a.dtype for n, a in arrays.items()})
        _check_known(order, shapes)
        for name, grad in self._grads.items():
            if grad.stype != "default" and self._reqs[name] == "add":
                raise InvalidArgument(
                    f"bind: grad_req of {name!r} is 'add'; a row_sparse gradient can only be written"
                )
            if grad.shape != self._args[name].shape:
                raise InvalidArgument(
                    f"bind: gradient of {name!r} has shape {grad.shape}, expected {self._args[name].shape}"
                )
        values = {name: _held(array) for name, array in arrays.items()}
        places = self._places(order)
        if self._heads is None:
            outputs, head_grads = self._make_heads(order, shapes, dtypes, values, places)
        else:
            outputs, head_grads = self._heads._binding.outputs, self._heads._binding.head_grads
        return Binding(
            order=order,
            heads=symbol._heads,
            shapes=shapes,
            dtypes=dtypes,
            values=values,
            grads={name: _held(array) for name, array in self._grads.items()},
            reqs=self._reqs,
            outputs=outputs,
            head_grads=head_grads,
            workspace=self._workspace,
            stream=self._stream,
            places=places,
        )

    def _make_heads(
        self, order: list[Node], shapes: Any, dtypes: Any, values: Any, places: dict[int, Workspace]
    ) -> tuple[list[Any], list[Any]]:
        """Arrays for the outputs, and for their gradients where they take any."""
        outputs, head_grads = [], []
        leading = needs_gradient(order, self._reqs)
        made: dict[Any, Any] = {}  # a head that is listed twice has one array
        for i, head in enumerate(self._symbol._heads):
            key, node = entry_key(head), head.node
            memory = places.get(id(node), self._workspace).backend
            shape, dtype = shapes[key] or (), dtypes[key]
            if node.op is None:
                outputs.append(values[node.name])
            else:
                if key not in made:
                    made[key] = self._head(f"output {i}", shape, dtype, memory)
                outputs.append(made[key])
            if node.op is None:
                takes_gradient = True
            elif node.op.is_loss:
                takes_gradient = getattr(node.attrs, "out_grad", False)
            else:  # what is blocked, or leads to no argument, asks for none
                takes_gradient = id(node) in leading
            head_grads.append(self._head(f"gradient {i}", shape, dtype, memory) if takes_gradient else None)
        return outputs, head_grads

    def _head(self, name: str, shape: tuple[int, ...], dtype: Any, memory: Backend) -> Any:
        """An array for an output or its gradient: from the pool, if there is one and it is on this device."""
        if self._pool is not None and self._pool.backend is memory:
            return self._pool.lend(name, shape, dtype)
        return memory.zeros(shape, dtype)

    def _places(self, order: list[Node]) -> dict[int, Workspace]:
        """The nodes of groups that `group2ctx` puts on other devices, with memory there."""
        workspaces = {ctx: Workspace(backend(ctx)) for ctx in set(self._group2ctx.values()) - {self._ctx}}
        for workspace in workspaces.values():
            workspace.admit(self)
        places = {}
        for node in order:
            ctx = self._group2ctx.get(node.raw.get("__ctx_group__", ""), self._ctx)
            if ctx != self._ctx:
                places[id(node)] = workspaces[ctx]
        return places

    # ---- arrays by name

    @property
    def arg_dict(self) -> dict[str, NDArray]:
        """The arguments by name."""
        return {n: self._args[n] for n in self._arg_names}

    @property
    def grad_dict(self) -> dict[str, NDArray | None]:
        """The gradients of the arguments by name; None where none is wanted."""
        return {n: self._grads.get(n) for n in self._arg_names}

    @property
    def aux_dict(self) -> dict[str, NDArray]:
        """The auxiliary states by name."""
        return {n: self._aux[n] for n in self._aux_names}

    @property
    def output_dict(self) -> dict[str, NDArray]:
        """The outputs by name."""
        return dict(zip(self._symbol.list_outputs(), self.outputs, strict=True))

    # ---- running

    def plan(self, is_train: bool) -> Plan:
        """The compiled plan for training or inference; compiled when first asked for."""
        monitored = self._monitor is not None
        plan = self._plans.get((is_train, monitored))
        if plan is None:
            with self._backend.activate():
                plan = compile_plan(self._binding, is_train, settings().passes, monitored)
            self._plans[is_train, monitored] = plan  # compiling may have made `forget_plans` drop the others
        return plan

    def forget_plans(self) -> None:
        """Drop the compiled plans, as the workspace's memory is replaced; arrays and outputs stay."""
        self._plans.clear()

    def forward(self, is_train: bool = False, **kwargs: Any) -> list[NDArray]:
        """Compute the outputs.

        Parameters
        ----------
        is_train : bool
            Whether a `backward` may follow; operators such as Dropout behave differently.
        **kwargs : NDArray or array-like
            Values for arguments, copied into their arrays.

        Returns
        -------
        list of NDArray
            `outputs`.

        Raises
        ------
        InvalidArgument
            An unknown argument, or one of another shape.
        """
        for name, value in kwargs.items():
            self._feed(name, value)
        plan = self.plan(bool(is_train))
        self._workspace.owner = plan if is_train else None
        if is_train:
            self._trained = plan
        with np.errstate(all="ignore"), self._backend.activate():
            self._stream.advance(bool(is_train))
            if self._monitor is None:
                self._backend.launch(plan.forward, "forward")
            else:
                self._forward_monitored(plan)
        return self.outputs

    def _feed(self, name: str, value: Any) -> None:
        if name not in self._args:
            raise InvalidArgument(f"forward: no argument {name!r}{nearest(name, self._args)}")
        target = self._args[name]
        if target.stype != "default":
            target[:] = value
            return
        source = value._dense()._data if isinstance(value, NDArray) else np.asarray(value)
        if source.shape != target.shape:
            raise InvalidArgument(
                f"forward: {name!r} has shape {source.shape}, bound as {target.shape}; use reshape()"
            )
        copy(target._data, source)

    def _forward_monitored(self, plan: Plan) -> None:
        """Run step by step and show each result before a later step may use its memory."""
        assert self._monitor is not None
        callback, show_all = self._monitor
        if show_all:
            for name, array in {**self._args, **self._aux}.items():
                callback(name, array)
        for step, written in zip(plan.forward, plan.names, strict=True):
            step()
            for name, array in written:
                callback(name, NDArray(array.copy(), self._ctx))

    def backward(
        self,
        out_grads: Any = None,
        is_train: bool = True,
        stops: Sequence[tuple[int, Callable[[], None]]] = (),
    ) -> None:
        """Compute the gradients of the arguments.

        Parameters
        ----------
        out_grads : NDArray, list or dict of NDArray, optional
            The gradients of the outputs. Not needed for outputs that are losses.
        is_train : bool
            Accepted; gradients belong to the last ``forward(is_train=True)``.
        stops : sequence of (int, callable), optional
            What to call after so many steps of the plan, in rising order.

        Raises
        ------
        NotReadyError
            No forward pass in training came before, or its results were overwritten by a later pass.
        InvalidArgument
            A gradient is missing, or has another shape than its output.
        """
        plan = self.plan(True)
        if self._trained is not None and self._workspace.owner is self._trained:
            plan = self._trained  # another one if a monitor has come since
        if self._workspace.owner is not plan:
            raise NotReadyError(
                "backward: call forward(is_train=True) first; an inference pass in between discards it"
            )
        self._take_head_gradients(out_grads)
        with np.errstate(all="ignore"), self._backend.activate():
            done = 0
            for stop, call in stops:
                for step in plan.backward[done:stop]:
                    step()
                done = stop
                call()
            self._backend.launch(plan.backward[done:] if done else plan.backward, "backward")

    def _take_head_gradients(self, out_grads: Any) -> None:
        targets = self._binding.head_grads
        if out_grads is None and not self._takes_gradients:
            return
        if out_grads is None:
            given: list[Any] = [None] * len(targets)
        elif isinstance(out_grads, NDArray):
            given = [out_grads]
        elif isinstance(out_grads, Mapping):
            given = [out_grads.get(name) for name in self._symbol.list_outputs()]
        else:
            given = list(out_grads)
        if len(given) < len(targets) and all(t is None for t in targets[len(given) :]):
            given += [None] * (len(targets) - len(given))
        if len(given) != len(targets):
            raise InvalidArgument(f"backward: {len(given)} gradients for {len(targets)} outputs")
        for name, target, grad in zip(self._symbol.list_outputs(), targets, given, strict=True):
            if target is None:
                continue
            if grad is None:
                raise InvalidArgument(
                    f"backward: output {name!r} is no loss, so its gradient must be given as out_grads"
                )
            source = grad._dense()._data if isinstance(grad, NDArray) else np.asarray(grad)
            if source.shape != target.shape:
                raise InvalidArgument(
                    f"backward: gradient of {name!r} has shape {source.shape}, expected {target.shape}"
                )
            copy(target, source)

    # ---- the rest

    def set_monitor_callback(
        self, callback: Callable[[str, NDArray], None] | None, monitor_all: bool = False
    ) -> None:
        """Call ``callback(name, array)`` for every operator's outputs during `forward`.

        Parameters
        ----------
        callback : callable or None
            None removes it.
        monitor_all : bool
            Show arguments and auxiliary states too.
        """
        self._monitor = (callback, monitor_all) if callback is not None else None

    def copy_params_from(
        self,
        arg_params: Mapping[str, NDArray],
        aux_params: Mapping[str, NDArray] | None = None,
        allow_extra_params: bool = False,
    ) -> None:
        """Copy values into arguments and auxiliary states, by name.

        Raises
        ------
        InvalidArgument
            A name is unknown and `allow_extra_params` is false, or a shape differs.
        """
        for what, params, targets in (
            ("argument", arg_params, self._args),
            ("auxiliary state", aux_params, self._aux),
        ):
            for name, value in (params or {}).items():
                if name in targets:
                    if value.shape != targets[name].shape:
                        raise InvalidArgument(
                            f"copy_params_from: {name!r} has shape {value.shape}, "
                            f"bound as {targets[name].shape}"
                        )
                    value.copyto(targets[name])
                elif not allow_extra_params:
                    raise InvalidArgument(f"copy_params_from: no {what} {name!r}{nearest(name, targets)}")

    def reshape(
        self, partial_shaping: bool = False, allow_up_sizing: bool = False, **kwargs: Sequence[int]
    ) -> Executor:
        """An executor for inputs of other shapes; arrays whose shape stays are shared with this one.

        Parameters
        ----------
        partial_shaping : bool
            Whether arguments that are not named may change their shapes too.
        allow_up_sizing : bool
            Whether arrays may become larger than they are.
        **kwargs
            New shapes of arguments.

        Raises
        ------
        InvalidArgument
            An argument would change, or grow, without leave.
        """
        for name in kwargs:
            if name not in self._args:
                raise InvalidArgument(f"reshape: no argument {name!r}{nearest(name, self._args)}")
        arg_shapes, _, aux_shapes = self._symbol.infer_shape(**kwargs)
        if arg_shapes is None:
            raise InvalidArgument(f"reshape: the shapes {kwargs} do not determine all others")

        def fitted(
            old: Mapping[str, NDArray], names: list[str], shapes: list[Any], named: bool
        ) -> dict[str, NDArray]:
            out = {}
            for name, shape in zip(names, shapes, strict=True):
                if name not in old:
                    continue
                array = old[name]
                if array.shape != shape:
                    if not (partial_shaping or (named and name in kwargs) or "label" in name):
                        raise InvalidArgument(
                            f"reshape: {name!r} would change from {array.shape} to {shape}; "
                            "allow it by partial_shaping"
                        )
                    if int(np.prod(shape)) > array.size and not allow_up_sizing:
                        raise InvalidArgument(
                            f"reshape: {name!r} would grow from {array.shape} to {shape}; "
                            "allow it by allow_up_sizing"
                        )
                    array = NDArray(self._backend.zeros(shape, array.dtype), self._ctx)
                out[name] = array
            return out

        handle = Handle(
            fitted(self._args, self._arg_names, arg_shapes, True),
            fitted(self._grads, self._arg_names, arg_shapes, True),
            fitted(self._aux, self._aux_names, aux_shapes, False),
            self._workspace,
            self._stream,
        )
        return Executor(handle, self._symbol, self._ctx, self._reqs, self._group2ctx)

    def over(self, inputs: Mapping[str, NDArray]) -> Executor:
        """An executor that reads other arrays for some arguments, and shares all else with this one.

        Outputs are written to the same arrays; so the two take turns. No output may be one of `inputs`.

        Parameters
        ----------
        inputs : dict of str to NDArray
            Of the shapes, dtypes and device of those that they stand for.
        """
        handle = Handle(
            {**self._args, **inputs}, self._grads, self._aux, self._workspace, self._stream, heads=self
        )
        return Executor(handle, self._symbol, self._ctx, self._reqs)

    def get_optimized_symbol(self) -> Symbol:
        """The symbol that is computed: the one that was bound, as passes rewrite a plan's own copy of it."""
        return self._symbol

    def debug_str(self) -> str:
        """The graph, and the memory that plans take, as text."""
        lines = [self._symbol.debug_str()]
        for (is_train, _), plan in sorted(self._plans.items(), key=lambda item: item[0]):
            kind = "training" if is_train else "inference"
            steps = f"{len(plan.forward)} forward and {len(plan.backward)} backward steps"
            lines.append(f"Plan for {kind}: {steps}, {plan.nbytes} bytes of intermediate results")
        return "\n".join(lines)


def _held(array: NDArray) -> Any:
    """What a plan is compiled over: the memory of a dense array, a sparse one itself."""
    return array._data if array.stype == "default" else array


def _check_known(order: Sequence[Node], shapes: Mapping[tuple[int, int], Any]) -> None:
    """Raise unless the arguments determine every shape: a plan over unknown lengths would be nonsense."""
    for node in order:
        shape = shapes[id(node), 0]
        if node.op is not None and not is_complete(shape):
            found = "unknown" if shape is None else tuple(max(n, 0) for n in shape)
            raise InvalidArgument(
                f"bind: {node.op.name} {node.name!r}: shape {found} (0: unknown) does not follow from inputs"
            )
