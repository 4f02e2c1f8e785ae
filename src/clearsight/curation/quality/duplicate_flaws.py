"""Flaws of duplicates: leaks between splits, label conflicts, copies; and files that cannot be read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from clearsight.auditing.evidence import share
from clearsight.core.text import counted
from clearsight.curation.quality.flaw import Flaw, beside
from clearsight.data.datasets import Picture, Pictures, part_of
from clearsight.data.duplicates import Likeness, Pair
from clearsight.reporting.findings import Table


def leaks(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Pictures of val and test with a duplicate in train, or of test with a duplicate in val."""
    members = _group_members(alike)
    leaked = []
    for group in members.values():
        train = [i for i in group if part_of(data.pictures[i].split) == "train"]
        judging = [i for i in group if part_of(data.pictures[i].split) in ("val", "test")]
        if train:
            leaked += [(i, train[0]) for i in judging]
        else:
            first = [i for i in judging if part_of(data.pictures[i].split) == "val"]
            leaked += [(i, first[0]) for i in judging if first and part_of(data.pictures[i].split) == "test"]
    if leaked:
        evaluated = sum(part_of(p.split) in ("val", "test") for p in data.pictures)
        yield Flaw(
            "leaks",
            len(leaked),
            f"{counted(len(leaked), 'picture')} of val and test {'has' if len(leaked) == 1 else 'have'} a duplicate in "
            f"another part ({share(len(leaked) / evaluated)} of {evaluated})",
            "A model is then tested on pictures that it was trained on: remove them from train, or split again.",
            tuple(data.pictures[i].name for i, _ in leaked),
            shown=tuple(beside(data, alike, j, i) for i, j in leaked),
        )


def conflicts(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Pairs of duplicates with different labels."""
    pairs = [p for p in alike.pairs if _differ(data.pictures[p.first], data.pictures[p.second])]
    if pairs:
        rows = sorted({i for p in pairs for i in (p.first, p.second)})
        yield Flaw(
            "label conflicts",
            len(pairs),
            f"{counted(len(pairs), 'pair')} of duplicates {'has' if len(pairs) == 1 else 'have'} different labels",
            "One of the two labels is wrong: look at both pictures, and correct the label or remove the picture.",
            tuple(data.pictures[i].name for i in rows),
            shown=tuple(beside(data, alike, p.first, p.second) for p in pairs),
        )


def broken_files(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Files that cannot be read as pictures."""
    broken = sorted({*data.broken, *alike.broken})
    if broken:
        yield Flaw(
            "broken",
            len(broken),
            f"{counted(len(broken), 'file')} cannot be read as {'a picture' if len(broken) == 1 else 'pictures'}",
            "Save them again from their source, or remove them.",
            tuple(f"{name} ({reason})" for name, reason in broken),
            tables=(Table("Files that cannot be read", tuple({"file": n, "reason": r} for n, r in broken)),),
        )


def copies(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Exact copies, and near-duplicates."""
    kinds = Counter(p.kind for p in alike.pairs)
    exact = [p for p in alike.pairs if p.kind in ("same file", "same pixels")]
    if exact:
        yield Flaw(
            "copies",
            len(exact),
            f"{counted(len(exact), 'picture')} {'is a copy' if len(exact) == 1 else 'are copies'} of another one "
            f"({kinds['same file']} the same file, {kinds['same pixels']} the same pixels)",
            "Keep one of each: a copy counts the picture twice.",
            tuple(_pair_name(data, p) for p in exact),
            shown=tuple(beside(data, alike, p.first, p.second) for p in exact),
        )
    near = sorted((p for p in alike.pairs if p.kind in ("near", "mirrored")), key=lambda p: p.distance)
    if near:
        yield Flaw(
            "near-duplicates",
            len(near),
            f"{counted(len(near), 'pair')} of pictures {'looks' if len(near) == 1 else 'look'} like one made out of "
            f"the other, re-saved, resized, cut or lit ({kinds['mirrored']} of them mirrored)",
            "Look at them: keep one of the copies; keep shots of one scene in the same split.",
            tuple(_pair_name(data, p) for p in near),
            shown=tuple(beside(data, alike, p.first, p.second) for p in near),
        )


def _group_members(alike: Likeness) -> dict[int, list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for i, g in enumerate(alike.groups):
        members[g].append(i)
    return members


def _pair_name(data: Pictures, pair: Pair) -> str:
    """Both names of a pair; which of the two is the original is unknown."""
    return f"{data.pictures[pair.second].name} (like {data.pictures[pair.first].name})"


def _differ(a: Picture, b: Picture) -> bool:
    """Whether two pictures have labels, and none in common."""
    return bool(a.labels and b.labels and not {*a.labels} & {*b.labels})
