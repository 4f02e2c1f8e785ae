"""Zhang, Cisse, Dauphin & Lopez-Paz 2017, arXiv:1710.09412, section 1."""

from torch import Tensor

from clearsight.augmentations.common.draws import beta, chances, partners, within
from clearsight.core.catalogue import method


@method(paper="arXiv:1710.09412", claims="mixes")
def mixup(x: Tensor, y: Tensor, *, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Blend each picture and its label with those of another picture.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes.

    The other picture is one of the same batch.  The picture's own share is drawn for each picture.  Every picture is
    the partner of one other; in a batch of one the picture stays as it is.

    Args:
        alpha: both parameters of the Beta distribution from which the share is drawn, 0.001 to 1000.  With 0.2 the
            share is mostly near 0 or 1; with 1 it is uniform.

    Refused: options outside their ranges.

    However the shares fall, pixels and labels have the same:

    >>> import torch
    >>> mixed, shares = mixup(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.eye(2))
    >>> torch.equal(mixed.flatten(), shares[:, 1])
    True
    """
    within(0.001, 1000, alpha=alpha)
    drawn = chances(x, 2)
    weight = beta(drawn[:, 0], alpha)
    other = partners(drawn[:, 1])
    a, b = weight.to(x)[:, None, None, None], weight.to(y)[:, None]
    return a * x + (1 - a) * x[other.to(x.device)], b * y + (1 - b) * y[other.to(y.device)]
