"""What the training of a detector or a segmenter depends on, all of it: the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from clearsight.errors import Refused
from clearsight.training.recipe_fields import (
    RANGES,
    Ranges,
    check_ranges,
    check_words,
    flag,
    is_rate,
    non_default,
    parts_of,
    read_fields,
)

Flips = Literal["across", "both", "none"]
Loss = Literal["cross-entropy", "dice", "both"]
Schedule = Literal["cosine", "one-cycle", "step", "exponential", "constant"]
OF_DETECTORS = ("least", "floor", "overlap")
OF_SEGMENTERS = ("loss",)


@dataclass(frozen=True)
class ObjectRecipe:
    """How a detector or a segmenter is trained.  What is "auto", or None where a number is due, is settled by the data.

    Args:
        arch: a detector or a segmenter, "fcos", "yolo-v1(backbone=lite0)", "fcn(stride=8)", "unet", torchvision:NAME;
            "auto" is fcos for boxes and fcn for masks.
        weights: file of weights to begin with, or "none" for random ones; None for the embedded ones of EfficientNet-
            Lite0 where that is the backbone, else random ones.
        size: longer side of the network's input in pixels, 32 to 4096; the other one keeps the proportions of most
            pictures.  None for 320, or for that of the pictures where it is shorter.
        flips: "across" mirrors left and right, "both" top and bottom as well, as fits cells or views from above.
        scale: pictures are enlarged or shrunk by up to this share, 0 to 0.9; 0.25 is a factor from 0.8 to 1.25.
        augment: augmentations of the catalogue that move no pixel, with commas between them, "none" or "auto".
        epochs: how often every picture is seen, at least 1.
        batch: number of pictures in a step, at least 1.
        optimiser: "sgd", "momentum", "nesterov", "adam", "adamw", or one of timm's.
        lr: learning rate above 0, or "auto".
        body: learning rate of a pretrained backbone, as a share of the others', 0 to 1000.
        momentum: momentum of optimisers that have one, 0 to 0.9999.
        decay: weight decay, 0 to 10.
        schedule: "cosine", "one-cycle", "step", "exponential" or "constant".
        warmup: share of the steps in which the learning rate rises, 0 to 0.9.
        clip: longest gradient of a step; 0 for any.
        ema: decay of an average over the weights of past steps, below 1; 0 for none.
        patience: epochs without a better one on val after which training stops; 0 never stops early.
        least: of a detector, pixels of the input that the shorter side of an object must have to be learned.
        floor: of a detector, lowest score of a box that is reported, 0 to 1.
        overlap: of a detector, largest IoU of two reported boxes of one class, 0 to 1.
        loss: of a segmenter, "cross-entropy", "dice", or "both", which is their sum.
        shares: shares of train, val and test, which sum to 1, if the data has no splits of its own.
        seed: start of all randomness.
        split_seed: seed of the split alone; None for the seed of everything.

    Refused: values out of range, and words that are none of those named here.
    """

    arch: str = "auto"
    weights: str | None = None
    size: int | None = None
    flips: Flips = "across"
    scale: float = 0.25
    augment: str = "auto"
    epochs: int | None = None
    batch: int = 8
    optimiser: str = "adamw"
    lr: str = "auto"
    body: float = 0.2
    momentum: float = 0.9
    decay: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    clip: float = 10.0
    ema: float = 0.99
    patience: int = 0
    least: float = 3.0
    floor: float = 0.05
    overlap: float = 0.5
    loss: Loss = "cross-entropy"
    shares: str = "0.7,0.15,0.15"
    seed: int = 0
    split_seed: int | None = None

    def __post_init__(self) -> None:
        check_words(self, {"flips": Flips, "loss": Loss, "schedule": Schedule})
        check_ranges(self, _RANGES)
        if self.lr != "auto" and not is_rate(self.lr):
            raise Refused(f"lr {self.lr!r}: a number above 0 and at most 1e30 such as 0.001, or auto")
        self.parts()

    def parts(self) -> tuple[float, float, float]:
        """The shares of train, val and test."""
        return parts_of(self.shares)

    def divides(self) -> int:
        """The seed that says which pictures are in which part."""
        return self.seed if self.split_seed is None else self.split_seed

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_RANGES: Ranges = {
    **RANGES, "size": (32, 4096), "scale": (0, 0.9), "least": (0, 4096), "floor": (0, 1), "overlap": (0, 1),
}  # fmt: skip


def of_options(given: Mapping[str, Any]) -> ObjectRecipe:
    """The recipe of options that were given by their names, of which some are of the recipe of classifiers alone.

    Refused: those, by name.

    >>> of_options({"epochs": 3}).epochs
    3
    """
    known = {f.name for f in fields(ObjectRecipe)}
    if foreign := [name for name in given if name not in known]:
        raise Refused(
            f"{', '.join(map(flag, foreign))}: of the training of classifiers, not of detectors and segmenters",
            "leave it out; defences, guides and rebalancing are for classifiers",
        )
    return ObjectRecipe(**given)


def refuse_other_kinds(recipe: ObjectRecipe, kind: str) -> None:
    """Refuse fields that are of the other kind alone and were given."""
    others, other = (OF_SEGMENTERS, "segmenter") if kind == "detector" else (OF_DETECTORS, "detector")
    if wrong := [name for name in non_default(recipe) if name in others]:
        raise Refused(f"{flag(wrong[0])} is of a {other}, and what is trained is a {kind}: leave it out")


def read_object_recipe(path: Path) -> tuple[ObjectRecipe, list[str], ObjectRecipe]:
    """The recipe that a run folder was made by, why its automatic values are what they are, and what was asked for.

    Refused: a file that is no such recipe.
    """

    def written_here(written: Mapping[str, Any]) -> dict[str, Any]:
        if "strategy" in written:
            raise Refused(f"{path} is of a classifier: train it on with pictures in class folders")
        return dict(written)

    return read_fields(path, ObjectRecipe, written_here)
