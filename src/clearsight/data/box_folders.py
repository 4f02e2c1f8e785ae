"""Open pictures with the boxes of their objects: the truth for a detector.

Nothing is moved or written.  The notes say what was chosen, `problems` what is wrong with the annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.core.uncollected import uncollected
from clearsight.data.annotation_formats.regions import Region
from clearsight.data.annotation_formats.sheets import EXPECTED, files_below
from clearsight.data.box_truth import BoxSet, read_truth
from clearsight.data.images import picture_size
from clearsight.data.object_pictures import beside, finish, list_pictures, split_of_file, summed_up
from clearsight.data.records import Picture, Pictures
from clearsight.data.truth_classes import Labels, labels_of
from clearsight.data.truth_records import BoxTruth, no_objects
from clearsight.data.truth_tables import open_listed
from clearsight.data.walk import named
from clearsight.errors import Refused

_PLACES = ("annotations", "labels", "boxes")  # folders of annotations beside those of pictures
_FORMS = (".json", ".xml", ".txt")


def open_boxes(
    path: str | Path,
    annotations: str | Path | None = None,
    labels: Labels | None = None,
    *,
    split: str | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """Open the pictures of a folder with the boxes of their objects: each `picture.boxes`, the classes in `.objects`.

    A picture that no annotation names, or that has none in it, has no objects: it is one of background.

    Args:
        path: folder of the pictures, which lie in images/ where there is such a folder; or a table of pictures with
            their splits, such as the split.csv of a trained detector.
        annotations: file or folder in any format that `read_boxes` knows: COCO JSON (also one for each split), Pascal
            VOC XML, YOLO texts or their YAML, ...; None for annotations/ or labels/ beside the pictures, else the only
            ones in the folder.
        labels: the classes in their order; or a name for each number in the annotation; or a YAML or text of them.
            None for those that the annotation lists, else those that occur, by name.  Objects of other classes are
            left out.
        split: name of the split, "all" for every one; None for test before val before train.  Splits are folders of
            the pictures, or JSON files that are called after them.
        voc_base: what Pascal VOC calls the first pixel, 0 or 1; None decides it from all of its files.

    Refused: a folder without pictures or annotations, several formats, an unknown split, and where no box can be used.
    """
    with uncollected():
        known = None if annotations is None else Path(annotations)
        data = open_listed(Path(path), lambda folder: _open(folder, known, labels, voc_base))
    return finish(data, split)


def _open(path: Path, annotations: Path | None, labels: Labels | None, voc_base: int | None) -> Pictures:
    """The pictures of every split with their boxes."""
    found = annotations or _find(path)
    listed = list_pictures(path, None)
    pictures = {picture.name: picture.path for picture in listed.pictures}
    boxes = read_truth(found, pictures, labels_of(labels), voc_base=voc_base)
    unusable = dict(boxes.broken)
    good, unlisted = [], []
    for picture in listed.pictures:
        if picture.name in unusable:
            continue
        truth = boxes.truth.get(picture.name)
        if truth is None:
            try:
                truth = no_objects(picture_size(picture.path))
            except Refused as e:
                unusable[picture.name] = str(e)
                continue
            unlisted.append(picture.name)
        split_name = split_of_file(boxes.origin.get(picture.name), found) or picture.split
        regions = _regions(truth, boxes.classes)
        good.append(replace(picture, split=split_name, boxes=truth, regions=regions))
    return Pictures(
        listed.root,
        tuple(good),
        tuple(sorted({*listed.broken, *unusable.items()})),
        (*_count(good, unlisted, boxes), *boxes.notes, *summed_up(boxes.problems)),
        objects=boxes.classes,
        problems=boxes.problems,
    )


def _find(root: Path) -> Path:
    """Where the boxes of a folder's pictures are: in annotations/ or labels/, else anywhere in the folder."""
    for folder in beside(root):
        for place in (p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in _PLACES):
            files = [file for file in files_below(place) if file.suffix.lower() in _FORMS]
            instances = [file for file in files if file.name.startswith("instances") and file.suffix == ".json"]
            if len(instances) == 1:
                return instances[0]
            if files:
                return place
    if any(file.suffix.lower() in _FORMS for file in files_below(root)):
        return root
    raise Refused(f"no annotations in {root}: {EXPECTED}")


def _regions(truth: BoxTruth, classes: Sequence[str]) -> tuple[Region, ...]:
    """The objects as those who explain or judge a classifier take them."""
    return tuple(
        Region(((x0, y0, x1, y1),), label=classes[label])
        for (x0, y0, x1, y1), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
    )


def _count(pictures: Sequence[Picture], unlisted: Sequence[str], boxes: BoxSet) -> list[str]:
    """Notes on how many boxes, classes and pictures of background there are."""
    total = sum(len(p.boxes) for p in pictures if p.boxes is not None)
    empty = sum(not len(p.boxes) for p in pictures if p.boxes is not None)
    notes = [f"{boxes.form}: {total} boxes of {len(boxes.classes)} classes in {len(pictures)} pictures"]
    if empty:
        notes.append(f"{empty} of the pictures have no object, so they are of background")
    if unlisted:
        listed = f"{len(unlisted)} of those have no annotation: {named(sorted(unlisted))}"
        notes.append(f"{listed}; if they show objects, annotate or remove them")
    return notes
