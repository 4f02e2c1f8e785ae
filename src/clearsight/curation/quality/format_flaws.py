"""Flaws of pictures as files: sizes, colours, numbers per class, and files whose format reveals the class."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from clearsight.auditing.evidence import share, span
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.curation.quality.flaw import Flaw, alone, size_of
from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import Likeness
from clearsight.data.splits import named
from clearsight.reporting.findings import Cell, Table

SMALL = 3  # times shorter than the median short side
LONG = 3.0  # the longer side over the shorter one, where it is also twice the median
UNEVEN = 3.0  # the largest class over the smallest
FEWEST = 20  # pictures to judge whether files give the class away
GIVEN = 0.1  # above the share of the largest class: what files may tell of the class


def giveaway(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """How often size, colour and kind of a file predict the class, from the other files of the same kind."""
    kinds: dict[int, tuple[tuple[int, int], bool, str]] = {}
    for i, s in enumerate(alike.seen):
        if s and data.pictures[i].labels:
            kinds[i] = (s.size, s.grey, data.pictures[i].path.suffix.lower())
    labels = {i: data.pictures[i].labels[0] for i in kinds}
    by_class = Counter(labels.values())
    if len(by_class) < 2 or len(kinds) < FEWEST:
        return
    by_kind: dict[tuple[tuple[int, int], bool, str], Counter[str]] = defaultdict(Counter)
    for i, kind in kinds.items():
        by_kind[kind][labels[i]] += 1
    right = 0
    for i, kind in kinds.items():
        others = by_kind[kind] - Counter([labels[i]]) or by_class - Counter([labels[i]])
        right += min(others, key=lambda c: (-others[c], c)) == labels[i]
    largest = max(by_class.values()) / len(kinds)
    interval = wilson(right, len(kinds))
    if interval[0] > largest + GIVEN:
        rows: list[dict[str, Cell]] = [
            {
                "pictures": of_kind.total(),
                "width": size[0],
                "height": size[1],
                "grey": grey,
                "file": suffix,
                "most are": (top := min(of_kind, key=lambda c: (-of_kind[c], c))),
                "share": of_kind[top] / of_kind.total(),
            }
            for (size, grey, suffix), of_kind in sorted(by_kind.items(), key=lambda kv: -kv[1].total())
            if of_kind.total() > 1
        ]
        yield Flaw(
            "files tell the class",
            right,
            f"Size, colour and kind of the file alone tell the class of {share(right / len(kinds))} of the pictures "
            f"({span(interval, len(kinds))}); the largest class is {share(largest)}",
            "A model may learn this instead of the content: resize and save all pictures in the same way.",
            tables=(Table("Kinds of files", tuple(rows[:50])),),
        )


def counts(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Numbers of pictures: classes of one picture, unlabelled pictures, pictures in no split, uneven classes."""
    readable = [p for p, s in zip(data.pictures, alike.seen, strict=True) if s]
    counts = Counter(label for p in readable for label in p.labels)
    if single := sorted(c for c, n in counts.items() if n == 1):
        yield Flaw(
            "single pictures",
            len(single),
            f"{counted(len(single), 'class has', 'classes have')} one picture",
            "One picture cannot be in train and in test: add pictures, or leave the class out.",
            tuple(single),
        )
    if bare := [p.name for p in readable if not p.labels and p.boxes is None and p.pixels is None]:
        yield Flaw(
            "unlabelled",
            len(bare),
            f"{counted(len(bare), 'picture has', 'pictures have')} no label",
            "Put them in class folders, or list them in labels.csv.",
            tuple(bare),
        )
    if any(p.split for p in readable) and (outside := [p.name for p in readable if not p.split]):
        yield Flaw(
            "in no split",
            len(outside),
            f"{counted(len(outside), 'picture lies', 'pictures lie')} in no split, beside others that do",
            "They are used neither for training nor for testing: move them into a split, or remove them.",
            tuple(outside),
        )
    if not counts:
        return
    n = counts.total()
    order = sorted(counts, key=lambda c: (-counts[c], c))
    ratio = counts[order[0]] / counts[order[-1]]
    even = math.exp(-sum(v / n * math.log(v / n) for v in counts.values()))
    parts = list(dict.fromkeys(p.split for p in readable if p.split))
    in_split = Counter((c, p.split) for p in readable for c in p.labels)
    rows: list[dict[str, Cell]] = [
        {
            "class": c,
            **{s: in_split[c, s] for s in parts},
            "all" if parts else "pictures": counts[c],
            "share": counts[c] / n,
        }
        for c in order
    ]
    uneven = ratio > UNEVEN
    lack = {s: sorted(c for c in counts if not in_split[c, s]) for s in parts}
    notes = [f"none in {s}: {named(c)} ({counted(len(c), 'class', 'classes')})" for s, c in lack.items() if c]
    yield Flaw(
        "uneven classes" if uneven else "classes",
        len(counts),
        f"{counted(len(counts), 'class', 'classes')}, from {counts[order[0]]} pictures ({order[0]}) to "
        f"{counts[order[-1]]} ({order[-1]}), {ratio:.1f} times as many; the effective number of classes is {even:.1f} "
        "(the exponential of the entropy)"
        if ratio > 1
        else f"{counted(len(counts), 'class', 'classes')} of {counted(counts[order[0]], 'picture')} each",
        "Report the accuracy of each class, and weight the small classes or add pictures to them." if uneven else "",
        wrong=uneven,
        notes=tuple(notes),
        tables=(Table("Pictures of each class", tuple(rows)),),
    )


