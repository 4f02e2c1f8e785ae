"""Split pictures into train, val and test or into folds: stratified by class, with duplicates in one part."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from clearsight.errors import Refused

PARTS = ("train", "val", "test")
NAMED = 5  # classes that a note names


@dataclass(frozen=True)
class _Group:
    """Pictures that stay together: how many of each class they are, and a number drawn for them."""

    number: int
    counts: Counter[str]
    draw: bytes

    @property
    def size(self) -> int:
        return self.counts.total()

    @property
    def main(self) -> str:
        """The class of most of them; of equally frequent ones the first by name."""
        return min(self.counts, key=lambda label: (-self.counts[label], label))


def split(
    labels: Sequence[str],
    groups: Sequence[int],
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    *,
    seed: int,
) -> tuple[str, ...]:
    """The part of each picture, "train", "val" or "test": every class in these shares, a group whole in one part.

    labels, groups (N,): the class of each picture, and a number that it shares with its duplicates.  A group counts as
    of the class of most of its pictures.  A class of three groups or more stands in every part with a share; one
    of two in train and test, since numbers for a class need pictures that chose nothing; one of a single group in train
    alone.  Where a class has as many pictures to give to each part as its largest group holds, each part gets its
    share to within that group.  The seed, the labels and the groups decide, their order does not.
    Refused: shares that are negative or do not sum to 1, and none for train.

    >>> split(["a"] * 4 + ["b"] * 4, range(8), (0.5, 0.25, 0.25), seed=0).count("train")
    4
    """
    _check_shares(shares)
    grouped = _make_groups(labels, groups, seed)
    pinned = _minority_groups(grouped)
    part = dict.fromkeys(pinned, 0)
    for class_groups in _by_class(grouped).values():
        free = [g for g in class_groups if g.number not in pinned]
        targets = [share * sum(g.size for g in class_groups) for share in shares]
        for g in class_groups:
            targets[0] -= g.size if g.number in pinned else 0
        part |= _deal(free, targets, _required_parts(len(free), len(free) < len(class_groups), shares))
    return tuple(PARTS[part[g]] for g in groups)


def folds(labels: Sequence[str], groups: Sequence[int], k: int, *, seed: int) -> tuple[int, ...]:
    """The fold, 0 to k - 1, of each picture: every class equally often in each, a group whole in one fold.

    labels, groups: as in ``split``.  A class has in each fold as many pictures as in another, to within its largest
    group, and every class stands in every fold.  Refused: k below 2, and k above the groups of the rarest class.

    >>> folds(["a", "a", "b", "b"], [0, 1, 2, 3], 2, seed=0).count(0)
    2
    """
    if k < 2:
        raise Refused(f"k={k}: give at least 2 folds")
    grouped = _make_groups(labels, groups, seed)
    by_class = _by_class(grouped)
    rarest = min(sorted({*labels}), key=lambda label: len(by_class.get(label, ())))
    if (count := len(by_class.get(rarest, ()))) < k:
        raise Refused(
            f"k={k}: class {rarest!r} has {count} pictures that are not duplicates of each other, and each fold needs "
            "one: take a smaller k, add pictures, or leave the class out"
        )
    part: dict[int, int] = {}
    load = [0] * k
    for class_groups in by_class.values():
        targets = [sum(g.size for g in class_groups) / k] * k
        dealt = _deal(class_groups, targets, (), load)
        for g in class_groups:
            load[dealt[g.number]] += g.size
        part |= dealt
    return tuple(part[g] for g in groups)


def split_notes(labels: Sequence[str], groups: Sequence[int], parts: Sequence[str]) -> tuple[str, ...]:
    """Sentences on the classes that stand in only some of the parts, with what to do; () where every class is in all.

    parts: what ``split`` gave, or any other names of parts.

    >>> split_notes(["a", "a", "a", "b"], [0, 1, 2, 3], ["train", "val", "test", "train"])[0][:43]
    '1 class stands in train alone (b): the test'
    """
    _check_lengths(labels, groups, parts)
    present = [p for p in PARTS if p in parts]
    present += sorted({*parts} - {*PARTS})
    where: dict[str, set[str]] = defaultdict(set)
    mixed: dict[int, set[str]] = defaultdict(set)
    for label, group, part in zip(labels, groups, parts, strict=True):
        where[label].add(part)
        mixed[group].add(label)
    short: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for label in sorted(where):
        if len(where[label]) < len(present):
            short[tuple(p for p in present if p in where[label])].append(label)
    notes = []
    for holding, classes in sorted(short.items(), key=lambda item: len(item[0])):
        missing = [p for p in present if p not in holding]
        words = f"{len(classes)} {'class stands' if len(classes) == 1 else 'classes stand'}"
        words += f" in {' and '.join(holding)} alone ({named(classes)}): "
        if "test" in missing:
            words += f"the test has no number for {'it' if len(classes) == 1 else 'them'}"
        else:
            words += f"none of them is in {' or '.join(missing)}"
        notes.append(
            f"{words}; add pictures until each has at least {len(present)} that are not duplicates of each other"
        )
    several = sum(len(group_labels) > 1 for group_labels in mixed.values())
    if several:
        notes.append(
            f"{several} {'group' if several == 1 else 'groups'} of duplicates with several labels, each kept whole in "
            "one part: correct the wrong labels"
        )
    return tuple(notes)


def named(names: Sequence[str], most: int = NAMED) -> str:
    """At most five names, and how many more.

    >>> named(list("abcdefg")), named(["a", "b"])
    ('a, b, c, d, e and 2 more', 'a, b')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _deal(
    groups: Sequence[_Group], targets: Sequence[float], first: Sequence[int], load: Sequence[int] = ()
) -> dict[int, int]:
    """Group -> part: the smallest groups go to the parts in `first`, the others, largest first, where most is lacking.

    load: pictures that the parts have already, which decides between parts that lack the same.
    """
    lacking = list(targets)
    part = {}
    order = sorted(groups, key=lambda g: (g.size, g.draw))
    for p, g in zip(first, order, strict=False):
        part[g.number] = p
        lacking[p] -= g.size
    open_ = [p for p, n in enumerate(targets) if n > 0] or [0]
    for g in reversed(order[len(first) :]):
        p = min(open_, key=lambda p: (-round(lacking[p], 9), load[p] if load else 0, p))
        part[g.number] = p
        lacking[p] -= g.size
    return part


