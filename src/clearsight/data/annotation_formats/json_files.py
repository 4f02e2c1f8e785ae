"""JSON annotations, whose format shows in what they hold: to add one, give it a file and a line in `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from clearsight.data.annotation_formats import coco, label_studio, labelme, panoptic
from clearsight.data.annotation_formats.sheets import EXPECTED, AnnotationSet, Entry, Sheet
from clearsight.errors import Refused

Recognises = Callable[[object], bool]
Reads = Callable[[object, Path, str], AnnotationSet]

# name; whether the JSON is of this format; what it says, given the JSON, its file, and the file's name below the folder
# that was given, without suffix, which is the picture's where a format has one file for each picture
FORMATS: tuple[tuple[str, Recognises, Reads], ...] = (
    ("COCO panoptic", panoptic.recognises, panoptic.read),  # before COCO, of which it is a kind
    ("COCO", coco.recognises, coco.read),
    ("LabelMe", labelme.recognises, labelme.read),
    ("Label Studio", label_studio.recognises, label_studio.read),
)


# the same for readers of boxes alone, which need not read the outlines of objects that have a box
BOX_FORMATS = tuple((name, is_it, coco.read_boxes if name == "COCO" else read) for name, is_it, read in FORMATS)


def read_file(path: Path, boxes: bool = False) -> AnnotationSet:
    """Read one JSON file.  boxes: of objects that have a box, only that.

    Refused: a file that is not JSON, or not of a known format.
    """
    try:
        data = _parsed(path)
    except Refused as e:
        raise Refused(f"{path} {e}") from None
    annotations = _recognise(data, path, path.stem, boxes)
    if annotations is None:
        names = ", ".join(name for name, _, _ in FORMATS)
        raise Refused(f"{path} is JSON of an unknown format, none of {names}: {EXPECTED}")
    return annotations


def read_folder(files: dict[Path, str], boxes: bool = False) -> list[AnnotationSet]:
    """Read the JSON files of a folder (file -> its name below the folder), joined by format; boxes as in `read_file`.

    A file of an unknown format is skipped.  A broken file is an entry of every format, since its format is unknown.
    """
    by_form: dict[str, AnnotationSet] = {}
    broken: list[Entry] = []
    for path, name in files.items():
        try:
            data = _parsed(path)
        except Refused as e:
            broken.append(((name,), partial(Sheet, bad=(f"{path.name} {e}",))))
            continue
        annotations = _recognise(data, path, name, boxes)
        if annotations is not None:
            so_far = by_form.get(annotations.form)
            entries = [*(so_far.entries if so_far else []), *annotations.entries]
            notes = tuple(dict.fromkeys([*(so_far.notes if so_far else ()), *annotations.notes]))
            classes = tuple(dict.fromkeys([*(so_far.classes if so_far else ()), *annotations.classes]))
            origins = (*(so_far.origins if so_far else ()), *[path] * len(annotations.entries))
            form, nameless = annotations.form, annotations.nameless
            by_form[form] = AnnotationSet(form, entries, nameless, notes, classes, origins)
    if broken and not by_form:
        raise Refused(f"{next(iter(files)).parent} holds no annotations: {broken[0][1]().bad[0]}")
    return [replace(f, entries=[*f.entries, *broken]) for f in by_form.values()]


def _parsed(path: Path) -> object:
    """The content of the file.  Refused, with the end of a sentence: text that is not JSON, and a key given twice."""
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as e:
        raise Refused(f"is not JSON: {e or 'too many lists within lists'}") from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"it gives {[key for key, _ in pairs]} with a key twice")
    return record


def _recognise(data: object, path: Path, name: str, boxes: bool) -> AnnotationSet | None:
    formats = BOX_FORMATS if boxes else FORMATS
    return next((read(data, path, name) for _, recognises, read in formats if recognises(data)), None)
