"""Is robustness real, or are its gradients masked?  The checklist of Carlini et al. 2019, arXiv:1902.06705, as code.

The points on gradients are those of Athalye, Carlini & Wagner 2018, arXiv:1802.00420.
"""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.case import Case
from clearsight.checks._common import counted, sampled, share, shown, span, table
from clearsight.draw import magnified_difference, photo, strip
from clearsight.errors import Refused
from clearsight.findings import Cell, Evidence, Finding
from clearsight.loading import load
from clearsight.masks import attacks, gradients, outputs
from clearsight.masks.points import Point, Tried, joined
from clearsight.methods import method, write_value
from clearsight.runner import scores
from clearsight.statistics import FEWEST, wilson

_EVIDENCE = 8


def _ready(case: Case, *, eps: float, steps: int, queries: int, noise: int, other: str, **others: object) -> None:
    if not 0 < eps <= 1 or min(steps, queries, noise) < 1:
        raise Refused(
            f"masking(eps={eps:g}, steps={steps}, queries={queries}, noise={noise}): a budget above 0 and at most 1, "
            "in pixels in [0, 1] (4/255), and at least one of each"
        )
    if other and load(other).labels != case.model.labels:
        raise Refused(f"masking(other={other}): a model of the same classes as {case.model.source} is needed")


@method(paper="arXiv:1902.06705", order=7, ready=_ready)
def masking(
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

    Seventeen points, each of which passes, is flagged (gradients may be masked) or fails (another attack found what
    PGD missed), names the pictures that show it and says what to try next.  Value: the share of right answers that PGD
    leaves standing and anything else here breaks, with its interval.  fail: a point fails; warn: one is flagged, or
    there are fewer than seven pictures; pass: none.  Points 1 to 8 and 14 compare what attacks find at ``eps`` in Linf,
    picture by picture; what costs much is tried on pictures that PGD leaves standing alone, for only these can have
    been missed.  steps: of PGD; queries: of each black box; noise: random points of the cube; other: a model whose
    attacked pictures are carried over; pictures: at most so many, a seeded draw.
    """
    rows = case.sample(range(len(case.pictures)), pictures)
    right = [i for i in rows if bool(case.right[i]) or not bool(case.truth[i].any())]
    if not right:
        return Finding("note", f"None of {counted(len(rows), 'picture')} is answered right: there is nothing to break.")
    second = load(other) if other else None
    done: list[int] = []
    tried: list[Tried] = []
    for part, x in case.batches(right):
        tried.append(attacks.tried(case, part, x, eps, steps, queries, noise, second))
        done += part
    whole = joined(tried)
    points = [
        *attacks.points(case, whole, bool(other)),
        *gradients.points(case, done, eps),
        *outputs.points(case, done, whole, eps),
    ]
    points = sorted(points, key=lambda p: p.number)
    missed = whole.missed()
    n, word = len(done), write_value(eps)
    interval = wilson(len(missed), n)
    failed = [p for p in points if p.status == "fail"]
    flagged = [p for p in points if p.status == "flag"]
    return Finding(
        "fail" if failed else "warn" if flagged or n < FEWEST else "pass",
        _headline(points, failed, flagged, len(missed), n, word),
        quantity="missed by PGD",
        value=len(missed) / n,
        interval=interval,
        n=n,
        notes=(
            f"At eps {word} (option eps), Linf, {counted(n, 'right answer')}: PGD of {counted(steps, 'step')} breaks "
            f"{len(whole.fooled('pgd'))}, everything here together {len(whole.union())}.",
            *(f"Point {p.number}: {p.next}." for p in [*failed, *flagged]),
            *(f"Not asked: point {p.number}: {p.told}." for p in points if p.status == "not asked"),
            *sampled(len(rows), len(case.pictures)),
            *((f"The budget was used up after {n} of {counted(len(right), 'picture')}.",) if n < len(right) else ()),
        ),
        tables=(*table("The checklist", [_row(case, p) for p in points]), *table("What broke", whole.table())),
        evidence=_evidence(case, [*failed, *flagged], whole, steps, queries),
    )


def _headline(
    points: Sequence[Point], failed: Sequence[Point], flagged: Sequence[Point], missed: int, n: int, word: str
) -> str:
    asked = sum(p.status != "not asked" for p in points)
    held = asked - len(failed) - len(flagged)
    numbers = f"{held} of {asked} points hold, {len(flagged)} are flagged and {len(failed)} fail"
    what = f"other attacks break {missed} of {counted(n, 'right answer')} at {word} that PGD leaves standing"
    share_ = f"{share(missed / n)} ({span(wilson(missed, n), n)})"
    if failed:
        return f"PGD is not to be believed on this model: {what}, {share_}. {numbers}: {_first(failed)}."
    if flagged:
        return f"Gradients may be masked: {_first(flagged)}. {numbers}; {what}."
    few = f", which are too few to say so, give at least {FEWEST}" if n < FEWEST else ""
    return f"No sign of masked gradients: {numbers}; {what}, {share_}{few}."


def _first(points: Sequence[Point]) -> str:
    return "; ".join(p.question for p in points[:2]) + (f" and {len(points) - 2} more" if len(points) > 2 else "")


def _row(case: Case, p: Point) -> dict[str, Cell]:
    names = [case.pictures[i].name for i in p.rows]
    return {
        "point": p.number,
        "asks": p.question,
        "result": p.status,
        "found": p.told,
        "pictures": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or None,
        "try next": p.next if p.status in ("flag", "fail") else None,
    }


def _evidence(case: Case, points: Sequence[Point], whole: Tried, steps: int, queries: int) -> tuple[Evidence, ...]:
    """The pictures that PGD missed, as what broke them made them."""
    out: list[Evidence] = []
    for i, name, z in whole.besides()[:_EVIDENCE]:
        clean = case.pixels([i])[0]
        times = min(0.5 / max(float((z - clean).abs().max()), 1e-6), 127.0)
        with case.model.undisturbed():
            said = scores(case.model, z[None].to(case.model.device))[0]
        now = case.model.labels[int(said.argmax())].partition(",")[0]
        at = [p.number for p in points if i in p.rows]
        image = strip([photo(clean), photo(z), magnified_difference(clean, z, times)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "says now": now,
            "broken by": name,
            "points": ", ".join(map(str, at)) or None,
        }
        caption = f"{case.label(i)}: PGD leaves it, {name} makes it {now}; to the right the change, {times:.0f} times"
        words = ("-a", attacks.spelled(name, steps, queries), "--eps", write_value(whole.eps), *case.model_words)
        command = case.command("attack", case.place(i), *words)
        out.append(shown(case, i, f"masking-{len(out) + 1}", image, caption, facts, command))
    return tuple(out)
