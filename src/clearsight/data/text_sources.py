"""Open the user's texts: a table, a folder of text files, or one text file.  Nothing is moved, written or cut."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.core.tables import TEXT_TABLES, one_row
from clearsight.core.text import counted
from clearsight.data.class_words import Classes, meanings
from clearsight.data.columns import file_columns, normalise
from clearsight.data.images import SUFFIXES, check_file
from clearsight.data.split_words import KNOWN, SPLITS, choose_split
from clearsight.data.text_records import Text, Texts
from clearsight.data.text_rows import first_columns
from clearsight.data.text_tables import TEXTS, read_text_table
from clearsight.data.walk import name_of, named
from clearsight.errors import Refused

TEXT_FILES = (".txt", ".text", ".http")
_LAYOUTS = (
    "a table .csv, .tsv or .jsonl with a column text (and label), text files in class folders, split/class folders, or "
    "flat and unlabelled, or one .txt file"
)


def texts(
    path: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    marks_column: str | None = None,
    split: str | None = None,
    classes: Classes | str | Path | None = None,
) -> Texts:
    """Open the texts of a table or a folder, or one text file.

    A folder is class/x.txt, split/class/x.txt or flat.  A table (.csv, .tsv, .jsonl) has a text in each row.  Texts are
    taken as they are, blanks and line breaks included.  Those that are empty or no UTF-8 are named in `broken`, and a
    note names those that occur several times.

    Args:
        path: the table, the folder or the text file; "requests.csv:12" for the text of row 12 alone, where the header
            is row 1, and a line of JSON is its line.
        text_column: column of the table that holds the texts; several with commas between them are joined by line
            breaks; None for one that is called so, such as text, request or sentence.
        label_column: column of the table that holds the labels; None for `label`, or one that is called alike.
        marks_column: column of the table that marks characters: ranges such as [[3, 9]], counted from 0 and without the
            last, or pieces that stand in the text as they are or percent-encoded; None for one that is called marks,
            spans or attacks, if there is one.
        split: name of the split, "all" for every one; None for test before val before train.
        classes: the data's words in the labels of the model, {"spam": ["unwanted"]}, or a JSON file of it.

    Refused: a path without texts, unknown columns and splits, marks outside of their text, and columns for what is no
    table.
    """
    root, row = Path(path), one_row(path)
    path = root if row is None else row[0]
    word_labels = meanings(classes)
    if not os.path.exists(path):
        raise Refused(f"no texts at {path}: there is no such file or folder")
    columns = {"text_column": text_column, "label_column": label_column, "marks_column": marks_column}
    try:
        if path.suffix.lower() in TEXT_TABLES and not path.is_dir():
            data = read_text_table(path, text_column, label_column, marks_column)
        elif given := [name for name, value in columns.items() if value is not None]:
            raise Refused(f"{given[0]} needs a table, and {path} is not one: leave the option out")
        else:
            data = _read_folder(path) if path.is_dir() else _read_files(path, {path.name: path}, {})
    except OSError as e:
        raise Refused(f"cannot read {e.filename or path}: {e.strerror}") from None
    if row is not None:
        data = replace(_take_row(data, row[1]), root=root)
    data = _without_empty(data if row is not None and split is None else _take_split(data, split))
    if not data.texts:
        broken = f"{len(data.broken)} broken ({', '.join(f'{n}: {r}' for n, r in data.broken[:3])})"
        raise Refused(f"no texts in {path}: {broken if data.broken else 'it is empty'}; expected {_LAYOUTS}")
    return replace(data, classes=word_labels, notes=(*data.notes, *_repeated_note(data.texts)))


def same_texts(entries: Sequence[Text]) -> list[int]:
    """A number for each text that it shares with those of the same characters, to keep them in one part of a split.

    >>> same_texts([Text("a", "x"), Text("b", "y"), Text("c", "x")])
    [0, 1, 0]
    """
    first: dict[str, int] = {}
    return [first.setdefault(entry.text, i) for i, entry in enumerate(entries)]


def is_texts(path: str | Path) -> bool:
    """Whether a path looks like texts: a table with a column of texts and none of picture files, or text files."""
    row = one_row(path)
    path = Path(path) if row is None else row[0]
    if path.is_dir():
        return not _has_pictures(path) and bool(_text_files(path))  # a large folder of pictures is known by its first
    return path.suffix.lower() in TEXT_FILES or (path.suffix.lower() in TEXT_TABLES and _has_texts(path))


def _read_folder(root: Path) -> Texts:
    """Read class/x.txt, split/class/x.txt or x.txt, sorted by name."""
    paths = {name_of(path, root): path for path in _text_files(root)}
    tops = {name.split("/")[0] for name in paths if "/" in name}
    splits = {top for top in tops if top.lower() in KNOWN}
    train = {top for top in splits if top.lower() in SPLITS["train"]}
    if not (train and splits - train) or splits != tops:
        splits = set()  # one class among others may be called train
    places = {}
    for name in paths:
        *above, _ = name.split("/")
        split = above.pop(0) if above and above[0] in splits else ""
        places[name] = tuple(above[:1]), split
    return _read_files(root, dict(sorted(paths.items())), places)


def _read_files(root: Path, paths: dict[str, Path], places: dict[str, tuple[tuple[str, ...], str]]) -> Texts:
    """The files as texts; places: the labels and the split of each."""
    read, broken = [], []
    for name, path in paths.items():
        labels, split = places.get(name, ((), ""))
        try:
            check_file(path)
            read.append(Text(name, path.read_bytes().decode("utf-8-sig"), labels, None, {}, split))
        except UnicodeDecodeError as e:
            broken.append((name, f"not UTF-8 (byte {e.start})"))
        except Refused as e:
            broken.append((name, str(e)))
        except OSError as e:
            broken.append((name, f"cannot be read: {e.strerror}"))
    return Texts(root, tuple(read), tuple(broken))


def _text_files(root: Path) -> list[Path]:
    """The text files in a folder and below it; links to folders are not followed, hidden files are left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        found += [
            Path(folder, n) for n in sorted(names) if not n.startswith(".") and Path(n).suffix.lower() in TEXT_FILES
        ]
    return found


