"""The user's pictures: found in folders, CSV files and installed packages, with their classes and objects.

Nothing is moved, written or guessed: what was chosen (a split, a file of labels) is said in the notes, what was left
out stands in `broken`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from clearsight.annotations import Region, read_boxes, read_table
from clearsight.classifier import Classifier
from clearsight.errors import Refused, nearest
from clearsight.pictures import SUFFIXES, check_file, open_picture, to_pixels
from clearsight.runfolder import CONFIG, WEIGHTS

Classes = Mapping[str, str | list[str]]

_SPLITS = {  # the split that is taken first where none is asked for stands first
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "train": ("train", "training"),
}
ALL = "all"  # every split at once
_KNOWN_SPLITS = frozenset(word for words in _SPLITS.values() for word in words)
_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image")
_LAYOUTS = "pictures in class folders, split/class folders, flat beside a labels.csv, or flat and unlabelled"


@dataclass(frozen=True)
class Picture:
    """One picture file that is there and not empty; whether it can be read shows when it is.

    name: its path below the root, with slashes.  labels: the acceptable classes in the words of the data, none where
    it is unlabelled.  regions: its objects; () says there are none, None that it is not annotated.  columns: what else
    the CSV says of it.  split: "test", "train", ... as written, "" where there are no splits.
    """

    path: Path
    name: str
    labels: tuple[str, ...] = ()
    regions: tuple[Region, ...] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True)
class Pictures:
    """A set of pictures, sorted by name, and what happened on the way to it.

    root: the folder or file they came from, or "demo".  broken: (name, reason) of those that cannot be pictures.
    notes: sentences on what was chosen, skipped or left out.  classes: what the data's words mean in labels of the
    model, where the user said it.  numbered: the words of the data are class numbers.
    """

    root: Path | str
    pictures: tuple[Picture, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: bool = False


def open_data(
    words: str | Path,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    label_column: str | None = None,
    classes: Classes | str | Path | None = None,
) -> Pictures:
    """DATA of the command line: "demo", "demo:coffee,rocket", or a path for `folder` ("./demo" is a folder)."""
    head, _, rest = str(words).partition(":")
    if head != "demo" or isinstance(words, Path):
        return folder(words, boxes=boxes, masks=masks, split=split, label_column=label_column, classes=classes)
    if boxes or masks or split or label_column:
        raise Refused("the demo pictures have their own boxes and labels, and no splits: leave those options out")
    found = demo_pictures()
    known = {picture.name: picture for picture in found.pictures}
    asked = [word.strip() for word in rest.split(",") if word.strip()] or list(known)
    for word in asked:
        if word not in known:
            reason = dict(found.broken).get(word)
            raise Refused(f"no demo picture {word!r}: {reason or nearest(word, known)}")
    chosen = tuple(known[name] for name in sorted(set(asked)))
    return replace(found, root=str(words), pictures=chosen, classes=_meanings(classes))


def part_of(split: str) -> str:
    """What a split is for: "train", "val" or "test", whatever it is called; "" for none of these.

    >>> part_of("Validation"), part_of("bird")
    ('val', '')
    """
    return next((part for part, words in _SPLITS.items() if split.lower() in words), "")


def open_each(words: Sequence[str | Path], **options: Any) -> list[Pictures]:
    """Several DATA, each with the options of `open_data`.

    A picture file among them that is empty stands in `broken`, as in a folder; alone it is refused.
    """
    if len(words) == 1:
        return [open_data(words[0], **options)]
    found = []
    for word in words:
        reason = _no_picture(Path(word))
        found.append(Pictures(word, (), ((Path(word).name, reason),)) if reason else open_data(word, **options))
    return found


def joined(sources: Sequence[Pictures]) -> Pictures:
    """Several sets of pictures as one, in the order in which they were given."""
    first, *others = sources
    if not others:
        return first
    return Pictures(
        " ".join(str(s.root) for s in sources),
        tuple(p for s in sources for p in s.pictures),
        tuple(b for s in sources for b in s.broken),
        tuple(n for s in sources for n in s.notes),
    )


def _no_picture(path: Path) -> str:
    """Why a file that is called like a picture cannot be one; "" for all else, which `folder` judges."""
    if path.suffix.lower() in SUFFIXES and os.path.exists(path) and not path.is_dir():
        try:
            check_file(path)
        except Refused as e:
            return str(e)
    return ""


def folder(
    path: str | Path,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    label_column: str | None = None,
    classes: Classes | str | Path | None = None,
) -> Pictures:
    """The pictures in a folder (class/x.jpg, split/class/x.jpg, flat), of a CSV (file, label, ...), or one picture.

    boxes, masks: annotations in any format that `read_boxes` knows.  split: which one, "all" for every one, else test
    before val before train.  label_column: the CSV's, else `label` or the only one that ends in "index".  classes: the
    data's words in the labels of the model, {"cat": ["tabby", "tiger cat"]}, or a JSON file of it.
    Raises Refused for a path without pictures, an unknown split or column, and annotations that fit nothing.
    """
    path = Path(path)
    if boxes is not None and masks is not None:
        raise Refused("boxes and masks were both given: give one of them")
    meanings = _meanings(classes)
    if not os.path.exists(path):
        raise Refused(f"no pictures at {path}: there is no such file or folder")
    if all((path / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise Refused(f"{path} is a model folder and holds no pictures to look at: name the model first, then DATA")
    try:
        found = _found(path, label_column)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    every = {picture.name: picture.path for picture in found.pictures}
    found = replace(_checked(_of_split(found, split)), classes=meanings)
    if not found.pictures and (reason := _no_picture(path)):
        raise Refused(f"{path} is {reason}")
    if not found.pictures:
        broken = f"{len(found.broken)} broken ({', '.join(f'{n}: {r}' for n, r in found.broken[:3])})"
        why = [broken] if found.broken else [*found.notes] or ["it is empty"]
        raise Refused(f"no pictures in {path}: {'; '.join(why)}; expected {_LAYOUTS}")
    if unused := sorted(meanings.keys() - {word for picture in found.pictures for word in picture.labels}):
        found = replace(found, notes=(*found.notes, f"words of classes that no picture has: {', '.join(unused)}"))
    source = boxes if boxes is not None else masks
    if source is None:
        return found
    marked = read_boxes(source, every, {picture.name for picture in found.pictures})
    pictures = tuple(replace(picture, regions=marked.regions.get(picture.name)) for picture in found.pictures)
    with_regions = sum(picture.regions is not None for picture in pictures)
    note = f"{marked.form} annotations for {with_regions} of {len(pictures)} pictures"
    return replace(found, pictures=pictures, notes=(*found.notes, note, *marked.notes))


def demo_pictures() -> Pictures:
    """Ten photographs out of installed packages, with acceptable ImageNet classes and boxes.

    columns["note"] says where the classes are open to doubt.
    """
    pictures, broken = [], []
    for entry in json.loads((files("clearsight") / "demo" / "pictures.json").read_text("utf-8"))["pictures"]:
        try:
            spec = find_spec(entry["package"])
            if spec is None or not spec.submodule_search_locations:
                broken.append((entry["name"], f"the package {entry['package']} is not installed"))
                continue
            path = Path(spec.submodule_search_locations[0], entry["file"])
            check_file(path)
        except Refused as e:
            broken.append((entry["name"], str(e)))
            continue
        labels = tuple(c["name"].partition(",")[0] for c in entry["classes"])
        regions = tuple(Region((tuple(box["box"]),), label=box["what"]) for box in entry["boxes"])
        pictures.append(Picture(path, entry["name"], labels, regions, {"note": entry["note"]}))
    if not pictures:
        raise Refused(f"none of the demo pictures is there: {', '.join(f'{n}: {r}' for n, r in broken)}")
    return Pictures("demo", tuple(sorted(pictures, key=lambda p: p.name)), tuple(sorted(broken)))


def truth(pictures: Pictures, model: Classifier) -> Tensor:
    """bool (N, K): the classes of the model that are right for each picture; a row of False is an unlabelled picture.

    Raises Refused once, naming every word of the data that the model does not know.
    """
    words = sorted({word for picture in pictures.pictures for word in picture.labels})
    numbers: dict[str, list[int]] = {}
    unknown: dict[str, str] = {}
    for word in words:
        try:
            meant = pictures.classes.get(word)
            if meant is None and pictures.numbered:
                numbers[word] = [_number(word, len(model.labels))]
            else:
                numbers[word] = [model.index(label) for label in meant or (word,)]
        except Refused as e:
            unknown[word] = str(e)
    if unknown:
        raise Refused(_unknown(unknown))
    right = torch.zeros(len(pictures.pictures), len(model.labels), dtype=torch.bool)
    for row, picture in zip(right, pictures.pictures, strict=True):
        for word in picture.labels:
            row[numbers[word]] = True
    return right


def pixels(model: Classifier, *sources: str | Path | Pictures) -> Tensor:
    """(B, C, H, W) float32 in [0, 1], as the model takes them; sources as in `open_data`.  Refused if one is broken."""
    batch = []
    for source in sources:
        for picture in (source if isinstance(source, Pictures) else open_data(source)).pictures:
            try:
                batch.append(to_pixels(open_picture(picture.path), model.preprocess))
            except Refused as e:
                raise Refused(f"{picture.path}: {e}") from None
    if not batch:
        raise Refused("no picture is named: pixels(model, 'demo:coffee', 'photos/x.jpg')")
    return torch.stack(batch)


def _number(word: str, classes: int) -> int:
    if word.isdecimal() and int(word) < classes:
        return int(word)
    raise Refused(f"class {word!r}: this model has classes 0 to {classes - 1}")


def _unknown(unknown: Mapping[str, str]) -> str:
    hints = "; ".join(list(unknown.values())[:5])
    example = json.dumps({next(iter(unknown)): ["a label of the model", "another"]}, ensure_ascii=False)
    return (
        f"class words of the data that mean nothing to the model ({len(unknown)}): {', '.join(unknown)} ({hints}).  "
        f"Say what they mean: --classes FILE, with FILE a JSON such as {example}"
    )


def _meanings(classes: Classes | str | Path | None) -> dict[str, tuple[str, ...]]:
    """{"cat": ["tabby", "tiger cat"], "dog": "beagle"}, or a JSON file of it -> word: labels of the model."""
    told: object = classes
    if isinstance(classes, str | Path):
        try:
            told = json.loads(Path(classes).read_bytes())
        except OSError as e:
            raise Refused(f"cannot read the classes in {classes}: {e.strerror}") from None
        except ValueError as e:
            raise Refused(f"the classes in {classes} are no JSON: {e}") from None
    told = {} if told is None else told
    lists = {k: [v] if isinstance(v, str | int) else v for k, v in told.items()} if isinstance(told, Mapping) else None
    if lists is None or not all(isinstance(v, list | tuple) and v for v in lists.values()):
        raise Refused('classes give each word its labels, such as {"cat": ["tabby", "tiger cat"], "dog": "beagle"}')
    return {str(word): tuple(map(str, labels)) for word, labels in lists.items()}


def _found(path: Path, label_column: str | None) -> Pictures:
    """All pictures at a path, of every split, not looked at yet."""
    if path.is_dir():
        return _in_folder(path, label_column)
    if path.suffix.lower() == ".csv":
        return _in_csv(path, label_column)
    if label_column is not None:
        raise Refused(f"label_column={label_column} is for a CSV, and {path} is none")
    if path.suffix.lower() not in SUFFIXES:
        raise Refused(f"{path} is neither a picture, a CSV nor a folder: expected {_LAYOUTS}")
    return Pictures(path, (Picture(path, path.name),))


def _in_folder(root: Path, label_column: str | None) -> Pictures:
    below, broken, notes = _walk(root)
    tops = {name.split("/")[0] for name in below if "/" in name}
    flat = any("/" not in name for name in below)
    table = root / "labels.csv"
    if table.is_file() and (flat or tops <= {"images"}):
        listed = _in_csv(table, label_column)
        unlisted = len(below.keys() - {picture.name for picture in listed.pictures})
        note = f"labels from {table.name}" + (f", which does not list {unlisted} of the pictures" if unlisted else "")
        return replace(listed, root=root, broken=(*listed.broken, *broken), notes=(note, *notes))
    if label_column is not None:
        raise Refused(f"label_column={label_column} is for a CSV, and in {root} no labels.csv lies beside the pictures")
    named = {top for top in tops if top.lower() in _KNOWN_SPLITS}
    train = {top for top in named if top.lower() in _SPLITS["train"]}
    if not (train and named - train) and (flat or named != tops):
        named = set()  # one class among others may be called train
    pictures = []
    for name, path in below.items():
        *above, _ = name.split("/")
        split = above.pop(0) if above and above[0] in named else ""
        pictures.append(Picture(path, name, tuple(above[:1]), split=split))
    outside = sum(not picture.labels for picture in pictures)
    if not named and 0 < outside < len(pictures):
        notes.append(f"{outside} of {len(pictures)} pictures lie in no class folder: unlabelled")
    return Pictures(root, tuple(pictures), tuple(broken), tuple(notes))


def _walk(root: Path) -> tuple[dict[str, Path], list[tuple[str, str]], list[str]]:
    """Name -> file of all that has a picture's suffix, what could not be read, notes on the rest.  No folder twice."""
    pictures: dict[str, Path] = {}
    broken: list[tuple[str, str]] = []
    other: Counter[str] = Counter()
    hidden = again = 0
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        here = waiting.pop()
        try:
            about, entries = here.stat(), sorted(os.scandir(here), key=lambda e: e.name)
        except OSError as e:
            broken.append((_name(here, root), f"a folder that cannot be read: {e.strerror}"))
            continue
        if (about.st_dev, about.st_ino) in seen:
            again += 1
            continue
        seen.add((about.st_dev, about.st_ino))
        linked: list[Path] = []
        for entry in entries:
            suffix = Path(entry.name).suffix.lower()
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                hidden += 1
            elif suffix in SUFFIXES:
                pictures[_name(Path(entry.path), root)] = Path(entry.path)
            elif os.path.isdir(entry.path):
                (linked if entry.is_symlink() else waiting).append(Path(entry.path))
            else:
                other[suffix or entry.name] += 1
        waiting[:0] = linked  # real folders first, so that a link never takes their place
    kinds = ", ".join(f"{n} {kind}" for kind, n in other.most_common(5))
    notes = [
        *([f"{_files(sum(other.values()), 'other')} skipped ({kinds})"] if other else []),
        *([f"{_files(hidden, 'hidden')} or folders skipped"] if hidden else []),
        *([f"{again} links to folders that were read already skipped"] if again else []),
    ]
    return pictures, broken, notes


