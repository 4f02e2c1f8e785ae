"""What is true of a picture for a detector or a segmenter: the boxes of its objects, the classes of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from clearsight.data.annotation_formats.regions import Box, Size

NOT_JUDGED = 255  # the class of pixels that count neither for nor against a model


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """The objects of one picture, in pixels of the picture as people see it (turned as its EXIF says).

    boxes (M, 4): float32 x0, y0, x1, y1 with x0 < x1 and y0 < y1, inside the picture; x1 and y1 are edges, so a box of
    the first pixel is 0, 0, 1, 1.  labels (M,): int64 class numbers.  crowd (M,): bool, several objects that are not
    told apart.  area (M,): float32, that of the outline where the annotation states it, else of the box.
    difficult (M,): bool, as Pascal VOC says.  size: (width, height) of the picture.  names: what each object is called
    in messages.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor
    difficult: Tensor
    size: Size
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, which: Tensor) -> BoxTruth:
        """The objects where the mask (M,) is True, or those of these rows.

        >>> no_objects((60, 40)).keep(torch.tensor([], dtype=torch.bool)).boxes.shape
        torch.Size([0, 4])
        """
        rows = which.nonzero().flatten() if which.dtype == torch.bool else which
        names = tuple(self.names[i] for i in rows.tolist()) if self.names else ()
        kept = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in ("size", "names")}
        return replace(self, **kept, names=names)


def no_objects(size: Size) -> BoxTruth:
    """The truth of a picture without objects."""
    none = torch.zeros(0)
    return BoxTruth(none.view(0, 4), none.long(), none.bool(), none, none.bool(), size)


@dataclass(frozen=True, eq=False)
class PixelMap:
    """classes (H, W): int64, 255 where a pixel is not judged.  problems: what is wrong with what it was read from."""

    classes: Tensor
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PixelTruth:
    """The class of each pixel of one picture, read when it is called: int64 (H, W), 255 where it is not judged.

    size: (width, height) of the picture as people see it.  read: gives the map; it can be sent to other processes.
    """

    size: Size
    read: Callable[[], PixelMap]

    def __call__(self) -> Tensor:
        return self.read().classes


@dataclass(frozen=True)
class TruthProblem:
    """What is wrong with an annotation.

    code: the kind of problem, for programs ("no-area", "beyond", "duplicate", ...).  picture: the picture's name, or
    what the annotation calls it.  thing: the object in its file ("annotation 5", "line 3"), "" for the whole file.
    box: (x0, y0, x1, y1) in pixels as it was written.  words: what is wrong, and a guess at why.  kept: whether the
    object is used in spite of it.
    """

    code: str
    picture: str
    thing: str = ""
    box: Box | None = None
    words: str = ""
    kept: bool = False

    def __str__(self) -> str:
        where = " ".join(word for word in (self.picture, self.thing) if word)
        box = "" if self.box is None else f" at {', '.join(f'{n:g}' for n in self.box)}"
        return f"{where}{box}: {self.words}"
