"""A drawing of the parameters, multiply-adds and memory of each layer of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clearsight.core.output import write_whole
from clearsight.drawing.charts import ACCENT, GREY, svg
from clearsight.errors import Refused
from clearsight.inspecting.layer_table import LayerTable, Row, field_text, folded, memory, shape_text, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 32  # rows that can be read at a glance


@dataclass(frozen=True)
class _Panel:
    title: str
    value: Callable[[Row], int]
    format: Callable[[int], str]
    total: int


def draw_tables(tables: Sequence[tuple[str, LayerTable]], folder: Path) -> list[Path]:
    """Write the drawing of each (title, table) into a folder, as layers-1.svg, layers-2.svg, ...; returns the files."""
    return [
        write_whole(folder / f"layers-{i}.svg", layer_drawing(table, title=title))
        for i, (title, table) in enumerate(tables, 1)
    ]


def layer_drawing(table: LayerTable, *, title: str = "", most: int = MOST) -> bytes:
    """An SVG: the network from its input (top) to its scores, and three bars for each layer or block.

    The bars are each layer's share of all parameters, multiply-adds and bytes of outputs; the three panels have scales
    of their own, and every bar of at least a hundredth of the total says its number.  Beside the names stand what each
    gives and what it sees.  title: what the network is called, above the names.  most: more layers than that are folded
    into blocks and stages.
    """
    if most < 1:
        raise Refused(f"most={most}: a drawing has at least one row, give 1 or more")
    rows = _limit_rows(folded(table, most, alike=False), most)
    panels = (
        _Panel("parameters", lambda r: r.parameters, short_number, table.total_parameters),
        _Panel("multiply-adds", lambda r: r.macs or 0, short_number, table.total_macs),
        _Panel("memory of outputs", lambda r: r.kept, memory, table.total_kept),
    )

    def draw(ax: Axes) -> None:
        figure = ax.get_figure(root=True)
        assert figure is not None
        ax.remove()
        figure.set_layout_engine("none")  # its solver is not the same twice for several axes
        room = {
            "left": 0.01,
            "right": 0.995,
            "bottom": 0.01,
            "top": 0.99,
            "wspace": 0.06,
            "width_ratios": (1.7, 1, 1, 1),
        }
        words, *bars = figure.subplots(1, 4, sharey=True, squeeze=False, gridspec_kw=room)[0]
        _names(words, rows, _short(title, 36) or "layer")
        for axes, panel in zip(bars, panels, strict=True):
            _bars(axes, rows, panel)

    return svg(draw, 12.5, 0.8 + 0.27 * len(rows))


def _limit_rows(rows: list[Row], most: int) -> list[Row]:
    """Where even the stages are too many, the last row stands for the rest."""
    if len(rows) <= most:
        return rows
    hidden = rows[most - 1 :]
    macs = None if any(r.macs is None for r in hidden) else sum(r.macs or 0 for r in hidden)
    summary = Row(
        f"{hidden[0].name} to {hidden[-1].name}",
        f"{len(hidden)} more",
        hidden[-1].shape,
        sum(r.parameters for r in hidden),
        macs,
        sum(r.kept for r in hidden),
        hidden[-1].field,
        1,
        sum(r.layers for r in hidden),
    )
    return [*rows[: most - 1], summary]


def _names(ax: Axes, rows: list[Row], title: str) -> None:
    """Which layer, what it gives, and what it sees: three columns of words."""
    for y, row in enumerate(rows):
        for x, text, side in (
            (0.0, _label(row), "left"),
            (0.72, shape_text(row.shape), "right"),
            (1.0, field_text(row.field), "right"),
        ):
            ax.text(x, y, text.replace(" x ", "×"), ha=side, va="center", fontsize=9, color=GREY)
    for x, text, side in ((0.0, title, "left"), (0.72, "output", "right"), (1.0, "sees / step", "right")):
        ax.text(x, -0.8, text, ha=side, va="bottom", fontsize=11, color=GREY)
    ax.set_xlim(0, 1)
    ax.set_axis_off()


def _bars(ax: Axes, rows: list[Row], panel: _Panel) -> None:
    values = [panel.value(r) for r in rows]
    widest = max((*values, 1))
    ax.barh(range(len(rows)), values, height=0.72, color=ACCENT, alpha=0.75, linewidth=0)
    for y, (row, value) in enumerate(zip(rows, values, strict=True)):
        text = "not known" if panel.title == "multiply-adds" and row.macs is None else ""
        text = text or (panel.format(value) if value * 100 >= panel.total > 0 else "")
        ax.text(value + widest * 0.02, y, text, va="center", ha="left", fontsize=9, color=GREY)
    ax.text(0, -0.8, f"{panel.title}: {panel.format(panel.total)}", ha="left", va="bottom", fontsize=11, color=GREY)
    ax.set_xlim(0, widest * 1.32)
    ax.set_ylim(len(rows) - 0.4, -1.6)
    ax.tick_params(axis="y", length=0, labelleft=False)
    ax.set_xticks([])
    ax.grid(visible=False)
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)


def _label(r: Row) -> str:
    return _short(r.name, 32)


def _short(name: str, most: int) -> str:
    """A name of at most so many letters, its end rather than its middle; for matplotlib."""
    head = most // 3
    return (name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}").replace("$", r"\$")
