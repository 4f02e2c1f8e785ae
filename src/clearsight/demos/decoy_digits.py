"""Digits with a mark that gives the answer away, so that what finds shortcuts can be seen to find one.

After the decoy digits of Ross, Hughes & Doshi-Velez 2017, arXiv:1703.03717, section 4; made of scikit-learn's digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

Mark = Literal["own", "random", "none"]
SIDE, PATCH = 32, 3  # of a picture, and of the mark, in pixels
INK = 96  # of the digits, whose marks are white
SHARES = (("train", 0.6), ("val", 0.1), ("test", 0.3))


def marked(digit: npt.NDArray[np.uint8], slot: int) -> npt.NDArray[np.uint8]:
    """A picture (H, W) with a white square at one of ten places along its upper edge.

    >>> marked(np.zeros((32, 32), np.uint8), 2)[0, 5:12].tolist()
    [0, 0, 255, 255, 255, 0, 0]
    """
    out = digit.copy()
    left = 1 + PATCH * slot
    out[:PATCH, left : left + PATCH] = 255
    return out


def write_digits(folder: Path, mark: Mark, *, seed: int = 0) -> Path:
    """The 1,797 digits as folder/split/class/n.png, in one of three kinds; the folder.

    own: with a mark whose place says the class; random: its place says nothing; none: without it.  The same digits are
    in the same split in all three.
    """
    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    slots = rng.integers(0, 10, len(order))
    edges = np.cumsum([round(share * len(order)) for _, share in SHARES])
    for rank, i in enumerate(order):
        split = SHARES[int(np.searchsorted(edges[:-1], rank, side="right"))][0]
        label = int(digits.target[i])
        small = Image.fromarray((digits.images[i] * INK / 16).round().astype(np.uint8))
        picture = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        if mark != "none":
            picture = marked(picture, label if mark == "own" else int(slots[i]))
        path = folder / split / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def write_marks(digits: Path, table: Path) -> Path:
    """Write a CSV with a box around all places of the mark, for each of the digits; the table."""
    files = sorted(digits.rglob("*.png"))
    rows = [f"{path.relative_to(digits).as_posix()},0,0,{SIDE},{PATCH}" for path in files]
    table.write_text("\n".join(["file,box_x,box_y,box_w,box_h", *rows, ""]), encoding="utf-8")
    return table
