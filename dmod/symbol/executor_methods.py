"""Methods of symbols that make executors: `bind`, `simple_bind`, `eval`.

Symbols know nothing of executors: the executor package, which rests on this one, installs what makes them.
"""

from __future__ import annotations

from typing import Any

from dmod.base import NotReadyError

__all__ = ["ExecutorMethods", "set_binder"]

_binder: Any = None


def set_binder(binder: Any) -> None:
    """Install the module that makes executors of symbols; the executor package calls this."""
    global _binder
    _binder = binder


def _need_binder() -> Any:
    if _binder is None:
        raise NotReadyError("executors are not set up; import dmod, which does it")
    return _binder


class ExecutorMethods:
    """How a symbol becomes an executor."""

    __slots__ = ()

    def bind(
        self,
        ctx: Any,
        args: Any,
        args_grad: Any = None,
        grad_req: Any = "write",
        aux_states: Any = None,
        group2ctx: Any = None,
        shared_exec: Any = None,
    ) -> Any:
        """Make an executor over the caller's own arrays.

        Parameters
        ----------
        ctx : Context
        args : list or dict of NDArray
            All arguments; the executor reads, and shares, these very arrays.
        args_grad : list or dict of NDArray, optional
            Where gradients go.
        grad_req : {'write', 'add', 'null'}, or list or dict of them
        aux_states : list or dict of NDArray, optional
        group2ctx : dict of str to Context, optional
            Devices for the nodes of a group, which ``AttrScope(ctx_group=...)`` names.
        shared_exec : Executor, optional
            Accepted; memory is not shared between executors.

        Returns
        -------
        Executor
        """
        return _need_binder().bind(self, ctx, args, args_grad, grad_req, aux_states, group2ctx, shared_exec)

    def simple_bind(
        self,
        ctx: Any,
        grad_req: Any = "write",
        type_dict: Any = None,
        stype_dict: Any = None,
        group2ctx: Any = None,
        shared_arg_names: Any = None,
        shared_exec: Any = None,
        shared_buffer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Make an executor and all its arrays from the shapes of the inputs, such as ``data=(64, 784)``.

        Returns
        -------
        Executor
            Its arrays are zero.

        Raises
        ------
        InvalidArgument
            The shapes contradict each other, or do not determine all others.
        """
        return _need_binder().simple_bind(self, ctx, grad_req, type_dict, group2ctx, kwargs)

    def eval(self, ctx: Any = None, **kwargs: Any) -> Any:
        """Compute the outputs for given arguments, once; returns a list of NDArray."""
        return _need_binder().evaluate(self, ctx, kwargs)
