"""Where a right answer may look: the annotations of training pictures, as pixels that are augmented with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clearsight.core.preprocess import Preprocess
from clearsight.core.text import counted
from clearsight.data.annotation_formats.sheets import named
from clearsight.data.annotations import read_boxes, region_mask
from clearsight.data.images import picture_size
from clearsight.data.records import Picture
from clearsight.errors import Refused
from clearsight.runner.augment import read, resizes
from clearsight.training.batches import Guidance, Store
from clearsight.training.recipe import Recipe, marks_file
from clearsight.training.training_data import TrainingData

MARKS = "marks"  # the word for the marks of texts, in the place of a file


def annotated(data: TrainingData, path: str | Path) -> TrainingData:
    """The data with the regions that a file or folder of annotations says, and notes on how it was read.

    Of texts these are the marks of their own table, which the word "marks" stands for.

    Refused: annotations of which none marks a pixel of a training picture, and regions that go beyond their picture.
    """
    if data.data.are_texts:
        return _marked(data, str(path))
    files = {p.name: p.path for p in data.pictures}
    read = read_boxes(path, files)
    if read.left_out:
        raise Refused(f"{read.form} annotations at {path} cannot guide: {named(read.left_out)}", "mend or remove them")
    if read.cut_off:
        raise Refused(
            f"{read.form} annotations at {path} cannot guide: they go beyond the edge of {named(read.cut_off)}",
            "mend or remove them",
        )
    pictures = tuple(replace(p, regions=read.regions.get(p.name)) for p in data.pictures)
    marked = [p for p in (pictures[i] for i in data.rows("train")) if p.regions]
    if not any(read.regions.values()):
        raise Refused(
            f"{read.form} annotations at {path} mark nothing: none of them is of one of the pictures",
            "look at the names or numbers of pictures in them",
        )
    if not any(_inside(p).any() for p in marked):
        raise Refused(
            f"{read.form} annotations at {path} mark nothing in a training picture",
            f"they are of {named(list(read.regions)) or 'none'}; the training pictures are "
            f"{named([pictures[i].name for i in data.rows('train')])}",
        )
    note = (
        f"{read.form} annotations of {len(marked)} of {counted(len(data.rows('train')), 'training picture')} can guide"
    )
    return replace(data, pictures=pictures, notes=(*data.notes, note, *read.notes))


def _marked(data: TrainingData, word: str) -> TrainingData:
    """The texts, and a note on how many of them are marked.  Refused: another word, and texts without marks."""
    if word != MARKS:
        raise Refused(f"annotations {word!r} of texts", f"their marks stand in their own table: give {MARKS}")
    n = sum(bool(data.pictures[i].marks) for i in data.rows("train"))
    if not n:
        raise Refused(
            "no training text has a marked character", "name the column of the marks with --marks-column COLUMN"
        )
    note = f"marks in {n} of {counted(len(data.rows('train')), 'training text')} can guide"
    return replace(data, notes=(*data.notes, note))


def stores(data: TrainingData, preprocess: Preprocess, recipe: Recipe) -> tuple[Store, Guidance | None]:
    """The pictures as training reads them, and the annotations that guide it; None where the recipe names none."""
    whole = any(map(resizes, read(recipe.augment)))
    guides = None if marks_file(recipe) is None else guidance(data, preprocess, whole, recipe)
    return Store(data.pictures, preprocess, whole), guides


def guidance(data: TrainingData, preprocess: Preprocess, whole: bool, recipe: Recipe) -> Guidance:
    """The annotations of the recipe's share of the annotated training pictures, at least one, drawn by its seed.

    whole: as for the store of the pictures, whose geometry this one has.
    """
    rows = [i for i in data.rows("train") if data.pictures[i].regions or data.pictures[i].marks]
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(recipe.seed))
    used = drawn[: max(1, round(recipe.guide_share * len(rows)))]
    rows_used = frozenset(rows[int(k)] for k in used)
    if data.data.are_texts:
        return Guidance(MarkedPlaces(data.pictures, preprocess.size[0], recipe.avoid is None), rows_used)
    grey = replace(preprocess, mean=(0.0,), std=(1.0,))
    draw = where_to_look if recipe.avoid is None else where_not_to_look
    return Guidance(Store(data.pictures, grey, whole, read=draw), rows_used)


@dataclass(frozen=True, eq=False)
class MarkedPlaces:
    """Where the answer to a text may look, as one number for each place.

    length: places of the network's input; inside: whether the marked characters are where it may look, or may not.
    """

    texts: Sequence[Picture]
    length: int
    inside: bool

    def __getitem__(self, i: int) -> Tensor:
        """(1, L) uint8, 255 where it may look, else 0."""
        places = torch.zeros(1, self.length, dtype=torch.uint8)
        for start, stop in self.texts[i].marks or ():
            places[:, start:stop] = 255
        return places if self.inside else 255 - places


def where_to_look(picture: Picture) -> Image.Image:
    """The regions of a picture, white on black, in the size of the picture."""
    return Image.fromarray(_inside(picture) * np.uint8(255))


def where_not_to_look(picture: Picture) -> Image.Image:
    """The regions of a picture, black on white, in the size of the picture."""
    return Image.fromarray(~_inside(picture) * np.uint8(255))


def _inside(picture: Picture) -> NDArray[np.bool_]:
    wide, high = picture_size(picture.path)
    whole = Preprocess((high, wide), (0.0,), (1.0,))
    return region_mask(picture.regions or (), (wide, high), whole).numpy()
