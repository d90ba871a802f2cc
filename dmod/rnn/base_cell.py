"""`BaseRNNCell`: what every cell can do. A cell of one's own defines `__call__` and `state_info`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument, NotReadyError
from dmod.ndarray import NDArray, concatenate
from dmod.rnn.params import RNNParams
from dmod.rnn.steps import as_steps, flat_states, merge
from dmod.symbol import Symbol

__all__ = ["BaseRNNCell"]

Arrays = dict[str, NDArray]


class BaseRNNCell:
    """One step of a recurrent network.

    A cell called with the input of a step and the states before it makes the nodes of that step, and returns
    the step's output and the states after it. All steps share the cell's variables.

    Parameters
    ----------
    prefix : str
        Stands before the names of the nodes, and of the variables unless `params` has its own.
    params : RNNParams, optional
        Variables to share with other cells.
    """

    def __init__(self, prefix: str = "", params: RNNParams | None = None):
        self._own_params = params is None
        self._prefix = prefix
        self._params = RNNParams(prefix) if params is None else params
        self._modified = False
        self.reset()

    def reset(self) -> None:
        """Count steps and first states anew, as before making another graph."""
        self._init_counter = -1
        self._counter = -1

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        """Make the nodes of a step.

        Parameters
        ----------
        inputs : Symbol
            The input of the step, of shape ``(batch, ...)``.
        states : list of Symbol
            The states before the step: `begin_state`, or what the last call returned.

        Returns
        -------
        (output, states)
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(inputs, states)")

    @property
    def params(self) -> RNNParams:
        """The variables of this cell; asking for them says that they are in use elsewhere."""
        self._own_params = False
        return self._params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        """Shape and layout of each state; 0 in a shape stands for the batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define state_info")

    @property
    def state_shape(self) -> list[tuple[int, ...]]:
        """The shape of each state."""
        return [info["shape"] for info in self.state_info]

    @property
    def _gate_names(self) -> Sequence[str]:
        """What the names of the gates' weights end in."""
        return ()

    def begin_state(self, func: Callable[..., Symbol] = sym.zeros, **kwargs: Any) -> list[Symbol]:
        """The states before the first step.

        Parameters
        ----------
        func : callable
            Makes them: `sym.zeros`, `sym.ones`, `sym.Variable`, ...
        **kwargs
            For `func`, such as ``dtype``.
        """
        self._refuse_modified()
        states = []
        for info in self.state_info:
            self._init_counter += 1
            states.append(func(name=f"{self._prefix}begin_state_{self._init_counter}", **info, **kwargs))
        return states

    def _refuse_modified(self) -> None:
        if self._modified:
            raise NotReadyError(
                f"{type(self).__name__} {self._prefix!r} is inside of a modifier such as ZoneoutCell: "
                "call the modifier instead"
            )

    def _step_name(self) -> str:
        """The prefix of the nodes of the next step."""
        self._counter += 1
        return f"{self._prefix}t{self._counter}_"

    def unpack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Cut this cell's weights into one array per gate.

        Parameters
        ----------
        args : dict of str to NDArray
            A network's parameters, such as ``module.get_params()[0]``.

        Returns
        -------
        dict of str to NDArray
            All parameters, with names such as ``lstm_i2h_f_weight`` for this cell's. `args` keeps its own.
        """
        args = dict(args)
        for packed, names in self._gate_arrays():
            if packed not in args and all(name in args for name in names):
                continue  # a cell that shares the variables was there before
            whole = self._take(args, packed)
            rows, rest = divmod(whole.shape[0], len(names))
            if rest:
                raise InvalidArgument(
                    f"unpack_weights: {packed!r} has {whole.shape[0]} rows, no multiple of {len(names)}"
                )
            for number, name in enumerate(names):
                args[name] = whole[number * rows : (number + 1) * rows].copy()
        return args

    def pack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Undo `unpack_weights`: join the arrays of this cell's gates."""
        args = dict(args)
        for packed, names in self._gate_arrays():
            if packed in args and not all(name in args for name in names):
                continue
            args[packed] = concatenate([self._take(args, name) for name in names])
        return args

    def _gate_arrays(self) -> list[tuple[str, list[str]]]:
        """The names of the packed arrays, and of the parts of each."""
        prefix = self._params._prefix
        return [
            (f"{prefix}{part}_{kind}", [f"{prefix}{part}{gate}_{kind}" for gate in self._gate_names])
            for part in ("i2h", "h2h")
            for kind in ("weight", "bias")
            if self._gate_names
        ]

    def _take(self, args: Arrays, name: str) -> NDArray:
        if name not in args:
            raise InvalidArgument(f"{type(self).__name__}: there is no parameter {name!r} to pack or unpack")
        return args.pop(name)

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Make the nodes of all steps of a sequence.

        Parameters
        ----------
        length : int
            How many steps.
        inputs : Symbol or list of Symbol
            The whole sequence in one symbol, as `layout` says; or one symbol per step.
        begin_state : list of Symbol, optional
            By default `begin_state()`.
        layout : str
            Of `inputs` and of merged outputs: 'NTC' or 'TNC'.
        merge_outputs : bool, optional
            Whether the outputs of the steps become one symbol; None: whichever needs no further node.

        Returns
        -------
        (outputs, states)
            A Symbol or a list with one per step, and the states after the last one.
        """
        self.reset()
        steps = as_steps(length, inputs, layout)
        states = self._first_states(begin_state)
        outputs = []
        for step in steps:
            output, states = self(step, states)
            outputs.append(output)
        return merge(length, outputs, layout, merge_outputs), states

    def _first_states(self, begin_state: Any) -> list[Symbol]:
        if begin_state is None:
            return self.begin_state()
        states = flat_states(begin_state)
        if len(states) != len(self.state_info):
            raise InvalidArgument(
                f"{type(self).__name__}.unroll: {len(states)} states in begin_state, "
                f"expected {len(self.state_info)}"
            )
        return states

    def _get_activation(self, inputs: Symbol, activation: Any, **kwargs: Any) -> Symbol:
        """An activation by its name, or by a function that makes it."""
        if isinstance(activation, str):
            return sym.Activation(inputs, act_type=activation, **kwargs)
        return activation(inputs, **kwargs)
