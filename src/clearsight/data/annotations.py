"""Where the object is: boxes, polygons and masks from COCO, Pascal VOC, YOLO, CSV and mask files.

Coordinates are (x, y) in pixels of the picture as people see it (turned as its EXIF says); a pixel's centre is at .5.
A note names the invalid boxes, which are left out, and counts those that stick out of the picture, which are clipped.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.label_names import plain
from clearsight.core.preprocess import Preprocess
from clearsight.core.tables import read_table
from clearsight.data.annotation_formats import csv_boxes, json_files, labelme_xml, mask_files, voc, yolo
from clearsight.data.annotation_formats.regions import Mask, Polygon, Region, Size, mask_of, pixels_of
from clearsight.data.annotation_formats.sheets import EXPECTED, AnnotationSet, Sheet, by, files_below, named
from clearsight.data.images import open_mask, picture_size, sources, to_model
from clearsight.errors import Refused

__all__ = ["Annotations", "Mask", "Region", "mask_of", "of_label", "read_boxes", "read_table", "region_mask"]

_SUFFIXES = {
    ".json": "JSON",
    ".xml": "Pascal VOC",
    ".txt": "YOLO",
    ".png": "masks",
    ".bmp": "masks",
    ".tif": "masks",
    ".tiff": "masks",
    ".gif": "masks",
}
_SLACK = 1.0  # pixels by which a box may stick out, from rounding, before a note counts it
_FAR = 1e7  # pixels; a coordinate beyond it is taken for damaged: no polygon can be computed with it


@dataclass(frozen=True)
class Annotations:
    """The annotated objects of a set of pictures.

    A picture without an annotation is missing in regions; () means that it is annotated and shows no object.

    regions: name of the picture -> its objects.  form: "COCO", "Pascal VOC", "YOLO", "CSV", "masks", ...  unmatched:
    names in the annotation that no picture has.  left_out: what is in no region, and why.  cut_off: the pictures beyond
    whose edge a region goes on.  notes: what was assumed, cut off, left out or unmatched, in sentences that name the
    first ones.
    """

    regions: dict[str, tuple[Region, ...]]
    form: str
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    cut_off: tuple[str, ...] = ()


def read_boxes(
    path: str | Path,
    pictures: Mapping[str, Path],
    wanted: Container[str] | None = None,
    *,
    voc_base: int | None = None,
) -> Annotations:
    """Read the objects in each picture from annotations, whose format shows in their suffix and content.

    pictures: name -> file of all there are.  An annotation belongs to the picture of the same relative path (with or
    without suffix), else to the only picture of that file name, unless other annotations have the same file name in
    another folder: then the folders must fit too.  wanted: the names to read; all unless given.
    voc_base: what Pascal VOC calls the first pixel, 0 or 1; decided from all of its files unless given.
    Raises Refused for a path without annotations, a name that fits two pictures, and where nothing can be used.
    """
    path = Path(path)
    try:
        annotations = read_set(path, pictures, voc_base)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    form = annotations.form
    sheets, unmatched, remarks = match_pictures(annotations, pictures, path)
    regions: dict[str, tuple[Region, ...]] = {}
    clipped: list[str] = []
    left_out: list[str] = []
    for name, read in sheets.items():
        if wanted is not None and name not in wanted:
            continue
        try:
            size = picture_size(pictures[name])
        except Refused:
            continue  # the picture is broken, which is reported where it is read
        try:
            sheet = read()
        except OSError as e:
            sheet = Sheet(bad=(f"cannot read {e.filename}: {e.strerror}",))
        fitted, sticking, reasons = fit_regions(sheet, size)
        clipped += [name] * sticking
        left_out += [f"{name} ({why})" for why in reasons]
        remarks += [f"{name} ({remark})" for remark in sheet.remarks]
        if fitted or not reasons:
            regions[name] = fitted
    if not sheets and (reasons := _unreadable_files(annotations)):
        raise Refused(f"{form} annotations at {path} cannot be used: {named(reasons)}")
    if not sheets:
        both = f"they name {named(unmatched) or 'none'}; the pictures are {named(list(pictures)) or 'none'}"
        raise Refused(f"{form} annotations at {path} fit no picture: {both}")
    if left_out and not any(regions.values()):
        raise Refused(f"{form} annotations at {path} cannot be used: {named(left_out)}")
    notes = [
        *annotations.notes,
        *_unnamed_classes_note(regions, annotations),
        *([f"{len(remarks)} remarks on {form} annotations: {named(remarks)}"] if remarks else []),
        *(
            [f"{len(clipped)} {form} regions stick out of the picture, cut off at its edge: {named(clipped)}"]
            if clipped
            else []
        ),
        *([f"{len(left_out)} {form} regions left out: {named(left_out)}"] if left_out else []),
        *([f"{len(unmatched)} {form} annotations fit no picture: {named(unmatched)}"] if unmatched else []),
    ]
    return Annotations(regions, form, tuple(unmatched), tuple(notes), tuple(left_out), tuple(clipped))


def _told(one: str, other: str) -> str:
    """What to do about two annotations of one picture."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    if a.name == b.name and a.parent != b.parent:
        return f"name the folder that is meant, {a.parent} or {b.parent}"
    return "give each the name of its own picture"


