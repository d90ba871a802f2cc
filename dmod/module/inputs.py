"""Which arguments of a symbol batches provide, and which are parameters: by their names.

Most mistakes with modules are mistakes with names, so what is said here names all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.io import DataDesc
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.symbol.graph import topological_order
from dmod.worker.slicing import as_descs

__all__ = ["Inputs"]


class Inputs:
    """The arguments of a symbol, by what they are for.

    Parameters
    ----------
    symbol : Symbol
    data_names, label_names, state_names, fixed_names : sequence of str or None
        As `Module` takes them.

    Attributes
    ----------
    data, labels, states : list of str
        What batches provide, and the inputs that keep their values.
    unused_labels : list of str
        Names of labels which the symbol has not; a network without a loss may be run with the same module.
    fixed : set of str
        Parameters that are not trained.
    parameters : list of str
        All other arguments.

    Raises
    ------
    InvalidArgument
        A name is no argument of the symbol.
    """

    def __init__(
        self,
        symbol: Symbol,
        data_names: Sequence[str] | None,
        label_names: Sequence[str] | None,
        state_names: Sequence[str] | None,
        fixed_names: Sequence[str] | None,
    ):
        self._symbol = symbol
        self.arguments: list[str] = symbol.list_arguments()
        self.data = _checked("data_names", data_names, self.arguments)
        self.labels = [n for n in _names("label_names", label_names) if n in self.arguments]
        self.unused_labels = [n for n in _names("label_names", label_names) if n not in self.arguments]
        self.states = _checked("state_names", state_names, self.arguments)
        self.fixed = set(_checked("fixed_param_names", fixed_names, self.arguments))
        inputs = set(self.all())
        self.parameters = [n for n in self.arguments if n not in inputs]

    def all(self) -> list[str]:
        """The arguments that are no parameters."""
        return [*self.data, *self.labels, *self.states]

    def warn(self, logger: Any) -> None:
        """Say so if what looks like a label would be taken for a parameter."""
        lost = self.lost_labels()
        if lost and self.unused_labels:
            logger.warning(
                "Module: the symbol has no %r; %r would be a parameter: name it in label_names, "
                "or give the output a name that makes the two agree",
                self.unused_labels[0],
                lost[0],
            )

    def lost_labels(self) -> list[str]:
        """The parameters that look like labels: by their names, or because a loss compares with them."""
        compared = set()
        for node in topological_order(self._symbol._heads):
            if node.op is not None:
                slots = zip(node.op.arguments(node.attrs), node.inputs, strict=False)
                compared |= {entry.node.name for slot, entry in slots if slot == "label"}
        return [n for n in self.parameters if n in compared or n.endswith("_label")]

    def check(self, data_shapes: Any, label_shapes: Any) -> tuple[list[DataDesc], list[DataDesc]]:
        """The inputs that `bind` is given, in the order of the names.

        Raises
        ------
        InvalidArgument
            They have other names.
        """
        data, labels = as_descs(data_shapes, "data_shapes"), as_descs(label_shapes, "label_shapes")
        if sorted(d.name for d in data) != sorted(self.data):
            raise InvalidArgument(
                f"bind: data_shapes has {[d.name for d in data]}, data_names are {self.data}; "
                + self._remedy("data", [d.name for d in data], self.data)
            )
        data.sort(key=lambda d: self.data.index(d.name))
        for desc in labels:
            if desc.name not in (*self.labels, *self.unused_labels):
                missing = f"; the symbol has no {self.unused_labels[0]!r}" if self.unused_labels else ""
                raise InvalidArgument(
                    f"bind: label_shapes has {desc.name!r}, the module's label_names are "
                    f"{self.labels}{missing}; " + self._remedy("label", [d.name for d in labels], self.labels)
                )
        return data, labels

    def _remedy(self, what: str, given: list[str], expected: list[str]) -> str:
        """How the names of an iterator and of a module come to agree."""
        if all(name in self.arguments for name in given):
            return f"say Module(..., {what}_names={given})"
        if len(expected) == 1:
            return f"give the iterator that name: NDArrayIter(..., {what}_name={expected[0]!r})"
        return f"give the iterator these names; the symbol's arguments are {_listed(self.arguments)}"

    def explain(self, name: str, why: str) -> str:
        """What to say of the parameter `name`, which an initializer has refused for the reason `why`."""
        missing = f" (there is no {_listed(self.unused_labels)})" if self.unused_labels else ""
        taken = (
            f"The symbol's arguments are {_listed(self.arguments)}: {_listed(self.data) or 'none'} taken for "
            f"data, {_listed(self.labels) or 'none'} for labels{missing}, the others for parameters"
        )
        if name not in self.lost_labels():
            return f"{why}. {taken}; name what batches provide in data_names or label_names"
        other = f"; or let the symbol call it {self.unused_labels[0]!r}" if self.unused_labels else ""
        return (
            f"{name!r} looks like a label but is not among label_names, and no initializer fits it as a "
            f"parameter. {taken}. Say Module(..., label_names=[{name!r}]) and NDArrayIter(..., "
            f"label_name={name!r}){other}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _names(what: str, names: Sequence[str] | None) -> list[str]:
    if isinstance(names, str):
        raise InvalidArgument(f"Module: {what} is {names!r}, expected a list of names")
    return list(names or ())


def _checked(what: str, names: Sequence[str] | None, arguments: list[str]) -> list[str]:
    for name in _names(what, names):
        if name not in arguments:
            raise InvalidArgument(
                f"Module: {what} has {name!r}, which is no argument of the symbol{nearest(name, arguments)}"
            )
    return _names(what, names)
