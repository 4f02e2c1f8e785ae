"""labels.json as FiftyOne writes it beside data/ (its FiftyOneImageClassificationDataset)."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from clearsight.data.records import Picture, Pictures
from clearsight.data.rows import clean, unique
from clearsight.data.walk import named, walk
from clearsight.errors import Refused


def is_fiftyone(table: Path) -> bool:
    """Whether a JSON file gives classes of pictures.  True for a broken one, which `read_fiftyone` refuses by name."""
    try:
        data = json.loads(table.read_bytes())
    except (ValueError, RecursionError, OSError):
        return True
    return isinstance(data, dict) and isinstance(data.get("labels"), dict)


def read_fiftyone(table: Path) -> Pictures:
    """{"classes": null or names, "labels": {stem of the file: "cat", 0, {"label": "cat"} or null}}, pictures in data/.

    Refused: another kind of file, a number that is not a class, and a stem that fits several pictures.
    """
    names, labels = _read_labels(table)
    folder = walk(table.parent)
    prefix = "data/" if (table.parent / "data").is_dir() else ""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in folder.pictures:
        if name.startswith(prefix):
            stems[PurePosixPath(name).with_suffix("").as_posix().removeprefix(prefix)].append(name)
    labels_by_name: dict[str, tuple[str, ...]] = {}
    broken = list(folder.broken)
    for stem, value in labels.items():
        label = _class_of(table, stem, value, names)
        matches = stems.get(clean(stem), [])
        if len(matches) > 1:
            raise Refused(f"{table}: {stem!r} fits {' and '.join(sorted(matches))}: give the pictures different names")
        if matches:
            labels_by_name[matches[0]] = label
        else:
            broken.append((clean(stem), f"missing: no picture has this name in {prefix.rstrip('/') or table.parent}"))
    pictures = tuple(Picture(path, name, labels_by_name.get(name, ())) for name, path in folder.pictures.items())
    unlisted = sorted(set(folder.pictures) - set(labels_by_name))
    notes = [f"{table.name} gives the classes of {len(labels_by_name)} pictures in the format of FiftyOne"]
    if unlisted:
        notes.append(f"{table.name} does not list {len(unlisted)} of the pictures, unlabelled: {named(unlisted)}")
    if unlabelled := sum(not label for label in labels_by_name.values()):
        notes.append(f"{table.name} gives {unlabelled} pictures no class: unlabelled")
    return Pictures(table, pictures, tuple(broken), (*notes, *folder.notes([table.name])))


def _read_labels(table: Path) -> tuple[list[str] | None, dict[str, Any]]:
    try:
        data = json.loads(table.read_bytes(), object_pairs_hook=unique)
    except OSError as e:
        raise Refused(f"cannot read {table}: {e.strerror}") from None
    except Refused as e:
        raise Refused(f"{table}: {e}") from None
    except (ValueError, RecursionError) as e:
        raise Refused(f"{table} is not JSON: {e}") from None
    if not isinstance(data, dict) or not isinstance(data.get("labels"), dict):
        raise Refused(f'{table} is not a labels.json of FiftyOne, {{"classes": null, "labels": {{"stem": "cat"}}}}')
    names = data.get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise Refused(f"{table}: classes must be null or a list of names")
    return names, data["labels"]


def _class_of(table: Path, stem: str, value: Any, names: list[str] | None) -> tuple[str, ...]:
    """The class of one picture, () for none."""
    if isinstance(value, dict):
        if "label" not in value:
            raise Refused(f"{table}: {stem!r} has no label, only {', '.join(map(str, value)) or 'nothing'}")
        value = value["label"]
    if value is None:
        return ()
    if isinstance(value, str):
        return (clean(value),) if value.strip() else ()
    if isinstance(value, int) and not isinstance(value, bool):
        if names is None:
            raise Refused(
                f"{table}: {stem!r} has class number {value}, but classes is null: list the class names there"
            )
        if not 0 <= value < len(names):
            raise Refused(f"{table}: {stem!r} has class number {value}, but classes lists 0 to {len(names) - 1}")
        return (clean(names[value]),)
    raise Refused(f"{table}: {stem!r} has {json.dumps(value)[:60]}, which is neither a class name nor a class number")