def _has_pictures(root: Path) -> bool:
    return any(Path(name).suffix.lower() in SUFFIXES for _, _, names in os.walk(root) for name in names)


def _has_texts(table: Path) -> bool:
    """Whether a table has a column of texts and none that names files."""
    names = first_columns(table)
    try:
        file_columns(names, str(table))
    except Refused:
        return any(normalise(name) in TEXTS for name in names)
    return False


def _take_split(data: Texts, requested: str | None) -> Texts:
    """Keep the texts of one split, as for pictures."""
    chosen, notes = choose_split([t.split for t in data.texts], requested, data.root, "text")
    if chosen is None:
        return replace(data, notes=(*notes, *data.notes))
    if outside := [t.name for t in data.texts if not t.split]:
        notes.append(f"{len(outside)} texts in no split are left out: {named(outside)}")
    kept = tuple(t for t in data.texts if t.split == chosen)
    return replace(data, texts=kept, notes=(*notes, *data.notes))


def _take_row(data: Texts, number: int) -> Texts:
    """Keep the text of one row of a table."""
    names = (f"row {number}", f"line {number}")
    kept = tuple(t for t in data.texts if t.name in names)
    broken = tuple(entry for entry in data.broken if entry[0] in names)
    if not (kept or broken):
        last = data.texts[-1].name if data.texts else "none"
        raise Refused(f"{data.root} has no text in row {number}: the last one is {last}")
    return replace(data, texts=kept, broken=broken)


def _without_empty(data: Texts) -> Texts:
    """Texts of nothing but blanks go to `broken`."""
    empty = [(t.name, "nothing but blanks" if t.text else "empty") for t in data.texts if not t.text.strip()]
    kept = tuple(t for t in data.texts if t.text.strip())
    return replace(data, texts=kept, broken=(*data.broken, *empty))


def _repeated_note(entries: Sequence[Text]) -> list[str]:
    """Notes on texts that occur several times, and on those among them whose classes differ."""
    places = defaultdict(list)
    for entry in entries:
        places[entry.text].append(entry)
    repeated = [same for same in places.values() if len(same) > 1]
    if not repeated:
        return []
    first = [f"{same[0].name} = {same[1].name}" for same in repeated]
    n = sum(len(same) - 1 for same in repeated)
    notes = [f"{counted(n, 'text')} repeat{'s' if n == 1 else ''} another one: {named(first)}"]
    torn = [f"{same[0].name} and others" for same in repeated if len({entry.labels for entry in same}) > 1]
    return notes + ([f"the same text has different classes: {named(torn)}"] if torn else [])
