"""A picture for each picture, of its size and not zero on the object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clearsight.data.annotation_formats.regions import Region
from clearsight.data.annotation_formats.sheets import AnnotationSet, Sheet, named
from clearsight.data.images import mask_values, picture_size
from clearsight.errors import Refused


def read(names: dict[Path, str]) -> AnnotationSet:
    """An entry for each file.  names: file -> its name below the folder, without suffix."""
    return AnnotationSet("masks", [((name,), partial(_sheet, file)) for file, name in names.items()])


def _sheet(file: Path) -> Sheet:
    try:
        size, values = picture_size(file), mask_values(file)
    except Refused as e:
        return Sheet(bad=(f"mask {file.name}: {e}",))
    remarks = [f"it holds {len(values)} values besides 0, which all count as the object: {_list_values(values)}"]
    return Sheet((Region(mask=file),), size, remarks=tuple(remarks if len(values) > 1 else []))


def _list_values(values: Sequence[tuple[int, ...]]) -> str:
    return named([" ".join(map(str, value)) for value in values])