def sizes(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Pictures that are far smaller than the others, or far longer than wide."""
    readable = [(i, s.size) for i, s in enumerate(alike.seen) if s]
    if not readable:
        return
    short = np.array([min(size) for _, size in readable])
    ratio = np.array([max(size) / min(size) for _, size in readable])
    rows = np.array([i for i, _ in readable])
    usual = float(np.median(short))
    small = rows[short * SMALL < usual][np.argsort(short[short * SMALL < usual], kind="stable")]
    if len(small):
        yield Flaw(
            "small",
            len(small),
            f"{counted(len(small), 'picture is', 'pictures are')} far smaller than the others: the median short side "
            f"is {usual:.0f} pixels",
            "Enlarged pictures are blurred, which a model can learn: find larger ones, or leave them out.",
            _sized(data, alike, small.tolist()),
            shown=tuple(alone(data, alike, i) for i in small.tolist()),
        )
    is_long = (ratio > LONG) & (ratio > 2 * np.median(ratio))
    long = rows[is_long][np.argsort(-ratio[is_long], kind="stable")]
    if len(long):
        yield Flaw(
            "long",
            len(long),
            f"{counted(len(long), 'picture is', 'pictures are')} more than {LONG:g} times as long as wide",
            "Most of such a picture is cut off before a model sees it: crop it to the object.",
            _sized(data, alike, long.tolist()),
            shown=tuple(alone(data, alike, i) for i in long.tolist()),
        )


def colours(data: Pictures, alike: Likeness) -> Iterator[Flaw]:
    """Grey pictures among colour ones, and pictures that were converted when they were read."""
    readable = [(i, s) for i, s in enumerate(alike.seen) if s]
    grey = [i for i, s in readable if s.grey]
    if 0 < len(grey) < len(readable):
        few, shade = (
            (grey, "grey") if 2 * len(grey) <= len(readable) else ([i for i, s in readable if not s.grey], "in colour")
        )
        others = "in colour" if shade == "grey" else "grey ones"
        classes = Counter(c for i in few for c in data.pictures[i].labels)
        whole = Counter(c for i, _ in readable for c in data.pictures[i].labels)
        table: tuple[dict[str, Cell], ...] = tuple(
            {"class": c, shade: n, "of": whole[c], "share": n / whole[c]} for c, n in classes.most_common()
        )
        yield Flaw(
            "grey and colour",
            len(few),
            f"{counted(len(few), 'picture is', 'pictures are')} {shade} among {len(readable) - len(few)} {others}",
            "Check that no class has more of them than the others, or convert all pictures to grey.",
            tuple(data.pictures[i].name for i in few),
            tables=(Table(f"Pictures {shade}, by class", table),),
            shown=tuple(alone(data, alike, i) for i in few),
        )
    done: dict[str, list[int]] = defaultdict(list)
    for i, s in readable:
        for word in s.done:
            done[word].append(i)
    for word, rows in sorted(done.items()):
        yield Flaw(
            word,
            len(rows),
            f"{counted(len(rows), 'picture was', 'pictures were')} converted when read: {word}",
            names=tuple(data.pictures[i].name for i in rows),
            wrong=False,
            shown=tuple(alone(data, alike, i) for i in rows),
        )


def _sized(data: Pictures, alike: Likeness, rows: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{data.pictures[i].name} ({size_of(alike, i)})" for i in rows)
