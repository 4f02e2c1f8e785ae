"""Selective search: boxes in which objects may lie, without a network and without knowing any class.

Uijlings, van de Sande, Gevers & Smeulders 2013, doi:10.1007/s11263-013-0620-5.  The picture falls into small segments
(Felzenszwalb & Huttenlocher 2004, by scikit-image); the two neighbours that are most alike become one region, again and
again, until the whole picture is one.  The box of every region on the way is a proposal, so objects of all sizes have a
chance.  What looks alike depends on the eye: several colour spaces, segment sizes and likenesses are tried.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clearsight.errors import Refused

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Space = Literal["hsv", "lab"]

COLOUR_BINS, TEXTURE_BINS, DIRECTIONS = 25, 10, 8
SMALLEST = 20  # pixels: the short side of a proposal


@dataclass(frozen=True)
class Eye:
    """One way to see which regions are alike: a colour space, the scale of the first segments, and the likenesses."""

    space: Space
    scale: float
    colour: bool = True


# the paper's "fast" mode: 2 colour spaces, 2 scales, with and without colour
FAST = tuple(Eye(space, scale, colour) for space in ("hsv", "lab") for scale in (50, 100) for colour in (True, False))


def selective_search(
    picture: npt.NDArray[np.uint8], *, most: int = 2000, eyes: Sequence[Eye] = FAST, seed: int = 0
) -> Whole:
    """Proposals of a picture (H, W, 3) uint8 -> boxes (N, 4) in pixels, x1, y1, x2, y2; the likeliest first.

    A region counts as the likelier the later it was merged, times a random number, so that the large ones do not all
    come first (section 4.4 of the paper); of equal boxes the likeliest is kept.  Boxes with a side below 20 pixels, or
    a tenth of the short side where that is less, are left out.

    Args:
        picture: the picture.
        most: at most so many boxes.
        eyes: the ways in which regions are compared; each gives about twice as many regions as it has segments.
        seed: of the random order.

    Refused: fewer than one box, and pictures that are no colour pictures.

    A dark square on a light ground is found to the pixel:

    >>> ground = np.full((60, 80, 3), 220, np.uint8)
    >>> ground[10:40, 20:60] = (30, 60, 90)
    >>> [20, 10, 60, 40] in selective_search(ground, eyes=FAST[:1]).tolist()
    True
    """
    if most < 1:
        raise Refused(f"most {most}", "ask for at least one proposal")
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise Refused(f"a picture of shape {picture.shape} has no three colours", "give (H, W, 3)")
    rng = np.random.default_rng(seed)
    found, rank = [], []
    seen: dict[tuple[Space, float], _Segments] = {}
    for eye in eyes:
        key = (eye.space, eye.scale)
        if key not in seen:
            seen[key] = _segments(picture, eye.space, eye.scale)
        boxes = _merged(_regions(seen[key], eye.colour), seen[key].touching, picture.shape[0] * picture.shape[1])[::-1]
        found.append(boxes)
        rank.append(np.arange(1, len(boxes) + 1) * rng.random(len(boxes)))
    boxes = np.concatenate(found)[np.argsort(np.concatenate(rank), kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    least = min(SMALLEST, min(picture.shape[:2]) // 10)
    wide: Whole = boxes[((boxes[:, 2:] - boxes[:, :2]) >= least).all(1)][:most]
    return wide


@dataclass
class _Segments:
    """The first segments: their size in pixels, boxes, histograms of colour and of texture, and which of them touch."""

    size: Whole
    boxes: Whole
    colour: Numbers
    texture: Numbers
    touching: set[tuple[int, int]]


def _segments(picture: npt.NDArray[np.uint8], space: Space, scale: float) -> _Segments:
    from skimage import color, segmentation  # seconds, which no other demonstration waits for

    planes = (color.rgb2hsv if space == "hsv" else color.rgb2lab)(picture)
    if space == "lab":
        planes = (planes + np.array([0, 128, 128])) / np.array([100, 255, 255])
    of = segmentation.felzenszwalb(planes, scale=scale, sigma=0.8, min_size=int(scale))
    n = int(of.max()) + 1
    colour, texture = _histograms(planes, of, n, COLOUR_BINS), _texture(planes, of, n)
    return _Segments(np.bincount(of.ravel(), minlength=n), _boxes(of, n), colour, texture, _neighbours(of))


@dataclass
class _Regions:
    """Size, box and histograms of each region; rows are added as regions are merged."""

    size: list[int]
    box: list[Whole]
    histogram: list[Numbers]  # of texture, and of colour behind it, each of sum 1


def _regions(segments: _Segments, colour: bool) -> _Regions:
    parts = [segments.texture, segments.colour] if colour else [segments.texture]
    return _Regions(segments.size.tolist(), list(segments.boxes), list(np.concatenate(parts, axis=1)))


def _boxes(segments: Whole, n: int) -> Whole:
    """The box around each of n segments: (n, 4)."""
    y, x = np.divmod(np.arange(segments.size), segments.shape[1])
    boxes = np.empty((n, 4), dtype=np.int64)
    boxes[:, :2], boxes[:, 2:] = segments.size, 0
    of = segments.ravel()
    for column, value in enumerate((x, y)):
        np.minimum.at(boxes[:, column], of, value)
        np.maximum.at(boxes[:, 2 + column], of, value + 1)
    return boxes


def _texture(planes: Numbers, segments: Whole, n: int) -> Numbers:
    """How strong edges are in eight directions, as histograms of each segment."""
    from scipy import ndimage

    down, across = (ndimage.gaussian_filter1d(planes, 1.0, axis=axis, order=1) for axis in (0, 1))
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    edges = [np.maximum(np.cos(a) * across + np.sin(a) * down, 0) for a in angles]
    strength = np.concatenate(edges, axis=2)
    highest = strength.max(axis=(0, 1))
    return _histograms(strength / np.where(highest > 0, highest, 1), segments, n, TEXTURE_BINS)


def _histograms(values: Numbers, segments: Whole, n: int, bins: int) -> Numbers:
    """Histograms of each segment over planes (H, W, P) in [0, 1], all planes one behind the other: (n, P * bins)."""
    found = []
    for k in range(values.shape[2]):
        place = np.minimum((values[..., k] * bins).astype(np.int64), bins - 1)
        found.append(np.bincount((segments * bins + place).ravel(), minlength=n * bins).reshape(n, bins))
    counts = np.concatenate(found, axis=1)
    shares: Numbers = counts / counts.sum(1, keepdims=True)
    return shares


def _neighbours(segments: Whole) -> set[tuple[int, int]]:
    """Pairs of segments that touch, the lower number first."""
    beside = np.concatenate(
        [
            np.stack([segments[:, :-1].ravel(), segments[:, 1:].ravel()], axis=1),
            np.stack([segments[:-1].ravel(), segments[1:].ravel()], axis=1),
        ]
    )
    beside = np.unique(np.sort(beside[beside[:, 0] != beside[:, 1]], axis=1), axis=0)
    return set(map(tuple, beside.tolist()))


def _merged(regions: _Regions, touching: set[tuple[int, int]], pixels: int) -> Whole:
    """Merge the two neighbours that are most alike until one region is left; the boxes of all that there were."""
    beside: dict[int, set[int]] = {k: set() for k in range(len(regions.size))}
    for a, b in touching:
        beside[a].add(b)
        beside[b].add(a)
    queue = [(-_likeness(regions, a, b, pixels), a, b) for a, b in touching]
    heapq.heapify(queue)
    while queue:
        _, a, b = heapq.heappop(queue)
        if a not in beside or b not in beside:
            continue  # one of them was merged since
        new = _merge(regions, a, b)
        beside[new] = (beside.pop(a) | beside.pop(b)) - {a, b}
        for other in beside[new]:
            beside[other] = beside[other] - {a, b} | {new}
            heapq.heappush(queue, (-_likeness(regions, other, new, pixels), other, new))
    return np.stack(regions.box)


def _merge(regions: _Regions, a: int, b: int) -> int:
    """Add the region that both make together; its number."""
    size_a, size_b = regions.size[a], regions.size[b]
    regions.size.append(size_a + size_b)
    regions.box.append(_around(regions.box[a], regions.box[b]))
    both = size_a * regions.histogram[a] + size_b * regions.histogram[b]
    regions.histogram.append(both / (size_a + size_b))
    return len(regions.size) - 1


def _likeness(regions: _Regions, a: int, b: int, pixels: int) -> float:
    """How alike two regions are: shared histograms, small, and filling the box around both (equations 2 to 5)."""
    shared = float(np.minimum(regions.histogram[a], regions.histogram[b]).sum())
    size = regions.size[a] + regions.size[b]
    left, top, right, low = map(int, _around(regions.box[a], regions.box[b]))
    small = 1 - size / pixels
    fills = 1 - ((right - left) * (low - top) - size) / pixels
    return shared + small + fills


def _around(a: Whole, b: Whole) -> Whole:
    """The smallest box around two."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
