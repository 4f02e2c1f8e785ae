"""A picture as the figure of a page."""

from __future__ import annotations

import re

from PIL import Image

from clearsight.drawing.heatmaps import png
from clearsight.reporting.findings import Figure


def figure(name: str, image: Image.Image, alt: str, caption: str = "") -> Figure:
    """A picture on a page; its file's name out of words."""
    return Figure(f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.png", png(image), caption, alt)
