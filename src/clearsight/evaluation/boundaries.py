"""Boundary IoU: Cheng, Girshick, Dollár, Berg & Kirillov 2021, arXiv:2103.16562, equation 1."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.pixels import NOT_JUDGED, judged
from clearsight.evaluation.resampling import Counts, interval_over_pictures, mean_of_defined, ratio

SHARE = 0.02  # of the picture's diagonal


@dataclass(frozen=True)
class BoundaryScores:
    """mean_iou: mean of iou (K,) over the classes whose boundary the truth or a prediction shows; nan without any.

    interval: 95 %, over draws of pictures; None for fewer than seven.  n: pictures.
    """

    mean_iou: float
    iou: NDArray[np.float64]
    interval: Interval | None
    n: int


@dataclass
class BoundaryCounts:
    """Pixels of boundaries, counted one picture after another: 2 x classes numbers for each picture.

    Intersections and unions of the classes' boundaries are summed over the pictures before they are divided.  Where the
    truth is 255 the prediction counts as 255 too: both have the same edge there, which a right answer cannot miss.

    Args:
        classes: number of classes K, 1 to 255.
        share: width of a boundary as a share of the picture's diagonal.

    Refused: in `add`, what `pixels.confusion` and `boundary_width` refuse.

    >>> import torch
    >>> truth = torch.zeros(9, 9, dtype=torch.int64)
    >>> truth[2:7, 2:7] = 1
    >>> counts = BoundaryCounts(2)
    >>> counts.add(truth.roll(1, 1), truth)  # of 16 boundary pixels each, 8 are shared; on the ground 32 - 2 of 48 + 2
    >>> round(float(counts.scores().iou[1]), 4) == round(8 / 24, 4)
    True
    """

    classes: int
    share: float = SHARE
    per_picture: list[NDArray[np.int64]] = field(init=False, default_factory=list)  # (2, K): intersection, union

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Count one picture: class numbers (H, W), where the truth is 255 nothing counts."""
        judged(prediction, truth, self.classes)
        width = boundary_width(truth.shape[0], truth.shape[1], self.share)
        kept = (truth != NOT_JUDGED).cpu()
        answer = prediction.cpu().long().masked_fill(~kept, NOT_JUDGED).numpy()
        true = truth.cpu().numpy()
        counts = np.zeros((2, self.classes), dtype=np.int64)
        for k in np.union1d(answer[kept.numpy()], true[kept.numpy()]).tolist():
            one, other = boundary(answer == k, width), boundary(true == k, width)
            counts[:, k] = (one & other).sum(), (one | other).sum()
        self.per_picture.append(counts)

    def scores(self, seed: int = 0) -> BoundaryScores:
        """The scores of all pictures so far; seed: start of the draws for the interval."""
        rows = np.array(self.per_picture, dtype=np.float64).reshape(-1, 2, self.classes)
        total = rows.sum(0)
        [interval] = interval_over_pictures(rows, _mean, seed)
        return BoundaryScores(float(_mean(total[None])[0, 0]), ratio(total[0], total[1]), interval, len(rows))


def boundary_width(height: int, width: int, share: float = SHARE) -> int:
    """The width of a boundary in pixels: a share of the diagonal, rounded, at least 1.

    Refused: a share that is not above 0.

    >>> boundary_width(480, 640), boundary_width(10, 10)
    (16, 1)
    """
    if not share > 0:
        raise Refused(f"share {share:g} of the diagonal: give more than 0, such as {SHARE}")
    return max(1, round(share * float(np.hypot(height, width))))


def boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask (H, W) that are at most so many king's steps from outside, as all beyond the picture is.

    The same as the mask without its erosion, width times by 3 x 3, after a padding by 1.

    >>> boundary(np.ones((5, 5), dtype=bool), 1).sum()  # n^2 - (n - 2 d)^2
    np.int64(16)
    """
    from scipy import ndimage  # half a second, which what measures no boundary does not wait for

    inner = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    return mask & (inner <= width)


def boundary_iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], share: float = SHARE) -> float:
    """Boundary IoU of two masks (H, W), 0 to 1; nan where both are empty.

    Refused: a share that is not above 0, and masks of two shapes.

    >>> square = np.zeros((9, 9), dtype=bool)
    >>> square[2:7, 2:7] = True
    >>> round(boundary_iou(np.roll(square, 1, 1), square), 4)
    0.3333
    """
    if prediction.shape != truth.shape:
        raise Refused(f"masks {prediction.shape} and {truth.shape} are not of one picture: give two of one shape")
    width = boundary_width(truth.shape[0], truth.shape[1], share)
    one, other = boundary(prediction, width), boundary(truth, width)
    every = int((one | other).sum())
    return int((one & other).sum()) / every if every else float("nan")


def _mean(counts: Counts) -> Counts:
    """Counts (draws, 2, K) -> (draws, 1)."""
    return mean_of_defined(ratio(counts[:, 0], counts[:, 1]))[:, None]
