"""Label Studio JSON: its export "JSON" (a list of tasks, or one) and its export "JSON-MIN".

Of a task's several annotations one is used: of those that are not cancelled the one marked as ground truth, else the
one that was changed last.  A task without one, with predictions or drafts only, leaves its picture unannotated; an
annotation without any result marks a picture without objects.  Results without an area (a point, a label of the whole
picture) are left out and named.  `image_rotation` is how the picture was turned in the window of the tool; coordinates
are of the picture as it lies in its file (read in the source of Label Studio's front end).  A remark names it where it
is not 0.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from clearsight.data.annotation_formats.label_studio_names import file_names
from clearsight.data.annotation_formats.label_studio_shapes import has_area, mark, region, why_none
from clearsight.data.annotation_formats.label_studio_tasks import Item, Task, is_task, tasks_of
from clearsight.data.annotation_formats.regions import Region, Size
from clearsight.data.annotation_formats.sheets import AnnotationSet, Entry, Sheet, by, clean, named, shown, size_of
from clearsight.errors import Refused

_DRAWN = ("rectangle", "polygon", "ellipse", "brush", "bitmask", "magicwand")
_Asides = dict[str, list[str]]  # a note on tasks, beside the pictures' sheets -> the names of the tasks
_Object = tuple[Item, tuple[str, ...]]  # the item that draws a region; the region's labels


def recognises(data: object) -> bool:
    """Whether it is a task of Label Studio's, or a list that holds one."""
    return any(map(is_task, data if isinstance(data, list) else [data]))


def read(data: object, path: Path, name: str) -> AnnotationSet:
    """An entry for each picture of each task that is annotated; where none is, for each picture, with the reason."""
    tasks, strange = tasks_of(data)
    tags = {item.tag for task in tasks for item in task.items}
    asides: _Asides = defaultdict(list)
    entries = [entry for task in tasks for entry in _entries(task, tags, asides)]
    if not entries:
        return AnnotationSet(
            "Label Studio", [((_task_title(task),), partial(Sheet, bad=(task.idle,))) for task in tasks]
        )
    notes = [
        *([f"{strange} entries of the list are not Label Studio tasks"] if strange else []),
        *(f"{len(names)} Label Studio {message}: {named(names)}" for message, names in asides.items()),
    ]
    return AnnotationSet("Label Studio", entries, notes=tuple(notes))


def _entries(task: Task, tags: set[str | None], asides: _Asides) -> list[Entry]:
    """The entries of a task's pictures: those in its data that a tag of the export is about, where any is."""
    pictures = {key: task.pictures[key] for key in task.pictures if key in tags} or task.pictures
    places = {(key, at): address for key, addresses in pictures.items() for at, address in enumerate(addresses)}
    if task.several > 1:
        asides["tasks have several annotations; ground truth, else the latest change, is used"].append(
            _task_title(task)
        )
    if not task.bad and not task.items and len(pictures) > 1 and tags.isdisjoint(pictures):
        task.idle = task.idle or "tasks have several pictures, and do not say which of them were annotated"
    if task.idle and not task.bad:
        asides[task.idle].append(_task_title(task))
        return []
    if not places:
        return [((task.name,), partial(Sheet, bad=("no address in its data ends in the suffix of a picture",)))]
    items_of: dict[tuple[str, int], list[Item]] = defaultdict(list)
    unplaced = list(task.bad)
    for item in task.items:
        tag = item.tag if item.tag in pictures or len(task.pictures) > 1 else next(iter(pictures))
        at = 0 if item.index is None and len(pictures.get(str(tag), ())) == 1 else item.index
        if isinstance(at, int) and (str(tag), at) in places:  # JSON-MIN does not say which of several
            items_of[str(tag), at].append(item)
        else:
            unplaced.append(f"{item.kind} of {task.name}: it does not say which of the task's pictures it is in")
    entries: list[Entry] = []
    for place, address in places.items():
        objects, bad, remarks = _objects(items_of[place])
        entries.append((file_names(address), partial(_sheet, objects, (*unplaced, *bad), remarks)))
    return entries


def _task_title(task: Task) -> str:
    """The first of its pictures, or its number."""
    return next((file_names(addresses[0])[0][:200] for addresses in task.pictures.values()), task.name)


def _objects(items: list[Item]) -> tuple[list[_Object], list[str], list[str]]:
    """The items by region, why some have no area, and what of the others is not read."""
    items_of: dict[object, list[Item]] = defaultdict(list)
    for item in items:
        items_of[item.key].append(item)
    objects: list[_Object] = []
    bad: list[str] = []
    remarks: list[str] = []
    for region_items in items_of.values():
        labels = tuple(dict.fromkeys(label for item in region_items for label in _labels(item.value)))
        areas = {len(region_items) > 1 and mark(item.value): item for item in region_items if has_area(item.value)}
        objects += [(item, labels) for item in areas.values()]
        if not areas:
            bad += [f"{item.kind}: {why_none(item.kind, item.value)}" for item in region_items]
            continue
        if len(labels) > 1:
            remarks.append(f"{region_items[0].kind}: of its labels {', '.join(labels)} the first is used")
        for item in region_items:
            if not item.kind.endswith("labels") and item.kind not in _DRAWN:
                remarks.append(f"{item.kind}: it describes a region further, and is not read")
            remarks += [
                f"{item.kind}: its {shown(key)} is {shown(entry)}, not a list" for key, entry in _non_lists(item.value)
            ]
    for turned in dict.fromkeys(shown(item.rotation) for item in items if item.rotation and has_area(item.value)):
        remarks.append(f"image_rotation {turned}, a turn in the tool's window: read as the picture lies in its file")
    return objects, bad, remarks


def _labels(value: dict[str, Any]) -> list[str]:
    words = [
        word for key, entry in value.items() if key.endswith("labels") and isinstance(entry, list) for word in entry
    ]
    return [clean(str(word)) for word in words if word is not None]


def _non_lists(value: dict[str, Any]) -> list[tuple[str, object]]:
    """The entries whose key is that of labels, and whose value is not a list."""
    return [(key, entry) for key, entry in value.items() if key.endswith("labels") and not isinstance(entry, list)]


def _sheet(objects: list[_Object], bad: tuple[str, ...], remarks: list[str]) -> Sheet:
    """In pixels of the stated size, else in fractions; an object whose size is another than the first's is left out."""
    sizes = [size for item, _ in objects if (size := _size(item.stated_size)) is not None]
    size = sizes[0] if sizes else None
    regions: list[Region] = []
    names: list[str] = []
    left_out = list(bad)
    for item, labels in objects:
        item_size = _size(item.stated_size)
        if item_size is None and item.stated_size != (None, None):
            left_out.append(
                f"{item.kind}: original_width and original_height are {shown(item.stated_size)}, which is not a size"
            )
        elif item_size is not None and item_size != size:
            left_out.append(
                f"{item.kind}: annotated at {by(item_size)} pixels, others of its picture at {by(size or item_size)}"
            )
        else:
            try:
                regions.append(region(item.value, size, labels[0] if labels else None))
                names.append(item.kind)
            except Refused as e:
                left_out.append(f"{item.kind}: {e}")
    return Sheet(tuple(regions), size, size is None, tuple(left_out), tuple(names), tuple(remarks))


def _size(sides: tuple[object, object]) -> Size | None:
    return size_of(*sides)[0]
