"""What the optimizers share whose `step` computes every element from that element alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dmod.device import module_of
from dmod.ndarray.ndarray import NDArray, zeros
from dmod.ndarray.sparse_array import RowSparseNDArray
from dmod.optimizer.flat import step_array
from dmod.optimizer.optimizer import Optimizer

__all__ = ["CompiledStep", "ElementWise", "MasterLast", "decayed_gradient", "multiply", "rescaled_gradient"]


class CompiledStep(NamedTuple):
    """A compiled step over float32 buffers, which has the bits of `step`.

    Attributes
    ----------
    kernel : str
        Its name in `dmod.device.compiled_optimizers`.
    rates : sequence of tuple of float
        For each range of the buffer what follows from its learning rate and weight decay.
    numbers : tuple of float
        What holds for all.
    """

    kernel: str
    rates: Sequence[tuple[float, ...]]
    numbers: tuple[float, ...]


class ElementWise(Optimizer):
    """An optimizer whose `step` serves single arrays as well as flat buffers.

    A gradient in row-sparse form updates the rows that it has, if the optimizer has ``lazy_update`` set or
    is lazy always; else it counts as the dense array that it stands for.
    """

    lazy_update: bool = False
    state_form: ClassVar[str] = "tuple"
    """'tuple', or 'single' if the only state stands for itself, as MXNet has it."""

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep | None:
        """Update `t` as a compiled kernel, for ranges with a learning rate and a weight decay each.

        None: only `step` computes it. A class that overrides `step` says so anew.
        """
        return None

    def create_state(self, index: Any, weight: NDArray) -> Any:
        states = tuple(zeros(weight.shape, weight.context, weight.dtype) for _ in range(self.flat_states()))
        self.begin_states(weight._data, tuple(s._data for s in states))
        if self.state_form == "single":
            return states[0] if states else None
        return states

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Update one array, or each of a list of arrays, in place."""
        self._update(index, weight, grad, state, self.update)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        if isinstance(index, (list, tuple)):
            for one in zip(index, weight, grad, state, strict=True):
                self.update_multi_precision(*one)
            return
        super().update_multi_precision(index, weight, grad, state)

    def _update(self, index: Any, weight: Any, grad: Any, state: Any, again: Any) -> None:
        if isinstance(index, (list, tuple)):
            for one in zip(index, weight, grad, state, strict=True):
                again(*one)
            return
        self._update_count(index)
        states = state if isinstance(state, (list, tuple)) else (state,)
        arrays = tuple(s._data for s in states if s is not None)
        rates = (self._get_lr(index), self._get_wd(index), self._index_update_count[index])
        if not isinstance(grad, RowSparseNDArray):
            step_array(self, weight._data, grad._data, arrays, *rates)
        elif not self.lazy_update:
            step_array(self, weight._data, grad._dense()._data, arrays, *rates)
        else:
            rows, values = grad.indices._data.astype(np.int64), grad.data._data
            parts = [a[rows] for a in (weight._data, *arrays)]
            step_array(self, parts[0], values, tuple(parts[1:]), *rates)
            for whole, part in zip((weight._data, *arrays), parts, strict=True):
                whole[rows] = part


class MasterLast(ElementWise):
    """One whose state for float16 weights is (state, float32 copy): SGD's and NAG's form in MXNet."""

    master_first = False

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        if self.multi_precision and weight.dtype == np.float16:
            master = weight.astype(np.float32)
            return (self.create_state(index, master), master)
        return super().create_state_multi_precision(index, weight)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        self._update(index, weight, grad, state, self.update_multi_precision)


def multiply(xp: Any, array: Any, factor: float, out: Any) -> None:
    """``out = factor * array``, computed in the dtype of `out` where that is the wider one."""
    if array.dtype == out.dtype:
        xp.multiply(array, factor, out)
    else:
        xp.multiply(array, factor, out, dtype=out.dtype, casting="same_kind")


def rescaled_gradient(optimizer: Optimizer, grad: np.ndarray, factor: float, out: np.ndarray) -> None:
    """``out = factor * clip(rescale_grad * grad)``."""
    xp = module_of(out)
    rescale, clip = float(optimizer.rescale_grad), optimizer.clip_gradient
    if clip is None or not clip > 0:
        multiply(xp, grad, factor * rescale, out)
        return
    multiply(xp, grad, rescale, out)
    xp.clip(out, -float(clip), float(clip), out=out)  # six times as fast as minimum, then maximum
    if factor != 1:
        xp.multiply(out, factor, out)


def decayed_gradient(
    optimizer: Optimizer, weight: np.ndarray, grad: np.ndarray, wd: float, out: np.ndarray, other: np.ndarray
) -> None:
    """``out = clip(rescale_grad * grad + wd * weight)``; `other` is scratch memory."""
    xp = module_of(out)
    multiply(xp, grad, float(optimizer.rescale_grad), out)
    if wd:
        multiply(xp, weight, wd, other)
        xp.add(out, other, out)
    clip = optimizer.clip_gradient
    if clip is not None and clip > 0:
        xp.clip(out, -float(clip), float(clip), out=out)
