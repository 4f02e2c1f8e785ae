"""Find duplicate pictures: the same file, the same pixels, or one made out of another, also mirrored.

Each picture is read once and leaves a trace of 9 kB.  Two traces are compared only where a hash of 64 bits (the signs
of low cosine frequencies, as in Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions")
and 8 x 8 colours agree roughly.  Then one is cropped by up to 9 % as it fits the other best, and colours must agree
in every place, after brightness and contrast are made equal.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clearsight.core.progress import Progress
from clearsight.data.datasets import Picture
from clearsight.data.image_hash import SMALLEST, Floats, Trace, difference, rough, trace, versions
from clearsight.data.images import notes, open_picture
from clearsight.data.text_inputs import text_digest
from clearsight.errors import Refused

Kind = Literal["same file", "same pixels", "near", "mirrored"]
APART = 16  # bits of the hash, of 64
ROUGHLY = 0.75  # correlation of 8 x 8 colours
CLOSEST = 16  # others with which a picture is compared in full, the most alike roughly
CROWD = 8  # pictures, above which half of the pairs across a group must be alike
BLOCK = 512


@dataclass(frozen=True)
class Seen:
    """The properties of a picture file that can be read.

    size: (width, height) as people see it; mode: "L" or "RGB"; grey: no colour in it, whatever the mode; done: how it
    was converted when read, as in `images.notes`; digest: the file's sha256, 64 hex digits.
    """

    size: tuple[int, int]
    mode: str
    grey: bool
    done: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Pair:
    """Two pictures by their row, first < second.

    distance: the largest difference in any place, in standard deviations of the colours; 0 for the same pixels.
    """

    first: int
    second: int
    kind: Kind
    distance: float = 0.0


@dataclass(frozen=True)
class Likeness:
    """Which pictures are duplicates.

    pairs: each copy with the first of its kind, and near ones with each other.  groups: for each picture the number of
    the first one that pairs connect it with.  broken: (name, reason) of those that cannot be read, which are None in
    `seen`.  notes: which pictures were only compared exactly.
    """

    pairs: tuple[Pair, ...]
    groups: tuple[int, ...]
    broken: tuple[tuple[str, str], ...]
    seen: tuple[Seen | None, ...]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each picture, (0, 0) of those that cannot be read."""
        return tuple(s.size if s else (0, 0) for s in self.seen)

    def of(self, rows: Sequence[int]) -> Likeness:
        """The same for some of the pictures, none of them broken, in that order."""
        at = {row: i for i, row in enumerate(rows)}
        pairs = tuple(
            replace(p, first=at[p.first], second=at[p.second]) for p in self.pairs if {p.first, p.second} <= at.keys()
        )
        return Likeness(pairs, tuple(self.groups[r] for r in rows), (), tuple(self.seen[r] for r in rows), self.notes)


def likenesses(pictures: Sequence[Picture], *, progress: Progress | None = None) -> Likeness:
    """Find the duplicates among pictures: equal files and pixels, and those re-saved, resized, cut, lit or mirrored.

    Reading takes nearly all the time.  Comparing n pictures costs two products of n vectors with each other and at most
    36 n comparisons in full, in 14 kB of memory for each picture.  What cannot be read is left out.
    """
    if pictures and pictures[0].text is not None:
        return _same_texts(pictures)
    report = progress or (lambda what, done, total: None)
    appearances: list[Seen | None] = []
    traces: dict[int, Trace] = {}
    broken = []
    for row, picture in enumerate(pictures):
        try:
            with picture.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            image = open_picture(picture.path)
        except (Refused, OSError) as e:
            broken.append((picture.name, str(e) if isinstance(e, Refused) else str(e.strerror)))
            appearances.append(None)
        else:
            traces[row] = trace(image)
            grey = image.mode == "L" or int(np.ptp(traces[row].colours, axis=2).max()) <= 4
            appearances.append(Seen(image.size, image.mode, grey, notes(image), digest))
        report("reading", row + 1, len(pictures))
    pairs = _find_copies({row: s.digest for row, s in enumerate(appearances) if s}, "same file")
    firsts = traces.keys() - {p.second for p in pairs}
    pairs += _find_copies({row: traces[row].pixels for row in sorted(firsts)}, "same pixels")
    firsts -= {p.second for p in pairs}
    rows = sorted(row for row in firsts if traces[row].telling)
    near, crowded = _find_near(rows, [traces[row] for row in rows], report)
    all_pairs = tuple(sorted([*pairs, *near], key=lambda p: (p.first, p.second)))
    remarks = []
    if plain := len(firsts) - len(rows):
        remarks.append(
            f"{plain} pictures smaller than {SMALLEST} pixels or of one colour were searched for exact copies only: "
            "their near-duplicates cannot be distinguished from other pictures of the same class"
        )
    if crowded:
        remarks.append(
            f"{crowded} pictures are listed with exact copies only: each resembles some that do not resemble each "
            "other, as digits and silhouettes do"
        )
    return Likeness(
        all_pairs, _group_connected(len(pictures), all_pairs), tuple(broken), tuple(appearances), tuple(remarks)
    )


