"""Croce & Hein 2020, arXiv:2003.01690, section 5: the standard version."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from clearsight.attacks.apgd_ce import apgd_ce
from clearsight.attacks.common.apgd import towards_each
from clearsight.attacks.common.fab import within
from clearsight.attacks.square import square
from clearsight.core import rng
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.errors import NoGradient, Notice

Part = Literal["all", "apgd-ce", "apgd-t", "fab-t", "square"]
PARTS: tuple[Part, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")


@method(paper="arXiv:2003.01690", claims="linf l2 stochastic")
def auto_attack(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 100,
    classes: int = 9,
    queries: int = 5000,
    part: Part = "all",
    norm: Norm = "linf",
) -> Tensor:
    """AutoAttack: four attacks one after the other, each on the pictures that withstood the ones before.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  The four attacks are APGD on the cross-entropy; APGD on
    the targeted DLR and FAB, each towards the most likely other classes in turn; and Square, which needs no gradients.

    With its defaults it is the standard version, whose robust accuracy is the number in most publications.  Become is
    attacked by the same four, towards its own class.

    Where no gradient flows back to the pixels, the first three attacks find nothing.  A Notice says so, and Square
    attacks alone.

    Args:
        steps: gradient steps of each of the first three attacks.
        classes: number of other classes that the targeted attacks aim at, or all there are.
        queries: queries of Square for each picture; its share p is not rescaled to them, as in the authors' program.
        part: all, or one of the four alone: apgd-ce, apgd-t, fab-t or square.  One alone finds what it would find among
            the others.
        norm: norm of the budget, linf or l2.

    Refused: one of the first three attacks alone where no gradient flows back to the pixels.

    Source: Croce & Hein 2020, section 5.

    A linear model is left in the worst corner of the cube, or, as here, where the first attack has met the goal:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.5, 0.5]]]]), Misclassify(torch.tensor([0]))
    >>> found = auto_attack(linear([[3.0, -2.0], [0.0, 0.0]]), x, right, eps=0.1001)
    >>> bool(3 * found[..., 0] < 2 * found[..., 1])
    True
    """
    best = BestSoFar(x)
    for number, name in enumerate(PARTS):
        rows = (~best.met).nonzero()[:, 0]
        if part not in ("all", name) or not len(rows):
            continue
        mine = goal[rows.cpu()]
        try:
            with rng.for_versions(rows, torch.full((len(rows),), number)):  # each of the four has its own draws
                x_adv = _run(name, model, x[rows], mine, eps, steps, classes, queries, norm)
        except NoGradient as e:
            if part != "all":
                raise
            why = f"{e.what}: {e.cause}"
            warnings.warn(f"auto-attack: {why}; Square alone attacks, which needs none", Notice, stacklevel=2)
            continue
        with torch.no_grad():
            out = model(x_adv)
        best.see(rows, x_adv, mine.loss(out), mine.met(out))
    return best.x


def _run(
    name: Part,
    model: Classifier,
    x: Tensor,
    goal: Goal,
    eps: float,
    steps: int,
    classes: int,
    queries: int,
    norm: Norm,
) -> Tensor:
    if name == "apgd-ce":
        return apgd_ce(model, x, goal, eps=eps, steps=steps, norm=norm)  # type: ignore[no-any-return]
    if name == "apgd-t":
        return towards_each(model, x, goal, eps=eps, steps=steps, classes=classes, norm=norm)
    if name == "fab-t":
        return within(model, x, goal, eps=eps, steps=steps, classes=classes, norm=norm)
    box = BlackBox(model, x, goal, eps=eps, norm=norm, queries=queries)
    return box.best(square(box, x, eps=eps, queries=queries, rescale=False, norm=norm))
