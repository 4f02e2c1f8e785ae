"""Boxes drawn on a picture in groups, and what each group is, below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw
from torch import Tensor

from clearsight.drawing.heatmaps import photo, truetype_font

BLUE, ORANGE, PURPLE, GREEN = "#2b83b5", "#d0750c", "#9d3f86", "#1a9274"  # told apart by the colour-blind
GREY = "#4a5560"
LONG_SIDE = 480  # pixels of a drawn picture, about twice what a gallery shows
_TEXT, _LINE, _DASH, _GAP = 20, 3, 9, 8
Point = tuple[float, float]
_MOST_WORDS = 12  # labels on a picture; more would hide it


@dataclass(frozen=True, eq=False)
class BoxGroup:
    """Boxes that are drawn alike.

    name: what they are, in the legend.  boxes: (M, 4), x1, y1, x2, y2 in pixels of the picture.  words: what stands at
    each of them, or none.
    """

    name: str
    boxes: Tensor
    colour: str
    dashed: bool = False
    words: Sequence[str] = ()


def box_picture(x: Tensor, groups: Sequence[BoxGroup], *, counts: bool = True) -> Image.Image:
    """A picture x (C, H, W) in [0, 1] with boxes in the colours of their groups, above a legend of all the groups.

    A white edge around each line shows on any ground; dashes tell groups apart where colours do not.  counts: whether
    the legend says how many boxes each group has.
    """
    entries = [(f"{g.name}: {len(g.boxes)}" if counts else g.name, g.colour, g.dashed) for g in groups]
    return with_legend(_drawn(x, groups), entries)


def before_and_after(
    x: Tensor, before: Sequence[BoxGroup], after: Sequence[BoxGroup], entries: Sequence[tuple[str, str, bool]]
) -> Image.Image:
    """A picture x (C, H, W) in [0, 1] with the boxes before, below it with those after, above one legend of both.

    entries: of the legend, as `with_legend` takes them.
    """
    first, second = _drawn(x, before), _drawn(x, after)
    paper = Image.new("RGB", (first.width, 2 * first.height + _GAP), "white")
    paper.paste(first, (0, 0))
    paper.paste(second, (0, first.height + _GAP))
    return with_legend(paper, entries)


def _drawn(x: Tensor, groups: Sequence[BoxGroup]) -> Image.Image:
    """The picture, enlarged, with the boxes and without a legend."""
    image, scale = _large(x)
    pen = ImageDraw.Draw(image)
    labelled = sum(len(group.boxes) for group in groups if group.words) <= _MOST_WORDS
    for group in groups:
        for box in group.boxes.tolist():
            _rectangle(pen, [scale * v for v in box], group.colour, group.dashed)
    for group in groups if labelled else ():
        for box, word in zip(group.boxes.tolist(), group.words, strict=False):
            _label(pen, (scale * box[0], scale * box[1]), word, group.colour, image.width)
    return image


def with_legend(image: Image.Image, entries: Sequence[tuple[str, str, bool]]) -> Image.Image:
    """A picture above what its colours mean: (words, colour, whether the line is dashed) each."""
    font, pad, swatch = truetype_font(_TEXT), 8, 26
    rows: list[list[tuple[str, str, bool]]] = [[]]
    left = 0.0
    for entry in entries:
        wide = swatch + 8 + font.getlength(entry[0]) + 22
        if rows[-1] and left + wide > image.width:
            rows.append([])
            left = 0.0
        rows[-1].append(entry)
        left += wide
    high = _TEXT + 10
    out = Image.new("RGB", (image.width, image.height + pad + high * len(rows)), "white")
    out.paste(image, (0, 0))
    pen = ImageDraw.Draw(out)
    for n, row in enumerate(rows):
        left, middle = 4.0, image.height + pad + n * high + high // 2
        for words, colour, dashed in row:
            line(pen, (left, middle), (left + swatch, middle), colour, 5, dashed)
            pen.text((left + swatch + 8, middle), words, fill="#222222", font=font, anchor="lm")
            left += swatch + 8 + font.getlength(words) + 22
    return out


def cut_out(x: Tensor, box: Sequence[float], margin: float = 0.6) -> tuple[Tensor, tuple[int, int]]:
    """The square of a picture x (C, H, W) around a box, with a margin in shares of its longer side, and its corner.

    It is moved and cut so that it stays inside the picture.

    >>> import torch
    >>> part, corner = cut_out(torch.zeros(3, 40, 40), (10, 10, 20, 18), margin=0.5)
    >>> tuple(part.shape), corner
    ((3, 20, 20), (5, 4))
    """
    x1, y1, x2, y2 = box
    side = max(1, round((1 + 2 * margin) * max(x2 - x1, y2 - y1)))
    high, wide = min(side, x.shape[1]), min(side, x.shape[2])
    left = min(max(0, round((x1 + x2 - wide) / 2)), x.shape[2] - wide)
    top = min(max(0, round((y1 + y2 - high) / 2)), x.shape[1] - high)
    return x[:, top : top + high, left : left + wide], (left, top)


def outlined(image: Image.Image, boxes: Sequence[Sequence[float]], colour: str = ORANGE) -> Image.Image:
    """A copy of a picture with boxes in pixels of it: lines with a white edge, which show on any ground."""
    out = image.convert("RGB")
    pen = ImageDraw.Draw(out)
    for box in boxes:
        _rectangle(pen, box, colour, False)
    return out


def line(pen: ImageDraw.ImageDraw, start: Point, end: Point, colour: str, width: int, dashed: bool) -> None:
    """A line across or down from start to end, of one piece or of dashes."""
    if not dashed:
        pen.line([start, end], fill=colour, width=width)
        return
    length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    at = 0.0
    while at < length:
        part = [at / length, min(at + _DASH, length) / length]
        ends = [(start[0] + (end[0] - start[0]) * s, start[1] + (end[1] - start[1]) * s) for s in part]
        pen.line(ends, fill=colour, width=width)
        at += 2 * _DASH


def _large(x: Tensor) -> tuple[Image.Image, float]:
    """The picture enlarged so that its long side has about LONG_SIDE pixels, and by how much."""
    image = photo(x).convert("RGB")
    factor = LONG_SIDE / max(image.size)
    if factor > 1:
        small = max(x.shape[1:]) < LONG_SIDE / 4  # single pixels are to be seen
        how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        image = image.resize((round(image.width * factor), round(image.height * factor)), how)
    return image, image.width / x.shape[2]


def _rectangle(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: str, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    pen.line(corners, fill="white", width=_LINE + 2)
    for start, end in pairwise(corners):
        line(pen, start, end, colour, _LINE, dashed)


def _label(pen: ImageDraw.ImageDraw, corner: Point, word: str, colour: str, width: int) -> None:
    font = truetype_font(_TEXT - 4)
    wide, high = font.getlength(word) + 6, _TEXT
    left = max(0.0, min(corner[0], width - wide))
    top = corner[1] - high if corner[1] >= high else corner[1]
    pen.rectangle((left, top, left + wide, top + high), fill="white")
    pen.text((left + 3, top + high / 2), word, fill=colour, font=font, anchor="lm")
