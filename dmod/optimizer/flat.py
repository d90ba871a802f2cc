"""`FlatUpdater`: one optimizer over a whole flat buffer of parameters.

The same bits come out however the buffer is cut into pieces, and the same as from updating array by
array: every element is computed from itself alone by the optimizer's `step`. Where the optimizer has a
compiled step, that is one call over the whole buffer, whatever multipliers its ranges have. Else the buffer
is worked on in chunks that stay in the cache between the passes of a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dmod.base import InvalidArgument
from dmod.device import HOST, Backend, backend_of, copy, module_of
from dmod.device.kernels import kernels_for
from dmod.ndarray.flat import ALIGNMENT, Segment

if TYPE_CHECKING:
    from dmod.optimizer.elementwise import CompiledStep
    from dmod.optimizer.optimizer import Optimizer

__all__ = ["CHUNK", "FlatUpdater", "step_array", "supports_flat"]

CHUNK = 65536
"""Elements per chunk: 256 KB of float32 each of weight, gradient, momentum and scratch. Measured with SGD
and momentum on one core for chunks of 4 K, 16 K, 64 K and 128 K: 25.6 M floats take 25, 14, 12 and 12 ms,
109 K floats 72, 34, 26 and 26 us."""

SUM_CHUNK = 16384
"""The same for compiled steps on a sum of two gradients: it does well for any size, of 2 K to 64 K."""

_local = threading.local()


def _scratch(dtype: np.dtype, count: int, device: Backend = HOST, size: int = CHUNK) -> list[Any]:
    """This thread's scratch arrays for arrays of `dtype`; shared, so that they stay in the cache."""
    computed = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    chunks = _local.__dict__.setdefault("chunks", {})
    have: list[Any] = chunks.setdefault((device.name, computed), [])
    for i, array in enumerate(have):
        if array.size < size:
            have[i] = device.empty((size,), computed)
    while len(have) < count:
        have.append(device.empty((size,), computed))
    return have[:count]


@cache
def _sum_scratch() -> np.ndarray:
    return np.empty(SUM_CHUNK, np.float32)


def supports_flat(optimizer: Optimizer) -> bool:
    """Whether `FlatUpdater` can run `optimizer`: its own class says so, which a subclass does not inherit."""
    return bool(type(optimizer).__dict__.get("flat", False))


@cache
def _has_compiled_step(kind: Any) -> bool:
    """Whether `compiled_step` computes what `step` does: the class that defines the one defines the other."""
    return next(("compiled_step" in c.__dict__ for c in kind.__mro__ if "step" in c.__dict__), False)


class _Compiled(NamedTuple):
    """A kernel, the same for a sum of two gradients, and what they get besides arrays and ranges."""

    kernel: Callable[..., None]
    of_sum: Callable[..., None]
    rates: np.ndarray  # a row for each range
    numbers: np.ndarray


def _compiled(
    optimizer: Any,
    weight: np.ndarray,
    states: Sequence[np.ndarray],
    rates: Sequence[tuple[float, float]],
    t: int,
) -> _Compiled | None:
    """The kernel for float32 gradients of these arrays, if there is one; each range has its rates."""
    if kernels_for(weight, *states) is None:
        return None
    found = _compiled_step(optimizer, len(states), rates, t)
    return None if found is None else _prepared(found)


def _compiled_step(
    optimizer: Any, n_states: int, rates: Sequence[tuple[float, float]], t: int
) -> CompiledStep | None:
    """The optimizer's description of its kernel, if that fits the states."""
    kind: Any = type(optimizer)
    if not _has_compiled_step(kind) or optimizer.flat_states() != n_states:
        return None
    found: CompiledStep | None = optimizer.compiled_step(rates, t)
    return found


def _prepared(found: CompiledStep) -> _Compiled:
    from dmod.device import compiled_optimizers

    kernel, of_sum = (getattr(compiled_optimizers, found.kernel + name) for name in ("", "_of_sum"))
    return _Compiled(kernel, of_sum, np.array(found.rates, np.float32), np.array(found.numbers, np.float32))


