"""Pictures in folders: class/x.jpg, split/class/x.jpg, flat, or beside a table of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.data.fiftyone import is_fiftyone, read_fiftyone
from clearsight.data.lists import list_pictures, read_picture_table
from clearsight.data.metadata import with_metadata
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import KNOWN, SPLITS
from clearsight.data.walk import FolderContent, named, walk
from clearsight.errors import Refused

UNLABELLED = "no_label"  # where datumaro's imagenet format puts pictures without a class


def read_folder(root: Path, label_column: str | None) -> Pictures:
    """Read all pictures in a folder, with the classes from a table beside them, else from their folders."""
    folder = walk(root)
    paths = folder.pictures
    tops = {name.split("/")[0] for name in paths if "/" in name}
    flat = any("/" not in name for name in paths)
    csv, json = root / "labels.csv", root / "labels.json"
    is_listed = csv.is_file() and (flat or tops <= {"images"})
    is_exported = json.is_file() and (flat or tops <= {"data"}) and is_fiftyone(json)
    tables = [*([csv] if is_listed else []), *([json] if is_exported else []), *folder.tables]
    if len(tables) > 1 and (is_listed or is_exported):
        raise Refused(f"{root} holds {' and '.join(t.name for t in tables)}: name one of them as DATA")
    if is_exported and label_column is None:
        return replace(read_fiftyone(json), root=root)
    if is_listed:
        return _read_labels_csv(root, csv, folder, label_column)
    pictures, notes = _by_folder(root, folder)
    if csv.is_file() and _lists_pictures(csv, folder):
        folder.others.remove(csv.name)
        folder.tables.append(csv)
    notes += _unread_note(folder)
    if folder.tables:
        labelled = with_metadata(root, folder, pictures, label_column)
        return replace(labelled, notes=(*labelled.notes, *notes))
    if label_column is not None:
        raise Refused(
            f"label_column={label_column} needs a table, and {root} has no labels.csv or metadata.csv beside the "
            "pictures: leave the option out, or add the table"
        )
    outside = sum(not picture.labels for picture in pictures)
    if not any(p.split for p in pictures) and 0 < outside < len(pictures):
        notes.insert(0, f"{outside} of {len(pictures)} pictures lie in no class folder: unlabelled")
    return Pictures(root, tuple(pictures), tuple(folder.broken), (*notes, *folder.notes()))


def _read_labels_csv(root: Path, table: Path, folder: FolderContent, label_column: str | None) -> Pictures:
    """Read the pictures that a labels.csv lists; a note names those that it does not list."""
    labelled = read_picture_table(table, label_column)
    unlisted = sorted(folder.pictures.keys() - {picture.name for picture in labelled.pictures})
    omission = f", which does not list {len(unlisted)} of the pictures, left out: {named(unlisted)}" if unlisted else ""
    notes = (f"labels from {table.name}{omission}", *labelled.notes, *folder.notes([table.name]))
    return replace(labelled, root=root, broken=(*labelled.broken, *folder.broken), notes=notes)


def _lists_pictures(table: Path, folder: FolderContent) -> bool:
    """Whether a labels.csv beside folders lists any of the pictures in them."""
    try:
        content = list_pictures(table, None, need=False, classes=False)
    except Refused:
        return False
    return any(p.name in folder.pictures for p in content.pictures)


def _unread_note(folder: FolderContent) -> list[str]:
    """A note on a labels.csv or labels.json beside folders that lists none of their pictures."""
    return [
        f"{name} is not read: it lists none of the pictures in the folders"
        for name in folder.others
        if name in ("labels.csv", "labels.json") and any("/" in picture for picture in folder.pictures)
    ]


def _by_folder(root: Path, folder: FolderContent) -> tuple[list[Picture], list[str]]:
    """Pictures with the splits and classes of their folders, and notes on folders that are not classes."""
    paths = folder.pictures
    tops = {name.split("/")[0] for name in paths if "/" in name}
    flat = any("/" not in name for name in paths)
    splits = {top for top in tops if top.lower() in KNOWN}
    train = {top for top in splits if top.lower() in SPLITS["train"]}
    if not (train and splits - train) and (flat or splits != tops):
        splits = set()  # one class among others may be called train
    pictures = []
    for name, path in paths.items():
        *above, _ = name.split("/")
        split = above.pop(0) if above and above[0] in splits else ""
        pictures.append(Picture(path, name, tuple(above[:1]), split=split))
    notes = [*_nested_note(pictures, splits), *_empty_folders_note(folder, splits)]
    if any(p.labels not in ((), (UNLABELLED,)) for p in pictures) and any(p.labels == (UNLABELLED,) for p in pictures):
        count = sum(p.labels == (UNLABELLED,) for p in pictures)
        pictures = [replace(p, labels=()) if p.labels == (UNLABELLED,) else p for p in pictures]
        notes.append(
            f"{count} pictures in folder {UNLABELLED} are unlabelled, as datumaro writes pictures without a class: "
            "rename the folder if it is a class"
        )
    return pictures, notes


def _nested_note(pictures: Sequence[Picture], splits: set[str]) -> list[str]:
    """A note on pictures in folders below the folder of their class, which may be the true classes or splits."""
    nested: dict[str, str] = {}
    for picture in pictures:
        if not picture.labels or (splits and not picture.split):
            continue
        above, first = picture.name.split("/")[:-1], int(bool(picture.split))
        if len(above) > first + 1:
            nested["/".join(above[: first + 2])] = above[first]
    if not nested:
        return []
    tops = sorted(set(nested.values()))
    return [
        f"pictures in {named(sorted(nested))} have class {named(tops)}: the first folder is the class; if lower "
        "folders are the classes or the splits, arrange them as class/x.jpg or split/class/x.jpg"
    ]


def _empty_folders_note(folder: FolderContent, splits: set[str]) -> list[str]:
    """A note on folders of classes or splits that hold no picture."""
    filled = {
        "/".join(parts[:n]) for name in folder.pictures for parts in [name.split("/")] for n in range(1, len(parts))
    }

    def counts(name: str) -> bool:
        top, *lower = name.split("/")
        return len(lower) == (top in splits) and name not in filled

    empty = sorted(filter(counts, folder.folders))
    return [f"folders without a picture, which are not classes: {named(empty)}"] if empty else []
