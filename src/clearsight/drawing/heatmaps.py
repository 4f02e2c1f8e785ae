"""Maps -> pictures: the only place where a map is scaled.

One language everywhere: orange speaks for the class, purple against it, and the photo below is grey, so that colour
means nothing else.  Both are inks on a pale photo: the stronger, the darker, which holds in a grey print and for the
colour-blind too.  Zero is transparent; full ink is the 99.5th percentile of the map's absolute values, per picture.
A map that is no evidence, because it fails a test, is drawn in grey.
"""

from __future__ import annotations

import base64
import bisect
import io
import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clearsight.errors import Refused

FOR = ("#d95f02", "#943400")  # faint and full ink
AGAINST = ("#7a5fb5", "#3a0072")
GREY = ("#9c9c9c", "#3c3c3c")  # for and against alike
PERCENTILE = 99.5
SIDE = 224  # the short side of a picture is at least about this
LONGEST = 4096
BESIDE = 5  # methods stand beside a picture; further ones in the rows below
PALEST, OPAQUE = 0.6, 0.92  # black in the pale photo; opacity of full ink
PALER = 0.84  # black in the photo below a grey map, so that the map is told from it
SCALE_WORDS = f"Full ink is the {PERCENTILE}th percentile of the raw map's absolute values, in each picture by itself."
GREY_WORDS = "drawn in grey"  # in the caption of every grey map that stands by itself

_LEGEND_PAPER = 0.9
Pixels = npt.NDArray[np.float64]
Tile = tuple[Image.Image | None, str]  # a picture (or none) and its caption; the caption's first line is set bold


# Pictures -------------------------------------------------------------------------------------------------------------


def overlay(
    x: Tensor,
    heat: Tensor,
    *,
    signed: bool,
    region: Tensor | None = None,
    full: float | None = None,
    grey: bool = False,
) -> Image.Image:
    """A map over its picture: x (C, *S) in [0, 1], heat (*S) raw, region (*S) bool outlined.

    signed: purple where the map is negative; else only what speaks for the class is drawn.  full: the absolute value
    drawn with full ink, where several maps are to share a scale.  grey: without colours, so that for and against look
    alike.  A map of zeros leaves the plain pale photo.
    Sequences (C, L) are drawn as a line with bars below, clips (C, T, H, W) as a strip of frames.
    """
    if heat.shape != x.shape[1:]:
        raise Refused(f"a map {tuple(heat.shape)} does not fit a picture {tuple(x.shape)}")
    strength = strengths(heat, signed=signed, full=full)
    if x.dim() == 2:
        return _sequence(_array(x), strength, region, grey)
    x, strength, region = _frames(x), _flat(strength), None if region is None else _frames(region[None])[0]
    palest = PALER if grey else PALEST
    paper = palest + (1 - palest) * _grey(_array(x))
    return _outlined(_image(ink(paper, strength, grey)), region)


def photo(x: Tensor, region: Tensor | None = None) -> Image.Image:
    """The picture itself, x (C, *S) in [0, 1]; one channel is grey, three are RGB, any other number their mean."""
    if x.dim() == 2:
        return _sequence(_array(x), None, region)
    a = _array(_frames(x))
    a = a.transpose(1, 2, 0) if len(a) == 3 else np.repeat(_grey(a)[..., None], 3, 2)
    return _outlined(_image(a), None if region is None else _frames(region[None])[0])


def boxed(image: Image.Image, boxes: Tensor, sides: tuple[int, int]) -> Image.Image:
    """Boxes (M, 4), x1, y1, x2, y2 in pixels of a picture of these sides (H, W), as thin lines on its drawing."""
    image, (height, width) = image.copy(), sides
    scale = boxes.new_tensor([image.width / width, image.height / height] * 2)
    line, pen = max(1, round(min(image.size) / 240)), ImageDraw.Draw(image)
    for left, top, right, bottom in (boxes.float().cpu() * scale.cpu()).tolist():
        if right > left and bottom > top:
            pen.rectangle((left, top, right, bottom), outline=(30, 30, 30), width=3 * line)
            inner = (left + line, top + line, max(right, left + 2 * line) - line, max(bottom, top + 2 * line) - line)
            pen.rectangle(inner, outline=(255, 255, 255), width=line)
    return image


