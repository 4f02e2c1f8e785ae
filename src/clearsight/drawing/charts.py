"""Numbers -> charts, as SVG with one shared style, the same bytes for the same numbers.

Nothing global is touched: no pyplot, and the style holds only while a chart is drawn.  The ground is transparent and
all colours are mid-tones, so that a chart can be read on white, on dark and in print; text stays text, in the reader's
own system font.  What is measured is drawn in the accent colour, what it is compared with in grey.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap

ACCENT = "#2b83b5"
GREY = "#76808c"
_FAINT = "#76808c40"
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clearsight",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": GREY,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}
_PALE = ("#f4f4f4", "#17597f")
_INK = ("#5f93b1", "#17597f")
_BOTH = ("#5b3a8c", "#f4f4f4", "#17597f")
_DASHES: tuple[tuple[str | tuple[int, tuple[int, ...]], str], ...] = (
    ((0, (5, 3)), "s"),
    ((0, (1, 2)), "^"),
    ((0, (7, 2, 1, 2)), "D"),
)


@dataclass(frozen=True)
class Line:
    """One curve and its 95 % band.  control: what the others are compared with, drawn in grey and dashed."""

    name: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    control: bool = False


@dataclass(frozen=True)
class Dot:
    """One row of a dot plot: a value beside what chance would give.  hollow: set apart, and said so in the legend."""

    name: str
    value: float
    chance: float
    hollow: bool = False


def curves(
    x: Sequence[float],
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str,
    xticks: Sequence[tuple[float, str]] | None = None,
    shares: bool = True,
    floor: float | None = None,
) -> bytes:
    """Curves over x with their bands.  shares: the y axis runs from 0 to 100 %; floor: a bound drawn across."""

    def draw(ax: Axes) -> None:
        controls = 0
        for line in lines:
            dash, marker = _DASHES[controls % len(_DASHES)] if line.control else ("-", "o")
            controls += line.control
            colour = GREY if line.control else ACCENT
            few = len(x) <= 12
            ax.plot(x, line.values, color=colour, linestyle=dash, marker=marker if few else "", ms=5, label=line.name)
            if line.low is not None and line.high is not None:
                ax.fill_between(x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        if floor is not None:
            ax.axhline(floor, color=GREY, linewidth=1, linestyle=(0, (1, 1)), label=f"asked for: {100 * floor:g} %")
        if xticks is not None:
            ax.set_xticks([at for at, _ in xticks], [word for _, word in xticks])
        if shares:
            ax.set_ylim(0, 1.02)
            percent(ax.yaxis)
        else:
            ax.set_ylim(bottom=min(0.0, *(min(line.values) for line in lines)) - 0.02)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend(ax)

    return svg(draw, 6.4, 4.0)


def panels(x: Sequence[float], parts: Sequence[tuple[str, Sequence[Line]]], *, xlabel: str, ylabel: str) -> bytes:
    """Shares over x, side by side: (title, lines) each, a line of the same place in the same colour and shape."""

    def draw(*axes: Axes) -> None:
        for ax, (title, lines) in zip(axes, parts, strict=True):
            for line, (colour, marker) in zip(lines, _KINDS, strict=False):
                name = line.name if ax is axes[0] else None
                ax.plot(x, line.values, color=colour, marker=marker, ms=5, label=name)
            ax.set_title(title, color=GREY, fontsize=11)
            ax.set_ylim(0, 1.02)
            percent(ax.yaxis)
            ax.set_xlabel(xlabel)
        axes[0].set_ylabel(ylabel)
        legend(axes[0])

    return svg(draw, 4.8 * len(parts), 4.0, len(parts))


def reliability(
    edges: Sequence[float],
    counts: Sequence[int],
    confidence: Sequence[float],
    accuracy: Sequence[float],
    intervals: Sequence[tuple[float, float]],
) -> bytes:
    """A reliability diagram: how often it is right beside how sure it is, for each bin of confidence.

    edges (bins + 1); counts, confidence, accuracy, intervals (bins): of bins without pictures nothing is drawn.  Above
    the bars stand the counts; the gap to the mean confidence is hatched.
    """

    def draw(ax: Axes) -> None:
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (5, 3)), label="perfectly calibrated")
        named = False
        for i, n in enumerate(counts):
            if not n:
                continue
            left, wide = edges[i] + 0.002, edges[i + 1] - edges[i] - 0.004
            words = ("right", "gap to the mean confidence") if not named else (None, None)
            named = True
            ax.bar(left, accuracy[i], wide, align="edge", color=ACCENT, alpha=0.5, linewidth=0, label=words[0])
            gap = confidence[i] - accuracy[i]
            ax.bar(
                left, gap, wide, accuracy[i], align="edge", fill=False, edgecolor=GREY, hatch="////", lw=0.8,
                label=words[1],
            )  # fmt: skip
            middle = left + wide / 2
            low, high = intervals[i]
            ax.plot([middle, middle], [low, high], color=GREY, linewidth=1.2)
            ax.text(middle, 1.03, f"{n}", ha="center", va="bottom", fontsize=9)
        ax.text(-0.015, 1.03, "n", ha="right", va="bottom", fontsize=9)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        percent(ax.xaxis, ax.yaxis)
        ax.set_xlabel("how sure the model is of its answer")
        ax.set_ylabel("how often it is right")
        legend(ax)

    return svg(draw, 5.6, 5.0)


def dots(rows: Sequence[Dot], *, xlabel: str, value: str, chance: str, hollow: str = "") -> bytes:
    """A dot plot of shares: one row for each picture, in the order given, from the top.

    value, chance, hollow: what the filled dots, the ticks and the hollow dots are, in words.
    """

    def draw(ax: Axes) -> None:
        y = np.arange(len(rows))
        for i, r in enumerate(rows):
            ax.plot([r.chance, r.value], [i, i], color=GREY, linewidth=1.2, alpha=0.7, zorder=1)
        ax.scatter([r.chance for r in rows], y, marker="|", s=110, color=GREY, linewidths=2, label=chance, zorder=2)
        for kind, word in ((False, value), (True, hollow)):
            at = [i for i, r in enumerate(rows) if r.hollow == kind]
            if at:
                face = "none" if kind else ACCENT
                shown = [rows[i].value for i in at]
                ax.scatter(shown, at, s=42, facecolors=face, edgecolors=ACCENT, linewidths=1.6, label=word, zorder=3)
        ax.set_yticks(y, [short(r.name) for r in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(-0.02, 1.02)
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        percent(ax.xaxis)
        ax.set_xlabel(xlabel)
        legend(ax)

    return svg(draw, 6.4, 1.5 + 0.28 * len(rows))


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> bytes:
    """A confusion matrix of counts: rows are what is shown, columns what was said; right answers on the diagonal."""

    def draw(ax: Axes) -> None:
        counts = np.asarray(matrix)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        ax.imshow(np.ma.masked_equal(shares, 0), cmap=_from_to(_INK), vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(counts), strict=True):
            weight = "bold" if i == j else "normal"
            ax.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=9, fontweight=weight, color="white")
        k = np.arange(len(labels))
        words = [short(w, 24) for w in labels]
        ax.set_xticks(k, words, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(k, words)
        ax.set_xticks(k[:-1] + 0.5, minor=True)
        ax.set_yticks(k[:-1] + 0.5, minor=True)
        ax.grid(which="major", visible=False)
        ax.grid(which="minor", color=_FAINT)
        ax.tick_params(which="both", length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.set_xlabel("said")
        ax.set_ylabel("shown")

    return svg(draw, 2.6 + 0.36 * len(labels), 2.2 + 0.36 * len(labels))


def correlations(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> bytes:
    """Correlations from -1 to 1 between named things, each with its number; nan stays blank."""

    def draw(ax: Axes) -> None:
        values = np.asarray(matrix, dtype=float)
        ax.imshow(np.ma.masked_invalid(values), cmap=_from_to(_BOTH), vmin=-1, vmax=1)
        for i, j in np.argwhere(np.isfinite(values)):
            dark = abs(values[i, j]) > 0.6
            word = f"{values[i, j]:.2f}".replace("-", "\u2212")
            ax.text(j, i, word, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        k = np.arange(len(names))
        ax.set_xticks(k, names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(k, names)
        ax.grid(visible=False)
        ax.tick_params(which="both", length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)

    return svg(draw, 3.0 + 0.42 * len(names), 2.4 + 0.42 * len(names))


def shares(
    rows: Sequence[str], columns: Sequence[str], matrix: Sequence[Sequence[float]], *, of: str, to: str
) -> bytes:
    """A matrix of shares, each with its number; of, to: what the rows and the columns are; nan stays blank."""

    def draw(ax: Axes) -> None:
        values = np.asarray(matrix, dtype=float)
        ax.imshow(np.ma.masked_invalid(values), cmap=_from_to(_PALE), vmin=0, vmax=1)
        for i, j in np.argwhere(np.isfinite(values)):
            word = f"{100 * values[i, j]:.0f} %"
            ax.text(j, i, word, ha="center", va="center", fontsize=9, color="white" if values[i, j] > 0.55 else "black")
        ax.set_xticks(np.arange(len(columns)), [short(c, 24) for c in columns], rotation=30, ha="right")
        ax.set_yticks(np.arange(len(rows)), [short(r, 24) for r in rows])
        ax.grid(visible=False)
        ax.tick_params(which="both", length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.set_xlabel(to)
        ax.set_ylabel(of)

    return svg(draw, 3.0 + 0.7 * len(columns), 2.2 + 0.55 * len(rows))


def _from_to(colours: Sequence[str]) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", list(colours))


def percent(*axes: Axis, digits: int | None = 0) -> None:
    """Write the numbers of these axes in per cent; digits: decimals, None for as many as each needs."""
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    for axis in axes:
        whole = PercentFormatter(1.0, decimals=digits, symbol=" %")
        axis.set_major_formatter(whole if digits is not None else FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def legend(ax: Axes, columns: int = 2) -> None:
    """Above the plot, where no curve can run into it."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside upper left", ncols=columns, borderaxespad=0.2, handlelength=2.2, fontsize=10)