def match_pictures(
    annotations: AnnotationSet, pictures: Mapping[str, Path], path: Path
) -> tuple[dict[str, Callable[[], Sheet]], list[str], list[str]]:
    """The sheet of each annotated picture, the names that no picture has, and remarks."""
    told_apart = _in_several_folders(annotations)
    find = _picture_finder(pictures, told_apart)
    sheets: dict[str, Callable[[], Sheet]] = {}
    named_by: dict[str, str] = {}
    unmatched, remarks = [], []
    for names, sheet in annotations.entries:
        name = next((hit for written in _names_that_tell(names, told_apart) if (hit := find(written))), None)
        if name is None:
            unmatched.append(names[0])
            continue
        if name in named_by:
            raise Refused(f"{path}: {named_by[name]} and {names[0]} both fit {name}: {_told(named_by[name], names[0])}")
        named_by[name], sheets[name] = names[0], sheet
        remarks += [f"{name} (its annotation also names {n})" for n in names if n in pictures and n != name]
    return sheets, unmatched, remarks


def _unreadable_files(annotations: AnnotationSet) -> list[str]:
    """Why the first files whose names fit no picture cannot be used; [] where any of them can."""
    reasons = []
    for names, read in annotations.entries[:3]:
        try:
            sheet = read()
        except OSError as e:
            sheet = Sheet(bad=(f"cannot read {e.filename}: {e.strerror}",))
        if sheet.regions or not sheet.bad:
            return []
        reasons.append(f"{names[0]} ({sheet.bad[0]})")
    return reasons


def _unnamed_classes_note(regions: Mapping[str, tuple[Region, ...]], annotations: AnnotationSet) -> list[str]:
    """A note on the classes without a name, which go by their numbers; [] where there are none."""
    labels = {r.label for of_picture in regions.values() for r in of_picture if r.label is not None and r.numbered}
    classes = sorted(labels, key=lambda label: (len(label), label))
    if not classes:
        return []
    numbers = f"{len(classes)} {annotations.form} classes are named by their numbers ({named(classes)})"
    return [f"{numbers}: {annotations.nameless}"]


def region_mask(regions: Region | Iterable[Region], image_size: Size, preprocess: Preprocess) -> Tensor:
    """All the regions together in the model's input: bool (H, W), True where a pixel's centre is inside one of them.

    image_size: (width, height) of the picture as people see it.  All False where the regions were cut away, or are
    smaller than a pixel of the model.  Raises Refused for a mask file that is broken or not of the picture's size.
    """
    inside = np.zeros(preprocess.size, dtype=bool)
    for region in [regions] if isinstance(regions, Region) else regions:
        for box in region.boxes:
            corners = to_model(torch.tensor(box, dtype=torch.float64).view(2, 2), image_size, preprocess)
            (left, top), (right, bottom) = np.clip(np.ceil(corners.numpy() - 0.5), 0, None).astype(int)
            inside[top:bottom, left:right] = True
        for polygon in region.polygons:
            points = to_model(torch.tensor(polygon, dtype=torch.float64), image_size, preprocess)
            inside |= _fill_polygon(points.numpy(), inside.shape)
        if region.mask is not None:
            mask = _mask_pixels(region.mask)
            if mask.shape != image_size[::-1]:
                title = f"mask {region.mask}" if isinstance(region.mask, Path) else "a mask"
                raise Refused(f"{title} has {by(mask.shape[::-1])} pixels, but its picture has {by(image_size)}")
            rows, columns = (index.numpy() for index in sources(image_size, preprocess))
            inside |= mask[np.ix_(rows, columns)]
    return torch.from_numpy(inside)


def _mask_pixels(mask: Path | Mask) -> NDArray[np.bool_]:
    if isinstance(mask, Mask):
        return pixels_of(mask)
    try:
        return open_mask(mask)
    except Refused as e:
        raise Refused(f"mask {mask}: {e}") from None


def of_label(regions: Iterable[Region], words: Iterable[str]) -> tuple[Region, ...]:
    """The regions whose label is one of the words, or one of a word's comma-separated names.

    None without a label, and none whose label is only a number: another list may count its classes in another order.

    >>> of_label((Region(label="Tiger_cat"), Region(label="dog"), Region()), ["tabby", "tiger cat, big tabby"])
    (Region(boxes=(), polygons=(), mask=None, label='Tiger_cat'),)
    """
    accepted = {plain(part) for word in words for part in (word, *word.split(","))}
    return tuple(r for r in regions if r.label is not None and not r.numbered and plain(r.label) in accepted)


