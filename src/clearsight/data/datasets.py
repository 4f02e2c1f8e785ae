"""The user's pictures: found in folders, CSV files and installed packages, with their classes and objects.

Nothing is moved, written or guessed: what was chosen (a split, a file of labels) is said in the notes, what was left
out stands in `broken`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.label_names import first_name
from clearsight.data.annotations import Region, read_boxes
from clearsight.data.class_words import Classes, meanings
from clearsight.data.class_words import truth as truth
from clearsight.data.fiftyone import in_fiftyone
from clearsight.data.folders import in_folder
from clearsight.data.images import SUFFIXES, check_file, open_picture, to_pixels
from clearsight.data.lists import in_table
from clearsight.data.records import Picture as Picture
from clearsight.data.records import Pictures as Pictures
from clearsight.data.rows import TABLES
from clearsight.data.split_words import ALL as ALL
from clearsight.data.split_words import of_split
from clearsight.data.split_words import part_of as part_of
from clearsight.errors import Refused, nearest
from clearsight.models.model_folder import CONFIG, WEIGHTS

_LAYOUTS = (
    "pictures in class folders, split/class folders, flat beside a labels.csv, or flat and unlabelled; a table is "
    ".csv, .tsv, .jsonl or .parquet"
)


def open_data(
    words: str | Path,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    label_column: str | None = None,
    classes: Classes | str | Path | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """DATA of the command line: "demo", "demo:coffee,rocket", or a path for `folder` ("./demo" is a folder)."""
    head, _, rest = str(words).partition(":")
    if head != "demo" or isinstance(words, Path):
        return folder(
            words,
            boxes=boxes,
            masks=masks,
            split=split,
            label_column=label_column,
            classes=classes,
            voc_base=voc_base,
        )
    if boxes or masks or split or label_column or voc_base is not None:
        raise Refused("the demo pictures have their own boxes and labels, and no splits: leave those options out")
    found = demo_pictures()
    known = {picture.name: picture for picture in found.pictures}
    asked = [word.strip() for word in rest.split(",") if word.strip()] or list(known)
    for word in asked:
        if word not in known:
            reason = dict(found.broken).get(word)
            raise Refused(f"no demo picture {word!r}: {reason or nearest(word, known)}")
    chosen = tuple(known[name] for name in sorted(set(asked)))
    return replace(found, root=str(words), pictures=chosen, classes=meanings(classes))


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
    """Several sets of pictures as one, in the order in which they were given.

    Refused: where the classes of some are class numbers and those of others are words, or numbers of another column.
    """
    first, *others = sources
    if not others:
        return first
    labelled = [s for s in sources if any(p.labels for p in s.pictures)]
    if len({(s.numbered, s.column if s.numbered else "") for s in labelled}) > 1:
        names = " and ".join(str(s.root) for s in labelled)
        raise Refused(f"{names} do not all hold class numbers of one column: take them one after the other")
    return Pictures(
        " ".join(str(s.root) for s in sources),
        tuple(p for s in sources for p in s.pictures),
        tuple(b for s in sources for b in s.broken),
        tuple(dict.fromkeys(n for s in sources for n in s.notes)),
        {word: labels for s in sources for word, labels in s.classes.items()},
        any(s.numbered for s in labelled),
        next((s.column for s in labelled), ""),
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
    voc_base: int | None = None,
) -> Pictures:
    """Find the pictures of a folder or a table, or take one picture.

    A folder is class/x.jpg, split/class/x.jpg or flat.  A table (.csv, .tsv, .jsonl, .parquet) names files and labels.

    Args:
        path: the folder, the table or the picture.
        boxes: file or folder of annotated boxes, in any format that `read_boxes` knows.
        masks: file or folder of annotated masks, in any format that `read_boxes` knows.
        split: name of the split, "all" for every one; None for test before val before train.
        label_column: column of the table that holds the labels; None for `label`, or the only one that ends in "index".
        classes: the data's words in the labels of the model, {"cat": ["tabby", "tiger cat"]}, or a JSON file of it.
        voc_base: what Pascal VOC calls the first pixel, 0 or 1; None decides it from all of its files.

    Refused: a path without pictures, an unknown split or column, boxes together with masks, a label_column without a
    table, a voc_base without boxes, and annotations that fit nothing.
    """
    path = Path(path)
    if boxes is not None and masks is not None:
        raise Refused("boxes and masks were both given: give one of them")
    if voc_base is not None and boxes is None:
        raise Refused("voc_base is for boxes of Pascal VOC: give boxes too, or leave it out")
    meant = meanings(classes)
    if not os.path.exists(path):
        raise Refused(f"no pictures at {path}: there is no such file or folder")
    if all((path / name).is_file() for name in (CONFIG, WEIGHTS)):
        raise Refused(f"{path} is a model folder and holds no pictures to look at: name the model first, then DATA")
    try:
        found = _found(path, label_column)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    every = {picture.name: picture.path for picture in found.pictures}
    found = replace(_checked(of_split(found, split)), classes=meant)
    if not found.pictures and (reason := _no_picture(path)):
        raise Refused(f"{path} is {reason}")
    if not found.pictures:
        broken = f"{len(found.broken)} broken ({', '.join(f'{n}: {r}' for n, r in found.broken[:3])})"
        why = [broken] if found.broken else [*found.notes] or ["it is empty"]
        raise Refused(f"no pictures in {path}: {'; '.join(why)}; expected {_LAYOUTS}")
    if unused := sorted(meant.keys() - {word for picture in found.pictures for word in picture.labels}):
        found = replace(found, notes=(*found.notes, f"words of classes that no picture has: {', '.join(unused)}"))
    source = boxes if boxes is not None else masks
    if source is None:
        return found
    marked = read_boxes(source, every, {picture.name for picture in found.pictures}, voc_base=voc_base)
    pictures = tuple(replace(picture, regions=marked.regions.get(picture.name)) for picture in found.pictures)
    with_regions = sum(picture.regions is not None for picture in pictures)
    note = f"{marked.form} annotations for {with_regions} of {len(pictures)} pictures"
    return replace(found, pictures=pictures, notes=(*found.notes, note, *marked.notes))


def demo_pictures() -> Pictures:
    """Ten photographs out of installed packages, with acceptable ImageNet classes and boxes.

    columns["note"] says where the classes are open to doubt.
    """
    pictures, broken = [], []
    for entry in json.loads((files("clearsight.data") / "demo" / "pictures.json").read_text("utf-8"))["pictures"]:
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
        labels = tuple(first_name(c["name"]) for c in entry["classes"])
        regions = tuple(Region((tuple(box["box"]),), label=box["what"]) for box in entry["boxes"])
        pictures.append(Picture(path, entry["name"], labels, regions, {"note": entry["note"]}))
    if not pictures:
        raise Refused(f"none of the demo pictures is there: {', '.join(f'{n}: {r}' for n, r in broken)}")
    return Pictures("demo", tuple(sorted(pictures, key=lambda p: p.name)), tuple(sorted(broken)))


def pixels(model: Classifier, *sources: str | Path | Pictures) -> Tensor:
    """Read pictures as the model takes them: (B, C, H, W) float32 in [0, 1].

    Args:
        model: the classifier, whose preprocessing is used.
        sources: paths, words of the command line such as "demo:coffee", or pictures from `folder`.

    Refused: a picture that is broken, and no picture at all.
    """
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


def _found(path: Path, label_column: str | None) -> Pictures:
    """All pictures at a path, of every split, not looked at yet."""
    if path.is_dir():
        return in_folder(path, label_column)
    if path.suffix.lower() in TABLES:
        return in_table(path, label_column)
    if label_column is not None:
        raise Refused(f"label_column={label_column} is for a CSV or another table, and {path} is none")
    if path.suffix.lower() == ".json":
        return in_fiftyone(path)
    if path.suffix.lower() not in SUFFIXES:
        raise Refused(f"{path} is neither a picture, a table nor a folder: expected {_LAYOUTS}")
    return Pictures(path, (Picture(path, path.name),))


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
