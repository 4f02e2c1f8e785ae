"""What thefts came to, as findings: the curve, the frontier of defences, the leak through maps, the transfer."""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.auditing.evidence import bounds, points, share, span, table
from clearsight.core.norms import word
from clearsight.core.statistics import apart, judge
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.trade_off import Trade, trade_off
from clearsight.reporting.findings import Cell, Figure, Finding
from clearsight.stealing.frontier import Defended
from clearsight.stealing.theft import ACCOUNTS, COPIES, Point, Stolen
from clearsight.stealing.transfer import Transfer

WORDS = {
    "plain": "learns from what it is told",
    "argmax": "learns from the top class alone",
    "averaging": f"averages {COPIES} noisy copies",
    "accounts": f"divides the queries among {ACCOUNTS} accounts",
}
_SHORT = {"plain": "as told", "argmax": "top class", "averaging": "averaging", "accounts": "accounts"}
BAR = "Asked for: a clone that agrees on at most {} of the pictures (option ceiling)."


def theft_finding(stolen: Stolen, *, thief: str, access: str, ceiling: float, notes: Sequence[str]) -> Finding:
    """How much of the victim a thief has after so many answers."""
    last = stolen.last
    right = f", and is right on {share(last.right / last.labelled)}" if last.labelled else ""
    return Finding(
        judge(last.interval, ceiling=ceiling),
        f"After {counted(last.queries, 'answer')} ({access}), the clone of a {thief} thief agrees with the model on "
        f"{last.agree} of {counted(last.n, 'picture')}, {share(last.agreement)} ({span(last.interval, last.n)})"
        f"{right}.",
        quantity="agreement of the clone",
        value=last.agreement,
        interval=last.interval,
        n=last.n,
        has_bar=True,
        notes=(BAR.format(share(ceiling)), *notes, *_why_it_ended(stolen)),
        tables=table("By answers", _point_rows(stolen.points)),
        figures=(_curve(stolen.points),),
        advice="answer fewer queries of an account, and tell it less: see the defences",
    )


def _why_it_ended(stolen: Stolen) -> tuple[str, ...]:
    return (f"Answers ended early: {stolen.refused[0]}.",) if stolen.refused else ()


