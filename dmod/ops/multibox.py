"""Anchors of the single shot detector: contrib.MultiBoxPrior, MultiBoxTarget, MultiBoxDetection.

Liu et al.: SSD, 2016. Boxes are corners, in shares of the image. Matching runs on the host.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.boxes import kept_boxes, overlaps, to_centers, to_corners
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number, numbers
from dmod.ops.registry import Attrs, Call, Shapes, Step, register, same_type, zero_gradient

VARIANCES = Param("variances", numbers, (0.1, 0.1, 0.2, 0.2), "What the parts of a move are divided by.")


def _infer_prior(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if not attrs.sizes or not attrs.ratios or len(attrs.steps) != 2 or len(attrs.offsets) != 2:
        raise InvalidArgument("expected at least one of sizes and of ratios, two steps and two offsets")
    if data is None:
        return [data], [None], []
    if len(data) != 4:
        raise InvalidArgument(f"data has shape {data}, expected maps (N, C, H, W)")
    count = len(attrs.sizes) + len(attrs.ratios) - 1
    return [data], [(1, data[2] * data[3] * count, 4)], []


def _priors(attrs: Attrs, height: int, width: int) -> np.ndarray:
    """The anchors of every place: each size with the first ratio, the first size with the other ratios."""
    pairs = [(s, attrs.ratios[0]) for s in attrs.sizes] + [(attrs.sizes[0], r) for r in attrs.ratios[1:]]
    half = np.array([(s * height / width * math.sqrt(r), s / math.sqrt(r)) for s, r in pairs]) / 2
    step_y = attrs.steps[0] if attrs.steps[0] > 0 else 1 / height
    step_x = attrs.steps[1] if attrs.steps[1] > 0 else 1 / width
    y = (np.arange(height) + attrs.offsets[0]) * step_y
    x = (np.arange(width) + attrs.offsets[1]) * step_x
    center = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)[:, :, None, :]
    boxes = np.concatenate([center - half, center + half], axis=-1).reshape(1, -1, 4)
    return np.clip(boxes, 0, 1) if attrs.clip else boxes


def _prior(call: Call) -> Step:
    out = call.outputs[0]
    boxes = _priors(call.attrs, *call.inputs[0].shape[2:]).astype(np.float32)
    found = call.device.from_host(boxes)
    return lambda: call.xp.copyto(out, found, casting="same_kind")


register(
    "_contrib_MultiBoxPrior",
    params=[
        Param("sizes", numbers, (1.0,), "Sizes of anchors, in shares of the image's height."),
        Param("ratios", numbers, (1.0,), "Ratios of width and height."),
        Param("clip", boolean, False, "Whether anchors end where the image does."),
        Param("steps", numbers, (-1.0, -1.0), "Distances between anchors, y and x; -1: one pixel of data."),
        Param("offsets", numbers, (0.5, 0.5), "Where in its step an anchor is, y and x."),
    ],
    infer_shape=_infer_prior,
    forward=_prior,
    backward=zero_gradient,
    doc="Anchors (1, H * W * (sizes + ratios - 1), 4) around each pixel of data (N, C, H, W).",
)


def _infer_target(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    anchor, label, cls_pred = inputs
    anchor = merge_shapes((1, -1, 4), anchor, "anchor")
    if label is not None and (len(label) != 3 or 0 <= label[2] < 5):
        raise InvalidArgument(f"label has shape {label}, expected (N, objects, 5 or more)")
    batch = label[0] if label is not None else -1
    assert anchor is not None
    cls_pred = merge_shapes((batch, -1, anchor[1]), cls_pred, "cls_pred")
    if -1 in anchor or batch == -1:
        return [anchor, label, cls_pred], [None] * 3, []
    moves = (batch, anchor[1] * 4)
    return [anchor, label, cls_pred], [moves, moves, (batch, anchor[1])], []


def _match(attrs: Attrs, shared: np.ndarray) -> np.ndarray:
    """The object that each anchor stands for, or -1.

    Each object gets its best anchor, the best pairs first; then each anchor that overlaps an object by
    enough stands for that one.
    """
    anchors, objects = shared.shape
    match = np.full(anchors, -1)
    left = shared.copy()
    for _ in range(objects):
        a, o = divmod(int(left.argmax()), objects)
        if left[a, o] <= 1e-6:
            break
        match[a] = o
        left[a, :] = -1
        left[:, o] = -1
    best = shared.argmax(axis=1)
    free = (match < 0) & (shared.max(axis=1) > attrs.overlap_threshold)
    return np.where(free, best, match)


def _negatives(attrs: Attrs, match: np.ndarray, shared: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which anchors count as background: all others, or the hardest of them."""
    others = match < 0
    if attrs.negative_mining_ratio <= 0:
        return others
    positives = int((~others).sum())
    count = min(int(positives * attrs.negative_mining_ratio), len(match) - positives)
    candidates = np.flatnonzero(others & (shared.max(axis=1) < attrs.negative_mining_thresh))
    shifted = np.exp(scores - scores.max(axis=0))
    background = shifted[0] / shifted.sum(axis=0)
    hardest = candidates[np.argsort(background[candidates], kind="stable")][:count]
    chosen = np.zeros(len(match), bool)
    chosen[hardest] = True
    return chosen


def _moves(anchors: np.ndarray, boxes: np.ndarray, variances: Any) -> np.ndarray:
    anchor, box = to_centers(np, anchors), to_centers(np, boxes)
    move = (box[:, :2] - anchor[:, :2]) / anchor[:, 2:]
    sizes = np.log(np.maximum(box[:, 2:] / anchor[:, 2:], 1e-8))
    return np.concatenate([move, sizes], axis=1) / np.asarray(variances, anchors.dtype)


