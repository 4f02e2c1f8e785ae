"""How a picture file becomes what a network takes: its size, and what is subtracted and divided inside the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clearsight.errors import Refused

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocess:
    """How a picture file becomes pixels in [0, 1], and what is subtracted and divided inside the model.

    Args:
        size: (height, width) of the network's input in pixels; an int is a square, (L,) a sequence.
        mean: one number per channel, in units of pixels in [0, 1]; the number of them says grey (1) or RGB (3).
        std: one number per channel, above 0, in units of pixels in [0, 1].
        interpolation: how pictures are resized: "nearest", "bilinear" or "bicubic".
        resize: the shorter side is first resized to this many pixels, then the centre of size is cut out; None squeezes
            the whole picture to size, whatever its proportions.
        alphabet: for texts of size (L,), the characters that have a channel of their own; one more channel stands for
            all others, see `text_preprocess`.  "" for pictures.

    Refused: sides below 1 pixel, mean and std of different lengths or not finite, a std of 0 or less, another
    interpolation, a resize below the size, and an alphabet that does not fit the channels.
    """

    size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    resize: int | None = None
    alphabet: str = ""
    _constants: ClassVar[tuple[Tensor, Tensor]]  # of each: the mean and the std (C,) of float32 on the CPU

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(int(n) for n in self.size)
        object.__setattr__(self, "size", size)
        for name in ("mean", "std"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, int | float) else value
            object.__setattr__(self, name, tuple(float(v) for v in value))
        if not size or min(size) < 1:
            raise Refused(f"preprocess size {size}: give at least 1 pixel for every side")
        if len(self.mean) != len(self.std) or not self.mean:
            raise Refused(f"preprocess has {len(self.mean)} means, {len(self.std)} stds: give one of each per channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise Refused(f"preprocess mean {self.mean}, std {self.std}: give finite numbers")
        if min(self.std) <= 0:
            raise Refused(f"preprocess std {self.std}: give numbers above 0")
        if self.interpolation not in ("nearest", "bilinear", "bicubic"):
            raise Refused(f"interpolation {self.interpolation!r}: give nearest, bilinear or bicubic")
        if self.resize is not None and self.resize < max(size):
            raise Refused(f"preprocess resize {self.resize} is smaller than the size {size}: give at least that")
        if self.alphabet and (len(size) != 1 or len(self.alphabet) + 1 != self.channels):
            raise Refused(
                f"an alphabet of {len(self.alphabet)} characters, size {size} and {self.channels} channels do not fit",
                "a text has size (L,), a channel for each character, and one for all others",
            )
        if len(set(self.alphabet)) < len(self.alphabet):
            twice = next(c for c in self.alphabet if self.alphabet.count(c) > 1)
            raise Refused(f"the alphabet names {twice!r} twice: give each character once")

        # made here, not when a picture comes: what is made while a run is recorded belongs to that recording
        with torch.inference_mode(False):  # what is made in it cannot be saved for a way back
            constants = tuple(torch.tensor(v, dtype=torch.float32, device="cpu") for v in (self.mean, self.std))
        object.__setattr__(self, "_constants", constants)

    def __reduce__(self) -> tuple[type[Preprocess], tuple[Any, ...]]:
        """A copy, also in another process, is made of the fields."""
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    @property
    def channels(self) -> int:
        return len(self.mean)

    def constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the std (C,) as tensors of the type and on the device of another one."""
        if type(like) is Tensor and like.is_cpu and like.dtype == torch.float32:
            return self._constants
        return like.new_tensor(self.mean), like.new_tensor(self.std)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON files hold them; one of pictures has no alphabet."""
        return {name: value for name, value in asdict(self).items() if value or name != "alphabet"}


def normalised(preprocess: Preprocess, x: Tensor) -> Tensor:
    """Pixels x (B, C, *S) in [0, 1], the mean taken off and divided by the std."""
    fits(preprocess, x)
    if not any(preprocess.mean) and set(preprocess.std) == {1.0}:
        return x.clone()  # a first layer may work in place
    per_channel = (-1,) + (1,) * (x.dim() - 2)
    mean, std = (v.view(per_channel) for v in preprocess.constants(x))
    return (x - mean).div_(std)


def fits(preprocess: Preprocess, x: Tensor) -> None:
    """Refuse pictures of another number of channels or axes than the model takes."""
    if x.dim() != 2 + len(preprocess.size) or x.shape[1] != preprocess.channels:
        wanted = ("B", preprocess.channels, *preprocess.size)
        raise Refused(f"input of shape {tuple(x.shape)}", f"give inputs of shape ({', '.join(map(str, wanted))})")
