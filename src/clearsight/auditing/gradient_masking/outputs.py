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
from clearsight.core.catalogue import method_name
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Misclassify
from clearsight.internals.scores import scores
from clearsight.runner.corrupt import corrupt
from clearsight.runner.run import attack

NATURAL = ("gaussian-noise(severity=1)", "brightness(severity=1)", "rotation(severity=1)")


def points(case: Case, rows: Sequence[int], trials: AttackTrials, slopes: Slopes, eps: float) -> list[Point]:
    """Points 11, 12, 15 and 16, of the right answers rows."""
    return [
        _scale_of_outputs(case, rows, slopes),
        _repeatability(case, rows),
        _linear_twin(case, rows, eps),
        _natural_damage(case, rows, trials),
    ]


def _scale_of_outputs(case: Case, rows: Sequence[int], slopes: Slopes) -> Point:
    """Flagged where it costs an attack something: an honest network is sure of a picture too, and has its gradient."""
    question = "are the outputs logits, and not so large that the cross-entropy loses its gradient?"
    outputs = case.logits[list(rows)]
    sums = bool(((outputs.sum(1) - 1).abs() < 1e-3).all()) and float(outputs.min()) >= 0
    result = (
        f"outputs run from {float(outputs.min()):.3g} to {float(outputs.max()):.3g}; on {len(slopes.saturated)} of "
        f"{pictures(len(rows))} the probability rounds to 1, and on {len(slopes.misled)} that costs the cross-entropy "
        "its gradient" + ("; they sum to 1, as probabilities do" if sums else "")
    )
    problem = "the outputs are probabilities already"
    if not sums:
        problem = f"outputs so large that the probability rounds to 1 mislead the cross-entropy on {len(slopes.misled)}"
    advice = "attack the logits before any softmax, divided by a temperature, or with a scale-invariant loss (dlr)"
    return Point(
        11, question, "flag" if sums or slopes.misled else "pass", result, problem, advice, tuple(slopes.misled)
    )


def _repeatability(case: Case, rows: Sequence[int]) -> Point:
    changed: list[int] = []
    for part, x in case.lots(rows):
        with case.model.undisturbed(), torch.no_grad():
            first, second = (case.model(x.to(case.model.device)).float().cpu() for _ in range(2))
        differing = (first - second).abs().amax(1) > 1e-4 * first.abs().amax(1).clamp_min(1e-3)
        changed += [part[k] for k in differing.nonzero()[:, 0].tolist()]
    result = f"asked twice, {len(changed)} of {pictures(len(rows))} get different scores"
    advice = "average gradients and answers over many draws (EOT)"
    return Point(
        12, "does the same picture get the same answer twice?", "flag" if changed else "pass", result,
        f"asked twice, {pictures(len(changed))} of {len(rows)} get different scores", advice, tuple(changed),
    )  # fmt: skip


def _linear_twin(case: Case, rows: Sequence[int], eps: float) -> Point:
    """A linear model of the same pictures, of which it is known what falls: PGD must find just that."""
    question = "does the same attack break an undefended twin whenever it can be broken?"
    x = case.pixels(rows).flatten(1).double()
    predicted = case.predicted[list(rows)]
    common = int(predicted.mode().values)
    y = (predicted == common).long()
    if bool((y == y[0]).all()):
        return Point(15, question, "not asked", "all right answers are of one class, which a twin cannot tell apart")
    mean = x.mean(0)
    centred = x - mean
    kernel = centred @ centred.T
    ridge = 1e-3 * float(kernel.diagonal().mean()) * torch.eye(len(x), dtype=torch.double)
    w = centred.T @ torch.linalg.solve(kernel + ridge, 2.0 * y.double() - 1)
    b = -float(mean @ w) + float((2.0 * y.double() - 1).mean())
    score = x @ w + b
    signs = torch.where(score > 0, 1, -1)
    allowed = torch.where((signs[:, None] * w) > 0, x.clamp(max=eps), (1 - x).clamp(max=eps))
    worst = signs * score - (allowed * w.abs()).sum(1)
    certain = worst.abs() > 1e-6 * (allowed * w.abs()).sum(1)  # nearer than that, rounding decides
    layer = nn.Linear(len(w), 2)
    layer.weight.data = torch.stack([-w, w]).float() / 2
    layer.bias.data = torch.tensor([-b / 2, b / 2])
    model = Classifier(
        nn.Sequential(nn.Flatten(), layer).eval(), _without_normalisation(case), ("others", "it"), "a linear twin"
    )
    attacked = attack(model, case.pixels(rows), Misclassify((signs > 0).long()), "pgd", eps=eps, seed=case.seed)
    fooled = attacked.fooled
    wrong = tuple(rows[k] for k in ((fooled != (worst < 0)) & certain).nonzero()[:, 0].tolist())
    breakable, broken = int((worst < 0).sum()), int(fooled.sum())
    result = f"of a linear twin {breakable} of {pictures(len(rows))} can be broken, and PGD breaks {broken}"
    problem = "PGD does not break a linear twin just where it can be broken"
    advice = "the attack itself is at fault here, not the model: report it"
    return Point(15, question, "fail" if wrong else "pass", result, problem, advice, wrong)


def _without_normalisation(case: Case) -> Preprocess:
    p = case.model.preprocess
    return replace(p, mean=(0.0,) * p.channels, std=(1.0,) * p.channels)


def _natural_damage(case: Case, rows: Sequence[int], trials: AttackTrials) -> Point:
    question = "does mild natural damage break nothing that PGD leaves standing?"
    if len(case.model.preprocess.size) != 2:
        return Point(16, question, "not asked", "natural damage is defined for pictures, and these inputs are none")
    standing = [i for i in rows if i not in trials.fooled("pgd")]
    if not standing:
        return Point(16, question, "pass", "PGD leaves no picture standing")
    broken: dict[str, list[int]] = {}
    for words in NATURAL:
        for part, x in case.lots(standing):
            z = corrupt(x, words, seed=case.seed)
            with case.model.undisturbed():
                answers = scores(case.model, z.to(case.model.device)).argmax(1)
            hit = ~acceptable(case, part).gather(1, answers[:, None])[:, 0]
            broken.setdefault(method_name(words), []).extend(part[k] for k in hit.nonzero()[:, 0].tolist())
    all_rows = tuple(sorted({i for hits in broken.values() for i in hits}))
    result = (
        ", ".join(f"{name} breaks {len(hits)}" for name, hits in broken.items())
        + f" of {len(standing)} that PGD does not"
    )
    advice = (
        "robust to small changes of pixels alone: state this, and test rotations and corruptions (check corruptions)"
    )
    problem = f"mild natural damage breaks {len(all_rows)} of {len(standing)} that PGD leaves standing"
    return Point(16, question, "flag" if all_rows else "pass", result, problem, advice, all_rows, about="nature")
