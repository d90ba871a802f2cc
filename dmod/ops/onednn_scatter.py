"""The gradient of a convolution's data as a product, ``dy @ weight``, whose columns are added up.

The product is the library's, the sum a compiled kernel's.

A few images are taken at a time, so that their columns stay in the cache between product and sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.device.onednn.api import Arg
from dmod.device.onednn.convolution import Convolution
from dmod.ops.registry import Call, Step

__all__ = ["scattered_gradient"]

_CACHE_NBYTES = 512 * 1024


def scattered_gradient(call: Call, spec: Convolution, dy: Any) -> Step:
    """The step that writes ``call.in_grads[0]``, for convolutions that are `Convolution.is_scattered`."""
    from dmod.device.compiled_conv import scatter_columns  # imports numba

    engine, shapes = spec.engine, spec.shapes
    filters, channels, *kernel = shapes.weight
    (rows, runs), (height, width) = shapes.out[2:], shapes.data[2:]
    inner = channels * math.prod(kernel)
    points = rows * runs
    weight = call.scratch((filters, inner), np.float32)
    last = engine.plain(shapes.weight, (inner, 1, kernel[1] * channels, channels))
    bring = engine.reorder(spec.plain_weight, last).bind(
        {Arg.SRC: (spec.plain_weight, call.inputs[1]), Arg.DST: (last, weight)}, call.scratch
    )
    count = shapes.data[0]
    block = max(1, min(count, _CACHE_NBYTES // (4 * points * inner)))
    columns = call.scratch((block * points * inner,), np.float32)
    grads = dy.view(np.float32).reshape(count, points * filters)
    images = call.in_grads[0].reshape(count, -1)
    sizes = (height, width * channels, rows, runs, kernel[0], kernel[1] * channels)
    steps_apart = (shapes.stride[0], shapes.stride[1] * channels)
    blocks = []
    for start in range(0, count, block):
        taken = min(block, count - start)
        left, right, out = (
            engine.plain(s) for s in ((taken * points, filters), (filters, inner), (taken * points, inner))
        )
        product = engine.describe("matmul", left, right, None, out).bind(
            {
                Arg.SRC: (left, grads[start : start + taken]),
                Arg.WEIGHTS: (right, weight),
                Arg.DST: (out, columns),
            },
            call.scratch,
        )
        blocks.append((product, images[start : start + taken].reshape(-1), taken))
    scatter_columns(np.zeros(1, np.float32), np.zeros(1, np.float32), 0, *sizes, *steps_apart)  # compiles it

    def run() -> None:
        bring()
        for product, target, taken in blocks:
            product()
            scatter_columns(columns, target, taken, *sizes, *steps_apart)

    return run
