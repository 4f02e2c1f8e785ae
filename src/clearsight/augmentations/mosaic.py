"""Bochkovskiy, Wang & Liao 2020, arXiv:2004.10934, section 3.3; labels by area are how Yun et al. 2019 share them."""

from torch import Tensor

from clearsight.augmentations.common.draws import between, chances, partners, within
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F


@method(paper="arXiv:2004.10934", claims="mixes")
def mosaic(x: Tensor, y: Tensor, *, margin: float = 0.3, chance: float = 0.5) -> tuple[Tensor, Tensor]:
    """Join four pictures around a random centre; labels are shared by area.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes.

    The picture itself fills the top left, three others of the batch fill the rest.  Each picture is made smaller, in
    its own proportions, until it just covers its part, and its middle is shown (bilinear, antialiased).  In a batch of
    less than four a picture is used more than once.

    Args:
        margin: the centre is uniform between this share of each side and one minus it; 0 to 0.5.
        chance: probability of a mosaic, 0 to 1; other pictures stay whole.

    Refused: options outside their ranges.

    In the exact middle each has a quarter:

    >>> import torch
    >>> mosaic(torch.zeros(4, 1, 2, 2), torch.eye(4), margin=0.5, chance=1.0)[1][0].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    within(0, 0.5, margin=margin)
    within(0, 1, chance=chance)
    height, width = x.shape[2:]
    drawn = chances(x, 4)
    following = partners(drawn[:, 0]).tolist()
    out, shares = x.clone(), y.clone()
    for i in (drawn[:, 1] < chance).nonzero()[:, 0].tolist():
        row, column = (
            round(side * between(margin, 1 - margin, u))
            for side, u in zip((height, width), drawn[i, 2:].tolist(), strict=True)
        )
        shares[i] = 0
        j = i
        for rows in (slice(0, row), slice(row, height)):
            for columns in (slice(0, column), slice(column, width)):
                h, w = rows.stop - rows.start, columns.stop - columns.start
                if h and w:
                    out[i, :, rows, columns] = covering(x[j], h, w)
                    shares[i] += h * w / (height * width) * y[j]
                j = following[j]
    return out, shares


def covering(picture: Tensor, height: int, width: int) -> Tensor:
    """The middle of a picture (C, H, W), resized until it just covers (C, height, width)."""
    factor = max(height / picture.shape[1], width / picture.shape[2])
    size = [max(round(side * factor), least) for side, least in zip(picture.shape[1:], (height, width), strict=True)]
    cut: Tensor = F.center_crop(F.resize(picture, size, antialias=True), [height, width])
    return cut
