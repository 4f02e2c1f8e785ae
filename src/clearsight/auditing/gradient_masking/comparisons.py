"""Points 1 to 8, 10, 14 and 17: does anything find what PGD misses?"""

from __future__ import annotations

from clearsight.auditing.case import Case
from clearsight.auditing.gradient_masking.checklist import AttackTrials, Point, Status, pictures

NO_GRADIENT = "this attack needs a gradient, and none flows back to the pixels"


def points(case: Case, found: AttackTrials, noise: int, asked_other: bool) -> list[Point]:
    """What came of everything tried; noise: how many random points of each cube were."""
    stranger = "is it at least as strong as pictures carried over from another model?"
    seen = 100 * (1 - 0.05 ** (1 / noise))  # of a cube: smaller parts escape so many points more than once in twenty
    return [
        _against(found, 1, "is an attack in many steps at least as strong as FGSM?", "fgsm",
                 "one step finds what many steps miss",
                 "PGD's step does not fit, or its gradients are noise: try a smaller step and apgd-ce", weaker=True),
        _against(found, 2, "does PGD with twice the steps find no more?", "twice the steps",
                 "twice the steps find more", "it has not converged: double the steps until nothing changes"),
        _against(found, 3, "do restarts find no more?", "three restarts", "restarts find more",
                 "the loss is rugged: more restarts, and auto-attack"),
        _larger(found),
        without_limit(found, len(found.rows) / len(case.model.labels)),
        _against(found, 6, stranger, "transfer", "pictures made against another model find what it misses",
                 "another model's gradients are better than its own: attack a copy without the defence", weaker=True)
        if asked_other
        else Point(6, stranger, "not asked", "no second model was named; give other=MODEL"),
        _black_box(found),
        _against(found, 8, "do random points of the cube find nothing that it misses?", "random noise",
                 "random points find what it misses",
                 "gradients do not lead to the wrong answers all around: try square, and look at the gradients",
                 f"; {noise} points find, 95 times in 100, what holds in {seen:.2g} % of a cube", weaker=True),
        _against(found, 10, "does another loss (DLR) find no more than cross-entropy?", "another loss",
                 "another loss finds more", "the loss saturates: attack with the margin (apgd-dlr, auto-attack)"),
        _against(found, 14, "does aiming at one class find no more than aiming at any?", "a target",
                 "aiming at one class finds more",
                 "the untargeted loss gets stuck where aimed ones do not: auto-attack, which aims at nine"),
        union_of_attacks(found),
    ]  # fmt: skip


def allowed(n: int) -> int:
    """How many of n right answers a stronger attack of PGD's own kind may break besides, and nothing is flagged.

    The list allows one percentage point.  Of fewer than two hundred that is a single picture, which alone cannot tell
    one point from none; two of twenty come of one point once in sixty times.

    >>> [allowed(n) for n in (1, 20, 199, 200)]
    [1, 1, 1, 2]
    """
    return max(1, n // 100)


def _besides(found: AttackTrials, name: str) -> tuple[int, ...]:
    return tuple(sorted(found.fooled(name) - found.fooled("pgd")))


def _against(
    found: AttackTrials,
    number: int,
    question: str,
    name: str,
    says: str,
    next_: str,
    more: str = "",
    *,
    weaker: bool = False,
) -> Point:
    """Does what was tried under a name break what PGD leaves?

    weaker: it should be weaker than PGD, and one picture fails; else it is stronger and of its own kind, which shows
    nothing of gradients but that PGD is too weak, and flags.
    """
    if name in found.blind:
        return Point(number, question, "not asked", NO_GRADIENT)
    if name not in found.asked:
        return Point(number, question, "pass", "PGD leaves no picture standing, so it misses none")
    rows, n = _besides(found, name), len(found.rows)
    told = f"breaks {pictures(len(rows))} that PGD misses, of {len(found.asked[name])} tried"
    if weaker:
        return Point(number, question, "fail" if rows else "pass", told + more, says, next_, rows)
    status: Status = "flag" if len(rows) > allowed(n) else "pass"
    return Point(number, question, status, told + _chance(rows, n), says, next_, rows, "strength")


def _chance(rows: tuple[int, ...], n: int) -> str:
    return f"; {allowed(n)} of {n} may be chance" if 0 < len(rows) <= allowed(n) else ""


def _larger(found: AttackTrials) -> Point:
    question = "does a larger budget break all that a smaller one breaks?"
    if "pgd" in found.blind:
        return Point(4, question, "not asked", NO_GRADIENT)
    sets = [s for _, s in sorted({**found.by_budget, found.eps: found.fooled("pgd")}.items())]
    back = tuple(sorted({i for k, s in enumerate(sets) for larger in sets[k + 1 :] for i in s - larger}))
    told = f"{pictures(len(back))} fall at a smaller budget and stand at a larger one"
    next_ = "the attack gets stuck: apgd-ce, which adapts its step, and restarts"
    says = "a larger budget leaves what a smaller one breaks"
    return Point(4, question, "fail" if back else "pass", told, says, next_, back)


def without_limit(found: AttackTrials, chance: float) -> Point:
    """Question 5: at a budget of 1 every picture can become any other, so no more than chance should stay right."""
    still = tuple(sorted({*found.rows} - found.by_budget.get(1.0, set())))
    bad = len(still) > chance
    told = f"at eps 1 {len(still)} of {pictures(len(found.rows))} stay right, chance is {chance:.2g}"
    says = f"under a budget without limit right answers stay, {len(still)} of {len(found.rows)}"
    next_ = "the gradients do not lead to a wrong answer: try a black box (square, hop-skip-jump), BPDA or EOT"
    question = "does a budget without limit leave no more than chance?"
    return Point(5, question, "fail" if bad else "pass", told, says, next_, still if bad else ())


def _black_box(found: AttackTrials) -> Point:
    question = "does a black box find nothing that gradients miss?"
    names = [name for name in ("square", "hop-skip-jump") if name in found.asked]
    if not names:
        return Point(7, question, "pass", "PGD leaves no picture standing, so they can find none")
    rows = {name: _besides(found, name) for name in names}
    every = tuple(sorted({i for r in rows.values() for i in r}))
    told = "; ".join(f"{name} breaks {pictures(len(r))} that PGD misses" for name, r in rows.items())
    says = f"black boxes find {len(every)} that it misses"
    next_ = "the gradients are masked: believe the black boxes, and attack with BPDA, EOT or the margin"
    return Point(7, question, "fail" if every else "pass", told, says, next_, every)


def union_of_attacks(found: AttackTrials) -> Point:
    """Question 17: what all attacks break together, against the one that breaks most."""
    whole, n = found.union(), len(found.rows)
    best = max(found.broke, key=lambda name: len(found.fooled(name)))
    rows = tuple(sorted(whole - found.fooled(best)))
    told = f"all together break {len(whole)} of {n}, the best one alone ({best}) {len(found.fooled(best))}"
    question = "is the union of all attacks no more than the best one, picture by picture?"
    next_ = "report the union of all attacks for each picture, not the best average"
    says = f"all together break {len(rows)} more than the best one"
    status: Status = "flag" if len(rows) > allowed(n) else "pass"
    return Point(17, question, status, told + _chance(rows, n), says, next_, rows, "strength")
