"""Points 9 and 13: are there gradients, and do they point downhill?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.auditing.case import Case
from clearsight.auditing.goals import acceptable
from clearsight.auditing.gradient_masking.checklist import Point, pictures
from clearsight.core import rng
from clearsight.core.targets import Misclassify
from clearsight.errors import NoGradient
from clearsight.internals.layers import gradients
from clearsight.internals.scores import scores

_PARTS = (1, 4, 16)  # of eps, by which is gone along the gradient
_TRIES = 8  # random steps, where there is no gradient


@dataclass
class Slopes:
    """The rows whose gradients at the pixels have a fault.

    Of the cross-entropy: zero, and not_finite.  Of the log-odds, which mean the same and do not saturate: uphill, where
    the loss does not fall along the gradient; missing, where there is none although the answer moves with the picture.
    saturated: the probability rounds to 1; misled: of these, the log-odds fall along their own gradient and not along
    that of the cross-entropy.
    """

    zero: list[int] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    uphill: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    saturated: list[int] = field(default_factory=list)
    misled: list[int] = field(default_factory=list)


def inspect_gradients(case: Case, rows: Sequence[int], eps: float) -> Slopes:
    """The faults of the gradients on the right answers rows."""
    slopes = Slopes()
    for part, x in case.lots(rows):
        z = x.to(case.model.device)
        saturated = (case.logits[part].softmax(1).amax(1) == 1).tolist()
        with case.model.undisturbed():
            of_cross_entropy = _gradient(case, z, part, naive=True)
            of_log_odds = _gradient(case, z, part, naive=False)
            falls, moves = _loss_falls(case, z, of_log_odds, part, eps), _loss_moves(case, z, part, eps)
            falls_by_cross_entropy = _loss_falls(case, z, of_cross_entropy, part, eps) if any(saturated) else falls
        for k, i in enumerate(part):
            if not bool(of_cross_entropy[k].isfinite().all()):
                slopes.not_finite.append(i)
            elif not bool(of_cross_entropy[k].any()):
                slopes.zero.append(i)
            if not bool(of_log_odds[k].isfinite().all()) or not bool(of_log_odds[k].any()):
                if moves[k]:
                    slopes.missing.append(i)
            elif not falls[k]:
                slopes.uphill.append(i)
            if saturated[k]:
                slopes.saturated.append(i)
                if falls[k] and not falls_by_cross_entropy[k]:
                    slopes.misled.append(i)
    return slopes


def points(slopes: Slopes, n: int) -> list[Point]:
    """Points 9 and 13, of n right answers."""
    without_gradient, misleading = (
        tuple(sorted({*a, *b})) for a, b in ((slopes.zero, slopes.not_finite), (slopes.missing, slopes.uphill))
    )
    return [
        Point(
            9, "has the cross-entropy a gradient?", "flag" if without_gradient else "pass",
            f"of {pictures(n)} {len(slopes.zero)} have a gradient of zero and {len(slopes.not_finite)} one that is "
            "not finite",
            f"the cross-entropy has no gradient on {len(without_gradient)} of {pictures(n)}",
            "the loss saturates or an operation has no derivative: attack logits or the margin, or put a smooth "
            "operation in its place (BPDA)", without_gradient,
        ),
        Point(
            13, "does the loss fall along its own gradient?", "flag" if misleading else "pass",
            f"of {pictures(n)} {len(slopes.uphill)} have a gradient along which the loss does not fall, and "
            f"{len(slopes.missing)} have none although the loss changes with the picture",
            f"on {len(misleading)} of {pictures(n)} the loss does not fall along its gradient",
            "an operation that cannot be differentiated, or noise: BPDA, EOT, or a black box", misleading,
        ),
    ]  # fmt: skip


def _loss(case: Case, outputs: Tensor, rows: Sequence[int], naive: bool) -> Tensor:
    if naive:
        return F.cross_entropy(outputs, case.predicted[list(rows)].to(outputs.device), reduction="none").neg()
    return Misclassify(acceptable(case, rows)).loss(outputs)


def _gradient(case: Case, x: Tensor, rows: Sequence[int], *, naive: bool) -> Tensor:
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = _loss(case, case.model(z), rows, naive)
    try:
        (g,) = gradients(loss, z)
    except NoGradient:  # which is what is asked here
        return torch.zeros_like(x)
    return g


def _loss_falls(case: Case, x: Tensor, g: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: some step against the sign of a gradient g (B, C, *S), of at most eps, makes the log-odds smaller."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    falls = torch.zeros(len(x), dtype=torch.bool)
    signs = g.sign().nan_to_num()
    for part in _PARTS:
        after = scores(case.model, (x - eps / part * signs).clamp(0, 1))
        falls |= _loss(case, after, rows, naive=False) < before
    return falls


def _loss_moves(case: Case, x: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: random steps of eps change the loss."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    moves = torch.zeros(len(x), dtype=torch.bool)
    with rng.seeded(case.seed, x, "masking, steps"):
        for _ in range(_TRIES):
            step = (rng.uniform(x) - 0.5).sign()
            after = scores(case.model, (x + eps * step).clamp(0, 1))
            moves |= (_loss(case, after, rows, naive=False) - before).abs() > 1e-6 * before.abs().clamp_min(1)
    return moves
