"""Sundararajan, Taly & Yan 2017, arXiv:1703.01365, equations 1 and 3."""

import torch
from torch import Tensor

from clearsight.batching import pairs
from clearsight.classifier import Classifier
from clearsight.errors import Refused
from clearsight.layers import gradients
from clearsight.methods import method
from clearsight.targets import Target


@method(paper="arXiv:1703.01365", claims="complete signed class-sensitive")
def integrated_gradients(
    model: Classifier, x: Tensor, target: Target, *, steps: int = 50, baseline: float = 0.0
) -> Tensor:
    """The gradient averaged over the straight path from a flat picture, times the path.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: the map sums to target(x) - target(baseline),
    up to the error of the midpoint rule with so many steps.  baseline: the pixel value where the path begins (0 is
    black); what has exactly this value gets no relevance.

    >>> from clearsight.testing import linear
    >>> from clearsight.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> integrated_gradients(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[1.5, -2.0]]]
    """
    if steps < 1:
        raise Refused(f"integrated-gradients(steps={steps}): at least one step")
    total = torch.zeros_like(x)
    for rows, k in pairs(len(x), steps, backward=True):
        part = ((k + 0.5) / steps).to(x).view(-1, *[1] * (x.dim() - 1))
        p = (baseline + part * (x[rows] - baseline)).detach().requires_grad_()
        with torch.enable_grad():
            score = target[rows](model(p))
        (g,) = gradients(score, p)
        total.index_add_(0, rows.to(x.device), g)
    return (total / steps * (x - baseline)).sum(1)
