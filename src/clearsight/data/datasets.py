"""Open the user's pictures in folders, tables and installed packages, with their classes and objects.

Nothing is moved or written.  The notes name each choice (a split, a file of labels); `broken` lists what is left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.core.label_names import first_name
from clearsight.core.model import Model
from clearsight.data.annotations import Region, read_boxes
from clearsight.data.class_words import Classes, meanings
from clearsight.data.class_words import truth as truth
from clearsight.data.data_words import check_data_words, demo_entries, demo_names
from clearsight.data.fiftyone import read_fiftyone
from clearsight.data.folders import read_folder
from clearsight.data.images import SUFFIXES, check_file, of_bytes
from clearsight.data.lists import read_picture_table
from clearsight.data.records import Picture as Picture
from clearsight.data.records import Pictures as Pictures
from clearsight.data.rows import TABLES
from clearsight.data.split_words import ALL as ALL
from clearsight.data.split_words import part_of as part_of
from clearsight.data.split_words import take_split
from clearsight.data.text_inputs import as_inputs, input_bytes
from clearsight.data.text_sources import is_texts, texts
from clearsight.errors import Refused, nearest

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
    text_column: str | None = None,
    marks_column: str | None = None,
    classes: Classes | str | Path | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """Open DATA of the command line: "demo", "demo:coffee,rocket", or a path for `folder` ("./demo" is a folder)."""
    head, _, names = str(words).partition(":")
    if head != "demo" or isinstance(words, Path):
        return folder(
            words,
            boxes=boxes,
            masks=masks,
            split=split,
            label_column=label_column,
            text_column=text_column,
            marks_column=marks_column,
            classes=classes,
            voc_base=voc_base,
        )
    if boxes or masks or split or label_column or text_column or marks_column or voc_base is not None:
        raise Refused(
            "the demo pictures have their own boxes and labels, and no splits: leave out boxes, masks, split, "
            "label_column, text_column, marks_column and voc_base"
        )
    demo = demo_pictures()
    by_name = {picture.name: picture for picture in demo.pictures}
    requested = demo_names(names) or list(by_name)
    for word in requested:
        if word not in by_name:
            reason = dict(demo.broken).get(word)
            raise Refused(f"no demo picture {word!r}: {reason or nearest(word, by_name)}")
    chosen = tuple(by_name[name] for name in sorted(set(requested)))
    return replace(demo, root=str(words), pictures=chosen, classes=meanings(classes))


def open_each(words: Sequence[str | Path], **options: Any) -> list[Pictures]:
    """Open several DATA, each with the options of `open_data`.

    A picture file among them that is empty goes to `broken`, as in a folder; alone it is refused.
    """
    if len(words) == 1:
        return [open_data(words[0], **options)]
    opened = []
    for word in words:
        reason = _why_no_picture(Path(word))
        opened.append(Pictures(word, (), ((Path(word).name, reason),)) if reason else open_data(word, **options))
    return opened


def joined(sources: Sequence[Pictures]) -> Pictures:
    """Join several sets of pictures, in the order in which they are given.

    Refused: class numbers in one set and words, or numbers of another column, in another.
    """
    first, *others = sources
    if not others:
        return first
    labelled = [s for s in sources if any(p.labels for p in s.pictures)]
    if len({(s.numbered, s.column if s.numbered else "") for s in labelled}) > 1:
        names = " and ".join(str(s.root) for s in labelled)
        raise Refused(f"{names} do not hold class numbers of the same column: give each of them in a run of its own")
    return Pictures(
        " ".join(str(s.root) for s in sources),
        tuple(p for s in sources for p in s.pictures),
        tuple(b for s in sources for b in s.broken),
        tuple(dict.fromkeys(n for s in sources for n in s.notes)),
        {word: labels for s in sources for word, labels in s.classes.items()},
        any(s.numbered for s in labelled),
        next((s.column for s in labelled), ""),
    )


def _why_no_picture(path: Path) -> str:
    """Why a file with a picture's suffix cannot be a picture; "" for all other files, which `folder` checks."""
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
    text_column: str | None = None,
    marks_column: str | None = None,
    classes: Classes | str | Path | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """Open the pictures of a folder or a table, or one picture; or texts, where that is what a path holds.

    A folder is class/x.jpg, split/class/x.jpg or flat.  A table (.csv, .tsv, .jsonl, .parquet) names files and labels.

    Args:
        path: the folder, the table or the picture.
        boxes: file or folder of annotated boxes, in any format that `read_boxes` knows.
        masks: file or folder of annotated masks, in any format that `read_boxes` knows.
        split: name of the split, "all" for every one; None for test before val before train.
        label_column: column of the table that holds the labels; None for `label`, or the only one that ends in "index".
        text_column: column of the table that holds texts, see `texts`; None for one that is called so, in a table that
            names no pictures.
        marks_column: column of the table that marks characters of its texts, see `texts`.
        classes: the data's words in the labels of the model, {"cat": ["tabby", "tiger cat"]}, or a JSON file of it.
        voc_base: what Pascal VOC calls the first pixel, 0 or 1; None decides it from all of its files.

    Refused: a path without pictures, an unknown split or column, boxes together with masks, a label_column without a
    table, a voc_base without boxes, and annotations that fit nothing.
    """
    path = Path(path)
    if boxes is not None and masks is not None:
        raise Refused("boxes and masks are both given: give one of them")
    if voc_base is not None and boxes is None:
        raise Refused("voc_base is for boxes of Pascal VOC: give boxes too, or leave it out")
    word_labels = meanings(classes)
    check_data_words(path)
    if text_column is not None or marks_column is not None or is_texts(path):
        if boxes is not None or masks is not None:
            raise Refused(f"{path} holds texts, which have no boxes or masks: mark characters in a column marks")
        columns = {"text_column": text_column, "label_column": label_column, "marks_column": marks_column}
        named_columns = [(f"--{k.replace('_', '-')}", v) for k, v in columns.items() if v is not None]
        words = tuple(word for pair in named_columns for word in pair)
        return replace(as_inputs(texts(path, split=split, classes=classes, **columns)), words=words)
    try:
        data = _read_path(path, label_column)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    paths = {picture.name: picture.path for picture in data.pictures}
    words = () if label_column is None else ("--label-column", label_column)
    data = replace(_check_files(take_split(data, split)), classes=word_labels, words=words)
    if not data.pictures and (reason := _why_no_picture(path)):
        raise Refused(f"{path} is {reason}")
    if not data.pictures:
        broken = f"{len(data.broken)} broken ({', '.join(f'{n}: {r}' for n, r in data.broken[:3])})"
        reasons = [broken] if data.broken else [*data.notes] or ["it is empty"]
        raise Refused(f"no pictures in {path}: {'; '.join(reasons)}; expected {_LAYOUTS}")
    if unused := sorted(word_labels.keys() - {word for picture in data.pictures for word in picture.labels}):
        data = replace(data, notes=(*data.notes, f"words in classes that no picture has: {', '.join(unused)}"))
    source = boxes if boxes is not None else masks
    if source is None:
        return data
    annotations = read_boxes(source, paths, {picture.name for picture in data.pictures}, voc_base=voc_base)
    pictures = tuple(replace(picture, regions=annotations.regions.get(picture.name)) for picture in data.pictures)
    with_regions = sum(picture.regions is not None for picture in pictures)
    note = f"{annotations.form} annotations for {with_regions} of {len(pictures)} pictures"
    return replace(data, pictures=pictures, notes=(*data.notes, note, *annotations.notes))