def kind(i: int) -> tuple[str, str]:
    """The colour and the shape of what stands in place i of a legend."""
    return _KINDS[i % len(_KINDS)]


def short(text: str, most: int = 34) -> str:
    """The end of a long name, which is where file names differ; dollar signs are no formulas."""
    text = text if len(text) <= most else f"…{text[-most + 1 :]}"
    return text.replace("$", r"\$")


def svg(draw: Callable[..., None], width: float, height: float, panels: int = 1) -> bytes:
    """What ``draw`` draws on so many panels (axes) side by side, as an SVG; width and height in inches."""
    import matplotlib as mpl  # half a second, which what draws no chart does not wait for
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        draw(*(figure.add_subplot(1, panels, i + 1) for i in range(panels)))
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return out.getvalue().replace(b"'DejaVu Sans'", _FONTS.encode())


@dataclass(frozen=True)
class Group:
    """Points of one kind in a scatter plot, x and y in any units."""

    name: str
    points: Sequence[tuple[float, float]]


def scatter(groups: Sequence[Group], *, rest: Group | None = None) -> bytes:
    """Points in a plane whose axes mean nothing: one colour and one shape for each group, and the rest in grey."""

    def draw(ax: Axes) -> None:
        if rest is not None and rest.points:
            x, y = zip(*rest.points, strict=True)
            ax.scatter(x, y, s=16, color=GREY, alpha=0.5, linewidths=0, label=rest.name)
        for i, group in enumerate(groups):
            colour, marker = _KINDS[i % len(_KINDS)]
            x, y = zip(*group.points, strict=True)
            name = short(group.name, 28)
            ax.scatter(x, y, s=34, marker=marker, color=colour, alpha=0.85, linewidths=0, label=name)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        legend(ax)

    return svg(draw, 6.4, 5.6)


