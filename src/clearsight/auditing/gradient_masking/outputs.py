"""Points 11, 12, 15 and 16: the outputs themselves, a twin whose answer is known, and natural damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from clearsight.auditing.case import Case
from clearsight.auditing.goals import acceptable
from clearsight.auditing.gradient_masking.checklist import AttackTrials, Point, pictures
from clearsight.auditing.gradient_masking.gradients import Slopes
from clearsight.core.classifier import Classifier, Preprocess
from clearsight.core.targets import Misclassify
from clearsight.internals.scores import scores
from clearsight.runner.corrupt import corrupt
from clearsight.runner.run import attack

NATURAL = ("gaussian-noise(severity=1)", "brightness(severity=1)", "rotation(severity=1)")


def points(case: Case, rows: Sequence[int], found: AttackTrials, slopes: Slopes, eps: float) -> list[Point]:
    """Of the right answers rows."""
    return [_scale(case, rows, slopes), _chance(case, rows), _twin(case, rows, eps), _natural(case, rows, found)]


def _scale(case: Case, rows: Sequence[int], slopes: Slopes) -> Point:
    """Flagged where it costs an attack something: an honest network is sure of a picture too, and has its gradient."""
    question = "are the outputs logits, and not so large that the cross-entropy loses its gradient?"
    out = case.logits[list(rows)]
    sums = bool(((out.sum(1) - 1).abs() < 1e-3).all()) and float(out.min()) >= 0
    told = (
        f"outputs run from {float(out.min()):.3g} to {float(out.max()):.3g}; on {len(slopes.sure)} of "
        f"{pictures(len(rows))} the probability rounds to 1, and on {len(slopes.spoilt)} that costs the cross-entropy "
        "its gradient" + ("; they sum to 1, as probabilities do" if sums else "")
    )
    says = "the outputs are probabilities already"
    if not sums:
        says = f"outputs so large that the probability rounds to 1 mislead the cross-entropy on {len(slopes.spoilt)}"
    next_ = "attack the logits before any softmax, divided by a temperature, or with a scale-invariant loss (dlr)"
    return Point(11, question, "flag" if sums or slopes.spoilt else "pass", told, says, next_, tuple(slopes.spoilt))


def _chance(case: Case, rows: Sequence[int]) -> Point:
    moved: list[int] = []
    for part, x in case.lots(rows):
        with case.model.undisturbed(), torch.no_grad():
            one, two = (case.model(x.to(case.model.device)).float().cpu() for _ in range(2))
        far = (one - two).abs().amax(1) > 1e-4 * one.abs().amax(1).clamp_min(1e-3)
        moved += [part[k] for k in far.nonzero()[:, 0].tolist()]
    told = f"asked twice, {len(moved)} of {pictures(len(rows))} get different scores"
    next_ = "average gradients and answers over many draws (EOT)"
    return Point(
        12, "does the same picture get the same answer twice?", "flag" if moved else "pass", told,
        f"asked twice, {pictures(len(moved))} of {len(rows)} get different scores", next_, tuple(moved),
    )  # fmt: skip


def _twin(case: Case, rows: Sequence[int], eps: float) -> Point:
    """A linear model of the same pictures, of which it is known what falls: PGD must find just that."""
    question = "does the same attack break an undefended twin whenever it can be broken?"
    x = case.pixels(rows).flatten(1).double()
    said = case.predicted[list(rows)]
    common = int(said.mode().values)
    y = (said == common).long()
    if bool((y == y[0]).all()):
        return Point(15, question, "not asked", "all right answers are of one class, which a twin cannot tell apart")
    middle = x.mean(0)
    away = x - middle
    kernel = away @ away.T
    ridge = 1e-3 * float(kernel.diagonal().mean()) * torch.eye(len(x), dtype=torch.double)
    w = away.T @ torch.linalg.solve(kernel + ridge, 2.0 * y.double() - 1)
    b = -float(middle @ w) + float((2.0 * y.double() - 1).mean())
    score = x @ w + b
    own = torch.where(score > 0, 1, -1)
    room = torch.where((own[:, None] * w) > 0, x.clamp(max=eps), (1 - x).clamp(max=eps))
    worst = own * score - (room * w.abs()).sum(1)
    known = worst.abs() > 1e-6 * (room * w.abs()).sum(1)  # nearer than that, rounding decides
    layer = nn.Linear(len(w), 2)
    layer.weight.data = torch.stack([-w, w]).float() / 2
    layer.bias.data = torch.tensor([-b / 2, b / 2])
    model = Classifier(nn.Sequential(nn.Flatten(), layer).eval(), _plain(case), ("others", "it"), "a linear twin")
    got = attack(model, case.pixels(rows), Misclassify((own > 0).long()), "pgd", eps=eps, seed=case.seed)
    fell = got.fooled
    wrong = tuple(rows[k] for k in ((fell != (worst < 0)) & known).nonzero()[:, 0].tolist())
    can, did = int((worst < 0).sum()), int(fell.sum())
    told = f"of a linear twin {can} of {pictures(len(rows))} can be broken, and PGD breaks {did}"
    says = "PGD does not break a linear twin just where it can be broken"
    next_ = "the attack itself is at fault here, not the model: report it"
    return Point(15, question, "fail" if wrong else "pass", told, says, next_, wrong)


def _plain(case: Case) -> Preprocess:
    p = case.model.preprocess
    return replace(p, mean=(0.0,) * p.channels, std=(1.0,) * p.channels)


def _natural(case: Case, rows: Sequence[int], found: AttackTrials) -> Point:
    question = "does mild natural damage break nothing that PGD leaves standing?"
    if len(case.model.preprocess.size) != 2:
        return Point(16, question, "not asked", "natural damage is defined for pictures, and these inputs are none")
    left = [i for i in rows if i not in found.fooled("pgd")]
    if not left:
        return Point(16, question, "pass", "PGD leaves no picture standing")
    broken: dict[str, list[int]] = {}
    for words in NATURAL:
        for part, x in case.lots(left):
            z = corrupt(x, words, seed=case.seed)
            with case.model.undisturbed():
                said = scores(case.model, z.to(case.model.device)).argmax(1)
            hit = ~acceptable(case, part).gather(1, said[:, None])[:, 0]
            broken.setdefault(words.partition("(")[0], []).extend(part[k] for k in hit.nonzero()[:, 0].tolist())
    every = tuple(sorted({i for hits in broken.values() for i in hits}))
    told = (
        ", ".join(f"{name} breaks {len(hits)}" for name, hits in broken.items()) + f" of {len(left)} that PGD does not"
    )
    next_ = (
        "robust to small changes of pixels alone: state this, and test rotations and corruptions (check corruptions)"
    )
    says = f"mild natural damage breaks {len(every)} of {len(left)} that PGD leaves standing"
    return Point(16, question, "flag" if every else "pass", told, says, next_, every, about="nature")