def _target(call: Call) -> Step:
    attrs, (anchor, label, cls_pred) = call.attrs, call.inputs
    moves, masks, classes = call.outputs

    def run() -> None:
        moves.fill(0)
        masks.fill(0)
        classes.fill(attrs.ignore_label)
        for n, objects in enumerate(label):
            ends = np.flatnonzero(objects[:, 0] == -1)
            objects = objects[: ends[0]] if len(ends) else objects
            if not len(objects):
                continue
            shared = overlaps(np, anchor[0], objects[:, 1:5])
            match = _match(attrs, shared)
            chosen = match >= 0
            classes[n, _negatives(attrs, match, shared, cls_pred[n])] = 0
            classes[n, chosen] = objects[match[chosen], 0] + 1
            moves[n].reshape(-1, 4)[chosen] = _moves(
                anchor[0][chosen], objects[match[chosen], 1:5], attrs.variances
            )
            masks[n].reshape(-1, 4)[chosen] = 1

    return run


register(
    "_contrib_MultiBoxTarget",
    params=[
        Param("overlap_threshold", number, 0.5, "Anchors that overlap an object by more stand for it."),
        Param("ignore_label", number, -1.0, "The class of anchors that do not count."),
        Param("negative_mining_ratio", number, -1.0, "How many backgrounds per object; -1: all of them."),
        Param("negative_mining_thresh", number, 0.5, "Only anchors that overlap by less are backgrounds."),
        Param("minimum_negative_samples", integer, 0, "Ignored, as by MXNet."),
        VARIANCES,
    ],
    arguments=["anchor", "label", "cls_pred"],
    outputs=["loc_target", "loc_mask", "cls_target"],
    num_visible=lambda attrs: 3,
    infer_shape=_infer_target,
    infer_type=same_type(3),
    forward=_target,
    backward=zero_gradient,
    host=True,
    doc="""What a detector should answer for each anchor: the move to its object, a mask, and the class.

anchor (1, A, 4), label (N, M, 5) with class, xmin, ymin, xmax, ymax (class -1 ends the list), cls_pred
(N, classes, A). The outputs are (N, 4 A), (N, 4 A) and (N, A); class 0 is the background.""",
)


def _infer_detection(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    cls_prob, loc_pred, anchor = inputs
    if cls_prob is None:
        return inputs, [None], []
    if len(cls_prob) != 3:
        raise InvalidArgument(f"cls_prob has shape {cls_prob}, expected (N, classes, anchors)")
    n, _, count = cls_prob
    loc_pred = merge_shapes((n, 4 * count), loc_pred, "loc_pred")
    return [cls_prob, loc_pred, merge_shapes((1, count, 4), anchor, "anchor")], [(n, count, 6)], []


def _moved(anchors: np.ndarray, moves: np.ndarray, attrs: Attrs) -> np.ndarray:
    anchor, scaled = to_centers(np, anchors), moves * np.asarray(attrs.variances, anchors.dtype)
    center = scaled[:, :2] * anchor[:, 2:] + anchor[:, :2]
    boxes = to_corners(np, np.concatenate([center, np.exp(scaled[:, 2:]) * anchor[:, 2:]], axis=1))
    return np.clip(boxes, 0, 1) if attrs.clip else boxes


def _detection(call: Call) -> Step:
    attrs, (cls_prob, loc_pred, anchor), out = call.attrs, call.inputs, call.outputs[0]
    foreground = [c for c in range(cls_prob.shape[1]) if c != attrs.background_id]

    def run() -> None:
        out.fill(-1)
        for n, scores in enumerate(cls_prob):
            best = scores[foreground].argmax(axis=0)
            score = scores[foreground].max(axis=0)
            valid = np.flatnonzero(score >= attrs.threshold)
            order = valid[np.argsort(-score[valid], kind="stable")]
            count = min(attrs.nms_topk, len(order)) if attrs.nms_topk > 0 else len(order)
            order = np.concatenate([order[:count], valid[count:]])  # MXNet sorts no more than topk
            boxes = _moved(anchor[0][order], loc_pred[n].reshape(-1, 4)[order], attrs)
            found = out[n, : len(order)]
            found[:, 0], found[:, 1], found[:, 2:] = best[order], score[order], boxes
            found[count:, 0] = -1
            if 0 < attrs.nms_threshold <= 1:
                live = np.flatnonzero(found[:, 0] >= 0)
                groups = None if attrs.force_suppress else found[live, 0]
                found[live[~kept_boxes(boxes[live], groups, attrs.nms_threshold)], 0] = -1

    return run


register(
    "_contrib_MultiBoxDetection",
    params=[
        Param("clip", boolean, True, "Whether boxes end where the image does."),
        Param("threshold", number, 0.01, "The least probability of a detection."),
        Param("background_id", integer, 0, "The class that is no object."),
        Param("nms_threshold", number, 0.5, "Boxes that overlap a better one by more than this go."),
        Param("force_suppress", boolean, False, "Whether boxes of other classes suppress a box too."),
        VARIANCES,
        Param("nms_topk", integer, -1, "How many boxes take part; -1 for all."),
    ],
    arguments=["cls_prob", "loc_pred", "anchor"],
    infer_shape=_infer_detection,
    forward=_detection,
    backward=zero_gradient,
    host=True,
    doc="""The objects that a detector found, by falling probability.

cls_prob (N, classes, A), loc_pred (N, 4 A), anchor (1, A, 4). The output (N, A, 6) has class (without the
background, -1 for none), probability and corners.""",
)
