"""A CSV with a row for each box: file, box_x, box_y, box_w, box_h, in pixels, and perhaps label, the object's class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from clearsight.core.label_names import is_number, plain
from clearsight.core.tables import read_table
from clearsight.data.annotation_formats.regions import Region
from clearsight.data.annotation_formats.sheets import EXPECTED, AnnotationSet, Sheet, named, number, numbers, shown
from clearsight.errors import Refused

_CORNERS = ("box_x", "box_y", "box_w", "box_h")


def read(path: Path) -> AnnotationSet:
    """An entry for each file that a row names.  Refused without the columns."""
    columns, written = read_table(path)
    spelt = [plain(column).replace(" ", "_") for column in columns]
    if any(spelt.count(column) != 1 for column in ("file", *_CORNERS)) or spelt.count("label") > 1:
        raise Refused(f"{path} has the columns {', '.join(columns) or 'none'}: {EXPECTED}")
    rows = [dict(zip(spelt, row.values(), strict=True)) for row in written]
    rows_of: dict[str, list[tuple[int, Mapping[str, str]]]] = defaultdict(list)
    for at, row in enumerate(rows, 1):
        rows_of[row["file"]].append((at, row))
    unnamed = f"boxes without a file ({named([str(at) for at, _ in rows_of.get('', [])])})"
    return AnnotationSet(
        "CSV", [((name or unnamed,), partial(_sheet, file_rows)) for name, file_rows in rows_of.items()]
    )


def _sheet(rows: Sequence[tuple[int, Mapping[str, str]]]) -> Sheet:
    """Boxes are called by their place in the table, from 1 on."""
    regions, names, bad = [], [], []
    for at, row in rows:
        box = numbers([row[corner] for corner in _CORNERS])
        if box is None:
            invalid = [f"{corner} is {shown(row[corner])}" for corner in _CORNERS if number(row[corner]) is None]
            bad.append(f"box {at}: {', '.join(invalid)}, which is not a number")
        else:
            place = (box[0], box[1], box[0] + box[2], box[1] + box[3])
            label = row.get("label") or None
            regions.append(Region((place,), label=label, numbered=label is not None and is_number(label)))
            names.append(f"box {at}")
    return Sheet(tuple(regions), bad=tuple(bad), names=tuple(names))
