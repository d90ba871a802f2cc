"""oneDNN's engine, memory layouts and primitives, and how a primitive becomes a step.

A `Layout` says how an array lies in memory, a `Descriptor` is a primitive that was found for some layouts,
and `Descriptor.bind` gives it arrays: the result is a callable without arguments that costs one call into
the library.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Mapping
from ctypes import byref, c_void_p
from typing import Any

import numpy as np

from dmod.base import MXNetError
from dmod.device.onednn.api import (
    FORMAT_ANY,
    SCRATCHPAD_OF_USER,
    STATUS,
    Arg,
    DataType,
    ExecArg,
    Kind,
    Query,
    dims,
)

__all__ = ["Descriptor", "Engine", "Layout", "NotImplementedByLibrary"]

Scratch = Callable[[tuple[int, ...], Any], Any]


class NotImplementedByLibrary(MXNetError):
    """oneDNN has no primitive for these shapes; the caller computes it in another way."""


class _Threads(threading.local):
    """The number of threads that OpenMP was told, in each thread that calls it: a setting of its own."""

    count: int | None = None


class Engine:
    """The CPU engine of a loaded library, and its one stream.

    Attributes
    ----------
    num_threads : int or None
        With how many threads primitives are made and run; None leaves OpenMP's own choice.
    """

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        self.handle, self.stream, self._attributes = c_void_p(), c_void_p(), c_void_p()
        self.num_threads: int | None = None
        self._threads = _Threads()
        self.check(library.dnnl_engine_create(byref(self.handle), 1, 0), "engine")
        self.check(library.dnnl_stream_create(byref(self.stream), self.handle, 1), "stream")
        self._attributes = self._new_attributes()
        try:
            self._set_threads: Any = (
                library.omp_set_num_threads
            )  # of the OpenMP that the library is linked to
        except AttributeError:
            self._set_threads = None

    def check(self, status: int, what: str) -> None:
        """Raise unless a call went well."""
        if status == 3:
            raise NotImplementedByLibrary(f"oneDNN: no primitive for this {what}")
        if status:
            raise MXNetError(f"oneDNN: {what}: {STATUS.get(status, f'status {status}')}")

    def enter(self) -> None:
        """Tell OpenMP the number of threads, if this thread has not done so."""
        if self.num_threads is not None and self._threads.count != self.num_threads:
            if self._set_threads is not None:
                self._set_threads(self.num_threads)
            self._threads.count = self.num_threads

    # ---- layouts

    def plain(self, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Layout:
        """The layout of a float32 array: contiguous, or with `strides` in elements."""
        if strides is None:
            strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        handle = c_void_p()
        create = self.library.dnnl_memory_desc_create_with_strides
        status = create(byref(handle), len(shape), dims(shape), DataType.FLOAT32, dims(strides))
        self.check(status, f"layout of shape {shape}")
        return Layout(self, handle, shape)

    def any(self, shape: tuple[int, ...]) -> Layout:
        """A layout that the library is to choose."""
        handle = c_void_p()
        create = self.library.dnnl_memory_desc_create_with_tag
        self.check(
            create(byref(handle), len(shape), dims(shape), DataType.FLOAT32, FORMAT_ANY), f"layout of {shape}"
        )
        return Layout(self, handle, shape)

    def channels_last(self, shape: tuple[int, ...]) -> Layout:
        """The layout of an (N, C, ...) array whose channels lie side by side."""
        channels, spatial = shape[1], shape[2:]
        steps = tuple(channels * math.prod(spatial[i + 1 :]) for i in range(len(spatial)))
        return self.plain(shape, (channels * math.prod(spatial), 1, *steps))

    # ---- primitives

    def _new_attributes(self, added: Layout | None = None, function: int | None = None) -> c_void_p:
        """Attributes: scratch memory comes from the caller; what happens to the result."""
        library, attributes = self.library, c_void_p()
        self.check(library.dnnl_primitive_attr_create(byref(attributes)), "attributes")
        library.dnnl_primitive_attr_set_scratchpad_mode(attributes, SCRATCHPAD_OF_USER)
        if added is not None or function is not None:
            operations = c_void_p()
            self.check(library.dnnl_post_ops_create(byref(operations)), "operations")
            if added is not None:
                library.dnnl_post_ops_append_binary(operations, Kind.ADD, added.handle)
            if function is not None:
                library.dnnl_post_ops_append_eltwise(operations, function, 0.0, 0.0)
            library.dnnl_primitive_attr_set_post_ops(attributes, operations)
            library.dnnl_post_ops_destroy(operations)
        return attributes

    def describe(
        self, kind: str, *parameters: Any, added: Layout | None = None, function: int | None = None
    ) -> Descriptor:
        """Find a primitive.

        Parameters
        ----------
        kind : str
            The part of the function's name in ``dnnl_<kind>_primitive_desc_create``.
        *parameters : Layout, Descriptor, tuple of int, int, float or None
            As that function takes them, without the new descriptor, the engine and the attributes.
        added : Layout, optional
            Of an array that is added to the result; its role is ``Arg.FIRST_POST_OP``.
        function : int, optional
            The `Kind` of a function that the result goes through, last.

        Raises
        ------
        NotImplementedByLibrary
            There is none.
        """
        self.enter()
        handle = c_void_p()
        is_plain = added is None and function is None
        attributes = self._attributes if is_plain else self._new_attributes(added, function)
        raw = [_raw(p) for p in parameters]
        create = getattr(self.library, f"dnnl_{kind}_primitive_desc_create")
        try:
            status = create(byref(handle), self.handle, *raw, attributes)
        finally:
            if not is_plain:
                self.library.dnnl_primitive_attr_destroy(attributes)
        self.check(status, kind.replace("_", " "))
        return Descriptor(self, handle, kind)

    def reorder(self, source: Layout, target: Layout) -> Descriptor:
        """The primitive that copies from one layout into another."""
        self.enter()
        handle = c_void_p()
        create = self.library.dnnl_reorder_primitive_desc_create
        status = create(
            byref(handle), source.handle, self.handle, target.handle, self.handle, self._attributes
        )
        self.check(status, "reorder")
        return Descriptor(self, handle, "reorder", {Arg.SRC: source, Arg.DST: target})


def _raw(parameter: Any) -> Any:
    if isinstance(parameter, Layout | Descriptor):
        return parameter.handle
    return dims(parameter) if isinstance(parameter, tuple) else parameter


class Layout:
    """How an array of `shape` lies in memory; equal ones lie alike.

    Attributes
    ----------
    shape : tuple of int
        The logical shape, such as (N, C, H, W), whatever the order in memory.
    nbytes : int
        With what channels are padded to.
    """

    def __init__(self, engine: Engine, handle: c_void_p, shape: tuple[int, ...]):
        self.engine, self.handle, self.shape = engine, handle, shape
        self.nbytes = int(engine.library.dnnl_memory_desc_get_size(handle))

    def __del__(self) -> None:
        self.engine.library.dnnl_memory_desc_destroy(self.handle)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return bool(self.engine.library.dnnl_memory_desc_equal(self.handle, other.handle))

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_padded(self) -> bool:
        """Whether there is memory that belongs to no element."""
        return self.nbytes != 4 * math.prod(self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the elements lie in the order of a contiguous array."""
        if self == self.engine.plain(self.shape):
            return True
        if len(self.shape) > 1 and self.shape[1] == 1 and self == self.engine.channels_last(self.shape):
            return True
        return not self.is_padded and math.prod(self.shape[2:]) == 1  # one block of channels after another


