"""The class of each pixel of a picture, out of a file of class numbers or out of the outlines of its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clearsight.core.label_names import plain
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotation_formats.regions import Region, Size
from clearsight.data.annotation_formats.sheets import Sheet, by, named
from clearsight.data.annotations import fit_regions, region_mask
from clearsight.data.images import open_classes
from clearsight.data.truth_records import NOT_JUDGED, PixelMap
from clearsight.errors import Refused

_VOID = frozenset({"unlabeled", "unlabelled", "void", "ignore", "ignored", "not judged"})


def classes_of_numbers(names: Mapping[int, str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes of a file's numbers, and the class of each number; 255 for those named void, unlabeled or ignore.

    Numbers with gaps become 0 to K - 1 in their order.

    >>> classes_of_numbers({0: "unlabeled", 1: "person", 90: "toothbrush"})
    (('person', 'toothbrush'), {1: 0, 90: 1, 0: 255})
    """
    judged = {number: names[number] for number in sorted(names) if plain(names[number]) not in _VOID}
    classes = tuple(dict.fromkeys(judged.values()))
    if len(classes) > NOT_JUDGED:
        raise Refused(f"{len(classes)} classes: a class map holds at most {NOT_JUDGED}")
    numbers = {number: classes.index(name) for number, name in judged.items()}
    return classes, numbers | dict.fromkeys(sorted(names.keys() - judged.keys()), NOT_JUDGED)


def read_numbers(file: Path, size: Size, numbers: Mapping[int, int]) -> PixelMap:
    """The map of a file of class numbers.  numbers: the class of each number.

    Numbers without a class, 255 apart, are not judged, and a problem names them.
    Refused: a file that cannot be read, and one of another size than the picture's.
    """
    try:
        values = open_classes(file)
    except Refused as e:
        raise Refused(f"mask {file}: {e}") from None
    if values.shape != size[::-1]:
        raise Refused(f"mask {file} has {by(values.shape[::-1])} pixels, but its picture, upright, has {by(size)}")
    table = np.full(max(int(values.max()), *numbers, NOT_JUDGED) + 1, NOT_JUDGED, np.int64)
    for number, label in numbers.items():
        table[number] = label
    used = np.flatnonzero(np.bincount(values.ravel()))
    strange = [str(n) for n in used.tolist() if n not in numbers and n != NOT_JUDGED]
    problem = (f"{file.name} holds the numbers {named(strange)}, which are no classes: not judged",) if strange else ()
    return PixelMap(torch.from_numpy(table[values]), problem)


def read_regions(read: Callable[[], Sheet], size: Size, numbers: Mapping[str, int], background: int) -> PixelMap:
    """The map of a picture's objects.  numbers: the class of each label; background: of pixels in no object.

    Not judged are pixels that objects of two classes share, those of objects of an unknown class, and the inside of
    objects that have only a box, as far as no other object covers it.
    """
    try:
        sheet = read()
    except OSError as e:
        raise Refused(f"cannot read {e.filename}: {e.strerror}") from None
    regions, _, problems = fit_regions(sheet, size)
    if problems and not regions:
        raise Refused(f"its annotation cannot be used: {named(problems)}")
    shape = size[::-1]
    classes = np.full(shape, -1, np.int64)
    unclear, boxed = np.zeros(shape, bool), np.zeros(shape, bool)
    for region in regions:
        number = numbers.get(region.label) if region.label is not None else None
        if not region.polygons and region.mask is None:
            boxed |= _inside(region, size)
            what = f"an object ({region.label or 'no class'}) has only a box"
            problems.append(f"{what}: its inside is not judged where no other object is")
            continue
        inside = _inside(region, size)
        if number is None:
            unclear |= inside
            problems.append(f"class {region.label!r} is not one of the classes: its pixels are not judged")
            continue
        unclear |= inside & (classes >= 0) & (classes != number)
        classes[inside] = number
    classes[(classes < 0) & boxed] = NOT_JUDGED
    classes[classes < 0] = background
    classes[unclear] = NOT_JUDGED
    return PixelMap(torch.from_numpy(classes), tuple(dict.fromkeys(problems)))


def _inside(region: Region, size: Size) -> NDArray[np.bool_]:
    """bool (H, W), True where a pixel's centre is inside."""
    as_it_is = Preprocess(size[::-1], (0.0,), (1.0,))
    return region_mask(region, size, as_it_is).numpy()


def count_numbers(files: Sequence[Path]) -> list[int]:
    """The different numbers in files of classes, in order, without those that cannot be read."""
    used: set[int] = set()
    for file in files:
        try:
            used.update(np.unique(open_classes(file)).tolist())
        except Refused:
            continue  # reported where it is read
    return sorted(used)
