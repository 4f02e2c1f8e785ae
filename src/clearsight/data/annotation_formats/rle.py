"""COCO's run lengths: pixels outside, inside, outside, ... down the columns; a list of numbers, or a text of them.

The text is read by pycocotools (Lin & Dollár, BSD licence), the reader that COCO maintains.  Its C code believes what
it is given, so the text is checked here before.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as cocomask

from clearsight.data.annotation_formats.regions import Mask, Size, mask_of
from clearsight.data.annotation_formats.sheets import shown, whole
from clearsight.data.images import MOST_PIXELS
from clearsight.errors import Refused

UNFILLED = "RLE counts that do not fill its size"


def mask_of_rle(counts: object, size: object) -> Mask:
    """The mask of an RLE.  counts: list of whole numbers, or COCO's text.  size: [height, width].

    Refused, with the reason alone, for an invalid RLE, one that does not fill its size, and one that marks no pixel.

    >>> mask_of_rle([1, 3], [2, 2]) == mask_of_rle("13", [2, 2])
    True
    """
    wide, high = _size(size)
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        runs = lengths(counts, wide * high)
        if sum(runs[1::2]):
            return mask_of(_decoded(counts, wide, high))
    elif isinstance(counts, list):
        parsed = [whole(n) for n in counts]
        runs = [n for n in parsed if n is not None and n >= 0]
        if len(runs) < len(parsed):
            raise Refused("RLE counts that are not all whole numbers of at least 0")
        if sum(runs) != wide * high:
            raise Refused(UNFILLED)
        if sum(runs[1::2]):
            return Mask((wide, high), np.array(runs, "<u4").tobytes())
    else:
        raise Refused(f"RLE counts that are neither a list nor text: {shown(counts)}")
    raise Refused("an RLE that marks no pixel")


def _decoded(counts: str, wide: int, high: int) -> NDArray[np.bool_]:
    """bool (H, W) of a text that `lengths` has checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 and the `copy` of NumPy 2
        return np.asarray(cocomask.decode({"size": [high, wide], "counts": counts.encode("ascii")})).astype(bool)


def _size(size: object) -> Size:
    sides = [whole(n) for n in size] if isinstance(size, list | tuple) else []
    good = [n for n in sides if n is not None and n > 0]
    if len(sides) != 2 or len(good) != 2:
        raise Refused(f"an RLE whose size is not [height, width]: {shown(size)}")
    if good[0] * good[1] > MOST_PIXELS:
        raise Refused(f"an RLE of more than {MOST_PIXELS / 1e6:.0f} million pixels")
    return good[1], good[0]


def lengths(text: str, pixels: int) -> list[int]:
    """The run lengths in COCO's text.

    A character holds 5 bits of a number from "0" on, the lowest first, and 32 more where another follows; the highest
    bit of the last one is the sign; from the fourth number on it is the difference to the number two before
    (pycocotools 2.0.11, maskApi.c).  Refused where the lengths are below 0 or do not add up to the pixels.

    >>> lengths("13", 4)
    [1, 3]
    """
    runs: list[int] = []
    remaining, value, shift = pixels, 0, 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64:
            raise Refused(f"RLE counts with the character {character!r}, which an RLE does not use")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            if shift > 40:
                raise Refused("RLE counts with a number that is too large")
            continue
        value -= (bits & 16) and 1 << shift
        value += runs[-2] if len(runs) > 2 else 0
        remaining -= value
        if value < 0 or remaining < 0:
            raise Refused(UNFILLED)
        runs.append(value)
        value, shift = 0, 0
    if shift or remaining:
        raise Refused("RLE counts that end in the middle of a number" if shift else UNFILLED)
    return runs
