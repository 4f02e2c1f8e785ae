"""A coloured text as a picture, for the evidence of a report: each character on its colour, marked ones underlined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clearsight.drawing.text import Run, colours

COLUMNS = 80  # characters of a line
SIZE, WIDTH, HEIGHT, MARGIN = 15, 9, 22, 8  # pixels: of the font, of a character's place, of the rim


@cache
def monospaced_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Mono in a size in pixels."""
    spec = find_spec("matplotlib")  # its data lie beside it
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def text_picture(pieces: Sequence[Run], *, grey: bool = False) -> Image.Image:
    """The runs of a text as lines of at most 80 characters."""
    places: list[tuple[int, int, str, Run]] = []
    line = column = 0
    for run in pieces:
        for character in run.text:
            if column == COLUMNS:
                line, column = line + 1, 0
            places.append((line, column, character, run))
            column += 1
        if run.ends_line:
            line, column = line + 1, 0
    last = max((place[0] for place in places), default=0)
    image = Image.new("RGB", (COLUMNS * WIDTH + 2 * MARGIN, (last + 1) * HEIGHT + 2 * MARGIN), "white")
    pen, font = ImageDraw.Draw(image), monospaced_font(SIZE)
    for line, column, character, run in places:
        left, top = MARGIN + column * WIDTH, MARGIN + line * HEIGHT
        background, foreground = colours(run.level, grey)
        if run.level:
            pen.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 4), fill=background)
        pen.text((left, top), character, fill=foreground, font=font)
        if run.marked:
            pen.rectangle((left, top + HEIGHT - 3, left + WIDTH - 1, top + HEIGHT - 2), fill="#111111")
    return image


def stacked(images: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    """Pictures of one width below each other, on nothing."""
    out = Image.new("RGBA", (max(i.width for i in images), sum(i.height for i in images) + gap * (len(images) - 1)))
    top = 0
    for image in images:
        out.paste(image, (0, top))
        top += image.height + gap
    return out
