"""A set of pictures: what is said of each, and what happened on the way to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clearsight.data.annotations import Region


@dataclass(frozen=True)
class Picture:
    """One picture file that is there and not empty; whether it can be read shows when it is.

    name: its path below the root, with slashes.  labels: the acceptable classes in the words of the data, none where
    it is unlabelled.  regions: its objects; () says there are none, None that it is not annotated.  columns: what else
    the CSV says of it.  split: "test", "train", ... as written, "" where there are no splits.
    """

    path: Path
    name: str
    labels: tuple[str, ...] = ()
    regions: tuple[Region, ...] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True)
class Pictures:
    """A set of pictures, sorted by name, and what happened on the way to it.

    root: the folder or file they came from, or "demo".  broken: (name, reason) of those that cannot be pictures.
    notes: sentences on what was chosen, skipped or left out.  classes: what the data's words mean in labels of the
    model, where the user said it.  numbered: the words of the data are class numbers.
    """

    root: Path | str
    pictures: tuple[Picture, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: bool = False
    column: str = ""
