"""The batches of an epoch: pictures are decoded once where memory allows, and augmented anew for every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from clearsight.core.catalogue import Call
from clearsight.core.preprocess import Preprocess
from clearsight.core.torchvision_v2 import F
from clearsight.data.datasets import Picture
from clearsight.data.images import eight_bit, of_bytes, open_picture, shown
from clearsight.data.text_inputs import input_bytes
from clearsight.runner.augment import augment, augment_regions

CACHE_BYTES = 2 * 2**30  # bytes of decoded pictures in memory
SPARE = 1.25  # a picture that is going to be cropped is kept so many times larger than the network's input
LONG = 4  # its longer side, at most so many times the shorter one


def _photo(picture: Picture) -> Image.Image:
    return open_picture(picture.path)


@dataclass(eq=False)
class Store:
    """The pixels of pictures, uint8: the network's input, or a larger picture for crops; cached up to ``room`` bytes.

    whole: pictures are going to be cropped, so that more than the network's input is needed.  read: what a picture is
    read as.
    """

    pictures: Sequence[Picture]
    preprocess: Preprocess
    whole: bool
    room: int = CACHE_BYTES
    read: Callable[[Picture], Image.Image] = _photo
    _cache: dict[int, Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def __getitem__(self, i: int) -> Tensor:
        """(C, h, w) uint8.  Raises Refused where the picture cannot be read."""
        if i in self._cache:
            return self._cache[i]
        if self.whole:
            pixels = _large(self.read(self.pictures[i]), self.preprocess)
        elif self.read is _photo:
            pixels, _ = input_bytes(self.pictures[i], self.preprocess)
        else:
            pixels = F.pil_to_tensor(shown(self.read(self.pictures[i]), self.preprocess))
        if self._bytes + pixels.numel() <= self.room:
            self._cache[i] = pixels
            self._bytes += pixels.numel()
        return pixels

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """(B, C, H, W) float32 in [0, 1], of pictures that have the size of the network's input."""
        return of_bytes(torch.stack([self[i] for i in rows]))


def _large(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The whole picture, resized to little more than the network's input; of a very long picture the middle."""
    image = eight_bit(image).convert("L" if preprocess.channels == 1 else "RGB")
    short = min(image.size)
    image = F.center_crop(image, [min(image.height, LONG * short), min(image.width, LONG * short)])
    least = round(SPARE * max(preprocess.size))
    if short > least:
        sides = [round(side * least / short) for side in (image.height, image.width)]
        image = F.resize(image, sides, antialias=True)
    pixels: Tensor = F.pil_to_tensor(image)
    return pixels


class Places(Protocol):
    """Where the answer to each picture may look, by its number: (1, *S) uint8."""

    def __getitem__(self, i: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Guidance:
    """The annotations that guide training.

    store: where a right answer may look, white, else black, as the store of pictures keeps pictures.  rows: the
    pictures whose annotation is used.
    """

    store: Places
    rows: frozenset[int]

    def regions(self, i: int, picture: Tensor) -> Tensor:
        """(1, *S) uint8, 255 where the answer to picture i (C, *S) may look.

        That is everywhere if its annotation is not used.
        """
        return self.store[i] if i in self.rows else torch.full_like(picture[:1], 255)


@dataclass(frozen=True, eq=False)
class Batches(Dataset[tuple[Tensor, Tensor, Tensor | None]]):
    """The batches of one epoch: each follows from the seed and its number alone, whatever process loads it.

    rows: numbers of pictures of the store, one list for each batch; y (N, K): the shares of the classes.
    guidance: the annotations that go with them.
    """

    store: Store
    y: Tensor
    rows: Sequence[Sequence[int]]
    calls: Sequence[Call]
    seed: int
    guidance: Guidance | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Batch n: x (B, C, H, W) float32 in [0, 1], y (B, K), and where there are regions (B, 1, H, W) of them.

        The regions are 1 inside and 0 outside, moved as the pictures are, and NaN in pictures without any.
        """
        rows, seed = list(self.rows[n]), self.seed + 7919 * n
        pictures, y = [self.store[i] for i in rows], self.y[rows]
        if self.store.preprocess.alphabet:  # texts are not augmented
            return of_bytes(torch.stack(pictures)), y, self._places(rows, pictures)
        high, wide = self.store.preprocess.size
        if self.guidance is None:
            return (*augment(pictures, y, self.calls, (high, wide), seed=seed), None)
        regions = [self.guidance.regions(i, picture) for i, picture in zip(rows, pictures, strict=True)]
        x, y, inside = augment_regions(pictures, regions, y, self.calls, (high, wide), seed=seed)
        return x, y, self._unless_guided(rows, inside)

    def _places(self, rows: Sequence[int], texts: Sequence[Tensor]) -> Tensor | None:
        """Where the answers to texts may look, (B, 1, L); None where nothing guides."""
        if self.guidance is None:
            return None
        parts = [self.guidance.regions(i, text) for i, text in zip(rows, texts, strict=True)]
        return self._unless_guided(rows, of_bytes(torch.stack(parts)))

    def _unless_guided(self, rows: Sequence[int], inside: Tensor) -> Tensor:
        """The regions, NaN in pictures whose annotation is not used."""
        assert self.guidance is not None
        inside[[i not in self.guidance.rows for i in rows]] = torch.nan
        return inside


def order(rows: Sequence[int], batch: int, seed: int) -> list[list[int]]:
    """The pictures in a random order, in batches of nearly the same size, none larger than ``batch``.

    >>> [len(b) for b in order(range(65), 32, 0)]
    [22, 22, 21]
    """
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    parts = torch.tensor_split(shuffled, -(-len(rows) // batch))
    return [[rows[int(i)] for i in part] for part in parts]


def step_seed(seed: int, *numbers: int) -> int:
    """A seed of its own for an epoch, or for a step of it.

    >>> step_seed(0, 1) == step_seed(0, 1), step_seed(0, 1) == step_seed(0, 1, 0)
    (True, False)
    """
    key = hashlib.blake2b(repr((seed, *numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(key, "big")
