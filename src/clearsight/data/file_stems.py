"""Names for result files: each picture has one that no other has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from clearsight.data.datasets import Picture


def named(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, str]]:
    """Each picture with a name for its result files that no other has."""
    taken: set[str] = set()
    for p in pictures:
        stem = base = re.sub(r"[^\w.-]+", "_", p.path.stem) or "picture"
        n = 1
        while stem.lower() in taken:
            n += 1
            stem = f"{base}-{n}"
        taken.add(stem.lower())
        yield p, stem
