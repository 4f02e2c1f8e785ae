"""Wilson 1927, doi:10.1080/01621459.1927.10502953."""

from __future__ import annotations

from collections import Counter, defaultdict

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, drawn, maps_of, share, shown, span, table, unlabelled
from clearsight.core.catalogue import method
from clearsight.core.statistics import judge, wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import photo
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

_CLASSES = 20  # a confusion matrix of more classes cannot be read
_EVIDENCE = 12


@method(
    paper="doi:10.1080/01621459.1927.10502953",
    order=1,
    advice="look at the wrong pictures, the most confident first, and whether their labels are right",
)
def accuracy(case: Case, *, floor: float = 0.8) -> Finding:
    """How often is the first guess right, and on which pictures is it wrong?

    Value: the share of labelled pictures whose top class is acceptable, 0 to 1, with the Wilson interval.  Where a
    picture has several acceptable classes, any of them is right.  Top-5 accuracy stands beside it if there are more
    than five classes.  Chance: guessing blindly.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: the pictures are too few to
    say.

    Args:
        floor: share of right answers that is asked for, 0 to 1.

    Source: the score interval of Wilson 1927.
    """
    rows = case.labelled
    if not rows:
        return unlabelled(case)
    n, right = len(rows), int(case.right[rows].sum())
    value, interval = right / n, wilson(right, n)
    classes = len(case.model.labels)
    measures = [_measure("top-1", right, n)]
    also = ""
    if classes > 5:
        five = int(case.truth[rows].gather(1, case.logits[rows].topk(5, 1).indices).any(1).sum())
        measures.append(_measure("top-5", five, n))
        also = f"; one of its first five guesses is right on {share(five / n)}"
    wrong = [i for i in rows if not case.right[i]]
    p = case.logits.softmax(1)
    wrong.sort(key=lambda i: (-float(p[i].max()), case.pictures[i].name))
    evidence, notes = _evidence(case, wrong)
    return Finding(
        judge(interval, floor=floor),
        f"The first guess is right on {right} of {counted(n, 'picture')}, {share(value)} ({span(interval, n)}){also}.",
        quantity="top-1 accuracy",
        value=value,
        interval=interval,
        n=n,
        chance=float(case.truth[rows].float().sum(1).mean()) / classes,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor).",
            *case.learned,
            *_baseline(case, rows, right),
            *notes,
        ),
        tables=(
            *table("How often it is right", measures),
            *table("Wrong pictures, the most confident first", [_wrong(case, i) for i in wrong]),
            *table("By class, the worst first", _by_class(case, rows)),
            *table("Confusions, the most frequent first", _pairs(case, wrong)),
        ),
        figures=_matrix(case, rows),
        evidence=evidence,
    )


def _measure(name: str, right: int, n: int) -> dict[str, Cell]:
    return {"measure": name, "right": right, "n": n, "share": right / n, **bounds(wilson(right, n))}


def _baseline(case: Case, rows: list[int], right: int) -> tuple[str, ...]:
    """What a constant answer would reach, and which labels are missing."""
    hits = case.truth[rows].sum(0)
    best, n = int(hits.argmax()), len(rows)
    label = case.model.name(best)
    says = f"Always answering {label} would be right on {share(int(hits[best]) / n)}"
    worth = "" if right > int(hits[best]) else ", which the model does not exceed"
    bare = len(case.pictures) - n
    left = (f"{counted(bare, 'picture has', 'pictures have')} no label and cannot be judged.",) if bare else ()
    unread = len(case.data.pictures) - case.tried
    cut = (f"The budget was used up before {counted(unread, 'picture')} could be read.",) if unread > 0 else ()
    return (f"{says}{worth}.", *left, *cut)


def _wrong(case: Case, i: int) -> dict[str, Cell]:
    p = case.logits[i].softmax(0)
    wanted = p[case.truth[i]]
    return {
        "picture": case.pictures[i].name,
        "said": case.label(i),
        "probability": float(p.max()),
        "acceptable": case.wanted(i),
        "its probability": float(wanted.max()),
        "its rank": int((p > wanted.max()).sum()) + 1,
    }


def _by_class(case: Case, rows: list[int]) -> list[dict[str, Cell]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for i in rows:
        groups[case.wanted(i)].append(bool(case.right[i]))
    found: list[dict[str, Cell]] = [
        {"class": name, "right": sum(r), "n": len(r), "share": sum(r) / len(r), **bounds(wilson(sum(r), len(r)))}
        for name, r in sorted(groups.items(), key=lambda g: (sum(g[1]) / len(g[1]), -len(g[1]), g[0]))
    ]
    return found


def _pairs(case: Case, wrong: list[int]) -> list[dict[str, Cell]]:
    pairs = Counter((case.wanted(i), case.label(i)) for i in wrong)
    return [{"shown": a, "said": b, "pictures": k} for (a, b), k in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))]


def _matrix(case: Case, rows: list[int]) -> tuple[Figure, ...]:
    said = {i: int(case.predicted[i]) for i in rows}
    shown_ = {i: said[i] if case.right[i] else int(case.truth[i].nonzero()[0, 0]) for i in rows}
    classes = sorted({*said.values(), *shown_.values()})
    if not 2 <= len(classes) <= _CLASSES:
        return ()
    counts = [[0] * len(classes) for _ in classes]
    for i in rows:
        counts[classes.index(shown_[i])][classes.index(said[i])] += 1
    labels = [case.model.name(k) for k in classes]
    several = bool((case.truth[rows].sum(1) > 1).any())
    words = (
        " A picture with several acceptable classes stands in the row of the predicted one, or of its first if wrong."
    )
    caption = f"Acceptable and predicted classes, {counted(len(rows), 'picture')}.{words if several else ''}"
    off = sum(map(sum, counts)) - sum(counts[k][k] for k in range(len(classes)))
    alt = f"A confusion matrix of {len(classes)} classes: {off} of {counted(len(rows), 'picture')} off the diagonal."
    return (Figure("accuracy-confusion.svg", charts.confusion(labels, counts), caption, alt),)


def _evidence(case: Case, wrong: list[int]) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """The wrong pictures with why, as far as the method can say why."""
    out: list[Evidence] = []
    why = f"why, by {case.method}"
    maps = maps_of(case)
    notes: tuple[str, ...] = ()
    for rows, x in case.batches(wrong[:_EVIDENCE]):
        try:
            images = [drawn(case, x[j], m) for j, m in enumerate(case.maps(rows, x))]
        except Refused as e:
            images, why, maps = [photo(p) for p in x], "the picture", "none"
            notes = (f"The wrong pictures are shown without a map: {e}.",)
        for i, image in zip(rows, images, strict=True):
            facts = _wrong(case, i)
            said = f"{facts['said']}, {share(float(facts['probability'] or 0))}"
            caption = f"said {said}, not {facts['acceptable']}; {why}"
            out.append(shown(case, i, f"accuracy-wrong-{len(out) + 1}", image, caption, facts, maps=maps))
    return tuple(out), notes
