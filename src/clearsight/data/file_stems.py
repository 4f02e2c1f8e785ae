"""Names for result files: each picture has one that no other has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from clearsight.data.datasets import Picture


def named(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, str]]:
    """Each picture with a name for its result files that no other has."""
    taken: set[str] = set()
    for p in pictures:
        in_a_table = p.text is not None and p.path.stem != Path(p.name).stem
        words = f"{p.path.stem}-{p.name}" if in_a_table else p.path.stem
        stem = base = re.sub(r"[^\w.-]+", "_", words) or "picture"
        n = 1
        while stem.lower() in taken:
            n += 1
            stem = f"{base}-{n}"
        taken.add(stem.lower())
        yield p, stem
