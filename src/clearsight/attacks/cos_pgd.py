"""Agnihotri, Jung & Keuper 2024, arXiv:2302.02213, section 3."""

from torch import Tensor

from clearsight.attacks.common.weighted_pixels import Pixels, stepped
from clearsight.core.catalogue import method
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.kinds.segmenter import Segmenter


@method(paper="arXiv:2302.02213", claims="linf l2 stochastic pictures-only")
def cos_pgd(
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
    """CosPGD: PGD on a segmenter in which each pixel counts by how well its answer agrees with its class.

    x (B, C, *S) in [0, 1], pictures alone -> the same shape; eps in pixels.  The weight of a pixel's cross entropy is
    the cosine between its probabilities after softmax and its class as a one-hot vector, and with PixelsBecome 1 less
    that; no gradient flows through it.  The sum is divided by all pixels, and those of class 255 count for nothing.

    Every picture takes all steps.  The best iterate is returned: one that meets the goal, and among those (or where
    there is none) the one with the most pixels misread.

    Args:
        steps: number of steps, from 1.
        step: size of one step in pixels; none is eps / 4, but at least 2.5 eps / steps.
        random_start: begin at a random point of the ball, as published, instead of at the picture.
        norm: norm of the budget and of the steps, linf or l2.

    Refused: goals that name no class of each pixel.

    Source: Agnihotri, Jung & Keuper 2024, section 3.

    A pixel is named after its brighter channel; one step of 1/16 leaves both alike, two of them turn it over:

    >>> import torch
    >>> from clearsight.kinds.region_goals import PixelsMisread
    >>> from clearsight.testing import pixel_segmenter
    >>> model = pixel_segmenter([[1.0, 0.0], [0.0, 1.0]], (1, 1))
    >>> x, goal = torch.tensor([[[[0.5625]], [[0.4375]]]]), PixelsMisread(torch.zeros(1, 1, 1, dtype=torch.long))
    >>> cos_pgd(model, x, goal, eps=0.25, random_start=False).flatten().tolist()
    [0.4375, 0.5625]
    """
    return stepped(
        model, x, goal, _weights, "cos-pgd", eps=eps, steps=steps, step=step, random_start=random_start, norm=norm
    )


def _weights(pixels: Pixels, _taken: float) -> Tensor:
    """The cosine between the probabilities of each pixel and its class, or 1 less that where it is to become it."""
    p = pixels.outputs.softmax(1)
    of_class = p.gather(1, pixels.y.clamp_max(p.shape[1] - 1)[:, None])[:, 0]
    cosine = of_class / p.norm(dim=1)
    weights: Tensor = 1 - cosine if pixels.targeted else cosine
    return weights
