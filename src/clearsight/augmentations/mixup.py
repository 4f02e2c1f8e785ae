"""Zhang, Cisse, Dauphin & Lopez-Paz 2017, arXiv:1710.09412, section 1."""

from torch import Tensor

from clearsight.augmentations._common import beta, chances, partners, within
from clearsight.core.catalogue import method


@method(paper="arXiv:1710.09412", claims="mixes")
def mixup(x: Tensor, y: Tensor, *, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Each picture is blended with another one, and so is its label.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes.  The other one is of the same batch.
    The picture's own share is drawn from the Beta distribution with both parameters alpha, for each picture by itself:
    with 0.2 it is mostly near 0 or 1, with 1 anything is as likely.  Every picture is the partner of one other; a
    picture alone stays as it is.

    However the shares fall, pixels and labels have the same:

    >>> import torch
    >>> mixed, shares = mixup(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.eye(2))
    >>> torch.equal(mixed.flatten(), shares[:, 1])
    True
    """
    within(0.001, 1000, alpha=alpha)
    drawn = chances(x, 2)
    own = beta(drawn[:, 0], alpha)
    other = partners(drawn[:, 1])
    a, b = own.to(x)[:, None, None, None], own.to(y)[:, None]
    return a * x + (1 - a) * x[other.to(x.device)], b * y + (1 - b) * y[other.to(y.device)]
