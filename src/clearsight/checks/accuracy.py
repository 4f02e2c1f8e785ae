"""Wilson 1927, doi:10.1080/01621459.1927.10502953."""

from __future__ import annotations

from collections import Counter, defaultdict

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, draw_input, draw_map, maps_of, share, shown, span, table, unlabelled
from clearsight.core.catalogue import method
from clearsight.core.statistics import judge, wilson
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

_CLASSES = 20  # a confusion matrix of more classes cannot be read
_EVIDENCE = 12


@method(
    paper="doi:10.1080/01621459.1927.10502953",
    claims="of-texts",
    order=1,
    advice="look at its wrong answers, the most confident first, and whether their labels are right",
)
def accuracy(case: Case, *, floor: float = 0.8) -> Finding:
    """How often is the first guess right, and where is it wrong?

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
    measures = [_measure_row("top-1", right, n)]
    top_five = ""
    if classes > 5:
        five = int(case.truth[rows].gather(1, case.logits[rows].topk(5, 1).indices).any(1).sum())
        measures.append(_measure_row("top-5", five, n))
        top_five = f"; one of its first five guesses is right on {share(five / n)}"
    wrong = [i for i in rows if not case.right[i]]
    p = case.logits.softmax(1)
    wrong.sort(key=lambda i: (-float(p[i].max()), case.pictures[i].name))
    evidence, notes = _evidence(case, wrong)
    return Finding(
        judge(interval, floor=floor),
        f"The first guess is right on {right} of {case.counted(n)}, {share(value)} ({span(interval, n)}){top_five}.",
        quantity="top-1 accuracy",
        value=value,
        interval=interval,
        n=n,
        chance=float(case.truth[rows].float().sum(1).mean()) / classes,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor).",
            *case.learned,
            *_notes_on_baseline(case, rows, right),
            *notes,
        ),
        tables=(
            *table("How often it is right", measures),
            *table(f"Wrong {case.thing}s, the most confident first", [_wrong_row(case, i) for i in wrong]),
            *table("By class, the worst first", _class_rows(case, rows)),
            *table("Confusions, the most frequent first", _confusion_rows(case, wrong)),
        ),
        figures=_confusion_figure(case, rows),
        evidence=evidence,
    )


def _measure_row(name: str, right: int, n: int) -> dict[str, Cell]:
    return {"measure": name, "right": right, "n": n, "share": right / n, **bounds(wilson(right, n))}


def _notes_on_baseline(case: Case, rows: list[int], right: int) -> tuple[str, ...]:
    """Notes on the accuracy of a constant answer, on pictures without a label, and on those not read."""
    counts = case.truth[rows].sum(0)
    best, n = int(counts.argmax()), len(rows)
    label = case.model.name(best)
    baseline = f"Always answering {label} would be right on {share(int(counts[best]) / n)}"
    comparison = "" if right > int(counts[best]) else ", which the model does not exceed"
    notes = [f"{baseline}{comparison}."]
    without_label = len(case.pictures) - n
    if without_label:
        notes.append(f"{case.counted(without_label, 'has', 'have')} no label and cannot be judged.")
    unread = len(case.data.pictures) - case.tried
    if unread > 0:
        notes.append(f"The budget was used up before {case.counted(unread)} could be read.")
    return tuple(notes)


def _wrong_row(case: Case, i: int) -> dict[str, Cell]:
    p = case.logits[i].softmax(0)
    wanted = p[case.truth[i]]
    return {
        case.thing: case.pictures[i].name,
        "said": case.label(i),
        "probability": float(p.max()),
        "acceptable": case.wanted(i),
        "its probability": float(wanted.max()),
        "its rank": int((p > wanted.max()).sum()) + 1,
    }


def _class_rows(case: Case, rows: list[int]) -> list[dict[str, Cell]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for i in rows:
        groups[case.wanted(i)].append(bool(case.right[i]))
    return [
        {"class": name, "right": sum(r), "n": len(r), "share": sum(r) / len(r), **bounds(wilson(sum(r), len(r)))}
        for name, r in sorted(groups.items(), key=lambda g: (sum(g[1]) / len(g[1]), -len(g[1]), g[0]))
    ]


def _confusion_rows(case: Case, wrong: list[int]) -> list[dict[str, Cell]]:
    pairs = Counter((case.wanted(i), case.label(i)) for i in wrong)
    return [
        {"shown": a, "said": b, f"{case.thing}s": k} for (a, b), k in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))
    ]


def _confusion_figure(case: Case, rows: list[int]) -> tuple[Figure, ...]:
    predicted = {i: int(case.predicted[i]) for i in rows}
    acceptable = {i: predicted[i] if case.right[i] else int(case.truth[i].nonzero()[0, 0]) for i in rows}
    classes = sorted({*predicted.values(), *acceptable.values()})
    if not 2 <= len(classes) <= _CLASSES:
        return ()
    counts = [[0] * len(classes) for _ in classes]
    for i in rows:
        counts[classes.index(acceptable[i])][classes.index(predicted[i])] += 1
    labels = [case.model.name(k) for k in classes]
    several = bool((case.truth[rows].sum(1) > 1).any())
    note = (
        f" A {case.thing} with several acceptable classes stands in the row of the predicted one, or of its first if "
        "wrong."
    )
    caption = f"Acceptable and predicted classes, {case.counted(len(rows))}.{note if several else ''}"
    confused = sum(map(sum, counts)) - sum(counts[k][k] for k in range(len(classes)))
    alt = f"A confusion matrix of {len(classes)} classes: {confused} of {case.counted(len(rows))} off the diagonal."
    return (Figure("accuracy-confusion.svg", charts.confusion(labels, counts), caption, alt),)


def _evidence(case: Case, wrong: list[int]) -> tuple[tuple[Evidence, ...], tuple[str, ...]]:
    """The wrong pictures with their maps, or without where the explainer refuses, and a note that says so."""
    evidence: list[Evidence] = []
    reason = f"why, by {case.method}"
    maps = maps_of(case)
    notes: tuple[str, ...] = ()
    for rows, x in case.batches(wrong[:_EVIDENCE]):
        try:
            images = [draw_map(case, x[j], m) for j, m in enumerate(case.maps(rows, x))]
        except Refused as e:
            images, reason, maps = [draw_input(case, p) for p in x], f"the {case.thing}", "none"
            notes = (f"The wrong {case.thing}s are shown without a map: {e}.",)
        for i, image in zip(rows, images, strict=True):
            facts = _wrong_row(case, i)
            answer = f"{facts['said']}, {share(float(facts['probability'] or 0))}"
            caption = f"said {answer}, not {facts['acceptable']}; {reason}"
            evidence.append(shown(case, i, f"accuracy-wrong-{len(evidence) + 1}", image, caption, facts, maps=maps))
    return tuple(evidence), notes
