"""metadata.csv, .jsonl or .parquet beside pictures, as Hugging Face datasets has it: columns, perhaps with classes.

Their imagefolder loader drops the classes of folders as soon as there is such a file, and the pictures that it does
not list.  Here nothing is dropped: classes of folders stay where the file has none, and so do pictures that it does not
list.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clearsight.core.classifier import plain
from clearsight.core.label_names import is_number
from clearsight.data.lists import Listed, listed
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import part_of
from clearsight.data.walk import Walked, named
from clearsight.errors import Refused

UNKNOWN = "-1"
FOLDER = "folder"  # what --label-column says for the classes of the folders


@dataclass(frozen=True)
class _Called:
    """What a class is called in the end: word of a folder -> class, word of the table -> class.

    folders: None where folders are no classes.  how: a sentence.
    """

    folders: dict[str, str] | None
    table: dict[str, str]
    how: str


def with_metadata(root: Path, found: Walked, pictures: Sequence[Picture], asked: str | None) -> Pictures:
    """Pictures with what the tables say of them.

    asked: the column of the classes, or "folder".  Refused: classes of the table that are others than those of the
    folders, unless asked says which; tables whose columns of classes differ; splits that differ from the folders'.
    """
    tables = _tables(found, asked)
    said = {os.path.normpath(p.path): p for _, told in tables for p in told.pictures}
    labels = {c.label for _, told in tables if (c := told.columns).label}
    kinds = {c.numbered for _, told in tables if (c := told.columns).label}
    if len(labels) > 1 or len(kinds) > 1:
        raise Refused(f"the tables of {root} have their classes in {' and '.join(sorted(labels))}: give them one name")
    own = {p.name: said.pop(os.path.normpath(p.path), None) for p in pictures}
    called = _called(root, pictures, own, asked) if labels else _Called({}, {}, "classes are those of the folders")
    rest = [replace(p, name=_name(p.path, root)) for p in said.values()]  # missing, or of no picture's suffix
    merged = [_merged(p, own[p.name], called) for p in pictures] + [_merged(p, p, called) for p in rest]
    notes = [*dict.fromkeys(note for _, told in tables for note in told.notes)]
    if any(p.labels for p in pictures):
        notes.append(called.how)
    if unlisted := sorted(name for name, told in own.items() if told is None):
        bare = sum(not p.labels for p in merged if p.name in own and own[p.name] is None)
        many = " and ".join(dict.fromkeys(table.name for table, _ in tables))
        notes.append(
            f"{many} does not list {len(unlisted)} of the pictures, which are kept, {bare} of them unlabelled: "
            f"{named(unlisted)}"
        )
    broken = [*found.broken, *((f"{_name(t, root)} {n}", why) for t, told in tables for n, why in told.broken)]
    return Pictures(
        root,
        tuple(merged),
        tuple(broken),
        (*notes, *found.notes()),
        numbered=kinds == {True} and not called.table,
        column=next(iter(labels), ""),
    )


def _tables(found: Walked, asked: str | None) -> list[tuple[Path, Listed]]:
    """What each table lists.  Refused: two in one folder, and a picture that two of them list."""
    places = [table.parent for table in found.tables]
    if double := [table for table in found.tables if places.count(table.parent) > 1]:
        raise Refused(f"{double[0].parent} holds {' and '.join(t.name for t in double[:3])}: leave one of them there")
    column = None if asked == FOLDER else asked
    tables = [(table, _known(listed(table, column, need=False, classes=asked != FOLDER))) for table in found.tables]
    first: dict[str, Path] = {}
    for table, told in tables:
        for picture in told.pictures:
            other = first.setdefault(os.path.normpath(picture.path), table)
            if other != table:
                raise Refused(f"{other} and {table} both list {picture.path}: leave it in one of them")
    return tables


def _known(told: Listed) -> Listed:
    """A table without the -1 that Hugging Face datasets write among class numbers where the class is not known."""
    words = {word for p in told.pictures for word in p.labels}
    if UNKNOWN not in words or not all(word.isascii() and word.isdecimal() for word in words - {UNKNOWN}):
        return told
    without = sum(p.labels == (UNKNOWN,) for p in told.pictures)
    pictures = tuple(replace(p, labels=tuple(w for w in p.labels if w != UNKNOWN)) for p in told.pictures)
    note = (
        f"{UNKNOWN} among the class numbers in column {told.columns.label} is no class: {without} pictures unlabelled"
    )
    return replace(told, pictures=pictures, notes=(*told.notes, note))


def _called(root: Path, pictures: Sequence[Picture], own: Mapping[str, Picture | None], asked: str | None) -> _Called:
    """How classes are called where a table has some.

    Refused: where those of the table and of the folders are neither the same nor go together one to one.
    """
    folders = {p.labels[0] for p in pictures if p.labels}
    pairs = {(p.labels[0], told.labels) for p in pictures if p.labels and (told := own[p.name]) and told.labels}
    if len(folders) < 2:
        return _Called(None, {}, "the folders of the pictures are not taken for classes, which the table gives")
    if not pairs:
        return _Called({}, {}, "pictures to which the table gives no class have that of their folder")
    apart = sorted(pair for pair in pairs if plain(pair[0]) not in map(plain, pair[1]))
    if not apart:
        same = {folder: word for folder, labels in pairs for word in labels if plain(word) == plain(folder)}
        return _Called(same, {}, "the table's classes are those of the folders")
    single = {(folder, labels[0]) for folder, labels in pairs if len(labels) == 1}
    if len(single) == len(pairs) == len({f for f, _ in pairs}) == len({w for _, w in single}) > 1:
        if not all(is_number(word) for _, word in single):
            return _Called(dict(single), {}, "the table's classes go with the folders one to one: its words are taken")
        names = {word: folder for folder, word in single}
        if all(word in names for told in own.values() if told for word in told.labels):
            how = "the table's class numbers go with the folders one to one: the folders' names are taken"
            return _Called({}, names, how)
    if asked is not None:
        return _Called(None, {}, f"the folders are not taken for classes: column {asked} gives others, as asked")
    folder, labels = apart[0]
    raise Refused(
        f"{root}: pictures in folder {folder} are {'|'.join(labels)} in the table, and the two do not go together: say "
        f"which are the classes, --label-column NAME for a column, or --label-column {FOLDER}"
    )


def _merged(picture: Picture, told: Picture | None, called: _Called) -> Picture:
    """A picture with what the table says of it."""
    split = picture.split
    if told and told.split:
        if split and (part_of(split) or split) != (part_of(told.split) or told.split):
            raise Refused(f"{picture.path} lies in split {split}, and its table says {told.split}: mend one of them")
        split = split or told.split
    labels = tuple(called.table.get(word, word) for word in told.labels) if told else ()
    if not labels and called.folders is not None:
        labels = tuple(called.folders.get(word, word) for word in picture.labels)
    return replace(picture, labels=labels, split=split, columns=told.columns if told else {})


def _name(path: Path, root: Path) -> str:
    name = os.path.relpath(path, root) if path.is_absolute() == root.is_absolute() else str(path)
    return name.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode()
