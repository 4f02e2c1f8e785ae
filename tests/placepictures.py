"""Pictures of coloured squares with their boxes or class maps, for the audits of detectors and segmenters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clearsight.data.datasets import Pictures
from clearsight.data.records import Picture
from clearsight.data.truth_records import BoxTruth, PixelMap, PixelTruth

SIDE = 32
RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
CORNERS = [(0, 0), (12, 8), (24, 20), (4, 24), (20, 4), (8, 16), (16, 28), (28, 12)]  # of squares that do not touch
Square = tuple[int, int, tuple[int, int, int]]  # left, top, colour: 4 x 4 pixels, as the tiny detector finds them


def painted(squares: Sequence[Square], ground: tuple[int, int, int] = BLACK) -> np.ndarray:
    """(32, 32, 3) uint8."""
    a = np.full((SIDE, SIDE, 3), ground, np.uint8)
    for left, top, colour in squares:
        a[top : top + 4, left : left + 4] = colour
    return a


def box_truth(corners: Sequence[tuple[int, int]], labels: Sequence[int], crowd: Sequence[bool] = ()) -> BoxTruth:
    """Squares of 4 x 4 pixels at these upper left corners."""
    n = len(corners)
    boxes = torch.tensor([[x, y, x + 4, y + 4] for x, y in corners], dtype=torch.float32).reshape(-1, 4)
    flags = torch.tensor(crowd or [False] * n, dtype=torch.bool)
    return BoxTruth(
        boxes,
        torch.tensor(labels, dtype=torch.int64),
        flags,
        torch.full((n,), 16.0),
        torch.zeros(n).bool(),
        (SIDE, SIDE),
    )


def with_boxes(
    folder: Path,
    arrays: Sequence[np.ndarray],
    truths: Sequence[BoxTruth],
    classes: Sequence[str] = ("class 0", "class 1"),
) -> Pictures:
    """The pictures written into a folder, with their boxes."""
    pictures = tuple(
        Picture(path, path.name, boxes=truth) for path, truth in zip(_written(folder, arrays), truths, strict=True)
    )
    return Pictures(folder, pictures, objects=tuple(classes))


def with_maps(
    folder: Path, arrays: Sequence[np.ndarray], maps: Sequence[np.ndarray], classes: Sequence[str]
) -> Pictures:
    """The pictures written into a folder, with their class maps."""
    pictures = tuple(
        Picture(path, path.name, pixels=PixelTruth((a.shape[1], a.shape[0]), partial(_map, m)))
        for path, a, m in zip(_written(folder, arrays), arrays, maps, strict=True)
    )
    return Pictures(folder, pictures, objects=tuple(classes))


def _map(classes: np.ndarray) -> PixelMap:
    return PixelMap(torch.from_numpy(classes.astype(np.int64)))


def _written(folder: Path, arrays: Sequence[np.ndarray]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i:02}.png" for i in range(len(arrays))]
    for path, a in zip(paths, arrays, strict=True):
        Image.fromarray(a).save(path)
    return paths