@dataclass(frozen=True)
class Cross:
    """A dot at two shares, with the 95 % interval of each."""

    x: float
    y: float
    wide: tuple[float, float]
    high: tuple[float, float]


def plane(dots: Sequence[Cross], *, xlabel: str, ylabel: str) -> bytes:
    """Two shares of each, both from 0 to 100 % at the same scale, so that how far they lie apart can be compared."""

    def draw(ax: Axes) -> None:
        for i, dot in enumerate(dots):
            name = "its 95 % intervals" if i == 0 else None
            ax.plot(dot.wide, (dot.y, dot.y), color=GREY, linewidth=1.0, alpha=0.35, label=name)
            ax.plot((dot.x, dot.x), dot.high, color=GREY, linewidth=1.0, alpha=0.35)
        x, y = [dot.x for dot in dots], [dot.y for dot in dots]
        ax.scatter(x, y, s=38, color=ACCENT, alpha=0.75, linewidths=0, label="a run", zorder=3)
        for axis, limits in ((ax.xaxis, ax.set_xlim), (ax.yaxis, ax.set_ylim)):
            limits(-0.02, 1.02)
            percent(axis)
        ax.set_aspect("equal")
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend(ax)

    return svg(draw, 5.4, 5.6)


def quadrants(risen: Group, fallen: Group, rest: tuple[Group, Group], *, xlabel: str, ylabel: str) -> bytes:
    """Points from -1 to 1 on both axes, by their signs: risen ones lie upper left, fallen ones lower right.

    Both quadrants are tinted, and their points coloured.  The rest is grey: dots first, then crosses.
    """

    def draw(ax: Axes) -> None:
        for group, (colour, marker, size) in zip((risen, fallen, *rest), _QUADRANTS, strict=True):
            x, y = [at for at, _ in group.points], [at for _, at in group.points]
            width = 1.2 if marker == "x" else 0  # a cross is all line
            ax.scatter(x, y, s=size, marker=marker, color=colour, alpha=0.8, linewidths=width, label=group.name)
        for (colour, _, _), left, low in ((_QUADRANTS[0], -1.05, 0.0), (_QUADRANTS[1], 0.0, -1.05)):
            ax.fill_between((left, left + 1.05), low, low + 1.05, color=colour, alpha=0.08, linewidth=0)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.plot((-1.05, 1.05), (-1.05, 1.05), color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        for axis, limits in ((ax.xaxis, ax.set_xlim), (ax.yaxis, ax.set_ylim)):
            limits(-1.05, 1.05)
            axis.set_ticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
        ax.set_aspect("equal")
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend(ax)

    return svg(draw, 5.4, 5.8)


# Mid-tones after Okabe and Ito 2008, which the colour-blind can tell apart, each with a shape of its own
_KINDS = (
    ("#2b83b5", "o"), ("#d0750c", "s"), ("#1a9274", "^"), ("#b8639a", "D"), ("#b39b00", "v"), ("#b04a3a", "P"),
    ("#5aa2d6", "X"), ("#7a5fb5", "p"),
)  # fmt: skip
KINDS = len(_KINDS)
_QUADRANTS = (("#1a9274", "^", 40), ("#b04a3a", "v", 40), (GREY, "o", 20), (GREY, "x", 24))