def magnified_difference(clean: Tensor, attacked: Tensor, times: float) -> Image.Image:
    """What an attack changed, (C, *S) each: mid-grey where nothing, ``times`` the difference above or below it."""
    return photo((0.5 + times * (attacked.detach().cpu() - clean.detach().cpu())).clamp(0, 1))


def strip(images: Sequence[Image.Image], gap: int = 8, *, down: bool = False) -> Image.Image:
    """Pictures side by side on nothing, for evidence in a report, where the words stand in the page.

    gap: pixels between them.  down: one below the other instead, for pictures that are too small in half a column.
    """
    between = gap * (len(images) - 1)
    wide, high = [i.width for i in images], [i.height for i in images]
    size = (max(wide), sum(high) + between) if down else (sum(wide) + between, max(high))
    out = Image.new("RGBA", size)
    at = 0
    for image in images:
        out.paste(image, (0, at) if down else (at, 0))
        at += (image.height if down else image.width) + gap
    return out


def full_ink(heat: Tensor) -> float:
    """The absolute value drawn with full ink; the largest one where nearly all others are zero."""
    values = heat.detach().cpu().double().abs().numpy()
    return float(np.percentile(values, PERCENTILE)) or float(values.max())


def strengths(heat: Tensor, *, signed: bool, full: float | None = None) -> Pixels:
    """How much ink each value of a raw map gets, in [-1, 1]: 1 at full ink for the class, -1 against it.

    signed: whether negative values count; full: the absolute value of full ink, by default `full_ink` of the map.
    Refused: values that are not finite.
    """
    if not bool(heat.isfinite().all()):
        raise Refused("the map holds values that are not finite")
    values = heat.detach().cpu().double().numpy()
    clipped: Pixels = np.clip(values / ((full_ink(heat) if full is None else full) or 1), -1 if signed else 0, 1)
    return clipped


def ink(paper: Pixels, strength: Pixels, grey: bool = False) -> Pixels:
    """paper (...) grey in [0, 1], strength (...) in [-1, 1] -> (..., 3) in [0, 1]; grey: for and against alike."""
    s = np.abs(strength)[..., None]
    pro, con = (GREY, GREY) if grey else (FOR, AGAINST)
    faint, full = (np.where(strength[..., None] < 0, _rgb(con[i]), _rgb(pro[i])) for i in (0, 1))
    inked: Pixels = (1 - OPAQUE * s) * paper[..., None] + OPAQUE * s * (faint + (full - faint) * s)
    return inked


def scale_colours(signed: bool, steps: int = 16, grey: bool = False) -> list[str]:
    """The scale's colours on pale paper, for a legend: from full ink against (where signed) to full ink for."""
    strength = np.linspace(-1 if signed else 0, 1, steps + 1)
    rows = (ink(np.full(len(strength), _LEGEND_PAPER), strength, grey) * 255).round().astype(int).tolist()
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rows]


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file, without metadata.  The last two levels take six times as long for a hundredth less."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=7)
    return out.getvalue()


