"""The pictures of a command with what its model is judged by: labels, boxes or class maps."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from clearsight.cli.inputs import open_pictures
from clearsight.cli.options import DataOptions
from clearsight.errors import Refused

if TYPE_CHECKING:
    from clearsight.core.model import Model
    from clearsight.data.datasets import Pictures

_TRUTH = {"detector": "boxes", "segmenter": "masks"}


def open_for(model: Model, data: str, given: DataOptions) -> Pictures:
    """The pictures that the words name, with the truth that this kind of model is judged by.

    Refused: the demo for a detector or a segmenter, options of pictures with a class, and masks for a detector.
    """
    if model.kind == "classifier":
        return open_pictures(data, given)
    from clearsight.data.box_folders import open_boxes
    from clearsight.data.mask_folders import open_masks

    if data.partition(":")[0] == "demo":
        raise Refused(f"the demo has no truth for a {model.kind}: give a folder of pictures with annotations")
    taken = ("boxes", "voc_base", "split") if model.kind == "detector" else ("masks", "split")
    strange = [name for name, value in asdict(given).items() if value is not None and name not in taken]
    if strange:
        option = f"--{strange[0].replace('_', '-')}"
        raise Refused(f"{option} says nothing of what a {model.kind} is to find: give --{_TRUTH[model.kind]}")
    if model.kind == "detector":
        return open_boxes(data, given.boxes, split=given.split, voc_base=given.voc_base)
    return open_masks(data, given.masks, split=given.split)


def open_to_compare(model: Model, data: str, given: DataOptions) -> Pictures:
    """The pictures that the words name, on which two answers are compared; with boxes or masks where they are named.

    Refused: as `open_for`, but not pictures without a truth.
    """
    named = given.boxes if model.kind == "detector" else given.masks
    if model.kind == "classifier" or named is not None:
        return open_for(model, data, given)
    return open_pictures(data, given)
