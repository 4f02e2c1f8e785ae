"""A plane of what a defence costs and what it leaves to a thief, and ROC curves on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clearsight.drawing import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Trade:
    """One defence: what it costs the honest (x), what is left to the best thief (y, with its interval), and to one who
    does not adapt (naive)."""

    name: str
    x: float
    y: float
    low: float
    high: float
    naive: float


def trade_off(trades: Sequence[Trade], *, xlabel: str, ylabel: str) -> bytes:
    """Each defence as a dot with its interval, and a line to the hollow dot of a thief who does not adapt."""

    def draw(ax: Axes) -> None:
        for i, t in enumerate(trades):
            colour, marker = charts.kind(i)
            ax.plot((t.x, t.x), (t.naive, t.y), color=colour, linewidth=1, linestyle=(0, (1, 1)), zorder=1)
            ax.plot((t.x, t.x), (t.low, t.high), color=colour, linewidth=1.2, alpha=0.5, zorder=1)
            ax.plot(t.x, t.naive, marker=marker, color=colour, markerfacecolor="none", ms=7, linestyle="", zorder=2)
            ax.plot(t.x, t.y, marker=marker, color=colour, ms=7, linestyle="", label=charts.short(t.name, 40), zorder=3)
        ax.plot(
            [], [], marker="o", color=charts.GREY, markerfacecolor="none", ms=7, linestyle="",
            label="hollow: a thief who does not adapt",
        )  # fmt: skip
        ax.set_xlim(-0.03, max(0.1, *(t.x for t in trades)) * 1.06)
        ax.set_ylim(-0.02, 1.02)
        charts.percent(ax.xaxis, ax.yaxis)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        charts.legend(ax, columns=1)

    return charts.svg(draw, 6.4, 4.2 + 0.22 * len(trades))


@dataclass(frozen=True)
class Roc:
    """One ROC curve: false and true positive rates."""

    name: str
    false: Sequence[float]
    true: Sequence[float]


def log_roc(lines: Sequence[Roc], *, least: float) -> bytes:
    """ROC curves on logarithmic axes, from the rate ``least`` up, beside what guessing gives."""

    def draw(ax: Axes) -> None:
        ax.plot((least, 1), (least, 1), color=charts.GREY, linewidth=1, linestyle=(0, (5, 3)), label="guessing")
        for i, line in enumerate(lines):
            colour, _ = charts.kind(i)
            x = [max(v, least) for v in line.false]
            ax.step(x, [max(v, least) for v in line.true], where="post", color=colour, label=line.name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(least, 1)
        ax.set_ylim(least, 1)
        charts.percent(ax.xaxis, ax.yaxis, digits=None)
        ax.set_xlabel("false positive rate: others taken for members")
        ax.set_ylabel("true positive rate: members found")
        ax.set_aspect("equal")
        charts.legend(ax)

    return charts.svg(draw, 5.6, 5.8)
