"""The straight path from a baseline to a picture, which several methods walk."""

import torch
from torch import Tensor

from clearsight.core import diagnostics
from clearsight.core.batching import pairs
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.completeness import note_missing, size_of
from clearsight.explainers.common.gradient import many_passes, pixel_gradients


def path_gradients(model: Model, x: Tensor, target: Target, baseline: Tensor, steps: int) -> Tensor:
    """Integrated gradients before the channels are summed: the mean gradient on the path, times the path.

    x (B, C, *S) -> (B, C, *S), signed, in units of the target; each picture's numbers sum to target(x) -
    target(baseline), up to the error of the midpoint rule with so many steps.  baseline: one value, one picture, or one
    picture for each, broadcast over x.
    """
    begin = baseline.to(x).expand_as(x)
    total = torch.zeros_like(x)
    with many_passes(model, x, len(x) * steps):
        for rows, k in pairs(len(x), steps, backward=True):
            part = ((k + 0.5) / steps).to(x).view(-1, *[1] * (x.dim() - 1))
            p = begin[rows] + part * (x[rows] - begin[rows])
            total.index_add_(0, rows.to(x.device), pixel_gradients(model, p, target[rows]))
    return total / steps * (x - begin)


def note_residual(model: Model, x: Tensor, target: Target, baseline: Tensor, maps: Tensor) -> None:
    """Note how far each map's sum is from target(x) - target(baseline), also as a share of the size of that difference.

    A path of so many steps is an approximation: no bound refuses it, `examine` judges what is noted.  Two more
    forwards, where anybody reads it.
    """
    if not diagnostics.wanted():
        return
    with torch.no_grad():
        logits, baseline_logits = model(x).float(), model(baseline.to(x).expand_as(x)).float()
        change = target(logits) - target(baseline_logits)
    note_missing(maps.flatten(1).sum(1) - change, change, size_of(target, logits, baseline_logits))
