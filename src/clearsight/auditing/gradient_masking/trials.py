"""The attacks on every right answer, for the points that ask whether another attack finds what PGD misses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.goals import acceptable
from clearsight.auditing.gradient_masking.checklist import AttackTrials
from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.norms import within
from clearsight.core.targets import Become, Goal, Misclassify
from clearsight.errors import NoGradient
from clearsight.internals.scores import scores_of
from clearsight.runner.run import attack

TARGETS = 2  # other classes towards which PGD is run
MORE = {  # what else is tried on the pictures that PGD leaves standing: name -> spelling
    "twice the steps": "pgd(steps={twice})",
    "three restarts": "pgd(steps={steps}, restarts=3)",
    "another loss": "apgd-dlr(steps={steps})",
    "square": "square(queries={queries})",
    "hop-skip-jump": "hop-skip-jump(queries={queries}, norm=linf)",
}
SPELLED = {
    "fgsm": "fgsm",
    "pgd": "pgd(steps={steps})",
    **MORE,
    "a target": "pgd(steps={steps})",
    "transfer": "transfer(inner=pgd(steps={steps}))",
}


def spelling(name: str, steps: int, queries: int) -> str:
    """How the attack behind a name is spelled for the runner and the command line; "" where it is no attack."""
    return SPELLED.get(name, "").format(steps=steps, twice=2 * steps, queries=queries)


def try_attacks(
    case: Case,
    rows: Sequence[int],
    x: Tensor,
    eps: float,
    steps: int,
    queries: int,
    noise: int,
    other: Classifier | None,
) -> AttackTrials:
    """Attack the right answers rows, x (B, C, *S): FGSM and PGD on all, the others on what PGD leaves standing.

    An attack that needs a gradient breaks nothing where none flows back to the pixels.  It is recorded as blind, and
    the others go on.
    """
    trials = AttackTrials(eps, list(rows))
    right = acceptable(case, rows)
    goal = Misclassify(right)

    def run(name: str, indices: Sequence[int], wanted: Goal, second: Classifier | None = None) -> Tensor:
        """Attack the pictures of these indices, record which are broken, and return the attacked ones, (n, C, *S)."""
        clean, call = x[list(indices)], spelling(name, steps, queries)
        try:
            attacked = attack(case.model, clean, wanted, call, eps=eps, other=second, seed=case.seed).x
        except NoGradient:
            trials.blind.add(name)
            attacked = clean
        note(name, indices, attacked, ~_is_right(case.model, attacked, right[list(indices)]))
        return attacked

    def note(name: str, indices: Sequence[int], z: Tensor, wrong: Tensor) -> None:
        trials.tried.setdefault(name, set()).update(rows[j] for j in indices)
        broken = trials.broken.setdefault(name, {})
        broken.update(
            {rows[indices[k]]: z[k] for k in wrong.nonzero()[:, 0].tolist() if rows[indices[k]] not in broken}
        )

    all_indices = list(range(len(rows)))
    run("fgsm", all_indices, goal)
    run("pgd", all_indices, goal)
    for budget in (eps / 4, eps / 2, 1.0):
        trials.by_budget[budget] = _rows_broken_by_pgd(case, rows, x, goal, steps, budget)
    standing = [j for j in all_indices if rows[j] not in trials.broken["pgd"]]
    if not standing:
        return trials
    goal_of_standing = goal[torch.tensor(standing, dtype=torch.long)]
    for name in MORE:
        run(name, standing, goal_of_standing)
    order = case.logits[list(rows)].masked_fill(right, -torch.inf).argsort(1, descending=True)
    for k in range(min(TARGETS, order.shape[1] - 1)):
        possible = [j for j in standing if not bool(right[j, order[j, k]])]
        if possible:
            goal_of_class = Become(order[possible, k])
            reached = goal_of_class.met(scores_of(case.model, run("a target", possible, goal_of_class)))
            trials.aimed |= {rows[possible[m]]: int(goal_of_class.t[m]) for m in reached.nonzero()[:, 0].tolist()}
    z = x[standing].to(case.model.device)
    with rng.seeded(case.seed, z, "masking"):
        for _ in range(noise):
            attacked = within(z, eps, "linf")
            note("random noise", standing, attacked.cpu(), ~_is_right(case.model, attacked, right[standing]))
    if other is not None:
        run("transfer", standing, goal_of_standing, second=other)
    return trials


def _rows_broken_by_pgd(case: Case, rows: Sequence[int], x: Tensor, goal: Goal, steps: int, eps: float) -> set[int]:
    try:
        attacked = attack(case.model, x, goal, spelling("pgd", steps, 0), eps=eps, seed=case.seed)
    except NoGradient:
        return set()
    return {rows[k] for k in attacked.fooled.nonzero()[:, 0].tolist()}


def _is_right(model: Classifier, x: Tensor, right: Tensor) -> Tensor:
    return right.gather(1, scores_of(model, x).argmax(1, keepdim=True))[:, 0]
