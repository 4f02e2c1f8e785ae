"""Divide pictures with boxes or class maps into train, val and test: every class, and background, in each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from clearsight.core.progress import Progress
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.data.records import Picture, Pictures
from clearsight.data.splits import split, split_notes
from clearsight.data.truth_records import NOT_JUDGED
from clearsight.errors import Refused

NO_OBJECT = "no object"


def strata(data: Pictures) -> tuple[str, ...]:
    """The class by which each picture is divided: of the classes in it the one that the fewest pictures show.

    So the rare classes reach every part, as iterative stratification does it in its first step (Sechidis et al. 2011,
    doi:10.1007/978-3-642-23808-6_10).  Pictures without an object are "no object", a class of their own.
    """
    shown = [_classes_in(picture) for picture in data.pictures]
    counts = Counter(label for classes in shown for label in classes)
    names = [
        data.objects[min(classes, key=lambda label: (counts[label], label))] if classes else NO_OBJECT
        for classes in shown
    ]
    return tuple(names)


def divide(
    data: Pictures,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    *,
    seed: int,
    alike: Likeness | None = None,
    groups: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Pictures:
    """Pictures with boxes or class maps, each with its part as `split`: near duplicates and groups whole in one part.

    Args:
        data: the pictures, whose own splits are not looked at.
        shares: of the pictures in train, val and test.
        seed: decides, with the classes and the groups; the order of the pictures does not.
        alike: the duplicates among them; None looks for them, which reads each picture once.
        groups: a number that pictures share which must stay together, such as those of one patient; instead of alike.
        progress: told of the search for duplicates.

    Refused: what `splits.split` refuses, and pictures without boxes or maps.
    """
    if groups is None:
        groups = (alike or likenesses(data.pictures, progress=progress)).groups
    labels = strata(data)
    parts = split(labels, groups, shares, seed=seed)
    pictures = tuple(replace(picture, split=part) for picture, part in zip(data.pictures, parts, strict=True))
    return replace(data, pictures=pictures, notes=(*data.notes, *split_notes(labels, groups, parts)))


def _classes_in(picture: Picture) -> list[int]:
    """The classes that a picture shows, without those of crowds alone."""
    if picture.boxes is not None:
        labels: list[int] = torch.unique(picture.boxes.labels[~picture.boxes.crowd]).tolist()
        return labels
    if picture.pixels is not None:
        return [label for label in torch.unique(picture.pixels()).tolist() if label != NOT_JUDGED]
    raise Refused(
        f"picture {picture.name} has neither boxes nor a map of classes", "open it by open_boxes or open_masks"
    )
