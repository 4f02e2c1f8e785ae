"""Texts for the verbs and checks that take pictures: a text is one more kind of input, and reads as one tensor."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from clearsight.core.preprocess import Preprocess
from clearsight.core.tables import TEXT_TABLES, one_row
from clearsight.data.images import notes, open_picture, to_bytes
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_encoding import reads_texts, text_bytes
from clearsight.data.text_records import Texts
from clearsight.data.text_rows import read_text_rows
from clearsight.errors import Refused
from clearsight.models.model_folder import SPLIT

LONGEST = 4096  # characters that a network reads where nobody says how many
COLUMNS = ("name", "text", "label", "split", "marks")


def as_inputs(data: Texts) -> Pictures:
    """The same set, each text as an input beside pictures."""
    row = one_row(data.root)
    path = Path(data.root) if row is None else row[0]
    inputs = tuple(
        Picture(path / t.name if path.is_dir() else path, t.name, t.labels, None, t.columns, t.split, t.text, t.marks)
        for t in data.texts
    )
    return Pictures(data.root, inputs, data.broken, data.notes, data.classes, data.numbered, data.column)


def input_bytes(picture: Picture, preprocess: Preprocess) -> tuple[Tensor, tuple[str, ...]]:
    """A picture or text as the model takes it, (C, *S) uint8, and what was mended in it.

    Refused: what cannot be read, a text for a model of pictures, and a picture for a model of texts.
    """
    if picture.text is not None:
        return text_bytes(picture.text, preprocess), ()
    if preprocess.alphabet:
        raise Refused("a picture, and the model takes texts")
    image = open_picture(picture.path)
    return to_bytes(image, preprocess), tuple(notes(image))


def place_of_text(picture: Picture) -> str:
    """How the command line names a text: its file, its row of a table, or the text itself where it was typed."""
    number = re.fullmatch(r"(?:row|line) (\d+)", picture.name)
    if number and picture.path.suffix.lower() in TEXT_TABLES:
        return f"{picture.path}:{number[1]}"
    return str(picture.path) if picture.path.is_file() else picture.text or ""


def refuse_other_kind(data: Pictures, preprocess: Preprocess) -> None:
    """Refuse texts for a model of pictures, and pictures for a model of texts."""
    if data.are_texts:
        reads_texts(preprocess)
    elif preprocess.alphabet:
        raise Refused(f"{data.root} holds pictures, and the model takes texts")


def refuse_texts(data: Pictures, what: str) -> None:
    """Refuse texts where ``what`` is for pictures alone."""
    if data.are_texts:
        raise Refused(f"{data.root} holds texts, and {what} takes pictures")


def content(picture: Picture) -> bytes:
    """What a digest of the data takes of a picture or text."""
    return picture.path.read_bytes() if picture.text is None else picture.text.encode()


def without_too_long(data: Pictures, length: int | None) -> Pictures:
    """Texts without those of more characters than a network is going to read, which go to `broken`; pictures as is.

    length: what the user asked for; None for `LONGEST`.  Refused: where none is left.
    """
    if not data.are_texts:
        return data
    most = length or LONGEST
    lengths = {p.name: len(p.text or "") for p in data.pictures}
    long = {name: f"{n} characters, more than {most}" for name, n in lengths.items() if n > most}
    kept = tuple(p for p in data.pictures if p.name not in long)
    if not kept:
        raise Refused(f"every text of {data.root} has more than {most} characters: give a larger --size")
    return replace(data, pictures=kept, broken=(*data.broken, *long.items()))


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def split_of_texts(entries: Sequence[Picture], parts: Sequence[str]) -> str:
    """The table, CSV, of which text is in which part; `texts` reads it."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(COLUMNS)
    for p, part in zip(entries, parts, strict=True):
        marks = "" if p.marks is None else json.dumps(p.marks)
        table.writerow((p.name, p.text, "|".join(p.labels), part, marks))
    return rows.getvalue()


def train_texts(source: str) -> set[str]:
    """The texts that trained the model of a run folder, by its table; none where source is not such a folder."""
    table = Path(source) / SPLIT
    if not source or not table.is_file():
        return set()
    columns, rows, _ = read_text_rows(table)
    if lost := [name for name in ("text", "split") if name not in columns]:
        raise Refused(f"{table} has no column {lost[0]}, so it does not say which texts trained the model")
    return {row["text"] for _, row in rows if row["split"] == "train"}
