"""YOLO text: a .txt for each picture, a line for each object, in fractions of the picture's width and height.

class cx cy w h, a polygon class x1 y1 x2 y2 x3 y3 ..., or a turned box as its 4 corners, each perhaps with a confidence
at its end.  How a picture and its text find each other, and what the YAML of a dataset says, follows ultralytics 8.4.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml

from clearsight.data.annotation_formats.regions import Region
from clearsight.data.annotation_formats.sheets import (
    AnnotationSet,
    Entry,
    Sheet,
    clean,
    files_below,
    named,
    number,
    points,
    shown,
    whole,
)
from clearsight.data.images import SUFFIXES
from clearsight.errors import Refused

YAML = (".yaml", ".yml")
_FIRST = ("classes.txt", "labels.txt", "data.yaml", "dataset.yaml", "obj.names")  # read before other YAML
_FORMS = "neither class cx cy w h nor class x1 y1 x2 y2 x3 y3 ..., with or without a confidence"
ClassNames = Mapping[int, str]


def read(names: dict[Path, str], root: Path, pictures: Mapping[str, Path]) -> AnnotationSet:
    """An entry for each file that is not a list of pictures.  names: file -> its name below root, without suffix.

    A text belongs to the picture for which ultralytics would look there (`text_of`), else to the one of its name.
    """
    class_names, why = _find_class_names(root)
    entries = _entries(names, pictures, class_names, _keypoints_at(root))
    return AnnotationSet("YOLO", entries, why, classes=in_order(class_names))


def read_yaml(path: Path, pictures: Mapping[str, Path]) -> AnnotationSet:
    """An entry for each text that the YAML of a dataset leads to: path, train, val and test, with their names.

    Each of these is a folder of pictures, a text that lists them, or several, below `path` or beside the YAML.
    Where they lead nowhere, the texts beside the YAML and below count, and a note says so.
    """
    data = _load(path)
    if not isinstance(data, dict) or not data.keys() & {"names", "train", "val", "test"}:
        raise Refused(f"{path} is not the YAML of a YOLO dataset: it has none of names, train, val and test")
    files: list[Path] = []
    missing = []
    for key in ("train", "val", "test"):
        value = data.get(key)
        for target in value if isinstance(value, list) else [value]:
            place = _place(path.parent, data.get("path"), target)
            if place is not None:
                files += _texts(place)
            elif target:
                missing.append(f"{key}: {shown(target)}")
    notes = [f"{path.name} names files or folders that do not exist: {named(missing)}"] if missing else []
    if not files:
        files = [f for f in files_below(path.parent) if f.suffix.lower() == ".txt"]
        notes.append(f"the label files beside {path.name} are used, since it names none that exist")
    names = {file: Path(os.path.relpath(file, path.parent)).with_suffix("").as_posix() for file in files}
    class_names, remark = _read_class_names(data)
    entries = _entries(names, pictures, class_names, _keypoints(data))
    nameless = f"{path} has no names for them{remark}"
    return AnnotationSet("YOLO", entries, nameless, tuple(notes), in_order(class_names))


def read_list(path: Path, pictures: Mapping[str, Path]) -> AnnotationSet:
    """An entry for the text of each picture that a text lists, where it is there."""
    names = {file: Path(os.path.relpath(file, path.parent)).with_suffix("").as_posix() for file in _texts(path)}
    if not names:
        raise Refused(
            f"{path} lists pictures, but none of them has a label file such as {text_of(path.parent / 'x.jpg')}"
        )
    class_names, why = _find_class_names(path.parent)
    entries = _entries(names, pictures, class_names, _keypoints_at(path.parent))
    return AnnotationSet("YOLO", entries, why, classes=in_order(class_names))


def in_order(class_names: ClassNames) -> tuple[str, ...]:
    """The different names in the order of their numbers."""
    return tuple(dict.fromkeys(class_names[number] for number in sorted(class_names)))


def names_in(file: Path) -> ClassNames:
    """The names of class numbers in a YAML (names or classes), or in a text of one name on each line.

    Refused: a file that cannot be read, and one without names.
    """
    data = _load(file)
    if isinstance(data, dict) and "names" not in data:
        data = {"names": data.get("classes")}
    class_names, remark = _read_class_names(data)
    if not class_names:
        raise Refused(f"{file} names no classes{remark}", "give a YAML with names, or a text with a name on each line")
    return class_names


def text_of(picture: Path) -> str:
    """Where the text of a picture is: the last folder "images" becomes "labels", where there is one.

    >>> text_of(Path("/a/images/b/images/c.jpg"))
    '/a/images/b/labels/c.txt'
    """
    path = os.path.splitext(os.path.abspath(picture))[0] + ".txt"
    before, images, after = path.rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}" if images else path


def _entries(
    names: Mapping[Path, str], pictures: Mapping[str, Path], class_names: ClassNames, keypoints: int
) -> list[Entry]:
    """keypoints: how many numbers follow each box, 0 where that is not stated."""
    located: dict[str, list[str]] = defaultdict(list)
    for name, file in pictures.items():
        located[text_of(file)].append(name)
    entries: list[Entry] = []
    for file, name in names.items():
        hits = located.get(os.path.abspath(file), [])
        picture = hits[0] if len(hits) == 1 else None  # x.jpg and x.png have the same text: then its name must tell
        if picture is not None or not lists_pictures(file):
            entries.append(((picture, name) if picture else (name,), partial(_sheet, file, class_names, keypoints)))
    return entries


def _sheet(file: Path, class_names: ClassNames, keypoints: int) -> Sheet:
    regions, names, bad, confident, with_keypoints = [], [], [], list[str](), list[str]()
    for at, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        parsed = [number(word) for word in line.split()]
        row = [n for n in parsed if n is not None]
        if len(row) < len(parsed) or len(row) < 5 or not row[0].is_integer():
            bad.append(f"line {at}: {_FORMS}")
            continue
        class_number, values = int(row[0]), row[1:]
        if _has_keypoints(values, keypoints):
            values = values[:4]
            with_keypoints.append(str(at))
        elif keypoints and len(values) > 5:
            bad.append(f"line {at}: {len(values) - 4} numbers after the box, but kpt_shape needs {keypoints}")
            continue
        if len(values) % 2:  # the last is a confidence
            *values, confidence = values
            if not 0 <= confidence <= 1:
                bad.append(f"line {at}: {_FORMS} from 0 to 1")
                continue
            confident.append(str(at))
        if max(values) > 1.5:
            guess = "per cent or pixels" if max(values) <= 100 else "pixels"
            bad.append(
                f"line {at}: coordinates above 1.5, up to {max(values):g}, but YOLO takes fractions of the picture; "
                f"perhaps they are {guess}"
            )
            continue
        region = partial(
            Region, label=class_names.get(class_number, str(class_number)), numbered=class_number not in class_names
        )
        names.append(f"line {at}")
        if len(values) == 4:
            x, y, w, h = values
            regions.append(region(((x - w / 2, y - h / 2, x + w / 2, y + h / 2),)))
        else:
            regions.append(region(polygons=(points(values),)))
    remarks = [f"lines {named(confident)} hold a confidence, as predictions do"] if confident else []
    remarks += (
        [f"lines {named(with_keypoints)} hold keypoints, of which only the box is read"] if with_keypoints else []
    )
    return Sheet(tuple(regions), None, True, tuple(bad), tuple(names), tuple(remarks))


def _has_keypoints(values: Sequence[float], keypoints: int) -> bool:
    """Whether the numbers after the class are a box with keypoints, as ultralytics has them for poses.

    keypoints: how many numbers they are, where a YAML says so; one more is a confidence.  Else x, y and a flag of 0, 1
    or 2 for each show it: a polygon never has a coordinate of 2, and hardly three of 0 or 1.
    """
    if keypoints:
        return len(values) - 4 in (keypoints, keypoints + 1)
    flags = values[6::3]
    looks_posed = len(values) > 4 and len(values) % 3 == 1 and all(flag in (0, 1, 2) for flag in flags)
    return looks_posed and (2 in flags or len(flags) >= 3)


def _lines(file: Path) -> list[str]:
    return file.read_bytes().decode("utf-8-sig", "replace").splitlines()


def lists_pictures(file: Path) -> bool:
    """Whether a text names pictures, one on each line, as lists of a split do, and so holds no objects."""
    lines = [line.strip() for line in _lines(file) if line.strip()]
    rows = any(len(line.split()) > 1 and number(line.split()[0]) is not None for line in lines)
    return bool(lines) and not rows and all(os.path.splitext(line)[1].lower() in SUFFIXES for line in lines)


def _place(home: Path, below: object, target: object) -> Path | None:
    """The file or folder that a YAML names, None where there is none.

    Roboflow writes ../train/images for what lies beside its YAML, which ultralytics forgives too.
    """
    if not isinstance(target, str) or not target.strip() or "\0" in target:
        return None
    homes = [home / below, home] if isinstance(below, str) and "\0" not in below else [home]
    places = [folder / part for folder in homes for part in (target, target.removeprefix("../"))]
    return next((Path(os.path.normpath(place)) for place in places if os.path.exists(place)), None)


def _texts(place: Path) -> list[Path]:
    """The texts of the pictures in a folder, in a list of them, or of one, that are there."""
    if place.is_dir():
        inside = os.path.dirname(text_of(place / "x"))
        return [f for f in files_below(Path(inside)) if f.suffix.lower() == ".txt"]
    if place.suffix.lower() != ".txt":
        return [Path(text_of(place))] if os.path.isfile(text_of(place)) else []
    listed = [place.parent / line.strip() for line in _lines(place) if line.strip() and "\0" not in line]
    return [Path(text_of(file)) for file in listed if os.path.isfile(text_of(file))]


def _find_class_names(root: Path) -> tuple[ClassNames, str]:
    """The names of the class numbers in the folder or in the one above, and why some may have none.

    classes.txt, labels.txt, data.yaml, dataset.yaml or obj.names, else the only YAML with names, or several that agree.
    """
    for folder in (root, Path(os.path.normpath(root / ".."))):
        for file in (folder / name for name in _FIRST):
            if file.is_file():
                class_names, remark = _read_class_names(_load(file))
                return class_names, f"{file} has no names for them{remark}"
        yaml_files = [file for file in _sorted(folder) if file.suffix.lower() in YAML]
        named_files = {file: class_names for file in yaml_files if (class_names := _names_if_any(file))}
        if named_files:
            first, *others = named_files.values()
            if any(class_names != first for class_names in others):
                return (
                    {},
                    f"{named([str(f) for f in named_files])} name them differently: keep one, or write classes.txt",
                )
            return first, f"{next(iter(named_files))} has no names for them"
    return {}, f"there is no classes.txt or data.yaml with their names in {root} or in the folder above it"


def _keypoints_at(root: Path) -> int:
    """`_keypoints` of the first YAML in the folder or in the one above that states them."""
    for folder in (root, Path(os.path.normpath(root / ".."))):
        for file in (file for file in _sorted(folder) if file.suffix.lower() in YAML):
            try:
                data = _load(file)
            except Refused:
                continue  # a YAML that may be about anything
            if stated := _keypoints(data):
                return stated
    return 0


def _keypoints(data: object) -> int:
    """How many numbers ultralytics' kpt_shape, [points, 2 or 3], gives each object; 0 where there is none."""
    shape = data.get("kpt_shape") if isinstance(data, dict) else None
    if not isinstance(shape, list) or len(shape) != 2:
        return 0
    many, each = whole(shape[0]), whole(shape[1])
    return many * each if many and each and many > 0 and each in (2, 3) else 0


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.is_file())
    except OSError:
        return []  # a folder that may not be listed


