"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    bounds,
    not_of_texts,
    note_on_budget,
    note_on_sample,
    points,
    share,
    shown,
    span,
    table,
    unlabelled,
)
from clearsight.core.catalogue import Call, catalogue, method, parse, split_calls
from clearsight.core.statistics import FEWEST, Interval, bootstrap, judge, tails, wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.runner.corrupt import corrupt

_EVIDENCE = 8


@dataclass(frozen=True)
class _LostAnswer:
    """A right answer that damage changed.

    order: (severity, minus the confidence), the mildest first; clean, damaged (C, H, W); new_class and confidence: the
    top class of the damaged picture and its probability.
    """

    order: tuple[int, float]
    call: Call
    clean: Tensor
    damaged: Tensor
    new_class: int
    confidence: float


@dataclass
class CorruptedAnswers:
    """Which answers are right: clean (n,), and under each call (n,), in the order of rows.

    lost_answers: by row, the one lost at the mildest severity; times_lost: by row, the number of calls that lost it.
    """

    rows: list[int] = field(default_factory=list)
    clean: list[bool] = field(default_factory=list)
    right: dict[str, list[bool]] = field(default_factory=dict)
    lost_answers: dict[int, _LostAnswer] = field(default_factory=dict)
    times_lost: dict[int, int] = field(default_factory=dict)

    def shares(self) -> list[float]:
        """(n,) the share of all damage under which each picture is right."""
        return np.array(list(self.right.values())).mean(0).tolist()  # type: ignore[no-any-return]


def _validate(case: Case, *, which: str, severities: str, floor: float, **others: object) -> None:
    corruption_calls(which, _parse_severities(severities))
    if not 0 <= floor <= 1:
        raise Refused(f"corruptions(floor={floor:g}): a share from 0 to 1")


@method(
    paper="arXiv:1903.12261",
    claims="of-texts",
    order=7,
    validate=_validate,
    advice="train with the damage that costs the most right answers, the first row of its table",
    mend="--augment rand-augment",
)
def corruptions(
    case: Case, *, floor: float = 0.5, pictures: int = 100, severities: str = "1, 3, 5", which: str = "quick"
) -> Finding:
    """How many answers stay right under noise, blur, weather and what files suffer?

    Value: the mean share of right answers over all corruptions and severities, of labelled pictures, 0 to 1, with an
    interval from drawing from the pictures.  One less the value is the mean corruption error.  It is not the mCE of the
    paper, which divides each error by that of AlexNet on ImageNet: there is no such number for these pictures.  Beside
    it stands the drop relative to the right answers on the untouched pictures.  Each corruption of each severity costs
    one pass for each picture.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Args:
        floor: mean share of right answers that is asked for, 0 to 1.
        pictures: maximum number of pictures, drawn by seed; at least 1.
        severities: severities with commas between them, whole numbers from 1 to 5.
        which: "quick" (ten of the paper's), "common" (all 15), "all" (with those beyond the paper), or names, as in
            "fog, snow"; `clearsight methods` lists them.

    Refused: unknown corruptions, one that is named twice, other severities, a floor outside its range, and fewer than
    one picture.

    Source: Hendrycks & Dietterich 2019.
    """
    if case.data.are_texts:
        return not_of_texts(
            "corruptions",
            "it blurs, dims and compresses pixels. robustness replaces characters instead",
        )
    if not case.labelled:
        return unlabelled(case)
    levels = _parse_severities(severities)
    calls = corruption_calls(which, levels)
    rows = case.sample(case.labelled, pictures)
    answers = CorruptedAnswers()
    with case.model.undisturbed():
        for part, x in case.batches(rows):
            _record_answers(case, part, x, calls, answers)
    n, shares = len(answers.rows), answers.shares()
    value, clean = float(np.mean(shares)), float(np.mean(answers.clean))
    interval = _interval(shares, case.seed)
    drop, drop_interval = accuracy_drop(answers.clean, shares, case.seed)
    names = worst_first(answers, calls)
    worst = _mean_right(answers, calls, names[0])
    kinds = counted(len(names), "kind")
    return Finding(
        judge(interval, floor=floor),
        f"Under {kinds} of damage {share(value)} of the answers are right ({span(interval, n)}), of the "
        f"untouched pictures {share(clean)}; the worst is {names[0]} with {share(worst)}.",
        quantity="accuracy under damage",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor) at the severities {_list_numbers(levels)} of 1 to 5.",
            f"The mean corruption error is {share(1 - value)}, on the untouched pictures {share(1 - clean)}.",
            _note_on_drop(drop, drop_interval),
            "It is the plain mean, not the paper's mCE, which divides by the errors of AlexNet.",
            *_note_on_frost(names),
            f"It took {len(calls)} passes a picture.",
            *note_on_sample(case, len(rows), len(case.labelled)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=(
            *table("Right answers by damage and severity, the worst first", _by_kind(answers, calls, names, levels)),
            *table("By picture, the most easily broken first", _by_picture(case, answers, len(calls))),
        ),
        figures=(_figure(answers, calls, names, levels, clean),),
        evidence=_evidence(case, answers),
    )


