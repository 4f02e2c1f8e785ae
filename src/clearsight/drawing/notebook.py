"""Pictures with their words as HTML, for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

from PIL import Image

from clearsight.drawing.heatmaps import data_uri, png


def figure(images: Sequence[Image.Image], caption: str) -> str:
    alt = html.escape(caption.replace("\n", ", "))
    shown = "".join(
        f'<img src="{data_uri(png(im))}" alt="{alt}" style="height:168px;margin:0 4px 4px 0;display:inline-block">'
        for im in images
    )
    first, *rest = (html.escape(part) for part in caption.split("\n"))
    words = "<br>".join([f"<b>{first}</b>", *rest])
    return (
        f'<figure style="margin:0 16px 16px 0">{shown}<figcaption style="font-size:12px">{words}</figcaption></figure>'
    )


def block(figures: Sequence[str], total: int, note: str) -> str:
    more = f" The first {len(figures)} of {total} pictures are shown." if total > len(figures) else ""
    words = f'<p style="font-size:12px;opacity:.75;margin:0">{html.escape(note + more)}</p>'
    row = f'<div style="display:flex;flex-wrap:wrap">{"".join(figures)}</div>'
    return f'<div style="font-family:system-ui,sans-serif">{row}{words}</div>'
