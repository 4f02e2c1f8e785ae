"""The XML of the older, web-based LabelMe: an XML for each picture, whose root has the name of Pascal VOC's.

Russell, Torralba, Murphy & Freeman 2008, "LabelMe: a database and web-based tool for image annotation".  Datumaro
1.13.12 writes it too (its format "label_me"), with masks in files of their own.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from clearsight.data.annotation_formats.outlines import spanned
from clearsight.data.annotation_formats.regions import Polygon, Region, Size
from clearsight.data.annotation_formats.sheets import AnnotationSet, Entry, Sheet, by, numbers, shown, size_of
from clearsight.data.images import picture_size
from clearsight.errors import Refused


def recognises(files: Iterable[Path]) -> bool:
    """Whether more of their objects are LabelMe's than are not; where there is none, whether a size is stated so."""
    roots = [root for file in files if (root := _root(file)) is not None and root.tag == "annotation"]
    labelme_like = [_is_labelme(thing) for root in roots for thing in root.iter("object")]
    if labelme_like:
        return 2 * sum(labelme_like) > len(labelme_like)
    return any(root.find("imagesize") is not None for root in roots)


def read(names: dict[Path, str]) -> AnnotationSet:
    """An entry for each file.  names: file -> its name below the folder, without suffix."""
    return AnnotationSet("LabelMe XML", [_entry(file, name) for file, name in names.items()])


def _entry(file: Path, name: str) -> Entry:
    root = _root(file)
    if root is None or root.tag != "annotation":
        return (name,), partial(Sheet, bad=(f"{file.name} is not LabelMe XML",))
    size, remarks = size_of(root.findtext("imagesize/ncols"), root.findtext("imagesize/nrows"))
    written = (root.findtext("filename") or "").strip()
    names = (name, written) if written else (name,)
    things, folder = list(root.iter("object")), (root.findtext("folder") or "").strip()
    return names, partial(_sheet, file, things, size, folder, remarks)


def _sheet(file: Path, things: list[ET.Element], size: Size | None, folder: str, remarks: tuple[str, ...]) -> Sheet:
    regions, names, bad = [], [], []
    for number, thing in enumerate(things, 1):
        label = (thing.findtext("name") or "").strip() or None
        try:
            regions.append(_region(file, thing, size, folder, label))
            names.append(f"object {number} ({shown(label)})")
        except Refused as e:
            bad.append(f"object {number} ({shown(label)}): {e}")
    return Sheet(tuple(regions), size, bad=tuple(bad), names=tuple(names), remarks=remarks)


def _region(file: Path, thing: ET.Element, size: Size | None, folder: str, label: str | None) -> Region:
    if (thing.findtext("deleted") or "").strip() not in ("", "0"):
        raise Refused("it is marked as deleted")
    if (polygon := thing.find("polygon")) is not None:
        corners = _corners(polygon)
        if (thing.findtext("type") or "").strip() == "bounding_box":
            xs, ys = zip(*corners, strict=True)
            return Region((spanned((min(xs), min(ys)), (max(xs), max(ys))),), label=label)
        return Region(polygons=(corners,), label=label)
    if thing.find("segm") is None:
        raise Refused("it has neither polygon nor segm")
    return Region(mask=_mask(file, (thing.findtext("segm/mask") or "").strip(), size, folder), label=label)


def _corners(polygon: ET.Element) -> Polygon:
    pairs = [numbers([point.findtext("x"), point.findtext("y")]) for point in polygon.iter("pt")]
    if any(pair is None for pair in pairs):
        raise Refused("its points are not pairs of numbers")
    if len(pairs) < 3:
        raise Refused(f"a polygon of {len(pairs)} points")
    return tuple((pair[0], pair[1]) for pair in pairs if pair)


def _mask(file: Path, name: str, size: Size | None, folder: str) -> Path:
    """The mask's file: below a folder Masks that lies beside Annotations, else beside the XML."""
    if not name or Path(name).name != name or Path(folder).name != folder:
        raise Refused("its mask is not given as the name of a file")
    above = next((up.parent / "Masks" / folder for up in file.parents if up.name == "Annotations"), file.parent)
    path = next((place / name for place in (above, file.parent) if os.path.isfile(place / name)), None)
    if path is None:
        raise Refused(f"its mask {name} is missing")
    if size is not None and (actual := picture_size(path)) != size:
        raise Refused(f"its mask {name} has {by(actual)} pixels, not {by(size)}")
    return path


def _is_labelme(thing: ET.Element) -> bool:
    outlined = thing.find("polygon/pt") is not None or thing.find("segm") is not None
    return outlined and thing.find("bndbox") is None


def _root(file: Path) -> ET.Element | None:
    try:
        return ET.fromstring(file.read_bytes())
    except (ET.ParseError, ValueError, LookupError):
        return None
