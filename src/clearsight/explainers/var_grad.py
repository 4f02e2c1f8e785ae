"""Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv:1810.03292 (VarGrad)."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.gradient import many_passes
from clearsight.explainers.common.inner_method import noisy_maps


@method(paper="arXiv:1810.03292", claims="class-sensitive stochastic learnable")
def var_grad(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    inner: str = "saliency(absolute=false)",
    samples: int = 25,
    noise: float = 0.15,
) -> Tensor:
    """How much another method's map varies at each pixel over copies of the picture under noise.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the inner method's maps, squared.  The map is the unbiased
    variance (divided by samples - 1), so that it does not grow with more samples.  Noisy copies are not cut to [0, 1].

    Args:
        inner: spelling of the method whose maps vary; the default is the gradient with its sign.
        samples: noisy copies of each picture, at least 2.
        noise: standard deviation of the Gaussian noise, as a share of the picture's own range (its largest value minus
            its smallest), 0 or more.

    The gradient of a linear model is the same everywhere and does not vary:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> var_grad(linear([[3.0, -2.0], [0.0, 0.0]]), torch.rand(1, 1, 1, 2), ClassScore(0)).tolist()
    [[[0.0, 0.0]]]
    """
    if samples < 2:
        raise Refused(
            f"var-grad(samples={samples}): samples must be at least 2, because a variance needs two noisy copies"
        )
    mean, squares = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    with many_passes(model, x, len(x) * samples):
        for rows, numbers, maps in noisy_maps(model, x, target, inner, samples, noise):
            for row, k, m in zip(rows.tolist(), numbers.tolist(), maps, strict=True):  # Welford 1962: nothing cancels
                apart = m - mean[row]
                mean[row] += apart / (k + 1)
                squares[row] += apart * (m - mean[row])
    return squares / (samples - 1)
