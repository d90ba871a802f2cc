"""Boxes in images: contrib.box_iou, box_nms, bipartite_matching, box_encode, box_decode.

Boxes are four numbers: the corners xmin, ymin, xmax, ymax, or the centre x, y and width, height.
Suppression and matching go box by box, so those run on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.params import Param, boolean, choice, integer, number
from dmod.ops.registry import Attrs, Call, Shapes, Step, register, same_type, zero_gradient

__all__ = ["kept_boxes", "overlaps", "to_centers", "to_corners"]

_FORMATS = choice(("center", "corner"))


def to_corners(xp: Any, boxes: Any) -> Any:
    """Boxes given by centres, by their corners."""
    center, half = boxes[..., :2], boxes[..., 2:4] * boxes.dtype.type(0.5)
    return xp.concatenate([center - half, center + half], axis=-1)


def to_centers(xp: Any, boxes: Any) -> Any:
    """Boxes given by corners, by their centres."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return xp.concatenate([(low + high) * boxes.dtype.type(0.5), high - low], axis=-1)


def overlaps(xp: Any, lhs: Any, rhs: Any) -> Any:
    """The intersection over the union of each box of lhs (n, 4) with each of rhs (m, 4), by corners."""
    low = xp.maximum(lhs[:, None, :2], rhs[None, :, :2])
    sides = xp.maximum(xp.minimum(lhs[:, None, 2:], rhs[None, :, 2:]) - low, 0)
    common = sides[..., 0] * sides[..., 1]

    def area(boxes: Any) -> Any:
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        return xp.where((width < 0) | (height < 0), 0, width * height)

    union = area(lhs)[:, None] + area(rhs)[None, :] - common
    return xp.where(union > 0, common / xp.where(union > 0, union, 1), 0)


def kept_boxes(corners: np.ndarray, groups: np.ndarray | None, threshold: float) -> np.ndarray:
    """Which boxes stay after non-maximum suppression; they come by falling score.

    A box that overlaps an earlier one that stays by more than `threshold` goes, if `groups` puts both
    into the same group, or is None.
    """
    keep = np.ones(len(corners), bool)
    for i in range(len(corners)):
        if keep[i] and i + 1 < len(corners):
            rest = overlaps(np, corners[i : i + 1], corners[i + 1 :])[0] > threshold
            keep[i + 1 :] &= ~(rest if groups is None else rest & (groups[i + 1 :] == groups[i]))
    return keep


