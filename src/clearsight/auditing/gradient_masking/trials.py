"""What is tried on every right answer, for the points that ask whether anything finds what PGD misses."""

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


def spelled(name: str, steps: int, queries: int) -> str:
    """How the attack behind a name is spelled for the runner and the command line; "" where it is no attack."""
    return SPELLED.get(name, "").format(steps=steps, twice=2 * steps, queries=queries)


def tried(
    case: Case,
    rows: Sequence[int],
    x: Tensor,
    eps: float,
    steps: int,
    queries: int,
    noise: int,
    other: Classifier | None,
) -> AttackTrials:
    """Everything on the right answers rows, x (B, C, *S): FGSM and PGD on all, the rest on what PGD leaves standing.

    What needs a gradient finds nothing where none flows back to the pixels: that is no reason to stop, but the very
    thing that is looked for.
    """
    found = AttackTrials(eps, list(rows))
    right = acceptable(case, rows)
    goal = Misclassify(right)

    def run(name: str, left: Sequence[int], wanted: Goal, second: Classifier | None = None) -> Tensor:
        """Note what it breaks of the pictures left, and give what they are made: (n, C, *S)."""
        clean, call = x[list(left)], spelled(name, steps, queries)
        try:
            made = attack(case.model, clean, wanted, call, eps=eps, other=second, seed=case.seed).x
        except NoGradient:
            found.blind.add(name)
            made = clean
        note(name, left, made, ~_right(case.model, made, right[list(left)]))
        return made

    def note(name: str, left: Sequence[int], z: Tensor, wrong: Tensor) -> None:
        found.asked.setdefault(name, set()).update(rows[j] for j in left)
        broke = found.broke.setdefault(name, {})
        broke.update({rows[left[k]]: z[k] for k in wrong.nonzero()[:, 0].tolist() if rows[left[k]] not in broke})

    every = list(range(len(rows)))
    run("fgsm", every, goal)
    run("pgd", every, goal)
    for budget in (eps / 4, eps / 2, 1.0):
        found.by_budget[budget] = _by_pgd(case, rows, x, goal, steps, budget)
    left = [j for j in every if rows[j] not in found.broke["pgd"]]
    if not left:
        return found
    rest = goal[torch.tensor(left, dtype=torch.long)]
    for name in MORE:
        run(name, left, rest)
    order = case.logits[list(rows)].masked_fill(right, -torch.inf).argsort(1, descending=True)
    for k in range(min(TARGETS, order.shape[1] - 1)):
        able = [j for j in left if not bool(right[j, order[j, k]])]
        if able:
            to = Become(order[able, k])
            there = to.met(scores_of(case.model, run("a target", able, to)))
            found.aimed |= {rows[able[m]]: int(to.t[m]) for m in there.nonzero()[:, 0].tolist()}
    z = x[left].to(case.model.device)
    with rng.seeded(case.seed, z, "masking"):
        for _ in range(noise):
            made = within(z, eps, "linf")
            note("random noise", left, made.cpu(), ~_right(case.model, made, right[left]))
    if other is not None:
        run("transfer", left, rest, second=other)
    return found


def _by_pgd(case: Case, rows: Sequence[int], x: Tensor, goal: Goal, steps: int, eps: float) -> set[int]:
    try:
        got = attack(case.model, x, goal, spelled("pgd", steps, 0), eps=eps, seed=case.seed)
    except NoGradient:
        return set()
    return {rows[k] for k in got.fooled.nonzero()[:, 0].tolist()}


def _right(model: Classifier, x: Tensor, right: Tensor) -> Tensor:
    return right.gather(1, scores_of(model, x).argmax(1, keepdim=True))[:, 0]
