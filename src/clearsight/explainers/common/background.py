"""The user's own pictures as what a picture is compared with."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import open_data
from clearsight.data.images import open_picture, to_pixels
from clearsight.errors import Refused

MOST = 64  # pictures held in memory; of more, an even spread


def background(model: Model, x: Tensor, words: str) -> Tensor:
    """(N, C, *S) in [0, 1]: the pictures that words name (a folder, a CSV, "demo"), at most 64, evenly spread.

    Refused where one of them cannot be read, and where x (B, C, *S) is not of the size of the model's preprocessing.
    """
    pictures = open_data(words).pictures
    chosen = pictures if len(pictures) <= MOST else tuple(pictures[i * len(pictures) // MOST] for i in range(MOST))
    if not chosen:
        raise Refused(f"references={words!r} holds no pictures: name a folder or a file with pictures")
    stamps = tuple((p.path, p.path.stat().st_mtime_ns) for p in chosen)
    them = _read(stamps, model.preprocess)
    if them.shape[1:] != x.shape[1:]:
        raise Refused(
            f"the preprocessing makes references of shape {tuple(them.shape[1:])}, but the explained pictures have "
            f"shape {tuple(x.shape[1:])}: leave references= out"
        )
    return them.to(x)


@functools.lru_cache(maxsize=1)
def _read(files: tuple[tuple[Path, int], ...], preprocess: Preprocess) -> Tensor:
    """Read once for all batches; a file that was changed meanwhile is read again."""
    pixels = []
    for path, _ in files:
        try:
            pixels.append(to_pixels(open_picture(path), preprocess))
        except Refused as e:
            raise Refused(f"the reference {path} cannot be read: {e}") from None
    return torch.stack(pixels)
