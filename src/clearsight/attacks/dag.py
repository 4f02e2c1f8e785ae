"""Xie, Wang, Zhang, Zhou, Xie & Yuille 2017, arXiv:1703.08603, algorithm 1 and section 3.2."""

import torch
from torch import Tensor

from clearsight.attacks.common.dense_targets import dense_targets
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.norms import per_picture, project
from clearsight.core.targets import Goal
from clearsight.errors import Refused
from clearsight.internals.layers import gradients
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter


@method(paper="arXiv:1703.08603", claims="linf stochastic pictures-only")
def dag(
    model: Detector | Segmenter,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 150,
    step: float = 0.5 / 255,
    floor: float = 0.1,
    overlap: float = 0.1,
) -> Tensor:
    """Dense adversary generation: every candidate over an object, or every pixel, is moved to a wrong class.

    x (B, C, *S) in [0, 1], pictures alone -> the same shape; eps in pixels.  What is attacked is chosen on the clean
    picture: of a detector every candidate that overlaps an object and has some score for its class, before any
    suppression, where the paper raises the suppression's threshold to keep many; of a segmenter every pixel.  Each gets
    a wrong class at random, or that which the goal wants.  A step goes down the sum of the logit of its class less that
    of the wrong one, over those that are still right; the gradient is divided by its largest value and not by its sign.

    The paper sets no limit to the change; here every iterate is kept within eps.  A candidate also counts as right
    while its score is above the goal's floor, because scores of several classes may be high at once.  The best iterate
    is returned: one that meets the goal, and among those (or where there is none) the one with the fewest still right.

    Args:
        steps: maximum number of steps, from 1.
        step: largest change of a pixel in one step.
        floor: score for the object's class that a candidate must exceed to be attacked.
        overlap: IoU with an object that a candidate must exceed to be attacked.

    Refused: goals that name nothing that is there (Appear), and a model of one class where the goal names no other.

    Source: Xie et al. 2017, algorithm 1 and section 3.2.

    Two windows, one of which is an object of class 0; only its pixel moves, until class 1 has the higher logit:

    >>> from clearsight.kinds.box_goals import Vanish
    >>> from clearsight.testing import template_detector
    >>> model = template_detector(torch.tensor([4.0, -4.0]).view(2, 1, 1, 1), torch.tensor([-2.0, 2.0]), 1, (1, 2))
    >>> goal = Vanish(torch.tensor([[[0.0, 0, 1, 1]]]), torch.tensor([[0]]))
    >>> dag(model, torch.tensor([[[[0.625, 0.0]]]]), goal, eps=0.25, step=0.0625).tolist()
    [[[[0.4375, 0.0]]]]
    """
    if steps < 1 or not step > 0:
        raise Refused(f"dag(steps={steps}, step={step:g}): steps must be at least 1, step above 0")
    with torch.no_grad():
        every = dense_targets(model(x), x, goal, "dag", floor=floor, overlap=overlap)
    best, rows, x_adv = BestSoFar(x), torch.arange(len(x), device=x.device), x
    for i in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(i < steps)
        with torch.set_grad_enabled(i < steps):
            out = model(x_adv)
        active = every[rows].active(out.detach())
        best.see(rows, x_adv, active.sum(1).float(), goal[rows.cpu()].met(out.detach()))
        left = active.any(1)
        if i == steps or not bool(left.any()):
            break
        with torch.enable_grad():
            (g,) = gradients(every[rows].gap(out, active), x_adv)
        rows, g = rows[left], g[left]
        largest = per_picture(g.flatten(1).abs().amax(1), g).clamp_min(torch.finfo(g.dtype).tiny)
        x_adv = project(x_adv.detach()[left] - step * (g / largest), x[rows], eps, "linf")
    return best.x
