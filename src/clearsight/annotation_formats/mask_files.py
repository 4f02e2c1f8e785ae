"""A picture for each picture, of its size and not zero on the object."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from clearsight.annotation_formats.regions import Region
from clearsight.annotation_formats.sheets import Found, Sheet
from clearsight.errors import Refused
from clearsight.pictures import picture_size


def read(called: dict[Path, str]) -> Found:
    """An entry for each file.  called: file -> its name below the folder, without suffix."""
    return Found("masks", [((name,), partial(_sheet, file)) for file, name in called.items()])


def _sheet(file: Path) -> Sheet:
    try:
        return Sheet((Region(mask=file),), picture_size(file))
    except Refused as e:
        return Sheet(bad=(f"mask {file.name}: {e}",))
