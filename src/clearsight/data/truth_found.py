"""Which truth a folder of pictures holds, by the names of its folders and files alone: nothing is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clearsight.data.split_words import KNOWN
from clearsight.data.walk import TABLES, walk

Truth = Literal["boxes", "masks", "classes"]
_IMAGES = frozenset({"images", "jpegimages"})
_BOXES = frozenset({"annotations", "labels", "boxes"})
_MASKS = frozenset({"masks", "mask", "segmentationclass", "semantic", "segmentation"})
_FORMS = (".json", ".xml", ".txt")


def truth_found(path: Path) -> tuple[Truth, ...]:
    """What a folder holds beside its pictures: files of boxes, folders of masks, and classes as two folders or a table.

    Boxes are JSON, XML or text in a folder annotations/, labels/ or boxes/, or XML that is called as a picture beside
    it.  () where there is nothing of the kind, or no folder.
    """
    if not path.is_dir():
        return ()
    folder = walk(path)
    found: list[Truth] = []
    names = {str(Path(name).with_suffix("")) for name in folder.pictures}
    if any(_is_of_boxes(Path(name), names) for name in folder.others):
        found.append("boxes")
    if any(_MASKS & {part.lower() for part in Path(name).parts[:-1]} for name in folder.pictures):
        found.append("masks")
    if _classes(list(folder.pictures)) >= 2 or (folder.pictures and _has_table(path)):
        found.append("classes")
    return tuple(found)


def _is_of_boxes(file: Path, pictures: set[str]) -> bool:
    if file.suffix.lower() not in _FORMS:
        return False
    inside = bool(_BOXES & {part.lower() for part in file.parts[:-1]})
    return inside or (file.suffix.lower() == ".xml" and str(file.with_suffix("")) in pictures)


def _classes(pictures: list[str]) -> int:
    """How many folders hold pictures that are called neither as splits are nor as folders of pictures or truth."""
    others = KNOWN | _IMAGES | _BOXES | _MASKS
    parents = [[part for part in Path(name).parts[:-1] if part.lower() not in others] for name in pictures]
    truth = [any(part.lower() in _MASKS | _BOXES for part in Path(name).parts[:-1]) for name in pictures]
    return len({parts[-1] for parts, is_truth in zip(parents, truth, strict=True) if parts and not is_truth})


def _has_table(path: Path) -> bool:
    return any((path / name).is_file() for name in ("labels.csv", *TABLES))
