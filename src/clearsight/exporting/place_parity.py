"""The same pictures through a detector or a segmenter and through its file: which boxes and pixels both agree on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.place_case import PlaceCase
from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.core.boxes import iou_table
from clearsight.core.progress import Progress
from clearsight.data.records import Picture, Pictures
from clearsight.data.truth_to_input import box_to_original
from clearsight.engines.manifest import BOXES, CANDIDATES, CLASSES, LABELS, LOGITS, SCORES
from clearsight.evaluation.pixels import counted_pixels
from clearsight.evaluation.records import PictureBoxes, picture_boxes
from clearsight.exporting.parity import BATCH, decoded, levels_apart
from clearsight.exporting.whole_file import Bytes, Outputs, WholeFile
from clearsight.kinds.candidates import candidates
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter

SAME = 0.95  # IoU from which on two boxes of one class are the same
NEAR = 0.5  # pixels of the picture: boxes whose sides all lie so near are the same too, as thin ones have hardly an IoU
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlaceParity:
    """What both kinds of comparison hold, of N pictures.

    Args:
        levels: the largest difference of the file's pixels from the model's, picture by picture, of 255.
        off: the share of pixels that differ at all.
        batch: the largest difference of an output between a picture alone and the same picture three times.
        scores: (N,) the largest difference of a score or a probability.
    """

    levels: Numbers
    off: float
    batch: float
    scores: Numbers

    @property
    def n(self) -> int:
        """The number of pictures."""
        return len(self.scores)


@dataclass(frozen=True)
class BoxParity(PlaceParity):
    """What a detector and its file report.

    Args:
        both: (N,) how many boxes both report: see `same_boxes`.
        either: (N,) how many at least one of them reports; a box of both counts once.
        corners: (N,) the largest difference of a side, in pixels of the network's input, of candidates above the floor.
        before: the boxes of the model with the true ones; empty where there are no true ones.
        after: those of the file.
    """

    both: npt.NDArray[np.int64]
    either: npt.NDArray[np.int64]
    corners: Numbers
    before: tuple[PictureBoxes, ...]
    after: tuple[PictureBoxes, ...]


@dataclass(frozen=True)
class PixelParity(PlaceParity):
    """What a segmenter and its file name.

    Args:
        same: (N,) the share of pixels with the same class.
        before: (N, 3, K) counts of the model's pixels beside the true ones, as ``PixelCounts.per_picture`` has them;
            empty where there are no true ones.
        after: those of the file's.
    """

    same: Numbers
    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]


class UnjudgedCase(PlaceCase):
    """Pictures of which nothing is known but what a model and its file say."""

    def _judge(self, picture: Picture, outputs: Tensor) -> None:
        return None

    @cached_property
    def annotated(self) -> list[int]:
        return []

    @property
    def labelled(self) -> list[int]:
        return []


def place_case(model: Detector | Segmenter, data: Pictures, seed: int, progress: Progress) -> PlaceCase:
    """The case of a detector or a segmenter, with the truth where every picture has it."""
    if isinstance(model, Detector) and all(p.boxes is not None for p in data.pictures):
        return DetectorCase(model, data, seed=seed, progress=progress)
    if isinstance(model, Segmenter) and all(p.pixels is not None for p in data.pictures):
        return SegmenterCase(model, data, seed=seed, progress=progress)
    return UnjudgedCase(model, data, seed=seed, progress=progress)


def compare_places(case: PlaceCase, file: WholeFile) -> BoxParity | PixelParity:
    """Ask the file about every picture of a case, one at a time, as its callers will."""
    is_detector = isinstance(case.model, Detector)
    levels, off, rows = [], [], []
    batch = 0.0
    case.progress("comparing", 0, len(case.pictures))
    for row, picture in enumerate(case.pictures):
        given = decoded(picture, case.model)[None]
        found = file.run(given)
        apart = levels_apart(file, given, picture, case.model)
        levels.append(float(apart.max()))
        off.append(float((apart > 0).mean()))
        outputs = case.outputs(case.pixels([row]))
        rows.append(
            _boxes(case, picture, given, outputs, found) if is_detector else _pixels(case, picture, outputs, found)
        )
        if row == 0:
            thrice = file.run(np.repeat(given, BATCH, 0))
            name = CANDIDATES if is_detector else LOGITS
            batch = float(np.abs(thrice[name] - found[name]).max())
        case.progress("comparing", row + 1, len(case.pictures))
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    numbers = {k: np.array(v) for k, v in columns.items() if k not in ("before", "after")}
    common: dict[str, Any] = {"levels": np.array(levels), "off": float(np.mean(off)), "batch": batch, **numbers}
    before, after = columns.get("before", []), columns.get("after", [])  # of pictures with their truth
    if is_detector:
        return BoxParity(**common, before=tuple(before), after=tuple(after))
    return PixelParity(**common, before=np.array(before), after=np.array(after))


def _pixels(case: PlaceCase, picture: Picture, outputs: Tensor, found: Outputs) -> dict[str, Any]:
    given = torch.from_numpy(found[LOGITS]).float()
    before, after = outputs.argmax(1), torch.from_numpy(found[CLASSES])
    same = float((before == after).double().mean())
    row: dict[str, Any] = {"same": same, "scores": float((outputs.softmax(1) - given.softmax(1)).abs().max())}
    if isinstance(case, SegmenterCase):
        truth, classes = case.truth_of(picture), len(case.model.labels)
        row |= {"before": counted_pixels(before[0], truth, classes), "after": counted_pixels(after[0], truth, classes)}
    return row


def _boxes(case: PlaceCase, picture: Picture, given: Bytes, outputs: Tensor, found: Outputs) -> dict[str, Any]:
    model = case.model
    assert isinstance(model, Detector)
    size = (given.shape[2], given.shape[1])
    theirs = torch.from_numpy(found[CANDIDATES]).float()
    reported = model.detections(outputs)[0]
    before = (box_to_original(reported.boxes, size, model.preprocess), reported.scores, reported.labels)
    after = reported_by(model, found, size)
    both = same_boxes(before[0], before[2], after[0], after[2])
    one, other = candidates(outputs), candidates(theirs)
    above = torch.maximum(one.scores, other.scores).amax(2) > model.floor
    sides = (one.boxes - other.boxes).abs().amax(2)[above]
    row: dict[str, Any] = {
        "both": both,
        "either": len(before[0]) + len(after[0]) - both,
        "scores": float((one.scores - other.scores).abs().max()),
        "corners": float(sides.max()) if len(sides) else 0.0,
    }
    if isinstance(case, DetectorCase):
        truth = case.truth_of(picture)
        true = (truth.boxes, truth.labels, truth.crowd | truth.difficult, truth.area)
        row |= {"before": picture_boxes(*before, *true), "after": picture_boxes(*after, *true)}
    return row


def reported_by(model: Detector, found: Outputs, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes (M, 4) in pixels of the picture, scores and labels that a file reports, of outputs for one picture.

    Where suppression is left to the caller, it is done as the model does it.  size: (width, height) of the picture.
    """
    if BOXES in found:
        boxes, scores, labels = (torch.from_numpy(found[name][0]) for name in (BOXES, SCORES, LABELS))
        there = labels >= 0
        return boxes[there], scores[there], labels[there]
    (reported,) = model.detections(torch.from_numpy(found[CANDIDATES]))
    return box_to_original(reported.boxes, size, model.preprocess), reported.scores, reported.labels


def same_boxes(one: Tensor, classes: Tensor, other: Tensor, other_classes: Tensor) -> int:
    """How many boxes (M, 4) in pixels have a partner among others (K, 4): of their class, in the same place.

    That is an IoU of at least 0.95, or sides that all lie within half a pixel.  Each has at most one partner, and as
    many have one as can.

    >>> a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.6]])
    >>> same_boxes(a, torch.tensor([1]), b, torch.tensor([1, 1])), same_boxes(a, torch.tensor([1]), b, torch.zeros(2))
    (1, 0)
    """
    from scipy.optimize import linear_sum_assignment

    near = (one[:, None] - other).abs().amax(2) <= NEAR
    fits = ((iou_table(one, other) >= SAME) | near) & (classes[:, None] == other_classes)
    rows, columns = linear_sum_assignment(fits.numpy(), maximize=True)
    return int(fits[rows, columns].sum())
