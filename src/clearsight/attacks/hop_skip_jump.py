"""Chen, Jordan & Wainwright 2020, arXiv:1904.02144, algorithm 2."""

import torch
from torch import Tensor

from clearsight.attacks.common.decision_based import nearer, start
from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.norms import Norm, per_picture, perturbation_norm, steepest
from clearsight.errors import Refused

HALVINGS = 25  # maximum number of times that a step is halved until its end meets the goal


@method(paper="arXiv:1904.02144", claims="linf l2 stochastic black-box minimal")
def hop_skip_jump(
    box: BlackBox,
    x: Tensor,
    *,
    eps: float,
    starts: Tensor | None,
    queries: int = 1000,
    evaluations: int = 100,
    norm: Norm = "linf",
) -> Tensor:
    """Steps along the decision boundary, whose direction is estimated by asking for labels alone.

    x (B, C, *S) in [0, 1] -> the same shape: the nearest version found.  eps, in pixels, plays no part in the search.
    starts (N, C, *S): pictures from which the search may begin, such as some of the class to become; without them noise
    and patterns are tried.  A picture for which no start is found is returned unchanged.

    Each round asks about random points around the present one and estimates from the answers the direction in which the
    goal is met.  It steps across the border along this direction (its sign for norm linf), and goes back to the border
    on the way to the picture.  A round that the remaining queries cannot pay for is not begun.

    The distance of the random points is the distance to the picture divided by the root of the number of values.  The
    paper divides by the number itself: on MNIST this is no better without rounding, and ends twice as far away where
    pixels are rounded to 8 bits.

    Args:
        queries: number of labels that may be asked for about each picture.
        evaluations: number of random points in the first round, from 1; it grows with the root of the round's number.
        norm: norm in which the distance is smallest, linf or l2.

    Source: Chen, Jordan & Wainwright 2020, algorithm 2.

    The border x1 = x2 is 0.1 away in Linf:

    >>> from clearsight.testing import linear
    >>> from clearsight.runner.run import attack
    >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
    >>> found = attack(linear([[1.0, -1.0], [0.0, 0.0]]), x, y, "hop-skip-jump(queries=500)", eps=float("inf"))
    >>> round(float(found.distance), 2)
    0.1
    """
    if evaluations < 1:
        raise Refused(f"hop-skip-jump(evaluations={evaluations}): evaluations must be at least 1")
    values = x[0].numel()
    tolerance = max(0.1 / values, 1e-6)
    x_adv, rows = start(box, x, starts)
    x_adv = nearer(box, x, x_adv, rows, norm, tolerance)
    turn = 0
    while True:
        turn += 1
        count = round(evaluations * turn**0.5)
        rows = rows[(box.left(rows) > count + 1).to(x.device)]
        if not len(rows):
            return box.found
        way = torch.stack([estimate_direction(box, x[i], x_adv[i], i, count) for i in rows])
        moved = geometric_step(box, x, x_adv, rows, steepest(way, norm), norm, turn)
        x_adv = nearer(box, x, x_adv, moved, norm, tolerance)


def estimate_direction(box: BlackBox, x: Tensor, x_adv: Tensor, row: Tensor, count: int) -> Tensor:
    """Estimate the direction, at x_adv (C, *S), in which the goal is met.

    x (C, *S): the picture of which x_adv is a version; row: its number; count: how many random points are asked about.
    """
    radius = (x_adv - x).norm() / x.numel() ** 0.5
    moves, total, met, sampled = torch.zeros_like(x_adv), torch.zeros_like(x_adv), 0.0, 0
    while sampled < count:
        of = row.expand(min(SIZE, count - sampled))
        u = steepest(rng.normal(x_adv.expand(len(of), *x_adv.shape), of), "l2")
        point = (x_adv + radius * u).clamp(0, 1)
        u = point - x_adv  # the move that remains inside [0, 1]
        yes = box.met(point, of).to(x_adv)
        moves += (u * per_picture(yes, u)).sum(0)
        total, met, sampled = total + u.sum(0), met + float(yes.sum()), sampled + len(of)
    if met in (0, count):  # all answers agree
        return total if met else -total
    return 2 * (moves - total * (met / count))


def geometric_step(box: BlackBox, x: Tensor, x_adv: Tensor, rows: Tensor, way: Tensor, norm: Norm, turn: int) -> Tensor:
    """Move x_adv (B, C, *S), in place, by the longest step that still meets the goal; return the rows that moved."""
    step = perturbation_norm(x_adv[rows] - x[rows], norm) / turn**0.5
    moved = []
    for _ in range(HALVINGS):
        on = (box.left(rows) > 0).to(x.device)
        rows, way, step = rows[on], way[on], step[on]
        if not len(rows):
            break
        tried = (x_adv[rows] + per_picture(step, x) * way).clamp(0, 1)
        met = box.met(tried, rows)
        x_adv[rows[met]] = tried[met]
        moved.append(rows[met])
        rows, way, step = rows[~met], way[~met], step[~met] / 2
    return torch.cat([rows[:0], *moved]).sort().values
