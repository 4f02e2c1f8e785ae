"""report.html: one file that opens from disk, with no script and no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from clearsight.drawing.heatmaps import SCALE_WORDS, scale_colours
from clearsight.drawing.text import SCALE_WORDS as TEXT_SCALE_WORDS
from clearsight.reporting.embedding import embedding, size
from clearsight.reporting.facts import BrokenFile, RunFacts
from clearsight.reporting.findings import Cell, Finding, Table
from clearsight.reporting.page_template import page_part, page_template
from clearsight.reporting.wording import WORDS, show, show_interval

ROWS = 12  # of a long table are shown before it is opened

MEANING = {
    "pass": "the whole 95 % interval keeps the bar",
    "warn": "the data are too few to decide, or the check says why in its notes",
    "fail": "the whole 95 % interval misses the bar",
    "note": "there was nothing to judge",
    "error": "the check could not be done",
}
# of an export, where both the model and the file saw the very pictures that are judged
MEANING_OF_EXPORT = MEANING | {
    "pass": "the bar in its notes is kept on these pictures",
    "warn": "the bar is not kept by all, or the pictures are too few: see its notes",
    "fail": "the bar in its notes is missed on these pictures",
    "note": "measured, and held against no bar",
}


def render(kind: str, opening: Sequence[str], facts: RunFacts, findings: Sequence[Finding]) -> str:
    """The whole report as one HTML file: styles inside, pictures as data URIs, everything from the data escaped.

    opening: the sentences that stand first; findings: in the order in which they are to be read.
    """
    ids = anchors([f.name for f in findings])
    style = page_part("report.css") + scale_css()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = page_template("report.html.j2", cell, plain, tight, linked, size).render(
        kind=kind,
        facts=facts,
        findings=list(zip(ids, findings, strict=True)),
        opening=opening,
        embedded=embedding(figure for f in findings for figure in (*f.figures, *(e.figure for e in f.evidence))),
        style=Markup(style),
        digest=digest,
        words=WORDS,
        meaning=MEANING_OF_EXPORT if kind == "export" else MEANING,
        used=[v for v in WORDS if any(f.verdict == v for f in findings)],
        rows=ROWS,
        scale_words=TEXT_SCALE_WORDS if facts.thing == "text" else SCALE_WORDS,
        show=show,
        show_interval=show_interval,
        interval_bar=interval_bar,
        has_maps=has_maps,
        in_grey=in_grey,
        any_grey=any(map(in_grey, findings)),
        columns=columns,
        broken=broken_table(facts.data.broken),
        environment=", ".join(f"{k} {v}" for k, v in facts.environment.items()),
    )
    return page.strip() + "\n"


def summary(opening: Sequence[str], findings: Sequence[Finding]) -> str:
    """The first sentences and the sheet alone, for a notebook."""
    cells = []
    for f in findings:
        numbers = (show(f.value, f.unit), show_interval(f), str(f.n or "–"))
        number_cells = "".join(f'<td style="text-align:right;white-space:nowrap">{v}</td>' for v in numbers)
        word_cells = f"<td><b>{WORDS[f.verdict]}</b></td><td>{html.escape(f.check)}</td>"
        cells.append(f'<tr>{word_cells}{number_cells}<td style="text-align:left">{html.escape(f.headline)}</td></tr>')
    header = "".join(
        f'<th scope="col">{h}</th>' for h in ("verdict", "check", "value", "95 % interval", "n", "in words")
    )
    table = f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(cells)}</tbody></table>"
    sentences = "<br>".join(f"<b>{html.escape(sentence)}</b>" for sentence in opening)
    return f"<div><p>{sentences}</p>{table}</div>"


def interval_bar(f: Finding) -> Markup:
    """A small drawing of value, interval and chance level on one line; the numbers stand beside it in the text."""
    if f.value is None or not math.isfinite(f.value):
        return Markup("")
    finite = [v for v in (f.value, f.chance, *(f.interval or ())) if v is not None and math.isfinite(v)]
    low, high = min(0.0, *finite), max(0.0, *finite)
    if f.unit == "share":  # a difference of shares may be below 0
        low, high = (-1.0 if low < 0 else 0.0), 1.0
    low, high = (low, high) if high > low else (low, low + 1)
    width = 140

    def x_of(v: float | None) -> str:
        v = low if v is None or not math.isfinite(v) else min(max(v, low), high)
        return f"{4 + (width - 8) * (v - low) / (high - low):.1f}"

    parts = [f'<path class="axis" d="M4 8H{width - 4}M4 5V11M{width - 4} 5V11"/>']
    if f.interval is not None:
        parts.append(f'<path class="range" d="M{x_of(f.interval[0])} 8H{x_of(f.interval[1])}"/>')
    if low < 0 < high:
        parts.append(f'<path class="zero" d="M{x_of(0)} 3V13"/>')
    if f.chance is not None:
        parts.append(f'<path class="chance" d="M{x_of(f.chance)} 10l3.5 6h-7z"/>')
    parts.append(f'<path class="value" d="M{x_of(f.value)} 1.5V14.5"/>')
    chance = f", chance {show(f.chance, f.unit)}" if f.chance is not None else ""
    words = f"{show(f.value, f.unit)}, 95 % interval {show_interval(f)}{chance}, on a line from "
    words += f"{show(low, f.unit)} to {show(high, f.unit)}"
    return Markup(f'<svg class="bar" viewBox="0 0 {width} 16" role="img" aria-label="{words}">{"".join(parts)}</svg>')


def has_maps(f: Finding) -> bool:
    """Is some of the evidence a map?  Then the scale stands beside it."""
    return any(e.maps != "none" for e in f.evidence)


def in_grey(f: Finding) -> bool:
    """Are its maps drawn in grey, because they are no evidence?"""
    return any(e.maps == "grey" for e in f.evidence)


def columns(table: Table) -> list[tuple[str, bool]]:
    """(name, does it hold numbers) of a table's columns, in the order in which the rows first name them."""
    names = dict.fromkeys(k for row in table.rows for k in row)
    return [(k, all(isinstance(row.get(k), int | float | None) for row in table.rows)) for k in names]