def step_array(
    optimizer: Optimizer,
    weight: np.ndarray,
    grad: np.ndarray,
    states: tuple[np.ndarray, ...],
    lr: float,
    wd: float,
    t: int,
) -> None:
    """Run one step on single arrays of any shape, in place, to the same bits as on a flat buffer.

    More states than `Optimizer.flat_states` mean that the last one is the float32 copy of the weight.
    """
    device = backend_of(weight)
    arrays = [a if a.flags.c_contiguous else device.xp.ascontiguousarray(a) for a in (weight, *states)]
    flat = [a.reshape(-1) for a in arrays]
    grad = grad.reshape(-1)
    chunk = CHUNK if device.is_host else max(1, flat[0].size)
    scratch = _scratch(flat[0].dtype, optimizer.scratch_arrays, device, chunk)
    mixed = len(states) > optimizer.flat_states()
    with np.errstate(all="ignore"), device.activate():
        compiled = None
        if kernels_for(grad) is not None:
            compiled = _compiled(optimizer, flat[0], flat[1:], [(lr, wd)], t)
        if compiled is not None:
            bounds = np.array([[0, flat[0].size]])
            compiled.kernel(flat[0], grad, *flat[1:], bounds, compiled.rates, compiled.numbers)
        for start in range(0, flat[0].size if compiled is None else 0, chunk):
            part = slice(start, start + chunk)
            parts = tuple(a[part] for a in flat[1:])
            _step(optimizer, flat[0][part], grad[part], parts, lr, wd, scratch, t, mixed)
    for original, array in zip((weight, *states), arrays, strict=True):
        if array is not original:
            original[...] = array


def _step(
    optimizer: Optimizer,
    weight: np.ndarray,
    grad: np.ndarray,
    states: tuple[np.ndarray, ...],
    lr: float,
    wd: float,
    scratch: list[np.ndarray],
    t: int,
    mixed: bool,
) -> None:
    pieces = tuple(s[: weight.size] for s in scratch)
    if mixed:
        optimizer.step(states[-1], grad, states[:-1], lr, wd, pieces, t)
        module_of(weight).copyto(weight, states[-1], casting="same_kind")
    else:
        optimizer.step(weight, grad, states, lr, wd, pieces, t)


