"""Pascal VOC: an XML for each picture.  Everingham & Winn 2012, the development kit of the VOC challenge.

The development kit counts pixels from 1, and a box holds its last ones: 1 to 1 is the first pixel.  Most tools of today
write the same elements counted from 0, the last pixel left out: 0 to 1.  No file says which, so the whole set decides.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clearsight.data.annotation_formats.regions import Box, Polygon, Region, Size, Stated
from clearsight.data.annotation_formats.sheets import AnnotationSet, Entry, Sheet, named, number, points, shown, size_of
from clearsight.errors import Refused

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_WITHOUT_PLACE = ("part", "attributes", "actions", "point")  # parts lie within their object, a point has no area


@dataclass(frozen=True)
class _Object:
    """An object as it is written.  corners: its numbers, for `base_of`.  region: what it is, given the base."""

    name: str
    corners: tuple[float, ...]
    region: Callable[[int], Region]
    remarks: tuple[str, ...] = ()
    difficult: bool = False


@dataclass(frozen=True)
class _File:
    """A file as it is written.  written: the name of the picture in it.  corners: all that are numbers."""

    name: str
    written: str = ""
    objects: tuple[_Object, ...] = ()
    size: Size | None = None
    bad: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def corners(self) -> list[float]:
        return [n for o in self.objects for n in o.corners if math.isfinite(n)]


def read(names: dict[Path, str], base: int | None = None) -> AnnotationSet:
    """An entry for each file.  names: file -> its name below the folder, without suffix.

    base: the number of the first pixel, 0 or 1; where it is None the set decides, and a note says how.
    """
    files = [_read_file(path, name) for path, name in names.items()]
    notes: tuple[str, ...] = ()
    if base is None:
        base, notes = _choose_base(files)
    entries: list[Entry] = [((f.name, f.written) if f.written else (f.name,), partial(_sheet, f, base)) for f in files]
    return AnnotationSet("Pascal VOC", entries, notes=notes)


def _choose_base(files: Sequence[_File]) -> tuple[int, tuple[str, ...]]:
    """The number of the first pixel in a set, 0 or 1, and a note on why.

    A corner below 1 is possible only from 0.  Fractions are written by tools that count from 0, but VOC 2012 has some
    in a few files while it counts from 1: there more files have whole numbers that begin at 1.  Whole numbers of which
    none is 0 and one is the picture's width or height count from 1.  A set without any such sign counts from 1, as in
    the development kit.
    """
    files = [f for f in files if f.corners]
    if not files:
        return 1, ()
    from_zero = [f for f in files if min(f.corners) < 1]
    fractional = [f for f in files if f not in from_zero and not all(n.is_integer() for n in f.corners)]
    others = [f for f in files if f not in from_zero and f not in fractional]
    from_one = [f.name for f in others if min(f.corners) == 1]
    ends = [f.name for f in others if f.size and any(_touches_end(o.corners, f.size) for o in f.objects)]
    if from_zero or len(fractional) > len(from_one):
        reason = f"a corner below 1 in {_names(from_zero)}" if from_zero else f"fractions in {_names(fractional)}"
        if from_one:
            reason += f"; but {named(from_one)} may count from 1, and would then lie a pixel off"
        return 0, (f"Pascal VOC taken as counted from 0: {reason} (voc_base=1, --voc-base 1 takes it from 1)",)
    if fractional:
        reason = (
            f"more files have whole numbers that begin at 1 ({named(from_one)}) than fractions ({_names(fractional)})"
        )
    elif ends:
        reason = f"whole numbers, none 0, and boxes that end with the picture in {named(ends)}"
        reason += "; files of labelImg look the same, but count from 0"
    else:
        reason = "no corner shows how it counts, and VOC's development kit counts from 1"
    return 1, (f"Pascal VOC taken as counted from 1: {reason} (voc_base=0, --voc-base 0 takes it from 0)",)


def _names(files: Sequence[_File]) -> str:
    return named([f.name for f in files])


def _touches_end(corners: Sequence[float], size: Size) -> bool:
    return size[0] in corners[::2] or size[1] in corners[1::2]


def _sheet(file: _File, base: int) -> Sheet:
    regions = tuple(
        replace(o.region(base), stated=Stated(difficult=True)) if o.difficult else o.region(base) for o in file.objects
    )
    return Sheet(regions, file.size, False, file.bad, tuple(o.name for o in file.objects), file.remarks)


def _read_file(path: Path, name: str) -> _File:
    try:
        root = ET.fromstring(path.read_bytes())
    except (ET.ParseError, ValueError, LookupError) as e:
        return _File(name, bad=(f"{path.name} is not XML: {e}",))
    if root.tag == "annotations" and root.find("image") is not None:
        cvat = "CVAT for images, which is not read: export the task from CVAT as COCO 1.0 or PASCAL VOC 1.1"
        return _File(name, bad=(f"{path.name} is {cvat}",))
    if root.tag != "annotation":
        return _File(name, bad=(f"{path.name} is not Pascal VOC: its root is {shown(root.tag)}, not annotation",))
    size, size_remarks = size_of(_text(root, "size/width"), _text(root, "size/height"))
    objects, bad, remarks = [], [], [*size_remarks]
    for at, thing in enumerate(root.iter("object"), 1):
        label = _text(thing, "name")
        title = f"object {at}" + (f" ({shown(label)})" if label else "")
        try:
            difficult = (_text(thing, "difficult") or "0") not in ("0", "false", "no")
            objects.append(replace(_read_object(thing, title, label), difficult=difficult))
        except Refused as e:
            bad.append(f"{title}: {e}")
            continue
        remarks += [f"{title}: {remark}" for remark in (*objects[-1].remarks, *([] if label else ["it has no name"]))]
    return _File(name, _text(root, "filename") or "", tuple(objects), size, tuple(bad), tuple(remarks))


def _read_object(thing: ET.Element, title: str, label: str | None) -> _Object:
    """Read an object.  Refused, with the reason: one without a place, and one that is marked as deleted."""
    if (_text(thing, "deleted") or "0") not in ("0", "false", "no"):
        raise Refused("it is marked as deleted")
    remarks = tuple(
        f"its <{child.tag}> is not read"
        for child in thing
        if len(child) and child.tag not in ("bndbox", "robndbox", "polygon", *_WITHOUT_PLACE)
    )
    if (turned := _only(thing, "robndbox")) is not None:
        x, y, w, h, angle = _numbers(turned, ("cx", "cy", "w", "h", "angle"))
        polygon = _turned((x - w / 2, y - h / 2, x + w / 2, y + h / 2), angle)
        return _Object(title, (), lambda _: Region(polygons=(polygon,), label=label), remarks)
    drawn = _only(thing, "polygon")
    if drawn is not None and len(drawn):
        corners = _points(drawn)
        return _Object(title, corners, partial(_polygon, corners, label), remarks)
    box = _only(thing, "bndbox")
    if box is None:
        raise Refused("it has neither bndbox, robndbox nor polygon")
    place = _numbers(box, _CORNERS)
    return _Object(title, place, partial(_box, place, _rotation(thing), label), remarks)


def _box(place: Sequence[float], rotation: float, label: str | None, base: int) -> Region:
    """A box counted from 1 holds its last pixel, so only its first corner moves."""
    box = (place[0] - base, place[1] - base, place[2], place[3])
    return Region(polygons=(_turned(box, rotation),), label=label) if rotation else Region((box,), label=label)


def _polygon(flat: Sequence[float], label: str | None, base: int) -> Region:
    """Corners counted from 1 are pixels, so they lie at their centres."""
    return Region(polygons=(points([n - base / 2 for n in flat]),), label=label)


def _turned(box: Box, angle: float) -> Polygon:
    """A box turned about its centre by an angle in radians, clockwise as the picture is seen."""
    x, y, cos, sin = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, math.cos(angle), math.sin(angle)
    corners = ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]))
    return tuple((x + cos * (u - x) - sin * (v - y), y + sin * (u - x) + cos * (v - y)) for u, v in corners)


def _rotation(thing: ET.Element) -> float:
    """Radians by which the box is turned: CVAT's attribute "rotation", in degrees."""
    for attribute in thing.iterfind("attributes/attribute"):
        if _text(attribute, "name") == "rotation":
            degrees = number(_text(attribute, "value"))
            if degrees is None or not math.isfinite(degrees):
                raise Refused(f"its rotation is not a number: {shown(_text(attribute, 'value'))}")
            return math.radians(degrees)
    return 0.0


