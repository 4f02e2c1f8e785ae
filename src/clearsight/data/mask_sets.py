"""The class maps of a set of pictures, out of files of class numbers or out of the outlines of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clearsight.core.label_names import plain
from clearsight.data.annotation_formats import yolo
from clearsight.data.annotation_formats.regions import Region, Size
from clearsight.data.annotation_formats.sheets import AnnotationSet, Entry, Sheet, files_below
from clearsight.data.annotations import match_pictures, read_set
from clearsight.data.images import SUFFIXES, picture_size
from clearsight.data.pixel_truth import classes_of_numbers, count_numbers, read_numbers, read_regions
from clearsight.data.truth_classes import NAME_FILES, number_classes
from clearsight.data.truth_records import NOT_JUDGED, PixelTruth, TruthProblem
from clearsight.data.walk import named
from clearsight.errors import Refused

BACKGROUND = "background"
GivenLabels = Sequence[str] | Mapping[int, str] | None


@dataclass(frozen=True)
class MaskSet:
    """The class maps of a set of pictures.  The fields are those of `BoxSet`."""

    form: str
    classes: tuple[str, ...]
    truth: Mapping[str, PixelTruth]
    problems: tuple[TruthProblem, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Path] = field(default_factory=dict)


def read_class_files(masks: Path, pictures: Mapping[str, Path], labels: GivenLabels) -> MaskSet:
    """The maps of files that hold the number of a class for each pixel."""
    files = [file for file in files_below(masks) if file.suffix.lower() in SUFFIXES]
    entries: list[Entry] = []
    file_of: dict[int, Path] = {}
    for file in files:
        sheet = partial(Sheet)  # an object of its own, by which the file is found again
        file_of[id(sheet)] = file
        entries.append(((file.relative_to(masks).with_suffix("").as_posix(),), sheet))
    sheets, unmatched, _ = match_pictures(AnnotationSet("masks", entries), pictures, masks)
    if not sheets:
        both = f"they are called {named(unmatched) or 'nothing'}; the pictures are {named(list(pictures)) or 'none'}"
        raise Refused(f"masks at {masks} fit no picture", both)
    matched = {name: file_of[id(sheet)] for name, sheet in sheets.items()}
    names, notes = _names_of_numbers(masks, labels, list(matched.values()))
    classes, numbers = classes_of_numbers(names)
    if void := [names[number] for number, label in numbers.items() if label == NOT_JUDGED]:
        notes.append(f"pixels called {named(void)} are not judged")
    truth, problems, broken = {}, _unmatched(unmatched), []
    for name, file in matched.items():
        try:
            size, mask_size = picture_size(pictures[name]), picture_size(file)
        except Refused as e:
            broken.append((name, f"it or its mask {file.name} cannot be read: {e}"))
            continue
        if size != mask_size:
            words = f"mask {file.name} has {_by(mask_size)} pixels, but the picture, upright, has {_by(size)}"
            problems.append(TruthProblem("size", name, words=words))
            broken.append((name, words))
            continue
        truth[name] = PixelTruth(size, partial(read_numbers, file, size, numbers))
    return _unless_empty(MaskSet("masks", classes, truth, tuple(problems), tuple(broken), tuple(notes)), masks)


def read_outlines(masks: Path, pictures: Mapping[str, Path], labels: GivenLabels) -> MaskSet:
    """The maps of annotations that hold outlines or pixels of objects."""
    try:
        annotations = read_set(masks, pictures)
    except OSError as e:
        raise Refused(f"cannot read {e.filename or masks}: {e.strerror}") from None
    sheets, unmatched, _ = match_pictures(annotations, pictures, masks)
    if not sheets:
        both = f"they name {named(unmatched) or 'none'}; the pictures are {named(list(pictures)) or 'none'}"
        raise Refused(f"{annotations.form} annotations at {masks} fit no picture", both)
    regions = () if annotations.classes else _all_regions(sheets)
    numbering = number_classes(regions, annotations, labels, masks)
    numbers: dict[str, int] = {word: number for number, word in enumerate(numbering.classes)}
    if isinstance(labels, Mapping):
        numbers |= {str(number): numbers[word] for number, word in labels.items()}
    classes, background, notes = numbering.classes, NOT_JUDGED, [*annotations.notes, *numbering.notes]
    if annotations.form == "COCO panoptic":
        notes.append("pixels of no segment are not judged")
    else:
        classes, background = _with_background(classes)
        shift = len(classes) - len(numbering.classes)
        numbers = {word: number + shift for word, number in numbers.items()}
        notes.append(f"pixels in no object are of the class {classes[background]!r}")
    truth, broken = {}, []
    for name, sheet in sheets.items():
        try:
            size: Size = picture_size(pictures[name])
        except Refused as e:
            broken.append((name, str(e)))
            continue
        truth[name] = PixelTruth(size, partial(read_regions, sheet, size, numbers, background))
    file_of = {id(sheet): file for (_, sheet), file in zip(annotations.entries, annotations.origins, strict=False)}
    origin = {name: file_of[id(sheet)] for name, sheet in sheets.items() if id(sheet) in file_of}
    problems = tuple(_unmatched(unmatched))
    return _unless_empty(
        MaskSet(annotations.form, classes, truth, problems, tuple(broken), tuple(notes), origin), masks
    )


def _names_of_numbers(masks: Path, labels: GivenLabels, files: Sequence[Path]) -> tuple[dict[int, str], list[str]]:
    """The name of each number: as given, as a file beside the masks says, else the numbers that occur themselves."""
    if isinstance(labels, Mapping):
        return dict(labels), []
    if labels is not None:
        return dict(enumerate(labels)), []
    for file in (folder / name for folder in (masks, masks.parent) for name in NAME_FILES):
        if file.is_file():
            return dict(yolo.names_in(file)), [f"the names of the classes are those in {file}"]
    used = [number for number in count_numbers(files) if number != NOT_JUDGED]
    if used in ([0], []):
        raise Refused(
            f"masks at {masks} hold {'0 and ' if used else ''}255 alone, and 255 stands for pixels that are not judged",
            "if 255 is the object, say so with labels={0: 'background', 255: 'object'}; else save its number, from 1",
        )
    why = f"there is no {' or '.join(NAME_FILES[:2])} beside {masks}"
    return {n: str(n) for n in used}, [f"{len(used)} classes go by their numbers ({named([*map(str, used)])}): {why}"]


def _with_background(classes: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """The classes with one of background, which comes first unless it is there, and its number."""
    there = [number for number, word in enumerate(classes) if plain(word) == BACKGROUND]
    return (classes, there[0]) if there else ((BACKGROUND, *classes), 0)


def _all_regions(sheets: Mapping[str, Callable[[], Sheet]]) -> list[Region]:
    regions: list[Region] = []
    for read in sheets.values():
        try:
            regions += read().regions
        except OSError:
            continue  # reported where the map is read
    return regions


def _unmatched(names: Sequence[str]) -> list[TruthProblem]:
    return [TruthProblem("no-picture", name, words="no picture has this name") for name in names]


def _unless_empty(maps: MaskSet, masks: Path) -> MaskSet:
    if not maps.truth:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in maps.broken[:3])
        raise Refused(f"{maps.form} at {masks} hold no map that can be used: {reasons}")
    return maps


def _by(size: Size) -> str:
    return " x ".join(map(str, size))
