"""Boxes, grids and words drawn on a photo."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw

from clearsight.demos.region_detectors import Found
from clearsight.drawing.box_picture import line
from clearsight.drawing.charts import kind
from clearsight.drawing.heatmaps import truetype_font

WIDE = 900  # pixels of a drawn photo
FAINT = 150  # opacity of many lines, of 255
FONT = 28  # pixels of words, which a narrow screen shows at a third
Box = Sequence[float]


class Sheet:
    """A photo enlarged to one width, pale where asked for, on which boxes in its own pixels are drawn."""

    def __init__(self, values: Any, pale: float = 0.0) -> None:
        photo = Image.fromarray(values)
        self.factor = WIDE / photo.width
        size = (WIDE, round(photo.height * self.factor))
        self.image = photo.resize(size, Image.Resampling.LANCZOS)
        if pale:
            self.image = Image.blend(self.image, Image.new("RGB", size, "white"), pale)
        self.pen = ImageDraw.Draw(self.image, "RGBA")

    def box(self, box: Box, colour: str, width: int = 3, opacity: int = 255, halo: bool = True) -> None:
        """An outline; with a white halo it shows on any ground."""
        edges = [v * self.factor for v in box]
        edges = [
            min(max(v, 1), limit - 2) for v, limit in zip(edges, (*self.image.size, *self.image.size), strict=True)
        ]
        edges[2:] = [max(far, near) for near, far in zip(edges[:2], edges[2:], strict=True)]
        if halo:
            around = [edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1]
            self.pen.rectangle(around, outline=(255, 255, 255, opacity), width=width + 2)
        self.pen.rectangle(edges, outline=(*rgb(colour), opacity), width=width)

    def word(self, box: Box, words: str, colour: str) -> None:
        """Words in the upper left corner of a box, inside it."""
        font = truetype_font(FONT, bold=True)
        wide = font.getlength(words) + 14
        left = min(max(box[0] * self.factor, 0), self.image.width - wide)
        high = FONT + 10
        top = min(max(box[1] * self.factor, 0), self.image.height - high)
        self.pen.rectangle([left, top, left + wide, top + high - 1], fill=(*rgb(colour), 255))
        self.pen.text((left + 7, top + high / 2), words, fill="white", font=font, anchor="lm")

    def grid(self, box: Box, columns: float, rows: float, colour: str, opacity: int, width: int = 1) -> None:
        """Lines that divide a box into so many columns and rows."""
        left, top, right, low = (v * self.factor for v in box)
        shade = (*rgb(colour), opacity)
        for k in range(int(columns) + 1):
            x = left + (right - left) * k / columns
            self.pen.line([(x, top), (x, low)], fill=shade, width=width)
        for k in range(int(rows) + 1):
            y = top + (low - top) * k / rows
            self.pen.line([(left, y), (right, y)], fill=shade, width=width)


def rgb(colour: str) -> tuple[int, int, int]:
    """
    >>> rgb("#2b83b5")
    (43, 131, 181)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)


def many_boxes(values: Any, boxes: Sequence[Box], groups: Sequence[int], strong: Sequence[int] = ()) -> Image.Image:
    """All boxes as thin lines in the colours of their groups, and some of them strong, which are drawn last."""
    sheet = Sheet(values, pale=0.45)
    for box, group in zip(boxes, groups, strict=True):
        sheet.box(box, kind(group)[0], 2, FAINT, halo=False)
    for k in strong:
        sheet.box(boxes[k], kind(groups[k])[0], 5)
    return sheet.image


def found_boxes(values: Any, found: Sequence[Found]) -> Image.Image:
    """The boxes that were found, each with its class and probability; the surest is drawn last, over the others."""
    sheet = Sheet(values)
    colours = [kind(k)[0] for k in range(len(found))]
    for one, colour in reversed(list(zip(found, colours, strict=True))):
        sheet.box(one.box, colour, 5)
    for one, colour in reversed(list(zip(found, colours, strict=True))):
        sheet.word(one.box, f"{one.label} {100 * one.probability:.0f} %", colour)
    return sheet.image


def pooled_region(values: Any, cells: tuple[int, int], box: Box, bins: int) -> Image.Image:
    """The grid of the map over the photo, cells (columns, rows), and in a box the parts of which each gives a value."""
    sheet = Sheet(values, pale=0.3)
    high, wide = values.shape[:2]
    sheet.grid((0, 0, wide, high), *cells, "#1b1e21", 70)
    sheet.grid(box, bins, bins, kind(0)[0], 255, 2)
    sheet.box(box, kind(0)[0], 5)
    return sheet.image


def suppression(boxes: Sequence[Box], scores: Sequence[float], kept: Sequence[int]) -> Image.Image:
    """Boxes of a worked example on white paper: those that stay in colour, those that go dashed in grey."""
    image = Image.new("RGB", (WIDE, 420), "white")
    pen = ImageDraw.Draw(image)
    across = max(b[2] for b in boxes)
    unit = min((WIDE - 80) / across, 340 / max(b[3] for b in boxes))
    font = truetype_font(FONT, bold=True)
    for k, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        left, top, right, low = (40 + v * unit for v in box)
        colour = kind(0)[0] if k in kept else "#76808c"
        if k in kept:
            pen.rectangle([left, top, right, low], outline=colour, width=5)
        else:
            _dashed(pen, (left, top, right, low), colour)
        words = f"{'ABCDEFGH'[k]}  {score:g}"
        at, anchor = ((left + 44, low - 14), "ld") if k in kept else ((right, low + 12), "rt")  # below its own box
        pen.text(at, words, fill=colour, font=font, anchor=anchor, stroke_width=5, stroke_fill="white")
    return image


def _dashed(pen: ImageDraw.ImageDraw, box: Box, colour: str) -> None:
    left, top, right, low = box
    corners = [(left, top), (right, top), (right, low), (left, low), (left, top)]
    for start, end in pairwise(corners):
        line(pen, start, end, colour, 3, dashed=True)
