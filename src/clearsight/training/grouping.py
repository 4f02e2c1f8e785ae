"""The groups of pictures: a picture's class together with its words in columns of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.text import counted
from clearsight.data.records import Picture
from clearsight.errors import Refused, nearest

NAMED = 8  # groups and pictures in a sentence


@dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of a set of pictures, each class with all that the columns say.

    columns: their names.  names (G,): of the groups, "landbird, place water".  of (N,): the group of each picture, -1
    where one of the columns says nothing.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    of: Tensor

    def sizes(self, rows: Sequence[int]) -> list[int]:
        """How many of these pictures each group has."""
        counts = Counter(self.of[list(rows)].tolist())
        return [counts[g] for g in range(len(self.names))]


def group_pictures(pictures: Sequence[Picture], columns: str) -> Grouping:
    """The groups of labelled pictures: their first class, with their words in these columns, named with commas.

    Refused: columns that the data does not have, and words that make no groups within a class.
    """
    names = tuple(dict.fromkeys(name.strip() for name in columns.split(",") if name.strip()))
    known = sorted({column for p in pictures for column in p.columns})
    for name in names or (columns,):
        if name not in known:
            hint = nearest(name, known) if known else "it has none; give a CSV with one, such as file,label,place"
            raise Refused(f"--groups: the data has no column {name!r}: {hint}")
    of_picture = [(p.labels[0], tuple(p.columns.get(name, "").strip() for name in names)) for p in pictures]
    members = [pair for pair in of_picture if all(pair[1])]
    words = sorted({pair[1] for pair in members})
    if len(words) < 2:
        what = f"only {_in_words(names, words[0])}" if words else "nothing"
        raise Refused(f"--groups: {', '.join(names)} says {what}, so that classes have no groups")
    if not any(len({label for label, own in set(members) if own == w}) > 1 for w in words):
        pair = min(members)
        raise Refused(
            f"--groups: whatever {', '.join(names)} says occurs in one class only, such as {pair[1][0]!r} in "
            f"{pair[0]!r}",
            "groups need pictures of two classes with the same words",
        )
    groups = [(label, w) for label in sorted({label for label, _ in members}) for w in words]
    number = {pair: g for g, pair in enumerate(groups)}
    of = torch.tensor([number.get(pair, -1) for pair in of_picture])
    return Grouping(names, tuple(f"{label}, {_in_words(names, w)}" for label, w in groups), of)


def _in_words(columns: Sequence[str], words: Iterable[str]) -> str:
    return ", ".join(f"{column} {word}" for column, word in zip(columns, words, strict=True))


def check_members(
    grouping: Grouping, pictures: Sequence[Picture], rows: Sequence[int], part: str, fewest: int = 1
) -> None:
    """Refuse groups with fewer pictures in a part than that, and pictures of it that are in no group."""
    outside = [pictures[i].name for i in rows if int(grouping.of[i]) < 0]
    if outside:
        raise Refused(
            f"{counted(len(outside), 'picture')} of {part} with an empty cell in {' or '.join(grouping.columns)}: "
            f"{_some(outside)}",
            "fill the cells, or remove the rows",
        )
    sizes = zip(grouping.names, grouping.sizes(rows), strict=True)
    if few := [name for name, n in sizes if n < fewest]:
        raise Refused(
            f"{counted(len(few), 'group')} with {'no picture' if fewest == 1 else f'fewer than {fewest} pictures'} in "
            f"{part}: {_some([f'({name})' for name in few])}",
            f"add such pictures to {part}, or name other columns with --groups",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
