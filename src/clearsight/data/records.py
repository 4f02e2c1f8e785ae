"""A set of pictures with their labels and objects, and notes on how it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from clearsight.data.annotations import Region
from clearsight.data.truth_records import BoxTruth, PixelTruth, TruthProblem


@dataclass(frozen=True)
class Picture:
    """One picture file that exists and is not empty; it is not opened yet, so it may be unreadable.

    name: its path below the root, with slashes.  labels: the acceptable classes in the words of the data, none where
    it is unlabelled.  regions: its objects; () means none, None that it is not annotated.  columns: the other cells of
    its row in the table.  split: "test", "train", ... as written, "" where there are no splits.

    boxes, pixels: what a detector or a segmenter is to answer, None where it is not annotated for one.

    text, marks: of a text, which verbs and checks take as they take pictures (see text_inputs.py), its characters and
    marked ranges of them; path is then the table or file that it came from.
    """

    path: Path
    name: str
    labels: tuple[str, ...] = ()
    regions: tuple[Region, ...] | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: str = ""
    text: str | None = None
    marks: tuple[tuple[int, int], ...] | None = None
    boxes: BoxTruth | None = None
    pixels: PixelTruth | None = None


@dataclass(frozen=True)
class Pictures:
    """A set of pictures, sorted by name, with notes on how it was read.

    root: the folder or file they came from, or "demo".  broken: (name, reason) of those that cannot be pictures.
    notes: sentences on what was chosen, skipped or left out.  classes: the model's labels for the data's words,
    where the user gives them.  numbered: the words of the data are class numbers.  words: the options of the
    command line that name the columns of a table.  objects: the classes of the pictures' boxes or pixels, by number.
    problems: what is wrong with the annotations of boxes or pixels.
    """

    root: Path | str
    pictures: tuple[Picture, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbered: bool = False
    column: str = ""
    words: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    problems: tuple[TruthProblem, ...] = ()

    @property
    def are_texts(self) -> bool:
        return bool(self.pictures) and self.pictures[0].text is not None

    @property
    def thing(self) -> str:
        """What they are, in a word."""
        return "text" if self.are_texts else "picture"
