"""Yun et al. 2019, arXiv:1905.04899, section 3.1."""

import math

from torch import Tensor

from clearsight.augmentations.common.draws import beta, chances, partners, within
from clearsight.core.catalogue import method


@method(paper="arXiv:1905.04899", claims="mixes")
def cutmix(x: Tensor, y: Tensor, *, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another picture over each; labels are shared by area.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes.

    The other picture is one of the batch, and the rectangle lies at the same place in both.  The rectangle has the
    picture's proportions, its centre is uniform in the picture, and what sticks out is cut off.  The label keeps the
    share of the pixels that were really kept.  Every picture is the partner of one other; in a batch of one the picture
    stays as it is.

    Args:
        alpha: both parameters of the Beta distribution from which the share to keep is drawn, 0.001 to 1000.

    Refused: options outside their ranges.

    However the rectangle falls, the mean pixel and the label have the same shares:

    >>> import torch
    >>> mixed, shares = cutmix(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8), torch.eye(2))
    >>> torch.equal(mixed.mean((1, 2, 3)), shares[:, 1])
    True
    """
    within(0.001, 1000, alpha=alpha)
    height, width = x.shape[2:]
    drawn = chances(x, 4)
    kept, other = beta(drawn[:, 0], alpha), partners(drawn[:, 1])
    out, shares = x.clone(), y.clone()
    for i, (j, share) in enumerate(zip(other.tolist(), kept.tolist(), strict=True)):
        side = math.sqrt(1 - share)
        top, bottom = _span(float(drawn[i, 2]), side, height)
        left, right = _span(float(drawn[i, 3]), side, width)
        out[i, :, top:bottom, left:right] = x[j, :, top:bottom, left:right]
        cut = (bottom - top) * (right - left) / (height * width)
        shares[i] = (1 - cut) * y[i] + cut * y[j]
    return out, shares


def _span(centre: float, share: float, side: int) -> tuple[int, int]:
    """First pixel and the one after the last of a share of a side about a centre in [0, 1), inside the picture."""
    return round(side * max(centre - share / 2, 0)), round(side * min(centre + share / 2, 1))
