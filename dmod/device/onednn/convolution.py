"""Convolutions: which primitives and layouts the library has for given shapes.

The rule for layouts depends on shapes alone: what the library likes best, unless that pads channels, which
computes with zeros in vain; then channels come last. LeNet's second convolution (20 to 50 channels, batch
64): 4.3 ms with channels last, 6.1 ms in blocks of 16, one core of an AMD EPYC with AVX-512.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from dmod.device.onednn.api import Kind, Prop, Query
from dmod.device.onednn.engine import Descriptor, Engine, Layout, NotImplementedByLibrary
from dmod.device.onednn.matmul import FUNCTIONS

__all__ = ["Convolution", "Shapes"]


@dataclass(frozen=True)
class Shapes:
    """A convolution's shapes.

    Attributes
    ----------
    data, weight, out : tuple of int
        (N, C, ...), (O, C / groups, ...) and (N, O, ...).
    stride, dilate, pad : tuple of int
        One number per spatial axis; `dilate` is 1 for windows without gaps.
    groups : int
    has_bias : bool
    """

    data: tuple[int, ...]
    weight: tuple[int, ...]
    out: tuple[int, ...]
    stride: tuple[int, ...]
    dilate: tuple[int, ...]
    pad: tuple[int, ...]
    groups: int = 1
    has_bias: bool = False

    @property
    def grouped_weight(self) -> tuple[int, ...]:
        """The weight's shape with an axis for the groups, if there are any."""
        if self.groups == 1:
            return self.weight
        return (self.groups, self.weight[0] // self.groups, *self.weight[1:])

    @property
    def window(self) -> tuple[tuple[int, ...], ...]:
        """Strides, gaps and padding on both sides, as the library takes them."""
        return self.stride, tuple(d - 1 for d in self.dilate), self.pad, self.pad


class Convolution:
    """The primitives of one convolution.

    Parameters
    ----------
    engine : Engine
    shapes : Shapes
    source : Layout, optional
        How the data lie; None lets the library choose.
    function : str, optional
        What the result goes through last, one of `FUNCTIONS`.
    is_added_to : bool
        Whether another array in the output's layout is added to the result, before the function.
    is_train : bool

    Attributes
    ----------
    source, target : Layout
        Of the data and of the output.

    Raises
    ------
    NotImplementedByLibrary
        The library has no fast primitive.
    """

    def __init__(
        self,
        engine: Engine,
        shapes: Shapes,
        source: Layout | None = None,
        function: str | None = None,
        is_added_to: bool = False,
        is_train: bool = True,
    ):
        self.engine, self.shapes, self.function = engine, shapes, function
        self.is_added_to, self.is_train = is_added_to, is_train
        self.plain_weight = engine.plain(shapes.grouped_weight)
        self._any_weight = engine.any(shapes.grouped_weight)
        self.bias = engine.plain(shapes.out[1:2]) if shapes.has_bias else None
        self.forward = self._find(source or engine.any(shapes.data), engine.any(shapes.out))
        self.source, self.target = self._layouts_of(self.forward)
        if self.source.is_padded or self.target.is_padded:
            self._put_channels_last()
        if is_added_to or function is not None:
            self.forward = self._find(self.source, self.target, function, is_added_to)

    def _put_channels_last(self) -> None:
        """Rather than pad channels, if that is fast."""
        source, target = (self.engine.channels_last(s) for s in (self.shapes.data, self.shapes.out))
        try:
            self.forward = self._find(source, target)
        except NotImplementedByLibrary:
            return
        self.source, self.target = source, target

    @property
    def is_scattered(self) -> bool:
        """Whether a product whose columns are added up gives the data's gradient faster than the library.

        Its primitive computes at each point of the data, the product at each point of the output. LeNet's
        second convolution, where these are 144 and 64: 1.1 in place of 1.7 ms on one core of an AMD EPYC with
        AVX-512. With as many of both the primitive takes half of the time of the product.
        """
        shapes = self.shapes
        return (
            len(shapes.data) == 4
            and shapes.groups == 1
            and not any(shapes.pad)
            and all(d == 1 for d in shapes.dilate)
            and math.prod(shapes.data[2:]) >= 1.5 * math.prod(shapes.out[2:])
            and all(s == 1 for s in shapes.stride)
            and self.target == self.engine.channels_last(shapes.out)
            and self.source == self.engine.channels_last(shapes.data)
        )

    def _layouts_of(self, found: Descriptor) -> tuple[Layout, Layout]:
        shapes = self.shapes
        return found.layout(Query.SRC, shapes.data), found.layout(Query.DST, shapes.out)

    def _find(
        self, source: Layout, target: Layout, function: str | None = None, is_added_to: bool = False
    ) -> Descriptor:
        return _fast(
            self.engine.describe(
                "convolution_forward",
                Prop.FORWARD_TRAINING if self.is_train else Prop.FORWARD_INFERENCE,
                Kind.CONVOLUTION_DIRECT,
                source,
                self._any_weight,
                self.bias,
                target,
                *self.shapes.window,
                added=target if is_added_to else None,
                function=None if function is None else FUNCTIONS[function],
            )
        )

    @cached_property
    def backward_data(self) -> Descriptor:
        """Gives the data's gradient: in the data's layout if that is fast, else in one of the library's."""
        try:
            return self._backward_data(self.source)
        except NotImplementedByLibrary:
            return self._backward_data(self.engine.any(self.shapes.data))

    def _backward_data(self, source: Layout) -> Descriptor:
        return _fast(
            self.engine.describe(
                "convolution_backward_data",
                Kind.CONVOLUTION_DIRECT,
                source,
                self._any_weight,
                self.target,
                *self.shapes.window,
                self.forward,
            )
        )

    @cached_property
    def backward_weight(self) -> Descriptor:
        """Gives the gradients of weight and bias."""
        return _fast(
            self.engine.describe(
                "convolution_backward_weights",
                Kind.CONVOLUTION_DIRECT,
                self.source,
                self._any_weight,
                self.bias,
                self.target,
                *self.shapes.window,
                self.forward,
            )
        )


def _fast(found: Descriptor) -> Descriptor:
    """`found`, unless it is reference code."""
    if found.is_reference:
        raise NotImplementedByLibrary(f"oneDNN has only reference code for this {found.kind}")
    return found
