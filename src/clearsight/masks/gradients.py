"""Points 9 and 13: are there gradients, and do they point downhill?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight import draws
from clearsight.case import Case
from clearsight.layers import gradients
from clearsight.masks.points import Point, pictures
from clearsight.runner import scores
from clearsight.striking import acceptable
from clearsight.targets import Misclassify

_PARTS = (1, 4, 16)  # of eps, by which is gone along the gradient
_TRIES = 8  # random steps, where there is no gradient


def points(case: Case, rows: Sequence[int], eps: float) -> list[Point]:
    """Of the right answers rows."""
    nothing: list[int] = []
    broken: list[int] = []
    uphill: list[int] = []
    blind: list[int] = []
    for part, x in case.batches(rows):
        z = x.to(case.model.device)
        with case.model.undisturbed():
            naive = _gradient(case, z, part, naive=True)
            real = _gradient(case, z, part, naive=False)
            falls, moves = _falls(case, z, real, part, eps), _moves(case, z, part, eps)
        for k, i in enumerate(part):
            if not bool(naive[k].isfinite().all()):
                broken.append(i)
            elif not bool(naive[k].any()):
                nothing.append(i)
            if not bool(real[k].isfinite().all()) or not bool(real[k].any()):
                if moves[k]:
                    blind.append(i)
            elif not falls[k]:
                uphill.append(i)
    n = len(rows)
    bad, wrong = tuple(sorted({*nothing, *broken})), tuple(sorted({*blind, *uphill}))
    return [
        Point(
            9, "has the cross-entropy a gradient?", "flag" if bad else "pass",
            f"of {pictures(n)} {len(nothing)} have a gradient of nothing and {len(broken)} one that is not finite",
            "the loss saturates or an operation has no derivative: attack logits or the margin, or put a smooth "
            "operation in its place (BPDA)", bad,
        ),
        Point(
            13, "does the loss fall along its own gradient?", "flag" if wrong else "pass",
            f"of {pictures(n)} {len(uphill)} have a gradient along which nothing falls, and {len(blind)} none although "
            "the answer moves with the picture",
            "an operation that cannot be derived, or noise: BPDA, EOT, or a black box", wrong,
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
    if not loss.requires_grad:
        return torch.zeros_like(x)
    (g,) = gradients(loss, z)
    return g


def _falls(case: Case, x: Tensor, g: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: some step against the gradient's sign, of at most eps, makes the loss smaller."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    found = torch.zeros(len(x), dtype=torch.bool)
    for part in _PARTS:
        after = scores(case.model, (x - eps / part * g.sign()).clamp(0, 1))
        found |= _loss(case, after, rows, naive=False) < before
    return found


def _moves(case: Case, x: Tensor, rows: Sequence[int], eps: float) -> Tensor:
    """(B,) bool: random steps of eps change the loss."""
    before = _loss(case, scores(case.model, x), rows, naive=False)
    found = torch.zeros(len(x), dtype=torch.bool)
    with draws.seeded(case.seed, x, "masking, steps"):
        for _ in range(_TRIES):
            step = (draws.uniform(x) - 0.5).sign()
            after = scores(case.model, (x + eps * step).clamp(0, 1))
            found |= (_loss(case, after, rows, naive=False) - before).abs() > 1e-6 * before.abs().clamp_min(1)
    return found
