"""A table in the place of a folder of pictures with boxes or class maps: the pictures that it lists, in its splits.

Such a table is the split.csv of a trained detector or segmenter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from clearsight.core.text import counted
from clearsight.data.datasets import folder
from clearsight.data.records import Pictures
from clearsight.data.rows import TABLES
from clearsight.data.split_words import ALL
from clearsight.data.text_inputs import refuse_texts
from clearsight.data.walk import named


@dataclass(frozen=True)
class Listed:
    """The pictures of a table.

    table: the file.  root: the folder in which all of them lie.  splits: that of each, by its resolved path.  broken:
    rows whose picture cannot be one, each with the reason.
    """

    table: Path
    root: Path
    splits: dict[Path, str]
    broken: tuple[tuple[str, str], ...]


def open_listed(path: Path, open_folder: Callable[[Path], Pictures]) -> Pictures:
    """The pictures of a folder as `open_folder` gives them; of a table those that it lists, in its splits.

    Refused: what cannot be read as a table of pictures, and what `open_folder` refuses.
    """
    if not (path.suffix.lower() in TABLES and path.is_file()):
        return open_folder(path)
    listed = _listed(path)
    return _only(open_folder(listed.root), listed)


def _listed(table: Path) -> Listed:
    rows = folder(table, split=ALL)
    refuse_texts(rows, "a detector or a segmenter")
    splits = {picture.path.resolve(): picture.split for picture in rows.pictures}
    return Listed(table, Path(os.path.commonpath([path.parent for path in splits])), splits, rows.broken)


def _only(data: Pictures, listed: Listed) -> Pictures:
    """Of all pictures of a folder those that are listed; a note counts those for which nothing is annotated."""
    places = {picture.name: picture.path.resolve() for picture in data.pictures}
    places |= {name: (listed.root / name).resolve() for name, _ in data.broken}
    pictures = tuple(
        replace(picture, split=listed.splits[places[picture.name]])
        for picture in data.pictures
        if places[picture.name] in listed.splits
    )
    broken = tuple(one for one in data.broken if places[one[0]] in listed.splits)
    notes = [f"{len(pictures)} of them are in {listed.table.name}"]
    if missing := listed.splits.keys() - places.values():
        names = named(sorted(path.name for path in missing))
        notes.append(f"not among them are, of {listed.table.name}, {counted(len(missing), 'picture')}: {names}")
    kept = {*(picture.name for picture in pictures), *(name for name, _ in broken)}
    return replace(
        data,
        root=listed.table,
        pictures=pictures,
        broken=(*broken, *listed.broken),
        notes=(*data.notes, *notes),
        problems=tuple(p for p in data.problems if p.picture in kept),
    )