class Descriptor:
    """A primitive that was found, with the layouts that it takes.

    Attributes
    ----------
    name : str
        The library's name for the implementation, such as 'jit:avx512_core'.
    """

    def __init__(
        self, engine: Engine, handle: c_void_p, kind: str, layouts: Mapping[int, Layout] | None = None
    ):
        self.engine, self.handle, self.kind = engine, handle, kind
        self._known = dict(layouts or {})
        name = ctypes.c_char_p()
        engine.library.dnnl_primitive_desc_query(handle, Query.IMPLEMENTATION, 0, byref(name))
        self.name = (name.value or b"").decode()

    def __del__(self) -> None:
        self.engine.library.dnnl_primitive_desc_destroy(self.handle)

    @property
    def is_reference(self) -> bool:
        """Whether the library has only its slow reference code for this."""
        return "ref" in self.name or "simple:any" in self.name

    def layout(self, query: int, shape: tuple[int, ...] = (), index: int = 0) -> Layout:
        """The layout of an argument, by its `Query` number; `shape` is its logical shape."""
        library = self.engine.library
        own = library.dnnl_primitive_desc_query_md(self.handle, query, index)
        handle = c_void_p()
        self.engine.check(library.dnnl_memory_desc_clone(byref(handle), own), f"layout of {self.kind}")
        return Layout(self.engine, handle, shape)

    def bind(self, arrays: Mapping[int, tuple[Layout, Any]], scratch: Scratch) -> Callable[[], None]:
        """The step that runs this primitive over arrays.

        Parameters
        ----------
        arrays : dict of int to (Layout, array)
            By their `Arg` numbers.
        scratch : callable
            ``scratch(shape, dtype)``: memory for the primitive while it runs.
        """
        given = dict(arrays)
        needed = self.layout(Query.SCRATCHPAD)
        if needed.nbytes:
            given[Arg.SCRATCHPAD] = (needed, scratch((needed.nbytes,), np.uint8))
        return _Bound(self, given).step()


class _Bound:
    """A primitive with its memory objects, which live as long as the step."""

    def __init__(self, descriptor: Descriptor, arrays: Mapping[int, tuple[Layout, Any]]):
        engine = descriptor.engine
        self.engine, self.descriptor, self.arrays = engine, descriptor, dict(arrays)
        library = engine.library
        engine.enter()
        self.primitive = c_void_p()
        self.memories: list[c_void_p] = []
        engine.check(library.dnnl_primitive_create(byref(self.primitive), descriptor.handle), descriptor.kind)
        self.args = (ExecArg * len(arrays))()
        for i, (arg, (layout, array)) in enumerate(arrays.items()):
            if array.nbytes < layout.nbytes or not array.flags.c_contiguous:
                raise MXNetError(
                    f"oneDNN: {descriptor.kind}: argument {arg} is an array of {array.nbytes} bytes, "
                    f"expected {layout.nbytes}, contiguous"
                )
            memory = c_void_p()
            create = library.dnnl_memory_create
            engine.check(
                create(byref(memory), layout.handle, engine.handle, array.ctypes.data), descriptor.kind
            )
            self.memories.append(memory)
            self.args[i].arg, self.args[i].memory = arg, memory.value

    def __del__(self) -> None:
        for memory in self.memories:
            self.engine.library.dnnl_memory_destroy(memory)
        self.engine.library.dnnl_primitive_destroy(self.primitive)

    def step(self) -> Callable[[], None]:
        """The callable."""
        bound, engine, kind = self, self.engine, self.descriptor.kind
        execute, args, count = engine.library.dnnl_primitive_execute, self.args, len(self.args)
        primitive, stream, threads = self.primitive, engine.stream, engine._threads

        def run() -> None:
            if threads.count != engine.num_threads:
                engine.enter()
            status = execute(primitive, stream, count, args)
            if status:
                bound.engine.check(status, kind)

        return run
