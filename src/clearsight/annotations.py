"""Where the object is: boxes, polygons and masks from COCO, Pascal VOC, YOLO, CSV and mask files.

Coordinates are (x, y) in pixels of the picture as people see it (turned as its EXIF says); a pixel's centre is at .5.
A box that cannot be one is left out and named, one that sticks out is cut off and counted: nothing goes silently.
"""

from __future__ import annotations

import csv
import json
import math
import os
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from clearsight.classifier import Preprocess, plain
from clearsight.errors import Refused
from clearsight.pictures import open_mask, picture_size, sources, to_model

Box = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]
Size = tuple[int, int]  # width, height

EXPECTED = (
    "expected a COCO .json, Pascal VOC .xml, YOLO .txt or mask .png (a file, or a folder with one for each picture), "
    "or a .csv with the columns file, box_x, box_y, box_w, box_h"
)
_SUFFIXES = {
    ".xml": "Pascal VOC",
    ".txt": "YOLO",
    ".png": "masks",
    ".bmp": "masks",
    ".tif": "masks",
    ".tiff": "masks",
    ".gif": "masks",
}
_SLACK = 1.0  # pixels by which a box may stick out, from rounding, before a word is lost on it


@dataclass(frozen=True)
class Region:
    """Where one object is: its boxes, polygons and mask together.

    boxes: (x0, y0, x1, y1) with x0 < x1 and y0 < y1, inside the picture.  polygons: each its corners (x, y), filled by
    the even-odd rule, perhaps partly outside.  mask: a file of the picture's size, not zero inside.  label: what the
    object is, where the annotation says.  numbered: the label is only the number of a class whose name is not known.
    """

    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    mask: Path | None = None
    label: str | None = None
    numbered: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Annotations:
    """What an annotation says.  A picture it does not speak of is missing in regions; () says that nothing is there.

    regions: name of the picture -> its objects.  form: "COCO", "Pascal VOC", "YOLO", "CSV", "masks".
    unmatched: names in the annotation that no picture has.  notes: what was cut off, left out or unmatched, by name.
    """

    regions: dict[str, tuple[Region, ...]]
    form: str
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sheet:
    """What an annotation says of one picture, before it is fitted to it.

    size: the picture's, where stated.  fractions: coordinates in [0, 1].  bad: what could not be read, and why.
    """

    regions: tuple[Region, ...] = ()
    size: Size | None = None
    fractions: bool = False
    bad: tuple[str, ...] = ()


_Entry = tuple[tuple[str, ...], Callable[[], _Sheet]]  # what the picture may be called, the best name first; its sheet


def read_boxes(path: str | Path, pictures: Mapping[str, Path], wanted: Container[str] | None = None) -> Annotations:
    """The objects in each picture, from annotations whose format is told by suffix and content.

    pictures: name -> file of all there are.  An annotation belongs to the picture of the same relative path (with or
    without suffix), else to the only picture of that file name.  wanted: the names to read; all unless given.
    Raises Refused for what is no annotation, for a name that fits two pictures, and where nothing can be used.
    """
    path = Path(path)
    try:
        form, entries, nameless = _entries(path, set(pictures.values()))
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    find = _finder(pictures)
    spoken: dict[str, str] = {}
    regions: dict[str, tuple[Region, ...]] = {}
    unmatched, cut, out = [], [], []
    numbers: set[str] = set()
    for names, sheet in entries:
        name = next((hit for called in names if (hit := find(called))), None)
        if name is None:
            unmatched.append(names[0])
            continue
        if name in spoken:
            raise Refused(f"{path}: {spoken[name]} and {names[0]} both fit {name}: name them as the pictures are")
        spoken[name] = names[0]
        if wanted is not None and name not in wanted:
            continue
        try:
            size = picture_size(pictures[name])
        except Refused:
            continue  # the picture is broken, which is said where it is read
        said = sheet()
        kept, sticking, bad = _fitted(said, size)
        cut += [name] * sticking
        out += [f"{name} ({why})" for why in bad]
        numbers |= {region.label for region in kept if region.label is not None and region.numbered}
        if kept or not bad:
            regions[name] = kept
    if not spoken:
        called = f"it names {_named(unmatched) or 'none'}; the pictures are {_named(list(pictures)) or 'none'}"
        raise Refused(f"{form} annotations at {path} fit no picture: {called}")
    if out and not any(regions.values()):
        raise Refused(f"{form} annotations at {path} cannot be used: {_named(out)}")
    classes = sorted(numbers, key=int)
    notes = [
        *([f"{len(classes)} {form} classes go by their numbers ({_named(classes)}): {nameless}"] if classes else []),
        *([f"{len(cut)} {form} regions stick out of the picture, cut off at its edge: {_named(cut)}"] if cut else []),
        *([f"{len(out)} {form} regions left out: {_named(out)}"] if out else []),
        *([f"{len(unmatched)} {form} annotations fit no picture: {_named(unmatched)}"] if unmatched else []),
    ]
    return Annotations(regions, form, tuple(unmatched), tuple(notes))


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
            inside |= _filled(points.numpy(), inside.shape)
        if region.mask is not None:
            mask = open_mask(region.mask)
            if mask.shape != image_size[::-1]:
                raise Refused(f"mask {region.mask} has {_by(mask.shape[::-1])} pixels, its picture {_by(image_size)}")
            rows, columns = (index.numpy() for index in sources(image_size, preprocess))
            inside |= mask[np.ix_(rows, columns)]
    return torch.from_numpy(inside)


