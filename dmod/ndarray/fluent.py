"""Methods of arrays that are operators: ``x.sum(axis=1)`` is ``nd.sum(x, axis=1)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dmod.base import NotReadyError
from dmod.ops.calling import FLUENT

__all__ = ["FluentMethods", "set_functions"]

_functions: dict[str, Callable[..., Any]] = {}


def set_functions(functions: dict[str, Callable[..., Any]]) -> None:
    """Install the generated functions that the methods call."""
    _functions.update(functions)


class FluentMethods:
    """One method for each operator in `dmod.ops.calling.FLUENT`."""

    __slots__ = ()
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _make(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        function = _functions.get(name)
        if function is None:
            raise NotReadyError(f"NDArray.{name}: the operator table has no {name!r}")
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"NDArray.{name}"
    method.__doc__ = f"The operator `{name}` with this array as its first input; see ``mx.nd.{name}``."
    return method


for _name in FLUENT:
    setattr(FluentMethods, _name, _make(_name))
