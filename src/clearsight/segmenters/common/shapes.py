"""What a segmenter refuses before it is built, and a map brought to the size of another."""

from __future__ import annotations

from torch import Tensor

from clearsight.errors import Refused


def check_shape(name: str, classes: int, shape: tuple[int, ...], least: int) -> None:
    """Refused: fewer than one class, what is no picture (channels, height, width), and sides below least pixels."""
    if classes < 1:
        raise Refused(f"{name} with {classes} classes: it needs at least 1")
    if len(shape) != 3 or min(shape) < 1:
        raise Refused(f"{name} takes pictures (channels, height, width), not an input of shape {shape}")
    if min(shape[1:]) < least:
        given = " x ".join(map(str, shape[1:]))
        raise Refused(f"{name} needs pictures of at least {least} x {least}, not {given}: use larger pictures")


def check_channels(name: str, shape: tuple[int, ...]) -> None:
    """Refused: pictures of other than three channels."""
    if shape[0] != 3:
        raise Refused(f"{name} takes 3 channels, not {shape[0]}: torchvision's networks take no other number")


def check_range(name: str, lowest: int, highest: int, **options: int) -> None:
    """Refused: an option outside its range, both ends allowed."""
    for option, value in options.items():
        if not lowest <= value <= highest:
            raise Refused(f"{name}({option}={value}): it must be from {lowest} to {highest}")


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The upper left part of maps x (..., h, w), as large as like (..., h, w).

    Strides round the sides of maps up, so a map that was doubled is as large as the finer one or one place larger.
    """
    return x[..., : like.shape[-2], : like.shape[-1]]
