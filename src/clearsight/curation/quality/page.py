"""The page of a data check: one HTML file that opens from disk, with the pictures side by side."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from clearsight.curation.quality.flaw import Beside, Flaw
from clearsight.data.annotation_formats.regions import Box
from clearsight.data.images import open_picture
from clearsight.drawing.box_picture import outlined
from clearsight.drawing.heatmaps import enlarged, strip
from clearsight.errors import Refused
from clearsight.feature_report.html import ROWS, cite, page_figures, parted
from clearsight.reporting.embedding import embedding
from clearsight.reporting.figures import figure
from clearsight.reporting.html_report import anchors, cell, columns, linked, tight
from clearsight.reporting.page_template import page_part, page_template
from clearsight.reporting.pages import INDEX, Block, Page, Shown

SHOWN = 24  # of each thing found; the table of names has all of them
SIDE = 176  # pixels of a picture on the page
NAMES = 200  # in a list


def render(title: str, verdict: str, facts: Mapping[str, Any], flaws: Sequence[Flaw]) -> str:
    """The page as HTML: styles and pictures inside, everything from the data escaped."""
    style = page_part("report.css") + page_part("atlas.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    content = page(title, flaws)
    whole = page_template("datacheck.html.j2", cell, tight, linked, parted).render(
        page=content,
        embedded=embedding(page_figures(content)),
        blocks=list(zip(anchors(b.title for b in content.blocks), flaws, content.blocks, strict=True)),
        facts=facts,
        verdict=verdict,
        style=Markup(style),
        digest=digest,
        rows=ROWS,
        columns=columns,
        cite=cite,
    )
    return whole.strip() + "\n"


def page(title: str, flaws: Sequence[Flaw]) -> Page:
    """A block for each flaw, with its first pictures."""
    return Page(INDEX, title, tuple(_block(f) for f in flaws))


def _block(flaw: Flaw) -> Block:
    notes = [flaw.advice] if flaw.advice else []
    notes += flaw.notes
    if len(flaw.shown) > SHOWN:
        notes.append(f"the first {SHOWN} of {len(flaw.shown)} are shown; check.json names all of them")
    shown = tuple(_show(flaw.name, n, b) for n, b in enumerate(flaw.shown[:SHOWN]))
    pairs = any(len(b.pictures) > 1 for b in flaw.shown)
    words = flaw.words + ("." if flaw.shown or flaw.tables or not flaw.names else f": {', '.join(flaw.names[:NAMES])}.")
    title = flaw.name[:1].upper() + flaw.name[1:]
    return Block(title, words, shown, (), flaw.tables, tuple(notes), not pairs, paper=flaw.paper)


def _show(what: str, n: int, beside: Beside) -> Shown:
    names = " and ".join(p.name for p in beside.pictures)
    images = [_thumbnail(p.path, beside.boxes if k == 0 else ()) for k, p in enumerate(beside.pictures)]
    image = strip(images)
    alt = f"{names}: {beside.words}"
    return Shown(names, figure(f"{what} {n}", image, alt, beside.words), dict(beside.facts))


def _thumbnail(path: Path, boxes: Sequence[Box] = ()) -> Image.Image:
    """A picture in a square of ``SIDE`` pixels, small ones enlarged with each pixel a square, with boxes on it."""
    try:
        image = open_picture(path).convert("RGB")
    except Refused:  # it was there a moment ago
        return Image.new("RGB", (SIDE, SIDE), "grey")
    wide, high = image.size
    if 2 * max(image.size) <= SIDE:
        image = enlarged(image, SIDE * min(image.size) // max(image.size))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    scales = (image.width / wide, image.height / high) * 2
    beyond = 2 * SIDE  # where a line is out of sight
    sides = [[min(max(v * scale, -beyond), beyond) for v, scale in zip(box, scales, strict=True)] for box in boxes]
    return outlined(image, sides)
