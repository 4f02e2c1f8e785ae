"""COCO JSON: boxes, polygons and run lengths of objects (cocodataset.org, "Data format")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clearsight.data.annotation_formats.regions import Polygon, Region, Stated
from clearsight.data.annotation_formats.rle import mask_of_rle
from clearsight.data.annotation_formats.sheets import (
    EXPECTED,
    AnnotationSet,
    Entry,
    Sheet,
    clean,
    identity,
    named,
    number,
    numbers,
    points,
    shown,
    size_of,
    whole,
)
from clearsight.errors import Refused

Json = dict[str, Any]
_NOTHING_STATED = Stated()
_NO_BOX = "bbox is not [x, y, width, height]"


@dataclass(frozen=True)
class Categories:
    """The names of categories by id, and why names may be missing."""

    names: Mapping[str, str]
    nameless: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The different names, in the order of their ids: COCO's 80 things have ids from 1 to 90."""
        return tuple(dict.fromkeys(word for _, word in sorted(self.names.items(), key=lambda item: _order(item[0]))))

    def label(self, category: object) -> tuple[str | None, bool]:
        """The label of an object, and whether it is only the number of a category without a name."""
        key = identity(category)
        if key is None:
            return None, False
        return self.names.get(key, key), key not in self.names


def recognises(data: object) -> bool:
    """Whether it has the lists that COCO has, well-formed or not, or is a list of COCO's results."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(o, dict) and "image_id" in o for o in data)
    return isinstance(data, dict) and "images" in data and "annotations" in data


def read(data: object, path: Path, name: str) -> AnnotationSet:
    """An entry for each image of the list, and one for each image_id that no image has."""
    return _read(data, path, boxes=False)


def read_boxes(data: object, path: Path, name: str) -> AnnotationSet:
    """The same, but of each object the box as it is written; its finer shape only where there is no box."""
    return _read(data, path, boxes=True)


def _read(data: object, path: Path, boxes: bool) -> AnnotationSet:
    if isinstance(data, list):
        raise Refused(
            f"{path} holds COCO results, which do not name pictures: give the JSON with images and annotations"
        )
    images, objects, categories = read_lists(data, path)
    objects_of: dict[str | None, list[Json]] = defaultdict(list)
    for o in objects:
        objects_of[identity(o.get("image_id"))].append(o)
    entries: list[Entry] = [
        ((image_name,), partial(_sheet, image_objects, image, categories, problem, boxes))
        for image_name, image, image_objects, problem in by_image(images, objects_of)
    ]
    lost: list[Entry] = [
        ((f"image_id {shown(key)} of {named(_title_all(image_objects))}",), Sheet)
        for key, image_objects in objects_of.items()
    ]
    notes = _uncategorised_note(objects, categories)
    return AnnotationSet("COCO", entries + lost, categories.nameless, notes, categories.classes)


def read_lists(data: object, path: Path) -> tuple[list[Json], list[Json], Categories]:
    """The images, the annotations and the categories' names.  Refused: images or annotations that are not lists."""
    record = data if isinstance(data, dict) else {}
    for key in ("images", "annotations"):
        if not isinstance(record.get(key), list):
            raise Refused(f"{path} is not a COCO JSON with the lists images and annotations: {EXPECTED}")
        invalid = next((i for i, item in enumerate(record[key]) if not isinstance(item, dict)), None)
        if invalid is not None:
            raise Refused(
                f"{path}: {key}[{invalid}] is {shown(record[key][invalid])}, not an object {{...}}: mend or remove it"
            )
    return record["images"], record["annotations"], _read_categories(record.get("categories"))


def by_image(
    images: Sequence[Json], objects_of: dict[str | None, list[Json]]
) -> list[tuple[str, Json, list[Json], str]]:
    """For each image its name, itself, its objects out of `objects_of`, and why none of them can be assigned to it.

    An image that is listed twice in the same words is one.
    """
    holders: dict[str | None, list[Json]] = defaultdict(list)
    for image in images:
        images_of_id = holders[identity(image.get("id"))]
        if image not in images_of_id:
            images_of_id.append(image)
    rows = []
    for key, same in holders.items():
        image_objects = objects_of.pop(key, [])
        names = [name_of(image) for image in same]
        problem = ""
        if len(same) > 1:
            problem = "images without an id"
            if key is not None:
                problem = f"several images have the id {shown(key)}: {named(names)}"
        elif key is None and image_objects:
            problem = "neither the image nor its annotations have an id"
        rows += [(name, image, image_objects, problem) for name, image in zip(names, same, strict=True)]
    return rows


def name_of(image: Json) -> str:
    """What an image calls its file."""
    name = image.get("file_name")
    if name is None and isinstance(url := image.get("coco_url"), str):
        name = url.rpartition("/")[2]  # LVIS, whose pictures are COCO's, writes no file_name
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    if isinstance(name, str) and name.strip():
        return clean(name)
    return f"image {shown(image.get('id'))}" + ("" if name is None else f", whose file_name is {shown(name)}")


def title(o: Json) -> str:
    """What an object is called in messages."""
    return f"annotation {shown(o.get('id'))}"


def _title_all(objects: Sequence[Json]) -> list[str]:
    return [title(o) for o in objects]