def read_set(
    path: Path, pictures: Mapping[str, Path], voc_base: int | None = None, boxes: bool = False
) -> AnnotationSet:
    """Read the annotations at a path by the format of its files.

    boxes: of objects that have a box and an outline, read only the box.
    """
    if voc_base not in (None, 0, 1):
        raise Refused(f"voc_base {voc_base}: give 0 or 1, the number of a picture's first pixel")
    if not os.path.exists(path):
        raise Refused(f"no annotations at {path}: there is no such file or folder")
    read = _read_folder if path.is_dir() else _read_file
    annotations = read(path, pictures, voc_base, boxes)
    if voc_base is not None and annotations.form != "Pascal VOC":
        raise Refused(f"voc_base is for Pascal VOC, but {path} is {annotations.form}: leave it out")
    return annotations


def _read_file(path: Path, pictures: Mapping[str, Path], voc_base: int | None, boxes: bool) -> AnnotationSet:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json_files.read_file(path, boxes)
    if suffix == ".csv":
        return csv_boxes.read(path)
    if suffix in yolo.YAML:
        return yolo.read_yaml(path, pictures)
    if suffix == ".txt" and yolo.lists_pictures(path):
        return yolo.read_list(path, pictures)
    return _read_files([path], path.parent, pictures, voc_base, boxes)


def _read_folder(path: Path, pictures: Mapping[str, Path], voc_base: int | None, boxes: bool) -> AnnotationSet:
    return _read_files(files_below(path), path, pictures, voc_base, boxes)


def _read_files(
    candidates: Sequence[Path], root: Path, pictures: Mapping[str, Path], voc_base: int | None, boxes: bool
) -> AnnotationSet:
    """Read files of one format, one for each picture, or JSON files of many; the pictures themselves are not masks."""
    path = candidates[0] if len(candidates) == 1 else root
    picture_files = set(pictures.values())
    files: dict[str, dict[Path, str]] = defaultdict(dict)  # form -> file -> its name below the root
    for file in candidates:
        form = _SUFFIXES.get(file.suffix.lower())
        if form and file not in picture_files and file.name.lower() not in ("classes.txt", "labels.txt", "readme.txt"):
            files[form][file] = file.relative_to(root).with_suffix("").as_posix()
    in_json = json_files.read_folder(files.pop("JSON", {}), boxes)
    text = [form for form in files if form != "masks"] + [annotations.form for annotations in in_json]
    if len(text) > 1:
        raise Refused(f"{path} holds {' and '.join(text)} annotations: give the folder or file of one of them")
    if not files and not in_json:
        raise Refused(f"{path} holds no annotations: {EXPECTED}")
    if in_json:
        return in_json[0]
    form = text[0] if text else "masks"  # PNG beside .txt, .xml or .json are pictures
    if form == "YOLO":
        return yolo.read(files[form], root, pictures)
    if form == "Pascal VOC":
        older_labelme = voc_base is None and labelme_xml.recognises(files[form])
        return labelme_xml.read(files[form]) if older_labelme else voc.read(files[form], voc_base)
    return mask_files.read(files[form])


def _in_several_folders(annotations: AnnotationSet) -> frozenset[str]:
    """The file names, without suffix, that the annotations write in two folders or more."""
    folders: dict[str, set[str]] = defaultdict(set)
    for names, _ in annotations.entries:
        written = PurePosixPath(names[0].replace("\\", "/"))
        folders[written.stem].add(written.parent.as_posix())
    return frozenset(stem for stem, found in folders.items() if len(found - {"."}) > 1)


def _names_that_tell(names: Sequence[str], told_apart: Container[str]) -> Sequence[str]:
    """The names that can tell the picture: where folders tell pictures apart, none without its folder."""
    return names[:1] if PurePosixPath(names[0].replace("\\", "/")).stem in told_apart else names


def _picture_finder(pictures: Mapping[str, Path], told_apart: Container[str]) -> Callable[[str], str | None]:
    """A function from a name in an annotation to the picture's name, or None; Refused where it fits several.

    told_apart: file names, without suffix, of which an annotation in one folder is not of a picture in another.
    """
    tables: list[dict[str, list[str]]] = [defaultdict(list) for _ in range(4)]
    for name in pictures:
        bare = PurePosixPath(name)
        for table, key in zip(tables, (name, bare.with_suffix("").as_posix(), bare.name, bare.stem), strict=True):
            table[key].append(name)

    def find(written: str) -> str | None:
        written = PurePosixPath(written.replace("\\", "/")).as_posix()
        last = written.rpartition("/")[2]
        for table, key in zip(tables, (written, written, last, last), strict=True):
            hits = table.get(key, [])
            if len(hits) > 1:  # of those in several folders, the one whose folders are named as written
                ends = [name for name in hits if _ends_as(name, written)]
                hits = ends if len(ends) == 1 else hits
            if PurePosixPath(last).stem in told_apart:
                hits = [name for name in hits if _ends_as(name, written)]
            if len(hits) > 1:
                raise Refused(
                    f"annotation {written!r} fits several pictures, {named(hits)}: write the whole name of its picture"
                )
            if hits:
                return hits[0]
        return None

    return find


