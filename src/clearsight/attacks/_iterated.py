"""Many small steps from the picture itself: what bim and mi-fgsm do, with and without momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, per_picture, project, steepest
from clearsight.core.targets import Goal
from clearsight.internals.layers import gradients


def descend(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int,
    step: float,
    momentum: float,
    norm: Norm,
    early_stop: bool,
) -> Tensor:
    """The best iterate of each picture x (B, C, *S): steepest steps along the gradients summed up so far.

    Each gradient counts in units of its own mean absolute value, all that came before momentum times at every step.
    """
    best = BestSoFar(x)
    rows, z, way = torch.arange(len(x), device=x.device), x, torch.zeros_like(x)
    for i in range(steps + 1):
        if not len(rows):
            break
        z = z.detach().requires_grad_(i < steps)
        with torch.set_grad_enabled(i < steps):
            out = model(z)
            loss = goal[rows.cpu()].loss(out)
        met = goal[rows.cpu()].met(out.detach()).to(x.device)
        best.see(rows, z, loss, met)
        if i == steps:
            break
        (g,) = gradients(loss, z)
        way = momentum * way + even(g)
        z = project(z.detach() - step * steepest(way, norm), x[rows], eps, norm)
        if early_stop:
            rows, z, way = rows[~met], z[~met], way[~met]
    return best.x


def even(g: Tensor) -> Tensor:
    """Each gradient (B, ...) in units of its mean absolute value; nothing where it is nothing.

    >>> even(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([[ 0.5000, -1.5000],
            [ 0.0000,  0.0000]])
    """
    g = steepest(g, "l2")  # of length 1 first: a sum of very small numbers may be nothing
    mean = per_picture(g.flatten(1).abs().mean(1), g)
    return g / mean.clamp_min(torch.finfo(g.dtype).tiny)
