"""Label Studio: one value of a result as a region of the picture.

x, y, width, height, the radii and the points are per cent of the picture's width and height.  A box is turned clockwise
about its upper left corner (x, y), an ellipse about its centre (x, y), both in pixels: label-studio-sdk 2.1.2 turns
boxes so for YOLO OBB, and Label Studio's front end draws both so (read in its source).
"""

from __future__ import annotations

import json
import math
from typing import Any

from clearsight.data.annotation_formats.brush_rle import decode
from clearsight.data.annotation_formats.outlines import ellipse, png_pixels, turned_box
from clearsight.data.annotation_formats.regions import Region, Size, mask_of
from clearsight.data.annotation_formats.sheets import numbers
from clearsight.errors import Refused

# a value with all keys of one of these has an area; a keypoint has no height
_AREAS = (("rle",), ("imageDataURL",), ("points",), ("x", "y", "radiusX", "radiusY"), ("x", "y", "width", "height"))
_GEOMETRY = frozenset(("rle", "imageDataURL", "points", "x", "y", "radiusX", "radiusY", "width", "height", "rotation"))
_WHOLE = ("choices", "taxonomy", "textarea", "text", "rating", "number", "datetime", "pairwise", "ranker")
_OTHERS = {
    "keypoint": "a point has no area",
    "vector": "a path of vertices is not supported",
    "video": "it annotates a video",
    "timeseries": "it annotates a time series",
    "paragraph": "it annotates a text",
    "hypertext": "it annotates a text",
    "relation": "it relates two regions and has no area",
}


def has_area(value: dict[str, Any]) -> bool:
    """Whether the value is of a kind that covers pixels."""
    return any(all(key in value for key in keys) for keys in _AREAS)


def mark(value: dict[str, Any]) -> object:
    """A key that two values have in common exactly where their areas are the same."""
    area = {key: value[key] for key in sorted(_GEOMETRY & value.keys())}
    if isinstance(rle := area.get("rle"), list) and all(type(n) is int for n in rle):
        area["rle"] = hash(tuple(rle))  # many times as fast as its text
    return json.dumps(area)


def why_none(kind: str, value: dict[str, Any]) -> str:
    """Why a value covers no pixels."""
    if kind.startswith(_WHOLE):
        return "it describes the whole picture, not a part of it"
    if "start" in value or "end" in value:
        return "it annotates a text or a sound"
    if "x" in value and "y" in value and "sequence" not in value:
        return _OTHERS["keypoint"] if kind.startswith("keypoint") else "its value is a point, or lacks its sides"
    return next((why for start, why in _OTHERS.items() if kind.startswith(start)), "its kind of area is not supported")


def region(value: dict[str, Any], size: Size | None, label: str | None) -> Region:
    """The value as a region: in pixels, or in fractions where the picture's size is not stated.

    Raises Refused with the reason alone.
    """
    if "rle" in value:
        pixels = decode(value["rle"], _require_size(size))
        if not pixels.any():
            raise Refused("its rle marks no pixel")
        return Region(mask=mask_of(pixels), label=label)
    if "imageDataURL" in value:  # black where inside, clear where not
        url = value["imageDataURL"]
        text = url.rpartition(",")[2] if isinstance(url, str) else url
        return Region(mask=mask_of(png_pixels(text, _require_size(size), alpha=True)), label=label)
    wide, high = size or (1, 1)
    if "points" in value:
        if value.get("closed") is False:
            raise Refused("a polygon that is not closed has no area")
        pairs = [numbers(p) if isinstance(p, list) else None for p in _list(value["points"])]
        if len(pairs) < 3 or not all(pair is not None and len(pair) == 2 for pair in pairs):
            raise Refused("its points are not 3 or more pairs of numbers")
        return Region(polygons=(tuple((p[0] / 100 * wide, p[1] / 100 * high) for p in pairs if p),), label=label)
    sides = ("radiusX", "radiusY") if "radiusX" in value else ("width", "height")
    turn = value.get("rotation")
    values = numbers([value.get(key) for key in ("x", "y", *sides)] + [0 if turn is None else turn])
    if values is None:
        raise Refused(f"x, y, {sides[0]}, {sides[1]} or rotation is not a number")
    x, y, a, b = (n / 100 * side for n, side in zip(values, (wide, high, wide, high), strict=False))
    if "radiusX" in value:
        _require_size(size)
        return Region(polygons=(ellipse((x, y), (a, b), values[4]),), label=label)
    if values[4] % 360 == 0:
        right, bottom = (values[0] + values[2]) / 100 * wide, (values[1] + values[3]) / 100 * high
        return Region(((x, y, right, bottom),), label=label)
    if not math.isfinite(values[4]):
        raise Refused("its rotation is not a number")
    if _require_size(size) and min(a, b) <= 0:
        raise Refused(f"a box of {a:g} x {b:g} pixels has no area")
    return Region(polygons=(turned_box((x, y), (a, b), values[4]),), label=label)


def _require_size(size: Size | None) -> Size:
    if size is None:
        raise Refused("original_width and original_height are missing, which its kind needs")
    return size


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
