"""Brendel, Rauber & Bethge 2018, arXiv:1712.04248, algorithm 1."""

import torch
from torch import Tensor

from clearsight.attacks.common.decision_based import nearer, start
from clearsight.core import rng
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.norms import per_picture, perturbation_norm, steepest


@method(paper="arXiv:1712.04248", claims="l2 stochastic black-box minimal")
def boundary(box: BlackBox, x: Tensor, *, eps: float, starts: Tensor | None, queries: int = 5000) -> Tensor:
    """A random walk along the decision boundary that comes ever nearer to the picture and sees labels alone.

    x (B, C, *S) in [0, 1] -> the same shape: the nearest version found, in L2.  eps, in pixels, plays no part in the
    search.  starts (N, C, *S): pictures from which the walk may begin, such as some of the class to become; without
    them noise and patterns are tried.  A picture for which no start is found is returned unchanged.

    Each step goes round the picture at the same distance.  Where the result still meets the goal, a second step goes
    straight towards the picture.  After each answer the length of that kind of step is changed, so that about a half of
    the first kind and a quarter of the second succeed.

    Args:
        queries: number of labels that may be asked for about each picture.

    Source: Brendel, Rauber & Bethge 2018, algorithm 1.

    The border x1 = x2 is 0.2 / sqrt(2) away:

    >>> from clearsight.testing import linear
    >>> from clearsight.runner.run import attack
    >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
    >>> found = attack(linear([[1.0, -1.0], [0.0, 0.0]]), x, y, "boundary(queries=500)", eps=float("inf"))
    >>> round(float(found.distance), 2)
    0.14
    """
    x_adv, rows = start(box, x, starts)
    x_adv = nearer(box, x, x_adv, rows, "l2", 0.01)
    around, towards = torch.full((2, len(x)), 0.1, device=x.device)  # lengths of steps, as shares of the distance
    while True:
        rows = rows[(box.left(rows) > 0).to(x.device)]
        if not len(rows):
            return box.found
        tried = orthogonal_step(x[rows], x_adv[rows], around[rows], rows)
        met = box.met(tried, rows)
        around[rows] *= torch.where(met, 1.1, 1 / 1.1)
        around.clamp_(1e-6, 1.0)
        on = rows[met]
        x_adv[on] = tried[met]
        on = on[(box.left(on) > 0).to(x.device)]
        if not len(on):
            continue
        tried = x[on] + (x_adv[on] - x[on]) * per_picture(1 - towards[on], x)
        met = box.met(tried, on)
        towards[on] *= torch.where(met, 1.1**3, 1 / 1.1)
        towards.clamp_(1e-6, 0.5)
        x_adv[on[met]] = tried[met]


def orthogonal_step(x: Tensor, x_adv: Tensor, share: Tensor, rows: Tensor) -> Tensor:
    """A point as far from x (n, C, *S) as x_adv is, in a random direction, a share (n,) of that distance from x_adv."""
    move = x_adv - x
    far = per_picture(perturbation_norm(move, "l2"), x)
    u = rng.normal(x, rows)
    u = u - move * (per_picture((u * move).flatten(1).sum(1), x) / far.square().clamp_min(torch.finfo(far.dtype).tiny))
    moved = move + steepest(u, "l2") * far * per_picture(share, x)
    return (x + steepest(moved, "l2") * far).clamp(0, 1)
