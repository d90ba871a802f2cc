"""Passes: they rewrite a graph before the plan is compiled, so that fewer and faster steps come out.

A pass is a file in this package with a function ``run(graph) -> int``: it looks for a pattern among
`Graph.order`, puts an internal operator in its place (`Graph.add`, `Graph.replace`) and returns how many
it found. Internal operators are rows of the ordinary kind, made by `dmod.ops.registry.register_internal`:
what they say about in-place work and about what backward reads serves the plan's memory as for any other
operator; users and JSON never see them. To add a pass:

- write the operator in ``dmod/ops/fused_*.py``, the pass in a file here, and a line in `PASSES`, whose
  order is the order in which passes run;
- join nodes only where `Graph.same_place`, `Graph.on_host` and the dtypes allow the kernel, and hide an
  entry only if `Graph.only_reader` says that nobody else reads it, and it is no output;
- choose by shapes and by what is installed, never by timing: all workers must choose alike;
- results agree with those without the pass within float32 rounding, in training and inference.

``DMOD_PASSES`` switches passes: 'all' (the default), 'none', or names with commas between: 'a,b' are these
two alone, '-a' is all but this one. A plan for a monitor, which shows every operator's outputs, is
compiled without the passes that hide some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dmod.base import InvalidArgument
from dmod.executor.passes import blocked_layouts, fuse_batch_norm_relu, fuse_bias_activation, fuse_elementwise
from dmod.executor.passes.graph import Graph
from dmod.registry import nearest

__all__ = ["PASSES", "Graph", "Pass", "apply", "switched_on"]


@dataclass(frozen=True)
class Pass:
    """One rewriting of graphs.

    Attributes
    ----------
    name : str
        What switches it in ``DMOD_PASSES``.
    run : callable
        ``run(graph) -> int``: rewrites the graph, returns how many places it found.
    hides : bool
        Whether operators of the symbol lose their outputs by it.
    """

    name: str
    run: Callable[[Graph], int]
    hides: bool = True


PASSES: tuple[Pass, ...] = (
    Pass("blocked_layouts", blocked_layouts.run),
    Pass("fuse_batch_norm_relu", fuse_batch_norm_relu.run),
    Pass("fuse_bias_activation", fuse_bias_activation.run),
    Pass("fuse_elementwise", fuse_elementwise.run),
)
"""All passes, in the order in which they run."""


@cache
def switched_on(text: str) -> frozenset[str]:
    """The names of the passes that a value of ``DMOD_PASSES`` switches on.

    Raises
    ------
    InvalidArgument
        A name is unknown.
    """
    every = [p.name for p in PASSES]
    words = [word.strip() for word in text.split(",") if word.strip()]
    on = set(every) if not words or words[0].startswith("-") else set()
    for word in words:
        name = word.removeprefix("-")
        if name not in every and word not in ("all", "none"):
            known = ["all", "none", *every]
            raise InvalidArgument(
                f"DMOD_PASSES={text!r}: no pass {name!r}{nearest(name, known)} "
                f"Expected {', '.join(known)}, a pass after '-' to leave it out."
            )
        if word in ("all", "none"):
            on = set(every) if word == "all" else set()
        elif word.startswith("-"):
            on.discard(name)
        else:
            on.add(name)
    return frozenset(on)


def apply(graph: Graph, switches: str = "all", monitored: bool = False) -> dict[str, int]:
    """Run the passes that are switched on over `graph`.

    Parameters
    ----------
    graph : Graph
        Changed in place.
    switches : str
        As in ``DMOD_PASSES``.
    monitored : bool
        Whether every operator's outputs are wanted, which leaves out the passes that hide some.

    Returns
    -------
    dict of str to int
        How many places each pass found.
    """
    on = switched_on(switches)
    found = {}
    for each in PASSES:
        if each.name in on and not (monitored and each.hides):
            found[each.name] = each.run(graph)
            if found[each.name]:
                graph.finish()
    return found
