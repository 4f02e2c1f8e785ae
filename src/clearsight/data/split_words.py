"""Which split of a set of pictures is taken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from clearsight.data.records import Pictures
from clearsight.data.walk import named
from clearsight.errors import Refused

SPLITS = {  # the split that is taken first where none is asked for stands first
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "train": ("train", "training"),
}
ALL = "all"  # every split at once
KNOWN = frozenset(word for words in SPLITS.values() for word in words)


def part_of(split: str) -> str:
    """What a split is for: "train", "val" or "test", whatever it is called; "" for none of these.

    >>> part_of("Validation"), part_of("bird")
    ('val', '')
    """
    return next((part for part, words in SPLITS.items() if split.lower() in words), "")


def of_split(found: Pictures, asked: str | None) -> Pictures:
    there = Counter(picture.split for picture in found.pictures if picture.split)
    known = [word for word in there if word.lower() in KNOWN]
    if asked is None and there and not known:
        words = named([f"{word} {n}" for word, n in sorted(there.items())])
        note = f"no split is called train, val or test, so all are taken, of {words} pictures: --split takes one"
        return replace(found, notes=(note, *found.notes))
    if asked == ALL or (asked is None and not known):
        return found
    if not there:
        raise Refused(f"split {asked!r}: there are no splits in {found.root}")
    order = [word for words in SPLITS.values() for word in words]
    if asked is None:
        chosen = min(known, key=lambda word: (order.index(word.lower()), word))
    elif asked in there:
        chosen = asked
    else:
        same = next((words for words in SPLITS.values() if asked.lower() in words), (asked.lower(),))
        fitting = [word for word in there if word.lower() in same]
        if len(fitting) != 1:
            raise Refused(f"split {asked!r}: {found.root} has {', '.join(sorted(there))}")
        chosen = fitting[0]
    shares = ", ".join(f"{word} {n}" for word, n in sorted(there.items()))
    notes = [f"split {chosen} is taken, of {shares} pictures" + ("" if asked else ": --split takes another")]
    if outside := [picture.name for picture in found.pictures if not picture.split]:
        notes.append(f"{len(outside)} pictures in no split are left out: {named(outside)}")
    pictures = tuple(picture for picture in found.pictures if picture.split == chosen)
    return replace(found, pictures=pictures, notes=(*notes, *found.notes))