def _parse_severities(words: str) -> list[int]:
    """ "1, 3, 5" -> [1, 3, 5], in order and each once.

    >>> _parse_severities("5, 1,3")
    [1, 3, 5]
    """
    try:
        levels = sorted({int(word) for word in words.split(",") if word.strip()})
    except ValueError:
        levels = []
    if not levels or not set(levels) <= {1, 2, 3, 4, 5}:
        raise Refused(f'corruptions(severities="{words}"): whole numbers from 1 to 5, such as "1, 3, 5"')
    return levels


def corruption_calls(which: str, levels: Sequence[int]) -> list[Call]:
    """Every corruption asked for, at every severity."""
    available = catalogue("corruptions")
    groups = {"quick": "quick", "common": "common", "all": ""}
    if which.strip() in groups:
        claim = groups[which.strip()]
        calls = [Call(m) for m in available.values() if not claim or claim in m.claims]
    else:
        calls = [parse(word, "corruptions") for word in split_calls(which)]
    if not calls or len({str(c) for c in calls}) < len(calls):
        raise Refused(f'corruptions(which="{which}"): quick, common, all, or names, each once, such as "fog, snow"')
    for call in calls:
        if "severity" in call.options:
            raise Refused(f'corruptions(which="{which}"): give severities by themselves, as in severities="1, 3, 5"')
    return [call.with_options(severity=level) for call in calls for level in levels]


def _record_answers(case: Case, rows: list[int], x: Tensor, calls: Sequence[Call], answers: CorruptedAnswers) -> None:
    """Record which answers are right under each damage; x (B, C, H, W) are the pictures of the rows."""
    answers.rows += rows
    answers.clean += case.right[rows].tolist()
    for call in calls:
        damaged = corrupt(x, call, seed=case.seed)
        p = scores(case.model, damaged.to(case.model.device)).softmax(1)
        confidence, new_classes = p.max(1)
        right = case.truth[rows].gather(1, new_classes[:, None])[:, 0]
        answers.right.setdefault(str(call), []).extend(right.tolist())
        for k, i in enumerate(rows):
            if not case.right[i] or right[k]:
                continue
            answers.times_lost[i] = answers.times_lost.get(i, 0) + 1
            order = (int(call.options["severity"]), -float(confidence[k]))
            if i not in answers.lost_answers or order < answers.lost_answers[i].order:
                answers.lost_answers[i] = _LostAnswer(
                    order, call, x[k], damaged[k], int(new_classes[k]), float(confidence[k])
                )
    for i in _mildest_first(answers)[_EVIDENCE:]:
        answers.lost_answers.pop(i)


def _mildest_first(answers: CorruptedAnswers) -> list[int]:
    """Lost at the mildest severity first, and among those the surest of the wrong answer."""
    return sorted(answers.lost_answers, key=lambda i: (answers.lost_answers[i].order, i))


def _interval(shares: Sequence[float], seed: int) -> Interval | None:
    """The bootstrap interval over pictures; Wilson's where all of them are right, or wrong, under all damage."""
    if len(shares) >= FEWEST and min(shares) == max(shares) and shares[0] in (0.0, 1.0):
        return wilson(round(sum(shares)), len(shares))
    return bootstrap(shares, seed)


def accuracy_drop(
    clean: Sequence[bool], shares: Sequence[float], seed: int, draws: int = 2000
) -> tuple[float, Interval | None]:
    """By how much of the clean accuracy it falls, and the 95 % interval from drawing from the pictures.

    >>> accuracy_drop([True, True, False, True], [1.0, 0.5, 0.0, 0.0], 0)
    (0.5, None)
    """
    before, after = np.asarray(clean, dtype=np.float64), np.asarray(shares)
    n = len(before)
    if not before.any():
        return float("nan"), None
    drop = float(1 - after.mean() / before.mean())
    if n < FEWEST:
        return drop, None
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, n, n) for _ in range(draws)]
    drops = [1 - after[k].mean() / before[k].mean() for k in drawn if before[k].any()]
    low, high = np.percentile(drops, tails(n))
    return drop, (float(low), float(high))


