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
    """What became of the gradients at the pixels, by the rows to which it happened.

    Of the cross-entropy: nothing, it is zero; broken, it is not finite.  Of the log-odds, which say the same and do not
    saturate: uphill, nothing falls along it; blind, there is none although the answer moves with the picture.  sure:
    the probability rounds to 1; spoilt: of these, the log-odds fall along their own gradient and not along that of the
    cross-entropy.
    """

    nothing: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    uphill: list[int] = field(default_factory=list)
    blind: list[int] = field(default_factory=list)
    sure: list[int] = field(default_factory=list)
    spoilt: list[int] = field(default_factory=list)


def look(case: Case, rows: Sequence[int], eps: float) -> Slopes:
    """Of the right answers rows."""
    out = Slopes()
    for part, x in case.lots(rows):
        z = x.to(case.model.device)
        sure = (case.logits[part].softmax(1).amax(1) == 1).tolist()
        with case.model.undisturbed():
            naive = _gradient(case, z, part, naive=True)
            real = _gradient(case, z, part, naive=False)
            falls, moves = _falls(case, z, real, part, eps), _moves(case, z, part, eps)
            serves = _falls(case, z, naive, part, eps) if any(sure) else falls
        for k, i in enumerate(part):
            if not bool(naive[k].isfinite().all()):
                out.broken.append(i)
            elif not bool(naive[k].any()):
                out.nothing.append(i)
            if not bool(real[k].isfinite().all()) or not bool(real[k].any()):
                if moves[k]:
                    out.blind.append(i)
            elif not falls[k]:
                out.uphill.append(i)
            if sure[k]:
                out.sure.append(i)
                if falls[k] and not serves[k]:
                    out.spoilt.append(i)
    return out


def points(slopes: Slopes, n: int) -> list[Point]:
    """Of n right answers."""
    bad, wrong = (tuple(sorted({*a, *b})) for a, b in ((slopes.nothing, slopes.broken), (slopes.blind, slopes.uphill)))
    return [
        Point(
            9, "has the cross-entropy a gradient?", "flag" if bad else "pass",
            f"of {pictures(n)} {len(slopes.nothing)} have a gradient of zero and {len(slopes.broken)} one that is "
            "not finite",
            f"the cross-entropy has no gradient on {len(bad)} of {pictures(n)}",
            "the loss saturates or an operation has no derivative: attack logits or the margin, or put a smooth "
            "operation in its place (BPDA)", bad,
        ),
        Point(
            13, "does the loss fall along its own gradient?", "flag" if wrong else "pass",
            f"of {pictures(n)} {len(slopes.uphill)} have a gradient along which the loss does not fall, and "
            f"{len(slopes.blind)} have none although the loss changes with the picture",
            f"on {len(wrong)} of {pictures(n)} the loss does not fall along its gradient",
            "an operation that cannot be differentiated, or noise: BPDA, EOT, or a black box", wrong,
        ),
    ]  # fmt: skip


def _loss(case: Case, out: Tensor, rows: Sequence[int], naive: bool) -> Tensor:
    if naive:
        return F.cross_entropy(out, case.predicted[list(rows)].to(out.device), reduction="none").neg()
    return Misclassify(acceptable(case, rows)).loss(out)


def _gradient(case: Case, x: Tensor, rows: Sequence[int], *, naive: bool) -> Tensor:
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = _loss(case, case.model(z), rows, naive)
    try:
        (g,) = gradients(loss, z)
    except NoGradient:  # which is what is asked here
        return torch.zeros_like(x)
    return g


def _falls(case: Case, x: Tensor, g: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: some step against the sign of a gradient g (B, C, *S), of at most eps, makes the log-odds smaller."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    found = torch.zeros(len(x), dtype=torch.bool)
    way = g.sign().nan_to_num()
    for part in _PARTS:
        after = scores(case.model, (x - eps / part * way).clamp(0, 1))
        found |= _loss(case, after, rows, naive=False) < before
    return found


def _moves(case: Case, x: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: random steps of eps change the loss."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    found = torch.zeros(len(x), dtype=torch.bool)
    with rng.seeded(case.seed, x, "masking, steps"):
        for _ in range(_TRIES):
            step = (rng.uniform(x) - 0.5).sign()
            after = scores(case.model, (x + eps * step).clamp(0, 1))
            found |= (_loss(case, after, rows, naive=False) - before).abs() > 1e-6 * before.abs().clamp_min(1)
    return found