def _names_if_any(file: Path) -> ClassNames:
    """The names in a YAML that may be about anything."""
    try:
        return _read_class_names(_load(file))[0]
    except Refused:
        return {}


def _load(file: Path) -> object:
    """What a YAML holds, or a text of one name on each line as a YAML would hold it."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        return yaml.safe_load(text) if file.suffix.lower() in YAML else {"names": text.splitlines()}
    except OSError as e:
        raise Refused(f"cannot read {file}: {e.strerror}") from None
    except Exception as e:  # PyYAML raises nearly anything for what is damaged
        raise Refused(f"{file} cannot be read: {e}") from None


def _read_class_names(data: object) -> tuple[ClassNames, str]:
    """The names by number, and a remark on what cannot be one."""
    listed = data.get("names") if isinstance(data, dict) else None
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(listed, list | dict):
        pairs = enumerate(listed) if isinstance(listed, list) else listed.items()
    class_names: dict[int, str] = {}
    invalid = []
    for key, word in pairs:
        at = whole(key)
        if at is None or isinstance(word, bool) or not isinstance(word, str | int | float):
            invalid.append(f"{shown(key)}: {shown(word)}")
        elif str(word).strip():
            class_names[at] = clean(str(word)).strip()
    return class_names, f" ({named(invalid)} is not a number and a name: put names in quotes)" if invalid else ""
