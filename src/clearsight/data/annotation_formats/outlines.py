"""Shapes of annotation tools as what a Region holds: ellipses and turned boxes as polygons, a PNG as its pixels."""

from __future__ import annotations

import base64
import binascii
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearsight.data.annotation_formats.regions import Box, Polygon, Size
from clearsight.data.annotation_formats.sheets import by
from clearsight.data.images import MOST_PIXELS
from clearsight.errors import Refused

_HEAD = b"\x89PNG\r\n\x1a\n"
_MOST_CORNERS = 16384


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Polygon:
    """The ellipse as a polygon whose corners lie on its rim, turned clockwise about its centre; lengths in pixels.

    It has 5 corners for each pixel of the larger radius (at least 32).  A polygon of n corners in a circle of radius r
    leaves out what lies further from the centre than r cos(pi / n).  So of a circle whose centre and radius are whole
    numbers (up to 3,276) it holds every pixel's centre that the circle holds: the squares of two such distances differ
    by at least 1/2.  Raises Refused for radii that are not numbers above 0.

    >>> [(round(x), round(y)) for x, y in ellipse((5, 5), (4, 2))[::8]]
    [(9, 5), (5, 7), (1, 5), (5, 3)]
    """
    if not all(map(math.isfinite, (*centre, *radii, degrees))) or min(radii) <= 0:
        raise Refused(f"its radii are {radii[0]:g} and {radii[1]:g} pixels, not both above 0")
    n = 4 * math.ceil(min(max(1.25 * max(radii), 8.0), _MOST_CORNERS / 4))
    angles = 2 * np.pi * np.arange(n) / n
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    xs, ys = centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos
    return tuple(zip(xs.tolist(), ys.tolist(), strict=True))


def turned_box(corner: tuple[float, float], sides: tuple[float, float], degrees: float) -> Polygon:
    """A box turned clockwise about its upper left corner, which stays where it is; lengths in pixels.

    >>> [(round(x), round(y)) for x, y in turned_box((5, 1), (4, 2), 90)]
    [(5, 1), (5, 5), (3, 5), (3, 1)]
    """
    (x, y), (wide, high) = corner, sides
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, down = (wide * cos, wide * sin), (-high * sin, high * cos)
    far = (x + along[0] + down[0], y + along[1] + down[1])
    return ((x, y), (x + along[0], y + along[1]), far, (x + down[0], y + down[1]))


def spanned(a: tuple[float, float], b: tuple[float, float]) -> Box:
    """The box between two opposite corners, in any order."""
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))


def png_pixels(text: object, size: Size, alpha: bool = False) -> NDArray[np.bool_]:
    """bool (H, W) of a PNG of this size in base64, True where any channel is not 0, or only where alpha is not.

    Its size is read before any of it is decoded.  Raises Refused with the reason alone.
    """
    if not isinstance(text, str):
        raise Refused("it holds no PNG in base64")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("it holds no PNG in base64") from None
    if not data.startswith(_HEAD) or len(data) < 24:
        raise Refused("it holds no PNG in base64")
    png_size = (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    if png_size != size or size[0] * size[1] > MOST_PIXELS:
        raise Refused(f"its PNG has {by(png_size)} pixels, not {by(size)}")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            values = np.asarray(image.convert("RGBA").getchannel("A") if alpha else image)
    except Exception:  # a damaged file makes Pillow raise nearly anything
        raise Refused("its PNG is damaged") from None
    inside = np.asarray((values != 0).any(-1) if values.ndim == 3 else values != 0)
    if not inside.any():
        raise Refused("its PNG marks no pixel")
    return inside
