"""What an attack on a segmenter is for: that pixels are taken for something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clearsight.core.targets import Rows
from clearsight.errors import Refused
from clearsight.kinds.region_targets import check_map

UNJUDGED = 255  # the class of pixels that do not count


@dataclass(frozen=True, eq=False)
class PixelsBecome:
    """The goal that the pixels of a region are taken for classes of the attacker's choice.

    loss: the mean cross entropy of the wanted classes.

    Args:
        wanted: (B, H, W) classes, 255 where a pixel does not count; at least one of each picture does.
        share: share of the pixels that count which must be taken for what is wanted, above 0 to 1.

    Refused: classes of another shape or that the model does not have, pictures of which no pixel counts, a share
    outside its range.
    """

    wanted: Tensor
    share: float = 0.9

    kind: ClassVar[str] = "segmenter"

    def __post_init__(self) -> None:
        _check(self.wanted, self.share)

    def loss(self, outputs: Tensor) -> Tensor:
        return mean_cross_entropy(outputs, self.wanted)

    def met(self, outputs: Tensor) -> Tensor:
        return right_share(outputs, self.wanted) >= self.share

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether the goal is met with the logits of the wanted classes lower by a share of the largest logit."""
        return self.met(_shifted(outputs, self.wanted, -rounding))

    def __getitem__(self, rows: Rows) -> PixelsBecome:
        return PixelsBecome(self.wanted[rows], self.share)


@dataclass(frozen=True, eq=False)
class PixelsMisread:
    """The goal that pixels are taken for anything but what they show.

    loss: less the mean cross entropy of the right classes.

    Args:
        y: (B, H, W) right classes, 255 where a pixel does not count; at least one of each picture does.
        share: share of the pixels that count which must be misread, above 0 to 1.

    Refused: classes of another shape or that the model does not have, pictures of which no pixel counts, a share
    outside its range.
    """

    y: Tensor
    share: float = 0.9

    kind: ClassVar[str] = "segmenter"

    def __post_init__(self) -> None:
        _check(self.y, self.share)

    def loss(self, outputs: Tensor) -> Tensor:
        return -mean_cross_entropy(outputs, self.y)

    def met(self, outputs: Tensor) -> Tensor:
        return misread_share(outputs, self.y) >= self.share

    def surely(self, outputs: Tensor, rounding: float) -> Tensor:
        """Whether the goal is met with the logits of the right classes higher by a share of the largest logit."""
        return self.met(_shifted(outputs, self.y, rounding))

    def __getitem__(self, rows: Rows) -> PixelsMisread:
        return PixelsMisread(self.y[rows], self.share)


def right_share(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of the pixels that count whose class is y, (B,), from logits (B, K, H, W)."""
    return _share_where(outputs, y, right=True)


def misread_share(outputs: Tensor, y: Tensor) -> Tensor:
    """The share of the pixels that count whose class is not y, (B,), from logits (B, K, H, W)."""
    return _share_where(outputs, y, right=False)


def _share_where(outputs: Tensor, y: Tensor, *, right: bool) -> Tensor:
    y = classes_on(outputs, y)
    counts = y != UNJUDGED
    those = ((outputs.argmax(1) == y) == right) & counts
    return those.flatten(1).sum(1) / counts.flatten(1).sum(1)


def mean_cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean over the pixels that count of the cross entropy, (B,), from logits (B, K, H, W)."""
    y = classes_on(outputs, y)
    return cross_entropies(outputs, y).flatten(1).sum(1) / (y != UNJUDGED).flatten(1).sum(1)


def cross_entropies(outputs: Tensor, y: Tensor) -> Tensor:
    """The cross entropy of every pixel, (B, H, W), from logits (B, K, H, W); 0 where y is 255."""
    return nn.functional.cross_entropy(outputs, y, ignore_index=UNJUDGED, reduction="none")


def classes_on(outputs: Tensor, y: Tensor) -> Tensor:
    """The classes y (B, H, W) beside the outputs (B, K, H, W).

    Refused: another size, and classes that the model does not have.
    """
    check_map(outputs, y)
    beyond = ((y < 0) | (y >= outputs.shape[1])) & (y != UNJUDGED)
    if bool(beyond.any()):
        raise Refused(
            f"class {int(y[beyond][0])} of a pixel: this model has classes 0 to {outputs.shape[1] - 1}",
            "255 stands for pixels that do not count",
        )
    return y.to(outputs.device)


def _shifted(outputs: Tensor, y: Tensor, share: float) -> Tensor:
    """The logits (B, K, H, W) with those of the classes y changed by a share of each picture's largest."""
    y = classes_on(outputs, y)
    by = share * outputs.flatten(1).abs().amax(1)
    index = y.masked_fill(y == UNJUDGED, 0)[:, None]
    return outputs.scatter_add(1, index, by.view(-1, 1, 1, 1).expand(index.shape))


def _check(y: Tensor, share: float) -> None:
    if y.dim() != 3 or y.dtype != torch.int64:
        raise Refused(f"classes of pixels are {y.dtype} {tuple(y.shape)}: give int64 (B, H, W)")
    if not bool((y != UNJUDGED).flatten(1).any(1).all()):
        raise Refused("a picture has no pixel that counts (all are 255): leave it out")
    if not 0 < share <= 1:
        raise Refused(f"share {share:g}: give more than 0 and at most 1")
