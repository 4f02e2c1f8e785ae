"""Divide pictures of several classes each into train, val and test: every class, and background, in each part."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from clearsight.data.splits import PARTS, split

NO_OBJECT = "no object"


def strata(shown: Sequence[Collection[int]], names: Sequence[str]) -> tuple[str, ...]:
    """The class by which each picture is divided: of the classes in it the one that the fewest pictures show.

    So the rare classes reach every part, as iterative stratification does it in its first step (Sechidis et al. 2011,
    doi:10.1007/978-3-642-23808-6_10).  Pictures without an object are "no object", a class of their own.

    shown (N,): the numbers of the classes that each picture shows; names: the classes, by number.

    >>> strata([{0}, {0, 1}, set()], ["person", "dog"])
    ('person', 'dog', 'no object')
    """
    counts = Counter(k for classes in shown for k in classes)
    rarest = [min(classes, key=lambda k: (counts[k], k), default=None) for classes in shown]
    return tuple(NO_OBJECT if k is None else names[k] for k in rarest)


def divide(
    shown: Sequence[Collection[int]],
    labels: Sequence[str],
    groups: Sequence[int],
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    *,
    seed: int,
) -> tuple[str, ...]:
    """The part of each picture, "train", "val" or "test": as `splits.split` says, then val and test are filled up.

    Where many classes are on one or two pictures, nearly all pictures would train.  So groups of train move to val and
    test until these have their shares to within a picture, as long as train has every class of such a group elsewhere.

    shown, labels, groups (N,): the classes of each picture, its stratum, and a number that pictures share which stay
    together.
    Refused: what `splits.split` refuses.

    >>> shown = [{0, k} for k in range(1, 11)] + [{0}] * 10  # the first ten have a class of their own each
    >>> names = strata(shown, "abcdefghijk")
    >>> parts = divide(shown, names, range(20), (0.6, 0.2, 0.2), seed=0)
    >>> [parts.count(part) for part in PARTS], {*parts[:10]}
    ([14, 3, 3], {'train'})
    >>> split(names, range(20), (0.6, 0.2, 0.2), seed=0).count("train")
    16
    """
    parts = list(split(labels, groups, shares, seed=seed))
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    lacking = {p: share * len(parts) - parts.count(p) for p, share in zip(PARTS, shares, strict=True)}
    train = {g: {k for i in rows for k in shown[i]} for g, rows in members.items() if parts[rows[0]] == "train"}
    in_train = Counter(k for classes in train.values() for k in classes)
    while (part := max(PARTS[1:], key=lambda p: lacking[p])) and lacking[part] > 1:
        free = [g for g, classes in train.items() if all(in_train[k] > 1 for k in classes)]
        free = [g for g in free if len(members[g]) <= lacking[part]]
        if not free or len(train) == 1:
            break
        # the group whose rarest class train has most often
        group = min(free, key=lambda g: (-min((in_train[k] for k in train[g]), default=len(parts)), _draw(seed, g)))
        in_train.subtract(train.pop(group))
        lacking[part] -= len(members[group])
        for i in members[group]:
            parts[i] = part
    return tuple(parts)


def _draw(seed: int, group: int) -> bytes:
    """A number for a group, drawn from the seed."""
    return hashlib.blake2b(f"{seed} {group}".encode()).digest()
