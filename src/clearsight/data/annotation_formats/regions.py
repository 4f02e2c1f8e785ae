"""Where one object is, in the pixels of its picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Mask:
    """The pixels of an object, where an annotation holds them and no file of their own does; made by `mask_of`.

    size: (width, height).  runs: lengths of pixels outside, inside, outside, ... down the columns from the left, each
    an unsigned number of 4 bytes, the lowest first (COCO's order).  So a large mask takes little memory.
    """

    size: Size
    runs: bytes


def mask_of(pixels: NDArray[np.bool_]) -> Mask:
    """bool (H, W), True inside, as a Mask.

    >>> mask_of(np.array([[False, True], [True, True]]))
    Mask(size=(2, 2), runs=b'\\x01\\x00\\x00\\x00\\x03\\x00\\x00\\x00')
    """
    high, wide = pixels.shape
    flat = pixels.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=False))  # where inside and outside change
    return Mask((wide, high), np.diff(starts, prepend=0, append=flat.size).astype("<u4").tobytes())


def pixels_of(mask: Mask) -> NDArray[np.bool_]:
    """The Mask as bool (H, W), True inside.

    >>> pixels_of(mask_of(np.array([[False, True], [True, True]]))).tolist()
    [[False, True], [True, True]]
    """
    wide, high = mask.size
    runs = np.frombuffer(mask.runs, "<u4")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((high, wide), order="F")


@dataclass(frozen=True)
class Stated:
    """What an annotation says of an object beside where it is.

    area: in pixels, as written.  crowd: several objects of one class that are not told apart.  difficult: not to be
    counted for or against a model.
    """

    area: float | None = None
    crowd: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class Region:
    """Where one object is: its boxes, polygons and mask together.

    boxes: (x0, y0, x1, y1) with x0 < x1 and y0 < y1, inside the picture.  polygons: each its corners (x, y), filled by
    the even-odd rule, perhaps partly outside.  mask: pixels of the picture's size, or a file of them, not zero inside.
    label: what the object is, where the annotation says.  numbered: the label is only the number of a class whose name
    is not known.  stated: what else the annotation says of it.
    """

    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    mask: Path | Mask | None = None
    label: str | None = None
    numbered: bool = field(default=False, repr=False)
    stated: Stated = field(default=Stated(), repr=False, compare=False)
