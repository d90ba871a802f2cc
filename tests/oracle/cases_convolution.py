"""Convolution, Deconvolution, im2col and col2im."""

from __future__ import annotations

from typing import Any

from tests.oracle.family import Table

CASES = Table()


def _case(op: str, suffix: str, options: dict, shape: Any, **rest: Any) -> None:
    CASES.add(
        f"{op.lower()}_{suffix}",
        lambda sym: getattr(sym, op)(sym.Variable("data"), name="y", **options),
        {"data": shape},
        atol=rest.pop("atol", 1e-5),
        **rest,
    )


IMAGE = (3, 4, 7, 6)
SMALL = (2, 4, 4, 3)

for _suffix, _options, _shape in [
    ("plain", {"kernel": (3, 3)}, IMAGE),
    ("same", {"kernel": (3, 3), "pad": (1, 1)}, IMAGE),
    ("no_bias", {"kernel": (3, 3), "pad": (1, 1), "no_bias": True}, IMAGE),
    ("stride", {"kernel": (3, 3), "pad": (1, 1), "stride": (2, 2)}, IMAGE),
    ("uneven", {"kernel": (2, 3), "pad": (0, 2), "stride": (1, 2)}, IMAGE),
    ("dilate", {"kernel": (3, 2), "pad": (2, 1), "dilate": (2, 3)}, IMAGE),
    ("dilate_stride", {"kernel": (2, 2), "pad": (1, 1), "dilate": (2, 2), "stride": (2, 1)}, IMAGE),
    ("groups", {"kernel": (3, 3), "pad": (1, 1), "num_group": 2}, IMAGE),
    ("groups_stride", {"kernel": (3, 3), "stride": (2, 1), "num_group": 2}, IMAGE),
    ("depthwise", {"kernel": (3, 3), "pad": (1, 1), "num_group": 4}, IMAGE),
    ("pointwise", {"kernel": (1, 1)}, IMAGE),
    ("pointwise_groups", {"kernel": (1, 1), "num_group": 2, "no_bias": True}, IMAGE),
    ("pointwise_stride", {"kernel": (1, 1), "stride": (2, 2)}, IMAGE),
    ("whole_image", {"kernel": (7, 6)}, IMAGE),
    ("wide_pad", {"kernel": (2, 2), "pad": (3, 3), "stride": (3, 3)}, IMAGE),
    ("layout", {"kernel": (3, 3), "layout": "NCHW", "workspace": 256, "cudnn_off": True}, IMAGE),
    ("options", {"kernel": (3, 3), "cudnn_tune": "off"}, IMAGE),
    ("1d", {"kernel": (3,)}, (3, 4, 9)),
    ("1d_all", {"kernel": (3,), "pad": (2,), "stride": (2,), "dilate": (2,), "num_group": 2}, (3, 4, 9)),
    ("1d_same", {"kernel": (3,), "pad": (1,), "layout": "NCW"}, (3, 4, 9)),
    ("3d", {"kernel": (2, 3, 2)}, (2, 4, 4, 5, 4)),
    ("3d_same", {"kernel": (3, 3, 3), "pad": (1, 1, 1)}, (2, 4, 3, 4, 4)),
    ("3d_stride", {"kernel": (2, 2, 3), "stride": (1, 2, 2), "pad": (1, 0, 1)}, (2, 4, 3, 4, 5)),
]:
    _case("Convolution", _suffix, {"num_filter": 8, **_options}, _shape)

_case("Convolution", "one_image", {"num_filter": 3, "kernel": (3, 3), "pad": (1, 1)}, (1, 1, 5, 5))
_case("Convolution", "many_filters", {"num_filter": 24, "kernel": (3, 3), "pad": (1, 1)}, (2, 2, 5, 5))
_case("Convolution", "float64", {"num_filter": 4, "kernel": (3, 3)}, SMALL, dtype="float64")
_case("Convolution", "grad_add", {"num_filter": 4, "kernel": (3, 3)}, SMALL, grad_req="add")
_case("Convolution", "no_data_grad", {"num_filter": 4, "kernel": (3, 3)}, SMALL, no_grad=("data",))
_case("Convolution", "no_weight_grad", {"num_filter": 4, "kernel": (3, 3)}, SMALL, no_grad=("y_weight",))
_case(
    "Convolution",
    "same_no_weight_grad",
    {"num_filter": 4, "kernel": (3, 3), "pad": (1, 1)},
    SMALL,
    no_grad=("y_weight",),
)
_case("Convolution", "inference", {"num_filter": 4, "kernel": (3, 3)}, SMALL, train=False)
_case("Convolution_v1", "plain", {"num_filter": 4, "kernel": (3, 3)}, SMALL)
_case("Convolution_v1", "groups", {"num_filter": 4, "kernel": (3, 3), "pad": (1, 1), "num_group": 2}, SMALL)

for _suffix, _options, _shape in [
    ("plain", {"kernel": (3, 3)}, SMALL),
    ("bias", {"kernel": (3, 3), "no_bias": False}, SMALL),
    ("stride", {"kernel": (4, 4), "stride": (2, 2), "pad": (1, 1)}, SMALL),
    ("adj", {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1), "adj": (1, 1)}, SMALL),
    ("adj_uneven", {"kernel": (3, 2), "stride": (3, 2), "adj": (2, 0)}, SMALL),
    ("dilate", {"kernel": (3, 3), "dilate": (2, 2), "pad": (1, 1)}, SMALL),
    ("groups", {"kernel": (3, 3), "stride": (2, 2), "num_group": 2, "no_bias": False}, SMALL),
    ("pointwise", {"kernel": (1, 1)}, SMALL),
    ("1d", {"kernel": (3,), "stride": (2,), "pad": (1,)}, (2, 4, 5)),
    ("3d", {"kernel": (2, 3, 2), "stride": (1, 2, 2), "pad": (0, 1, 0)}, (2, 4, 3, 3, 2)),
]:
    _case("Deconvolution", _suffix, {"num_filter": 6, **_options}, _shape)

# In float32 MXNet's oneDNN refuses a target_shape.
for _target in ((9, 7), (8, 7), (7, 5), (6, 6)):
    _case(
        "Deconvolution",
        "target_{}_{}".format(*_target),
        {"num_filter": 4, "kernel": (3, 3), "stride": (2, 2), "target_shape": _target},
        SMALL,
        dtype="float64",
    )

for _suffix, _options in [
    ("plain", {"kernel": (2, 3)}),
    ("padded", {"kernel": (3, 3), "pad": (1, 1)}),
    ("all", {"kernel": (3, 2), "pad": (2, 1), "stride": (2, 1), "dilate": (1, 2)}),
]:
    _case("im2col", _suffix, _options, SMALL)
_case("im2col", "float16", {"kernel": (2, 2)}, SMALL, dtype="float16")
_case("col2im", "plain", {"kernel": (2, 3), "output_size": (4, 3)}, (2, 24, 3))
_case("col2im", "padded", {"kernel": (3, 3), "pad": (1, 1), "output_size": (4, 3)}, (2, 18, 12))
_case(
    "col2im",
    "all",
    {"kernel": (3, 2), "pad": (2, 1), "stride": (2, 1), "dilate": (1, 2), "output_size": (4, 3)},
    (2, 12, 9),
)
