"""A floor under every table: photographers put what they photograph in the middle."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.places import occupied
from clearsight.core.targets import Target
from clearsight.errors import Refused


@method(paper="control", claims="control")
def centre(model: Model, x: Tensor, target: Target, *, sigma: float = 0.25) -> Tensor:
    """A Gaussian in the middle of the picture: a control map that knows neither the model nor the picture.

    x (B, C, *S) in [0, 1] -> (B, *S), in (0, 1], without a unit; the same for all pictures of one size.  Of a text it
    is the middle of its characters.

    Args:
        sigma: standard deviation of the Gaussian along each axis, as a share of that side; above 0.

    Two pixels lie a quarter of the side from the middle, which is one sigma, where a Gaussian is exp(-1/2):

    >>> from clearsight.testing import linear
    >>> centre(linear([[0.0] * 2] * 2), torch.zeros(1, 1, 1, 2), None).tolist()
    [[[0.6065306663513184, 0.6065306663513184]]]
    """
    if not sigma > 0:
        raise Refused(
            f"centre(sigma={sigma:g}): sigma is a share of the picture's side and must be above 0, such as 0.25"
        )
    inside = occupied(model, x)
    if inside is not None:  # (B, L)
        sides = inside.sum(1, keepdim=True).clamp_min(1)
        return torch.exp(-(((inside.cumsum(1) - 0.5) / sides - 0.5) / sigma).square() / 2).to(x)
    squares = torch.zeros_like(x[0, 0])
    for axis, side in enumerate(squares.shape):
        away = (torch.arange(side, dtype=x.dtype, device=x.device) + 0.5) / side - 0.5
        squares += (away / sigma).square().view(-1, *[1] * (squares.dim() - 1 - axis))
    return torch.exp(-squares / 2).expand_as(x[:, 0]).clone()
