"""What a detector can be built for and trained on, told before anything is computed."""

from __future__ import annotations

import math

from torch import Tensor

from clearsight.errors import Refused


def check_shape(name: str, classes: int, shape: tuple[int, ...], least: int, *, colours: bool = False) -> None:
    """Refuse fewer than one class, what is no picture (C, H, W) of at least so many pixels, and other than 3 channels.

    colours: whether the network takes 3 channels alone.
    """
    if classes < 1:
        raise Refused(f"{name} with {classes} classes: it needs at least 1, background not counted")
    if len(shape) != 3 or min(shape) < 1:
        raise Refused(f"{name} takes pictures (channels, height, width), not an input of shape {shape}")
    if colours and shape[0] != 3:
        raise Refused(f"{name} takes 3 channels, not {shape[0]}: fcos takes any number")
    if min(shape[1:]) < least:
        given = " x ".join(map(str, shape[1:]))
        raise Refused(f"{name} needs inputs of at least {least} x {least}, not {given}: use larger inputs")


def check_option(name: str, option: str, value: float, lowest: float, below: float = math.inf) -> None:
    """Refuse an option that is less than lowest, or not less than ``below``."""
    if not lowest <= value < below:
        end = "" if below == math.inf else f" and below {below:g}"
        raise Refused(f"{name}({option}={value:g}): it must be at least {lowest:g}{end}")


def check_truth(z: Tensor, boxes: list[Tensor], labels: list[Tensor], classes: int) -> None:
    """Refuse boxes and labels that are not one list per picture, boxes without area, and labels that are no class."""
    if not len(z) == len(boxes) == len(labels):
        counts = f"{len(z)} pictures, {len(boxes)} tensors of boxes and {len(labels)} of labels"
        raise Refused(f"{counts}: give one of each per picture")
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if box.ndim != 2 or box.shape[1] != 4 or label.shape != box.shape[:1]:
            raise Refused(
                f"picture {i} has boxes of shape {tuple(box.shape)} and labels of shape {tuple(label.shape)}: give "
                "boxes (M, 4) and labels (M,), of an empty picture (0, 4) and (0,)"
            )
        flat = ~((box[:, 2:] > box[:, :2]).all(1) & box.isfinite().all(1))
        if bool(flat.any()):
            bad = box[flat][0].tolist()
            raise Refused(f"picture {i} has the box {bad}, which has no area: give x1 < x2 and y1 < y2, in pixels")
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < classes:
            raise Refused(
                f"picture {i} has labels from {int(label.min())} to {int(label.max())}: with {classes} classes they "
                f"are 0 to {classes - 1}, and background has none"
            )
