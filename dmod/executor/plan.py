"""The plan compiler: a symbol becomes two flat lists of steps, forward and backward.

This is the heart of the executor. After the passes have rewritten a copy of the graph, `forward` and
`backward` walk it once and decide for every result where it lies (a `Buffer`), which step writes it and which
step reads it last; `memory` then places the buffers, and each operator builds its steps over them. Running a
plan is calling the steps in order: no graph, no allocation, no choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from dmod.executor import passes
from dmod.executor.backward import BackwardDrafts
from dmod.executor.drafts import Binding, Buffer, Draft, Drafts, array_of
from dmod.executor.memory import Workspace, assign_offsets
from dmod.executor.steps import on_device
from dmod.ops.registry import Step

__all__ = ["Binding", "Plan", "compile_plan"]


@dataclass
class Plan:
    """A compiled graph.

    Attributes
    ----------
    forward, backward : list of callable
    names : list
        For each forward step: the names and arrays of the outputs it has written (for monitors).
    forward_titles, backward_titles : list of (str, str)
        For each step, the operator and the node that it belongs to (for profiles).
    nbytes : int
        The memory that intermediate results take.
    gradient_steps : dict of str to int
        For each argument that wants a gradient, the number of the last backward step that writes it.
    """

    forward: list[Step] = field(default_factory=list)
    backward: list[Step] = field(default_factory=list)
    names: list[list[tuple[str, Any]]] = field(default_factory=list)
    forward_titles: list[tuple[str, str]] = field(default_factory=list)
    backward_titles: list[tuple[str, str]] = field(default_factory=list)
    nbytes: int = 0
    gradient_steps: dict[str, int] = field(default_factory=dict)


def compile_plan(binding: Binding, is_train: bool, switches: str = "all", monitored: bool = False) -> Plan:
    """Compile the graph of `binding` for training (forward and backward) or inference (forward only).

    Parameters
    ----------
    binding : Binding
    is_train : bool
    switches : str
        Which passes may rewrite the graph first, as in ``DMOD_PASSES``.
    monitored : bool
        Whether every operator's outputs are to be seen, which leaves out the passes that hide some.
    """
    drafts = BackwardDrafts(_rewritten(binding, is_train, switches, monitored), is_train)
    drafts.forward()
    if is_train:
        drafts.backward()
    return _finished(drafts)


def _rewritten(binding: Binding, is_train: bool, switches: str, monitored: bool) -> Binding:
    """`binding` with the graph that the passes make of it."""
    graph = passes.Graph(
        binding.order,
        binding.heads,
        binding.shapes,
        binding.dtypes,
        binding.reqs,
        binding.places,
        binding.workspace,
        is_train,
    )
    if not any(passes.apply(graph, switches, monitored).values()):
        return binding
    return replace(
        binding,
        order=graph.order,
        heads=graph.heads,
        shapes=graph.shapes,
        dtypes=graph.dtypes,
        places=graph.places,
        numbers=graph.numbers,
    )


def _finished(drafts: Drafts) -> Plan:
    """Give every buffer memory and build the steps."""
    places = list({id(w): w for w in (drafts.binding.workspace, *drafts.binding.places.values())}.values())
    plan = Plan(nbytes=sum(_place_buffers(drafts.buffers, place) for place in places))

    def built(draft: Draft) -> Step:
        step = draft.build()
        return step if len(places) == 1 else on_device(draft.place.backend, step)

    for draft in drafts.forward_drafts:
        plan.forward.append(built(draft))
        plan.names.append([(name, array_of(buffer)) for name, buffer in draft.names])
        plan.forward_titles.append(draft.title)
    plan.backward = [built(draft) for draft in drafts.backward_drafts]
    plan.backward_titles = [draft.title for draft in drafts.backward_drafts]
    written = {name: drafts.last_writes.get(id(array)) for name, array in drafts.binding.grads.items()}
    plan.gradient_steps = {name: step for name, step in written.items() if step is not None}
    return plan


def _place_buffers(buffers: list[Buffer], place: Workspace) -> int:
    """Give the buffers of one device memory; returns how many bytes they take together."""
    own = (b.root for b in buffers if b.root.place is place and not b.is_bound)
    roots = list({id(root): root for root in own}.values())
    offsets, total = assign_offsets([(b.first, b.last, b.nbytes) for b in roots])
    block = place.block(total)
    for buffer, offset in zip(roots, offsets, strict=True):
        part = block[offset : offset + buffer.nbytes]
        buffer.array = part.view(buffer.dtype).reshape(buffer.shape)
    return total
