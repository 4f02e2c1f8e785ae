"""What a detector or a segmenter is trained with, a loss, and what it is judged by: AP50 or mean IoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture
from clearsight.data.truth_to_input import box_to_original, map_to_original
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.pixels import PixelCounts
from clearsight.evaluation.records import BoxSet, box_set, picture_boxes
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.segmenters.common.losses import cross_entropy, dice
from clearsight.training.batches import Store

MEASURES = {"detector": "AP50", "segmenter": "mean IoU"}


def detector_loss(net: nn.Module, z: Tensor, truths: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of the network's losses for normalised pictures z (B, C, H, W) and the boxes and labels of each."""
    boxes, labels = [b.to(z.device) for b, _ in truths], [k.to(z.device) for _, k in truths]
    losses: dict[str, Tensor] = net.loss(z, boxes, labels)  # type: ignore[operator]
    return torch.stack([*losses.values()]).sum()


def segmenter_loss(net: nn.Module, z: Tensor, truths: Sequence[Tensor], loss: str) -> Tensor:
    """The loss of logits that are enlarged to the pictures z (B, C, H, W), against the class map (H, W) of each."""
    truth = torch.stack([*truths]).to(z.device)
    logits = net(z)
    if logits.shape[2:] != truth.shape[1:]:
        logits = F.interpolate(logits, truth.shape[1:], mode="bilinear", align_corners=False)
    if loss == "both":
        return cross_entropy(logits, truth) + dice(logits, truth)
    return dice(logits, truth) if loss == "dice" else cross_entropy(logits, truth)


def score(model: Model, store: Store, pictures: Sequence[Picture], rows: Sequence[int], batch: int) -> float:
    """AP50 or mean IoU of these pictures in their own pixels, from 0 to 1; 0 where nothing defines it."""
    if isinstance(model, Detector):
        return average_precision(found_boxes(model, store, pictures, rows, batch)).mean.ap50 or 0.0
    assert isinstance(model, Segmenter)
    value = found_pixels(model, store, pictures, rows, batch).scores().mean_iou
    return value if value == value else 0.0


def found_boxes(
    model: Detector,
    store: Store,
    pictures: Sequence[Picture],
    rows: Sequence[int],
    batch: int,
    progress: Progress | None = None,
) -> BoxSet:
    """What the detector reports in these pictures, in their own pixels, beside what is true."""
    records = []
    for i, x in _batched(store, rows, batch, progress):
        for row, found in zip(i, model.detect(x), strict=True):
            truth = pictures[row].boxes
            assert truth is not None
            boxes = box_to_original(found.boxes, truth.size, model.preprocess)
            records.append(
                picture_boxes(
                    boxes,
                    found.scores,
                    found.labels,
                    truth.boxes,
                    truth.labels,
                    truth.crowd | truth.difficult,
                    truth.area.double(),
                )
            )
    return box_set(records, range(len(model.labels)))


def found_pixels(
    model: Segmenter,
    store: Store,
    pictures: Sequence[Picture],
    rows: Sequence[int],
    batch: int,
    progress: Progress | None = None,
) -> PixelCounts:
    """How many pixels of these pictures the segmenter gives which class, in their own pixels."""
    counts = PixelCounts(len(model.labels))
    for i, x in _batched(store, rows, batch, progress):
        for row, classes in zip(i, model.segment(x).cpu(), strict=True):
            truth: Any = pictures[row].pixels
            counts.add(map_to_original(classes, truth.size, model.preprocess), truth())
    return counts


def _batched(
    store: Store, rows: Sequence[int], batch: int, progress: Progress | None
) -> Iterator[tuple[Sequence[int], Tensor]]:
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        yield part, of_bytes(torch.stack([store[i] for i in part]))
        if progress is not None:
            progress("judging", start + len(part), len(rows))