class FlatUpdater:
    """Updates a flat buffer in place and owns its states, flat as well, and its count of updates.

    The learning rate is that of the updater's own count: when several pieces of a model are updated by
    several updaters, the result does not depend on the order in which they get their gradients.

    Parameters
    ----------
    optimizer : Optimizer
        Read at every update, so that a changed learning rate, multiplier or `rescale_grad` counts.
    segments : sequence of Segment
        Where the parameters lie, for multipliers; what lies outside is left alone.
    size : int
        Elements of the buffer.
    dtype : numpy dtype
        Of the weights. With float16 and the optimizer's `multi_precision`, a float32 copy of the weights is
        one more state, the last one.
    device : Backend
        Where weights, gradients and states are.

    Attributes
    ----------
    count : int
        Updates so far, `begin_num_update` included.
    """

    def __init__(
        self, optimizer: Optimizer, segments: Sequence[Segment], size: int, dtype: Any, device: Backend = HOST
    ):
        if not supports_flat(optimizer):
            raise InvalidArgument(
                f"{type(optimizer).__name__} does not run on flat buffers; use dmod.optimizer.Updater"
            )
        self.optimizer = optimizer
        self.segments = tuple(sorted(segments, key=lambda s: s.start))
        self.size = size
        self._device = device
        self._chunk = CHUNK if device.is_host else size  # a launch per chunk costs more than the cache gives
        self.dtype = np.dtype(dtype)
        self.count = optimizer.begin_num_update
        self._mixed = bool(optimizer.multi_precision) and self.dtype == np.float16
        self._states = [device.zeros((size,), t) for t in self.state_dtypes]
        self._fresh = True
        self._plan: list[tuple[int, int, float, float]] = []
        self._chunks: list[tuple[Any, ...]] = []
        self._bounds = np.empty((0, 2), np.int64)
        self._planned_for: tuple[Any, ...] | None = None
        self._compiled_for: Any = None  # the weights that kernels were found to take
        self._described: CompiledStep | None = None
        self._compiled: _Compiled | None = None

    @property
    def state_dtypes(self) -> tuple[np.dtype, ...]:
        """The dtypes of the states, in order."""
        wide = np.dtype(np.float32) if self._mixed else self.dtype
        return (wide,) * (self.optimizer.flat_states() + self._mixed)

    def update(self, weight: np.ndarray, grad: Any) -> None:
        """Update `weight` in place.

        Parameters
        ----------
        weight : ndarray, shape (size,), of the updater's dtype
        grad : ndarray, shape (size,)
            The gradient, left as it is; of the same dtype or a wider one. On the host it may be something
            that makes each slice when it is asked for, as a server's sum over workers does: only `shape`,
            `dtype` and slices are used, each once; or, if it has them, its two `terms`.
        """
        if weight.shape != (self.size,) or grad.shape != (self.size,) or weight.dtype != self.dtype:
            raise InvalidArgument(
                f"flat update: weight {weight.shape} {weight.dtype}, gradient {grad.shape}; "
                f"expected ({self.size},) {self.dtype}"
            )
        optimizer = self.optimizer
        if self._fresh:
            self._begin(weight)
            self._fresh = False
        self.count += 1
        if self.count > optimizer.num_update:
            optimizer.num_update = self.count
        rate = optimizer._rate_at(self.count)
        ranges = self._current_plan()
        compiled = self._kernel(weight, rate, ranges)
        if compiled is not None and grad.dtype == np.float32:
            numbers = (self._bounds, compiled.rates, compiled.numbers)
            if (terms := getattr(grad, "terms", None)) is not None:
                compiled.of_sum(weight, *terms, *self._states, *numbers, _sum_scratch())
                return
            if isinstance(grad, np.ndarray) and grad.flags.c_contiguous:
                compiled.kernel(weight, grad, *self._states, *numbers)
                return
        with np.errstate(all="ignore"), self._device.activate():
            scratch = _scratch(self.dtype, optimizer.scratch_arrays, self._device, self._chunk)
            for start, stop, states, lr_mult, wd in self._chunks:
                part, lr = weight[start:stop], rate * lr_mult
                _step(optimizer, part, grad[start:stop], states, lr, wd, scratch, self.count, self._mixed)

    def _kernel(
        self, weight: np.ndarray, rate: float, ranges: Sequence[tuple[int, int, float, float]]
    ) -> _Compiled | None:
        """The kernel for these weights, prepared anew only when its numbers have changed."""
        if weight is not self._compiled_for:
            if kernels_for(weight, *self._states) is None:
                return None
            self._compiled_for = weight
        rates = [(rate * lr_mult, wd) for _, _, lr_mult, wd in ranges]
        found = _compiled_step(self.optimizer, len(self._states), rates, self.count)
        if found is None:
            return None
        if found != self._described:
            self._described, self._compiled = found, _prepared(found)
        return self._compiled

    def _begin(self, weight: np.ndarray) -> None:
        """Give the states that follow from the first weights their values."""
        if self._mixed:
            copy(self._states[-1], weight)
            self.optimizer.begin_states(self._states[-1], tuple(self._states[:-1]))
        else:
            self.optimizer.begin_states(weight, tuple(self._states))

    def _current_plan(self) -> list[tuple[int, int, float, float]]:
        """The ranges of equal multipliers and their chunks, made anew when multipliers have changed."""
        optimizer = self.optimizer
        by_object = [(p.lr_mult, p.wd_mult) for p in optimizer.param_dict.values()]
        now = (optimizer.wd, optimizer.lr_mult, optimizer.wd_mult, by_object)
        if now != self._planned_for:
            self._planned_for = (optimizer.wd, dict(optimizer.lr_mult), dict(optimizer.wd_mult), by_object)
            self._plan = self._runs()
            self._chunks = [chunk for run in self._plan for chunk in self._cut(*run)]
            self._bounds = np.array([run[:2] for run in self._plan], np.int64).reshape(-1, 2)
        return self._plan

    def _runs(self) -> list[tuple[int, int, float, float]]:
        """Ranges of equal multipliers: neighbouring segments and the padding between them, which is zero.

        A gap as long as the alignment is not padding but an array that is not ours.
        """
        runs: list[tuple[int, int, float, float]] = []
        padding = max(1, ALIGNMENT // self.dtype.itemsize)
        for s in self.segments:
            rates = (self.optimizer._multiplier(s.index, "lr_mult"), self.optimizer._get_wd(s.index))
            if runs and runs[-1][2:] == rates and s.start - runs[-1][1] < padding:
                runs[-1] = (runs[-1][0], s.stop, *rates)
            else:
                runs.append((s.start, s.stop, *rates))
        return runs

    def _cut(self, start: int, stop: int, lr_mult: float, wd: float) -> list[tuple[Any, ...]]:
        chunks = []
        for low in range(start, stop, self._chunk):
            high = min(low + self._chunk, stop)
            chunks.append((low, high, tuple(s[low:high] for s in self._states), lr_mult, wd))
        return chunks

    def get_states(self) -> list[np.ndarray]:
        """The flat states, each of shape ``(size,)``: not copies, so the next update changes them."""
        return list(self._states)

    def set_states(self, arrays: Sequence[np.ndarray], count: int) -> None:
        """Copy states of `get_states` in, and set the count of updates.

        Raises
        ------
        InvalidArgument
            Number, shape or dtype of the arrays differ from this optimizer's states; nothing is changed.
        """
        have = [(a.shape, a.dtype) for a in arrays]
        want = [(s.shape, s.dtype) for s in self._states]
        if have != want:
            raise InvalidArgument(
                f"{type(self.optimizer).__name__} on {self.size} elements has states {_describe(want)}, "
                f"got {_describe(have)}"
            )
        for state, array in zip(self._states, arrays, strict=True):
            copy(state, array)
        self.count = count
        # Before the first update no float32 copy has been made, nor what else follows: zeros were saved.
        self._fresh = count == self.optimizer.begin_num_update


def _describe(states: list[tuple[tuple[int, ...], np.dtype]]) -> str:
    return ", ".join(f"{dtype} {shape}" for shape, dtype in states) or "none"
