"""The batches of an epoch: pictures and their truth, decoded once where memory allows, and moved anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from clearsight.core.catalogue import Call
from clearsight.core.preprocess import Preprocess
from clearsight.data.records import Picture
from clearsight.data.truth_to_input import map_to_input, truth_to_input
from clearsight.errors import Refused
from clearsight.runner.augment import augment, mixes, read, resizes
from clearsight.training.batches import Store
from clearsight.training.objects.moves import Move, draw_move, move_boxes, move_map, move_pixels

STEP = 7919  # between the seeds of two batches of an epoch, as in the training of classifiers


class Truths(Protocol):
    """What is true of each picture in the network's input, by its number, moved as the picture is."""

    def __getitem__(self, i: int, /) -> Any: ...

    def moved(self, i: int, move: Move) -> Any: ...


@dataclass(eq=False)
class BoxTruths:
    """Boxes (M, 4) and labels (M,) of each picture; crowds are left out, and what is below `least` pixels."""

    pictures: Sequence[Picture]
    preprocess: Preprocess
    least: float
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i not in self._known:
            boxes = self.pictures[i].boxes
            assert boxes is not None
            truth = truth_to_input(boxes.keep(~boxes.crowd), self.preprocess)
            large = (truth.boxes[:, 2:] - truth.boxes[:, :2]).amin(1) >= self.least if len(truth) else truth.crowd
            kept = truth.keep(large)
            self._known[i] = kept.boxes, kept.labels
        return self._known[i]

    def moved(self, i: int, move: Move) -> tuple[Tensor, Tensor]:
        height, width = self.preprocess.size
        return move_boxes(*self[i], move, (height, width), self.least)


@dataclass(eq=False)
class MapTruths:
    """The class map of each picture, (H, W) int64, 255 where it is not judged."""

    pictures: Sequence[Picture]
    preprocess: Preprocess
    _known: dict[int, Tensor] = field(default_factory=dict)

    def __getitem__(self, i: int) -> Tensor:
        if i not in self._known:
            pixels = self.pictures[i].pixels
            assert pixels is not None
            self._known[i] = map_to_input(pixels(), self.preprocess).to(torch.uint8)
        return self._known[i].long()

    def moved(self, i: int, move: Move) -> Tensor:
        return move_map(self[i], move)


@dataclass(frozen=True, eq=False)
class ObjectBatches(Dataset[tuple[Tensor, list[Any]]]):
    """The batches of one epoch: each follows from the seed and the numbers of its pictures, whatever process loads it.

    rows: numbers of pictures of the store, one list for each batch.  colours: augmentations that move no pixel.
    """

    store: Store
    truths: Truths
    rows: Sequence[Sequence[int]]
    colours: Sequence[Call]
    flips: str
    scale: float
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, n: int) -> tuple[Tensor, list[Any]]:
        """Batch n: x (B, C, H, W) float32 in [0, 1], and the truth of each picture."""
        pre, rows = self.store.preprocess, list(self.rows[n])
        size = (pre.size[0], pre.size[1])
        shares = torch.ones(len(rows), 1)
        x, _ = augment([self.store[i] for i in rows], shares, self.colours, size, seed=self.seed + STEP * n)
        moves = [draw_move(i, self.seed, size, self.flips, self.scale) for i in rows]
        moved = [move_pixels(picture, move, pre.mean) for picture, move in zip(x, moves, strict=True)]
        return torch.stack(moved), [self.truths.moved(i, move) for i, move in zip(rows, moves, strict=True)]


def colour_calls(words: str) -> tuple[Call, ...]:
    """The augmentations that words name.  Refused: those that move pixels or mix pictures, because boxes would stay."""
    calls = read(words)
    for call in calls:
        if mixes(call) or resizes(call) or "moves" in call.method.claims:
            raise Refused(
                f"{call.method.name} moves or mixes pixels, and boxes and masks would stay where they are",
                "leave it out of augment: flips and scale (--flips, --scale) move the truth with the picture",
            )
    return calls
