"""COCO's panoptic format: a PNG for each picture, whose colours are ids, and a JSON that says what each id is.

Kirillov et al. 2019, arXiv:1801.00868; id = R + 256 G + 65536 B.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clearsight.data.annotation_formats.coco import Categories, Json, by_image, read_lists
from clearsight.data.annotation_formats.regions import Mask, Region, Stated, mask_of, pixels_of
from clearsight.data.annotation_formats.sheets import (
    AnnotationSet,
    Entry,
    Sheet,
    by,
    identity,
    named,
    shown,
    size_of,
    whole,
)
from clearsight.data.images import check_file, open_ids
from clearsight.errors import Refused


def recognises(data: object) -> bool:
    """Whether it is COCO's and its annotations have segments_info."""
    objects = data.get("annotations") if isinstance(data, dict) and "images" in data else None
    return isinstance(objects, list) and any(isinstance(o, dict) and "segments_info" in o for o in objects)


def read(data: object, path: Path, name: str) -> AnnotationSet:
    """An entry for each image of the list, and one for each image_id that no image has."""
    images, objects, categories = read_lists(data, path)
    objects_of: dict[str | None, list[Json]] = defaultdict(list)
    for o in objects:
        objects_of[identity(o.get("image_id"))].append(o)
    entries: list[Entry] = [
        ((image_name,), partial(_sheet, path, image_objects, image, categories, problem))
        for image_name, image, image_objects, problem in by_image(images, objects_of)
    ]
    lost: list[Entry] = [
        ((f"image_id {shown(key)} of {named([_file_title(o) for o in image_objects])}",), Sheet)
        for key, image_objects in objects_of.items()
    ]
    return AnnotationSet("COCO panoptic", entries + lost, categories.nameless, classes=categories.classes)


def _file_title(o: Json) -> str:
    return shown(o.get("file_name"))


def _sheet(path: Path, objects: list[Json], image: Json, categories: Categories, why: str) -> Sheet:
    if why or not objects:
        return Sheet(
            bad=tuple(f"{_file_title(o)}: {why}" for o in objects) or (why or "no annotation lists its segments",)
        )
    size, size_remarks = size_of(image.get("width"), image.get("height"))
    regions, names, bad, remarks = [], [], [], [*size_remarks]
    for o in objects:
        try:
            ids = open_ids(_png(path, o.get("file_name")))
        except Refused as e:
            bad.append(f"{_file_title(o)}: {e}")
            continue
        png_size = (ids.shape[1], ids.shape[0])
        if size is not None and size != png_size:
            bad.append(f"{_file_title(o)} has {by(png_size)} pixels, but its picture has {by(size)}")
            continue
        size = png_size
        for segment, mask in _masks(o, ids, bad):
            label, numbered = categories.label(segment.get("category_id"))
            stated = Stated(crowd=bool(whole(segment.get("iscrowd"))))
            regions.append(Region(mask=mask, label=label, numbered=numbered, stated=stated))
            names.append(f"segment {shown(segment.get('id'))}")
            remarks += _area(segment, mask)
    return Sheet(tuple(regions), size, bad=tuple(bad), names=tuple(names), remarks=tuple(remarks))


def _png(path: Path, name: object) -> Path:
    """The PNG that an annotation names: in a folder called like the JSON, beside it, or in "panoptic" there."""
    if not isinstance(name, str) or not name.strip():
        raise Refused("its annotation has no file_name of a PNG")
    last = name.replace("\\", "/").rpartition("/")[2]
    places = [path.parent / path.stem, path.parent, path.parent / "panoptic"]
    for file in (folder / part for folder in places for part in (name, last)):
        try:
            check_file(file)
        except Refused:
            continue
        return file
    raise Refused(f"this PNG is neither beside the JSON nor in a folder {path.stem} or panoptic there")


def _masks(o: Json, ids: NDArray[np.uint32], bad: list[str]) -> list[tuple[Json, Mask]]:
    """The segments of an annotation with their pixels; what has none, and pixels that no segment names, go to bad."""
    segments = o.get("segments_info")
    masks: list[tuple[Json, Mask]] = []
    used_ids: set[int] = set()
    for number, segment in enumerate(segments if isinstance(segments, list) else [], 1):
        key = whole(segment.get("id")) if isinstance(segment, dict) else None
        inside = ids == key if key is not None and 0 < key < 1 << 24 else np.zeros((1, 1), dtype=bool)
        if key is None or not inside.any():
            title = shown(segment.get("id")) if isinstance(segment, dict) else f"number {number}"
            bad.append(f"segment {title}: no pixel has its id")
        elif key in used_ids:
            bad.append(f"segment {key}: another segment has the same id")
        else:
            used_ids.add(key)
            masks.append((segment, mask_of(inside)))
    others = sorted({int(n) for n in np.unique(ids)} - used_ids - {0})
    if others:
        bad.append(f"{_file_title(o)} has pixels of ids that no segment has: {named([str(n) for n in others])}")
    return masks


def _area(segment: Json, mask: Mask) -> list[str]:
    """A remark where the area that is stated is not that of the pixels: then the PNG may be another one's."""
    area, pixels = segment.get("area"), int(pixels_of(mask).sum())
    if area is None or whole(area) == pixels:
        return []
    return [f"segment {shown(segment.get('id'))}: its area is stated as {shown(area)}, but it has {pixels} pixels"]
