"""LabelMe JSON: a file for each picture, as labelme 6.3.1 writes it.  The XML of the older LabelMe is in `labelme_xml`.

Coordinates go on from pixel to pixel, as labelme draws them on the picture: 2.0 is the left edge of pixel 2.  So a
rectangle from (2, 3) to (5, 7) holds the centres of 12 pixels.  (labelme's own `shape_to_mask` also paints the pixels
that the outline touches: 20 of them.)  The pixels of a `mask` are taken as they are.  A file's copy of the picture
(`imageData`) is not looked at: the user's own file is.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearsight.data.annotation_formats.outlines import ellipse, png_pixels, spanned
from clearsight.data.annotation_formats.regions import Box, Polygon, Region, Size, mask_of
from clearsight.data.annotation_formats.sheets import AnnotationSet, Sheet, clean, numbers, shown, size_of
from clearsight.data.images import MOST_PIXELS
from clearsight.errors import Refused

_NO_AREA = ("line", "linestrip", "point", "points")
_FOUR_CORNERS = ("oriented_rectangle", "rotation", "quadrilateral")  # the last two are X-AnyLabeling's


def recognises(data: object) -> bool:
    """Whether it has what labelme writes, well-formed or not."""
    return isinstance(data, dict) and "shapes" in data and not {"imagePath", "imageData", "version"}.isdisjoint(data)


def read(data: object, path: Path, name: str) -> AnnotationSet:
    """One entry: the picture is the one of imagePath, else the one that is called as the file is."""
    record = data if isinstance(data, dict) else {}
    names, written = [name], record.get("imagePath")
    if isinstance(written, str) and written.strip():
        below = posixpath.join(posixpath.dirname(name), written.strip().replace("\\", "/"))
        parts = [part for part in posixpath.normpath(below).split("/") if part != ".."]
        names.insert(0, clean("/".join(parts)))
    shapes, size = record.get("shapes"), (record.get("imageWidth"), record.get("imageHeight"))
    # imageData, which may be large, is not held on to
    return AnnotationSet("LabelMe", [(tuple(dict.fromkeys(names)), partial(_sheet, shapes, size, record.get("flags")))])


def _sheet(shapes: object, stated_size: tuple[object, object], flags: object) -> Sheet:
    """The shapes as objects: those of one label and one group_id, which is not null, are one."""
    size, remarks = size_of(*stated_size)
    remarks = (*remarks, *_flags("the picture", flags))
    bad = []
    if not isinstance(shapes, list):
        return Sheet(size=size, bad=("shapes is not a list",), remarks=remarks)
    objects: dict[object, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for number, shape in enumerate(shapes, 1):
        if not isinstance(shape, dict):
            bad.append(f"shape {number} is not a JSON object")
            continue
        group = shape.get("group_id")
        alone = group is None or isinstance(group, (list, dict))
        objects[number if alone else (str(shape.get("label")), group)].append((number, shape))
    regions, names = [], []
    for parts in objects.values():
        name = f"shape {' and '.join(str(number) for number, _ in parts)} ({shown(parts[0][1].get('label'))})"
        remarks = (*remarks, *(remark for _, shape in parts for remark in _flags(name, shape.get("flags"))))
        region, why = _region(parts, size)
        bad += why
        if region is not None:
            regions.append(region)
            names.append(name)
    return Sheet(tuple(regions), size, bad=tuple(bad), names=tuple(names), remarks=remarks)


def _flags(what: str, flags: object) -> list[str]:
    """A remark on each flag that is set, since flags are not read."""
    raised = [str(flag) for flag, on in flags.items() if on] if isinstance(flags, dict) else []
    return [f"the flag {shown(flag)} of {what} is not read" for flag in raised]


def _region(shapes: list[tuple[int, dict[str, Any]]], size: Size | None) -> tuple[Region | None, list[str]]:
    """The shapes of one object together, and why any cannot be read."""
    boxes: list[Box] = []
    polygons: list[Polygon] = []
    masks: list[NDArray[np.bool_]] = []
    bad = []
    label = shapes[0][1].get("label")
    for number, shape in shapes:
        try:
            _add_shape(shape, size, boxes, polygons, masks)
        except Refused as e:
            bad.append(f"shape {number} ({shown(label)}): {e}")
    if not boxes and not polygons and not masks:
        return None, bad
    mask = mask_of(np.logical_or.reduce(masks)) if masks else None
    return Region(tuple(boxes), tuple(polygons), mask, None if label is None else clean(str(label))), bad


def _add_shape(
    shape: dict[str, Any], size: Size | None, boxes: list[Box], polygons: list[Polygon], masks: list[NDArray[np.bool_]]
) -> None:
    """Put one shape where it belongs; Refused with the reason where it holds no area that can be read."""
    kind = shape.get("shape_type")
    kind = "polygon" if kind is None else kind  # what labelme 2 leaves out
    if kind in _NO_AREA:
        raise Refused(f"a {kind} has no area")
    corners = _corners(shape.get("points"))
    if kind == "mask":
        masks.append(_mask(corners, shape.get("mask"), size))
    elif kind == "circle" and len(corners) == 2:
        (x, y), (u, v) = corners
        radius = float(np.hypot(u - x, v - y))
        polygons.append(ellipse((x, y), (radius, radius)))
    elif kind == "rectangle" and len(corners) == 2:
        boxes.append(spanned(*corners))
    elif (kind == "polygon" and len(corners) > 2) or (kind in ("rectangle", *_FOUR_CORNERS) and len(corners) == 4):
        polygons.append(corners)
    elif kind in ("circle", "rectangle", "polygon", *_FOUR_CORNERS):
        raise Refused(f"a {kind} of {len(corners)} points")
    else:
        raise Refused(f"its type {shown(kind)} is not supported")


def _mask(corners: Polygon, png: object, size: Size | None) -> NDArray[np.bool_]:
    """bool (H, W) of the picture from the PNG of a part of it.  corners: its first and its last pixel."""
    if size is None or size[0] * size[1] > MOST_PIXELS:
        raise Refused("a mask, but imageWidth and imageHeight are missing")
    if len(corners) != 2 or not np.isfinite(corners).all():
        raise Refused("a mask whose points are not its first and its last pixel")
    (x0, y0), (x1, y1) = ((int(x), int(y)) for x, y in corners)
    if not (0 <= x0 <= x1 < size[0] and 0 <= y0 <= y1 < size[1]):
        raise Refused(f"a mask from ({x0}, {y0}) to ({x1}, {y1}), which sticks out of the picture")
    pixels = np.zeros(size[::-1], dtype=bool)
    pixels[y0 : y1 + 1, x0 : x1 + 1] = png_pixels(png, (x1 + 1 - x0, y1 + 1 - y0))
    return pixels


def _corners(value: object) -> Polygon:
    pairs = [numbers(point) if isinstance(point, (list, tuple)) else None for point in _list(value) or [None]]
    if not all(pair is not None and len(pair) == 2 for pair in pairs):
        raise Refused("its points are not pairs of numbers")
    return tuple((pair[0], pair[1]) for pair in pairs if pair)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
