"""Names for symbols that get none from the user: ``fullyconnected0``, ``fullyconnected1``, ..."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["NameManager", "Prefix", "current_name_manager"]


class NameManager:
    """Counts per kind of operator; ``with NameManager():`` starts counting anew inside."""

    _entered = threading.local()

    def __init__(self) -> None:
        self._counter: dict[str, int] = {}

    def get(self, name: str | None, hint: str) -> str:
        """`name` if there is one, else the next name for `hint`."""
        if name:
            return name
        number = self._counter.get(hint, 0)
        self._counter[hint] = number + 1
        return f"{hint}{number}"

    def __enter__(self) -> NameManager:
        NameManager._entered.__dict__.setdefault("stack", []).append(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        NameManager._entered.stack.pop()


class Prefix(NameManager):
    """Puts `prefix` before every name.

    Examples
    --------
    >>> Prefix('stage1_').get(None, 'conv')
    'stage1_conv0'
    """

    def __init__(self, prefix: str):
        super().__init__()
        self._prefix = prefix

    def get(self, name: str | None, hint: str) -> str:
        """The prefix and what `NameManager.get` gives."""
        return self._prefix + super().get(name, hint)


_DEFAULT = NameManager()


def current_name_manager() -> NameManager:
    """The innermost manager entered in this thread, else the process's own."""
    stack = getattr(NameManager._entered, "stack", None)
    return stack[-1] if stack else _DEFAULT
