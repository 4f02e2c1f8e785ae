"""What `clearsight demo detection` works on, measures and tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.core.boxes import iou_table
from clearsight.core.classifier import Classifier
from clearsight.core.text import counted
from clearsight.data.images import of_bytes
from clearsight.demos import region_detectors as ways
from clearsight.demos.region_detectors import Found

FLOOR, OVERLAP, MOST = 0.5, 0.3, 5  # lowest probability of a box, R-CNN's suppression, boxes that are shown


@dataclass(frozen=True)
class Stage:
    """One way to find objects, as it was run.

    Args:
        name: what it is called.
        boxes: number of boxes that it judges.
        passes: number of pictures or crops that went through the backbone.
        megapixels: millions of pixels in them.
        proposing: seconds until the boxes were there.
        judging: seconds until they were judged.
        published: seconds a picture in its paper, in words; "" without one.
        trained: whether its weights know anything: otherwise its boxes are of no use, and only its cost counts.
        best: highest IoU of any of its boxes with the object that a person drew; None without one.
        found: the surest boxes.
    """

    name: str
    boxes: int
    passes: int
    megapixels: float
    proposing: float
    judging: float
    published: str
    trained: bool
    best: float | None
    found: tuple[Found, ...] = ()

    @property
    def seconds(self) -> float:
        """In all."""
        return self.proposing + self.judging


@dataclass(frozen=True)
class DetectionDemo:
    """What ``clearsight demo detection`` measured.

    Args:
        picture: name of the picture.
        size: its width and height in pixels.
        stages: the five ways, from the oldest.
        agree: share of the proposals to which R-CNN and Fast R-CNN give one class.
        page: the page, index.html.
    """

    picture: str
    size: tuple[int, int]
    stages: tuple[Stage, ...]
    agree: float
    page: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        stages = [asdict(s) | {"seconds": s.seconds} for s in self.stages]
        return {
            "picture": self.picture,
            "size": list(self.size),
            "stages": stages,
            "agree": self.agree,
            "page": str(self.page),
        }

    def lines(self) -> list[str]:
        """The same for the terminal."""
        return [*(told(s, self.stage("R-CNN")) for s in self.stages), self.verdict, str(self.page)]

    @property
    def verdict(self) -> str:
        """What is to be learnt, in one sentence."""
        slow, fast, shot = (self.stage(name) for name in ("R-CNN", "Fast R-CNN", "One shot"))
        return (
            f"{counted(slow.boxes, 'proposal')} cost R-CNN {counted(slow.passes, 'pass', 'passes')} and "
            f"{slow.judging:.1f} s; Fast R-CNN reads all of them from one pass in {fast.judging:.1f} s; one shot needs "
            f"no proposals and {shot.seconds:.1f} s."
        )

    def stage(self, name: str) -> Stage:
        """The stage of a name."""
        return next(s for s in self.stages if s.name == name)


def told(stage: Stage, slow: Stage) -> str:
    """A stage in a line: passes, seconds, and how many times R-CNN's seconds that saves."""
    ratio = slow.seconds / stage.seconds
    words = f"{stage.name}: {counted(stage.boxes, 'box', 'boxes')}, {counted(stage.passes, 'pass', 'passes')}, "
    words += f"{stage.seconds:.2f} s, {ratio:.1f} times R-CNN's speed"
    if not stage.trained:
        return words + "; untrained, so only its cost counts"
    found = ", ".join(f"{f.label} {100 * f.probability:.0f} %" for f in stage.found[:3])
    return f"{words}; finds {found or 'nothing'}"


@dataclass
class Setting:
    """What all stages work on: the picture as pixels (1, 3, H, W), enlarged, and the object that a person drew."""

    model: Classifier
    name: str
    values: Any  # (H, W, 3) uint8
    truth: Tensor  # (K, 4) in its pixels
    seed: int
    x: Tensor = field(init=False)
    large: Tensor = field(init=False)
    scale: Tensor = field(init=False)  # from its pixels to those of the enlarged picture

    def __post_init__(self) -> None:
        self.x = of_bytes(torch.from_numpy(self.values.copy())).permute(2, 0, 1)[None].contiguous()
        self.large = ways.enlarged(self.x)
        high, wide = (self.large.shape[k] / self.x.shape[k] for k in (2, 3))
        self.scale = torch.tensor([wide, high, wide, high])

    def best(self, boxes: Tensor) -> float | None:
        """The highest IoU of any of the boxes with an object."""
        if not len(self.truth):
            return None
        return float(iou_table(boxes, self.truth).max()) if len(boxes) else 0.0

    def found(self, boxes: Tensor, probabilities: Tensor) -> tuple[Found, ...]:
        return tuple(ways.surest(self.model, boxes, probabilities, FLOOR, OVERLAP, MOST))


@dataclass(frozen=True)
class Run:
    """All that was measured, with the boxes to draw."""

    setting: Setting
    windows: Tensor
    proposals: Tensor
    regions: Tensor  # that the untrained network proposes
    stages: tuple[Stage, ...]
    agree: float
