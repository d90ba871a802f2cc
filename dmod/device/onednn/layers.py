"""Batch normalisation, pooling, sums and element-wise functions on the layouts that convolutions leave."""

from __future__ import annotations

from functools import cached_property

from dmod.device.onednn.api import Flag, Kind, Prop, Query
from dmod.device.onednn.engine import Descriptor, Engine, Layout, NotImplementedByLibrary
from dmod.device.onednn.matmul import FUNCTIONS

__all__ = ["Addition", "BatchNorm", "Function", "Pooling"]

_FROM_OUTPUT = {"relu": Kind.RELU_FROM_DST, "tanh": Kind.TANH_FROM_DST, "sigmoid": Kind.SIGMOID_FROM_DST}


def _fast(found: Descriptor) -> Descriptor:
    if found.is_reference:
        raise NotImplementedByLibrary(f"oneDNN has only reference code for this {found.kind}")
    return found


class BatchNorm:
    """Normalisation of channels over an array of `layout`.

    Parameters
    ----------
    engine : Engine
    layout : Layout
    epsilon : float
    is_train : bool
    is_global : bool
        Whether mean and variance are given, not computed.
    relu : bool
        Whether the result goes through ReLU; in training a workspace keeps where it was positive.
    """

    def __init__(
        self, engine: Engine, layout: Layout, epsilon: float, is_train: bool, is_global: bool, relu: bool
    ):
        self.engine, self.layout, self.epsilon = engine, layout, epsilon
        self.is_train, self.is_global, self.relu = is_train, is_global, relu
        self.flags = Flag.SCALE | Flag.SHIFT
        self.flags |= Flag.GLOBAL_STATS if is_global else 0
        self.flags |= Flag.RELU if relu else 0
        self.vector = engine.plain((layout.shape[1],))
        self.forward = _fast(
            engine.describe(
                "batch_normalization_forward",
                Prop.FORWARD_TRAINING if is_train else Prop.FORWARD_INFERENCE,
                layout,
                layout,
                epsilon,
                self.flags,
            )
        )
        self.workspace = self.forward.layout(Query.WORKSPACE) if relu and is_train else None

    @cached_property
    def backward(self) -> Descriptor:
        """Gives the gradients of the data, gamma and beta."""
        layout = self.layout
        return _fast(
            self.engine.describe(
                "batch_normalization_backward",
                Prop.BACKWARD,
                layout,
                layout,
                layout,
                self.epsilon,
                self.flags,
                self.forward,
            )
        )


class Pooling:
    """Maxima or averages of windows.

    Parameters
    ----------
    engine : Engine
    source : Layout
    out : tuple of int
        The shape of the output, (N, C, ...).
    kind : int
        ``Kind.POOLING_MAX`` or one of the averages.
    kernel, stride, before, after : tuple of int
        The window, and what is beyond the first and last elements, per spatial axis.
    is_train : bool
    """

    def __init__(
        self,
        engine: Engine,
        source: Layout,
        out: tuple[int, ...],
        kind: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        before: tuple[int, ...],
        after: tuple[int, ...],
        is_train: bool,
    ):
        self.engine, self.source, self.kind = engine, source, kind
        self._window = (stride, kernel, (0,) * len(kernel), before, after)
        prop = Prop.FORWARD_TRAINING if is_train else Prop.FORWARD_INFERENCE
        self.forward = _fast(
            engine.describe("pooling_forward", prop, kind, source, engine.any(out), *self._window)
        )
        self.target = self.forward.layout(Query.DST, out)
        workspace = self.forward.layout(Query.WORKSPACE)
        self.workspace = workspace if workspace.nbytes else None

    @cached_property
    def backward(self) -> Descriptor:
        """Gives the data's gradient."""
        return _fast(
            self.engine.describe(
                "pooling_backward", self.kind, self.source, self.target, *self._window, self.forward
            )
        )


class Function:
    """An element-wise function, whose gradient is computed from its output."""

    def __init__(self, engine: Engine, layout: Layout, name: str, is_train: bool):
        self.engine, self.layout, self.name = engine, layout, name
        prop = Prop.FORWARD_TRAINING if is_train else Prop.FORWARD_INFERENCE
        self.forward = _fast(
            engine.describe("eltwise_forward", prop, FUNCTIONS[name], layout, layout, 0.0, 0.0)
        )

    @cached_property
    def backward(self) -> Descriptor:
        """Gives the gradient of the input from that of the output and the output."""
        layout, kind = self.layout, _FROM_OUTPUT[self.name]
        return _fast(
            self.engine.describe("eltwise_backward", kind, layout, layout, layout, 0.0, 0.0, self.forward)
        )


class Addition:
    """The sum of two arrays of one layout, and a function of it."""

    def __init__(self, engine: Engine, layout: Layout, function: str | None = None):
        self.engine, self.layout, self.function = engine, layout, function
        kind = None if function is None else FUNCTIONS[function]
        self.forward = _fast(engine.describe("binary", Kind.ADD, layout, layout, layout, function=kind))
