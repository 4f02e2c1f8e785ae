"""metadata.csv, .jsonl or .parquet beside pictures, as in Hugging Face datasets: columns, perhaps with classes.

Their imagefolder loader drops the classes of folders, and pictures that the file does not list.  Here both stay:
folders give the classes where the file has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clearsight.core.label_names import is_number, plain
from clearsight.data.lists import TableContent, list_pictures
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import part_of
from clearsight.data.walk import FolderContent, named
from clearsight.errors import Refused

UNKNOWN = "-1"
FOLDER = "folder"  # what --label-column says for the classes of the folders


@dataclass(frozen=True)
class _Naming:
    """The class that each word means: word of a folder -> class, word of the table -> class.

    folders: None where folders are not classes.  how: a note on the choice.
    """

    folders: dict[str, str] | None
    table: dict[str, str]
    how: str


def with_metadata(root: Path, folder: FolderContent, pictures: Sequence[Picture], requested: str | None) -> Pictures:
    """Add the columns, classes and splits of the tables to the pictures.

    requested: the column of the classes, or "folder".  Refused: tables and folders that give different classes, unless
    requested chooses between them; tables whose class columns differ; splits that differ from the folders'.
    """
    tables = _read_tables(folder, requested)
    listed = {os.path.normpath(p.path): p for _, content in tables for p in content.pictures}
    labels = {c.label for _, content in tables if (c := content.columns).label}
    kinds = {c.numbered for _, content in tables if (c := content.columns).label}
    if len(labels) > 1 or len(kinds) > 1:
        names = " and ".join(sorted(labels))
        raise Refused(f"the tables of {root} have their classes in {names}: use one column name in all of them")
    rows = {p.name: listed.pop(os.path.normpath(p.path), None) for p in pictures}
    naming = _Naming({}, {}, "classes are those of the folders")
    if labels:
        naming = _choose_names(root, pictures, rows, requested)
    # missing files, and files without a picture's suffix
    unmatched = [replace(p, name=_name_below(p.path, root)) for p in listed.values()]
    merged = [_merge(p, rows[p.name], naming) for p in pictures] + [_merge(p, p, naming) for p in unmatched]
    notes = [*dict.fromkeys(note for _, content in tables for note in content.notes)]
    if any(p.labels for p in pictures):
        notes.append(naming.how)
    if unlisted := sorted(name for name, row in rows.items() if row is None):
        unlabelled = sum(not p.labels for p in merged if p.name in rows and rows[p.name] is None)
        table_names = " and ".join(dict.fromkeys(table.name for table, _ in tables))
        notes.append(
            f"{table_names} does not list {len(unlisted)} of the pictures, which are kept, {unlabelled} of them "
            f"unlabelled: {named(unlisted)}"
        )
    broken = [
        *folder.broken,
        *((f"{_name_below(t, root)} {n}", why) for t, content in tables for n, why in content.broken),
    ]
    return Pictures(
        root,
        tuple(merged),
        tuple(broken),
        (*notes, *folder.notes()),
        numbered=kinds == {True} and not naming.table,
        column=next(iter(labels), ""),
    )


def _read_tables(folder: FolderContent, requested: str | None) -> list[tuple[Path, TableContent]]:
    """Read each table.  Refused: two tables in one folder, and a picture that two tables list."""
    places = [table.parent for table in folder.tables]
    if double := [table for table in folder.tables if places.count(table.parent) > 1]:
        raise Refused(f"{double[0].parent} holds {' and '.join(t.name for t in double[:3])}: keep one of them")
    column = None if requested == FOLDER else requested
    tables = [
        (table, _drop_unknown(list_pictures(table, column, need=False, classes=requested != FOLDER)))
        for table in folder.tables
    ]
    first: dict[str, Path] = {}
    for table, content in tables:
        for picture in content.pictures:
            other = first.setdefault(os.path.normpath(picture.path), table)
            if other != table:
                raise Refused(f"{other} and {table} both list {picture.path}: list it in one of them only")
    return tables


def _drop_unknown(content: TableContent) -> TableContent:
    """Remove the -1 that Hugging Face datasets write among class numbers where the class is not known."""
    words = {word for p in content.pictures for word in p.labels}
    if UNKNOWN not in words or not all(word.isascii() and word.isdecimal() for word in words - {UNKNOWN}):
        return content
    without = sum(p.labels == (UNKNOWN,) for p in content.pictures)
    pictures = tuple(replace(p, labels=tuple(w for w in p.labels if w != UNKNOWN)) for p in content.pictures)
    column = content.columns.label
    note = f"{UNKNOWN} among the class numbers in column {column} means no class: {without} pictures are unlabelled"
    return replace(content, pictures=pictures, notes=(*content.notes, note))


def _choose_names(
    root: Path, pictures: Sequence[Picture], rows: Mapping[str, Picture | None], requested: str | None
) -> _Naming:
    """Choose between the classes of the table and those of the folders.

    Refused: classes that are neither the same nor correspond one to one.
    """
    folders = {p.labels[0] for p in pictures if p.labels}
    pairs = {(p.labels[0], row.labels) for p in pictures if p.labels and (row := rows[p.name]) and row.labels}
    if len(folders) < 2:
        return _Naming(None, {}, "the table gives the classes; the folders of the pictures are not classes")
    if not pairs:
        return _Naming({}, {}, "pictures without a class in the table have the class of their folder")
    differing = sorted(pair for pair in pairs if plain(pair[0]) not in map(plain, pair[1]))
    if not differing:
        same = {folder: word for folder, labels in pairs for word in labels if plain(word) == plain(folder)}
        return _Naming(same, {}, "the table's classes are those of the folders")
    single = {(folder, labels[0]) for folder, labels in pairs if len(labels) == 1}
    if len(single) == len(pairs) == len({f for f, _ in pairs}) == len({w for _, w in single}) > 1:
        if not all(is_number(word) for _, word in single):
            return _Naming(
                dict(single), {}, "the table's classes correspond to the folders one to one: its words are used"
            )
        names = {word: folder for folder, word in single}
        if all(word in names for row in rows.values() if row for word in row.labels):
            how = "the table's class numbers correspond to the folders one to one: the folders' names are used"
            return _Naming({}, names, how)
    if requested is not None:
        return _Naming(None, {}, f"column {requested} gives the classes, as requested; the folders are not classes")
    folder, labels = differing[0]
    raise Refused(
        f"{root}: pictures in folder {folder} are {'|'.join(labels)} in the table, and folders and table do not "
        f"correspond: choose the classes with --label-column NAME for a column, or --label-column {FOLDER}"
    )


def _merge(picture: Picture, row: Picture | None, naming: _Naming) -> Picture:
    """Add the table's row to a picture.  Refused: a split that differs from the folder's."""
    split = picture.split
    if row and row.split:
        if split and (part_of(split) or split) != (part_of(row.split) or row.split):
            raise Refused(f"{picture.path} lies in split {split}, and its table says {row.split}: correct one of them")
        split = split or row.split
    labels = tuple(naming.table.get(word, word) for word in row.labels) if row else ()
    if not labels and naming.folders is not None:
        labels = tuple(naming.folders.get(word, word) for word in picture.labels)
    return replace(picture, labels=labels, split=split, columns=row.columns if row else {})


def _name_below(path: Path, root: Path) -> str:
    name = os.path.relpath(path, root) if path.is_absolute() == root.is_absolute() else str(path)
    return name.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode()
