"""The data of the training of a detector or a segmenter: its pictures, their truth, and the part of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.data.duplicates import Likeness, Seen, likenesses
from clearsight.data.records import Picture, Pictures
from clearsight.data.split_words import part_of
from clearsight.data.splits import PARTS, named
from clearsight.data.strata import divide, strata
from clearsight.data.truth_records import NOT_JUDGED
from clearsight.errors import Refused
from clearsight.training.objects.recipe import ObjectRecipe
from clearsight.training.training_data import assign_parts


@dataclass(frozen=True, eq=False)
class ObjectData:
    """Pictures with boxes or class maps that can be read, and the part of each: "train", "val" or "test".

    kind: "detector" or "segmenter".  labels: the classes, by number.  shown: of each picture how many objects, or
    whether there are pixels, of each class.  notes: what was chosen and left out.
    """

    data: Pictures
    kind: str
    pictures: tuple[Picture, ...]
    seen: tuple[Seen, ...]
    labels: tuple[str, ...]
    parts: tuple[str, ...]
    shown: tuple[Counter[int], ...]
    notes: tuple[str, ...]

    def rows(self, part: str) -> list[int]:
        return [i for i, p in enumerate(self.parts) if p == part]

    def counts(self, part: str) -> dict[str, int]:
        """How many objects of each class a part has; of class maps how many pictures show it."""
        total: Counter[int] = Counter()
        for i in self.rows(part):
            total.update(self.shown[i])
        return {label: total[k] for k, label in enumerate(self.labels)}

    @property
    def thing(self) -> str:
        """What `counts` counts."""
        return "object" if self.kind == "detector" else "picture"

    @property
    def digest(self) -> str:
        """16 hex digits over the pictures' names and parts, and the objects of each."""
        h = hashlib.sha256(repr((self.kind, self.labels)).encode(errors="backslashreplace"))
        for picture, part, shown in zip(self.pictures, self.parts, self.shown, strict=True):
            h.update(repr((picture.name, part, sorted(shown.items()))).encode(errors="backslashreplace"))
            if picture.boxes is not None:
                h.update(picture.boxes.boxes.numpy().tobytes())
        return h.hexdigest()[:16]


def kind_of_truth(data: Pictures) -> str:
    """What pictures with this truth train: "detector" or "segmenter".  Refused: neither boxes nor class maps."""
    if any(p.boxes is not None for p in data.pictures):
        return "detector"
    if any(p.pixels is not None for p in data.pictures):
        return "segmenter"
    raise Refused(
        f"the pictures of {data.root} have neither boxes nor masks",
        "say where they are: boxes=... or masks=... (--boxes, --masks)",
    )


def prepare(
    data: Pictures, recipe: ObjectRecipe, alike: Likeness | None = None, progress: Progress | None = None
) -> ObjectData:
    """Divide pictures into train, val and test: as the data says, else by their rarest class, near-duplicates together.

    Refused: pictures without truth, a class that train does not have and another part has, and parts without objects.
    """
    kind = kind_of_truth(data)
    usable = [p for p in data.pictures if (p.boxes if kind == "detector" else p.pixels) is not None]
    likeness = alike or likenesses(usable, progress=progress)
    seen_by_name = {p.name: s for p, s in zip(usable, likeness.seen, strict=True)}
    readable = [i for i, p in enumerate(usable) if seen_by_name[p.name] is not None]
    notes = [*data.notes, *_left_out(data, usable, likeness)]
    if any(part_of(usable[i].split) for i in readable):
        outside = [i for i in readable if not part_of(usable[i].split)]
        readable = [i for i in readable if part_of(usable[i].split)]
        notes += [f"{len(outside)} pictures in no split are left out"] if outside else []
    pictures = tuple(usable[i] for i in readable)
    if not pictures:
        raise Refused(f"no picture of {data.root} can be read: {'; '.join(notes[-2:])}")
    groups = [likeness.groups[i] for i in readable]
    shown = tuple(_shown(p) for p in pictures)
    labels, shares = strata(shown, data.objects), recipe.parts()
    parts, told = assign_parts(pictures, labels, groups, shares, recipe.divides(), "picture", partial(divide, shown))
    seen = tuple(s for p in pictures if (s := seen_by_name[p.name]) is not None)
    prepared = ObjectData(
        data, kind, pictures, seen, data.objects, parts, shown, (*notes, *likeness.notes, *told, *_crowds(pictures))
    )
    _check(prepared)
    return prepared


def _left_out(data: Pictures, usable: Sequence[Picture], alike: Likeness) -> list[str]:
    notes = []
    if broken := sorted({*data.broken, *alike.broken}):
        listed = named([f"{name} ({reason})" for name, reason in broken])
        verb = "is left out" if len(broken) == 1 else "are left out"
        notes.append(f"{counted(len(broken), 'broken file')} {verb}: {listed}")
    if (without := len(data.pictures) - len(usable)) > 0:
        notes.append(f"{counted(without, 'picture')} without annotation left out")
    return notes


def _shown(picture: Picture) -> Counter[int]:
    if picture.boxes is not None:
        return Counter(picture.boxes.labels[~picture.boxes.crowd].tolist())
    assert picture.pixels is not None
    return Counter(k for k in torch.unique(picture.pixels()).tolist() if k != NOT_JUDGED)


def _crowds(pictures: Sequence[Picture]) -> list[str]:
    crowds = sum(int(p.boxes.crowd.sum()) for p in pictures if p.boxes is not None)
    if not crowds:
        return []
    return [f"{counted(crowds, 'box', 'boxes')} of a crowd not learned, and detections in them are not judged"]


def _check(data: ObjectData) -> None:
    """Refuse parts without pictures or objects, and classes that train lacks."""
    for part in ("train", "val"):
        if not data.rows(part):
            rare = [c for k, c in enumerate(data.labels) if sum(k in shown for shown in data.shown) == 1]
            why = f", as {len(rare)} classes are on one picture each, which trains ({named(rare)})" if rare else ""
            raise Refused(
                f"no picture of {data.data.root} is left for {part}{why}",
                "give more pictures, leave the rarest classes out of the annotation, or give other --shares",
            )
        if not sum(data.counts(part).values()):
            raise Refused(f"no picture of {part} shows an object: give more pictures, or other --shares")
    counts = {part: data.counts(part) for part in PARTS}
    lacking = [c for c in data.labels if not counts["train"][c] and (counts["val"][c] or counts["test"][c])]
    if lacking:
        has = "has" if len(lacking) == 1 else "have"
        raise Refused(
            f"{named(lacking)} {has} no {data.thing} in train, and others in val or test: what is not shown is not "
            "learned",
            "add pictures, divide them otherwise (--split-seed), or leave the class out of the annotation",
        )
