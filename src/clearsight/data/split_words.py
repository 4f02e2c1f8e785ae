"""Choose the split of a set of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.data.records import Pictures
from clearsight.data.walk import named
from clearsight.errors import Refused

SPLITS = {  # in the order of preference where the user names none
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
    "train": ("train", "training"),
}
ALL = "all"  # all splits together
KNOWN = frozenset(word for words in SPLITS.values() for word in words)


def part_of(split: str) -> str:
    """The part that a split's name stands for: "train", "val" or "test"; "" for any other name.

    >>> part_of("Validation"), part_of("bird")
    ('val', '')
    """
    return next((part for part, words in SPLITS.items() if split.lower() in words), "")


def take_split(data: Pictures, requested: str | None) -> Pictures:
    """Keep the pictures of one split: the requested one, else test before val before train.  A note names it."""
    chosen, notes = choose_split([picture.split for picture in data.pictures], requested, data.root, "picture")
    if chosen is None:
        return replace(data, notes=(*notes, *data.notes))
    if outside := [picture.name for picture in data.pictures if not picture.split]:
        notes.append(f"{len(outside)} pictures in no split are left out: {named(outside)}")
    pictures = tuple(picture for picture in data.pictures if picture.split == chosen)
    return replace(data, pictures=pictures, notes=(*notes, *data.notes))


def choose_split(
    splits: Sequence[str], requested: str | None, root: Path | str, thing: str
) -> tuple[str | None, list[str]]:
    """The split to be kept, None for all, and notes.

    splits: that of each picture or text, "" for none; thing: "picture" or "text".
    """
    counts = Counter(filter(None, splits))
    usual = [word for word in counts if word.lower() in KNOWN]
    if requested is None and counts and not usual:
        words = named([f"{word} {n}" for word, n in sorted(counts.items())])
        return None, [
            f"no split is called train, val or test, so all are used ({words} {thing}s): choose one with --split"
        ]
    if requested == ALL or (requested is None and not usual):
        return None, []
    if not counts:
        raise Refused(f"split {requested!r}: {root} has no splits; leave the option out")
    order = [word for words in SPLITS.values() for word in words]
    if requested is None:
        chosen = min(usual, key=lambda word: (order.index(word.lower()), word))
    elif requested in counts:
        chosen = requested
    else:
        synonyms = next((words for words in SPLITS.values() if requested.lower() in words), (requested.lower(),))
        matching = [word for word in counts if word.lower() in synonyms]
        if len(matching) != 1:
            raise Refused(f"split {requested!r}: {root} has {', '.join(sorted(counts))}")
        chosen = matching[0]
    shares = ", ".join(f"{word} {n}" for word, n in sorted(counts.items()))
    return chosen, [
        f"split {chosen} is used, of {shares} {thing}s" + ("" if requested else ": choose another with --split")
    ]
