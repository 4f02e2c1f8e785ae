"""Points 1 to 8, 10, 14 and 17: does another attack find what PGD misses?"""

from __future__ import annotations

from clearsight.auditing.case import Case
from clearsight.auditing.gradient_masking.checklist import AttackTrials, Point, Status, pictures

NO_GRADIENT = "this attack needs a gradient, and none flows back to the pixels"


def points(case: Case, trials: AttackTrials, noise: int, asked_other: bool) -> list[Point]:
    """The points on what the attacks found; noise: number of random points of each cube that were tried."""
    question_on_transfer = "is it at least as strong as pictures carried over from another model?"
    covered = 100 * (1 - 0.05 ** (1 / noise))  # of a cube: smaller parts escape so many points more than once in twenty
    return [
        _compare_with(trials, 1, "is an attack in many steps at least as strong as FGSM?", "fgsm",
                 "one step finds what many steps miss",
                 "PGD's step does not fit, or its gradients are noise: try a smaller step and apgd-ce", weaker=True),
        _compare_with(trials, 2, "does PGD with twice the steps find no more?", "twice the steps",
                 "twice the steps find more", "it has not converged: double the steps until nothing changes"),
        _compare_with(trials, 3, "do restarts find no more?", "three restarts", "restarts find more",
                 "the loss is rugged: more restarts, and auto-attack"),
        _larger_budget(trials),
        without_limit(trials, len(trials.rows) / len(case.model.labels)),
        _compare_with(trials, 6, question_on_transfer, "transfer",
                 "pictures made against another model find what it misses",
                 "another model's gradients are better than its own: attack a copy without the defence", weaker=True)
        if asked_other
        else Point(6, question_on_transfer, "not asked", "no second model was named; give other=MODEL"),
        _black_box(trials),
        _compare_with(trials, 8, "do random points of the cube find nothing that it misses?", "random noise",
                 "random points find what it misses",
                 "gradients do not lead to the wrong answers all around: try square, and look at the gradients",
                 f"; {noise} points find, 95 times in 100, what holds in {covered:.2g} % of a cube", weaker=True),
        _compare_with(trials, 10, "does another loss (DLR) find no more than cross-entropy?", "another loss",
                 "another loss finds more", "the loss saturates: attack with the margin (apgd-dlr, auto-attack)"),
        _compare_with(trials, 14, "does aiming at one class find no more than aiming at any?", "a target",
                 "aiming at one class finds more",
                 "the untargeted loss gets stuck where aimed ones do not: auto-attack, which aims at nine"),
        union_of_attacks(trials),
    ]  # fmt: skip


def allowed(n: int) -> int:
    """How many of n right answers a stronger attack of PGD's own kind may break besides, and nothing is flagged.

    The list allows one percentage point.  Of fewer than two hundred that is a single picture, which alone cannot tell
    one point from none; two of twenty come of one point once in sixty times.

    >>> [allowed(n) for n in (1, 20, 199, 200)]
    [1, 1, 1, 2]
    """
    return max(1, n // 100)


def _rows_that_pgd_misses(trials: AttackTrials, name: str) -> tuple[int, ...]:
    return tuple(sorted(trials.fooled(name) - trials.fooled("pgd")))


def _compare_with(
    trials: AttackTrials,
    number: int,
    question: str,
    name: str,
    problem: str,
    advice: str,
    addition: str = "",
    *,
    weaker: bool = False,
) -> Point:
    """The point on whether the attack of a name breaks what PGD leaves standing.

    weaker: the attack should be weaker than PGD, so one picture fails the point.  Otherwise it is stronger and of PGD's
    own kind: what it finds shows that PGD is too weak, and flags the point.
    """
    if name in trials.blind:
        return Point(number, question, "not asked", NO_GRADIENT)
    if name not in trials.tried:
        return Point(number, question, "pass", "PGD leaves no picture standing, so it misses none")
    rows, n = _rows_that_pgd_misses(trials, name), len(trials.rows)
    result = f"breaks {pictures(len(rows))} that PGD misses, of {len(trials.tried[name])} tried"
    if weaker:
        return Point(number, question, "fail" if rows else "pass", result + addition, problem, advice, rows)
    status: Status = "flag" if len(rows) > allowed(n) else "pass"
    return Point(number, question, status, result + _note_on_chance(rows, n), problem, advice, rows, "strength")


def _note_on_chance(rows: tuple[int, ...], n: int) -> str:
    return f"; {allowed(n)} of {n} may be chance" if 0 < len(rows) <= allowed(n) else ""


def _larger_budget(trials: AttackTrials) -> Point:
    question = "does a larger budget break all that a smaller one breaks?"
    if "pgd" in trials.blind:
        return Point(4, question, "not asked", NO_GRADIENT)
    sets = [s for _, s in sorted({**trials.by_budget, trials.eps: trials.fooled("pgd")}.items())]
    standing_again = tuple(sorted({i for k, s in enumerate(sets) for larger in sets[k + 1 :] for i in s - larger}))
    result = f"{pictures(len(standing_again))} fall at a smaller budget and stand at a larger one"
    advice = "the attack gets stuck: apgd-ce, which adapts its step, and restarts"
    problem = "a larger budget leaves what a smaller one breaks"
    return Point(4, question, "fail" if standing_again else "pass", result, problem, advice, standing_again)


def without_limit(trials: AttackTrials, chance: float) -> Point:
    """Question 5: at a budget of 1 every picture can become any other, so no more than chance should stay right."""
    standing = tuple(sorted({*trials.rows} - trials.by_budget.get(1.0, set())))
    fails = len(standing) > chance
    result = f"at eps 1 {len(standing)} of {pictures(len(trials.rows))} stay right, chance is {chance:.2g}"
    problem = f"under a budget without limit right answers stay, {len(standing)} of {len(trials.rows)}"
    advice = "the gradients do not lead to a wrong answer: try a black box (square, hop-skip-jump), BPDA or EOT"
    question = "does a budget without limit leave no more than chance?"
    return Point(5, question, "fail" if fails else "pass", result, problem, advice, standing if fails else ())


def _black_box(trials: AttackTrials) -> Point:
    question = "does a black box find nothing that gradients miss?"
    names = [name for name in ("square", "hop-skip-jump") if name in trials.tried]
    if not names:
        return Point(7, question, "pass", "PGD leaves no picture standing, so they can find none")
    rows = {name: _rows_that_pgd_misses(trials, name) for name in names}
    all_rows = tuple(sorted({i for r in rows.values() for i in r}))
    result = "; ".join(f"{name} breaks {pictures(len(r))} that PGD misses" for name, r in rows.items())
    problem = f"black boxes find {len(all_rows)} that it misses"
    advice = "the gradients are masked: believe the black boxes, and attack with BPDA, EOT or the margin"
    return Point(7, question, "fail" if all_rows else "pass", result, problem, advice, all_rows)


def union_of_attacks(trials: AttackTrials) -> Point:
    """Question 17: what all attacks break together, against the one that breaks most."""
    union, n = trials.union(), len(trials.rows)
    best = max(trials.broken, key=lambda name: len(trials.fooled(name)))
    rows = tuple(sorted(union - trials.fooled(best)))
    result = f"all together break {len(union)} of {n}, the best one alone ({best}) {len(trials.fooled(best))}"
    question = "is the union of all attacks no more than the best one, picture by picture?"
    advice = "report the union of all attacks for each picture, not the best average"
    problem = f"all together break {len(rows)} more than the best one"
    status: Status = "flag" if len(rows) > allowed(n) else "pass"
    return Point(17, question, status, result + _note_on_chance(rows, n), problem, advice, rows, "strength")
