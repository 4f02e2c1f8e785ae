"""The trace of a picture by which duplicates are found, and the difference of two traces."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

Floats = NDArray[np.float32]

SMALLEST = 32  # pixels of the short side, below which pictures are compared exactly alone
PLAIN = 6.0  # of 255: standard deviation of the colours, below which too
ALIKE = 0.9  # correlation of 48 x 48 colours, when laid on each other
PLACE = 0.5  # standard deviations by which no place, one of 8 x 8, may differ in any colour
SIDE, ROUGH, LAID = 48, 8, 24
CUTS = (0.03, 0.06, 0.09)


@dataclass(frozen=True)
class Trace:
    """The 9 kB of a picture that are compared with those of others.

    pixels: a digest of its size and all its colours.  bits (2, 64) of -1 and 1: its hash and that of its mirror image.
    colours (48, 48, 3): the whole picture made small.  telling: large and rich enough to be compared with others.
    """

    pixels: bytes
    bits: NDArray[np.int8]
    colours: NDArray[np.uint8]
    telling: bool


def trace(image: Image.Image) -> Trace:
    """The trace of a picture as `open_picture` gives it."""
    colour = image.convert("RGB")
    digest = hashlib.sha256(f"{image.size}".encode() + colour.tobytes()).digest()
    middle = np.asarray(colour.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR), dtype=np.float64)
    colours = middle.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    grey = middle.reshape(32, 3, 32, 3, 3).mean((1, 3)) @ (0.299, 0.587, 0.114)
    telling = min(image.size) >= SMALLEST and bool((colours - colours.mean((0, 1))).std() >= PLAIN)
    return Trace(digest, phash(grey), colours.round().astype(np.uint8), telling)


def phash(grey: NDArray[np.float64]) -> NDArray[np.int8]:
    """(32, 32) grey -> (2, 64) of -1 and 1: its low cosine frequencies against their median, and the mirror image's.

    The mirror image has the same frequencies, the odd ones along its rows with the other sign.  The first is the
    mean, and counts as 1.

    >>> ramp = np.arange(32.0)[None] + np.zeros((32, 1))
    >>> phash(ramp)[:, :3].tolist(), int((phash(ramp)[1] == phash(ramp[:, ::-1])[0]).sum())
    ([[1, -1, 1], [1, 1, 1]], 64)
    """
    waves = dctn(grey, norm="ortho")[:8, :8]
    both = np.stack([waves, waves * (-1.0) ** np.arange(8)]).reshape(2, 64)
    both[np.abs(both) < 1e-6 * 255] = 0  # what is nothing but rounding
    bits = np.where(both >= np.median(both[:, 1:], axis=1, keepdims=True), 1, -1).astype(np.int8)
    bits[:, 0] = 1
    return bits


def rough(colours: NDArray[np.uint8]) -> Floats:
    """(48, 48, 3) -> (8, 8, 3) of mean 0 and length 1, so that a product is a correlation."""
    small = colours.reshape(ROUGH, SIDE // ROUGH, ROUGH, SIDE // ROUGH, 3).mean((1, 3), dtype=np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), dtype=np.float32)


def difference(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> float | None:
    """The largest difference of two pictures in any place, in standard deviations; None where they are not duplicates.

    a, b: colours (48, 48, 3) and their cut versions.  One is cut as it fits the other best.
    """
    (x, of_x), (y, of_y) = a, b
    on_y, on_x = of_x @ of_y[0], of_y @ of_x[0]
    if on_y.max() >= on_x.max():
        x = _cut_version(x, int(on_y.argmax()))
    else:
        y = _cut_version(y, int(on_x.argmax()))
    x, y = ((z - z.mean()) / max(float(z.std()), 1e-6) for z in (x, y))
    if float((x * y).mean()) < ALIKE:
        return None
    places = (x - y).reshape(ROUGH, SIDE // ROUGH, ROUGH, SIDE // ROUGH, 3).mean((1, 3))
    distance = float(np.abs(places).max())
    return distance if distance <= PLACE else None


def _windows(out: int) -> Floats:
    """(10, out, 48): the whole side, and the sides less 3, 6 and 9 % from start, middle and end, as means."""
    sides = [(0.0, 1.0)] + [(at * cut, 1 - cut) for cut in CUTS for at in (0, 0.5, 1)]
    edges = np.array([SIDE * (first + length * np.arange(out + 1) / out) for first, length in sides])
    low, high, pixel = edges[:, :-1, None], edges[:, 1:, None], np.arange(SIDE)
    shared = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(shared / shared.sum(2, keepdims=True), dtype=np.float32)


_SMALL, _WHOLE = _windows(LAID), _windows(SIDE)
_USED = [(0, 0)] + [(3 * c + y + 1, 3 * c + x + 1) for c in range(len(CUTS)) for y in range(3) for x in range(3)]


def versions(colours: NDArray[np.uint8]) -> Floats:
    """(28, 576): the picture in grey, whole and cut, each of mean 0 and length 1."""
    grey = colours.mean(2, dtype=np.float32)
    flat = np.stack([_SMALL[y] @ grey @ _SMALL[x].T for y, x in _USED]).reshape(len(_USED), -1)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _cut_version(colours: Floats, version: int) -> Floats:
    y, x = _USED[version]
    return np.asarray(np.einsum("ij,jkc,lk->ilc", _WHOLE[y], colours, _WHOLE[x], optimize=True), dtype=np.float32)
