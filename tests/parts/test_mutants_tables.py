"""Tables, metadata, labels.json, class folders and --classes, broken at random: refused by name, or nothing is lost.

Every mutant follows from its number: ``mutant(folder, 17)`` makes number 17 again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import nn

from clearsight.core.classifier import Classifier, wrap
from clearsight.core.preprocess import Preprocess
from clearsight.data.class_words import understood
from clearsight.data.datasets import ALL, Pictures, folder
from clearsight.data.images import SUFFIXES
from clearsight.errors import Refused
from clearsight.training.training_data import classes, with_nameable_classes

SECONDS = 10
WORDS = ("cat", "dog", "cow")
MODELS = (WORDS, ("1", "2", "3"), ("2", "0", "1"), ("class_index 1", "class_index 2", "class_index 3"))
ODD = ("", " ", "\0", "﻿", "\r", "\n", '"', "'", ",", ";", "\t", "|", "../", "/", "\\", "-1", "1.0", "01", "٣", "1e999",
       "9" * 5000, "nan", "null", "None", "cat", "Cat ", "a" * 300, "é", "\\xff", "{", "[]", "\ud800")  # fmt: skip

FILES, LABELS = ("file", "file_name", "Path"), ("label", "class", "class_index", "y")
COLUMNS = ("Label", "LABEL ", "label", "index", "id", "file", "", "bird_index", "split", "Class")
NAMES = ("a\nb", 'q"', "a,b", "a|b", " ", "...", "-1", "01", "٣", "no_label", ".ipynb_checkpoints", "train", "Test",
         "__MACOSX", "x.png", "metadata.csv", "a" * 200, "cat ", "\udcff", "\\")  # fmt: skip


def pixels() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    return file.getvalue()


PIXELS = pixels()


def put(path: Path, content: bytes = PIXELS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Valid data ----------------------------------------------------------------------------------------------------------


def as_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_lines(rows: list[list[str]]) -> bytes:
    head, *body = rows
    return "".join(json.dumps(dict(zip(head, row, strict=False))) + "\n" for row in body).encode()


def rows_of(dice: random.Random, files: list[str]) -> list[list[str]]:
    """A table of pictures in words or numbers, its columns in any order."""
    column, words = dice.choice([("label", WORDS), ("class", WORDS), ("class_index", ("0", "1", "2")), ("y", "123")])
    file = dice.choice(FILES)
    columns = [file, column, *dice.choice([[], ["split"], ["index"], ["text", "split"]])]
    dice.shuffle(columns)
    rows = [columns]
    for i, name in enumerate(files):
        values = {file: name, column: dice.choice(words), "split": dice.choice(["train", "test"]), "index": str(i)}
        rows.append([values.get(c, "some words") for c in columns])
    return rows


def files_of(dice: random.Random, root: Path) -> list[str]:
    shape = dice.choice(["{i}.png", "{w}/{i}.png", "images/{i}.png", "{s}/{w}/{i}.png", "{s}/{i}.png"])
    count = dice.randint(3, 7)
    names = [shape.format(i=i, w=dice.choice(WORDS), s=dice.choice(["train", "test"])) for i in range(count)]
    for name in names:
        put(root / name)
    return names


# Mutations -----------------------------------------------------------------------------------------------------------


def broken_bytes(dice: random.Random, content: bytes) -> bytes:
    """One change of bytes anywhere."""
    at = dice.randrange(len(content) + 1)
    to = min(len(content), at + dice.randint(1, 12))
    return dice.choice(
        [
            lambda: content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :],
            lambda: content[:at] + content[to:],
            lambda: content[:to] + content[at:to] * dice.randint(1, 3) + content[to:],
            lambda: content[:at] + dice.choice(ODD).encode("utf-8", "surrogatepass") + content[at:],
            lambda: content[:at],
            lambda: content.replace(b"\n", dice.choice([b"\r\n", b"\r", b"\n\n", b""])),
            lambda: content.replace(b",", dice.choice([b";", b"\t", b"|", b",,", b", "])),
            lambda: dice.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0"]) + content,
            lambda: content.decode("utf-8", "replace").encode("utf-16"),
            lambda: b"[" * 50_000 + content,
            lambda: b'{"a":' * 50_000 + content,
            lambda: content.replace(b'"', b""),
        ]
    )()


def broken_rows(dice: random.Random, rows: list[list[str]]) -> list[list[str]]:
    """One change of columns or rows."""
    width = min(map(len, rows))
    column, other, row = dice.randrange(width), dice.randrange(width), dice.randrange(len(rows))
    rows = [list(r) for r in rows]
    what = dice.randrange(9)
    for r in rows:
        if what == 0:
            r[column], r[other] = r[other], r[column]
        elif what == 1:
            r.append(r[column])
        elif what == 2:
            del r[column : column + 1]
    if what == 3:
        rows[0][column] = dice.choice(COLUMNS)
    elif what == 4:
        rows[row][column] = dice.choice(ODD)
    elif what == 5:
        rows[row] = rows[row][:-1] if dice.random() < 0.5 else [*rows[row], "more"]
    elif what == 6:
        rows.insert(row, list(rows[row]))
    elif what == 7:
        rows.pop(row)
    elif what == 8:
        for r in rows[1:]:
            r[column] = dice.choice(ODD)
    return [r or [""] for r in rows] or [[""]]


def broken_tree(dice: random.Random, root: Path) -> None:
    """One change of files and folders."""
    there = sorted(p for p in root.rglob("*.png") if p.is_file() and not p.is_symlink())
    one = dice.choice(there) if there else root / "x.png"
    odd = dice.choice(NAMES)

    def link() -> None:
        os.symlink(dice.choice([root, one.parent, one, root / "nowhere", one.parent / "loop"]), one.parent / "loop")

    change: Callable[[], Any] = dice.choice(
        [
            lambda: put(root / odd / "new.png"),
            lambda: put(one.parent / f"{odd}.png"),
            lambda: (root / odd).mkdir(parents=True),
            lambda: one.write_bytes(b""),
            lambda: one.unlink(),
            lambda: (one.parent / f"{dice.random()}.png").mkdir(),
            lambda: os.mkfifo(one.parent / "pipe.png"),
            lambda: put(root / "labels.csv", dice.choice([b"", b"file,label\n", b"id,name\n0,cat\n", b"\0\0"])),
            lambda: put(root / "labels.json", dice.choice([b"", b"{}", b"[", b'{"labels": {}}', b'{"labels": 3}'])),
            lambda: put(one.parent / "metadata.jsonl", dice.choice([b"", b"3\n", b"{}\n", b'{"file_name": null}\n'])),
            lambda: put(root.joinpath(*["d"] * 60, "deep.png")),
            lambda: one.rename(one.with_name(f"{odd}.PNG")),
            link,
        ]
    )
    try:
        change()
    except OSError:  # this system takes no such name, or it is there already
        put(root / "instead.png")


# Mutants -------------------------------------------------------------------------------------------------------------


def mutant(root: Path, number: int) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """Make mutant number N in an empty folder: what is to be read, the options, and, where sure, name -> class."""
    dice = random.Random(number)
    kind = dice.choice(["table", "labels.csv", "metadata.csv", "metadata.jsonl", "labels.json", "tree", "classes"])
    data = root / "set"
    options: dict[str, Any] = {}
    data.mkdir(parents=True)
    names = files_of(dice, data)
    path = data
    meant: dict[str, str] = {}
    if kind == "labels.json":
        for name in names:
            put(data / "data" / Path(name).name)
            (data / name).unlink()
        told: dict[str, Any] = {Path(n).stem: dice.choice([*WORDS, None]) for n in names}
        numbered = dice.random() < 0.4
        if numbered:
            told = {stem: None if label is None else WORDS.index(label) for stem, label in told.items()}
        content = json.dumps({"classes": list(WORDS) if numbered else None, "labels": told}).encode()
        put(data / kind, broken_bytes(dice, content))
    elif kind == "classes":
        file = root / "classes.json"
        put(file, broken_bytes(dice, json.dumps({"cat": ["1", "cat"], "dog": "2", "0": 1}).encode()))
        options["classes"] = file
    elif kind != "tree":
        rows = first = rows_of(dice, names)
        for _ in range(dice.randint(0, 2)):
            rows = broken_rows(dice, rows)
        content = (as_lines if kind.endswith("jsonl") else as_csv)(rows)
        if dice.random() < 0.5:
            content = broken_bytes(dice, content)
        name = "table.csv" if kind == "table" else kind
        put(data / name, content)
        path = data / name if kind == "table" else data
        if sorted(map(sorted, rows)) == sorted(map(sorted, first)) and content in (as_csv(rows), as_lines(rows)):
            file, label = (next(i for i, c in enumerate(rows[0]) if c in known) for known in (FILES, LABELS))
            meant = {row[file]: row[label] for row in rows[1:]}
    if kind in ("tree", "metadata.csv", "metadata.jsonl") or dice.random() < 0.3:
        broken_tree(dice, data)
        if dice.random() < 0.5:
            broken_tree(dice, data)
    if meant and [p.read_bytes() for p in data.rglob(name)] != [content]:
        meant = {}
    options["split"] = ALL
    if dice.random() < 0.2 and kind not in ("tree", "classes", "labels.json"):
        options["label_column"] = dice.choice(["label", "class", "folder", "index", "class_index"])
    return path, options, meant


@contextmanager
def in_time() -> Iterator[None]:
    """An error where what is inside hangs."""

    def late(*_: object) -> None:
        raise AssertionError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def on_disk(root: Path) -> dict[str, str]:
    """Real path -> name of everything called like a picture in a folder, links followed; without what is hidden."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        here = waiting.pop(0)
        if os.path.realpath(here) in seen or not os.path.isdir(here):
            continue
        seen.add(os.path.realpath(here))
        for name in sorted(os.listdir(here)):
            path = here / name
            if name.startswith(".") or name == "__MACOSX":
                continue
            if path.suffix.lower() in SUFFIXES:
                shown = path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
                found.setdefault(os.path.realpath(path), shown.decode("utf-8", "backslashreplace"))
            elif path.is_symlink():
                waiting.append(path)
            else:
                waiting.insert(0, path)
    return found


