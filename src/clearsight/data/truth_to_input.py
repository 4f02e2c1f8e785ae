"""Boxes and class maps of a picture in the frame of the model's input, and back.

`Preprocess` squeezes the whole picture to its size, or resizes the short side and cuts out the centre; both are made of
`images.to_model`, so a box and the pixels it was drawn around stay together.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from clearsight.core.preprocess import Preprocess
from clearsight.data.annotation_formats.regions import Size
from clearsight.data.images import sources, to_model
from clearsight.data.truth_records import NOT_JUDGED, BoxTruth
from clearsight.errors import Refused


def box_to_input(boxes: Tensor, image_size: Size, preprocess: Preprocess) -> Tensor:
    """Boxes (M, 4) x0, y0, x1, y1 in the picture -> (M, 4) in the model's input, in the same type of number.

    They may lie partly or wholly outside the input where its picture is cut out of the middle; `truth_to_input` cuts
    them off.  image_size: (width, height) of the picture as people see it.

    >>> pre = Preprocess((20, 30), (0.5,), (0.5,))
    >>> box_to_input(torch.tensor([[10.0, 10, 60, 40]]), (60, 40), pre)
    tensor([[ 5.,  5., 30., 20.]])
    """
    corners = to_model(boxes.reshape(-1, 2, 2), image_size, preprocess)
    return corners.reshape(-1, 4).to(boxes.dtype)


def box_to_original(boxes: Tensor, image_size: Size, preprocess: Preprocess) -> Tensor:
    """Boxes (M, 4) in the model's input -> (M, 4) in the picture: the inverse of `box_to_input`.

    >>> pre = Preprocess((20, 30), (0.5,), (0.5,))
    >>> box_to_original(torch.tensor([[5.0, 5, 30, 20]]), (60, 40), pre)
    tensor([[10., 10., 60., 40.]])
    """
    ends = torch.tensor([[0.0, 0.0], image_size], dtype=torch.float64)
    first, last = to_model(ends, image_size, preprocess).to(boxes.device)
    corners = (boxes.reshape(-1, 2, 2).double() - first) / (last - first)
    original: Tensor = corners * corners.new_tensor(image_size)
    return original.reshape(-1, 4).to(boxes.dtype)


def truth_to_input(truth: BoxTruth, preprocess: Preprocess, *, least: float = 0.0) -> BoxTruth:
    """The objects of a picture in the frame of the model's input, cut off at its edges; areas shrink with them.

    Args:
        truth: the objects in the picture.
        preprocess: how the picture becomes the input.
        least: share of an object's box that must remain inside, from 0 to 1; others are left out, and so is what
            has no area left.

    Refused: a share outside [0, 1].
    """
    if not 0 <= least <= 1:
        raise Refused(f"least={least}: give a share from 0 to 1")
    height, width = preprocess.size
    boxes = box_to_input(truth.boxes.double(), truth.size, preprocess)
    inside = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height] * 2))
    share = _areas(inside) / _areas(boxes)
    kept = (share > 0) & (share >= least)
    scale = _areas(boxes) / _areas(truth.boxes.double())
    area = truth.area.double() * scale * share
    whole = replace(truth, boxes=inside.float(), area=area.float(), size=(width, height))
    return whole.keep(kept)


def map_to_input(classes: Tensor, preprocess: Preprocess) -> Tensor:
    """A class map (H, W) of the picture -> (h, w) int64 in the model's input: the class under each pixel's centre.

    Classes are never mixed.  255 where the input reaches beyond the picture.
    """
    height, width = classes.shape
    rows, columns = sources((width, height), preprocess)
    taken = classes[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)].long()
    beyond = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))
    return taken.masked_fill(beyond, NOT_JUDGED)


def map_to_original(classes: Tensor, image_size: Size, preprocess: Preprocess) -> Tensor:
    """A class map (h, w) of the model's input -> (H, W) int64 in the picture: the class of the nearest pixel.

    255 where the picture was cut off.  image_size: (width, height) of the picture as people see it.
    """
    width, height = image_size
    count = max(image_size)
    centres = (torch.arange(count, dtype=torch.float64) + 0.5).repeat(2, 1).T
    columns, rows = to_model(centres, image_size, preprocess).floor().long().T
    rows, columns = rows[:height], columns[:width]
    high, wide = classes.shape
    taken = classes[rows.clamp(0, high - 1)][:, columns.clamp(0, wide - 1)].long()
    beyond = ((rows < 0) | (rows >= high))[:, None] | ((columns < 0) | (columns >= wide))
    return taken.masked_fill(beyond, NOT_JUDGED)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
