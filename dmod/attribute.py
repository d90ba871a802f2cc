"""Attributes for all symbols made within a ``with AttrScope(...)``."""

from __future__ import annotations

import threading
from typing import Any

from dmod.base import InvalidArgument

__all__ = ["AttrScope", "current_attributes"]


class AttrScope:
    """Give attributes to every symbol that is made inside; scopes add up, the inner one wins.

    Examples
    --------
    >>> with AttrScope(__lr_mult__='2'):
    ...     current_attributes(None)
    {'__lr_mult__': '2'}
    """

    _entered = threading.local()

    def __init__(self, **kwargs: str):
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise InvalidArgument(f"AttrScope({key}={value!r}): expected a string")
        self._attr = kwargs

    def get(self, attr: dict[str, str] | None) -> dict[str, str]:
        """The attributes of this scope, overridden by `attr`."""
        return {**self._attr, **(attr or {})}

    def __enter__(self) -> AttrScope:
        stack = AttrScope._entered.__dict__.setdefault("stack", [])
        stack.append({**(stack[-1] if stack else {}), **self._attr})
        return self

    def __exit__(self, *exc: Any) -> None:
        AttrScope._entered.stack.pop()


def current_attributes(attr: dict[str, str] | None) -> dict[str, str]:
    """The attributes of all scopes entered in this thread, overridden by `attr`."""
    stack = getattr(AttrScope._entered, "stack", None)
    return {**(stack[-1] if stack else {}), **(attr or {})}
