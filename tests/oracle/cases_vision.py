"""Sampling, regions and boxes in images."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.family import Table, op

CASES = Table()


def uniform(low: float, high: float) -> Any:
    return lambda rng, shape: rng.uniform(low, high, shape)


def rois(images: int, size: float) -> Any:
    """Regions with their image's number; some reach beyond the image."""

    def make(rng: Any, shape: Any) -> Any:
        corners = np.sort(rng.uniform(-1, size + 1, (shape[0], 2, 2)), axis=1).reshape(shape[0], 4)
        return np.concatenate([rng.randint(0, images, (shape[0], 1)), corners], axis=1)

    return make


def boxes(rng: Any, shape: Any) -> Any:
    """Corners of boxes within the unit square."""
    corners = np.sort(rng.uniform(0, 1, (*shape[:-1], 2, 2)), axis=-2)
    return corners.reshape(shape)


def _add(name: str, suffix: str, inputs: dict, options: dict, **rest: Any) -> None:
    CASES.add(
        name.lstrip("_") + suffix,
        lambda sym: op(sym, name)(*[sym.Variable(n) for n in inputs], name="y", **options),
        inputs,
        **rest,
    )


def _sampling() -> None:
    _add("GridGenerator", "_affine", {"a": (2, 6)}, {"transform_type": "affine", "target_shape": (3, 4)})
    _add("GridGenerator", "_warp", {"a": (2, 2, 3, 4)}, {"transform_type": "warp"})
    _add(
        "BilinearSampler",
        "",
        {"a": (2, 3, 4, 5), "g": (2, 2, 3, 4)},
        {},
        values={"g": uniform(-1.3, 1.3)},
        atol=1e-5,
    )
    _add(
        "SpatialTransformer",
        "",
        {"a": (2, 3, 4, 5), "loc": (2, 6)},
        {"transform_type": "affine", "sampler_type": "bilinear", "target_shape": (3, 4)},
        values={"loc": uniform(-0.8, 0.8)},
        atol=2e-5,
    )
    maps = {"a": (2, 3, 8, 9), "b": (2, 3, 8, 9)}
    for i, options in enumerate(
        [
            {},
            {"kernel_size": 3, "max_displacement": 2, "pad_size": 2},
            {"kernel_size": 3, "max_displacement": 2, "pad_size": 3, "stride1": 2, "stride2": 2},
            {"is_multiply": False, "pad_size": 1},
            {"kernel_size": 1, "max_displacement": 3, "pad_size": 2, "stride2": 2, "is_multiply": False},
        ]
    ):
        _add("Correlation", f"_{i}", maps, options)


def _regions() -> None:
    inputs = {"a": (2, 3, 8, 9), "r": (5, 5)}
    for i, options in enumerate(
        [
            {"pooled_size": (2, 3), "spatial_scale": 1.0},
            {"pooled_size": (3, 3), "spatial_scale": 0.5},
        ]
    ):
        rest: dict[str, Any] = {
            "values": {"r": rois(2, 8 / options["spatial_scale"])},  # type: ignore[operator]
            "no_grad": ("r",),
        }
        _add("ROIPooling", f"_{i}", inputs, options, **rest)
    for i, options in enumerate(
        [
            {"pooled_size": (2, 3), "spatial_scale": 1.0},
            {"pooled_size": (3, 3), "spatial_scale": 0.5, "sample_ratio": 2},
            {"pooled_size": (2, 2), "spatial_scale": 0.5, "aligned": True},
            {"pooled_size": (1, 3), "spatial_scale": 1.0, "position_sensitive": True, "sample_ratio": 2},
        ]
    ):
        rest = {"values": {"r": rois(2, 8 / options["spatial_scale"])}, "no_grad": ("r",)}  # type: ignore[operator]
        _add("_contrib_ROIAlign", f"_{i}", inputs, options, atol=1e-5, **rest)


def detections(rng: Any, shape: Any) -> Any:
    """Class, score, corners."""
    label, score = rng.randint(0, 3, (*shape[:-1], 1)), rng.uniform(0, 1, (*shape[:-1], 1))
    return np.concatenate([label, score, boxes(rng, (*shape[:-1], 4))], axis=-1)


def labels(rng: Any, shape: Any) -> Any:
    """Class and corners of fewer and fewer objects."""
    kind = rng.randint(0, 3, (*shape[:-1], 1)).astype(float)
    found = np.concatenate([kind, boxes(rng, (*shape[:-1], 4))], axis=-1)
    for i in range(shape[0]):
        found[i, shape[1] - i :] = -1
    return found


