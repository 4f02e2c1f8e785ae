"""The geometry of boxes: areas, overlaps, conversions, and suppression of boxes that say the same thing twice.

A box is x1, y1, x2, y2 in pixels: its left, upper, right and lower edges.  Its width is x2 - x1; nothing is added.
A box whose right edge is not right of its left one, or whose lower edge is not below its upper one, is empty: its area
is 0, and so is its overlap with anything, itself included.  No function gives NaN for finite boxes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearsight.errors import NotFinite, Refused

Format = Literal["xyxy", "xywh", "cxcywh"]


def area(boxes: Tensor) -> Tensor:
    """The area of each box, 0 of an empty one: (..., 4) -> (...), in square pixels.

    >>> area(torch.tensor([[0.0, 0.0, 4.0, 3.0], [5.0, 5.0, 5.0, 5.0], [4.0, 0.0, 0.0, 3.0]])).tolist()
    [12.0, 0.0, 0.0]
    """
    boxes = _wide(boxes)
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """The area that two boxes share: (..., 4) and (..., 4), broadcast -> (...), in square pixels.

    >>> intersection(torch.tensor([0.0, 0.0, 4.0, 4.0]), torch.tensor([2.0, 2.0, 6.0, 6.0])).item()
    4.0
    """
    a, b = _wide(a), _wide(b)
    upper_left = torch.maximum(a[..., :2], b[..., :2])
    lower_right = torch.minimum(a[..., 2:], b[..., 2:])
    width, height = (lower_right - upper_left).clamp(min=0).unbind(-1)
    return width * height


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (Jaccard index): (..., 4) and (..., 4), broadcast -> (...), in [0, 1].

    0 with an empty box.  ``iou(a[:, None], b)`` is the table of all pairs, which ``iou_table`` gives.  Gradients reach
    both boxes where they overlap, and neither where they do not: ``giou`` has one there.

    Two squares of 2 that share one pixel of the seven that they cover:

    >>> round(iou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])).item(), 6)
    0.142857
    """
    shared = intersection(a, b)
    return _share(shared, area(a) + area(b) - shared)


