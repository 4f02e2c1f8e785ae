"""Many small steps from the picture itself, as bim takes them without momentum and mi-fgsm with it."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.model import Model
from clearsight.core.norms import Norm, per_picture, project, steepest
from clearsight.core.targets import Goal
from clearsight.internals.layers import gradients


def descend(
    model: Model,
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
    """Return the best iterate of each picture x (B, C, *S), from steepest steps along the accumulated gradients.

    Each gradient is divided by its mean absolute value.  At every step the sum so far is multiplied by momentum and the
    new gradient is added.
    """
    best = BestSoFar(x)
    rows, x_adv, way = torch.arange(len(x), device=x.device), x, torch.zeros_like(x)
    for i in range(steps + 1):
        if not len(rows):
            break
        x_adv = x_adv.detach().requires_grad_(i < steps)
        with torch.set_grad_enabled(i < steps):
            out = model(x_adv)
            loss = goal[rows.cpu()].loss(out)
        met = goal[rows.cpu()].met(out.detach()).to(x.device)
        best.see(rows, x_adv, loss, met)
        if i == steps:
            break
        (g,) = gradients(loss, x_adv)
        way = momentum * way + even(g)
        x_adv = project(x_adv.detach() - step * steepest(way, norm), x[rows], eps, norm)
        if early_stop:
            rows, x_adv, way = rows[~met], x_adv[~met], way[~met]
    return best.x


def even(g: Tensor) -> Tensor:
    """Divide each gradient (B, ...) by its mean absolute value; a gradient of 0 stays 0.

    >>> even(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([[ 0.5000, -1.5000],
            [ 0.0000,  0.0000]])
    """
    g = steepest(g, "l2")  # to length 1 first: a sum of very small numbers may underflow to 0
    mean = per_picture(g.flatten(1).abs().mean(1), g)
    return g / mean.clamp_min(torch.finfo(g.dtype).tiny)
