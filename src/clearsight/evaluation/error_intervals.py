"""How far the costs of types of error would move with other pictures of the same kind: a bootstrap over pictures.

Efron 1979, doi:10.1214/aos/1176344552.  What is right, wrong or mended is decided within a picture, so it is decided
once, and a drawn set differs in how often each picture counts.
"""

from __future__ import annotations

import numpy as np

from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.error_types import judged_errors, oracles
from clearsight.evaluation.intervals import drawn_matches, mean_of_draws
from clearsight.evaluation.matching import MOST
from clearsight.evaluation.records import BoxSet, Numbers, Whole
from clearsight.evaluation.resampling import percentiles


def error_intervals(
    boxes: BoxSet, seed: int = 0, draws: int = 300, iou: float = 0.5, background: float = 0.1, most: int = MOST
) -> dict[str, Interval | None]:
    """95 % percentile intervals of the costs that `error_types` gives, by type, moved by the bias of the draws.

    None for fewer than seven pictures, and without true boxes.

    Args:
        boxes: detections and true boxes of all pictures.
        seed: which pictures are drawn.
        draws: how many sets are drawn.
        iou: what a right detection needs at least.
        background: below or at which a detection has nothing to do with an object.
        most: at most so many detections of each picture and class count, the best ones.

    Refused: fewer than 100 draws, which say nothing of the tails.

    In every picture the class is wrong, so no drawn set has another cost:

    >>> from clearsight.evaluation.records import box_set, picture_boxes
    >>> one = picture_boxes([[0, 0, 4, 4]], [0.9], [2], [[0, 0, 4, 4]], [1])
    >>> [round(v, 6) for v in error_intervals(box_set([one] * 8))["class"]]
    [1.0, 1.0]
    """
    if draws < 100:
        raise Refused(f"draws {draws}", "give at least 100")
    n = boxes.pictures
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    drawn = np.concatenate([np.ones((1, n), dtype=np.int64), drawn])
    costs = drawn_costs(boxes, drawn, iou, background, most)
    return {name: percentiles(float(values[0]), values[1:], n) for name, values in costs.items()}


def drawn_costs(
    boxes: BoxSet, drawn: Whole, iou: float = 0.5, background: float = 0.1, most: int = MOST
) -> dict[str, Numbers]:
    """The cost of each type of error in drawn sets of pictures: drawn (R, pictures) counts -> (R,) each, at least 0.

    NaN where a drawn set has no true box.  The other arguments are those of `error_intervals`.
    """
    of = judged_errors(boxes, iou, background, most)
    before = mean_of_draws(drawn_matches(boxes, boxes.labels, of.right[None], of.wrong[None], ~boxes.crowd, drawn))
    costs = {}
    for oracle in oracles(boxes, of):
        mended = drawn_matches(boxes, oracle.labels, oracle.right[None], oracle.wrong[None], oracle.counted, drawn)
        costs[oracle.name] = np.maximum(mean_of_draws(mended) - before, 0)
    return costs
