"""A text coloured by a map, character by character: for the terminal, without colours, and as HTML.

The scale is that of the heatmaps: orange speaks for the class, purple against it, nothing has no colour, and full ink
is the 99.5th percentile of the absolute values, here of the characters of the text.  Colours go in 16 steps each way.
Where there are no colours, a line of signs stands below each line of the text.  Control characters and those that turn
or hide text are shown by a sign or by their number, so that a text can neither steer a terminal nor hide.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clearsight.drawing.heatmaps import PERCENTILE, ink, scale_colours, strengths
from clearsight.errors import Refused

if TYPE_CHECKING:
    from rich.console import Console

STEPS = 16  # of ink, each way
SIGNS = {"for": " .+#", "against": " ,-="}  # below 1/16 of full ink, up to a third, up to two thirds, above
SCALE_WORDS = f"full ink is the {PERCENTILE}th percentile of the absolute values of this text's characters"
_SHOWN = {"\n": "↵", "\t": "⇥", "\r": "\\r"}
_MARKED = "; marked characters are underlined"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode that are not seen, or turn what is


@dataclass(frozen=True)
class Run:
    """Characters that follow each other and look alike.

    text: as it is shown; level: steps of ink, from -16 (full ink against) over 0 to 16 (full ink for the class);
    marked: whether they lie in a marked range; ends_line: whether the last one is a line break.
    """

    text: str
    level: int
    marked: bool = False
    ends_line: bool = False


def shown(character: str) -> str:
    """How a character is shown: itself, or a sign for one that is not seen.

    >>> [shown(c) for c in ("a", " ", "\\n", "\\x1b", "\\u202e")]
    ['a', ' ', '↵', '\\\\x1b', '\\\\u202e']
    """
    if character in _SHOWN:
        return _SHOWN[character]
    return ascii(character)[1:-1] if unicodedata.category(character) in _HIDDEN else character


def runs(
    text: str,
    heat: Tensor,
    *,
    signed: bool,
    full: float | None = None,
    marks: Sequence[tuple[int, int]] = (),
) -> list[Run]:
    """The text in runs of one colour.

    heat (L,) raw, L at least the length of the text; what lies behind the end is not drawn.  signed: whether negative
    values are drawn; full: the absolute value of full ink.  marks: ranges of characters.
    Refused: a map of another shape, and values that are not finite.
    """
    if heat.dim() != 1 or len(heat) < len(text):
        raise Refused(f"a map {tuple(heat.shape)} does not fit a text of {len(text)} characters")
    if not text:
        return []
    levels = np.rint(strengths(heat[: len(text)], signed=signed, full=full) * STEPS).astype(int).tolist()
    marked = {i for start, end in marks for i in range(start, end)}
    pieces: list[Run] = []
    places = [(level, i in marked) for i, level in enumerate(levels)]
    at = 0
    for (level, inside), same in groupby(places):
        part = text[at : at + len(list(same))]
        at += len(part)
        lines = re.findall(r"[^\n]*\n|[^\n]+", part)
        pieces += [Run("".join(map(shown, line)), level, inside, line.endswith("\n")) for line in lines]
    return pieces


def colours(level: int, grey: bool = False) -> tuple[str, str]:
    """(background, foreground) of a level, "#rrggbb" each; grey: of a map that fails a test.

    >>> colours(0), colours(16), colours(-16)
    (('#ffffff', '#111111'), ('#9d4414', '#ffffff'), ('#4a147d', '#ffffff'))
    """
    r, g, b = (ink(np.ones(1), np.array([level / STEPS]), grey)[0] * 255).round().astype(int).tolist()
    bright = 0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2
    return f"#{r:02x}{g:02x}{b:02x}", "#111111" if bright > 0.18 else "#ffffff"


def print_text(console: Console, pieces: Sequence[Run], *, signed: bool, grey: bool = False) -> None:
    """Print a text with its colours and the scale; with lines of signs where the console shows no colours."""
    from rich.text import Text

    if console.color_system is None or console.no_color:
        for row in (*_sign_lines(pieces, console.width), _sign_legend(signed)):
            console.print(Text(row), soft_wrap=True, highlight=False)
        return
    line = Text(overflow="fold")
    for run in pieces:
        background, foreground = colours(run.level, grey)
        inked = f"{foreground} on {background}" if run.level else ""
        line.append(run.text, f"{inked} underline".strip() if run.marked else inked)
        if run.ends_line:
            line.append("\n")
    console.print(line, highlight=False, soft_wrap=True)  # not wrapped at blanks: they are characters like others
    console.print(_legend(signed, grey, any(run.marked for run in pieces)), highlight=False)


def text_html(pieces: Sequence[Run], *, grey: bool = False) -> str:
    """The text as an HTML element <pre>, each run in its colours; marked characters are underlined."""
    parts = []
    for run in pieces:
        background, foreground = colours(run.level, grey)
        style = f"background:{background};color:{foreground}" if run.level else ""
        words = escape(run.text)
        if style or run.marked:
            named = ' class="marked"' if run.marked else ""
            words = f"<span{named}{f' style={chr(34)}{style}{chr(34)}' if style else ''}>{words}</span>"
        parts.append(words + ("\n" if run.ends_line else ""))
    return f'<pre class="text">{"".join(parts)}</pre>'


def scale_html(signed: bool, *, grey: bool = False, marked: bool = False) -> str:
    """The scale of the colours as HTML, with what it means; marked: whether characters are underlined."""
    low, high = _ends(signed, grey)
    steps = "".join(f'<span style="background:{c}">&nbsp;</span>' for c in _scale(signed, grey))
    return f'<p class="scale">{low} {steps} {high}; {SCALE_WORDS}{_MARKED if marked else ""}</p>'


TEXT_CSS = """
pre.text { background: #fff; color: #111; padding: .6em .8em; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 14px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; border: 1px solid #8884; margin: .4em 0; }
pre.text .marked { text-decoration: underline #111 3px; text-underline-offset: 3px; }
p.scale { font-size: 85%; margin: .2em 0 1em; }
p.scale span { display: inline-block; width: .7em; }
"""


def _sign(level: int) -> str:
    signs = SIGNS["for"] if level >= 0 else SIGNS["against"]
    return signs[0 if not level else 1 + min(2, (abs(level) - 1) * 3 // STEPS)]


def _sign_lines(pieces: Sequence[Run], width: int) -> Iterator[str]:
    """The lines of a text, cut to the width, each with a line of signs below it; marked characters have ^ there too."""
    above, below, marks = "", "", ""
    for run in pieces:
        above += run.text
        below += _sign(run.level) * len(run.text)
        marks += ("^" if run.marked else " ") * len(run.text)
        if run.ends_line:
            yield from _cut(above, below, marks, width)
            above = below = marks = ""
    if above:
        yield from _cut(above, below, marks, width)


def _cut(above: str, below: str, marks: str, width: int) -> Iterator[str]:
    for at in range(0, len(above), width):
        rows = (above[at : at + width], below[at : at + width].rstrip(), marks[at : at + width].rstrip())
        yield from (row for i, row in enumerate(rows) if not i or row)


def _sign_legend(signed: bool) -> str:
    against = f", against it: {', '.join(SIGNS['against'][1:])}" if signed else ""
    return f"for the class, from faint to strong: {', '.join(SIGNS['for'][1:])}{against}; {SCALE_WORDS}"


def _legend(signed: bool, grey: bool, marked: bool) -> object:
    from rich.text import Text

    low, high = _ends(signed, grey)
    line = Text(f"{low} ", "dim")
    for colour in _scale(signed, grey):
        line.append(" ", f"on {colour}")
    line.append(f" {high}; {SCALE_WORDS}" + (_MARKED if marked else ""), "dim")
    return line


def _scale(signed: bool, grey: bool) -> list[str]:
    return scale_colours(signed and not grey, STEPS, grey)


def _ends(signed: bool, grey: bool) -> tuple[str, str]:
    """What the ends of the scale mean; grey shows how strong, not which way."""
    if grey:
        return "0", ("for or against the class" if signed else "for the class") + ", of a map that fails a test"
    return ("against the class" if signed else "0"), "for the class"
