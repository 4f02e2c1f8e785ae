"""Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, arXiv:1706.03825."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import many_passes
from clearsight.explainers.common.inner_method import noisy_maps


@method(paper="arXiv:1706.03825", claims="signed class-sensitive stochastic learnable")
def smooth_grad(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    inner: str = "saliency(absolute=false)",
    samples: int = 25,
    noise: float = 0.15,
) -> Tensor:
    """Another method's maps, averaged over copies of the picture under noise.

    x (B, C, *S) in [0, 1] -> (B, *S), signed where the inner method's maps are, in their units.  As in the paper, noisy
    copies are not cut to [0, 1].

    Args:
        inner: spelling of the method whose maps are averaged; the default is the gradient with its sign.
        samples: noisy copies of each picture, at least 1.
        noise: standard deviation of the Gaussian noise, as a share of the picture's own range (its largest value minus
            its smallest), 0 or more.

    The gradient of a linear model is the same everywhere, so noise changes nothing:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> smooth_grad(linear([[3.0, -2.0], [0.0, 0.0]]), torch.rand(1, 1, 1, 2), ClassScore(0)).tolist()
    [[[3.0, -2.0]]]
    """
    if samples < 1:
        raise Refused(f"smooth-grad(samples={samples}): samples must be at least 1, noisy copies of each picture")
    total = torch.zeros_like(x[:, 0])
    with many_passes(model, x, len(x) * samples):
        for rows, _, maps in noisy_maps(model, x, target, inner, samples, noise):
            total.index_add_(0, rows.to(x.device), maps)
    return total / samples