def _files(n: int, kind: str) -> str:
    return f"{n} {kind} {'file' if n == 1 else 'files'}"


def _in_csv(table: Path, label_column: str | None) -> Pictures:
    """file, label, ...: acceptable classes with | between them; files relative to the CSV, or to images/ beside it."""
    columns, rows = read_table(table)
    written = f"{table} has the columns {', '.join(columns) or 'none'}"
    file_column = next((column for column in _FILE_COLUMNS if column in columns), None)
    if file_column is None:
        raise Refused(f"{written}: one must be called file and name the pictures")
    label = _label_column(columns, label_column, written)
    pictures, broken = [], []
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        name = PurePosixPath(row[file_column].replace("\\", "/")).as_posix()
        if name in first:
            raise Refused(f"{table}: {name} is in rows {first[name]} and {number}: write its classes as one|other")
        first[name] = number
        if not row[file_column]:
            broken.append((f"row {number}", "names no file"))
            continue
        inside = f"images/{name}"
        if not os.path.lexists(table.parent / name) and os.path.lexists(table.parent / inside):
            name = inside
        labels = tuple(dict.fromkeys(word.strip() for word in row[label].split("|") if word.strip()))
        others = {column: value for column, value in row.items() if column not in (file_column, label)}
        pictures.append(Picture(table.parent / name, name, labels, None, others, row.get("split", "")))
    return Pictures(table, tuple(pictures), tuple(broken), numbered=label.lower().endswith("index"))


