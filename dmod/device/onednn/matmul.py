"""Products of matrices.

Microseconds, oneDNN 3.2 / numpy 2.4 with OpenBLAS's kernels for AVX-512 (SkylakeX), the lower of two minima
of 100 runs, 2 cores of an AMD EPYC with AVX-512. Layouts are plain; 'forward' has the weight transposed.

=================  =======  ===========  ===========  ===========
batch, in, out     threads  forward      dW           dX
=================  =======  ===========  ===========  ===========
64, 784, 128       1        55 / 89      52 / 59      52 / 59
64, 128, 64        1        5.6 / 8.5    5.4 / 5.1    5.3 / 5.0
128, 784, 1024     1        906 / 1128   814 / 856    826 / 917
128, 1024, 1024    1        1192 / 1509  1097 / 1151  1172 / 1276
64, 784, 128       2        30 / 49      27 / 35      29 / 35
64, 128, 64        2        4.5 / 5.5    4.1 / 5.1    4.1 / 5.1
128, 784, 1024     2        447 / 600    415 / 464    448 / 516
128, 1024, 1024    2        587 / 788    550 / 585    599 / 663
=================  =======  ===========  ===========  ===========

Weights in a blocked layout gain 2 to 12 %, and bringing them there costs more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.device.onednn.api import Arg, Kind
from dmod.device.onednn.engine import Engine, Layout, NotImplementedByLibrary, Scratch

__all__ = ["FUNCTIONS", "matmul"]

FUNCTIONS = {"relu": Kind.RELU, "tanh": Kind.TANH, "sigmoid": Kind.SIGMOID}
"""What a product can be followed by."""


def matmul(
    engine: Engine,
    left: Any,
    right: Any,
    out: Any,
    scratch: Scratch,
    bias: Any = None,
    function: str | None = None,
) -> Callable[[], None] | None:
    """The step that computes ``out = function(left @ right + bias)``.

    Parameters
    ----------
    left, right, out : float32 arrays (..., M, K), (..., K, N), (..., M, N)
        With contiguous memory; `left` and `right` may be transposed views of it. One matrix, or as many
        in all three.
    bias : float32 array (N,), optional
    function : str, optional
        One of `FUNCTIONS`.
    scratch : callable
        ``scratch(shape, dtype)``: memory for the step while it runs.

    Returns
    -------
    callable or None
        None if the library has no fast code for these arrays.

    Examples
    --------
    >>> from dmod.device.onednn import onednn
    >>> x, w, y = np.ones((2, 3), 'f'), np.ones((4, 3), 'f'), np.zeros((2, 4), 'f')
    >>> if onednn() is not None:
    ...     matmul(onednn(), x, w.T, y, np.empty)()
    ...     assert (y == 3).all()
    """
    arrays = [a for a in (left, right, out, bias) if a is not None]
    if any(a.dtype != np.float32 or a.size == 0 for a in arrays):
        return None
    layouts = [_layout(engine, a) for a in (left, right, out)]
    roles = {Arg.SRC: left, Arg.WEIGHTS: right, Arg.DST: out}
    given = {arg: (lay, _flat(a)) for (arg, a), lay in zip(roles.items(), layouts, strict=True)}
    bias_layout = None
    if bias is not None:
        bias_layout = engine.plain((1,) * (out.ndim - 1) + (out.shape[-1],))
        given[Arg.BIAS] = (bias_layout, bias)
    kind = None if function is None else FUNCTIONS[function]
    try:
        found = engine.describe("matmul", *layouts[:2], bias_layout, layouts[2], function=kind)
    except NotImplementedByLibrary:
        return None
    return None if found.is_reference else found.bind(given, scratch)


def _layout(engine: Engine, array: Any) -> Layout:
    return engine.plain(array.shape, tuple(s // array.itemsize for s in array.strides))


def _flat(array: Any) -> Any:
    """The memory of an array, as a contiguous one."""
    order = sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], -array.shape[axis]))
    return array.transpose(order)
