"""The score of a set of pixels as a target: what is explained in a segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from clearsight.core.targets import Rows
from clearsight.errors import Refused, nearest

RegionOf = Literal["logit", "prob", "log-prob", "margin"]


@dataclass(frozen=True, eq=False)
class RegionScore:
    """The mean score that the pixels of a region are of a class, as a target: logits (B, K, H, W) -> (B,).

    The region stays as it is given: one that followed the answer would move while the picture changes.

    Args:
        classes: (B,) number of the class.
        regions: bool (B, H, W), true on the pixels that count; at least one in each picture.
        of: "logit", "prob" (the probability after softmax), "log-prob" (its logarithm) or "margin" (the logit less that
            of the best other class, pixel by pixel).

    Refused: classes and regions of different numbers, regions without a pixel, another score.

    Source: Vinogradova et al. 2020, arXiv:2002.11434, equation 2, which sums; the mean does not favour large regions.

    >>> logits = torch.zeros(1, 2, 2, 2)
    >>> logits[0, 1, 0] = 3
    >>> RegionScore(torch.tensor([1]), torch.tensor([[[True, False], [True, False]]]))(logits).item()
    1.5
    """

    classes: Tensor
    regions: Tensor
    of: RegionOf = "logit"

    kind: ClassVar[str] = "segmenter"

    def __post_init__(self) -> None:
        fits = self.regions.dim() == 3 and self.regions.dtype == torch.bool
        if not fits or self.classes.shape != self.regions.shape[:1]:
            raise Refused(
                f"regions {self.regions.dtype} {tuple(self.regions.shape)} and classes {tuple(self.classes.shape)}",
                "give one bool region (B, H, W) and one class (B,) for each picture",
            )
        if not bool(self.regions.flatten(1).any(1).all()):
            raise Refused("a region has no pixel: give at least one for each picture")
        if self.of not in get_args(RegionOf):
            raise Refused(f"a region's score {self.of!r}: {nearest(str(self.of), get_args(RegionOf))}")

    def __call__(self, outputs: Tensor) -> Tensor:
        check_map(outputs, self.regions)
        if len(self.classes) and int(self.classes.max()) >= outputs.shape[1]:
            raise Refused(f"class {int(self.classes.max())}: this model has classes 0 to {outputs.shape[1] - 1}")
        index = self.classes.to(outputs.device)[:, None, None, None].expand(-1, 1, *outputs.shape[2:])
        scores = outputs.softmax(1) if self.of == "prob" else outputs
        value = (outputs.log_softmax(1) if self.of == "log-prob" else scores).gather(1, index)[:, 0]
        if self.of == "margin":
            value = value - outputs.scatter(1, index, -torch.inf).amax(1)
        inside = self.regions.to(outputs.device)
        return torch.where(inside, value, 0).flatten(1).sum(1) / inside.flatten(1).sum(1)

    def __getitem__(self, rows: Rows) -> RegionScore:
        return RegionScore(self.classes[rows], self.regions[rows], self.of)

    def words(self, labels: tuple[str, ...]) -> list[str]:
        sizes = self.regions.flatten(1).sum(1).tolist()
        said = "{} rather than any other" if self.of == "margin" else f"{self.of} of {{}}"
        each = zip(self.classes.tolist(), sizes, strict=True)
        return [f"{said.format(labels[k])} on {n} pixels" for k, n in each]


def check_map(outputs: Tensor, per_pixel: Tensor) -> None:
    """Refuse outputs that are not a segmenter's logits (B, K, H, W), or of another size than (B, H, W)."""
    if outputs.dim() != 4:
        raise Refused(
            f"outputs {tuple(outputs.shape)} are not those of a segmenter, (B, K, H, W)",
            "regions are explained and attacked in a Segmenter",
        )
    if (outputs.shape[0], *outputs.shape[2:]) != tuple(per_pixel.shape):
        raise Refused(
            f"regions {tuple(per_pixel.shape)} do not fit outputs {tuple(outputs.shape)}: give one (H, W) per picture"
        )
