"""Equal error rates by group: Hardt, Price & Srebro 2016, arXiv:1610.02413; counted as by Angwin et al. 2016."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, points, share, table, unlabelled
from clearsight.auditing.mending import mend_by_groups
from clearsight.core.catalogue import method
from clearsight.core.label_names import first_name
from clearsight.core.statistics import Interval, Judgement, apart, wilson
from clearsight.core.text import counted
from clearsight.data.columns import grouping_columns
from clearsight.errors import Refused, nearest
from clearsight.reporting.findings import Cell, Finding


@dataclass(frozen=True)
class _Rate:
    """How often one group meets one kind of error, beside all others together.

    kind: "errors", or "false LABEL" and "missed LABEL"; k of n in the group, and of the rest.
    """

    column: str
    group: str
    kind: str
    k: int
    n: int
    rest_k: int
    rest_n: int

    @property
    def gap(self) -> float:
        return self.k / self.n - self.rest_k / self.rest_n

    @property
    def interval(self) -> Interval:
        return apart((self.k, self.n), (self.rest_k, self.rest_n))


def _validate(case: Case, *, gap: float, fewest: int, column: str, **others: object) -> None:
    if not 0 < gap < 1 or fewest < 1:
        raise Refused(f"gap={gap:g}, fewest={fewest}: a share between 0 and 1, and at least one picture")
    words = {word for p in case.data.pictures for word in p.columns}
    for word in _split_columns(column):
        if word not in words:
            raise Refused(
                f"the data has no column {word!r}: {nearest(word, sorted(words)) if words else 'it has none'}"
            )


@method(
    paper="arXiv:1610.02413",
    claims="of-texts",
    order=2,
    validate=_validate,
    advice="look at the errors of the group with the largest gap, and collect more of it",
    mend="--groups {column} --rebalance group-dro",
)
def groups(case: Case, *, column: str = "", gap: float = 0.1, fewest: int = 3) -> Finding:
    """Is the model wrong more often for some groups than for the others?

    Groups are the words in a column of the CSV, such as sex or hospital.  Each group has an error rate.  With two
    classes, and for each class against the others, it also has the rate at which the class is said where it is not
    (false) and not said where it is (missed).  Each rate has its interval.

    Value: the largest gap between a group and all others in one of these rates, 0 to 1, with Newcombe's interval of the
    difference.  The worst of many gaps is large by chance, too.

    pass: that interval ends at or below gap.  fail: it lies above.  warn: else.

    Args:
        column: name of the column, or several with commas; "" takes every column with 2 to 12 different words.
        gap: largest gap that is accepted, above 0 and below 1.
        fewest: number of pictures behind a rate, below which it is shown but not judged; at least 1.

    Refused: unknown columns, and options outside their ranges.
    """
    if not case.labelled:
        return unlabelled(case)
    columns = _grouping_columns(case, column)
    if not columns:
        return Finding(
            "note",
            f"No column says which group a {case.thing} belongs to: give a CSV with one, such as "
            f"{'text' if case.data.are_texts else 'file'},label,hospital.",
        )
    rates = [r for c in columns for r in _rates_of_groups(case, c)]
    judged = [r for r in rates if min(r.n, r.rest_n) >= fewest]
    if not judged:
        return Finding(
            "note",
            f"No group can be judged: each group in {_columns_in_words(columns)} has fewer than "
            f"{counted(fewest, f'labelled {case.thing}')}, or leaves fewer than {fewest} outside it (option fewest).",
            tables=table("Rates of each group", [_rate_row(r) for r in rates]),
        )
    worst = max(judged, key=lambda r: (r.gap, r.interval[0]))
    n = worst.n + worst.rest_n
    return Finding(
        _verdict(worst.interval, gap),
        f"{_rate_in_words(worst)}: {share(worst.k / worst.n)} (n = {worst.n}), all others "
        f"{share(worst.rest_k / worst.rest_n)} (n = {worst.rest_n}); {points(worst.gap)} percentage points apart "
        f"(95 % {points(worst.interval[0])} to {points(worst.interval[1])}, n = {n}), the largest of "
        f"{counted(len(judged), 'gap')} compared.",
        quantity="largest gap between groups",
        value=worst.gap,
        interval=worst.interval,
        n=n,
        chance=0.0,
        has_bar=True,
        notes=(
            f"Asked for: an interval that ends at or below {points(gap)} percentage points (option gap).",
            f"Columns: {', '.join(columns)}. Rates of fewer than {fewest} {case.thing}s on a side are shown, not "
            "judged.",
            "The largest of many gaps is large by chance, too: confirm it on other data.",
        ),
        tables=table(
            "Rates of each group, the largest gap first", [_rate_row(r) for r in sorted(rates, key=lambda r: -r.gap)]
        ),
        mend=mend_by_groups(worst.column),
    )


def _columns_in_words(columns: list[str]) -> str:
    return f"the column{'s' if columns[1:] else ''} {', '.join(columns)}"


def _split_columns(column: str) -> list[str]:
    return [name.strip() for name in column.split(",") if name.strip()]


def _grouping_columns(case: Case, column: str) -> list[str]:
    if column:
        return _split_columns(column)
    return grouping_columns([p.columns for p in case.pictures])


def _rates_of_groups(case: Case, column: str) -> list[_Rate]:
    """Every kind of error for every group of a column; pictures without a word in it stand in no group."""
    rows = [i for i in case.labelled if case.pictures[i].columns.get(column)]
    group = {i: case.pictures[i].columns[column] for i in rows}
    labels = list(map(first_name, case.model.labels))
    answers = {i: int(case.predicted[i]) for i in rows}
    wrong_by_kind: dict[str, dict[int, bool]] = {"errors": {i: not bool(case.right[i]) for i in rows}}
    shown = [k for k in range(len(labels)) if any(bool(case.truth[i, k]) for i in rows)]
    for k in shown[1:] if len(labels) == 2 else shown:
        wrong_by_kind[f"false {labels[k]}"] = {i: answers[i] == k for i in rows if not bool(case.truth[i, k])}
        wrong_by_kind[f"missed {labels[k]}"] = {i: answers[i] != k for i in rows if bool(case.truth[i, k])}
    rates = []
    for kind, wrong in wrong_by_kind.items():
        sizes, total = Counter(group[i] for i in wrong), len(wrong)
        errors, all_errors = Counter(group[i] for i, w in wrong.items() if w), sum(wrong.values())
        rates += [
            _Rate(column, g, kind, errors[g], sizes[g], all_errors - errors[g], total - sizes[g])
            for g in sorted(sizes)
            if sizes[g] < total
        ]
    return rates


def _verdict(interval: Interval, gap: float) -> Judgement:
    if interval[1] <= gap:
        return "pass"
    return "fail" if interval[0] > gap else "warn"


def _rate_in_words(r: _Rate) -> str:
    return f"{r.kind[0].upper()}{r.kind[1:]} in {r.column} {r.group}"


def _rate_row(r: _Rate) -> dict[str, Cell]:
    return {
        "column": r.column,
        "group": r.group,
        "rate": r.kind,
        "share": r.k / r.n,
        **bounds(wilson(r.k, r.n)),
        "n": r.n,
        "all others": r.rest_k / r.rest_n,
        "gap": r.gap,
        "gap from": r.interval[0],
        "gap to": r.interval[1],
    }