def _point_rows(reached: Sequence[Point]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for p in reached:
        row: dict[str, Cell] = {"answers": p.queries, "agrees": p.agree, "n": p.n, "share": p.agreement}
        row |= bounds(p.interval)
        if p.labelled:
            row |= {"right": p.right, "of labelled": p.labelled, "accuracy": p.right / p.labelled}
        rows.append(row)
    return rows


def _curve(reached: Sequence[Point]) -> Figure:
    low, high = zip(*(p.interval for p in reached), strict=True)
    lines = [charts.Line("agrees with the model", [p.agreement for p in reached], low, high)]
    if all(p.labelled for p in reached):
        lines.append(charts.Line("is right", [p.right / p.labelled for p in reached], control=True))
    x = list(range(len(reached)))
    data = charts.curves(
        x,
        lines,
        xlabel="answers that the thief has",
        ylabel="of the pictures, the clone",
        xticks=[(i, str(p.queries)) for i, p in zip(x, reached, strict=True)],
    )
    words = ", ".join(f"{share(p.agreement)} after {p.queries}" for p in reached)
    caption = f"The clone by the answers that it learned from, {counted(reached[0].n, 'picture')}, with 95 % intervals."
    return Figure("theft.svg", data, caption, f"Agreement of the clone: {words}.")


def frontier_finding(defended: Sequence[Defended], *, ceiling: float, planned: int) -> Finding:
    """The defences, each against the thief that adapts best, beside what it costs the honest."""
    behind = [d for d in defended if d.name != "none"]
    if not behind:
        return Finding("note", "No defence was judged: the time was used up, or none was named.")
    lowest = min(behind, key=lambda d: (d.best.last.agreement, d.cost.moved))
    last, naive = lowest.best.last, lowest.naive.last
    gain = last.agreement - naive.agreement
    adapts = f", {points(gain)} points more than one who does not adapt" if gain >= 0.0005 else ""
    return Finding(
        judge(last.interval, ceiling=ceiling),
        f"{_what_is_left(defended, behind, lowest)}: the best one ({WORDS[lowest.best.adaptation]}) agrees on "
        f"{share(last.agreement)} ({span(last.interval, last.n)}){adapts}. It moves {share(lowest.cost.moved)} of an "
        "honest user's probability.",
        quantity="agreement behind the best defence",
        value=last.agreement,
        interval=last.interval,
        n=last.n,
        has_bar=True,
        notes=(
            BAR.format(share(ceiling)),
            "Each defence is judged by the thief that does best against it: one who learns from what it is told, from "
            f"the top class alone, from the mean answer to {COPIES} noisy copies of each picture (each copy is paid "
            f"for), and, where a defence remembers who asks, as {ACCOUNTS} accounts.",
            "The honest user asks as one account about the pictures on which clones are judged, one by one. Moved is "
            "half the L1 distance between what is told and the model's own probabilities, in the mean; an answer that "
            "is withheld counts as moved whole, and as not right.",
            *(() if len(behind) >= planned else (f"The time was used up after {len(behind)} of {planned} defences.",)),
        ),
        tables=(
            *table("What defences cost the honest", [_cost_row(d) for d in defended]),
            *table("What thieves come to, by how they adapt", [r for d in defended for r in _theft_rows(d)]),
        ),
        figures=(_frontier_figure(defended),),
    )


def _what_is_left(defended: Sequence[Defended], behind: Sequence[Defended], lowest: Defended) -> str:
    """Whether a defence leaves a thief less than there is without, in words."""
    free = next((d.best.last.agreement for d in defended if d.name == "none"), 1.0)
    if lowest.best.last.agreement >= free:
        which = "A thief gets no less behind" if len(behind) == 1 else f"None of {len(behind)} defences helps; behind"
        return f"{which} {lowest.name}"
    if len(behind) == 1:
        return f"{lowest.name} leaves a thief less than there is without"
    return f"Of {len(behind)} defences, {lowest.name} leaves a thief least"


def _cost_row(d: Defended) -> dict[str, Cell]:
    cost, last = d.cost, d.best.last
    row: dict[str, Cell] = {
        "defence": d.name,
        "best thief": f"{share(last.agreement)}, {_SHORT[d.best.adaptation]}",
        "probability moved": cost.moved,
        **bounds(cost.moved_interval),
        "other top class": cost.changed,
        "withheld": cost.withheld,
        "n": cost.n,
    }
    if cost.accuracy is not None:
        row |= {"right": cost.right, "of labelled": cost.labelled, "accuracy": cost.accuracy, "ECE": cost.error}
    return row


def _theft_rows(d: Defended) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for theft in d.thefts:
        last = theft.last
        noticed = f"{theft.noticed} of {theft.accounts}" if theft.noticed or "query-detection" in d.name else "–"
        rows.append(
            {
                "defence": d.name,
                "the thief": WORDS[theft.adaptation],
                "answers": last.queries,
                "agrees": last.agree,
                "n": last.n,
                "share": last.agreement,
                **bounds(last.interval),
                "accounts noticed": noticed,
            }
        )
    return rows


def _frontier_figure(defended: Sequence[Defended]) -> Figure:
    trades = [
        Trade(d.name, d.cost.moved, d.best.last.agreement, *d.best.last.interval, d.naive.last.agreement)
        for d in defended
    ]
    data = trade_off(
        trades, xlabel="cost: probability moved for an honest user", ylabel="the best thief's clone agrees on"
    )
    words = "; ".join(f"{t.name}: cost {share(t.x)}, thief {share(t.y)}" for t in trades)
    caption = "The frontier: lower is safer, further left is cheaper. Upright strokes are 95 % intervals."
    return Figure("frontier.svg", data, caption, f"What each defence costs, and what it leaves to a thief. {words}.")


def maps_finding(without: Stolen, thefts: Sequence[tuple[str, Stolen]]) -> Finding:
    """How much cheaper theft becomes where maps are told too, and what is left of that behind a defence."""
    (name, raw), *_ = thefts
    goal = without.last
    cheaper = next((p for p in raw.points if p.agreement >= goal.agreement), None)
    gap = apart((raw.last.agree, raw.last.n), (goal.agree, goal.n))
    enough = (
        f"With maps {counted(cheaper.queries, 'answer')} are enough for what takes {goal.queries} without."
        if cheaper is not None
        else f"Even {raw.last.queries} answers with maps are not as good as {goal.queries} without."
    )
    return Finding(
        "note",
        f"{enough} A clone that learns from maps ({name}) as well agrees on {share(raw.last.agreement)} after "
        f"{counted(raw.last.queries, 'answer')}, one that learns from answers alone on {share(goal.agreement)}.",
        quantity="agreement gained by maps",
        value=raw.last.agreement - goal.agreement,
        interval=gap,
        n=goal.n,
        notes=(
            "A picture's map comes with its answer and is not paid for apart. The clone's own map, by the same "
            "explainer, is drawn to the one that is told (1 - cosine).",
            "The interval is that of two independent shares (Newcombe): it is wide, for both are of the same pictures.",
        ),
        tables=table(
            "Agreement by answers, without maps and with them",
            [_map_row("none", without), *(_map_row(leak, stolen) for leak, stolen in thefts)],
        ),
    )


def _map_row(name: str, stolen: Stolen) -> dict[str, Cell]:
    row: dict[str, Cell] = {"maps": name}
    for p in stolen.points:
        row[f"{p.queries} answers"] = f"{share(p.agreement)} ({share(p.interval[0])} to {share(p.interval[1])})"
    return row


def transfer_finding(found: Transfer) -> Finding:
    """How many pictures that were attacked on the clone fool the model."""
    at = f"{found.call} at {word(found.eps)}"
    if not found.n:
        return Finding("note", "The clone agrees with the model on none of the pictures: there is nothing to transfer.")
    return Finding(
        "note",
        f"Attacked on the clone by {at}, {found.fooled} of {counted(found.n, 'picture')} fool the model, "
        f"{share(found.fooled / found.n)} ({span(found.interval, found.n)}), and {found.clone_fooled} the clone.",
        quantity="fooled by attacks on the clone",
        value=found.fooled / found.n,
        interval=found.interval,
        n=found.n,
        notes=(
            "Pictures count to whose class clone and model agreed before; fooled is another class than that. The "
            "attacked pictures are rounded to 8 bits; showing them to the model is not of the thief's budget.",
        ),
    )
