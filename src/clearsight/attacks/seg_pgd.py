"""Gu, Zhao, Tresp & Torr 2022, arXiv:2207.12391, equations 4 to 6 and algorithm 1."""

import torch
from torch import Tensor

from clearsight.attacks.common.weighted_pixels import Pixels, stepped
from clearsight.core.catalogue import method
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.kinds.segmenter import Segmenter


@method(paper="arXiv:2207.12391", claims="linf l2 stochastic pictures-only")
def seg_pgd(
    model: Segmenter,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 20,
    step: float | None = None,
    random_start: bool = True,
    norm: Norm = "linf",
) -> Tensor:
    """SegPGD: PGD on a segmenter that turns from pixels not yet misread to those that are, so that they stay so.

    x (B, C, *S) in [0, 1], pictures alone -> the same shape; eps in pixels.  At step t of T the cross entropy of a
    pixel has the weight (t - 1) / 2T if it is misread and 1 less that if it is not; the sum is divided by all pixels,
    and those of class 255 count for nothing.  With PixelsBecome, pixels that have their wanted class take the place of
    the misread ones.

    Every picture takes all steps.  The best iterate is returned: one that meets the goal, and among those (or where
    there is none) the one with the most pixels misread.

    Args:
        steps: number of steps T, from 1.
        step: size of one step in pixels; none is eps / 4, but at least 2.5 eps / steps.
        random_start: begin at a random point of the ball, as published, instead of at the picture.
        norm: norm of the budget and of the steps, linf or l2.

    Refused: goals that name no class of each pixel.

    Source: Gu et al. 2022, equations 4 to 6 and algorithm 1.

    A pixel is named after its brighter channel; one step of 1/16 leaves both alike, two of them turn it over:

    >>> from clearsight.kinds.region_goals import PixelsMisread
    >>> from clearsight.testing import pixel_segmenter
    >>> model = pixel_segmenter([[1.0, 0.0], [0.0, 1.0]], (1, 1))
    >>> x, goal = torch.tensor([[[[0.5625]], [[0.4375]]]]), PixelsMisread(torch.zeros(1, 1, 1, dtype=torch.long))
    >>> seg_pgd(model, x, goal, eps=0.25, random_start=False).flatten().tolist()
    [0.4375, 0.5625]
    """
    return stepped(
        model, x, goal, _weights, "seg-pgd", eps=eps, steps=steps, step=step, random_start=random_start, norm=norm
    )


def _weights(pixels: Pixels, taken: float) -> Tensor:
    """Half of the share of the steps that was taken for pixels that are done, and 1 less that for others."""
    return torch.where(pixels.done, taken / 2, 1 - taken / 2)