def nothing_lost(read: Pictures, root: Path, path: Path) -> None:
    """Pictures in = used + broken + noted, each by its name."""
    names = [p.name for p in read.pictures]
    assert max(Counter(names).values(), default=0) <= 1
    said = " ".join(read.notes)
    for text in (*names, *read.notes, *(word for b in read.broken for word in b)):
        text.encode()
    if path.is_file():
        _, rows = table_rows(path)
        assert len(rows) == len(read.pictures) + len(read.broken), "a row is lost"
        return
    broken = [name for name, _ in read.broken]
    used = {os.path.realpath(p.path) for p in read.pictures}
    lost = [name for real, name in on_disk(root).items() if real not in used and name not in broken]
    left_out = re.search(r"does not list (\d+) of the pictures, left out", said)
    assert len(lost) == (int(left_out[1]) if left_out else 0), (lost, read.notes, broken)
    hidden = any(f.name.startswith(".") or f.name == "__MACOSX" for f in root.rglob("*"))
    assert "hidden" in said or not hidden


def table_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The rows of a CSV by Python's own reader."""
    text = path.read_bytes().decode("utf-8-sig")
    head = io.StringIO(text, newline="").readline()
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=next((c for c in ",;\t" if c in head), ","), strict=True)
    head_row, *body = [row for row in rows if "".join(row).strip()]
    return head_row, body