def demo_pictures() -> Pictures:
    """Open ten photographs from installed packages, with acceptable ImageNet classes and boxes.

    columns["note"] holds a remark where the classes are open to doubt.
    """
    pictures, broken = [], []
    for entry in demo_entries():
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
        raise Refused(f"no demo picture can be read: {', '.join(f'{n}: {r}' for n, r in broken)}")
    return Pictures("demo", tuple(sorted(pictures, key=lambda p: p.name)), tuple(sorted(broken)))


def pixels(model: Model, *sources: str | Path | Pictures) -> Tensor:
    """Read pictures, or texts, as the model takes them: (B, C, *S) float32 in [0, 1].

    Args:
        model: the model, whose preprocessing is used.
        sources: paths, words of the command line such as "demo:coffee", or pictures from `folder`.

    Refused: a picture that is broken, and no picture at all.
    """
    batch = []
    for source in sources:
        for picture in (source if isinstance(source, Pictures) else open_data(source)).pictures:
            try:
                batch.append(of_bytes(input_bytes(picture, model.preprocess)[0]))
            except Refused as e:
                raise Refused(f"{picture.path}: {e}") from None
    if not batch:
        raise Refused("no picture is given: name one, as in pixels(model, 'demo:coffee', 'photos/x.jpg')")
    return torch.stack(batch)


def _read_path(path: Path, label_column: str | None) -> Pictures:
    """List all pictures at a path, of every split, before their files are checked."""
    if path.is_dir():
        return read_folder(path, label_column)
    if path.suffix.lower() in TABLES:
        return read_picture_table(path, label_column)
    if label_column is not None:
        raise Refused(f"label_column={label_column} needs a table, and {path} is not one: leave the option out")
    if path.suffix.lower() == ".json":
        return read_fiftyone(path)
    if path.suffix.lower() not in SUFFIXES:
        raise Refused(f"{path} is neither a picture, a table nor a folder: expected {_LAYOUTS}")
    return Pictures(path, (Picture(path, path.name),))


def _check_files(data: Pictures) -> Pictures:
    """Sort the pictures by name; files that cannot be pictures go to `broken`."""
    good, bad = [], list(data.broken)
    for picture in sorted(data.pictures, key=lambda p: p.name):
        try:
            check_file(picture.path)
            good.append(picture)
        except Refused as e:
            bad.append((picture.name, str(e)))
    return replace(data, pictures=tuple(good), broken=tuple(sorted(bad)))