def _required_parts(free: int, pinned: bool, shares: Sequence[float]) -> list[int]:
    """The parts that a class must stand in, as far as its groups go; the smallest share first gets the smallest group.

    free: its groups; pinned: it stands in train already.
    """
    needed = [p for p in (0, 2, 1) if shares[p] > 0 and not (pinned and p == 0)]
    return sorted(needed[:free], key=lambda p: (shares[p], p))


def _minority_groups(groups: Sequence[_Group]) -> set[int]:
    """One group for each class that is the main one of no group: it goes to train, so that the class is learned."""
    main = {g.main for g in groups}
    minorities = sorted({label for g in groups for label in g.counts} - main)
    return {
        min((g for g in groups if label in g.counts), key=lambda g: (-g.counts[label], g.draw)).number
        for label in minorities
    }


def _by_class(groups: Sequence[_Group]) -> dict[str, list[_Group]]:
    """The groups of each class, the classes by name."""
    by_class: dict[str, list[_Group]] = defaultdict(list)
    for g in groups:
        by_class[g.main].append(g)
    return {label: by_class[label] for label in sorted(by_class)}


def _make_groups(labels: Sequence[str], groups: Sequence[int], seed: int) -> list[_Group]:
    _check_lengths(labels, groups)
    if not labels:
        raise Refused("no pictures to split: give at least one")
    if not 0 <= seed < 2**63:
        raise Refused(f"seed {seed}: give a whole number from 0 to 2**63 - 1")
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    return [_Group(g, counts[g], hashlib.blake2b(f"{seed} {g}".encode()).digest()) for g in sorted(counts)]


def _check_lengths(labels: Sequence[str], *others: Sequence[object]) -> None:
    for other in others:
        if len(other) != len(labels):
            raise Refused(f"{len(labels)} labels and {len(other)} groups or parts: give one of each per picture")


def _check_shares(shares: Sequence[float]) -> None:
    shown = ", ".join(f"{s:g}" for s in shares)
    if len(shares) != 3 or not all(math.isfinite(s) and s >= 0 for s in shares):
        raise Refused(f"shares ({shown}): give three numbers of at least 0, for train, val and test")
    if abs(sum(shares) - 1) > 1e-6:
        raise Refused(f"shares ({shown}) sum to {sum(shares):g}: give three that sum to 1")
    if not shares[0]:
        raise Refused(f"shares ({shown}) leave nothing to train on: give train a share above 0")
