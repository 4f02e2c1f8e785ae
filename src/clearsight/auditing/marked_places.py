"""Places of the model's input as boxes in pictures, for a training that is to avoid them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from clearsight.auditing.case import Case
from clearsight.core.preprocess import Preprocess
from clearsight.data.images import from_model, picture_size
from clearsight.data.records import Picture
from clearsight.errors import Refused
from clearsight.models.model_folder import part_pictures
from clearsight.reporting.findings import BoxTable

if TYPE_CHECKING:  # which imports scikit-learn
    from clearsight.auditing.spray import Box

COLUMNS = ("file", "box_x", "box_y", "box_w", "box_h")  # as a CSV of annotations is read


def avoided(case: Case, name: str, found: Sequence[tuple[Box, Iterable[int]]]) -> BoxTable | None:
    """The boxes of places in the pictures that they were found on, and in all that trained the run that is audited.

    A place is the same in every picture, so that it can be avoided in pictures that were not looked at.  found: for
    each place its box and its rows.  None where a run does not say what trained it: boxes of other pictures guide none.

    Args:
        case: the model and the pictures.
        name: name of the file.
        found: each box (top, left, bottom, right) in the model's input, and the rows of its pictures.
    """
    run = pictures_of_run(case.model.source)
    if run is None:
        return None
    names = {os.path.realpath(file): name for name, file in run.files.items()}
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for box, rows in found:
        audited = {_name(case.pictures[i], names): case.pictures[i].path for i in rows}
        for picture, file in (audited | {name: run.files[name] for name in sorted(run.trained)}).items():
            try:
                placed = in_picture(box, picture_size(file), case.model.preprocess)
            except Refused:
                continue  # a picture that is gone trains nothing
            boxes.setdefault(picture, []).append(placed)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((picture, *box) for picture, placed in boxes.items() for box in placed)
    return BoxTable(name, text.getvalue())


def _name(picture: Picture, names: Mapping[str, str]) -> str:
    """The name of a picture in its run, by its file; else its own."""
    return names.get(os.path.realpath(picture.path), picture.name)


def in_picture(box: Box, size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """The whole pixels of a picture under a box of the model's input: x, y, width and height, inside the picture.

    size: (width, height) of the picture.

    >>> in_picture((0, 24, 4, 28), (56, 112), Preprocess((28, 28), (0.0,), (1.0,)))
    (48, 0, 8, 16)
    """
    top, left, bottom, right = box
    corners = from_model(torch.tensor([[left, top], [right, bottom]]), size, preprocess)
    (x, y), (end_x, end_y) = corners[0].add(1e-6).floor().int().tolist(), corners[1].sub(1e-6).ceil().int().tolist()
    x, y = max(x, 0), max(y, 0)
    return x, y, min(end_x, size[0]) - x, min(end_y, size[1]) - y


@dataclass(frozen=True)
class RunPictures:
    """The pictures that a run knows, by their path below the folder of all of them; trained: those that trained it."""

    files: dict[str, Path]
    trained: frozenset[str]


def pictures_of_run(source: str) -> RunPictures | None:
    """The pictures of a run folder, none where the source is no such folder.

    None where the run does not say what trained it.
    """
    try:
        parts: Mapping[str, list[tuple[Path, str]]] = {k: part_pictures(source, k) for k in ("train", "val", "test")}
    except Refused:
        return None
    files = {k: [os.path.realpath(file) for file, _ in of_part] for k, of_part in parts.items()}
    every = [file for of_part in files.values() for file in of_part]
    root = os.path.commonpath([os.path.dirname(file) for file in every]) if every else ""
    named = {file: Path(os.path.relpath(file, root)).as_posix() for file in every}
    return RunPictures({name: Path(file) for file, name in named.items()}, frozenset(named[f] for f in files["train"]))
