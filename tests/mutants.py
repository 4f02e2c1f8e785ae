"""Files damaged at random, always in the same way for the same number, for tests/parts/test_mutants_annotations.py.

Values become those of other kinds, parts are gone or twice there, and bytes are damaged.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

STRANGE: list[Any] = [
    None, True, False, "", " ", "abc", "nan", "1_0", "-", 0, -1, -7.5, 0.5, 1.7, 1e30, 1e400, -1e400, float("nan"),
    2**70, [], {}, [[]], [None], {"a": 1}, [1, 2, 3], "\ud800", "\x00", "\x1b[31m", "Ω" * 500, "../../a.png", "12px",
]  # fmt: skip


class Damage(NamedTuple):
    """What was done.  place: of the one value that was put in the place of another one that means something else."""

    said: str
    place: str = ""


Mutate = Callable[[Path, Random], Damage]  # damages what is at a path


def json_file(path: Path, rng: Random) -> Damage:
    """One place of a JSON file; a folder's first JSON file where the path is one."""
    file = path if path.is_file() else sorted(path.rglob("*.json"))[rng.randrange(len(list(path.rglob("*.json"))))]
    if rng.random() < 0.15:
        return _bytes(file, rng)
    data = json.loads(file.read_text())
    done = [_place(data, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    file.write_text(json.dumps(data))
    return done[0] if len(done) == 1 else Damage("; ".join(d.said for d in done))


def _place(data: Any, rng: Random) -> Damage:
    """One change somewhere in nested lists and dicts."""
    holders = [(path, held) for path, held in _holders(data) if held]
    path, held = rng.choice(holders)
    key = rng.choice(list(held) if isinstance(held, dict) else range(len(held)))
    old = copy.deepcopy(held[key])
    how = rng.choice(["strange", "strange", "strange", "kind", "kind", "gone", "twice", "wrapped"])
    if how == "gone":
        del held[key]
    elif how == "twice":
        if isinstance(held, list):
            held.insert(key, copy.deepcopy(old))
        else:
            held[f"{key} again"] = held.pop(key)
    elif how == "wrapped":
        held[key] = [old]
    else:
        held[key] = _other_kind(old) if how == "kind" else copy.deepcopy(rng.choice(STRANGE))
    said = f"{how} {path}/{key}: {old!r:.60} -> {held[key] if how in ('strange', 'kind') else ''!r:.60}"
    return Damage(said, f"{path}/{key}" if how == "strange" and not _same(old, held[key]) else "")


def _same(old: object, new: object) -> bool:
    """Whether both are the same number or text, as -1 is 0 where an edge is; True is no number."""
    if isinstance(new, bool) or isinstance(old, bool):
        return old is new
    if "a.png" in f"{old}{new}":
        return True
    try:
        return float(str(old)) == float(str(new)) or (float(str(old)), float(str(new))) == (0, -1)
    except ValueError:
        return str(old) == str(new)


def _holders(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict | list):
        yield path, data
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _holders(value, f"{path}/{key}")


def _other_kind(value: Any) -> Any:
    """The same in another kind, where there is one: 7 -> "7", 7.0 -> "7.0", "7" -> 7."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return float(value) if value % 2 else str(value)
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return value.encode().decode("latin-1") if value else 0
    return dict(enumerate(value)) if isinstance(value, list) else [list(pair) for pair in value.items()]


def xml_file(path: Path, rng: Random) -> Damage:
    """One element of one XML file in a folder."""
    file = rng.choice(sorted(path.rglob("*.xml")))
    if rng.random() < 0.15:
        return _bytes(file, rng)
    root = ET.fromstring(file.read_text())
    pairs = [(parent, child) for parent in root.iter() for child in parent]
    parent, child = rng.choice(pairs)
    old = child.text
    how = rng.choice(["text", "text", "text", "gone", "twice", "tag", "wrapped", "moved"])
    if how == "text":
        text = str(rng.choice(STRANGE)).replace("\x00", "").replace("\x1b", "")
        child.text = text.encode("utf-8", "replace").decode()
    elif how in ("gone", "moved"):
        parent.remove(child)
        if how == "moved":
            root.append(child)
    elif how == "twice":
        parent.append(copy.deepcopy(child))
    elif how == "tag":
        child.tag = rng.choice(["object", "bndbox", "xmin", "polygon", "robndbox", "size", "name", "odd"])
    else:
        inner = copy.deepcopy(child)
        child.clear()
        child.tag = "odd"
        child.append(inner)
    file.write_text(ET.tostring(root, "unicode"))
    place = f"{parent.tag}/{child.tag}" if how == "text" and not len(child) and not _same(old, child.text) else ""
    return Damage(f"{file.name}: {how} <{child.tag}> {child.text!r:.60}", place)


def text_file(path: Path, rng: Random) -> Damage:
    """One word or line of one text, CSV or YAML in a folder, or of the file."""
    files = [f for f in sorted(path.rglob("*")) if f.suffix in (".txt", ".csv", ".yaml")] if path.is_dir() else [path]
    if path.suffix == ".yaml":
        files += sorted(f for f in path.parent.rglob("*.txt") if f.is_file())
    file = rng.choice(files)
    if rng.random() < 0.15:
        return _bytes(file, rng)
    separator = "," if file.suffix == ".csv" else " "
    lines = [line.split(separator) for line in file.read_text().splitlines()]
    at = rng.randrange(len(lines))
    how = rng.choice(["word", "word", "word", "line gone", "line twice", "word gone", "word twice"])
    word = rng.randrange(len(lines[at]))
    place = ""
    if how == "word":
        odd = str(rng.choice(STRANGE)).encode("utf-8", "replace").decode()
        place = f"{file.name}/{at}/{word}" if not _same(lines[at][word], odd.strip()) else ""
        lines[at][word] = odd if separator == " " else _cell(odd)
    elif how == "line gone":
        del lines[at]
    elif how == "line twice":
        lines.insert(at, lines[at])
    elif how == "word gone":
        del lines[at][word]
    else:
        lines[at].insert(word, lines[at][word])
    file.write_text("\n".join(separator.join(line) for line in lines))
    return Damage(f"{file.name}: {how} {at}, {word}: {lines[at][word : word + 1] if at < len(lines) else ''}", place)


def _cell(text: str) -> str:
    held = io.StringIO()
    csv.writer(held).writerow([text])
    return held.getvalue().rstrip("\r\n")


def any_file(path: Path, rng: Random) -> Damage:
    """Bytes of one file in a folder."""
    return _bytes(rng.choice([f for f in sorted(path.rglob("*")) if f.is_file()]), rng)


def _bytes(file: Path, rng: Random) -> Damage:
    data = bytearray(file.read_bytes())
    how = rng.choice(["cut", "flip", "insert", "empty", "utf-16", "bom", "noise"])
    at = rng.randrange(len(data)) if data else 0
    if how == "cut":
        del data[at:]
    elif how == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == "insert":
        data[at:at] = rng.randbytes(rng.randrange(1, 9))
    elif how == "empty":
        data.clear()
    elif how == "utf-16":
        data = bytearray(bytes(data).decode("utf-8", "replace").encode("utf-16"))
    elif how == "bom":
        data[0:0] = b"\xef\xbb\xbf"
    else:
        data[:] = rng.randbytes(len(data))
    file.write_bytes(data)
    return Damage(f"{file.name}: bytes {how} at {at}")
