"""histogram: count the elements that fall into each bin."""

from __future__ import annotations

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.params import Param, integer, numbers, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.bin_cnt is None:
        bins = inputs[1]
        if bins is not None and (len(bins) != 1 or 0 <= bins[0] < 2):
            raise InvalidArgument(f"bins has shape {bins}, expected a vector of at least two edges")
        count = -1 if bins is None or bins[0] < 0 else bins[0] - 1
        return list(inputs), [(count,), bins], []
    limits = attrs.range
    if attrs.bin_cnt < 1 or limits is None or len(limits) != 2 or not limits[0] <= limits[1]:
        raise InvalidArgument(
            f"bin_cnt is {attrs.bin_cnt} and range {limits}, expected a number of bins and (lowest, highest)"
        )
    return list(inputs), [(attrs.bin_cnt,), (attrs.bin_cnt + 1,)], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return [inputs[0]] * len(inputs), [np.dtype(np.int64), inputs[0]], []


def _forward(call: Call) -> Step:
    xp, (counts, edges), attrs = call.xp, call.outputs, call.attrs
    data = call.inputs[0].reshape(-1)
    if attrs.bin_cnt is None:
        given = call.inputs[1]

        def run() -> None:
            xp.copyto(counts, xp.histogram(data, bins=given)[0])
            xp.copyto(edges, given)

        return run

    def run_equal() -> None:
        found, limits = xp.histogram(data, bins=attrs.bin_cnt, range=attrs.range)
        xp.copyto(counts, found)
        xp.copyto(edges, limits, casting="unsafe")

    return run_equal


register(
    "_histogram",
    arguments=lambda attrs: ["data", "bins"] if attrs.bin_cnt is None else ["data"],
    slots=("data", "bins"),
    params=[
        Param("bin_cnt", optional(integer), None, "The number of equal bins; None: `bins` has the edges."),
        Param("range", optional(numbers), None, "The lowest and the highest edge of equal bins."),
    ],
    outputs=["output0", "output1"],
    num_visible=2,
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=None,
    doc="The number of elements in each bin (int64), and the bins' edges. The last bin has both its edges.",
)
