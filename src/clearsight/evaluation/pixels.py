"""Semantic segmentation: one confusion matrix over all pictures, and accuracy, IoU and Dice from it.

IoU of the sum is not the mean of the pictures' IoU.  Long, Shelhamer & Darrell 2015 (FCN), arXiv:1411.4038, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.statistics import Interval
from clearsight.errors import Refused
from clearsight.evaluation.resampling import Counts, interval_over_pictures, mean_of_defined, ratio

NOT_JUDGED = 255
MEANS = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "mean_dice")


@dataclass(frozen=True)
class PixelScores:
    """Scores of a set of pictures, each from 0 to 1; nan where a score is undefined.

    pixel_accuracy: share of the judged pixels that are right.  mean_accuracy: mean over the classes that the truth
    shows of the share of their pixels that are right.  mean_iou, mean_dice: means over the classes that the truth or a
    prediction shows; one that only a prediction shows counts 0.  frequency_weighted_iou: IoU weighted by the pixels of
    the truth, so that false alarms of absent classes weigh nothing.
    accuracy, iou, dice (K,) float64: of each class.  truth (K,) int64: its pixels.  intervals: of the five means by
    name, 95 %, over draws of pictures; None for fewer than seven.  n: pictures.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_dice: float
    accuracy: NDArray[np.float64]
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]
    truth: NDArray[np.int64]
    intervals: dict[str, Interval | None]
    n: int


@dataclass
class PixelCounts:
    """Counts of pixels, one picture after another: memory for classes x classes, and 3 x classes for each picture.

    Args:
        classes: number of classes K, 1 to 255; class numbers are 0 to K - 1.

    Refused: more than 255 classes, as 255 marks what is not judged; in `add`, what `confusion` refuses.

    >>> counts = PixelCounts(3)
    >>> counts.add(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    >>> counts.matrix.tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    >>> scores = counts.scores()
    >>> scores.iou.tolist(), scores.mean_iou  # class 2 is nowhere, so that its IoU is undefined
    ([0.5, 0.5, nan], 0.5)
    """

    classes: int
    matrix: Tensor = field(init=False)  # (K, K) int64: truth down, prediction across
    per_picture: list[NDArray[np.int64]] = field(init=False, default_factory=list)  # (3, K): both, truth, prediction

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= NOT_JUDGED:
            raise Refused(f"{self.classes} classes: give 1 to {NOT_JUDGED}", f"{NOT_JUDGED} marks what is not judged")
        self.matrix = torch.zeros(self.classes, self.classes, dtype=torch.int64)

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Count one picture: class numbers (H, W), where the truth is 255 nothing counts."""
        found = confusion(prediction, truth, self.classes)
        self.matrix += found
        self.per_picture.append(_of_matrix(found))

    def scores(self, seed: int = 0) -> PixelScores:
        """The scores of all pictures so far; seed: start of the draws for the intervals."""
        rows = np.array(self.per_picture, dtype=np.float64).reshape(-1, 3, self.classes)
        total = rows.sum(0)
        both, truth, predicted = total
        means = dict(zip(MEANS, means_of_counts(total[None])[0].tolist(), strict=True))
        return PixelScores(
            **means,
            accuracy=ratio(both, truth),
            iou=ratio(both, truth + predicted - both),
            dice=ratio(2 * both, truth + predicted),
            truth=truth.astype(np.int64),
            intervals=dict(zip(MEANS, interval_over_pictures(rows, means_of_counts, seed), strict=True)),
            n=len(rows),
        )


def counted_pixels(prediction: Tensor, truth: Tensor, classes: int) -> NDArray[np.int64]:
    """The pixels of each class in both, in the truth, in the prediction: (3, K).  As `PixelCounts.add` counts them.

    >>> counted_pixels(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]), 2).tolist()
    [[1, 1], [1, 2], [2, 1]]
    """
    return _of_matrix(confusion(prediction, truth, classes))


def _of_matrix(found: Tensor) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = torch.stack([found.diagonal(), found.sum(1), found.sum(0)]).numpy()
    return counts


def confusion(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How many pixels of each class (row) are predicted as which (column): (K, K) int64 on the CPU.

    prediction, truth: class numbers (H, W), whole numbers of any integer type; pixels whose truth is 255 are left out.

    Refused: other shapes than each other's, floats, and class numbers of judged pixels outside 0 to K - 1.

    >>> confusion(torch.tensor([[0, 1]]), torch.tensor([[1, 255]]), 2).tolist()
    [[0, 0], [1, 0]]
    """
    judged_prediction, judged_truth = judged(prediction, truth, classes)
    cells = judged_truth * classes + judged_prediction
    return torch.bincount(cells, minlength=classes * classes).view(classes, classes).cpu()


def judged(prediction: Tensor, truth: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Class numbers (n,) int64 of the pixels that are judged, predicted and true.  Refused: as for `confusion`."""
    if prediction.shape != truth.shape:
        raise Refused(
            f"a prediction of {tuple(prediction.shape)} pixels does not fit a truth of {tuple(truth.shape)}",
            "enlarge the logits to the picture, then take the best class",
        )
    for name, values in (("prediction", prediction), ("truth", truth)):
        if values.is_floating_point() or values.dtype == torch.bool:
            raise Refused(f"the {name} is {values.dtype}: give class numbers, whole numbers from 0 to {classes - 1}")
    truth = truth.to(prediction.device)
    kept = truth != NOT_JUDGED
    pair = prediction[kept].long(), truth[kept].long()
    for name, values in zip(("prediction", "truth"), pair, strict=True):
        wrong = values[(values < 0) | (values >= classes)]
        if len(wrong):
            raise Refused(
                f"class {int(wrong[0])} in the {name}: classes are 0 to {classes - 1}",
                f"{NOT_JUDGED} in the truth marks what is not judged",
            )
    return pair


def means_of_counts(counts: Counts) -> Counts:
    """Counts (draws, 3, K) -> the means (draws, 5) in the order of MEANS."""
    both, truth, predicted = counts[:, 0], counts[:, 1], counts[:, 2]
    iou = ratio(both, truth + predicted - both)
    every = truth.sum(-1)
    return np.stack(
        [
            ratio(both.sum(-1), every),
            mean_of_defined(ratio(both, truth)),
            mean_of_defined(iou),
            ratio((truth * np.nan_to_num(iou)).sum(-1), every),
            mean_of_defined(ratio(2 * both, truth + predicted)),
        ],
        -1,
    )


def iou_by_picture(counts: NDArray[np.int64]) -> Counts:
    """The mean IoU of each picture by itself, over the classes that it or its answer shows; nan where none is judged.

    counts (n, 3, K): the pixels of each class in both, in the truth, in the answer; -> (n,).

    >>> iou_by_picture(np.array([[[1, 2, 0], [2, 2, 0], [1, 3, 0]], [[0, 0, 0]] * 3])).round(4).tolist()
    [0.5833, nan]
    """
    return means_of_counts(counts.astype(np.float64))[:, MEANS.index("mean_iou")]