def _boxes() -> None:
    for form in ("corner", "center"):
        _add(
            "_contrib_box_iou",
            "_" + form,
            {"a": (2, 3, 4), "b": (5, 4)},
            {"format": form},
            values={"a": boxes, "b": boxes},
            train=False,
        )
    for i, options in enumerate(
        [
            {"id_index": 0},
            {"id_index": 0, "force_suppress": True, "overlap_thresh": 0.1},
            {"overlap_thresh": 0.2, "topk": 6},
            {"id_index": 0, "background_id": 1, "valid_thresh": 0.3, "overlap_thresh": 0.1},
            {"in_format": "center", "out_format": "corner", "overlap_thresh": 0.1},
            {"in_format": "corner", "out_format": "center", "overlap_thresh": 0.1},
        ]
    ):
        _add("_contrib_box_nms", f"_{i}", {"a": (2, 10, 6)}, options, values={"a": detections})
    for i, options in enumerate(
        [{"threshold": 0.2}, {"threshold": 0.7, "is_ascend": True}, {"threshold": 0.1, "topk": 2}]
    ):
        _add(
            "_contrib_bipartite_matching",
            f"_{i}",
            {"a": (2, 5, 4)},
            options,
            values={"a": uniform(0, 1)},
            train=False,
        )
    _add(
        "_contrib_box_encode",
        "",
        {"s": (2, 6), "m": (2, 6), "a": (2, 6, 4), "r": (2, 3, 4), "mean": (4,), "std": (4,)},
        {},
        values={
            "s": lambda rng, shape: rng.randint(-1, 2, shape),
            "m": lambda rng, shape: rng.randint(0, 3, shape),
            "a": boxes,
            "r": boxes,
            "std": uniform(0.1, 0.3),
        },
        train=False,
        atol=5e-5,
    )
    for i, options in enumerate(
        [{}, {"format": "corner", "std0": 0.1, "std1": 0.2, "std2": 0.3, "std3": 0.4, "clip": 0.2}]
    ):
        _add(
            "_contrib_box_decode",
            f"_{i}",
            {"a": (2, 6, 4), "b": (1, 6, 4)},
            options,
            values={"b": boxes},
            train=False,
            atol=1e-5,
        )


def _multibox() -> None:
    for i, options in enumerate(
        [
            {"sizes": (0.5, 0.25), "ratios": (1, 2, 0.5)},
            {"sizes": (0.9,), "ratios": (2, 3), "clip": True, "steps": (0.4, 0.3), "offsets": (0.2, 0.3)},
        ]
    ):
        _add("_contrib_MultiBoxPrior", f"_{i}", {"a": (1, 3, 2, 3)}, options, train=False)
    inputs: dict[str, Any] = {"a": (1, 20, 4), "l": (3, 2, 5), "c": (3, 4, 20)}
    values = {"a": boxes, "l": labels}
    for i, options in enumerate(
        [
            {},
            {"overlap_threshold": 0.2, "variances": (0.2, 0.2, 0.1, 0.1)},
            {"negative_mining_ratio": 2.0, "negative_mining_thresh": 0.3},
            {"negative_mining_ratio": 1.0, "minimum_negative_samples": 4, "ignore_label": -2},
        ]
    ):
        _add("_contrib_MultiBoxTarget", f"_{i}", inputs, options, values=values, train=False, atol=1e-4)
    inputs = {"c": (2, 4, 12), "l": (2, 48), "a": (1, 12, 4)}

    def probabilities(rng: Any, shape: Any) -> Any:
        return rng.dirichlet(np.ones(shape[1]), (shape[0], shape[2])).transpose(0, 2, 1)

    values = {"a": boxes, "c": probabilities}
    for i, options in enumerate(
        [
            {},
            {"threshold": 0.4, "nms_threshold": 0.1},
            {"force_suppress": True, "nms_threshold": 0.1, "clip": False},
            {"nms_topk": 4, "nms_threshold": 0.3},
        ]
    ):
        _add("_contrib_MultiBoxDetection", f"_{i}", inputs, options, values=values, train=False, atol=1e-5)


def _proposals() -> None:
    for name, n in (("_contrib_Proposal", 1), ("_contrib_MultiProposal", 2)):
        for i, options in enumerate(
            [
                {"rpn_pre_nms_top_n": 60, "rpn_post_nms_top_n": 10, "output_score": True},
                {"rpn_pre_nms_top_n": 100, "rpn_post_nms_top_n": 50, "threshold": 0.3, "rpn_min_size": 30},
                {"rpn_post_nms_top_n": 12, "iou_loss": True, "output_score": True},
            ]
        ):
            options = {"scales": (2, 4), "ratios": (0.5, 1, 2), "feature_stride": 16, **options}
            _add(
                name,
                f"_{i}",
                {"c": (n, 12, 5, 6), "b": (n, 24, 5, 6), "i": (n, 3)},
                options,
                values={
                    "c": uniform(0, 1),
                    "b": uniform(-0.3, 0.3),
                    "i": lambda rng, shape: np.tile([[75.0, 90.0, 0.8]], (shape[0], 1)),
                },
                train=False,
                atol=1e-3,
            )


for _family in (_sampling, _regions, _boxes, _multibox, _proposals):
    _family()
