"""The packed parameters of the fused RNN: where each layer's weights and biases lie in one vector.

First all weights, layer by layer, direction by direction: of the input, of the state and, with a
projection, of the projection; then all biases in the same order: of the input, of the state. The rows of
the gates follow each other: i, f, g, o of an LSTM, r, z, n of a GRU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dmod.base import InvalidArgument
from dmod.ops.registry import Shape

__all__ = [
    "GATES",
    "GATE_NAMES",
    "PackedArray",
    "packed_arrays",
    "packed_gates",
    "packed_input_size",
    "packed_size",
]

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}
"""How many gates a cell has."""


@dataclass(frozen=True)
class PackedArray:
    """One weight or bias within the vector.

    Attributes
    ----------
    layer, direction : int
        The direction is 1 for the one that goes backwards in time.
    kind : str
        'i2h_weight', 'h2h_weight', 'h2r_weight' (the projection), 'i2h_bias' or 'h2h_bias'.
    start : int
        The first element's number.
    shape : tuple of int
    """

    layer: int
    direction: int
    kind: str
    start: int
    shape: Shape

    @property
    def stop(self) -> int:
        """The number of the element after the last one."""
        return self.start + math.prod(self.shape)


def packed_arrays(
    mode: str,
    num_layers: int,
    bidirectional: bool,
    input_size: int,
    state_size: int,
    projection_size: int | None = None,
) -> Iterator[PackedArray]:
    """The arrays within the vector, in order.

    Examples
    --------
    >>> [(a.kind, a.start, a.shape) for a in packed_arrays('gru', 1, False, 3, 2)]
    [('i2h_weight', 0, (6, 3)), ('h2h_weight', 18, (6, 2)), ('i2h_bias', 30, (6,)), ('h2h_bias', 36, (6,))]
    """
    rows, directions = GATES[mode] * state_size, 2 if bidirectional else 1
    out = projection_size or state_size
    start = 0
    for what in ("weight", "bias"):
        for layer in range(num_layers):
            width = input_size if layer == 0 else directions * out
            for direction in range(directions):
                shapes: dict[str, Shape] = {"i2h_bias": (rows,), "h2h_bias": (rows,)}
                if what == "weight":
                    shapes = {"i2h_weight": (rows, width), "h2h_weight": (rows, out)}
                    if projection_size:
                        shapes["h2r_weight"] = (out, state_size)
                for kind, dims in shapes.items():
                    array = PackedArray(layer, direction, kind, start, dims)
                    start = array.stop
                    yield array


def packed_size(
    mode: str,
    num_layers: int,
    bidirectional: bool,
    input_size: int,
    state_size: int,
    projection_size: int | None = None,
) -> int:
    """The length of the vector.

    Examples
    --------
    >>> packed_size('lstm', 2, True, 3, 4)
    736
    """
    *_, last = packed_arrays(mode, num_layers, bidirectional, input_size, state_size, projection_size)
    return last.stop


GATE_NAMES = {
    "rnn_relu": ("",),
    "rnn_tanh": ("",),
    "lstm": ("_i", "_f", "_c", "_o"),
    "gru": ("_r", "_z", "_o"),
}
"""The endings that tell a cell's gates apart, in the order of their rows."""


def packed_gates(
    mode: str, num_layers: int, bidirectional: bool, input_size: int, state_size: int
) -> Iterator[tuple[str, int, Shape]]:
    """Name, first element and shape of each gate's weight or bias, in order.

    Examples
    --------
    >>> next(packed_gates('gru', 1, False, 3, 2))
    ('l0_i2h_r_weight', 0, (2, 3))
    """
    for array in packed_arrays(mode, num_layers, bidirectional, input_size, state_size):
        part, kind = array.kind.split("_")
        shape = (state_size, *array.shape[1:])
        for number, gate in enumerate(GATE_NAMES[mode]):
            name = f"{'lr'[array.direction]}{array.layer}_{part}{gate}_{kind}"
            yield name, array.start + number * math.prod(shape), shape


def packed_input_size(mode: str, num_layers: int, bidirectional: bool, size: int, state_size: int) -> int:
    """The width of the input of a network whose vector has `size` elements.

    Raises
    ------
    InvalidArgument
        No width gives such a vector.

    Examples
    --------
    >>> packed_input_size('lstm', 2, True, 736, 4)
    3
    """
    first = packed_size(mode, num_layers, bidirectional, 1, state_size)
    per_input = GATES[mode] * state_size * (2 if bidirectional else 1)
    extra, rest = divmod(size - first, per_input)
    if rest or extra < 0:
        raise InvalidArgument(
            f"{size} elements are not the parameters of a network with mode {mode!r}, {num_layers} layers, "
            f"{state_size} hidden units{', both directions' if bidirectional else ''}: expected {first} and "
            f"{per_input} more for each input after the first"
        )
    return 1 + extra
