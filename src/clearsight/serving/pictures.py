"""From the bytes that a client sends to the pixels that the model takes: the same as `clearsight.pixels`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from clearsight.core.preprocess import Preprocess
from clearsight.data.images import TooLarge, notes, open_picture, stored_size, to_bytes
from clearsight.data.in_memory import InMemory
from clearsight.errors import Refused
from clearsight.serving.backend import Bytes
from clearsight.serving.problems import Problem

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Sent:
    """A picture as the model takes it.

    pixels (C, H, W) uint8; size: (width, height) of the picture as people see it; notes: what was done to read it.
    """

    pixels: Bytes
    size: tuple[int, int]
    notes: tuple[str, ...]


def checked_size(content: bytes, most_pixels: int) -> tuple[int, int]:
    """(width, height) as the head of a picture file states them: nothing is decoded.

    Refused: what is no picture, and pictures of more pixels.
    """
    with _told(most_pixels):
        size = stored_size(InMemory(content))
        check_pixels(size, most_pixels)
        return size


def check_pixels(size: tuple[int, int], most_pixels: int) -> None:
    """Refuse a picture (width, height) of more pixels."""
    width, height = size
    if width * height > most_pixels:
        what = f"the picture has {width} x {height} pixels"
        raise Problem(413, what, f"send at most {most_pixels / 1e6:g} million")


def decoded(
    content: bytes, preprocess: Preprocess, most_pixels: int, check: Callable[[tuple[int, int]], object] | None = None
) -> Sent:
    """A picture file, decoded, turned, resized and cut as `clearsight.pixels` does.

    check: called with (width, height) as the head of the file states them, before anything is decoded; may refuse.

    Refused: what cannot be decoded, and pictures of more pixels.
    """

    def look(size: tuple[int, int]) -> None:
        check_pixels(size, most_pixels)
        if check is not None:
            check(size)

    with _told(most_pixels):
        image = open_picture(InMemory(content), look)
        return Sent(to_bytes(image, preprocess).numpy(), image.size, notes(image))


def from_array(values: Bytes, preprocess: Preprocess) -> Sent:
    """Decoded pixels (H, W, 3), (H, W, 1) or (H, W) uint8, resized and cut as those of a file are."""
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or not values.size:
        raise Problem(400, f"a picture of shape {values.shape}", "send (height, width, 3) or (height, width, 1)")
    try:
        image = Image.fromarray(np.ascontiguousarray(values))
        return Sent(to_bytes(image, preprocess).numpy(), image.size, ())
    except Refused as e:
        raise Problem(400, str(e)) from e


def of_base64(text: object) -> bytes:
    """The bytes that base64 stands for, also where they follow "data:image/png;base64,".

    >>> of_base64("data:image/gif;base64,R0lG")
    b'GIF'
    """
    if not isinstance(text, str):
        raise Problem(400, f"a picture as {type(text).__name__}", "send the file's bytes as base64 in a string")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            400, "the picture is no base64", "send the file's bytes as base64, not its name or address"
        ) from None


def each(contents: Sequence[_In], read: Callable[[_In], _Out]) -> list[_Out]:
    """Several pictures, one after the other; the sentence says which one cannot be read."""
    sent: list[_Out] = []
    for i, content in enumerate(contents):
        try:
            sent.append(read(content))
        except Problem as e:
            if len(contents) == 1:
                raise
            raise Problem(e.status, f"picture {i} of {len(contents)}: {e.what}", e.fix) from e
    return sent


@contextmanager
def _told(most_pixels: int) -> Iterator[None]:
    """Inside, what a file is refused for becomes a problem of the request."""
    try:
        yield
    except Problem:
        raise
    except TooLarge as e:
        raise Problem(413, f"the picture is {e}", f"send at most {most_pixels / 1e6:g} million") from e
    except Refused as e:
        fix = "send a whole JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file"
        raise Problem(400, f"the picture cannot be read ({e})", fix) from e
