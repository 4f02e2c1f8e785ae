"""The batches of an epoch: pictures are decoded once where memory allows, and augmented anew for every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from clearsight.core.catalogue import Call
from clearsight.core.classifier import Preprocess
from clearsight.core.torchvision_v2 import F
from clearsight.data.datasets import Picture
from clearsight.data.images import eight_bit, of_bytes, open_picture
from clearsight.data.text_inputs import input_bytes
from clearsight.runner.augment import augment

CACHE_BYTES = 2 * 2**30  # bytes of decoded pictures in memory
SPARE = 1.25  # a picture that is going to be cropped is kept so many times larger than the network's input
LONG = 4  # its longer side, at most so many times the shorter one


@dataclass(eq=False)
class Store:
    """The pixels of pictures, uint8: the network's input, or a larger picture for crops; cached up to ``room`` bytes.

    whole: pictures are going to be cropped, so that more than the network's input is needed.
    """

    pictures: Sequence[Picture]
    preprocess: Preprocess
    whole: bool
    room: int = CACHE_BYTES
    _cache: dict[int, Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def __getitem__(self, i: int) -> Tensor:
        """(C, h, w) uint8.  Raises Refused where the picture cannot be read."""
        if i in self._cache:
            return self._cache[i]
        if self.whole:
            pixels = _large(open_picture(self.pictures[i].path), self.preprocess)
        else:
            pixels, _ = input_bytes(self.pictures[i], self.preprocess)
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


@dataclass(frozen=True, eq=False)
class Batches(Dataset[tuple[Tensor, Tensor]]):
    """The batches of one epoch: each follows from the seed and its number alone, whatever process loads it.

    rows: numbers of pictures of the store, one list for each batch; y (N, K): the shares of the classes.
    """

    store: Store
    y: Tensor
    rows: Sequence[Sequence[int]]
    calls: Sequence[Call]
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        """Batch n: x (B, C, H, W) float32 in [0, 1] and y (B, K)."""
        size = self.store.preprocess.size
        rows = list(self.rows[n])
        if self.store.preprocess.alphabet:  # texts are not augmented
            return self.store.pixels(rows), self.y[rows]
        return augment(
            [self.store[i] for i in rows], self.y[rows], self.calls, (size[0], size[1]), seed=self.seed + 7919 * n
        )


def order(rows: Sequence[int], batch: int, seed: int) -> list[list[int]]:
    """The pictures in a random order, in batches of nearly the same size, none larger than ``batch``.

    >>> [len(b) for b in order(range(65), 32, 0)]
    [22, 22, 21]
    """
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    parts = torch.tensor_split(shuffled, -(-len(rows) // batch))
    return [[rows[int(i)] for i in part] for part in parts]