def _read_categories(listed: object) -> Categories:
    """The names of the categories by their ids; an id with two names has none."""
    names: dict[str, str] = {}
    twice: set[str] = set()
    broken = 0
    for c in listed if isinstance(listed, list) else []:
        key = identity(c.get("id")) if isinstance(c, dict) else None
        word = c.get("name") if isinstance(c, dict) else None
        if key is None or not isinstance(word, str | int) or isinstance(word, bool) or not str(word).strip():
            broken += 1
        elif names.setdefault(key, clean(str(word))) != clean(str(word)):
            twice.add(key)
    why = ["its categories give them no name"]
    why += [f"{broken} categories are not {{id, name}}"] if broken else []
    why += [f"two names for {named(sorted(twice))}"] if twice else []
    return Categories({key: word for key, word in names.items() if key not in twice}, "; ".join(why))


def _uncategorised_note(objects: Sequence[Json], categories: Categories) -> tuple[str, ...]:
    bare = [title(o) for o in objects if identity(o.get("category_id")) is None]
    return (f"{len(bare)} COCO objects have no category: {named(bare)}",) if bare and categories.names else ()


def _order(key: str) -> tuple[bool, float, str]:
    """Ids in order: numbers by their size, then texts."""
    parsed = number(key)
    return parsed is None, parsed or 0.0, key


def _sheet(objects: Sequence[Json], image: Json, categories: Categories, why: str, boxes: bool) -> Sheet:
    if why:
        return Sheet(bad=tuple(f"{title(o)}: {why}" for o in objects) or (why,))
    size, size_remarks = size_of(image.get("width"), image.get("height"))
    regions, names, bad, remarks = [], [], [], [*size_remarks]
    for o in objects:
        try:
            region, parts, remark = _boxed(o, categories) if boxes else _region(o, categories)
        except Refused as e:
            bad.append(f"{title(o)}: {e}")
            continue
        regions.append(region)
        names.append(title(o))
        bad += [f"{title(o)}: {part}" for part in parts]
        remarks += [f"{title(o)}: {remark}"] if remark else []
    return Sheet(tuple(regions), size, bad=tuple(bad), names=tuple(names), remarks=tuple(remarks))


def _region(o: Json, categories: Categories) -> tuple[Region, list[str], str]:
    """An object's region, why parts of it were left out, and a remark.  Refused, with the reason, where it has none.

    The segmentation counts, and the box only where there is none, or none that can be read.
    """
    label, numbered = categories.label(o.get("category_id"))
    stated = _stated(o)
    shape = o.get("segmentation")
    if shape is None or (isinstance(shape, list) and all(part == [] for part in shape)) or shape in ({}, ""):
        return Region((_box(o),), label=label, numbered=numbered, stated=stated), [], ""
    try:
        if isinstance(shape, dict):
            mask = mask_of_rle(shape.get("counts"), shape.get("size"))
            return Region(mask=mask, label=label, numbered=numbered, stated=stated), [], ""
        good, parts = _polygons(shape)
        return Region(polygons=good, label=label, numbered=numbered, stated=stated), parts, ""
    except Refused as e:
        if o.get("bbox") is None:
            raise
        remark = f"its box is used, because its segmentation cannot be read: {e}"
        return Region((_box(o),), label=label, numbered=numbered, stated=stated), [], remark


def _boxed(o: Json, categories: Categories) -> tuple[Region, list[str], str]:
    """`_region` of an object's box as written; of its segmentation where it has no box."""
    if o.get("bbox") in (None, []):
        return _region(o, categories)
    label, numbered = categories.label(o.get("category_id"))
    return Region((_box(o),), label=label, numbered=numbered, stated=_stated(o)), [], ""


def _stated(o: Json) -> Stated:
    area = number(o.get("area"))
    if area is None and not o.get("iscrowd"):
        return _NOTHING_STATED
    return Stated(area=area if area is not None and area > 0 else None, crowd=bool(whole(o.get("iscrowd"))))


def _box(o: Json) -> tuple[float, float, float, float]:
    box = numbers(o.get("bbox"))
    if box is None or len(box) != 4:
        raise Refused(_NO_BOX)
    mode = o.get("bbox_mode")
    if mode is not None and whole(mode) != 1:  # detectron2's BoxMode: 1 is COCO's own
        raise Refused(f"bbox_mode {shown(mode)} is not supported, only 1 (x, y, width, height)")
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def _polygons(shape: object) -> tuple[tuple[Polygon, ...], list[str]]:
    """The polygons of a segmentation that is a list of lists, and why some were left out."""
    if not isinstance(shape, list):
        raise Refused(f"a segmentation that is neither polygons nor an RLE: {shown(shape)}")
    parts = shape if any(isinstance(part, list | dict) for part in shape) else [shape]  # one polygon, not in a list
    good, bad = [], []
    for part in parts:
        flat = numbers(part)
        if flat is None:
            bad.append("a polygon that is not a list of numbers")
        elif len(flat) % 2:
            bad.append(f"a polygon of {len(flat)} numbers, which are not pairs x, y")
        elif len(flat) < 6:
            bad.append("a polygon of fewer than 3 points")
        else:
            good.append(points(flat))
    if not good:
        raise Refused("; ".join(dict.fromkeys(bad)))
    return tuple(good), bad
