"""Pictures in folders: class/x.jpg, split/class/x.jpg, flat, or beside a table that says what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.data.fiftyone import fiftyone, in_fiftyone
from clearsight.data.lists import in_table, listed
from clearsight.data.metadata import with_metadata
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import KNOWN, SPLITS
from clearsight.data.walk import Walked, named, walk
from clearsight.errors import Refused

UNLABELLED = "no_label"  # where datumaro's imagenet format puts pictures without a class


def in_folder(root: Path, label_column: str | None) -> Pictures:
    """All pictures in a folder, with the classes that a table beside them gives, else their folders."""
    found = walk(root)
    below = found.pictures
    tops = {name.split("/")[0] for name in below if "/" in name}
    flat = any("/" not in name for name in below)
    csv, json = root / "labels.csv", root / "labels.json"
    loose = csv.is_file() and (flat or tops <= {"images"})
    exported = json.is_file() and (flat or tops <= {"data"}) and fiftyone(json)
    tables = [*([csv] if loose else []), *([json] if exported else []), *found.tables]
    if len(tables) > 1 and (loose or exported):
        raise Refused(f"{root} holds {' and '.join(t.name for t in tables)}: name the one to be read as DATA")
    if exported and label_column is None:
        return replace(in_fiftyone(json), root=root)
    if loose:
        return _listed(root, csv, found, label_column)
    pictures, notes = _by_folder(root, found)
    if csv.is_file() and _lists(csv, found):
        found.others.remove(csv.name)
        found.tables.append(csv)
    notes += _unread(found)
    if found.tables:
        labelled = with_metadata(root, found, pictures, label_column)
        return replace(labelled, notes=(*labelled.notes, *notes))
    if label_column is not None:
        raise Refused(
            f"label_column={label_column} is for a CSV or another table, and in {root} no labels.csv or metadata.csv "
            "lies beside the pictures"
        )
    outside = sum(not picture.labels for picture in pictures)
    if not any(p.split for p in pictures) and 0 < outside < len(pictures):
        notes.insert(0, f"{outside} of {len(pictures)} pictures lie in no class folder: unlabelled")
    return Pictures(root, tuple(pictures), tuple(found.broken), (*notes, *found.notes()))


def _listed(root: Path, table: Path, found: Walked, label_column: str | None) -> Pictures:
    """The pictures that a labels.csv lists, and what it does not list."""
    listed = in_table(table, label_column)
    rest = sorted(found.pictures.keys() - {picture.name for picture in listed.pictures})
    lacks = f", which does not list {len(rest)} of the pictures, left out: {named(rest)}" if rest else ""
    notes = (f"labels from {table.name}{lacks}", *listed.notes, *found.notes([table.name]))
    return replace(listed, root=root, broken=(*listed.broken, *found.broken), notes=notes)


def _lists(table: Path, found: Walked) -> bool:
    """Whether a labels.csv beside folders is a table of pictures in them, and not of anything else."""
    try:
        told = listed(table, None, need=False, classes=False)
    except Refused:
        return False
    return any(p.name in found.pictures for p in told.pictures)


def _unread(found: Walked) -> list[str]:
    """A note on a labels.csv or labels.json beside folders that lists none of their pictures."""
    return [
        f"{name} is not read: it lists none of the pictures in the folders beside it"
        for name in found.others
        if name in ("labels.csv", "labels.json") and any("/" in picture for picture in found.pictures)
    ]


def _by_folder(root: Path, found: Walked) -> tuple[list[Picture], list[str]]:
    """Pictures with the splits and classes that their folders name, and notes on folders that are no classes."""
    below = found.pictures
    tops = {name.split("/")[0] for name in below if "/" in name}
    flat = any("/" not in name for name in below)
    splits = {top for top in tops if top.lower() in KNOWN}
    train = {top for top in splits if top.lower() in SPLITS["train"]}
    if not (train and splits - train) and (flat or splits != tops):
        splits = set()  # one class among others may be called train
    pictures = []
    for name, path in below.items():
        *above, _ = name.split("/")
        split = above.pop(0) if above and above[0] in splits else ""
        pictures.append(Picture(path, name, tuple(above[:1]), split=split))
    notes = [*_deeper(pictures, splits), *_empty(found, splits)]
    if any(p.labels not in ((), (UNLABELLED,)) for p in pictures) and any(p.labels == (UNLABELLED,) for p in pictures):
        count = sum(p.labels == (UNLABELLED,) for p in pictures)
        pictures = [replace(p, labels=()) if p.labels == (UNLABELLED,) else p for p in pictures]
        notes.append(
            f"{count} pictures lie in folder {UNLABELLED}, where datumaro puts pictures without a class: unlabelled; "
            "call the folder otherwise if it is a class"
        )
    return pictures, notes


def _deeper(pictures: Sequence[Picture], splits: set[str]) -> list[str]:
    """A note on pictures that lie in folders below that of their class, which may be the true classes or splits."""
    lower: dict[str, str] = {}
    for picture in pictures:
        if not picture.labels or (splits and not picture.split):
            continue
        above, first = picture.name.split("/")[:-1], int(bool(picture.split))
        if len(above) > first + 1:
            lower["/".join(above[: first + 2])] = above[first]
    if not lower:
        return []
    tops = sorted(set(lower.values()))
    return [
        f"pictures in {named(sorted(lower))} are of class {named(tops)}: the first folder is the class; where lower "
        "folders are the classes or the splits, lay them out as class/x.jpg or split/class/x.jpg"
    ]


def _empty(found: Walked, splits: set[str]) -> list[str]:
    """A note on folders where classes or splits are expected and no picture lies."""
    filled = {
        "/".join(parts[:n]) for name in found.pictures for parts in [name.split("/")] for n in range(1, len(parts))
    }

    def counts(folder: str) -> bool:
        top, *rest = folder.split("/")
        return len(rest) == (top in splits) and folder not in filled

    empty = sorted(filter(counts, found.folders))
    return [f"folders without a picture, which give no class: {named(empty)}"] if empty else []
