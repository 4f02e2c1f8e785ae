"""What `clearsight data augment` does: for each picture a sheet of random versions, a row for each augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clearsight.core.catalogue import Call, catalogue
from clearsight.core.output import write_whole
from clearsight.core.preprocess import Preprocess
from clearsight.core.torchvision_v2 import F
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.file_stems import named
from clearsight.data.images import eight_bit, open_picture, to_pixels
from clearsight.data.text_inputs import refuse_texts
from clearsight.drawing.heatmaps import Tile, photo, sheet
from clearsight.errors import Refused
from clearsight.runner.augment import augment, mixes, read, resizes

PARTNERS = 8  # pictures that a sheet mixes
FEW = "it mixes pictures: give several"


@dataclass(frozen=True)
class AugmentedPicture:
    """One picture with the sheet of its versions.

    Args:
        picture: name of the picture, as its data names it.
        sheet: the PNG with the picture and its versions.
        augmentations: the rows of the sheet, from the top: calls, with commas where several are done in turn.
    """

    picture: str
    sheet: Path
    augmentations: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {"picture": self.picture, "sheet": str(self.sheet), "augmentations": list(self.augmentations)}


@dataclass(frozen=True)
class AugmentedPictures:
    """All sheets that ``augment_pictures`` drew.

    Args:
        folder: the folder of the sheets.
        seed: the seed of the first version; the k-th after it has seed + k.
        pictures: the pictures with their sheets, in the order of the data.
        broken: (file, reason) of the pictures that cannot be read.
        left_out: (augmentations, why) of the rows that cannot be drawn.
    """

    folder: Path
    seed: int
    pictures: tuple[AugmentedPicture, ...]
    broken: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        n = len(self.pictures)
        rows = "; ".join(self.pictures[0].augmentations) if self.pictures else ""
        return f"<AugmentedPictures in {self.folder}, {n} picture{'s' if n != 1 else ''}: {rows}>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "folder": str(self.folder),
            "seed": self.seed,
            "pictures": [picture.as_dict() for picture in self.pictures],
            "broken": [{"file": file, "reason": reason} for file, reason in self.broken],
            "left_out": [{"augmentations": calls, "why": why} for calls, why in self.left_out],
        }

    def lines(self) -> list[str]:
        """The same for the terminal: what is left out, the sheet of each picture, and the folder."""
        return [
            *(f"left out {name}: {why}" for name, why in (*self.broken, *self.left_out)),
            *(f"{picture.picture}: {picture.sheet}" for picture in self.pictures),
            str(self.folder),
        ]


def augment_pictures(
    data: Pictures,
    words: Sequence[str],
    preprocess: Preprocess,
    make_folder: Callable[[], Path],
    *,
    samples: int = 5,
    seed: int = 0,
) -> AugmentedPictures:
    """Draw a sheet for each picture, a row for each augmentation -> AugmentedPictures.

    A row holds the picture itself and random versions of it.  An augmentation that resizes is given the whole picture,
    all others the pixels that a model is given.  One that mixes takes others of the pictures for partners, and the
    shares of the classes stand below; with one picture alone it is left out.  Pictures that cannot be read are named
    and left out.

    Args:
        data: the pictures.
        words: the rows: a call each, or several calls with commas that are done in turn; without any, all of the
            catalogue.
        preprocess: size of the versions in pixels and number of channels, as those of a model.
        make_folder: makes the folder of the sheets; called once, when the first picture has been read.
        samples: number of random versions in a row, at least 1.
        seed: seed of the first version.

    Refused: rows without an augmentation, and pictures or rows of which none is left.
    """
    if samples < 1:
        raise Refused(f"samples={samples}: at least 1")
    rows = [read(word) for word in words] if words else [(Call(m),) for m in catalogue("augmentations").values()]
    if not all(rows):
        raise Refused('"none" leaves the pictures as they are: name an augmentation, such as flip')
    refuse_texts(data, "data augment")
    broken = list(data.broken)
    company = _company(data.pictures, preprocess)
    drawn = [calls for calls in rows if len(company) > 1 or not any(map(mixes, calls))]
    left_out = tuple((_spelled(calls), FEW) for calls in rows if calls not in drawn)
    if not drawn:
        raise Refused(f"{_spelled(rows[0])}: {FEW}")
    folder = cache(make_folder)
    pictures: list[AugmentedPicture] = []
    for picture, stem in named(data.pictures):
        try:
            image = open_picture(picture.path)
        except Refused as e:
            broken.append((picture.name, str(e)))
            continue
        versions = [augmented_versions(picture, image, calls, company, preprocess, samples, seed) for calls in drawn]
        page = _sheet(picture, to_pixels(image, preprocess), drawn, versions, seed)
        file = write_whole(folder() / f"{stem}.png", partial(page.save, format="PNG"))
        pictures.append(AugmentedPicture(picture.name, file, tuple(map(_spelled, drawn))))
    if not pictures:
        reason = f" ({broken[0][0]}: {broken[0][1]})" if broken else ""
        raise Refused(f"none of the pictures can be read{reason}")
    return AugmentedPictures(folder(), seed, tuple(pictures), tuple(broken), left_out)


def _spelled(calls: Sequence[Call]) -> str:
    return ", ".join(map(str, calls))


def _company(pictures: Sequence[Picture], preprocess: Preprocess) -> list[tuple[Picture, Image.Image]]:
    """The first few pictures that can be read, one more than are mixed: the picture itself is none of its partners."""
    readable: list[tuple[Picture, Image.Image]] = []
    for picture in pictures:
        try:
            image = open_picture(picture.path)
        except Refused:
            continue
        readable.append((picture, image))
        if len(readable) == PARTNERS:
            break
    return readable


def augmented_versions(
    picture: Picture,
    image: Image.Image,
    calls: Sequence[Call],
    company: Sequence[tuple[Picture, Image.Image]],
    preprocess: Preprocess,
    samples: int,
    seed: int,
) -> list[tuple[Tensor, str]]:
    """So many (C, H, W) that the calls make of a picture, each with the shares of the classes where they are mixed."""
    mixed = any(map(mixes, calls))
    others = [(p, i) for p, i in company if p.name != picture.name][: PARTNERS - 1] if mixed else []
    batch = [(picture, image), *others]
    words = [_class(p) for p, _ in batch]
    classes = list(dict.fromkeys(words))
    y = torch.nn.functional.one_hot(torch.tensor([classes.index(w) for w in words]), len(classes)).float()
    whole = resizes(calls[0])
    pixels = [_whole(i, preprocess) if whole else to_pixels(i, preprocess) for _, i in batch]
    height, width = preprocess.size
    versions = []
    for k in range(samples):
        x, shares = augment(pixels, y, calls, (height, width), seed=(seed + k) % 2**63)
        versions.append((x[0], _shares(shares[0], classes) if mixed else ""))
    return versions


def _class(picture: Picture) -> str:
    return picture.labels[0] if picture.labels else picture.path.stem


def _shares(shares: Tensor, classes: Sequence[str]) -> str:
    """The shares of the classes in words, the largest first: "cat 0.60, dog 0.40"."""
    ranked = sorted(zip(shares.tolist(), classes, strict=True), key=lambda pair: -pair[0])
    return ", ".join(f"{word} {share:.2f}" for share, word in ranked if share >= 0.005)


def _whole(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """All of a picture, (C, h, w) uint8 in the channels of the model."""
    if preprocess.channels not in (1, 3):
        raise Refused(f"the model takes {preprocess.channels} channels; pictures have 1 (grey) or 3 (RGB)")
    pixels: Tensor = F.pil_to_tensor(eight_bit(image).convert("L" if preprocess.channels == 1 else "RGB"))
    return pixels


def _sheet(
    picture: Picture,
    x: Tensor,
    rows: Sequence[Sequence[Call]],
    versions: Sequence[Sequence[tuple[Tensor, str]]],
    seed: int,
) -> Image.Image:
    """A row for each augmentation; x (C, H, W) is the picture as the model is shown it."""
    tiles: list[list[Tile]] = []
    for calls, row in zip(rows, versions, strict=True):
        summary = calls[0].method.summary if len(calls) == 1 else ""
        tiles.append([(photo(x), f"{_spelled(calls)}\n{summary}"), *((photo(v), words) for v, words in row)])
    last = seed + len(versions[0]) - 1
    note = f"The first of each row is the picture itself, {' × '.join(map(str, reversed(x.shape[1:])))} pixels as the "
    note += f"model is shown it; the others are random versions of it, of the seeds {seed} to {last}."
    return sheet(tiles, title=picture.name, note=note)
