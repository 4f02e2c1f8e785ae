"""What a detector scores that knows nothing, to hold figures against.

Average precision has no fixed chance level: it depends on how many boxes are given, of what size, and on how many
objects there are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clearsight.errors import Refused
from clearsight.evaluation.records import BoxSet


def precision_at_random(right: int, detections: int, truths: int) -> float:
    """The expected average precision if the scores of these detections said nothing: their order is random.

    The mean of precision at each right detection, over all orders, times the share of objects that is found; exact for
    the curve without an envelope, which lies a little below "101" and "all".  With many detections it is precision
    times recall.

    Bestgen 2015, "Exact expected average precision of the random baseline for system evaluation", Prague Bulletin of
    Mathematical Linguistics 103.

    Args:
        right: how many of the detections are right.
        detections: how many there are.
        truths: how many objects there are.

    Refused: more right ones than detections or objects.

    One right detection of two, one object: it comes first or second, so 1 or 1/2.

    >>> precision_at_random(1, 2, 1)
    0.75
    """
    if not 0 <= right <= min(detections, truths):
        raise Refused(f"{right} right of {detections} detections and {truths} objects", "give right <= both")
    if right == 0:
        return 0.0
    harmonic = float((1 / np.arange(1, detections + 1)).sum())
    ahead = (right - 1) / (detections - 1) if detections > 1 else 0.0  # how often another place holds a right one
    return (ahead * (detections - harmonic) + harmonic) / detections * right / truths


def dealt_at_random(boxes: BoxSet, seed: int = 0) -> BoxSet:
    """The same detections, each dealt to a random picture: a detector that knows what boxes look like, but no picture.

    Boxes, scores and classes stay as frequent as they are, so what is left of a figure is what priors alone give.

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> found = picture_boxes([[0, 0, 4, 4]], [0.9], [1], [[0, 0, 4, 4]], [1])
    >>> none = picture_boxes([], [], [], [[50, 50, 54, 54]], [1])
    >>> len(dealt_at_random(box_set([found, none, none])).scores)
    1
    """
    picture = np.sort(np.random.default_rng(seed).integers(0, boxes.pictures, len(boxes.scores)))
    order = np.random.default_rng([seed, 1]).permutation(len(picture))
    return replace(
        boxes, boxes=boxes.boxes[order], scores=boxes.scores[order], labels=boxes.labels[order], picture=picture
    )
