"""The boxes of pictures as a detector's truth, out of the annotations that `annotations` reads.

Nothing is guessed: a box that cannot be used is left out and named, one that is doubtful is used and named, and the
words of a problem say what it looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clearsight.data.annotation_formats.regions import Box, Region, Size, pixels_of
from clearsight.data.annotation_formats.sheets import Sheet, by
from clearsight.data.annotation_formats.sheets import named as list_names
from clearsight.data.annotations import match_pictures, read_set
from clearsight.data.box_problems import Table, find_problems, refuse_other_units
from clearsight.data.images import open_mask, picture_size
from clearsight.data.truth_classes import Numbering, number_classes
from clearsight.data.truth_records import BoxTruth, TruthProblem
from clearsight.errors import Refused


@dataclass(frozen=True)
class BoxSet:
    """The boxes of a set of pictures.

    truth: name of the picture -> its objects.  broken: (name, reason) of the pictures whose annotation cannot be used.
    origin: name of the picture -> the file that annotates it, where that file annotates several.
    """

    form: str
    classes: tuple[str, ...]
    truth: Mapping[str, BoxTruth]
    problems: tuple[TruthProblem, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    origin: Mapping[str, Path]


@dataclass(frozen=True)
class _Object:
    """An object as it is read.  row: of its picture; box: in pixels, as written."""

    row: int
    thing: str
    box: Box
    region: Region


def read_truth(
    path: Path,
    pictures: Mapping[str, Path],
    labels: Sequence[str] | Mapping[int, str] | None = None,
    *,
    voc_base: int | None = None,
) -> BoxSet:
    """Read the boxes of pictures.  The arguments are those of `read_boxes`; labels as in `open_boxes`.

    Refused: what `read_boxes` refuses, boxes that are all in other units than the format's, and where no box is left.
    """
    try:
        annotations = read_set(path, pictures, voc_base, boxes=True)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    sheets, unmatched, remarks = match_pictures(annotations, pictures, path)
    if not sheets:
        both = f"they name {list_names(unmatched) or 'none'}; the pictures are {list_names(list(pictures)) or 'none'}"
        raise Refused(f"{annotations.form} annotations at {path} fit no picture", both)
    names = list(sheets)
    problems = [TruthProblem("no-picture", name, words="no picture has this name") for name in unmatched]
    sizes, objects, unread = _read_objects(names, pictures, sheets, remarks)
    problems += unread
    numbering = number_classes([o.region for o in objects], annotations, labels, path)
    table = _tabulate(objects, sizes, names, numbering)
    if objects:
        refuse_other_units(table, annotations.form, path)
    found, kept = find_problems(table, numbering)
    problems += found
    truth, broken = _by_picture(table, kept, objects, problems)
    if not any(len(t) for t in truth.values()):
        raise Refused(
            f"{annotations.form} annotations at {path} hold no box that can be used: "
            f"{'; '.join(map(str, problems[:3])) or 'they list no object'}"
        )
    file_of = {id(sheet): file for (_, sheet), file in zip(annotations.entries, annotations.origins, strict=False)}
    origin = {name: file_of[id(sheet)] for name, sheet in sheets.items() if id(sheet) in file_of}
    told = [f"{len(remarks)} remarks on {annotations.form} annotations: {list_names(remarks)}"] if remarks else []
    notes = (*annotations.notes, *numbering.notes, *told)
    return BoxSet(annotations.form, numbering.classes, truth, tuple(problems), broken, notes, origin)


def _read_objects(
    names: Sequence[str], pictures: Mapping[str, Path], sheets: Mapping[str, Callable[[], Sheet]], remarks: list[str]
) -> tuple[list[Size | None], list[_Object], list[TruthProblem]]:
    """The size of each picture (None where it is broken, which is reported where pictures are read) and its objects."""
    sizes: list[Size | None] = []
    objects: list[_Object] = []
    problems: list[TruthProblem] = []
    for row, name in enumerate(names):
        size = _size_of(pictures[name])
        sizes.append(size)
        if size is None:
            continue
        sheet = _read(sheets[name])
        problems += [TruthProblem("unreadable", name, words=why) for why in sheet.bad]
        remarks += [f"{name} ({remark})" for remark in sheet.remarks]
        if sheet.size is not None and sheet.size != size:
            problems.append(TruthProblem("size", name, words=_other_size(sheet.size, size)))
            continue
        scale = size if sheet.fractions else (1, 1)
        for at, region in enumerate(sheet.regions):
            thing = sheet.names[at] if sheet.names else f"object {at + 1}"
            try:
                objects.append(_Object(row, thing, _box_of(region, scale), region))
            except Refused as e:
                problems.append(TruthProblem("unreadable", name, thing, words=str(e)))
    return sizes, objects, problems


def _size_of(path: Path) -> Size | None:
    try:
        return picture_size(path)
    except Refused:
        return None


def _read(read: Callable[[], Sheet]) -> Sheet:
    try:
        return read()
    except OSError as e:
        return Sheet(bad=(f"cannot read {e.filename}: {e.strerror}",))


def _other_size(stated: Size, size: Size) -> str:
    words = f"annotated at {by(stated)} pixels, but the picture, upright, has {by(size)}"
    return f"{words}; perhaps it was annotated before it was turned" if stated == size[::-1] else words


def _box_of(region: Region, scale: Size) -> Box:
    """The box of an object: as written where it is one box, else the smallest around all its parts."""
    if len(region.boxes) == 1 and not region.polygons and region.mask is None:
        x0, y0, x1, y1 = region.boxes[0]
        return x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1]
    corners = [corner for box in region.boxes for corner in (box[:2], box[2:])]
    corners += [corner for polygon in region.polygons for corner in polygon]
    parts = [(x * scale[0], y * scale[1]) for x, y in corners]
    if region.mask is not None:
        inside = open_mask(region.mask) if isinstance(region.mask, Path) else pixels_of(region.mask)
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        if not len(rows):
            raise Refused("a mask that marks no pixel")
        parts += [(float(columns[0]), float(rows[0])), (float(columns[-1] + 1), float(rows[-1] + 1))]
    if not parts:
        raise Refused("it has neither box, polygon nor mask")
    xs, ys = zip(*parts, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _tabulate(
    objects: Sequence[_Object], sizes: Sequence[Size | None], names: Sequence[str], numbering: Numbering
) -> Table:
    return Table(
        names=tuple(names),
        sizes=np.array([size or (0, 0) for size in sizes], np.float64).reshape(-1, 2),
        rows=np.array([o.row for o in objects], np.int64),
        things=tuple(o.thing for o in objects),
        boxes=np.array([o.box for o in objects], np.float64).reshape(-1, 4),
        labels=np.array(numbering.numbers, np.int64),
        words=tuple(o.region.label for o in objects),
        crowd=np.array([o.region.stated.crowd for o in objects], bool),
    )


def _by_picture(
    table: Table, kept: NDArray[np.bool_], objects: Sequence[_Object], problems: Sequence[TruthProblem]
) -> tuple[dict[str, BoxTruth], tuple[tuple[str, str], ...]]:
    """The truth of each picture, and those whose objects were all left out: they may hold any, so they say nothing."""
    wide_high = np.tile(table.sizes[table.rows], 2) if len(objects) else np.zeros((0, 4))
    with np.errstate(invalid="ignore"):
        boxes = np.clip(table.boxes, 0, wide_high)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    stated = [o.region.stated for o in objects]
    areas = np.array([s.area or area for s, area in zip(stated, areas.tolist(), strict=True)], np.float64)
    chosen = np.flatnonzero(kept)
    counts = np.bincount(table.rows[chosen], minlength=len(table.names)).tolist()
    columns = (
        torch.split(torch.from_numpy(boxes[chosen]).float(), counts),
        torch.split(torch.from_numpy(table.labels[chosen]), counts),
        torch.split(torch.from_numpy(table.crowd[chosen]), counts),
        torch.split(torch.from_numpy(areas[chosen]).float(), counts),
        torch.split(torch.tensor([s.difficult for s in stated], dtype=torch.bool)[chosen], counts),
    )
    unusable = {p.picture: p for p in problems if not p.kept and p.code not in ("unknown-class", "no-picture")}
    truth: dict[str, BoxTruth] = {}
    broken = []
    things = iter([table.things[i] for i in chosen.tolist()])
    sizes: list[list[int]] = table.sizes.astype(int).tolist()
    for name, (wide, high), boxed, labels, crowd, area, difficult in zip(table.names, sizes, *columns, strict=True):
        named = tuple(islice(things, len(labels)))
        if wide and not named and name in unusable:
            broken.append((name, f"its annotation cannot be used: {_without_name(unusable[name])}"))
        elif wide:
            truth[name] = BoxTruth(boxed, labels, crowd, area, difficult, (wide, high), named)
    return truth, tuple(broken)


def _without_name(problem: TruthProblem) -> str:
    return str(problem).removeprefix(problem.picture).lstrip(": ")
