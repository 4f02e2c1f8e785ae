"""The pictures of a folder for which boxes or class maps are read, their splits, and notes on what is wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.data.images import check_file
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import KNOWN, take_split
from clearsight.data.truth_records import TruthProblem
from clearsight.data.walk import walk
from clearsight.errors import Refused

_PICTURES = frozenset({"images", "jpegimages"})  # folders of pictures that stand beside folders of annotations

TITLES = {
    "no-picture": "annotations without a picture",
    "unreadable": "annotations that cannot be read",
    "size": "annotations of another size than their picture",
    "damaged": "boxes with damaged coordinates",
    "no-area": "boxes without area",
    "outside": "boxes outside their picture",
    "beyond": "boxes that stick out of their picture",
    "unknown-class": "objects of unknown classes",
    "one-pixel": "boxes of one pixel",
    "duplicate": "duplicate boxes",
    "one-based": "signs that coordinates count from 1",
    "per-cent": "signs that coordinates are per cent",
    "map": "doubtful class maps",
}

ADVICE = {  # what to do about each kind
    "no-picture": "Add the pictures, or correct the names in the annotation.",
    "unreadable": "Correct the annotation: what cannot be read is not learned and not judged.",
    "size": "Annotate the picture as people see it, turned as its EXIF says, at its own size.",
    "damaged": "Correct or remove these boxes.",
    "no-area": "Correct or remove these boxes.",
    "outside": "See whether the coordinates are of another size of picture, or count otherwise.",
    "beyond": "See whether the coordinates are of another size of picture, or count otherwise.",
    "unknown-class": "Correct the classes, or name them in the labels.",
    "one-pixel": "Remove these boxes: no detector finds them, and each counts as missed.",
    "duplicate": "Remove one of the two: a detector gives one box for an object, and the other counts as missed.",
    "one-based": "If they do, take 1 from x0 and y0; Pascal VOC has voc_base=1.",
    "per-cent": "If they are, multiply them by the picture's width and height and divide by 100.",
    "map": "Correct the numbers or outlines, or name the classes in the labels.",
}


def list_pictures(root: Path, annotations: Path | None) -> Pictures:
    """All pictures of a folder, of every split, without those below `annotations`, which are masks.

    Where some lie in a folder images or JPEGImages, the others are not pictures of the set.
    Refused: what is not a folder.
    """
    check_folder(root)
    folder = walk(root)
    inside = None if annotations is None or not annotations.is_dir() else annotations.resolve()
    holds_pictures = inside is None or root.resolve().is_relative_to(inside)
    files = {
        name: path
        for name, path in folder.pictures.items()
        if holds_pictures or inside is None or not path.resolve().is_relative_to(inside)
    }
    in_images = {name: path for name, path in files.items() if _PICTURES & {p.lower() for p in name.split("/")[:-1]}}
    good, broken = [], list(folder.broken)
    for name, path in sorted((in_images or files).items()):
        try:
            check_file(path)
        except Refused as e:
            broken.append((name, str(e)))
            continue
        good.append(Picture(path, name, split=split_word(name.split("/")[:-1])))
    return Pictures(root, tuple(good), tuple(sorted(broken)))


def check_folder(root: Path) -> None:
    """Refuse what is not a folder."""
    if not root.is_dir():
        raise Refused(f"no folder of pictures at {root}", "give the folder that holds images/ or the pictures")


def split_word(parts: Sequence[str]) -> str:
    """The first word of these names that is that of a split, without digits; "" where there is none.

    >>> split_word(["images", "train2017"]), split_word(["instances_val2017"]), split_word(["trainer"])
    ('train', 'val', '')
    """
    words = (word for part in parts for word in re.split(r"[^a-z]+", part.lower()))
    return next((word for word in words if word in KNOWN), "")


def split_of_file(file: Path | None, below: Path) -> str:
    """The split that a file of many annotations is called after, or its folder below the one that was given."""
    if file is None:
        return ""
    folders = file.parent.relative_to(below).parts if file.parent.is_relative_to(below) else ()
    return split_word([file.stem, *reversed(folders)])


def beside(root: Path) -> list[Path]:
    """The folders in which annotations of the pictures may lie: the one given, and the one that holds its images/.

    Refused: what is not a folder.
    """
    check_folder(root)
    return [root, root.parent] if root.resolve().name.lower() in _PICTURES else [root]


def finish(data: Pictures, split: str | None) -> Pictures:
    """The pictures of a split.  Refused where there are none."""
    if not data.pictures:
        reasons = [f"{name}: {reason}" for name, reason in data.broken[:3]] or [*data.notes[:3]] or ["it is empty"]
        raise Refused(f"no pictures in {data.root}: {'; '.join(reasons)}")
    chosen = take_split(data, split)
    names = {picture.name for picture in data.pictures} - {picture.name for picture in chosen.pictures}
    return replace(chosen, problems=tuple(p for p in data.problems if p.picture not in names))


def summed_up(problems: Sequence[TruthProblem]) -> list[str]:
    """A note for each kind of problem, with the first three."""
    by_code: dict[tuple[str, bool], list[TruthProblem]] = defaultdict(list)
    for problem in problems:
        by_code[problem.code, problem.kept].append(problem)
    notes = []
    for (code, kept), same in by_code.items():
        verb = "used, but to look at" if kept else "left out"
        more = f"; and {len(same) - 3} more" if len(same) > 3 else ""
        notes.append(f"{len(same)} {TITLES[code]}, {verb}: {'; '.join(map(str, same[:3]))}{more}")
    return notes
