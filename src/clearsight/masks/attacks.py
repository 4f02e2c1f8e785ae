"""Points 1 to 8, 10, 14 and 17: does anything find what PGD misses?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight import draws
from clearsight.attacks._common import within
from clearsight.case import Case
from clearsight.classifier import Classifier
from clearsight.masks.points import Point, Tried, pictures
from clearsight.runner import attack, scores
from clearsight.striking import acceptable
from clearsight.targets import Become, Goal, Misclassify

TARGETS = 2  # other classes towards which PGD is run
MORE = {  # what else is tried on the pictures that PGD leaves standing: name -> spelling
    "twice the steps": "pgd(steps={twice})",
    "three restarts": "pgd(steps={steps}, restarts=3)",
    "another loss": "apgd-dlr(steps={steps})",
    "square": "square(queries={queries})",
    "hop-skip-jump": "hop-skip-jump(queries={queries}, norm=linf)",
}


def spelled(name: str, steps: int, queries: int) -> str:
    """How the attack behind a name is spelled for the command line; PGD where it has no spelling of its own."""
    words = {"fgsm": "fgsm", **MORE}.get(name, "pgd(steps={steps})")
    return words.format(steps=steps, twice=2 * steps, queries=queries)


def tried(
    case: Case,
    rows: Sequence[int],
    x: Tensor,
    eps: float,
    steps: int,
    queries: int,
    noise: int,
    other: Classifier | None,
) -> Tried:
    """Everything on the right answers rows, x (B, C, *S): FGSM and PGD on all, the rest on what PGD leaves standing."""
    found = Tried(eps, list(rows))
    right = acceptable(case, rows)
    goal = Misclassify(right)

    def run(name: str, call: str, left: Sequence[int], wanted: Goal, second: Classifier | None = None) -> None:
        if not left:
            return
        got = attack(case.model, x[list(left)], wanted, call, eps=eps, other=second, seed=case.seed)
        wrong = ~_right(case.model, got.x, right[list(left)])
        note(name, left, got.x, wrong)

    def note(name: str, left: Sequence[int], z: Tensor, wrong: Tensor) -> None:
        found.asked.setdefault(name, set()).update(rows[j] for j in left)
        broke = found.broke.setdefault(name, {})
        broke.update({rows[left[k]]: z[k] for k in wrong.nonzero()[:, 0].tolist() if rows[left[k]] not in broke})

    every = list(range(len(rows)))
    run("fgsm", "fgsm", every, goal)
    run("pgd", f"pgd(steps={steps})", every, goal)
    for budget in (eps / 4, eps / 2, 1.0):
        got = attack(case.model, x, goal, f"pgd(steps={steps})", eps=budget, seed=case.seed)
        found.by_budget[budget] = {rows[k] for k in got.fooled.nonzero()[:, 0].tolist()}
    left = [j for j in every if rows[j] not in found.broke["pgd"]]
    for name in MORE:
        run(name, spelled(name, steps, queries), left, goal[torch.tensor(left, dtype=torch.long)])
    order = case.logits[list(rows)].masked_fill(right, -torch.inf).argsort(1, descending=True)
    for k in range(min(TARGETS, order.shape[1] - 1)):
        able = [j for j in left if not bool(right[j, order[j, k]])]
        run("a target", f"pgd(steps={steps})", able, Become(order[able, k]))
    if left:
        z = x[left].to(case.model.device)
        with draws.seeded(case.seed, z, "masking"):
            for _ in range(noise):
                made = within(z, eps, "linf")
                note("random noise", left, made.cpu(), ~_right(case.model, made, right[left]))
    if other is not None:
        run(
            "transfer",
            f"transfer(inner=pgd(steps={steps}))",
            left,
            goal[torch.tensor(left, dtype=torch.long)],
            second=other,
        )
    return found


def _right(model: Classifier, x: Tensor, right: Tensor) -> Tensor:
    with model.undisturbed():
        said = scores(model, x.to(model.device)).argmax(1)
    return right.gather(1, said[:, None])[:, 0]


def points(case: Case, found: Tried, asked_other: bool) -> list[Point]:
    """Points 1 to 8, 10, 14 and 17."""
    n, pgd = len(found.rows), found.fooled("pgd")

    def beyond(name: str) -> tuple[int, ...]:
        return tuple(sorted(found.fooled(name) - pgd))

    def against(number: int, question: str, name: str, next_: str, *, fails: bool) -> Point:
        rows = beyond(name)
        if name not in found.asked:
            return Point(number, question, "pass", "PGD leaves nothing standing that it could have missed")
        told = f"breaks {pictures(len(rows))} that PGD misses, of {len(found.asked[name])} tried"
        return Point(number, question, ("fail" if fails else "flag") if rows else "pass", told, next_, rows)

    budgets = [*sorted(b for b in found.by_budget if b < found.eps), found.eps, 1.0]
    sets = [found.by_budget.get(b, pgd) if b != found.eps else pgd for b in budgets]
    back = sorted({i for k, s in enumerate(sets) for larger in sets[k + 1 :] for i in s - larger})
    still = sorted({*found.rows} - found.by_budget.get(1.0, set()))
    chance = n / len(case.model.labels)
    whole, best = found.union(), max(found.broke, key=lambda name: len(found.fooled(name)))
    return [
        against(1, "is an attack in many steps at least as strong as FGSM?", "fgsm",
                "PGD's step does not fit, or its gradients are noise: try a smaller step and apgd-ce", fails=True),
        against(2, "does PGD with twice the steps find no more?", "twice the steps",
                "it has not converged: double the steps until nothing changes", fails=False),
        against(3, "do restarts find no more?", "three restarts",
                "the loss is rugged: more restarts, and auto-attack", fails=False),
        Point(
            4, "does a larger budget break all that a smaller one breaks?", "fail" if back else "pass",
            f"{pictures(len(back))} fall at a smaller budget and stand at a larger one",
            "the attack gets stuck: apgd-ce, which adapts its step, and restarts", tuple(back),
        ),
        Point(
            5, "does a budget without limit leave no more than chance?",
            "fail" if len(still) > chance else "pass",
            f"at eps 1 {len(still)} of {pictures(n)} stand, chance is {chance:.2g}",
            "gradients lead nowhere: a black box (square, hop-skip-jump), and BPDA or EOT in the model's place",
            tuple(still) if len(still) > chance else (),
        ),
        against(6, "is it at least as strong as pictures carried over from another model?", "transfer",
                "gradients of the model are worse than a stranger's: attack a copy without the defence", fails=True)
        if asked_other
        else Point(6, "is it at least as strong as pictures carried over from another model?", "not asked",
                   "no second model was named; give other=MODEL"),
        _black_box(found),
        against(8, "do random points of the cube find nothing that it misses?", "random noise",
                "gradients point away from what is everywhere around: square, and a look at the gradients", fails=True),
        against(10, "does another loss (DLR) find no more than cross-entropy?", "another loss",
                "the loss saturates: attack with the margin (apgd-dlr, auto-attack)", fails=False),
        against(14, "does aiming at one class find no more than aiming at any?", "a target",
                "targets lead where no target does not: auto-attack, which aims at nine", fails=False),
        Point(
            17, "is the union of all attacks no more than the best one, picture by picture?",
            "flag" if len(whole) > len(found.fooled(best)) else "pass",
            f"all together break {len(whole)} of {n}, the best one alone ({best}) {len(found.fooled(best))}",
            "report the union of all attacks for each picture, not the best average",
            tuple(sorted(whole - found.fooled(best))),
        ),
    ]  # fmt: skip


def _black_box(found: Tried) -> Point:
    question = "does a black box find nothing that gradients miss?"
    names = ("square", "hop-skip-jump")
    if not any(name in found.asked for name in names):
        return Point(7, question, "pass", "PGD leaves nothing standing that they could have found")
    pgd = found.fooled("pgd")
    rows = {name: found.fooled(name) - pgd for name in names}
    every = tuple(sorted({i for r in rows.values() for i in r}))
    told = "; ".join(f"{name} breaks {pictures(len(r))} that PGD misses" for name, r in rows.items())
    next_ = "the gradients are masked: believe the black boxes, and attack with BPDA, EOT or the margin"
    return Point(7, question, "fail" if every else "pass", told, next_, every)
