"""Learn one change from many pictures, a batch at a time; after Shafahi et al. 2020, arXiv:1811.11304, section 4."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import SIZE, pairs
from clearsight.core.model import Model
from clearsight.core.targets import Goal
from clearsight.core.validation import check_pixels
from clearsight.errors import Refused
from clearsight.internals.layers import gradients

CLIP = 9.0  # log-odds beyond its goal from which a lesson is left alone, so that none dominates the others

Wear = Callable[[Tensor, Tensor, Tensor], Tensor]  # pictures (n, C, *S), the change, rows (n,) -> changed pictures
Change = Callable[[Tensor, Tensor, float], Tensor]  # the change, its gradient, progress (0 to 1) -> the next change


def sorted_lessons(model: Model, lessons: tuple[Tensor, Goal], x: Tensor, name: str) -> tuple[Tensor, Goal]:
    """Check the lessons, move them to the model's device, and put them in an order that depends on their pixels alone.

    Refused: values that are not pixels, pictures of another shape than x (B, C, *S), and a goal for another number of
    pictures.
    """
    pictures, goal = lessons
    pictures = check_pixels(model, pictures)
    if pictures.shape[1:] != x.shape[1:]:
        raise Refused(
            f"{name}: lessons have shape {tuple(pictures.shape[1:])}, but the pictures have shape "
            f"{tuple(x.shape[1:])}: give lessons of the same shape"
        )
    for value in vars(goal).values() if hasattr(goal, "__dict__") else ():
        if isinstance(value, Tensor) and value.dim() and len(value) != len(pictures):
            raise Refused(
                f"{name}: there are {len(pictures)} lessons, but the goal is for {len(value)} pictures: give a goal "
                "for each lesson"
            )
    with rng.seeded(0, pictures, "order of lessons"):
        order = _shuffled(pictures)
    return pictures[order.to(pictures.device)], goal[order]


def learned(
    model: Model,
    lessons: tuple[Tensor, Goal],
    first: Tensor,
    wear: Wear,
    change: Change,
    *,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Learn a change; of those after each pass through the lessons, keep the one with which most meet their goal.

    lessons: as sorted_lessons returns them.  first: the change to begin with.  steps: number of passes through all
    lessons, in batches of sixteen, in an order that is drawn anew for each pass; each costs two forward passes and one
    backward pass for each lesson.  Of two changes with which equally many lessons meet their goal, the one with the
    lower loss is kept.
    """
    x, goal = lessons
    every = torch.arange(len(x))
    parts = -(-len(x) // SIZE)
    with rng.seeded(seed, x, "lessons"):
        now = best = first
        known = _worth(model, x, goal, first, wear)
        for step in range(steps):
            for nth, rows in enumerate(torch.split(every[_shuffled(x)], SIZE)):
                way = _slope(model, x, goal, now, wear, rows)
                now = change(now, way, (step * parts + nth) / (steps * parts))
            worth = _worth(model, x, goal, now, wear)
            if worth > known:
                best, known = now, worth
    return best


def _shuffled(x: Tensor) -> Tensor:
    """The rows of x in a random order that the pictures and the seed determine."""
    return rng.uniform(x.flatten(1)[:, :1]).cpu()[:, 0].argsort(stable=True)


def _worth(model: Model, x: Tensor, goal: Goal, thing: Tensor, wear: Wear) -> tuple[int, float]:
    """How many lessons meet the goal with thing, and the mean of -loss; the draws are the same for every thing."""
    met, loss = 0, 0.0
    for rows, _ in pairs(len(x), 1):
        with torch.no_grad(), rng.for_versions(torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)):
            out = model(wear(x[rows.to(x.device)], thing, rows).clamp(0, 1))
            met += int(goal[rows].met(out).sum())
            loss += float(goal[rows].loss(out).double().clamp_min(-CLIP).sum())
    return met, -loss / len(x)


def _slope(model: Model, x: Tensor, goal: Goal, thing: Tensor, wear: Wear, rows: Tensor) -> Tensor:
    """The gradient of the lessons' losses, weighted by lesson_weight, up to a factor.

    Clipping to [0, 1] passes the gradient on unchanged, so that a pixel beyond 0 or 1 can come back.
    """
    total, most = torch.zeros_like(thing), torch.tensor(-torch.inf, device=x.device)
    for k, _ in pairs(len(rows), 1, backward=True):
        part = rows[k]
        v = thing.detach().clone().requires_grad_()
        with torch.enable_grad():
            z = wear(x[part.to(x.device)], v, part)
            z = z + (z.clamp(0, 1) - z).detach()
            loss = goal[part].loss(model(z))
            u = lesson_weight(loss.detach())
            top = torch.maximum(most, u.max())
            if not bool(top.isfinite()):
                continue
            (g,) = gradients((loss * (u - top).exp()).sum(), v)
        total, most = total * (most - top).exp() + g, top
    return total


def lesson_weight(loss: Tensor) -> Tensor:
    """The logarithm of a lesson's weight, by its loss (n,): the nearer to its goal, the larger.

    A lesson that meets its goal has the weight 1, or 0 once it is more than CLIP beyond it.  With equal weights,
    lessons that pull in opposite directions would cancel each other out; with these the side that is ahead wins.

    >>> lesson_weight(torch.tensor([3.0, 0.0, -3.0, -9.5])).exp().tolist()
    [0.75, 1.0, 1.0, 0.0]
    """
    return -(loss.clamp_min(0) / CLIP).log1p().masked_fill(loss < -CLIP, torch.inf)
