"""One registry for operators, optimizers, metrics, initializers and iterators.

A registry maps names to factories; it knows nothing about what they make.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from dmod.base import InvalidArgument

__all__ = ["Registry", "nearest", "no_operator"]


def nearest(name: str, known: Any, limit: int = 3) -> str:
    """A hint such as ``; did you mean 'sgd'?``, or an empty string if nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def no_operator(module: str, name: str, known: Sequence[str], namespaces: Mapping[str, ModuleType]) -> str:
    """What to say of a name that `module` does not have: it may be misspelt, or in a namespace below."""
    below = [
        f"{short}.{key}" for short, space in namespaces.items() for key in space.__all__ if key not in known
    ]
    inside = [path for path in below if path.partition(".")[2] == name]
    hint = f"; there is {' and '.join(inside)}" if inside else nearest(name, [*known, *below])
    return f"module {module!r} has no attribute {name!r}{hint}"


class Registry:
    """Names, regardless of case, to factories.

    Parameters
    ----------
    kind : str
        What is registered, as error messages call it: 'optimizer', 'metric', ...
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Callable[..., Any]] = {}

    def register(self, factory: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
        """Register `factory` under `name` (default: its ``__name__``); usable as a decorator.

        A second registration of a name replaces the first, as in MXNet.
        """
        self._entries[(name or factory.__name__).lower()] = factory
        return factory

    def alias(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that registers a factory under further `names`."""

        def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
            for name in names:
                self.register(factory, name)
            return factory

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """Return the factory registered under `name`.

        Raises
        ------
        InvalidArgument
            Nothing is registered under `name`; the message offers near names.
        """
        factory = self._entries.get(name.lower()) if isinstance(name, str) else None
        if factory is None:
            raise InvalidArgument(f"unknown {self.kind} {name!r}{nearest(str(name).lower(), self._entries)}")
        return factory

    def create(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the factory registered under `name`."""
        return self.get(name)(*args, **kwargs)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