def _label_column(columns: Sequence[str], asked: str | None, written: str) -> str:
    if asked is not None:
        if asked not in columns:
            raise Refused(f"{written}, and no {asked}: {nearest(asked, columns)}")
        return asked
    numbered = [column for column in columns if column.lower().endswith("index")]
    if "label" in columns or len(numbered) == 1:
        return "label" if "label" in columns else numbered[0]
    raise Refused(f"{written}: say which holds the classes, --label-column NAME")


def _checked(found: Pictures) -> Pictures:
    """The pictures by name, those that cannot be any among the broken."""
    good, bad = [], list(found.broken)
    for picture in sorted(found.pictures, key=lambda p: p.name):
        try:
            check_file(picture.path)
            good.append(picture)
        except Refused as e:
            bad.append((picture.name, str(e)))
    return replace(found, pictures=tuple(good), broken=tuple(sorted(bad)))


def _of_split(found: Pictures, asked: str | None) -> Pictures:
    there = Counter(picture.split for picture in found.pictures if picture.split)
    known = [word for word in there if word.lower() in _KNOWN_SPLITS]
    if asked == ALL or (asked is None and not known):
        return found
    if not there:
        raise Refused(f"split {asked!r}: there are no splits in {found.root}")
    order = [word for words in _SPLITS.values() for word in words]
    if asked is None:
        chosen = min(known, key=lambda word: (order.index(word.lower()), word))
    elif asked in there:
        chosen = asked
    else:
        same = next((words for words in _SPLITS.values() if asked.lower() in words), (asked.lower(),))
        fitting = [word for word in there if word.lower() in same]
        if len(fitting) != 1:
            raise Refused(f"split {asked!r}: {found.root} has {', '.join(sorted(there))}")
        chosen = fitting[0]
    shares = ", ".join(f"{word} {n}" for word, n in sorted(there.items()))
    notes = [f"split {chosen} is taken, of {shares} pictures" + ("" if asked else ": --split takes another")]
    if outside := len(found.pictures) - sum(there.values()):
        notes.append(f"{outside} pictures in no split are left out")
    pictures = tuple(picture for picture in found.pictures if picture.split == chosen)
    return replace(found, pictures=pictures, notes=(*notes, *found.notes))


def _name(path: Path, root: Path) -> str:
    """Below the root, with slashes; bytes of a file's name that are no UTF-8 written as \\x.."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
