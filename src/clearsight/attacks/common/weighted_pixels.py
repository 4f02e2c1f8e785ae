"""Steps down a sum of the pixels' cross entropies with weights, which seg-pgd and cos-pgd choose in their own ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.norms import Norm, project, steepest, within
from clearsight.core.targets import Goal
from clearsight.errors import Refused
from clearsight.internals.layers import gradients
from clearsight.kinds.region_goals import (
    UNJUDGED,
    PixelsBecome,
    PixelsMisread,
    classes_on,
    cross_entropies,
    misread_share,
    right_share,
)
from clearsight.kinds.segmenter import Segmenter


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of pictures at one step, and what they are attacked for.

    outputs: logits (B, K, H, W), without a graph.  y: classes (B, H, W), 255 where a pixel does not count.  targeted:
    whether pixels are to become y, instead of anything else.
    """

    outputs: Tensor
    y: Tensor
    targeted: bool

    @property
    def done(self) -> Tensor:
        """Which pixels are taken for what they should be taken for, bool (B, H, W)."""
        return (self.outputs.argmax(1) == self.y) == self.targeted


Weigh = Callable[[Pixels, float], Tensor]  # the pixels, and the share of the steps that was taken -> weights (B, H, W)


def stepped(
    model: Segmenter,
    x: Tensor,
    goal: Goal,
    weigh: Weigh,
    name: str,
    *,
    eps: float,
    steps: int,
    step: float | None,
    random_start: bool,
    norm: Norm,
) -> Tensor:
    """The best iterate of each picture x (B, C, H, W): one that meets the goal, then that with the most pixels done.

    The loss is the sum over the pixels that count of weight times cross entropy, divided by all pixels.

    Refused: goals that name no class of each pixel, and no step.
    """
    if steps < 1:
        raise Refused(f"{name}(steps={steps}): steps must be at least 1")
    y, targeted = _aim(goal, name)
    size = max(eps / 4, 2.5 * eps / steps) if step is None else step
    best, rows = BestSoFar(x), torch.arange(len(x), device=x.device)
    x_adv = within(x, eps, norm) if random_start else x
    for i in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(i < steps)
        with torch.set_grad_enabled(i < steps):
            out = model(x_adv)
        seen = out.detach()
        best.see(rows, x_adv, misread_share(seen, y) if targeted else right_share(seen, y), goal.met(seen))
        if i == steps:
            break
        classes = classes_on(seen, y)
        weights = weigh(Pixels(seen, classes, targeted), i / steps).masked_fill(classes == UNJUDGED, 0)
        with torch.enable_grad():
            entropy = (weights * cross_entropies(out, classes)).flatten(1).mean(1)
        (g,) = gradients(entropy if targeted else -entropy, x_adv)
        x_adv = project(x_adv.detach() - size * steepest(g, norm), x, eps, norm)
    return best.x


def _aim(goal: Goal, name: str) -> tuple[Tensor, bool]:
    """The class of each pixel that a goal names, and whether it is the wanted one."""
    if isinstance(goal, PixelsBecome):
        return goal.wanted, True
    if isinstance(goal, PixelsMisread):
        return goal.y, False
    raise Refused(f"{name} weighs pixels by their classes: give cs.PixelsMisread(y) or cs.PixelsBecome(wanted)")