def webp(data: bytes) -> bytes:
    """A PNG file as a WebP file that looks the same: lossy, of quality 90."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "WEBP", quality=90, method=4)
    return out.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _rgb(colour: str) -> Pixels:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _array(x: Tensor) -> Pixels:
    a: Pixels = x.detach().cpu().clamp(0, 1).double().numpy()
    return a


def _grey(a: Pixels) -> Pixels:
    """(C, ...) -> (...)."""
    weights = np.array([0.2126, 0.7152, 0.0722]) if len(a) == 3 else np.full(len(a), 1 / len(a))
    grey: Pixels = np.einsum("c,c...->...", weights, a)
    return grey


def _frames(x: Tensor) -> Tensor:
    """Pictures as they are; a clip (C, T, H, W) as at most six of its frames side by side."""
    if x.dim() == 3:
        return x
    if x.dim() != 4:
        raise Refused(f"inputs of shape {tuple(x.shape)} cannot be drawn: sequences, pictures and clips can")
    pick = torch.linspace(0, x.shape[1] - 1, min(6, x.shape[1])).round().long()
    return torch.cat(list(x[:, pick].unbind(1)), -1)


def _flat(strength: Pixels) -> Pixels:
    flat: Pixels = _frames(torch.from_numpy(strength)[None])[0].numpy()
    return flat


def _image(a: Pixels) -> Image.Image:
    """(H, W, 3) in [0, 1] -> a picture that is large enough to be seen."""
    return enlarged(Image.fromarray((a * 255).round().astype(np.uint8)), SIDE)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Enlarged by a whole factor, each pixel a square, until the short side has about so many pixels."""
    factor = max(1, min(math.ceil(0.9 * side / min(image.size)), LONGEST // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _outlined(image: Image.Image, region: Tensor | None) -> Image.Image:
    """A double line, white inside black, around the region: one of the two shows on any ground."""
    if region is None or not bool(region.any()):
        return image
    from scipy import ndimage  # which takes a quarter of a second, and most pictures have no region

    mask = Image.fromarray(region.detach().cpu().numpy().astype(np.uint8) * 255)
    inside = np.asarray(mask.resize(image.size, Image.Resampling.NEAREST)) > 0
    width = max(1, round(min(image.size) / 120))
    core = inside & ~ndimage.binary_erosion(inside, iterations=width)
    rim = inside & ~ndimage.binary_erosion(inside, iterations=2 * width) & ~core
    rim |= ndimage.binary_dilation(inside, iterations=width) & ~inside
    a = np.asarray(image).copy()
    a[rim] = 30
    a[core] = 255
    return Image.fromarray(a)


def _sequence(x: Pixels, strength: Pixels | None, region: Tensor | None, grey: bool = False) -> Image.Image:
    """x (C, L): one grey line per channel; below it a bar per step, up and orange for, down and purple against."""
    length = x.shape[1]
    step = max(1, min(math.ceil(2 * SIDE / length), LONGEST // length))
    width, height = step * length, SIDE
    low = 118 if strength is not None else height - 10  # where the line's zero lies
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    if region is not None:
        for i in region.nonzero()[:, 0].tolist():
            pen.rectangle((i * step, 0, i * step + step - 1, height), fill="#e4e4e4")
    for k, channel in enumerate(x):
        points = [(int((i + 0.5) * step), round(low - (low - 10) * v)) for i, v in enumerate(channel)]
        pen.line(points, fill=("#222222", "#777777", "#aaaaaa")[k % 3], width=2)
    if strength is not None:
        zero, tall = 172, 44
        colours = (ink(np.ones(length), strength, grey) * 255).round().astype(int)
        for i, s in enumerate(strength):
            top, bottom = sorted((zero, zero - round(tall * float(s))))
            if top != bottom:
                right = i * step + max(step - 2, 0) if step > 3 else i * step + step - 1
                pen.rectangle((i * step, top, right, bottom), fill=tuple(colours[i].tolist()))
        pen.line((0, zero, width, zero), fill="#777777")
    return image


# Sheets: pictures with captions -----------------------------------------------------------------------------------

_TEXT, _SMALL = 20, 18  # a sheet is drawn at twice the size at which it is looked at


@cache
def truetype_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, the font of all captions, in a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    spec = find_spec("matplotlib")  # its data lie beside it: importing it takes a quarter of a second
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 2) -> list[str]:
    """At most so many lines, each no wider than ``width`` pixels; what does not fit ends in an ellipsis."""
    text = "".join(c for c in " ".join(text.split()) if c.isprintable())
    lines: list[str] = []
    while text and len(lines) < most:
        last = len(lines) == most - 1
        if font.getlength(text) <= width:
            return [*lines, text]
        fits = _fits(text, font, width, "…" if last else "")
        if last:
            return [*lines, text[:fits].rstrip() + "…"]
        cut = max((i + 1 for i, c in enumerate(text[:fits]) if c in " ,/_-"), default=fits)
        cut = cut if cut > fits // 2 else fits
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return lines


def _fits(text: str, font: ImageFont.FreeTypeFont, width: int, end: str) -> int:
    """How many of its characters, at least one, are no wider than ``width`` together with an end."""

    def wide(n: int) -> int:
        return math.ceil(font.getlength(text[:n] + end))

    return max(1, bisect.bisect_right(range(1, len(text) + 1), width, key=wide))


def scale_bar(signed: bool, width: int = 520, *, grey: bool = False) -> Image.Image:
    """What the inks mean: from full ink against the class (where signed) over nothing to full ink for it.

    grey: of maps that fail a test; where signed, they show how strong, not which way.
    """
    pad, tall, font = 8, 22, truetype_font(_SMALL)
    image = Image.new("RGB", (width + 2 * pad, 56), "white")
    two = signed and not grey
    strength = np.tile(np.linspace(-1 if two else 0, 1, width), (tall, 1))
    bar = ink(np.full(strength.shape, _LEGEND_PAPER), strength, grey)
    image.paste(Image.fromarray((bar * 255).round().astype(np.uint8)), (pad, 0))
    pen = ImageDraw.Draw(image)
    pen.rectangle((pad, 0, pad + width - 1, tall), outline="#888888")
    words = [(pad, "against the class", "la"), (pad + width // 2, "0", "ma")] if two else [(pad, "0", "la")]
    if grey:
        words.append((pad + width // 2, "a map that fails a test", "ma"))
    most = "for or against" if signed and grey else "for the class"
    for at, word, anchor in [*words, (pad + width, most, "ra")]:
        pen.text((at, tall + 8), word, fill="#222222", font=font, anchor=anchor)
    return image


def sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    title: str = "",
    signed: bool | None = None,
    grey: bool | None = None,
    note: str = "",
) -> Image.Image:
    """Rows of (picture, caption) as one picture with a title, scale bars and a note.

    signed: which scale bar; None for none; grey: likewise, of the maps in grey.  Captions are wrapped to their picture
    and cut with an ellipsis after two lines for each of theirs.  A tile without a picture leaves its place empty.
    """
    if not rows or not any(image for row in rows for image, _ in row):
        raise Refused("a sheet needs at least one picture")
    margin, gap, line = 40, 28, _TEXT + 8
    grid = [[(image and enlarged(image, 2 * SIDE), caption) for image, caption in row] for row in rows]
    columns = max(map(len, grid))
    wide = [max([2 * SIDE, *(r[c][0].width for r in grid if c < len(r) and r[c][0])]) for c in range(columns)]  # type: ignore[union-attr]
    width = 2 * margin + sum(wide) + gap * (columns - 1)
    words = [[_caption(caption, wide[c]) for c, (_, caption) in enumerate(row)] for row in grid]
    high = [max([0, *(image.height for image, _ in row if image)]) for row in grid]
    deep = [line * max(map(len, row)) + 12 for row in words]
    heading = wrapped(title, truetype_font(30, True), width - 2 * margin)
    bars = [scale_bar(sign, grey=is_grey) for sign, is_grey in ((signed, False), (grey, True)) if sign is not None]
    room = width - 2 * margin - (580 if bars and width > 1100 else 0)
    notes = wrapped(note, truetype_font(_SMALL), room, most=6)
    beside, tall = room < width - 2 * margin, 64 * len(bars)
    foot = max(tall, 26 * len(notes)) if beside else tall + 26 * len(notes)
    top = margin + 44 * len(heading)
    image = Image.new("RGB", (width, top + sum(high) + sum(deep) + gap * len(grid) + foot + margin), "white")
    pen = ImageDraw.Draw(image)
    for i, text in enumerate(heading):
        pen.text((margin, margin + 44 * i - 10), text, fill="black", font=truetype_font(30, True))
    y = top
    for row, texts, height, depth in zip(grid, words, high, deep, strict=True):
        left = margin
        for c, ((picture, _), lines) in enumerate(zip(row, texts, strict=True)):
            if picture:
                image.paste(picture, (left, y))
            for i, (text, bold) in enumerate(lines):
                pen.text((left, y + height + 10 + line * i), text, fill="#111111", font=truetype_font(_TEXT, bold))
            left += wide[c] + gap
        y += height + depth + gap
    for i, bar in enumerate(bars):
        image.paste(bar, (margin - 8, y + 64 * i))
    for i, text in enumerate(notes):
        at = (margin + 580 if beside else margin, y + 26 * i + (0 if beside else tall))
        pen.text(at, text, fill="#444444", font=truetype_font(_SMALL))
    return image


def _caption(caption: str, width: int) -> list[tuple[str, bool]]:
    """(line, is it bold) of a caption, wrapped to a width."""
    return [
        (w, i == 0)
        for i, part in enumerate(caption.split("\n"))
        for w in wrapped(part, truetype_font(_TEXT, i == 0), width)
    ]
