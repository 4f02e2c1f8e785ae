"""Landmarks: percentage of correct keypoints (PCK), Yang & Ramanan 2013, doi:10.1109/TPAMI.2012.261, section 6.3."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.statistics import Interval, bootstrap
from clearsight.errors import Refused


@dataclass(frozen=True)
class LandmarkScores:
    """pck: share of the visible landmarks that are right, 0 to 1.  error: their mean distance, in lengths.

    Both are nan without a visible landmark.  pck_of, error_of (P,) float64: of each landmark, nan where it is visible
    nowhere.  pck_interval, error_interval: 95 %, of the mean over pictures, each the mean of its visible landmarks
    (those of one picture go together); None for fewer than seven pictures.  n: visible landmarks.  pictures: those
    that show one.
    """

    pck: float
    error: float
    pck_of: Tensor
    error_of: Tensor
    pck_interval: Interval | None
    error_interval: Interval | None
    n: int
    pictures: int


def landmark_errors(predicted: Tensor, truth: Tensor, length: Tensor, visible: Tensor | None = None) -> Tensor:
    """Distances of landmarks from the truth in lengths: (B, P) float64; nan where a landmark is not visible.

    predicted, truth (B, P, 2): x and y in pixels.  length (B,): what is 1, in pixels, such as the distance between the
    eyes, the longer side of the object's box, or the picture's diagonal.  visible (B, P) bool; all unless given.

    Refused: shapes that do not fit, a length that is not above 0, and a visible landmark that is no finite number.

    >>> landmark_errors(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.tensor([10.0])).tolist()
    [[0.5]]
    """
    shape = truth.shape[:2]
    if predicted.shape != truth.shape or truth.dim() != 3 or truth.shape[2] != 2:
        raise Refused(f"landmarks {tuple(predicted.shape)} and {tuple(truth.shape)}: give (B, P, 2) each, x and y")
    seen = torch.ones(shape, dtype=torch.bool, device=truth.device) if visible is None else visible
    if seen.shape != shape or seen.dtype != torch.bool:
        raise Refused(f"visible is {seen.dtype} {tuple(seen.shape)}: give a bool for each landmark, {tuple(shape)}")
    if length.shape != shape[:1]:
        raise Refused(f"length is {tuple(length.shape)}: give one for each of the {shape[0]} pictures")
    if bool((~length.isfinite() | (length <= 0)).any()):
        raise Refused(f"a length of {float(length.min()):g} pixels: give a finite one above 0 for each picture")
    distance: Tensor = torch.linalg.vector_norm(predicted.double() - truth.double(), dim=2) / length.double()[:, None]
    broken = (seen & ~distance.isfinite()).nonzero()
    if len(broken):
        b, p = broken[0].tolist()
        raise Refused(f"landmark {p} of picture {b} is no finite number: mark it as not visible")
    return distance.masked_fill(~seen, torch.nan)


def landmark_scores(errors: Tensor, share: float = 0.1, seed: int = 0) -> LandmarkScores:
    """PCK and mean error of landmarks, from what `landmark_errors` gives.

    Args:
        errors: (B, P) in lengths, nan where a landmark is not visible.
        share: share of the length up to which a landmark is right, itself included.
        seed: start of the draws for the intervals.

    Refused: a share that is not above 0.

    Source: Yang & Ramanan 2013, section 6.3.

    >>> scores = landmark_scores(torch.tensor([[0.05, 0.1, 0.3], [torch.nan, 0.2, 0.0]], dtype=torch.float64))
    >>> scores.pck, round(scores.error, 4), scores.pck_of.tolist(), scores.n
    (0.6, 0.13, [1.0, 0.5, 0.5], 5)
    """
    if not share > 0:
        raise Refused(f"share {share:g} of the length: give more than 0, such as 0.1")
    errors = errors.double().cpu()
    seen = ~errors.isnan()
    right = (errors <= share).double().masked_fill(~seen, torch.nan)
    shown = seen.any(1)
    return LandmarkScores(
        pck=float(right.nanmean()),
        error=float(errors.nanmean()),
        pck_of=right.nanmean(0),
        error_of=errors.nanmean(0),
        pck_interval=bootstrap(right[shown].nanmean(1).tolist(), seed),
        error_interval=bootstrap(errors[shown].nanmean(1).tolist(), seed),
        n=int(seen.sum()),
        pictures=int(shown.sum()),
    )
