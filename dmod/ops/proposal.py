"""Regions proposed by a network: contrib.Proposal, contrib.MultiProposal. On the host.

Ren et al.: Faster R-CNN, 2015. Boxes are corners in pixels of the image, both ends included.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number, numbers
from dmod.ops.registry import Attrs, Call, Shapes, Step, register, same_type, zero_gradient

_TINY = np.float32(0.5)


def base_anchors(attrs: Attrs) -> np.ndarray:
    """The anchors of the first place, (ratios * scales, 4)."""
    side = attrs.feature_stride
    middle = (side - 1) / 2
    found = []
    for ratio in attrs.ratios:
        width = np.floor(np.sqrt(np.floor(side * side / ratio)) + 0.5)
        height = np.floor(width * ratio + 0.5)
        for scale in attrs.scales:
            w, h = (width * scale - 1) / 2, (height * scale - 1) / 2
            found.append([middle - w, middle - h, middle + w, middle + h])
    return np.array(found, np.float32)


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    prob, boxes, info = inputs
    if prob is None or -1 in prob:
        return inputs, [None, None], []
    count = len(attrs.scales) * len(attrs.ratios)
    if len(prob) != 4 or prob[1] != 2 * count:
        raise InvalidArgument(f"cls_prob: expected (N, {2 * count}, H, W) for {count} anchors, got {prob}")
    n, _, height, width = prob
    boxes = merge_shapes((n, 4 * count, height, width), boxes, "bbox_pred")
    rows = n * attrs.rpn_post_nms_top_n
    return [prob, boxes, merge_shapes((n, 3), info, "im_info")], [(rows, 5), (rows, 1)], []


def _moved(attrs: Attrs, anchors: np.ndarray, moves: np.ndarray) -> np.ndarray:
    if attrs.iou_loss:
        return anchors + moves
    size = anchors[:, 2:] - anchors[:, :2] + 1
    center = anchors[:, :2] + _TINY * (size - 1)
    center = moves[:, :2] * size + center
    size = np.exp(moves[:, 2:]) * size
    return np.concatenate([center - _TINY * (size - 1), center + _TINY * (size - 1)], axis=1)


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.maximum(high - low + 1, 0).prod(axis=1)
    area = (box[2:] - box[:2] + 1).prod()
    return common / (area + (others[:, 2:] - others[:, :2] + 1).prod(axis=1) - common)


def _proposals(attrs: Attrs, prob: Any, moves: Any, info: Any, base: np.ndarray) -> tuple[Any, Any]:
    """The boxes and scores proposed for one image."""
    count, (height, width) = len(base), prob.shape[1:]
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    shift = np.stack([x, y, x, y], axis=-1).astype(np.float32) * attrs.feature_stride
    anchors = (shift[:, :, None, :] + base).reshape(-1, 4)
    flat = moves.reshape(count, 4, height, width).transpose(2, 3, 0, 1).reshape(-1, 4)
    scores = prob[count:].transpose(1, 2, 0).reshape(-1).copy()
    boxes = _moved(attrs, anchors, flat)
    limit = np.array([info[1] - 1, info[0] - 1] * 2, np.float32)
    boxes = np.clip(boxes, 0, limit)
    # Places beyond the image, which come from padding, and boxes that are too small, come last.
    rows, columns = int(info[0] / attrs.feature_stride), int(info[1] / attrs.feature_stride)
    scores[np.repeat(((y >= rows) | (x >= columns)).reshape(-1), count)] = -1
    least = attrs.rpn_min_size * info[2]
    small = (boxes[:, 2:] - boxes[:, :2] + 1 < least).any(axis=1)
    boxes[small] += np.array([-1, -1, 1, 1], np.float32) * np.float32(least / 2)
    scores[small] = -1
    order = np.argsort(-scores, kind="stable")
    if attrs.rpn_pre_nms_top_n > 0:
        order = order[: attrs.rpn_pre_nms_top_n]
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    boxes, scores = boxes[order], scores[order]
    for i in range(len(order)):
        if len(kept) == attrs.rpn_post_nms_top_n:
            break
        if alive[i]:
            kept.append(i)
            alive[i + 1 :] &= _overlap(boxes[i], boxes[i + 1 :]) <= attrs.threshold
    places = [kept[i % len(kept)] for i in range(attrs.rpn_post_nms_top_n)]
    return boxes[places], scores[places]


def _forward(call: Call) -> Step:
    attrs, (prob, moves, info), (out, score) = call.attrs, call.inputs, call.outputs
    base, rows = base_anchors(attrs), attrs.rpn_post_nms_top_n

    def run() -> None:
        for n in range(len(prob)):
            part = slice(n * rows, (n + 1) * rows)
            boxes, scores = _proposals(attrs, prob[n], moves[n], info[n], base)
            out[part, 0], out[part, 1:], score[part, 0] = n, boxes, scores

    return run


for _name in ("Proposal", "MultiProposal"):
    register(
        f"_contrib_{_name}",
        params=[
            Param("rpn_pre_nms_top_n", integer, 6000, "How many boxes take part in the suppression."),
            Param("rpn_post_nms_top_n", integer, 300, "How many boxes come out."),
            Param("threshold", number, 0.7, "Boxes that overlap a better one by more than this go."),
            Param("rpn_min_size", integer, 16, "The least width and height, before the image was scaled."),
            Param("scales", numbers, (4.0, 8.0, 16.0, 32.0), "Sizes of anchors, in strides."),
            Param("ratios", numbers, (0.5, 1.0, 2.0), "Ratios of height and width."),
            Param("feature_stride", integer, 16, "How many pixels of the image a place stands for."),
            Param("output_score", boolean, False, "Whether to give the scores too."),
            Param("iou_loss", boolean, False, "Whether bbox_pred moves corners, by pixels."),
        ],
        arguments=["cls_prob", "bbox_pred", "im_info"],
        outputs=["output", "score"],
        num_visible=lambda attrs: 1 + attrs.output_score,
        infer_shape=_infer,
        infer_type=same_type(2),
        forward=_forward,
        backward=zero_gradient,
        host=True,
        doc="""The regions that are most likely objects, (N * rpn_post_nms_top_n, 5): image number, corners.

cls_prob (N, 2 A, H, W) with the background's probabilities first, bbox_pred (N, 4 A, H, W), im_info
(N, 3) with height, width and scale of each image. There is no gradient.""",
    )
