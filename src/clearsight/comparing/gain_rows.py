"""Rows of tables and sentences about what two runs have gained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearsight.auditing.evidence import bounds, points, share
from clearsight.core.statistics import Interval
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.evaluation.gains import Gain
from clearsight.reporting.findings import Cell, Figure
from clearsight.reporting.wording import signed_points


def gain_cells(gain: Gain, of: str = "") -> dict[str, Cell]:
    """The columns of a table that hold a gain.  of: what it is of, where a row has several."""
    head = f"{of} " if of else ""
    return {
        f"{head}before": gain.before,
        f"{head}after": gain.after,
        f"{head}difference": gain.value,
        **bounds(gain.interval),
    }


def gain_rows(gains: Iterable[tuple[str, Gain]]) -> list[dict[str, Cell]]:
    """A row for each measure that is defined in both runs."""
    return [{"measure": words, **gain_cells(gain)} for words, gain in gains if gain.value is not None]


def gain_words(of: str, gain: Gain) -> str:
    """A gain of shares as part of a sentence.

    >>> gain_words("AP50", Gain(0.5, 0.75, (0.1, 0.4)))
    'AP50 50.0 % before, 75.0 % after, +25.0 points (95 % +10.0 to +40.0)'
    """
    value = gain.value
    change = "" if value is None else f", {signed_points(value)} points ({_span(gain.interval)})"
    return f"{of} {share(gain.before)} before, {share(gain.after)} after{change}"


def _span(interval: Interval | None) -> str:
    if interval is None:
        return "too few pictures for an interval"
    return f"95 % {signed_points(interval[0])} to {signed_points(interval[1])}"


def cost_words(of: str, interval: Interval | None) -> str:
    """What the second run cost, in a sentence.

    >>> cost_words("AP50", (0.021, 0.092)), cost_words("AP50", (0.0, 0.0))
    ('Cost in AP50: none. It gained 2.1 to 9.2 points.', 'Cost in AP50: none. It did not change.')
    >>> cost_words("AP50", (-0.05, -0.01))
    'Cost in AP50: 1.0 to 5.0 points.'
    """
    if interval is None:
        return f"Cost in {of}: not known, the pictures are too few for an interval."
    low, high = interval
    if low == high == 0:
        return f"Cost in {of}: none. It did not change."
    if low > 0:
        return f"Cost in {of}: none. It gained {points(low)} to {points(high)} points."
    if high < 0:
        return f"Cost in {of}: {points(-high)} to {points(-low)} points."
    return (
        f"Cost in {of}: not decided. Between a loss of {points(-low)} and a gain of {points(high)} points everything "
        "is possible; more pictures would narrow it."
    )


def gain_figure(name: str, of: str, rows: Sequence[tuple[str, Gain]], pictures: int) -> Figure:
    """A chart of a share before and after for each class, the largest loss first; every gain is defined."""
    dots = [charts.Dot(label, g.after or 0.0, g.before or 0.0) for label, g in rows]
    data = charts.dots(dots, xlabel=of, value="after", chance="before")
    words = ", ".join(f"{d.name} {share(d.chance)} and {share(d.value)}" for d in dots)
    caption = f"{of} of each class before and after, {counted(pictures, 'picture')}; the largest loss first."
    return Figure(name, data, caption, f"{of} by class, before and after: {words}.")
