"""data check: find what is wrong with pictures before a model is trained or tested on them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight._version import __version__
from clearsight.core.classifier import Classifier, classifier_of
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.curation.quality.duplicate_flaws import broken_files, conflicts, copies, leaks
from clearsight.curation.quality.flaw import Flaw
from clearsight.curation.quality.format_flaws import colours, counts, giveaway, sizes
from clearsight.curation.quality.label_flaws import suspects
from clearsight.curation.quality.truth_flaws import annotation_flaws, objects
from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.data.object_pictures import summed_up
from clearsight.data.text_inputs import refuse_texts
from clearsight.errors import Refused
from clearsight.reporting.pages import INDEX


@dataclass(frozen=True)
class DataCheck:
    """The result of `check_data`.

    flaws: the worst first, information included.  facts: data, pictures, read, model, seed, seconds.
    """

    data: Pictures
    alike: Likeness
    flaws: tuple[Flaw, ...]
    facts: dict[str, Any]

    def __repr__(self) -> str:
        flaws = ", ".join(f"{f.name} {f.n}" for f in self.flaws if f.wrong) or "nothing wrong"
        return f"<DataCheck of {self.facts['data']}: {flaws}>"

    @property
    def verdict(self) -> str:
        """One sentence that sums up all flaws."""
        wrong = [f"{f.name} ({f.n})" for f in self.flaws if f.wrong]
        return f"To look at: {', '.join(wrong)}." if wrong else "Nothing wrong was found."

    def lines(self) -> list[str]:
        """The lines for a terminal: one for each flaw, with at most five names."""
        head = f"{self.facts['read']} of {self.facts['pictures']} pictures in {self.facts['data']} read"
        notes = [*self.facts["notes"], *(n for f in self.flaws if f.name == "label errors" for n in f.notes)]
        return [head, self.verdict, *(f.line for f in self.flaws), *(f"note: {n}" for n in notes)]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain data."""
        flaws = [
            {
                "name": f.name,
                "n": f.n,
                "wrong": f.wrong,
                "words": f.words,
                "advice": f.advice,
                "names": list(f.names),
                "notes": list(f.notes),
                "tables": [{"caption": t.caption, "rows": [dict(r) for r in t.rows]} for t in f.tables],
            }
            for f in self.flaws
        ]
        rows = [p.name for p in self.data.pictures]
        pairs = [
            {"first": rows[p.first], "second": rows[p.second], "kind": p.kind, "distance": p.distance}
            for p in self.alike.pairs
        ]
        return {**self.facts, "verdict": self.verdict, "found": flaws, "pairs": pairs}

    def save(self, folder: str | Path) -> Path:
        """Write index.html and check.json into a folder; returns the page."""
        from clearsight.curation.quality.page import render

        folder, page = Path(folder), render(str(self.data.root), self.verdict, self.facts, self.flaws)
        write_whole(folder / "check.json", json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")
        return write_whole(folder / INDEX, page)


def check_data(
    data: Pictures,
    *,
    model: Classifier | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
) -> DataCheck:
    """Check pictures for broken files, duplicates, leaks between splits, odd sizes, uneven classes and bad annotations.

    data: all splits, ``open_data(words, split="all")``; otherwise no leak can be found.  From ``open_boxes`` or
    ``open_masks``, the annotations are checked too.  model: finds likely label
    errors too; it should not have been trained on these pictures.  No file is moved or changed; each is read once, and
    twice with a model.  command: the command line, for the page.  Refused: no pictures, and none that can be read.
    """
    if not data.pictures:
        raise Refused(f"no pictures in {data.root}: give a folder with at least one")
    refuse_texts(data, "data check")
    model = None if model is None else classifier_of(model, "data check")
    began = time.monotonic()
    alike = likenesses(data.pictures, progress=progress)
    if len(alike.broken) == len(data.pictures):
        name, reason = alike.broken[0]
        raise Refused(f"none of the {len(data.pictures)} pictures in {data.root} can be read ({name}: {reason})")
    flaws = tuple(_find_flaws(data, alike, model, seed, progress))
    told_as_flaws = summed_up(data.problems)
    facts = {
        "clearsight": __version__,
        "data": str(data.root),
        "pictures": len(data.pictures) + len(data.broken),
        "read": len(data.pictures) - len(alike.broken),
        "splits": list(dict.fromkeys(p.split for p in data.pictures if p.split)),
        "model": "" if model is None else model.source or type(model.net).__name__,
        "seed": seed,
        "notes": [*(n for n in data.notes if n not in told_as_flaws), *alike.notes],
        "seconds": round(time.monotonic() - began, 3),
        "command": command,
    }
    return DataCheck(data, alike, flaws, facts)


def _find_flaws(
    data: Pictures, alike: Likeness, model: Classifier | None, seed: int, progress: Progress | None
) -> Iterator[Flaw]:
    """All flaws, the worst first."""
    yield from leaks(data, alike)
    yield from conflicts(data, alike)
    yield from annotation_flaws(data, alike)
    if model is not None:
        yield from suspects(data, alike, model, seed=seed, progress=progress)
    for look in (broken_files, copies, objects, giveaway, counts, sizes, colours):
        yield from look(data, alike)
