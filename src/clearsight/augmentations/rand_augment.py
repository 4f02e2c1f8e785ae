"""Cubuk, Zoph, Shlens & Le 2019, arXiv:1909.13719, section 3; the strengths are those of torchvision's RandAugment."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.augmentations.common.draws import chances, within
from clearsight.augmentations.common.geometry import moved
from clearsight.core.catalogue import method
from clearsight.core.torchvision_v2 import F

GREATEST = 30  # magnitude


@dataclass(frozen=True)
class Operation:
    """What is done to one picture (C, H, W) with a strength: at the greatest magnitude, and whether it has a sign."""

    apply: Callable[[Tensor, float], Tensor]
    most: float = 0.0
    signed: bool = False

    @property
    def graded(self) -> bool:
        return self.most > 0


def _slant(share: float) -> float:
    """Pixels to the side per pixel, as an angle."""
    return math.degrees(math.atan(share))


OPERATIONS = {
    "identity": Operation(lambda x, _: x),
    "shear-x": Operation(lambda x, s: moved(x, shear=(_slant(s), 0), corner=True), 0.3, signed=True),
    "shear-y": Operation(lambda x, s: moved(x, shear=(0, _slant(s)), corner=True), 0.3, signed=True),
    "translate-x": Operation(lambda x, s: moved(x, right=s * x.shape[2]), 150 / 331, signed=True),
    "translate-y": Operation(lambda x, s: moved(x, down=s * x.shape[1]), 150 / 331, signed=True),
    "rotate": Operation(lambda x, s: moved(x, angle=-s), 30.0, signed=True),
    "brightness": Operation(lambda x, s: F.adjust_brightness(x, 1 + s), 0.9, signed=True),
    "colour": Operation(lambda x, s: F.adjust_saturation(x, 1 + s), 0.9, signed=True),
    "contrast": Operation(lambda x, s: F.adjust_contrast(x, 1 + s), 0.9, signed=True),
    "sharpness": Operation(lambda x, s: F.adjust_sharpness(x, 1 + s), 0.9, signed=True),
    "posterize": Operation(lambda x, s: F.posterize(x, 8 - round(s)), 4.0),
    "solarize": Operation(lambda x, s: F.solarize(x, 1 - s), 1.0),
    "auto-contrast": Operation(lambda x, _: F.autocontrast(x)),
    "equalize": Operation(lambda x, _: F.equalize(x)),
}


@method(paper="arXiv:1909.13719", claims="moves recolours")
def rand_augment(x: Tensor, y: Tensor, *, operations: int = 2, magnitude: int = 9) -> tuple[Tensor, Tensor]:
    """Apply a few of fourteen operations one after the other, with one magnitude.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    The operations are drawn for each picture, and one may be drawn more than once.  The sign of an operation that has
    two directions is random.  The result is resampled bilinearly; what comes in from outside the picture gets the
    picture's mean colour.

    Args:
        operations: number of operations drawn for each picture, 0 to 100.
        magnitude: strength from 0 to 30, and in proportion in between.  At 0 only auto-contrast and equalize change
            anything.  At 30: shears by 0.3 pixels per pixel, translations by 150/331 of the side, rotations by 30
            degrees, factors of 0.1 or 1.9 of brightness, colour, contrast and sharpness, 4 bits per channel, everything
            solarized.

    Refused: options outside their ranges.

    Without operations nothing happens:

    >>> rand_augment(torch.tensor([[[[0.0, 0.5]]]]), torch.ones(1, 1), operations=0)[0].tolist()
    [[[[0.0, 0.5]]]]
    """
    within(0, 100, operations=operations)
    within(0, GREATEST, magnitude=magnitude)
    table = list(OPERATIONS.values())
    out = []
    for picture, row in zip(x, chances(x, 2 * operations).tolist(), strict=True):
        for which, sign in zip(row[::2], row[1::2], strict=True):
            operation = table[int(which * len(table))]
            strength = operation.most * magnitude / GREATEST
            if strength or not operation.graded:
                picture = operation.apply(picture, -strength if operation.signed and sign < 0.5 else strength)
        out.append(picture)
    return torch.stack(out), y