def right_classes(read: Pictures, meant: dict[str, str]) -> None:
    """Where the table is as it was written, perhaps with its columns in another order, it is read as it was meant."""
    for picture in read.pictures:
        of_folder = [(w,) for w in WORDS if f"{w}/" in picture.name]
        assert picture.name not in meant or picture.labels in [(meant[picture.name],), *of_folder]


def one_way(read: Pictures, model: Classifier) -> None:
    """Words are refused, or each means something, and no two different ones silently the same."""
    try:
        right, notes = understood(read, model)
    except Refused:
        return
    means: dict[str, set[int]] = {}
    for picture, row in zip(read.pictures, right, strict=True):
        assert bool(row.any()) == bool(picture.labels)
        if len(picture.labels) == 1:
            means[picture.labels[0]] = set(row.nonzero().flatten().tolist())
    shared = [w for w in means if any(w != v and means[w] & means[v] for v in means)]
    assert not shared or "for the same class" in " ".join(notes)
    if all(w.isascii() and w.isdecimal() for w in means) and not read.classes:
        by_place = {w for w in means if means[w] == {int(w)}}
        by_label = {w for w in means if model.labels[next(iter(means[w]))].endswith(w)}
        assert len(by_place) == len(means) or len(by_label) == len(means), means


def hold(root: Path, number: int) -> str:
    """Judge one mutant: "read" or "refused"."""
    path, options, meant = mutant(root, number)
    with in_time(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read = folder(path, **options)
        except Refused:
            return "refused"
        if "label_column" not in options:
            right_classes(read, meant)
        nothing_lost(read, root / "set", path)
        for labels in MODELS:
            one_way(read, wrap(nn.Linear(1, 1), Preprocess(4, (0.5,) * 3, (0.5,) * 3), labels))
        try:
            pictures, _ = with_nameable_classes(tuple(p for p in read.pictures if p.labels), read)
            labels = classes(pictures)
        except Refused:
            return "read"
        if len(labels) > 1 and not read.classes:  # an audit of the same data reads the labels of training
            trained = wrap(nn.Linear(1, 1), Preprocess(4, (0.5,) * 3, (0.5,) * 3), labels)
            again = {p.name: p.labels for p in pictures}
            for picture, row in zip(read.pictures, understood(read, trained)[0], strict=True):
                assert {labels[i] for i in row.nonzero().flatten().tolist()} == set(again.get(picture.name, ()))
    return "read"


def judged(root: Path, numbers: range) -> Counter[str]:
    found: Counter[str] = Counter()
    wrong: list[str] = []
    for number in numbers:
        try:
            found[hold(root / str(number), number)] += 1
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            wrong.append(f"mutant {number}: {type(e).__name__}: {str(e)[:200]}")
    assert not wrong, f"{len(wrong)} of {len(numbers)}:\n" + "\n".join(wrong[:20])
    return found


def test_sixty_mutants_are_refused_or_read_whole(tmp_path: Path) -> None:
    found = judged(tmp_path, range(60))
    print(f"60 mutants: {dict(found)}")
    assert found["read"] >= 10
    assert found["refused"] >= 10


@pytest.mark.slow
def test_a_thousand_mutants_are_refused_or_read_whole(tmp_path: Path) -> None:
    found = judged(tmp_path, range(60, 1060))
    print(f"1000 mutants: {dict(found)}")
    assert found["read"] >= 200
    assert found["refused"] >= 200
