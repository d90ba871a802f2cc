"""The C API of oneDNN 3 as far as it is used here: constants, and the types of its functions.

The numbers are those of ``dnnl_types.h``; within version 3 they do not change. Format tags are not among
them but for 'any': plain layouts are described by strides, and blocked ones are the library's own choice.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from typing import Any

__all__ = [
    "FORMAT_ANY",
    "SCRATCHPAD_OF_USER",
    "STATUS",
    "Arg",
    "DataType",
    "ExecArg",
    "Flag",
    "Kind",
    "Prop",
    "Query",
    "Runtime",
    "Version",
    "declare",
    "dims",
]

MAX_NDIMS = 12
Dims = c_int64 * MAX_NDIMS
FORMAT_ANY = 1


class Version(ctypes.Structure):
    """What ``dnnl_version`` points to."""

    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", c_char_p),
        ("cpu_runtime", c_uint),
        ("gpu_runtime", c_uint),
    )


class ExecArg(ctypes.Structure):
    """One argument of a primitive: its role, and a memory object."""

    _fields_ = (("arg", c_int), ("memory", c_void_p))


class Runtime:
    """How the library runs threads."""

    SEQUENTIAL, OPENMP = 1, 2


class DataType:
    """Types of elements."""

    FLOAT32 = 3


class Prop:
    """Kinds of propagation."""

    FORWARD_TRAINING, FORWARD_INFERENCE = 64, 96
    BACKWARD, BACKWARD_DATA = 128, 160


class Kind:
    """Algorithms."""

    CONVOLUTION_DIRECT = 1
    RELU, TANH, SIGMOID = 32, 33, 41
    RELU_FROM_DST, TANH_FROM_DST, SIGMOID_FROM_DST = 256, 257, 260
    POOLING_MAX, POOLING_AVG_INCLUDE, POOLING_AVG_EXCLUDE = 511, 767, 1023
    ADD = 131056


class Flag:
    """Flags of normalisations."""

    GLOBAL_STATS, SCALE, SHIFT, RELU = 1, 2, 4, 8


class Query:
    """What a primitive's descriptor can be asked for."""

    IMPLEMENTATION = 8
    SRC, DIFF_SRC, WEIGHTS, DIFF_WEIGHTS, DST, DIFF_DST, WORKSPACE, SCRATCHPAD = range(129, 137)


class Arg:
    """Roles of arguments."""

    SRC, SRC_1, DST, WEIGHTS, BIAS = 1, 2, 17, 33, 41
    MEAN, VARIANCE, SCALE, SHIFT = 49, 50, 51, 52
    WORKSPACE, SCRATCHPAD = 64, 80
    DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
    DIFF_SCALE, DIFF_SHIFT = 255, 256
    FIRST_POST_OP = 32768 | 2  # its second source


SCRATCHPAD_OF_USER = 1
STATUS = {1: "out of memory", 2: "invalid arguments", 3: "not implemented", 4: "no further one", 5: "failed"}

_P, _PP, _D = c_void_p, POINTER(c_void_p), POINTER(c_int64)
# Parameters after the new primitive descriptor and the engine: memory descriptors 'm', a descriptor of the
# forward primitive 'h', attributes 'a', dims 'd', an int 'i', a float 'f', flags 'u'.
_PRIMITIVES = {
    "convolution_forward": "iimmmmdddda",
    "convolution_backward_data": "immmddddha",
    "convolution_backward_weights": "immmmddddha",
    "batch_normalization_forward": "immfua",
    "batch_normalization_backward": "immmfuha",
    "eltwise_forward": "iimmffa",
    "eltwise_backward": "immmffha",
    "pooling_forward": "iimmddddda",
    "pooling_backward": "immdddddha",
    "binary": "immma",
    "matmul": "mmmma",
}
_LETTERS = {"m": _P, "h": _P, "a": _P, "d": _D, "i": c_int, "f": c_float, "u": c_uint}
_FUNCTIONS: dict[str, list[Any]] = {
    "engine_create": [_PP, c_int, c_size_t],
    "stream_create": [_PP, _P, c_uint],
    "memory_desc_create_with_strides": [_PP, c_int, _D, c_int, _D],
    "memory_desc_create_with_tag": [_PP, c_int, _D, c_int, c_int],
    "memory_desc_clone": [_PP, _P],
    "memory_desc_destroy": [_P],
    "memory_create": [_PP, _P, _P, _P],
    "memory_destroy": [_P],
    "primitive_attr_create": [_PP],
    "primitive_attr_destroy": [_P],
    "primitive_attr_set_scratchpad_mode": [_P, c_int],
    "primitive_attr_set_post_ops": [_P, _P],
    "post_ops_create": [_PP],
    "post_ops_append_binary": [_P, c_int, _P],
    "post_ops_append_eltwise": [_P, c_int, c_float, c_float],
    "post_ops_destroy": [_P],
    "primitive_desc_query": [_P, c_int, c_int, _P],
    "primitive_desc_destroy": [_P],
    "primitive_create": [_PP, _P],
    "primitive_destroy": [_P],
    "primitive_execute": [_P, _P, c_int, POINTER(ExecArg)],
    "reorder_primitive_desc_create": [_PP, _P, _P, _P, _P, _P],
}


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of the functions of `library`.

    Raises
    ------
    AttributeError
        It lacks one of them: it is no oneDNN 3.
    """
    for name, types in _FUNCTIONS.items():
        function = getattr(library, f"dnnl_{name}")
        function.argtypes, function.restype = types, c_int
    for name, letters in _PRIMITIVES.items():
        function = getattr(library, f"dnnl_{name}_primitive_desc_create")
        function.argtypes, function.restype = [_PP, _P, *(_LETTERS[x] for x in letters)], c_int
    library.dnnl_memory_desc_get_size.argtypes, library.dnnl_memory_desc_get_size.restype = [_P], c_size_t
    library.dnnl_memory_desc_equal.argtypes, library.dnnl_memory_desc_equal.restype = [_P, _P], c_int
    library.dnnl_primitive_desc_query_md.argtypes = [_P, c_int, c_int]
    library.dnnl_primitive_desc_query_md.restype = c_void_p


def dims(values: tuple[int, ...]) -> Any:
    """Lengths or strides, as the library takes them."""
    return Dims(*values)