def _infer_iou(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    for name, dims in zip(("lhs", "rhs"), inputs, strict=True):
        if dims is not None and (not dims or dims[-1] not in (4, -1)):
            raise InvalidArgument(f"{name} has shape {dims}, expected boxes (..., 4)")
    lhs, rhs = inputs
    return inputs, [None if lhs is None or rhs is None else (*lhs[:-1], *rhs[:-1])], []


def _iou(call: Call) -> Step:
    xp, out = call.xp, call.outputs[0]
    lhs, rhs = (x.reshape(-1, 4) for x in call.inputs)
    center, flat = call.attrs.format == "center", out.reshape(lhs.shape[0], rhs.shape[0])

    def run() -> None:
        pair = (to_corners(xp, x) if center else x for x in (lhs, rhs))
        xp.copyto(flat, overlaps(xp, *pair))

    return run


register(
    "_contrib_box_iou",
    params=[Param("format", _FORMATS, "corner", "How boxes are given.")],
    arguments=["lhs", "rhs"],
    infer_shape=_infer_iou,
    forward=_iou,
    backward=zero_gradient,
    doc="""The intersection over the union of each box of lhs (..., 4) with each of rhs (..., 4).

It has no gradient.""",
)


def _infer_nms(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "data")
    if data is not None:
        width = max(attrs.coord_start + 4, attrs.score_index + 1, attrs.id_index + 1)
        if len(data) < 2 or (data[-1] != -1 and data[-1] < width):
            raise InvalidArgument(f"data has shape {data}, expected (..., boxes, {width} or more)")
    return [data], [data, None if data is None else data[:-1]], []


def _suppress(attrs: Attrs, boxes: np.ndarray) -> np.ndarray:
    """The numbers of the boxes that stay, by falling score."""
    score, at = boxes[:, attrs.score_index], attrs.coord_start
    valid = score > attrs.valid_thresh
    groups = boxes[:, attrs.id_index] if attrs.id_index >= 0 else None
    if groups is not None and attrs.background_id >= 0:
        valid &= groups != attrs.background_id
    order = np.flatnonzero(valid)
    order = order[np.argsort(-score[order], kind="stable")]
    if attrs.topk > 0:
        order = order[: attrs.topk]
    corners = boxes[order, at : at + 4]
    if attrs.in_format == "center":
        corners = to_corners(np, corners)
    own = None if groups is None or attrs.force_suppress else groups[order]
    return order[kept_boxes(corners, own, attrs.overlap_thresh)]


def _nms(call: Call) -> Step:
    attrs, data, (out, origin) = call.attrs, call.inputs[0], call.outputs
    n, width = data.shape[-2:]
    batches, results, places = data.reshape(-1, n, width), out.reshape(-1, n, width), origin.reshape(-1, n)
    at = attrs.coord_start

    def run() -> None:
        chosen = [_suppress(attrs, boxes) for boxes in batches]
        for boxes, result, place, stay in zip(batches, results, places, chosen, strict=True):
            found = boxes[stay]
            if attrs.in_format != attrs.out_format:
                turn = to_corners if attrs.in_format == "center" else to_centers
                found[:, at : at + 4] = turn(np, found[:, at : at + 4])
            result.fill(-1)
            place.fill(-1)
            result[: len(stay)] = found
            place[: len(stay)] = stay

    return run


def _nms_grad(call: Call) -> Step:
    """Gradients go back with their boxes."""
    (dy, origin), dx = (call.out_grads[0], call.outputs[1]), call.in_grads[0]
    n, width = dx.shape[-2:]
    grads, sources, places = dx.reshape(-1, n, width), dy.reshape(-1, n, width), origin.reshape(-1, n)

    def run() -> None:
        dx.fill(0)
        for grad, source, place in zip(grads, sources, places, strict=True):
            count = int((place >= 0).sum())
            grad[place[:count].astype(np.int64)] = source[:count]

    return run


register(
    "_contrib_box_nms",
    aliases=["_contrib_box_non_maximum_suppression"],
    params=[
        Param("overlap_thresh", number, 0.5, "Boxes that overlap a better one by more than this go."),
        Param("valid_thresh", number, 0.0, "Boxes with scores up to this go first."),
        Param("topk", integer, -1, "How many boxes take part; -1 for all."),
        Param("coord_start", integer, 2, "Where the four coordinates start."),
        Param("score_index", integer, 1, "Where the score is."),
        Param("id_index", integer, -1, "Where the class is; -1 for none."),
        Param("background_id", integer, -1, "The class of boxes that go first; -1 for none."),
        Param("force_suppress", boolean, False, "Whether boxes of other classes suppress a box too."),
        Param("in_format", _FORMATS, "corner", "How boxes are given."),
        Param("out_format", _FORMATS, "corner", "How boxes are returned."),
    ],
    outputs=["output0", "output1"],
    infer_shape=_infer_nms,
    infer_type=same_type(2),
    forward=_nms,
    backward=_nms_grad,
    backward_reads=((), (1,)),
    host=True,
    doc="""Non-maximum suppression: the boxes that stay, by falling score, and -1 for those that go.

data (..., n, k) has a box per row: by default class, score, xmin, ymin, xmax, ymax and what follows.""",
)


def _infer_matching(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [data], [None, None], []
    if len(data) < 2:
        raise InvalidArgument(f"data has shape {data}, expected (..., rows, columns)")
    return [data], [data[:-1], (*data[:-2], data[-1])], []


def _matching(call: Call) -> Step:
    attrs, data, (rows, columns) = call.attrs, call.inputs[0], call.outputs
    n, m = data.shape[-2:]

    def run() -> None:
        rows.fill(-1)
        columns.fill(-1)
        for scores, row, column in zip(
            data.reshape(-1, n * m), rows.reshape(-1, n), columns.reshape(-1, m), strict=True
        ):
            count = 0
            for index in np.argsort(scores if attrs.is_ascend else -scores, kind="stable"):
                i, j = divmod(int(index), m)
                good = scores[index] < attrs.threshold if attrs.is_ascend else scores[index] > attrs.threshold
                if not good:
                    break
                if row[i] == -1 and column[j] == -1:
                    row[i], column[j] = j, i
                    count += 1
                    if 0 < attrs.topk < count:  # MXNet makes one match more than topk
                        break

    return run


register(
    "_contrib_bipartite_matching",
    params=[
        Param("is_ascend", boolean, False, "Whether small scores match best."),
        Param("threshold", number, doc="Pairs with scores up to this (or from this on) do not match."),
        Param("topk", integer, -1, "Stop when there are more matches than this; -1 for no limit."),
    ],
    outputs=["output0", "output1"],
    num_visible=lambda attrs: 2,
    infer_shape=_infer_matching,
    infer_type=same_type(2),
    forward=_matching,
    backward=zero_gradient,
    host=True,
    doc="""Match rows with columns, the best scores first, each at most once.

data (..., n, m); the outputs are the column of each row (..., n), and the row of each column (..., m), or
-1. There is no gradient.""",
)


def _infer_encode(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    samples, matches, anchors, refs, means, stds = inputs
    samples = merge_shapes(samples, matches, "matches")
    if anchors is not None and (len(anchors) != 3 or anchors[-1] != 4):
        raise InvalidArgument(f"anchors has shape {anchors}, expected (B, N, 4)")
    if refs is not None and (len(refs) != 3 or refs[-1] != 4):
        raise InvalidArgument(f"refs has shape {refs}, expected (B, M, 4)")
    means, stds = merge_shapes((4,), means, "means"), merge_shapes((4,), stds, "stds")
    out = None if samples is None else (*samples, 4)
    return [samples, samples, anchors, refs, means, stds], [out, out], []


def _encode(call: Call) -> Step:
    xp, (targets, masks) = call.xp, call.outputs
    samples, matches, anchors, refs, means, stds = call.inputs

    def run() -> None:
        index = matches.astype(np.int64)[..., None]
        ref = to_centers(xp, xp.take_along_axis(refs, xp.repeat(index, 4, axis=-1), axis=1))
        anchor = to_centers(xp, anchors)
        move = (ref[..., :2] - anchor[..., :2]) / anchor[..., 2:]
        found = xp.concatenate([move, xp.log(ref[..., 2:] / anchor[..., 2:])], axis=-1)
        chosen = (samples > 0.5)[..., None]
        xp.copyto(targets, xp.where(chosen, (found - means) / stds, 0), casting="same_kind")
        masks[...] = chosen

    return run


register(
    "_contrib_box_encode",
    arguments=["samples", "matches", "anchors", "refs", "means", "stds"],
    outputs=["output0", "output1"],
    num_visible=lambda attrs: 2,
    infer_shape=_infer_encode,
    infer_type=same_type(2),
    forward=_encode,
    backward=zero_gradient,
    doc="""What moves each anchor (B, N, 4) to the box of refs (B, M, 4) that it matches, and a mask.

samples (B, N) is 1 for anchors that count, matches (B, N) the numbers of their boxes, both by corners;
means and stds (4,) normalise. Both outputs are (B, N, 4).""",
)


def _decode(call: Call) -> Step:
    xp, attrs, (data, anchors), (out,) = call.xp, call.attrs, call.inputs, call.outputs
    stds = [attrs.std0, attrs.std1, attrs.std2, attrs.std3]

    def run() -> None:
        anchor = to_centers(xp, anchors) if attrs.format == "corner" else anchors
        x, y, w, h = (data[..., i] * data.dtype.type(std) for i, std in enumerate(stds))
        if attrs.clip > 0:
            w, h = xp.minimum(w, attrs.clip), xp.minimum(h, attrs.clip)
        width, height = xp.exp(w) * anchor[..., 2], xp.exp(h) * anchor[..., 3]
        x, y = x * anchor[..., 2] + anchor[..., 0], y * anchor[..., 3] + anchor[..., 1]
        xp.copyto(out, to_corners(xp, xp.stack([x, y, width, height], axis=-1)), casting="same_kind")

    return run


def _infer_decode(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, anchors = inputs
    (data,), _, _ = same_shape(attrs, [data], [outputs[0]])
    if data is not None and (len(data) != 3 or data[-1] != 4):
        raise InvalidArgument(f"data has shape {data}, expected (B, N, 4)")
    if data is not None:
        anchors = merge_shapes((1, data[1], 4), anchors, "anchors")
    return [data, anchors], [data], []


register(
    "_contrib_box_decode",
    params=[
        *(Param(f"std{i}", number, 1.0, f"A factor for the move's part {i}.") for i in range(4)),
        Param("clip", number, -1.0, "A limit for the logarithms of sizes; none if not positive."),
        Param("format", _FORMATS, "center", "How anchors are given."),
    ],
    arguments=["data", "anchors"],
    infer_shape=_infer_decode,
    forward=_decode,
    backward=zero_gradient,
    doc="The corners (B, N, 4) of anchors (1, N, 4) moved by data (B, N, 4), the inverse of box_encode.",
)
