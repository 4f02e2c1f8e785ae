"""MNIST's idx files as a folder of pictures, which is what every command takes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PARTS = {"train": "train", "test": "t10k"}


def digits(data: Path, folder: Path, each: int | None = None) -> Path:
    """Write part/class/N.png for the files in data, once; each: the first so many digits of a class in each part."""
    if not (folder / "done").exists():
        for part, stem in PARTS.items():
            x, y = idx(next(data.glob(f"{stem}-images*"))), idx(next(data.glob(f"{stem}-labels*")))
            for k in range(10):
                (folder / part / str(k)).mkdir(parents=True, exist_ok=True)
                for i in np.nonzero(y == k)[0][:each]:
                    Image.fromarray(x[i]).save(folder / part / str(k) / f"{i}.png", compress_level=1)
        (folder / "done").touch()
    return folder


def idx(path: Path) -> Any:
    """The array in an idx file, packed or not."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