def broken_table(files: Iterable[BrokenFile]) -> Table:
    return Table("Files that are left out", tuple({"file": b.file, "reason": b.reason} for b in files))


def cell(value: Cell) -> str:
    """What stands in a table: fractions with as many decimals as their neighbours, so that a column can be read down.

    >>> cell(0.8), cell(0.12345), cell(12345.6), cell(7), cell(None), cell(True)
    ('0.800', '0.123', '12346', '7', '–', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–"
        if 0 < abs(value) < 0.0005:
            return f"{value:.1e}"
        digits = len(str(int(abs(value))))
        return f"{value:.{max(0, 4 - digits)}f}"
    return "–" if value is None else str(value)


def plain(value: float | Sequence[float]) -> str:
    """A number in a sentence.

    >>> plain(60.0), plain((224, 224))
    ('60', '224 × 224')
    """
    return f"{value:.4g}" if isinstance(value, int | float) else " × ".join(map(plain, value))


def tight(text: str) -> str:
    """Numbers stay with what belongs to them when the line ends: 12.5 %, 0.9 s, n = 10.

    >>> tight("2 of 12.5 % in 0.9 s")
    '2 of 12.5\\xa0% in 0.9\\xa0s'
    """
    return re.sub(r"(?<=\d) (?=s\b)", "\u00a0", text).replace(" %", "\u00a0%").replace("n = ", "n\u00a0=\u00a0")


def linked(paper: str) -> Markup:
    """A paper's words with its arXiv number or DOI as a link, which is followed only where it is clicked.

    >>> linked("Guo 2017, arXiv:1706.04599")
    Markup('Guo 2017, <a href="https://arxiv.org/abs/1706.04599">arXiv:1706.04599</a>')
    """
    words = str(Markup.escape(paper))
    words = re.sub(r"\barXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">\g<0></a>', words)
    return Markup(re.sub(r"\bdoi:(10\.\d{4,}/[\w.()/-]*\w)", r'<a href="https://doi.org/\1">\g<0></a>', words))


def anchors(names: Iterable[str]) -> list[str]:
    """One id for each check, from its name; a second one of the same name is numbered.

    >>> anchors(["accuracy", "./mine.py:odd", "accuracy"])
    ['accuracy', 'mine-py-odd', 'accuracy-2']
    """
    counts: dict[str, int] = {}
    ids = []
    for name in names:
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "check"
        counts[anchor] = counts.get(anchor, 0) + 1
        ids.append(anchor if counts[anchor] == 1 else f"{anchor}-{counts[anchor]}")
    return ids


def scale_css() -> str:
    """The colour scale as the pictures have it, from full ink against the class to full ink for it."""
    kinds = {"signed": (True, False), "unsigned": (False, False), "doubted": (False, True)}
    stops: Mapping[str, str] = {k: ", ".join(scale_colours(sign, grey=grey)) for k, (sign, grey) in kinds.items()}
    return "".join(f"\n.scale.{k} {{ background: linear-gradient(to right, {v}); }}" for k, v in stops.items()) + "\n"