def _points(drawn: ET.Element) -> tuple[float, ...]:
    """x, y, x, y, ... of <pt><x/><y/></pt>, as LabelMe wrote, or <x1/><y1/><x2/><y2/>, as Roboflow writes."""
    corners = [pt for pt in drawn if pt.tag == "pt"]
    if corners:
        return tuple(n for pt in corners for n in _numbers(pt, ("x", "y")))
    count = sum(child.tag.startswith("x") for child in drawn)
    return _numbers(drawn, [f"{axis}{at}" for at in range(1, count + 1) for axis in "xy"])


def _numbers(element: ET.Element, tags: Sequence[str]) -> tuple[float, ...]:
    """The numbers of these elements; Refused where one is missing, given twice, or not a number."""
    values = []
    for tag in tags:
        value = number(_text(element, tag)) if _only(element, tag) is not None else None
        if value is None:
            raise Refused(f"its {element.tag} has no number {tag}")
        values.append(value)
    return tuple(values)


def _only(element: ET.Element, tag: str) -> ET.Element | None:
    """The one child of this name; None where there is none, Refused where there are several."""
    children = element.findall(tag)
    if len(children) > 1:
        raise Refused(f"more than one {tag} in {element.tag}")
    return children[0] if children else None


def _text(element: ET.Element, path: str) -> str | None:
    """The text of the first such element without the space around it; None where there is none."""
    return (element.findtext(path) or "").strip() or None