def iou_table(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of a (N, 4) with every box of b (M, 4) -> (N, M).

    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> iou_table(box, torch.tensor([[0.0, 0.0, 10.0, 5.0], [20.0, 0.0, 30.0, 10.0]])).tolist()
    [[0.5, 0.0]]
    """
    return iou(a[..., :, None, :], b[..., None, :, :])


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised intersection over union: IoU - (C - U) / C, C the area of the smallest box around both.

    (..., 4) and (..., 4), broadcast -> (...), in [-1, 1].  It falls below 0 the further the boxes are apart.  Where the
    box around both has no area the second term is 0: two empty boxes at one place have 0, far apart they have -1.

    Rezatofighi, Tsoi, Gwak, Sadeghian, Reid & Savarese 2019, arXiv:1902.09630, algorithm 1.

    >>> round(giou(torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([20.0, 0.0, 30.0, 10.0])).item(), 6)
    -0.333333
    """
    a, b = _wide(a), _wide(b)
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    upper_left = torch.minimum(a[..., :2], b[..., :2])
    lower_right = torch.maximum(a[..., 2:], b[..., 2:])
    around = area(torch.cat([upper_left, lower_right], dim=-1))
    return _share(shared, union) - _share((around - union).clamp(min=0), around)


def intersection_over_detection(detections: Tensor, crowds: Tensor) -> Tensor:
    """How much of a detection lies in a crowd: intersection over the area of the detection, as COCO judges crowds.

    (..., 4) and (..., 4), broadcast -> (...), in [0, 1]; 0 for an empty detection.

    >>> found, crowd = torch.tensor([0.0, 0.0, 4.0, 4.0]), torch.tensor([2.0, 0.0, 90.0, 90.0])
    >>> intersection_over_detection(found, crowd).item()
    0.5
    """
    return _share(intersection(detections, crowds), area(detections))


def convert(boxes: Tensor, given: Format, wanted: Format) -> Tensor:
    """Boxes in another way of writing them: (..., 4) -> (..., 4).

    "xyxy" are edges, "xywh" the upper left corner with width and height, "cxcywh" the centre with width and height.

    >>> convert(torch.tensor([2.0, 4.0, 6.0, 10.0]), "xyxy", "cxcywh").tolist()
    [4.0, 7.0, 4.0, 6.0]
    >>> convert(torch.tensor([4.0, 7.0, 4.0, 6.0]), "cxcywh", "xywh").tolist()
    [2.0, 4.0, 4.0, 6.0]
    """
    for name in (given, wanted):
        if name not in ("xyxy", "xywh", "cxcywh"):
            raise Refused(f"boxes cannot be written as {name!r}", "give xyxy, xywh or cxcywh")
    if given == wanted:
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if given == "xywh":
        first, second = first, first + second
    elif given == "cxcywh":
        first, second = first - second / 2, first + second / 2
    if wanted == "xywh":
        first, second = first, second - first
    elif wanted == "cxcywh":
        first, second = (first + second) / 2, second - first
    return torch.cat([first, second], dim=-1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes cut at the edges of a picture: (..., 4) -> (..., 4).  What lies wholly outside becomes empty.

    >>> clip(torch.tensor([[-3.0, 2.0, 5.0, 99.0], [20.0, 2.0, 30.0, 4.0]]), height=8, width=10).tolist()
    [[0.0, 2.0, 5.0, 8.0], [10.0, 2.0, 10.0, 4.0]]
    """
    limits = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), limits)


def suppress(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: which boxes stay, best first; those that overlap a better one by more than threshold go.

    boxes (N, 4), scores (N,), labels (N,) or none -> indices (M,).  With labels, boxes of different classes do not
    suppress each other.  Of equal scores the first counts as better.  An empty box suppresses none, and none it.  An
    IoU of exactly the threshold is kept where the numbers can hold the threshold: 1/2 at 0.5 is, but 3/5 in single
    precision is above 0.6, and goes.

    The work is torchvision's ``nms``, once for each class.  Its ``batched_nms`` moves the classes apart instead, which
    rounds the boxes, and moves boxes that reach below 0 onto those of other classes.

    Refused: scores that are no numbers.

    By hand: the second box has IoU 81 / 119 = 0.68 with the first, the third has none with either.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [20.0, 20.0, 30.0, 30.0]])
    >>> suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    [0, 2]
    >>> suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5, labels=torch.tensor([1, 2, 1])).tolist()
    [0, 1, 2]
    """
    from torchvision.ops import nms  # which what suppresses nothing does not wait for

    _check(boxes, scores, labels)
    boxes, scores = _wide(boxes.detach()), _wide(scores.detach())
    if labels is None:
        return nms(boxes, scores, threshold)  # type: ignore[no-any-return]
    stays = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for label in torch.unique(labels):
        of_class = (labels == label).nonzero()[:, 0]
        stays[of_class[nms(boxes[of_class], scores[of_class], threshold)]] = True
    staying = stays.nonzero()[:, 0]
    return staying[scores[staying].argsort(descending=True, stable=True)]


def soft_suppress(
    boxes: Tensor,
    scores: Tensor,
    *,
    decay: Literal["linear", "gaussian"] = "gaussian",
    threshold: float = 0.5,
    sigma: float = 0.5,
    floor: float = 0.001,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS: boxes that overlap a better one lose some of their score instead of going.

    boxes (N, 4), scores (N,) in [0, 1], labels (N,) or none -> the order in which boxes were picked (M,), and the
    scores they had then (M,), which fall.  These are no probabilities any more: calibrate before.  After each pick all
    other scores of its class are lowered, and the best one left is picked next; of equal scores the first.

    Bodla, Singh, Chellappa & Davis 2017, arXiv:1704.04503, section 3.

    Args:
        boxes: boxes as edges in pixels (N, 4).
        scores: their scores (N,).
        decay: linear: times 1 - IoU where the IoU is at least the threshold; gaussian: times exp(-IoU^2 / sigma).
        threshold: the IoU from which on the linear decay acts.
        sigma: the width of the Gaussian decay.
        floor: boxes whose score falls below it are left out.
        labels: classes, which do not lower each other's scores (N,); without them all boxes are of one class.

    Refused: scores that are no numbers, a sigma that is not above 0, an unknown decay.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [20.0, 20.0, 30.0, 30.0]])
    >>> order, left = soft_suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), decay="linear")
    >>> order.tolist(), [round(s, 4) for s in left.tolist()]
    ([0, 2, 1], [0.9, 0.7, 0.16])
    """
    _check(boxes, scores, labels)
    if decay not in ("linear", "gaussian"):
        raise Refused(f"there is no decay {decay!r}", "give linear or gaussian")
    if not sigma > 0:
        raise Refused(f"sigma {sigma} is not above 0")
    boxes, left = _wide(boxes.detach()), _wide(scores.detach()).clone()
    overlap = iou_table(boxes, boxes)
    if labels is not None:
        overlap = overlap * (labels[:, None] == labels)
    if decay == "linear":
        factor = torch.where(overlap >= threshold, 1 - overlap, torch.ones_like(overlap))
    else:
        factor = torch.exp(-(overlap**2) / sigma)
    order: list[int] = []
    picked_scores: list[float] = []
    for _ in range(len(boxes)):
        best = int(left.argmax())  # of equal values the first
        score = float(left[best])
        if score < floor:
            break
        order.append(best)
        picked_scores.append(score)
        left = left * factor[best]
        left[best] = -torch.inf
    return torch.tensor(order, dtype=torch.int64, device=boxes.device), left.new_tensor(picked_scores)


def _wide(values: Tensor) -> Tensor:
    """Numbers wide enough for areas: a box of 300 pixels has more than a half-precision number can hold."""
    if values.dtype in (torch.float16, torch.bfloat16) or not values.dtype.is_floating_point:
        return values.float()
    return values


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0; so are its gradients there."""
    positive = whole > 0
    return torch.where(positive, part, torch.zeros_like(part)) / torch.where(positive, whole, torch.ones_like(whole))


def _check(boxes: Tensor, scores: Tensor, labels: Tensor | None) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        shapes = f"boxes {tuple(boxes.shape)} and scores {tuple(scores.shape)}"
        raise Refused(f"{shapes} do not fit", "give boxes (N, 4) and scores (N,)")
    if labels is not None and labels.shape != scores.shape:
        raise Refused(f"labels {tuple(labels.shape)} do not fit scores {tuple(scores.shape)}", "give one for each box")
    if scores.isnan().any():
        raise NotFinite("some scores are no numbers", "give finite scores")
