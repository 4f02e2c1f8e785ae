"""Fong & Vedaldi 2017, arXiv:1704.03296, section 4 (equation 3), without the jitter."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import folded_outputs, many_passes
from clearsight.internals.layers import enlarge, flowing, gradients
from clearsight.perturbation.removal import blurred

RATE = 0.1  # of Adam
POWER = 3  # of the differences between neighbours


@method(paper="arXiv:1704.03296", claims="class-sensitive stochastic")
def meaningful_perturbation(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    iterations: int = 300,
    cells: int = 28,
    l1: float = 0.08,
    tv: float = 0.01,
    noise: float = 0.2,
    sigma: float = 10.0,
) -> Tensor:
    """The smallest smooth blur that makes the target fall, found by gradient descent.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0: 0 where the picture may stay, 1 where it is blurred away, without a unit.

    A mask m, enlarged to the picture, minimises l1 * mean|1 - m| + tv * sum|difference of neighbours|^3 + the target of
    m x + (1 - m) blur(x); the map is 1 - m.  The paper means l1 and tv for probabilities.  To hold for any target, the
    target is divided by |target(x) - target(blur(x))|.

    Args:
        iterations: steps of Adam, each one forward and one backward pass.
        cells: places of the mask along each side.
        l1: weight of the mean of the map, which keeps it small; the default is the paper's (1e-4 on a sum over 28 x 28
            places is 0.08 on the mean).
        tv: weight of the cubed differences of neighbouring places, which keeps the mask smooth; the default is the
            paper's.
        noise: standard deviation of what is added to the picture at each step, in units of the preprocessing's std; 0
            is no noise.
        sigma: standard deviation of the blur in pixels, above 0.

    Where the target rises with the light of one pixel, that pixel is blurred, and the other stays:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[1.0, 0.0]]]])
    >>> meaningful_perturbation(linear([[3.0, 0.0], [0.0, 0.0]]), x, ClassScore(0), tv=0.0, noise=0.0).tolist()
    [[[1.0, 0.0]]]
    """
    if iterations < 1 or cells < 1 or min(l1, tv, noise) < 0 or sigma <= 0:
        raise Refused(
            "meaningful-perturbation: iterations and cells must be at least 1, sigma above 0, the other options at "
            "least 0"
        )
    blur = blurred(x, sigma)
    std = x.new_tensor(model.preprocess.std).view(1, -1, *[1] * (x.dim() - 2))
    with torch.no_grad():
        unit = (target(model(x)) - target(model(blur))).abs().clamp_min(1e-6)
    mask = x.new_ones(len(x), *[min(cells, side) for side in x.shape[2:]]).requires_grad_()
    adam = torch.optim.Adam([mask], RATE)
    with many_passes(model, x, len(x) * iterations):
        for _ in range(iterations):
            mask.grad = torch.zeros_like(mask)
            for rows, _ in pairs(len(x), 1, backward=True):
                index = rows.to(x.device)
                with torch.enable_grad():
                    m = mask[index]
                    large = enlarge(m, x.shape[2:])[:, None]
                    seen = blur[index] + large * (x[index] - blur[index])
                    seen = seen + noise * std * rng.normal(x[index], rows)
                    kept = flowing(target[rows](folded_outputs(model, seen))) / unit[index]
                    loss = kept + l1 * (1 - m).abs().flatten(1).mean(1) + tv * _roughness(m)
                (g,) = gradients(loss, mask)
                mask.grad += g
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
    return 1 - enlarge(mask.detach(), x.shape[2:])


def _roughness(m: Tensor) -> Tensor:
    """m (B, *s) -> (B,): the differences of all neighbours, to the power, summed."""
    axes = range(1, m.dim())
    return torch.stack([m.diff(dim=axis).abs().pow(POWER).flatten(1).sum(1) for axis in axes]).sum(0)