def of_label(regions: Iterable[Region], words: Iterable[str]) -> tuple[Region, ...]:
    """The regions whose label is one of the words, or one of a word's comma-separated names.

    None without a label, and none whose label is only a number: another list may count its classes in another order.

    >>> of_label((Region(label="Tiger_cat"), Region(label="dog"), Region()), ["tabby", "tiger cat, big tabby"])
    (Region(boxes=(), polygons=(), mask=None, label='Tiger_cat'),)
    """
    known = {plain(part) for word in words for part in (word, *word.split(","))}
    return tuple(r for r in regions if r.label is not None and not r.numbered and plain(r.label) in known)


def read_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The columns and the rows of a CSV in UTF-8 with a header, separated by comma, semicolon or tab."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            separator = next((c for c in ",;\t" if c in header), ",")
            rows = [row for row in csv.reader(file, delimiter=separator, strict=True) if "".join(row).strip()]
    except OSError as e:
        raise Refused(f"cannot read {path}: {e.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as e:
        raise Refused(f"{path} is no CSV in UTF-8: {e}") from None
    columns = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if len(set(columns)) != len(columns):
        raise Refused(f"{path} has two columns of the same name: {', '.join(columns)}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            raise Refused(f"{path}: row {number} has {len(row)} cells, but there are {len(columns)} columns")
    return columns, [dict(zip(columns, (cell.strip() for cell in row), strict=True)) for row in rows[1:]]


def _entries(path: Path, pictures: set[Path]) -> tuple[str, list[_Entry], str]:
    """The format, what it says of each picture, and why classes may go by their numbers."""
    if path.is_file() and path.suffix.lower() == ".json":
        return "COCO", _coco(path), ""
    if path.is_file() and path.suffix.lower() == ".csv":
        return "CSV", _csv(path), ""
    if not os.path.exists(path):
        raise Refused(f"no annotations at {path}: there is no such file or folder")
    root = path if path.is_dir() else path.parent
    files: dict[str, list[Path]] = defaultdict(list)
    for file in _below(path) if path.is_dir() else [path]:
        form = _SUFFIXES.get(file.suffix.lower())
        if form and file not in pictures and file.name.lower() not in ("classes.txt", "readme.txt"):
            files[form].append(file)
    text = [form for form in files if form != "masks"]
    if len(text) > 1:
        raise Refused(f"{path} holds {' and '.join(text)} annotations: give the folder or file of one of them")
    if not files:
        raise Refused(f"{path} holds no annotations: {EXPECTED}")
    form = text[0] if text else "masks"  # PNG beside .txt or .xml are pictures
    called = {file: file.relative_to(root).with_suffix("").as_posix() for file in files[form]}
    if form == "Pascal VOC":
        return form, [_voc(file, name) for file, name in called.items()], ""
    if form == "YOLO":
        words, why = _yolo_words(root)
        return form, [((name,), partial(_yolo, file, words)) for file, name in called.items()], why
    return form, [((name,), partial(_mask, file)) for file, name in called.items()], ""


def _below(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, without hidden ones; links to folders are not followed."""
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return sorted(file for file in files if not file.name.startswith("."))


def _finder(pictures: Mapping[str, Path]) -> Callable[[str], str | None]:
    """A name in an annotation -> the picture's name, None where there is none; Refused where it fits several."""
    tables: list[dict[str, list[str]]] = [defaultdict(list) for _ in range(4)]
    for name in pictures:
        bare = PurePosixPath(name)
        for table, key in zip(tables, (name, bare.with_suffix("").as_posix(), bare.name, bare.stem), strict=True):
            table[key].append(name)

    def find(called: str) -> str | None:
        called = PurePosixPath(called.replace("\\", "/")).as_posix()
        last = called.rpartition("/")[2]
        for table, key in zip(tables, (called, called, last, last), strict=True):
            hits = table.get(key, [])
            if len(hits) > 1:
                raise Refused(f"annotation {called!r} fits {_named(hits)}: name it with its folder, as they are")
            if hits:
                return hits[0]
        return None

    return find


def _fitted(sheet: _Sheet, size: Size) -> tuple[tuple[Region, ...], bool, list[str]]:
    """The regions in a picture of this size, whether any stuck out, and why any were left out."""
    if sheet.size is not None and sheet.size != size:
        return (), False, [f"annotated at {_by(sheet.size)} pixels, the picture as it is seen has {_by(size)}"]
    scale = size if sheet.fractions else (1, 1)
    kept, bad, sticking = [], list(sheet.bad), False
    for region in sheet.regions:
        boxes, polygons = [], []
        for box in region.boxes:
            corners = ((box[0] * scale[0], box[1] * scale[1]), (box[2] * scale[0], box[3] * scale[1]))
            if why := _wrong(corners, size):
                bad.append(why)
            else:
                (x0, y0), (x1, y1) = corners
                boxes.append((max(x0, 0.0), max(y0, 0.0), min(x1, float(size[0])), min(y1, float(size[1]))))
                sticking |= _sticks_out(corners, size)
        for polygon in region.polygons:
            polygon = tuple((x * scale[0], y * scale[1]) for x, y in polygon)
            if why := _wrong(polygon, size):
                bad.append(why)
            else:
                polygons.append(polygon)
                sticking |= _sticks_out(polygon, size)
        if boxes or polygons or region.mask is not None:
            kept.append(replace(region, boxes=tuple(boxes), polygons=tuple(polygons)))
    return tuple(kept), sticking, bad


def _wrong(points: Polygon, size: Size) -> str:
    """Why these two corners of a box, or this polygon, are no region of the picture; "" where they are one."""
    xs, ys = zip(*points, strict=True)
    if not all(map(math.isfinite, (*xs, *ys))):
        return "a coordinate that is not a number"
    if len(points) == 2:
        wide, high = xs[1] - xs[0], ys[1] - ys[0]
        if wide <= 0 or high <= 0:
            return f"a box of {wide:g} x {high:g} pixels"
    elif not sum(x * v - u * y for (x, y), (u, v) in zip(points, (*points[1:], points[0]), strict=True)):
        return "a polygon without area"
    if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= size[0] or min(ys) >= size[1]:
        return "outside the picture"
    return ""


def _sticks_out(points: Polygon, size: Size) -> bool:
    return any(not -_SLACK <= x <= size[0] + _SLACK or not -_SLACK <= y <= size[1] + _SLACK for x, y in points)


_COCO_LISTS = ("images", "annotations", "categories")


def _coco(path: Path) -> list[_Entry]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise Refused(f"{path} is no JSON: {e}") from None
    images, objects, listed = (data.get(key) if isinstance(data, dict) else None for key in _COCO_LISTS)
    if not _dicts(images) or not _dicts(objects):
        raise Refused(f"{path} is no COCO JSON with the lists images and annotations: {EXPECTED}")
    if any("segments_info" in o for o in objects):
        raise Refused(f"{path} is COCO's panoptic format: give its folder of masks instead, or boxes and polygons")
    labels = {str(c.get("id")): str(c.get("name")) for c in listed} if _dicts(listed) else {}
    of: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for o in objects:
        of[str(o.get("image_id"))].append(o)
    entries: list[_Entry] = []
    for image in images:
        mine, wide, high = of.pop(str(image.get("id")), []), image.get("width"), image.get("height")
        stated = (wide, high) if isinstance(wide, int) and isinstance(high, int) and wide * high > 0 else None
        name = str(image.get("file_name") or f"image {image.get('id')}")
        entries.append(((name,), partial(_coco_sheet, path, mine, stated, labels)))
    lost: list[_Entry] = [((f"image_id {key}",), _Sheet) for key in of]
    return entries + lost


def _coco_sheet(path: Path, objects: list[dict[str, Any]], size: Size | None, labels: Mapping[str, str]) -> _Sheet:
    regions, bad = [], []
    for o in objects:
        shape, label = o.get("segmentation"), labels.get(str(o.get("category_id")))
        if isinstance(shape, dict):
            if isinstance(shape.get("counts"), str):
                raise Refused(
                    f"{path}: annotation {o.get('id')} is a compressed RLE (its counts are text), which is not read "
                    "here: write polygons, or counts as a list of numbers"
                )
            boxes = _runs(shape.get("counts"), shape.get("size"))
            if boxes is None or (size and shape["size"] != [size[1], size[0]]):
                bad.append(f"annotation {o.get('id')}: RLE counts that do not fill its size")
            else:
                regions.append(Region(boxes, label=label))
        elif shape:
            parts = [_numbers(part) for part in shape] if isinstance(shape, list) else [None]
            good = [part for part in parts if part and len(part) >= 6 and len(part) % 2 == 0]
            bad += [f"annotation {o.get('id')}: a polygon of fewer than 3 points"] * (len(parts) - len(good))
            regions.append(Region(polygons=tuple(_points(part) for part in good), label=label))
        else:
            box = _numbers(o.get("bbox"))
            if box is None or len(box) != 4:
                bad.append(f"annotation {o.get('id')}: bbox is not [x, y, width, height]")
            else:
                regions.append(Region(((box[0], box[1], box[0] + box[2], box[1] + box[3]),), label=label))
    return _Sheet(tuple(regions), size, bad=tuple(bad))


def _runs(counts: object, size: object) -> tuple[Box, ...] | None:
    """COCO's uncompressed run lengths, down the columns, outside first -> boxes that cover exactly its pixels."""
    if not (isinstance(counts, list) and isinstance(size, list) and len(size) == 2):
        return None
    if not all(isinstance(n, int) and n >= 0 for n in (*counts, *size)) or sum(counts) != size[0] * size[1]:
        return None
    high, at, boxes = size[0], 0, []
    for number, count in enumerate(counts):
        end = at + count
        while number % 2 and at < end:
            x, y = divmod(at, high)
            columns = (end - at) // high if y == 0 else 0
            bottom = high if columns else min(high, y + end - at)
            boxes.append((float(x), float(y), float(x + max(columns, 1)), float(bottom)))
            at += columns * high or bottom - y
        at = end
    return tuple(boxes)


def _voc(file: Path, name: str) -> _Entry:
    """A file of Pascal VOC: corners are counted from 1 and belong to the box, so the first pixel is 1 to 1."""
    try:
        root = ET.fromstring(file.read_bytes())
    except (ET.ParseError, ValueError, LookupError) as e:
        return (name,), partial(_Sheet, bad=(f"{file.name} is no XML: {e}",))
    if root.tag != "annotation":
        return (name,), partial(_Sheet, bad=(f"{file.name} is no Pascal VOC: its root is {root.tag}, not annotation",))
    size = _numbers([root.findtext("size/width"), root.findtext("size/height")])
    regions, bad = [], []
    for thing in root.iter("object"):
        box = _numbers([thing.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")])
        if box is None:
            bad.append("an object whose bndbox lacks xmin, ymin, xmax or ymax")
        else:
            regions.append(Region(((box[0] - 1, box[1] - 1, box[2], box[3]),), label=thing.findtext("name")))
    stated = (int(size[0]), int(size[1])) if size and all(math.isfinite(n) and n > 0 for n in size) else None
    written = (root.findtext("filename") or "").strip()
    return (name, written) if written else (name,), partial(_Sheet, tuple(regions), stated, bad=tuple(bad))


def _yolo(file: Path, words: Mapping[int, str]) -> _Sheet:
    regions, bad = [], []
    for number, line in enumerate(file.read_bytes().decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        values = _numbers(line.split()) or ()
        if len(values) < 5 or len(values) % 2 == 0 or not values[0].is_integer():
            bad.append(f"line {number}: neither class cx cy w h nor class x1 y1 x2 y2 x3 y3 ...")
            continue
        what, rest = int(values[0]), values[1:]
        region = partial(Region, label=words.get(what, str(what)), numbered=what not in words)
        if max(rest) > 1.5:
            bad.append(f"line {number}: not fractions of the picture, which YOLO takes")
        elif len(rest) == 4:
            x, y, w, h = rest
            regions.append(region(((x - w / 2, y - h / 2, x + w / 2, y + h / 2),)))
        else:
            regions.append(region(polygons=(_points(rest),)))
    return _Sheet(tuple(regions), fractions=True, bad=tuple(bad))


def _yolo_words(root: Path) -> tuple[dict[int, str], str]:
    """The names of YOLO's class numbers, and why some may have none.

    They are in classes.txt or data.yaml, in the folder or in the one above.
    """
    for folder in (root, Path(os.path.normpath(root / ".."))):
        for name in ("classes.txt", "data.yaml"):
            file = folder / name
            if not file.is_file():
                continue
            try:
                text = file.read_bytes().decode("utf-8")
                found = yaml.safe_load(text) if name == "data.yaml" else {"names": text.splitlines()}
            except (UnicodeDecodeError, yaml.YAMLError) as e:
                raise Refused(f"{file} cannot be read: {e}") from None
            listed = found.get("names") if isinstance(found, dict) else None
            pairs = listed.items() if isinstance(listed, dict) else enumerate(_list(listed))
            words = {key: str(word).strip() for key, word in pairs if isinstance(key, int)}
            return {key: word for key, word in words.items() if word}, f"{file} has no names for them"
    return {}, f"there is no classes.txt or data.yaml with their names in {root} or in the folder above it"


def _mask(file: Path) -> _Sheet:
    try:
        return _Sheet((Region(mask=file),), picture_size(file))
    except Refused as e:
        return _Sheet(bad=(f"mask {file.name}: {e}",))


def _csv(path: Path) -> list[_Entry]:
    columns, rows = read_table(path)
    corners = ("box_x", "box_y", "box_w", "box_h")
    if any(column not in columns for column in ("file", *corners)):
        raise Refused(f"{path} has the columns {', '.join(columns) or 'none'}: {EXPECTED}")
    of: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        of[row["file"]].append(row)

    def sheet(mine: Sequence[Mapping[str, str]]) -> _Sheet:
        boxes = [_numbers([row[corner] for corner in corners]) for row in mine]
        good = [(b[0], b[1], b[0] + b[2], b[1] + b[3]) for b in boxes if b]
        return _Sheet(tuple(Region((b,)) for b in good), bad=("a box that is not numbers",) * (len(boxes) - len(good)))

    return [((name,), partial(sheet, mine)) for name, mine in of.items()]


def _filled(corners: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """bool (H, W), True where a pixel's centre is inside the polygon (P, 2); on a left or upper edge is inside."""
    inside = np.zeros(shape, dtype=bool)
    ys, xs = (np.arange(n) + 0.5 for n in shape)
    for (x, y), (u, v) in zip(corners, np.roll(corners, -1, 0), strict=True):
        (rows,) = np.nonzero((y <= ys) != (v <= ys))
        if len(rows):
            crossing = x + (ys[rows] - y) * (u - x) / (v - y)
            inside[rows] ^= xs < crossing[:, None]
    return inside


def _numbers(values: Any) -> tuple[float, ...] | None:
    """The values as numbers, NaN among them; None where any is none."""
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return None


def _points(flat: Sequence[float]) -> Polygon:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _dicts(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _named(names: Sequence[str]) -> str:
    """The first names of many, and how many more."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
