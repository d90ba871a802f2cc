"""Settings of the record iterators under which nothing is random: MXNet's pixels are in a fixture.

Imported by the tests and, under the oracle's Python, by make_picture_fixtures.py.
"""

from __future__ import annotations

from typing import Any

BATCH = 3
SHAPE = (3, 24, 32)

# Name to keywords; data_shape is SHAPE unless given.
PICTURES: dict[str, dict[str, Any]] = {
    "center": {},
    "resize": {"resize": 30},
    "nearest": {"resize": 30, "inter_method": 0},
    "area": {"resize": 30, "inter_method": 3},
    "lanczos": {"resize": 30, "inter_method": 4},
    "by_direction": {"resize": 30, "inter_method": 9},
    "smaller_than_asked": {"data_shape": (3, 70, 30)},
    "grey": {"data_shape": (1, 24, 32)},
    "mirror": {"mirror": True},
    "pad": {"pad": 5, "data_shape": (3, 50, 40), "fill_value": 9},
    "square": {"min_crop_size": 20, "max_crop_size": 20},
    "whole_area": {
        "random_resized_crop": True,
        "min_random_area": 1,
        "max_random_area": 1,
        "min_aspect_ratio": 1.0,
        "max_aspect_ratio": 1.0,
    },
    "normalized": {
        "mean_r": 123.68,
        "mean_g": 116.779,
        "mean_b": 103.939,
        "std_r": 58.393,
        "std_g": 57.12,
        "std_b": 57.375,
        "scale": 0.5,
        "data_shape": (3, 8, 8),
    },
    "mean_grey": {"data_shape": (1, 8, 8), "mean_r": 10, "std_r": 3, "mirror": True, "scale": 0.1},
}
# Affine maps and cubic interpolation: newer OpenCVs round differently.
ROUNDED: dict[str, dict[str, Any]] = {
    "cubic": {"resize": 30, "inter_method": 2},
    "cubic_by_direction": {"resize": 60, "inter_method": 9},
    "rotate": {"rotate": 30},
    "scale": {"min_random_scale": 0.8, "max_random_scale": 0.8},
    "aspect": {"min_aspect_ratio": 1.3, "max_aspect_ratio": 1.3},
    "size_limits": {"max_img_size": 36.0, "min_img_size": 30.0},
}
BOXES: dict[str, dict[str, Any]] = {
    "force": {},
    "fit": {"resize_mode": "fit"},
    "shrink": {"resize_mode": "shrink", "data_shape": (3, 70, 90)},
    "mirror": {"rand_mirror_prob": 1},
    "normalized": {"mean_r": 10, "std_r": 2, "scale": 0.5, "data_shape": (3, 8, 8), "resize_mode": "fit"},
    "padded_label": {"label_pad_width": 30, "label_pad_value": -2, "resize": 20},
}
# What the labels of three epochs are, batch by batch, with their padding.
ORDERS: dict[str, dict[str, Any]] = {
    "all": {"batch_size": 3},
    "part_0_of_2": {"batch_size": 3, "num_parts": 2, "part_index": 0},
    "part_1_of_2": {"batch_size": 3, "num_parts": 2, "part_index": 1},
    "indexed_part_0_of_3": {"batch_size": 2, "num_parts": 3, "part_index": 0, "path_imgidx": True},
    "indexed_part_1_of_3": {"batch_size": 2, "num_parts": 3, "part_index": 1, "path_imgidx": True},
    "two_files": {"batch_size": 5, "path_imgrec": 2},
}
