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


def fiftyone(table: Path) -> bool:
    """Whether a JSON file is one that says the classes of pictures, or is no JSON at all, which is said when read."""
    try:
        told = json.loads(table.read_bytes())
    except (ValueError, RecursionError, OSError):
        return True
    return isinstance(told, dict) and isinstance(told.get("labels"), dict)


def in_fiftyone(table: Path) -> Pictures:
    """{"classes": null or names, "labels": {stem of the file: "cat", 0, {"label": "cat"} or null}}, pictures in data/.

    Refused: what is none, a number that is no class, and a stem of several pictures.
    """
    names, labels = _read(table)
    found = walk(table.parent)
    home = "data/" if (table.parent / "data").is_dir() else ""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in found.pictures:
        if name.startswith(home):
            stems[PurePosixPath(name).with_suffix("").as_posix().removeprefix(home)].append(name)
    said: dict[str, tuple[str, ...]] = {}
    broken = list(found.broken)
    for stem, value in labels.items():
        label = _label(table, stem, value, names)
        here = stems.get(clean(stem), [])
        if len(here) > 1:
            raise Refused(f"{table}: {stem!r} fits {' and '.join(sorted(here))}: call the pictures by different names")
        if here:
            said[here[0]] = label
        else:
            broken.append((clean(stem), f"missing: no picture of this name in {home.rstrip('/') or table.parent}"))
    pictures = tuple(Picture(path, name, said.get(name, ())) for name, path in found.pictures.items())
    unlisted = sorted(set(found.pictures) - set(said))
    notes = [f"{table.name}: classes of {len(said)} pictures as FiftyOne writes them"]
    if unlisted:
        notes.append(f"{table.name} does not list {len(unlisted)} of the pictures, unlabelled: {named(unlisted)}")
    if nothing := sum(not label for label in said.values()):
        notes.append(f"{table.name} gives {nothing} pictures no class: unlabelled")
    return Pictures(table, pictures, tuple(broken), (*notes, *found.notes([table.name])))


def _read(table: Path) -> tuple[list[str] | None, dict[str, Any]]:
    try:
        told = json.loads(table.read_bytes(), object_pairs_hook=unique)
    except OSError as e:
        raise Refused(f"cannot read {table}: {e.strerror}") from None
    except Refused as e:
        raise Refused(f"{table}: {e}") from None
    except (ValueError, RecursionError) as e:
        raise Refused(f"{table} is no JSON: {e}") from None
    if not isinstance(told, dict) or not isinstance(told.get("labels"), dict):
        raise Refused(f'{table} is no labels.json of FiftyOne, {{"classes": null, "labels": {{"stem": "cat"}}}}')
    names = told.get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise Refused(f"{table}: classes is neither null nor a list of names")
    return names, told["labels"]


def _label(table: Path, stem: str, value: Any, names: list[str] | None) -> tuple[str, ...]:
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
            raise Refused(f"{table}: {stem!r} is of class {value}, and classes, which would name it, is null")
        if not 0 <= value < len(names):
            raise Refused(f"{table}: {stem!r} is of class {value}, and there are classes 0 to {len(names) - 1}")
        return (clean(names[value]),)
    raise Refused(f"{table}: {stem!r} has {json.dumps(value)[:60]}, which is neither a name nor a number of a class")
