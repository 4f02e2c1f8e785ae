"""Sundararajan, Taly & Yan 2017, arXiv:1703.01365, equations 1 and 3."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.path import note_residual, path_gradients


@method(paper="arXiv:1703.01365", claims="complete signed class-sensitive learnable")
def integrated_gradients(model: Model, x: Tensor, target: Target, *, steps: int = 50, baseline: float = 0.0) -> Tensor:
    """The gradient averaged over the straight path from a flat picture, times the path.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: the map sums to target(x) - target(baseline), up
    to the error of the midpoint rule with this number of steps.  The diagnostic "completeness residual" is that error.

    Args:
        steps: number of gradients on the path; more steps reduce the sum's error.
        baseline: pixel value of the flat picture that the path starts from (0 is black).  Pixels of exactly this value
            get no relevance.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> integrated_gradients(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[1.5, -2.0]]]
    """
    if steps < 1:
        raise Refused(f"integrated-gradients(steps={steps}): steps must be at least 1")
    begin = torch.tensor(baseline)
    maps = path_gradients(model, x, target, begin, steps).sum(1)
    note_residual(model, x, target, begin, maps)
    return maps
