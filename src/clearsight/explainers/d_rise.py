"""Petsiuk et al. 2021, arXiv:2006.03204, section 3."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clearsight.core import diagnostics
from clearsight.core.batching import BYTES, SIZE, at_once
from clearsight.core.boxes import iou
from clearsight.core.catalogue import method
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.grid_masks import MaskGrid
from clearsight.explainers.common.linear_control import ControlledSums
from clearsight.explainers.common.mask_sums import share_of_range
from clearsight.internals.fused_forward import fused_forward
from clearsight.kinds.box_targets import BoxScore
from clearsight.kinds.candidates import Candidates, candidates
from clearsight.kinds.detector import Detector
from clearsight.perturbation.removal import flat

Sureness = Literal["score", "objectness"]
FEW = 4  # pictures of a pass on a processor: no slower than 16, and twice as fast where others fill its cache
BLOCK = 256  # masks after which it is asked whether the map is steady


@method(paper="arXiv:2006.03204", claims="signed class-sensitive stochastic scores-only shares-passes")
def d_rise(
    model: Detector,
    x: Tensor,
    target: Target,
    *,
    masks: int = 1000,
    cells: int = 16,
    keep: float = 0.5,
    sureness: Sureness = "score",
    centre: bool = True,
    control: bool = True,
    fill: float | None = None,
    stop: float = 0.0,
) -> Tensor:
    """The mean of random masks, each times how much of the box is still found in the picture seen through it.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the similarity, which is from 0 to 1: an estimate of its
    mean while a pixel is visible, minus its mean over all masks.

    The similarity of a candidate to the box is the product of their IoU, of the cosine between their probabilities of
    all classes, background left out, and of how sure the candidate is; that of a picture is its best candidate's.  All
    candidates count, before any floor and suppression, or it would be 0 for most masks; which part of the score the
    target names makes no difference.  The probabilities of the box
    are those of the candidate that stands for it in the whole picture; where another class is that one's best, the
    class that is asked about alone.  With one class the cosine is 1.

    A linear model of the similarity, ridge regression on the masks' averages in blocks of pixels, is fitted for each
    mask to all others; what it says is taken off, and its mean over all masks there are, which is known, put in place
    of it (a control variate: Owen, Monte Carlo theory, methods and examples, 2013, section 8.9).  The map stays the
    same in the mean, with 40 to 70 % less variance.

    Equal pictures of a batch, each with a box of its own, are seen through the same masks in the same passes.  The
    diagnostics are "standard error" (of the map, averaged over its pixels), the same "as a share of the range" of the
    map, and "masks".

    Args:
        masks: maximum number of masks (the paper takes 5000); the error falls with their square root.
        cells: cells along each side of the coarse grid, each kept at random; the grid is enlarged and shifted by a part
            of a cell.
        keep: probability that a cell is kept, above 0 and up to 1.
        sureness: "score" is the objectness times the largest probability of a class; "objectness" is the paper's, which
            is 1 for detectors that have none, so that no mask changes it.
        centre: whether the mean over all masks is subtracted; false keeps it, as the paper does, and with it the uneven
            cover of so few masks.
        control: whether the linear model is used; false is the paper's plain mean.
        fill: pixel value behind the masks; none is the mean of the preprocessing, 0 after normalisation, as in the
            paper.
        stop: the standard error, as a share of the map's range, at which no more masks are asked, looked at after each
            256; 0 asks all.

    Refused: targets that name no box.

    With all cells kept and the mean left in, the box's own similarity stands everywhere, here its score:

    >>> from clearsight.testing import tiny_detector
    >>> x, box = torch.zeros(1, 3, 32, 32), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    >>> x[0, 0, :4, :4] = 0.5  # a red square: its logit is 8 * 0.5 - 4 = 0
    >>> m = d_rise(tiny_detector(), x, BoxScore(box, torch.tensor([0])), masks=4, keep=1.0, centre=False)
    >>> tuple(round(v, 4) for v in m[0, 0, :2].tolist())
    (0.5, 0.5)
    """
    if masks < 1 or cells < 1 or not 0 < keep <= 1 or stop < 0:
        raise Refused(
            f"d-rise(masks={masks}, cells={cells}, keep={keep:g}, stop={stop:g}): masks and cells must be at least 1, "
            "keep above 0 and at most 1, stop at least 0"
        )
    if not isinstance(target, BoxScore):
        raise Refused(f"d-rise explains boxes, not {type(target).__name__}: give cs.BoxScore(boxes, classes)")
    grid = MaskGrid(tuple(x.shape[2:]), cells, keep)
    maps, steadiness = torch.zeros_like(x[:, 0]), torch.zeros(3, len(x))
    together = _of_each_picture(x)
    with torch.no_grad(), fused_forward(model, x[:1], masks * len(together)):
        for rows in together:
            sought = _sought(model, x[rows[:1].to(x.device)], target[rows], sureness)
            sums = ControlledSums(len(rows), grid, x[:1], masks, control=control and keep < 1)
            for size in _portions(masks, at_once() if at_once() > SIZE or x.is_cuda else min(at_once(), FEW)):
                kept, shifts = grid.draw(x, rows[:1].repeat(size))
                mask = grid.enlarged(kept, shifts, x)
                sums.add(kept, shifts, mask, _seen(model, x[rows[:1].to(x.device)], mask, fill, sought))
                if stop and sums.masks % BLOCK == 0:
                    found, error = sums.estimate(centred=centre)
                    if bool((share_of_range(error, found) <= stop).all()):
                        break
            found, error = sums.estimate(centred=centre)
            maps[rows.to(x.device)] = (found / keep).to(x)
            shares, mean = share_of_range(error, found), error.mean((1, 2)) / keep
            steadiness[:, rows] = torch.stack([mean, shares, torch.full_like(mean, sums.masks)]).float().cpu()
    for name, values in zip(
        ("standard error", "standard error as a share of the range", "masks"), steadiness, strict=True
    ):
        diagnostics.note(name, values)
    return maps


def _portions(masks: int, size: int) -> list[int]:
    """How many masks go through the network in each pass, at most size; passes end where a block does."""
    blocks = [min(BLOCK, masks - start) for start in range(0, masks, BLOCK)]
    return [min(size, block - start) for block in blocks for start in range(0, block, size)]


def _of_each_picture(x: Tensor) -> list[Tensor]:
    """The rows of x (B, ...) with each of the pictures that differ; no more together than `BYTES` hold the sums of.

    Each row has the same random numbers as others of its picture, so parts of them see the same masks.
    """
    rows: dict[bytes, list[int]] = {}
    for i, picture in enumerate(x.cpu()):
        rows.setdefault(hashlib.blake2b(picture.numpy().tobytes()).digest(), []).append(i)
    most = max(1, BYTES // (4 * 8 * math.prod(x.shape[2:])))
    return [part for them in rows.values() for part in torch.split(torch.tensor(them), most)]


def _seen(model: Detector, picture: Tensor, mask: Tensor, fill: float | None, sought: Similarity) -> Tensor:
    """The similarity (n, D) of a picture (1, C, H, W) seen through masks (n, H, W)."""
    cover = flat(model, picture, fill)
    return sought(candidates(model(cover + mask[:, None] * (picture - cover))))


def _sought(model: Detector, picture: Tensor, target: BoxScore, sureness: Sureness) -> Similarity:
    """The similarity to the boxes of a target, D of them, all in one picture (1, C, H, W)."""
    parts = candidates(model(picture).expand(len(target.boxes), -1, -1))
    rows, classes = torch.arange(len(target.boxes), device=picture.device), target.classes.to(picture.device)
    chances = parts.classes.sigmoid()[rows, target.stands_for(parts)]
    alone = nn.functional.one_hot(classes, chances.shape[1]).to(chances)
    asked = torch.where((chances.argmax(1) == classes)[:, None], chances, alone)
    return Similarity(target.boxes.to(picture), nn.functional.normalize(asked, dim=1), sureness)


@dataclass(frozen=True)
class Similarity:
    """How much of D boxes is found among candidates: equation 2 of the paper, of the best candidate.

    boxes: (D, 4).  classes: (D, K), of length 1.
    """

    boxes: Tensor
    classes: Tensor
    sureness: Sureness

    def __call__(self, parts: Candidates) -> Tensor:
        """(n, D), for n pictures."""
        chances, sure = parts.classes.sigmoid(), parts.objectness.sigmoid()
        if self.sureness == "score":
            sure = sure * chances.amax(2)
        cosine = nn.functional.normalize(chances, dim=2) @ self.classes.mT
        return (iou(parts.boxes[:, :, None], self.boxes) * cosine * sure[..., None]).amax(1)
