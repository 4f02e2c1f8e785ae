"""Pages -> a folder of HTML: one page per layer and per unit at an address that stays, with no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clearsight.core.output import write_whole
from clearsight.reporting.embedding import embedding, size
from clearsight.reporting.findings import Figure
from clearsight.reporting.html_report import anchors, cell, columns, linked, scale_css, tight
from clearsight.reporting.method_pages import paper_link
from clearsight.reporting.page_template import page_part, page_template
from clearsight.reporting.pages import INDEX, Page

ROWS = 24  # of a long table are shown before it is opened


def write(pages: Sequence[Page], facts: Mapping[str, Any], left_out: Sequence[tuple[str, str]], folder: Path) -> Path:
    """Write every page, the index last, so that it never leads nowhere."""
    for address, page in sorted(render(pages, facts, left_out).items(), key=lambda item: item[0] == INDEX):
        write_whole(folder / address, page)
    return folder / INDEX


def render(pages: Sequence[Page], facts: Mapping[str, Any], left_out: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The HTML of each page by its address: styles and pictures inside, everything from the data escaped.

    facts: model, data, seed.  left_out: (method, why) of those that could not be.
    """
    style = page_part("report.css") + scale_css() + page_part("atlas.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = page_template("atlas.html.j2", cell, tight, linked, parted, broad)
    by_address = {p.address: p for p in pages}
    rendered = {}
    for page in pages:
        html = template.render(
            page=page,
            embedded=embedding(page_figures(page)),
            index=page.address == INDEX,
            blocks=list(zip(anchors(b.title for b in page.blocks), page.blocks, strict=True)),
            facts=facts,
            left_out=left_out,
            trail=_trail(page, by_address),
            below=_below(page, by_address),
            link=partial(_link, page, by_address),
            style=Markup(style),
            digest=digest,
            rows=ROWS,
            columns=columns,
            cite=cite,
        )
        rendered[page.address] = html.strip() + "\n"
    return rendered


def cite(paper: str) -> Markup:
    """A paper as a link, which is followed only where it is clicked."""
    link = paper_link(paper)
    return Markup('<a href="{}">{}</a>').format(link, paper) if link else Markup.escape(paper)


def parted(name: str, after: str = "/:_") -> Markup:
    """A name in a heading, which on a narrow screen is broken behind one of these signs rather than in a word.

    >>> parted("timm:a_b<")
    Markup('timm:<wbr>a_<wbr>b&lt;')
    """
    return Markup("<wbr>").join(re.split(f"(?<=[{re.escape(after)}])(?=.)", name))


def broad(figure: Figure) -> bool:
    """Whether a picture is a strip, beside which its words stand, rather than below."""
    wh = size(figure)
    return wh is not None and wh[0] > 1.6 * wh[1]


def page_figures(page: Page) -> list[Figure]:
    """Every figure of a page, in the order in which they stand there."""
    return [figure for b in page.blocks for figure in (*b.figures, *(s.figure for s in b.shown))]


def _link(page: Page, by_address: Mapping[str, Page], address: str) -> str:
    """The way from a page to another one, "" where there is no such page."""
    return posixpath.relpath(address, posixpath.dirname(page.address) or ".") if address in by_address else ""


def _trail(page: Page, by_address: Mapping[str, Page]) -> list[Page]:
    """The pages above: the index, and for a unit its layer."""
    above = [by_address[INDEX]] if page.address != INDEX and INDEX in by_address else []
    if page.address.startswith("units/"):
        layer = by_address.get(f"layers/{page.address.split('/')[1]}.html")
        above += [layer] if layer else []
    return above


def _below(page: Page, by_address: Mapping[str, Page]) -> list[Page]:
    """The pages below a page: layers of the index, units of a layer; units of the index too where no layer has them."""
    if page.address == INDEX:
        layers = [p for p in by_address.values() if p.address.startswith("layers/")]
        layer_names = {p.address.removeprefix("layers/").removesuffix(".html") for p in layers}
        return layers + [
            p
            for p in by_address.values()
            if p.address.startswith("units/") and p.address.split("/")[1] not in layer_names
        ]
    if page.address.startswith("layers/"):
        prefix = f"units/{page.address.removeprefix('layers/').removesuffix('.html')}/"
        return [p for p in by_address.values() if p.address.startswith(prefix)]
    return []
