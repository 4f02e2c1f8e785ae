"""Is robustness real, or are its gradients masked?  The checklist of Carlini et al. 2019, arXiv:1902.06705, as code.

The points on gradients are those of Athalye, Carlini & Wagner 2018, arXiv:1802.00420.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import not_of_texts, note_on_sample, share, shown, span, table
from clearsight.auditing.gradient_masking import comparisons, gradients, outputs, trials
from clearsight.auditing.gradient_masking.checklist import AttackTrials, Point, merge_trials
from clearsight.auditing.mending import BY_PGD
from clearsight.core.catalogue import Call, method, number, write_value
from clearsight.core.norms import word
from clearsight.core.statistics import FEWEST, Judgement, wilson
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import magnified_difference, photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores_of
from clearsight.models.loading import load_classifier
from clearsight.reporting.findings import Cell, Evidence, Finding

_EVIDENCE = 8


def _validate(case: Case, *, eps: float, steps: int, queries: int, noise: int, other: str, **others: object) -> None:
    if not 0 < eps <= 1 or min(steps, queries, noise) < 1:
        raise Refused(
            f"gradient-masking(eps={eps:g}, steps={steps}, queries={queries}, noise={noise}): a budget above 0 "
            "and at most 1, in pixels in [0, 1] (4/255), and at least one of each"
        )
    if other and load_classifier(other, "gradient-masking").labels != case.model.labels:
        raise Refused(f"gradient-masking(other={other}): a model of the same classes as {case.model.source} is needed")


@method(
    paper="arXiv:1902.06705",
    claims="of-texts",
    order=7,
    validate=_validate,
    advice="report no accuracy under PGD alone, and try what its failed points name",
    mend=BY_PGD,
)
def gradient_masking(
    case: Case,
    *,
    eps: float = 4 / 255,
    steps: int = 20,
    queries: int = 300,
    noise: int = 100,
    other: str = "",
    pictures: int = 20,
) -> Finding:
    """Is an attack by gradients to be believed on this model, or does it miss what other attacks find?

    Each of seventeen points passes, is flagged (gradients may be masked, or PGD is too weak) or fails (another attack
    found what PGD missed).  A point names the pictures that show it and says what to try next.  Value: the share of
    right answers that PGD leaves standing and anything else here breaks, 0 to 1, with its interval.

    fail: a point fails.  warn: a point is flagged, or there are fewer than seven pictures.  pass: else.  Point 16,
    natural damage, says nothing of gradients: it is reported, and counts for no verdict.

    Points 1 to 8, 10, 14 and 17 compare what attacks find within eps in Linf, picture by picture.  What costs much is
    tried only on pictures that PGD leaves standing, because only these can have been missed.  One picture that a weaker
    attack breaks fails PGD.  Attacks that are stronger and of its own kind (points 2, 3, 10, 14, 17) flag it if they
    break more than one percentage point more, as the list says, and at least two pictures.  Where no gradient flows
    back to the pixels, attacks that need one find nothing, and those points are not asked; of an exported file that an
    engine runs nothing is asked, and a note says so.

    Args:
        eps: largest change of a pixel, in pixels in [0, 1]; above 0 and at most 1.
        steps: number of steps of PGD, at least 1.
        queries: number of queries of each black-box attack for each picture, at least 1.
        noise: number of random points of each cube, at least 1.  The list wants 10000; 100 find, 95 times in 100, what
            holds in 3 % of a cube.
        other: words of a second model of the same classes, whose attacked pictures are carried over; "" has none.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: options outside their ranges, and a second model of other classes.
    """
    not_asked = _not_asked(case)
    if not_asked:
        return not_asked
    rows = case.sample(range(len(case.pictures)), pictures)
    right = [i for i in rows if bool(case.right[i]) or not bool(case.truth[i].any())]
    if not right:
        return Finding(
            "note", f"None of {counted(len(rows), 'picture')} is answered right: there is nothing to attack."
        )
    other_model = load_classifier(other, "gradient-masking") if other else None
    done: list[int] = []
    batches: list[AttackTrials] = []
    for part, x in case.batches(right):
        batches.append(trials.try_attacks(case, part, x, eps, steps, queries, noise, other_model))
        done += part
    all_trials = merge_trials(batches)
    slopes = gradients.inspect_gradients(case, done, eps)
    points = [
        *comparisons.points(case, all_trials, noise, bool(other)),
        *gradients.points(slopes, len(done)),
        *outputs.points(case, done, all_trials, slopes, eps),
    ]
    points = sorted(points, key=lambda p: p.number)
    missed, n = all_trials.missed(), len(done)
    interval = wilson(len(missed), n)
    failed = [p for p in points if p.status == "fail"]
    flagged = [p for p in points if p.status == "flag"]
    flagged_for_pgd = [p for p in flagged if p.about != "nature"]
    options = {"eps": eps, "steps": steps, "queries": queries, "noise": noise, "other": other}
    verdict: Judgement = "warn" if flagged_for_pgd or n < FEWEST else "pass"
    if failed:
        verdict = "fail"
    return Finding(
        verdict,
        _headline(points, len(missed), n, word(eps)),
        quantity="missed by PGD",
        value=len(missed) / n,
        interval=interval,
        n=n,
        notes=(
            f"At eps {word(eps)} (option eps), Linf, {counted(n, 'right answer')}: PGD of {counted(steps, 'step')} "
            f"breaks {len(all_trials.fooled('pgd'))}, everything here together {len(all_trials.union())}.",
            *(f"Point {p.number}: {p.advice}." for p in [*failed, *flagged]),
            *_notes_on_not_asked(points),
            *note_on_sample(case, len(rows), len(case.pictures)),
            *((f"The budget was used up after {n} of {counted(len(right), 'picture')}.",) if n < len(right) else ()),
        ),
        tables=(
            *table("The checklist", [_point_row(case, p) for p in points]),
            *table("What broke", all_trials.table()),
        ),
        evidence=_evidence(case, [*failed, *flagged], all_trials, options),
    )


def _not_asked(case: Case) -> Finding | None:
    """The finding where nothing can be asked: of texts, and of files that give no gradient; None elsewhere."""
    if case.data.are_texts:
        return not_of_texts(
            "gradient-masking",
            "its attacks change every pixel a little, and a character has no small change. robustness(characters=8) "
            "counts what replaced characters do",
        )
    if not case.has_weights and case.is_black_box:
        return Finding(
            "note",
            "The exported file gives scores and no gradients to anybody, so there are none to be masked; that is no "
            "defence, and robustness is asked by black boxes.",
        )
    return None


def _headline(points: Sequence[Point], missed: int, n: int, eps: str) -> str:
    failed = [p.problem for p in points if p.status == "fail"]
    flagged = [p for p in points if p.status == "flag"]
    masked, weak, damage = ([p.problem for p in flagged if p.about == a] for a in ("gradients", "strength", "nature"))
    if failed:
        opening = f"PGD overestimates the robustness of this model: {_join_problems(failed)}"
    elif masked:
        opening = f"Gradients may be masked: {_join_problems(masked)}"
    elif weak:
        opening = f"PGD alone is too weak here: {_join_problems(weak)}"
    else:
        few = f", but {counted(n, 'picture')} are too few to tell, give at least {FEWEST}" if n < FEWEST else ""
        opening = f"No sign of masked gradients{few}"
    asked_points = sum(p.status != "not asked" for p in points)
    return (
        f"{opening}. Other attacks break {missed} of {counted(n, 'right answer')} at {eps} that PGD leaves standing, "
        f"{share(missed / n)} ({span(wilson(missed, n), n)}). {asked_points - len(failed) - len(flagged)} of "
        f"{asked_points} points hold, {len(flagged)} {'is' if len(flagged) == 1 else 'are'} flagged and {len(failed)} "
        f"{'fails' if len(failed) == 1 else 'fail'}." + (f" Besides, {damage[0]} (point 16)." if damage else "")
    )


def _join_problems(problems: Sequence[str]) -> str:
    parts = [*problems[:2], f"{counted(len(problems) - 2, 'other point')}"] if len(problems) > 2 else problems
    return ", and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _notes_on_not_asked(points: Sequence[Point]) -> tuple[str, ...]:
    """Sentences on the points that were not asked, one for each reason."""
    numbers: dict[str, list[str]] = {}
    for p in points:
        if p.status == "not asked":
            numbers.setdefault(p.result, []).append(str(p.number))
    return tuple(
        f"Not asked: point{'s' * (len(points_of) > 1)} {', '.join(points_of)}: {reason}."
        for reason, points_of in numbers.items()
    )


def _point_row(case: Case, p: Point) -> dict[str, Cell]:
    names = [case.pictures[i].name for i in p.rows]
    return {
        "point": p.number,
        "asks": p.question,
        "result": p.status,
        "found": p.result,
        "pictures": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or None,
        "try next": p.advice if p.status in ("flag", "fail") else None,
    }


def _evidence(
    case: Case, points: Sequence[Point], all_trials: AttackTrials, options: dict[str, Any]
) -> tuple[Evidence, ...]:
    """The pictures that PGD missed, as the attack that broke them changed them."""
    evidence: list[Evidence] = []
    for i, name, z in all_trials.missed_pictures()[:_EVIDENCE]:
        clean = case.pixels([i])[0]
        times = min(0.5 / max(float((z - clean).abs().max()), 1e-6), 127.0)
        new_label = case.model.name(int(scores_of(case.model, z[None]).argmax()))
        numbers = [p.number for p in points if i in p.rows]
        image = strip([photo(clean), photo(z), magnified_difference(clean, z, times)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "says now": new_label,
            "broken by": name,
            "points": ", ".join(map(str, numbers)) or None,
        }
        caption = (
            f"{case.label(i)}: PGD leaves it so, {name} makes it {new_label}; right: the change, {times:.0f} times"
        )
        command = reproducing_command(case, i, name, all_trials, options)
        evidence.append(shown(case, i, f"gradient-masking-{len(evidence) + 1}", image, caption, facts, command))
    return tuple(evidence)


def reproducing_command(case: Case, row: int, name: str, all_trials: AttackTrials, options: dict[str, Any]) -> str:
    """The command that breaks the picture once more: the attack that did it, or this check where none did it alone."""
    spelling = trials.spelling(name, options["steps"], options["queries"])
    aimed = all_trials.aimed.get(row)
    by_chance = name == "a target" and aimed is None  # it became another class than the one that was aimed at
    if not spelling or by_chance:
        call = Call(gradient_masking, {k: v for k, v in options.items() if v != gradient_masking.options[k].default})
        return case.commands.of_picture("audit", case.pictures[row], "--only", str(call))
    words = ["-a", spelling, "--eps", _budget_in_words(all_trials.eps)]
    if name == "a target" and aimed is not None:
        words += ["--target", case.model.name(aimed)]
    if name == "transfer":
        words += ["--other", options["other"]]
    return case.commands.of_picture("attack", case.pictures[row], *words)


def _budget_in_words(eps: float) -> str:
    """A budget as people write it (4/255), where that is exactly the same number."""
    return word(eps) if number(word(eps)) == eps else write_value(eps)