def _same_texts(entries: Sequence[Picture]) -> Likeness:
    """Texts are duplicates where all characters agree; (length, 1) is the size of one."""
    seen = [Seen((len(t.text or ""), 1), "text", False, (), text_digest(t.text or "")) for t in entries]
    pairs = tuple(_find_copies({row: s.digest for row, s in enumerate(seen)}, "same file"))
    return Likeness(pairs, _group_connected(len(entries), pairs), (), tuple(seen))


def _find_copies(keys: dict[int, bytes] | dict[int, str], kind: Kind) -> list[Pair]:
    """Pair each row with the first one of the same key."""
    rows: dict[object, list[int]] = defaultdict(list)
    for row, key in keys.items():
        rows[key].append(row)
    return [Pair(first, other, kind) for first, *others in rows.values() for other in others]


def _find_near(rows: Sequence[int], traces: Sequence[Trace], report: Progress) -> tuple[list[Pair], int]:
    """Pairs of rows made out of each other, and how many pictures lie in crowds that are not duplicates."""
    if len(rows) < 2:
        return [], 0
    alike: dict[tuple[int, int], tuple[Kind, float]] = {}
    kinds: tuple[Kind, Kind] = ("near", "mirrored")

    @lru_cache(maxsize=256)
    def prepare(i: int, mirrored: bool) -> tuple[Floats, Floats]:
        colours = traces[i].colours[:, ::-1] if mirrored else traces[i].colours
        return colours.astype(np.float32), versions(colours)

    for i, j, mirrored in _candidates(traces, report):
        if (i, j) not in alike:
            distance = difference(prepare(i, False), prepare(j, mirrored))
            if distance is not None:
                alike[i, j] = (kinds[mirrored], distance)
    group = _group_connected(len(rows), [Pair(i, j, "near") for i, j in alike])
    members: dict[int, list[int]] = defaultdict(list)
    for i, g in enumerate(group):
        members[g].append(i)
    crowds = set()
    for g, group_rows in members.items():
        if len(group_rows) > CROWD:  # pictures far apart in the group must look alike, too
            across = [
                (a, group_rows[(k + len(group_rows) // d) % len(group_rows)])
                for d in (2, 3)
                for k, a in enumerate(group_rows)
            ]
            same = [
                any(difference(prepare(a, False), prepare(b, m)) is not None for m in (False, True)) for a, b in across
            ]
            if 2 * sum(same) < len(same):
                crowds.add(g)
    pairs = [Pair(rows[i], rows[j], k, round(d, 4)) for (i, j), (k, d) in alike.items() if group[i] not in crowds]
    return pairs, sum(len(members[g]) for g in crowds)


def _candidates(traces: Sequence[Trace], report: Progress) -> Iterator[tuple[int, int, bool]]:
    """(i, j, is j mirrored), i < j, of roughly alike pictures: for each the most alike, the unmirrored ones first."""
    bits = np.stack([t.bits for t in traces]).astype(np.float32)
    small = np.stack([rough(t.colours) for t in traces])
    plain = small.reshape(len(traces), -1)
    turned = np.ascontiguousarray(small[:, :, ::-1]).reshape(len(traces), -1)
    for start in range(0, len(traces), BLOCK):
        part = slice(start, start + BLOCK)
        for mirrored, others in ((False, plain), (True, turned)):
            agree = plain[part] @ others[start:].T
            agree[bits[part, 0] @ bits[start:, int(mirrored)].T < 64 - 2 * APART] = -1
            agree[np.tril_indices(len(agree))] = -1  # i < j
            for i in np.flatnonzero((agree >= ROUGHLY).any(1)):
                likely = np.flatnonzero(agree[i] >= ROUGHLY)
                best = likely[np.argsort(-agree[i, likely], kind="stable")[:CLOSEST]]
                yield from ((start + int(i), start + int(j), mirrored) for j in best)
        report("comparing", min(start + BLOCK, len(traces)), len(traces))


def _group_connected(n: int, pairs: Sequence[Pair]) -> tuple[int, ...]:
    """The number of the first row that each of n rows is connected with."""
    ends = np.array([(p.first, p.second) for p in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n)) if n else None
    if graph is None:
        return ()
    _, part = connected_components(graph, directed=False)
    _, first = np.unique(part, return_index=True)
    return tuple(int(first[p]) for p in part)
