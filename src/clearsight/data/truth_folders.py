"""Open pictures with the truth for a detector or for a segmenter, whichever the user has."""

from __future__ import annotations

from pathlib import Path

from clearsight.data.box_folders import open_boxes
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Pictures
from clearsight.errors import Refused


def open_truth(
    path: str | Path,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """`open_masks` where masks are given, else `open_boxes`.

    Refused: both, and voc_base with masks.
    """
    if boxes is not None and masks is not None:
        raise Refused("boxes and masks are both given: give one of them")
    if masks is None:
        return open_boxes(path, boxes, split=split, voc_base=voc_base)
    if voc_base is not None:
        raise Refused("voc_base is for boxes of Pascal VOC: give boxes, or leave it out")
    return open_masks(path, masks, split=split)
