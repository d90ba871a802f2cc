"""Methods of symbols that are operators, ``x.sum(axis=1)``, and those that only arrays have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dmod.base import MXNetError, NotImplementedForSymbol, NotReadyError
from dmod.ops.calling import FLUENT

if TYPE_CHECKING:
    from dmod.symbol.symbol import Symbol

__all__ = ["FluentMethods", "set_functions"]

_functions: dict[str, Callable[..., Any]] = {}
ONLY_OF_ARRAYS = ("as_in_context", "asnumpy", "asscalar", "backward", "copy", "detach", "wait_to_read")


def set_functions(functions: dict[str, Callable[..., Any]]) -> None:
    """Install the generated functions that the methods call."""
    _functions.update(functions)


class FluentMethods:
    """One method for each operator in `dmod.ops.calling.FLUENT`, and some whose arguments differ."""

    __slots__ = ()
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __abs__(self) -> Symbol:
        return _call("abs", self)

    def astype(self, dtype: Any, **kwargs: Any) -> Symbol:
        """The values in another dtype."""
        return _call("cast", self, dtype=dtype, **kwargs)

    def reshape(self, *args: Any, **kwargs: Any) -> Symbol:
        """Another shape, with the codes 0, -1, -2, -3 and -4; see ``mx.sym.reshape``."""
        if len(args) > 1:
            kwargs["shape"], args = args, ()
        return _call("reshape", self, *args, **kwargs)

    def diag(self, k: int = 0, **kwargs: Any) -> Symbol:
        """The k-th diagonal, or a matrix that has one; see ``mx.sym.diag``."""
        return _call("diag", self, k=k, **kwargs)

    def expand_dims(self, axis: int, inplace: bool = False, **kwargs: Any) -> Symbol:
        """With a new axis of length 1; `inplace` says nothing for a symbol."""
        return _call("expand_dims", self, axis=axis, **kwargs)

    def flatten(self, inplace: bool = False, **kwargs: Any) -> Symbol:
        """As a matrix: the first axis, and all others as one; `inplace` says nothing for a symbol."""
        return _call("flatten", self, **kwargs)

    def squeeze(self, axis: Any = None, inplace: bool = False, **kwargs: Any) -> Symbol:
        """Without axes of length 1; `inplace` says nothing for a symbol."""
        return _call("squeeze", self, axis=axis, **kwargs)

    def split_v2(
        self, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False, **kwargs: Any
    ) -> Symbol:
        """Parts along an axis; see ``mx.sym.split_v2``."""
        return _call("split_v2", self, indices_or_sections, axis, squeeze_axis, **kwargs)

    def as_nd_ndarray(self) -> Symbol:
        """This symbol."""
        return self  # type: ignore[return-value]

    def as_np_ndarray(self) -> Any:
        """MXNet's numpy-like symbols are not part of dmod."""
        raise MXNetError("as_np_ndarray: mx.sym.np is not part of dmod")

    # Symbols do not change in place; without these, Python would do `a = a + b` and seem to.

    def _refuse_inplace(self, other: Any) -> Any:
        raise NotImplementedForSymbol("a Symbol does not change in place; write a = a + b")

    __iadd__ = __isub__ = __imul__ = __idiv__ = __itruediv__ = __imod__ = _refuse_inplace


def _call(name: str, /, *args: Any, **kwargs: Any) -> Any:
    function = _functions.get(name)
    if function is None:
        raise NotReadyError(f"Symbol.{name}: the operator table has no {name!r}")
    return function(*args, **kwargs)


def _make(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _call(name, self, *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"Symbol.{name}"
    method.__doc__ = f"The operator `{name}` with this symbol as its first input; see ``mx.sym.{name}``."
    return method


def _make_refused(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedForSymbol(f"Symbol.{name}: only arrays have this; bind the symbol to compute it")

    method.__name__ = name
    method.__qualname__ = f"Symbol.{name}"
    method.__doc__ = "Only arrays have this; it raises `NotImplementedForSymbol`."
    return method


for _name in FLUENT:
    if _name not in vars(FluentMethods):
        setattr(FluentMethods, _name, _make(_name))
for _name in ONLY_OF_ARRAYS:
    setattr(FluentMethods, _name, _make_refused(_name))
