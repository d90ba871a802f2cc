"""On which devices a module is computed: contexts, their shares of a batch, contexts of groups of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.context import Context, current_context

__all__ = ["contexts_of", "group2ctxs_of", "work_load_of"]


def contexts_of(context: Context | Sequence[Context] | None) -> list[Context]:
    """The devices, from one context, several, or none, which means the current one."""
    contexts = (
        [context or current_context()] if context is None or isinstance(context, Context) else list(context)
    )
    if not contexts or not all(isinstance(c, Context) for c in contexts):
        raise InvalidArgument(f"Module: context is {context!r}, expected a Context or a list of them")
    if len(set(contexts)) != len(contexts):
        raise InvalidArgument(f"Module: context names a device twice: {contexts}")
    return contexts


def work_load_of(given: Sequence[float] | None, count: int) -> list[float]:
    """The shares of `count` devices; equal ones by default."""
    shares: list[float] = list(given) if given is not None else [1] * count
    if len(shares) != count:
        raise InvalidArgument(f"Module: {len(shares)} work loads for {count} devices")
    return shares


def group2ctxs_of(given: Any, count: int) -> list[dict[str, Context]]:
    """`group2ctxs` as one dict for each of `count` devices."""
    if isinstance(given, Mapping):
        lists = {g: list(c) if isinstance(c, (list, tuple)) else [c] * count for g, c in given.items()}
        short = [g for g, contexts in lists.items() if len(contexts) not in (1, count)]
        if short:
            raise InvalidArgument(
                f"Module: group2ctxs[{short[0]!r}] has {len(lists[short[0]])} contexts for {count} devices"
            )
        given = [{g: c[i % len(c)] for g, c in lists.items()} for i in range(count)]
    groups = [dict(g) for g in given] if given else [{} for _ in range(count)]
    if len(groups) != count:
        raise InvalidArgument(f"Module: group2ctxs has {len(groups)} dicts for {count} devices")
    for name, ctx in (item for g in groups for item in g.items()):
        if not isinstance(ctx, Context):
            raise InvalidArgument(f"Module: group2ctxs[{name!r}] is {ctx!r}, expected a Context")
    return groups
