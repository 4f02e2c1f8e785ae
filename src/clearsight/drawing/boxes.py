"""Boxes with their words drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from clearsight.drawing.heatmaps import truetype_font

_DARK, _LIGHT = (30, 30, 30), (255, 255, 255)
_FONT = 13
_Place = tuple[int, ...]  # x1, y1, x2, y2 in pixels of the image
_DASH = 6  # pixels of a dash, and of the gap after it


@dataclass(frozen=True)
class DrawnBox:
    """A box x1, y1, x2, y2 in pixels of the picture, and what stands at its corner.  dashed: it stands for a gap."""

    sides: tuple[float, float, float, float]
    words: str
    dashed: bool = False


def boxed(image: Image.Image, boxes: Sequence[DrawnBox], width: float) -> Image.Image:
    """The image with the boxes in it: white lines inside dark ones, so that they show on any ground.

    Words for which there is no room beside others are left out.

    Args:
        image: the picture, enlarged or not.
        boxes: the boxes, of which the first lie on top.
        width: number of pixels that the boxes' picture is wide.
    """
    out = image.convert("RGB")
    draw, scale, font = ImageDraw.Draw(out), image.width / width, truetype_font(_FONT)
    for box in reversed(boxes):
        x1, y1, x2, y2 = (round(v * scale) for v in box.sides)
        for inset, colour in ((0, _DARK), (1, _LIGHT), (2, _LIGHT), (3, _DARK)):
            corners = (x1 + inset, y1 + inset, x2 - 1 - inset, y2 - 1 - inset)
            if corners[0] < corners[2] and corners[1] < corners[3]:
                _outline(draw, corners, colour, dashed=box.dashed)
    taken: list[_Place] = []
    for box in boxes:  # words after all lines
        left, top, right, bottom = draw.textbbox((0, 0), box.words, font=font)
        size = int(right - left) + 6, int(bottom - top) + 6
        place = _free(tuple(round(v * scale) for v in box.sides), size, out.size, taken)
        if box.words and place is not None:
            taken.append(place)
            draw.rectangle(place, fill=_DARK)
            draw.text((place[0] + 3 - left, place[1] + 3 - top), box.words, fill=_LIGHT, font=font)
    return out


def _free(sides: _Place, size: tuple[int, int], image: tuple[int, int], taken: Sequence[_Place]) -> _Place | None:
    """A place for words of a size: above the box, below it or inside, where no others stand; None where there is none.

    >>> box, size, above = (10, 20, 50, 60), (30, 12), (0, 0, 99, 19)
    >>> _free(box, size, (100, 100), []), _free(box, size, (100, 100), [above])
    ((10, 8, 40, 20), (10, 60, 40, 72))
    """
    (x1, y1, _, y2), (wide, high) = sides, size
    x = max(0, min(x1, image[0] - wide))
    for y in (y1 - high, y2, y1, y2 - high):
        place = (x, y, x + wide, y + high)
        inside = y >= 0 and y + high <= image[1]
        if inside and not any(place[0] < o[2] and o[0] < place[2] and y < o[3] and o[1] < y + high for o in taken):
            return place
    return None


def _outline(
    draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], colour: tuple[int, int, int], *, dashed: bool
) -> None:
    x1, y1, x2, y2 = corners
    if not dashed:
        draw.rectangle(corners, outline=colour)
        return
    for start in range(x1, x2 + 1, 2 * _DASH):
        end = min(start + _DASH, x2)
        draw.line((start, y1, end, y1), fill=colour)
        draw.line((start, y2, end, y2), fill=colour)
    for start in range(y1, y2 + 1, 2 * _DASH):
        end = min(start + _DASH, y2)
        draw.line((x1, start, x1, end), fill=colour)
        draw.line((x2, start, x2, end), fill=colour)