def _note_on_drop(drop: float, interval: Interval | None) -> str:
    if drop != drop:
        return "No untouched picture is answered right, so there is no relative drop."
    words = f" (95 % {points(interval[0])} to {share(interval[1])})" if interval else ""
    return f"Relative to the untouched pictures there are {share(drop)} fewer right answers{words}."


def _list_numbers(levels: Sequence[int]) -> str:
    return ", ".join(map(str, levels))


def _note_on_frost(names: Sequence[str]) -> tuple[str, ...]:
    return ("The frost is generated; the paper overlays photographs of frost.",) if "frost" in names else ()


def _calls_of(calls: Sequence[Call], name: str) -> list[Call]:
    return [c for c in calls if _name(c) == name]


def _name(call: Call) -> str:
    """A corruption with its options, without its severity."""
    return str(Call(call.method, {k: v for k, v in call.options.items() if k != "severity"}))


def _mean_right(answers: CorruptedAnswers, calls: Sequence[Call], name: str) -> float:
    return float(np.mean([answers.right[str(c)] for c in _calls_of(calls, name)]))


def worst_first(answers: CorruptedAnswers, calls: Sequence[Call]) -> list[str]:
    names = list(dict.fromkeys(map(_name, calls)))
    return sorted(names, key=lambda name: (_mean_right(answers, calls, name), name))


def _by_kind(
    answers: CorruptedAnswers, calls: Sequence[Call], names: Sequence[str], levels: Sequence[int]
) -> list[dict[str, Cell]]:
    n = len(answers.rows)
    rows: list[dict[str, Cell]] = []
    for name in names:
        by_severity = [answers.right[str(c)] for c in _calls_of(calls, name)]
        shares = np.mean(by_severity, axis=0).tolist()
        by_level: dict[str, Cell] = {f"severity {s}": sum(r) / n for s, r in zip(levels, by_severity, strict=True)}
        rows.append(
            {"damage": name, **by_level, "mean": float(np.mean(by_severity)), **bounds(_interval(shares, 0)), "n": n}
        )
    return rows


def _by_picture(case: Case, answers: CorruptedAnswers, calls: int) -> list[dict[str, Cell]]:
    right = [i for i, ok in zip(answers.rows, answers.clean, strict=True) if ok]
    order = sorted(right, key=lambda i: (-answers.times_lost.get(i, 0), case.pictures[i].name))
    return [
        {"picture": case.pictures[i].name, "said": case.label(i), "lost": answers.times_lost.get(i, 0), "of": calls}
        for i in order
    ]


def _figure(
    answers: CorruptedAnswers, calls: Sequence[Call], names: Sequence[str], levels: Sequence[int], clean: float
) -> Figure:
    dots = [charts.Dot(name, _mean_right(answers, calls, name), clean) for name in names]
    data = charts.dots(
        dots,
        xlabel=f"right answers, mean of the severities {_list_numbers(levels)}",
        value="damaged",
        chance="untouched",
    )
    values = ", ".join(f"{d.name} {share(d.value)}" for d in dots)
    caption = f"Right answers under each damage, {counted(len(answers.rows), 'picture')}, the worst first."
    return Figure("corruptions.svg", data, caption, f"Of {share(clean)} untouched there are left: {values}.")


def _evidence(case: Case, answers: CorruptedAnswers) -> tuple[Evidence, ...]:
    evidence = []
    for k, i in enumerate(_mildest_first(answers)[:_EVIDENCE]):
        lost = answers.lost_answers[i]
        new_label, before = case.model.name(lost.new_class), float(case.logits[i].softmax(0).max())
        level = int(lost.call.options["severity"])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "probability": before,
            "says now": new_label,
            "its probability": lost.confidence,
            "damage": str(lost.call),
        }
        check = Call(catalogue("checks")["corruptions"], {"severities": str(level), "which": _name(lost.call)})
        check = check.with_options(pictures=len(answers.rows))
        caption = (
            f"{case.label(i)} ({share(before)}) becomes {new_label} ({share(lost.confidence)}) "
            f"under {_name(lost.call)}, severity {level}"
        )
        image = strip([photo(lost.clean), photo(lost.damaged)])
        command = case.commands.of_data("audit", "--only", str(check))
        evidence.append(shown(case, i, f"corruptions-{k + 1}", image, caption, facts, command))
    return tuple(evidence)