def _ends_as(name: str, written: str) -> bool:
    """Whether one of two paths is the end of the other, with or without the suffix of the picture's name.

    >>> _ends_as("train/cat/1.png", "cat/1"), _ends_as("train/cat/1.png", "dog/1.png")
    (True, False)
    """
    full = [f"/{p}" for p in (name, PurePosixPath(name).with_suffix("").as_posix())]
    return any(f.endswith(f"/{written}") or f"/{written}".endswith(f) for f in full)


def fit_regions(sheet: Sheet, size: Size) -> tuple[tuple[Region, ...], bool, list[str]]:
    """The regions in a picture of this size, whether any stuck out, and why any were left out."""
    if sheet.size is not None and sheet.size != size:
        why = f"annotated at {by(sheet.size)} pixels, but the picture, upright, has {by(size)}"
        return (), False, [*sheet.bad, why]
    scale = size if sheet.fractions else (1, 1)
    fitted, left_out, sticking = [], list(sheet.bad), False
    for at, region in enumerate(sheet.regions):
        inside, sticks, reasons = _clip_region(region, size, scale)
        sticking |= sticks
        left_out += [f"{sheet.names[at]}: {why}" if sheet.names else why for why in reasons]
        if inside is not None:
            fitted.append(inside)
    return tuple(fitted), sticking, left_out


def _clip_region(region: Region, size: Size, scale: Size) -> tuple[Region | None, bool, list[str]]:
    """The part of a region inside a picture of this size, whether any stuck out, and why parts were left out."""
    boxes, polygons, left_out, sticking = [], [], [], False
    mask = region.mask
    for box in region.boxes:
        corners = ((box[0] * scale[0], box[1] * scale[1]), (box[2] * scale[0], box[3] * scale[1]))
        if why := _why_invalid(corners, size):
            left_out.append(why)
        else:
            (x0, y0), (x1, y1) = corners
            boxes.append((max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1]))))
            sticking |= _sticks_out(corners, size)
    for polygon in region.polygons:
        polygon = tuple((x * scale[0], y * scale[1]) for x, y in polygon)
        if why := _why_invalid(polygon, size):
            left_out.append(why)
        else:
            polygons.append(polygon)
            sticking |= _sticks_out(polygon, size)
    if isinstance(mask, Mask) and mask.size != size:
        left_out.append(f"a mask of {by(mask.size)} pixels, but the picture, upright, has {by(size)}")
        mask = None
    if not boxes and not polygons and mask is None:
        return None, sticking, left_out or ["it has neither box, polygon nor mask"]
    return replace(region, boxes=tuple(boxes), polygons=tuple(polygons), mask=mask), sticking, left_out


def _why_invalid(points: Polygon, size: Size) -> str:
    """Why these two corners of a box, or this polygon, are invalid in the picture; "" where they are valid."""
    xs, ys = zip(*points, strict=True)
    if not all(map(math.isfinite, (*xs, *ys))):
        return "a coordinate that is not a number"
    if max(map(abs, (*xs, *ys))) > _FAR:
        return "a coordinate far outside the picture"
    if len(points) == 2:
        wide, high = xs[1] - xs[0], ys[1] - ys[0]
        if wide <= 0 or high <= 0:
            return f"a box of {wide:g} x {high:g} pixels has no area"
    elif not sum(x * v - u * y for (x, y), (u, v) in zip(points, (*points[1:], points[0]), strict=True)):
        return "a polygon without area"
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= size[0] or min(ys) >= size[1]:
        return "outside the picture"
    return ""


def _sticks_out(points: Polygon, size: Size) -> bool:
    return any(not -_SLACK <= x <= size[0] + _SLACK or not -_SLACK <= y <= size[1] + _SLACK for x, y in points)


def _fill_polygon(corners: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """bool (H, W), True where a pixel's centre is inside the polygon (P, 2); on a left or upper edge is inside."""
    inside = np.zeros(shape, dtype=bool)
    ys, xs = (np.arange(n) + 0.5 for n in shape)
    for (x, y), (u, v) in zip(corners, np.roll(corners, -1, 0), strict=True):
        (rows,) = np.nonzero((y <= ys) != (v <= ys))
        if len(rows):
            crossing = x + (ys[rows] - y) * (u - x) / (v - y)
            inside[rows] ^= xs < crossing[:, None]
    return inside
