"""What is asked of a detector or a segmenter in words, and what of its answer is drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.kinds.box_targets import BoxOf, BoxScore
from clearsight.kinds.candidates import candidates
from clearsight.kinds.detector import Detector
from clearsight.kinds.questions import BACKGROUND
from clearsight.kinds.region_targets import RegionScore

SURE = 0.5  # of the surest box's score: boxes with less are not drawn
MOST = 3  # boxes of a class that is asked about by name
NEAREST = 0.01  # of the pixels, where none is of the class that is asked about
ANY = ("any other", "any other class")


@dataclass(frozen=True)
class Words:
    """A target in words: the first k boxes or regions, or those of one class, less another class or the best other."""

    first: int = MOST
    of: int | None = None
    compared: bool = False
    against: int | None = None


@dataclass(frozen=True, eq=False)
class Marks:
    """What is drawn: an outline for each question, bool (n, H, W), and what it is in words; boxes that were found.

    boxes: (M, 4) in pixels of the model's pictures, those that it is sure of; None of a segmenter.
    """

    outlines: Tensor
    words: str
    boxes: Tensor | None = None


def words_of(model: Model, words: str) -> Words:
    """ "top3", a class by label or number, "cat rather than dog", or "cat rather than any other".

    Refused: a class that the model does not have, "top0", and a region against a class of one's choice.
    """
    if m := re.fullmatch(r"top(\d+)", words.strip()):
        if int(m[1]) < 1:
            raise Refused(f"target {words!r}: ask about at least one, top1")
        return Words(int(m[1]))
    a, versus, b = words.partition(" rather than ")
    if not versus:
        return Words(of=model.index(words))
    other = None if b.strip() in ANY else model.index(b)
    if other is not None and model.kind == "segmenter":
        raise Refused(f"target {words!r}: a region is compared with its best other class, {a!r} rather than any other")
    return Words(of=model.index(a), compared=True, against=other)


def ask_kind(model: Model, words: str, outputs: Tensor) -> tuple[Target, Tensor]:
    """The target in words -> the target of as many copies of one picture as it has questions, and their scores (n,).

    "top3" asks about the three surest boxes of a detector, or the three largest classes of a segmenter's pixels,
    background left out; a class about its boxes, at most three, or its pixels.  Where there is none of that, the best
    candidate is asked about, or the hundredth part of the pixels that come nearest: why is there none?  Of a box its
    own candidate is explained, whose score has a slope everywhere.

    Args:
        model: a detector or a segmenter.
        words: as `words_of` reads them.
        outputs: its outputs for one picture, (1, ...).

    Refused: as in `words_of`.
    """
    asked = words_of(model, words)
    return _boxes(model, asked, outputs) if isinstance(model, Detector) else _regions(model, asked, outputs)


def _boxes(model: Detector, asked: Words, outputs: Tensor) -> tuple[Target, Tensor]:
    (found,), all_scores = model.detections(outputs), candidates(outputs).scores[0]
    if asked.of is not None:
        found = found[found.labels == asked.of]
    raw, classes = found.raw[: asked.first], found.labels[: asked.first]
    if not len(raw):
        column = all_scores if asked.of is None else all_scores[:, asked.of : asked.of + 1]
        best = int(column.argmax())
        raw = torch.tensor([best // column.shape[1]])
        classes = torch.tensor([best % column.shape[1] if asked.of is None else asked.of])
    against = None if asked.against is None else torch.full_like(classes, asked.against)
    of: BoxOf = "margin" if asked.compared else "class"
    target = BoxScore(outputs[0, raw, :4].float().cpu(), classes, raw, of, "raw", against)
    return target, all_scores[raw, classes]


def _regions(model: Model, asked: Words, outputs: Tensor) -> tuple[Target, Tensor]:
    chances = outputs.softmax(1)[0].cpu()
    named = chances.argmax(0)
    classes = _largest(model, named, asked.first) if asked.of is None else [asked.of]
    regions = torch.stack([named == k for k in classes])
    for region, k in zip(regions, classes, strict=True):
        if not bool(region.any()):
            nearest = chances[k].flatten().topk(max(1, round(NEAREST * region.numel()))).indices
            region.view(-1)[nearest] = True
    target = RegionScore(torch.tensor(classes), regions, "margin" if asked.compared else "logit")
    means = [float(chances[k][region].mean()) for region, k in zip(regions, classes, strict=True)]
    return target, torch.tensor(means)


def _largest(model: Model, named: Tensor, most: int) -> list[int]:
    """The classes of most pixels, without background where there is anything else."""
    counts = named.flatten().bincount(minlength=len(model.labels))
    order = [k for k in counts.argsort(descending=True, stable=True).tolist() if counts[k]]
    seen = [k for k in order if model.labels[k].strip().lower() not in BACKGROUND]
    return (seen or order)[:most]


def told(model: Model, outputs: Tensor) -> list[dict[str, Any]]:
    """The first three boxes with their scores, or classes with their share of the pixels, of one picture (1, ...)."""
    if isinstance(model, Detector):
        found = model.detections(outputs)[0][:MOST]
        sides = [[round(side, 1) for side in box] for box in found.boxes.tolist()]
        rows = zip(found.labels.tolist(), found.scores.tolist(), sides, strict=True)
        return [{"class": k, "label": model.name(k), "probability": round(p, 6), "box": box} for k, p, box in rows]
    named = outputs.argmax(1)[0].cpu()
    shares = {k: float((named == k).float().mean()) for k in _largest(model, named, MOST)}
    return [{"class": k, "label": model.name(k), "share": round(share, 6)} for k, share in shares.items()]


def marks_of(model: Model, target: Target, outputs: Tensor) -> Marks:
    """What is drawn of the answer to a target that `ask_kind` gave; of a detector the boxes it is SURE of."""
    if isinstance(target, RegionScore):
        return Marks(target.regions, "the region that is explained")
    assert isinstance(model, Detector)
    assert isinstance(target, BoxScore)
    height, width = model.preprocess.size
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    left, top, right, bottom = target.boxes.unbind(1)
    across = (columns >= left[:, None]) & (columns <= right[:, None])
    down = (rows >= top[:, None]) & (rows <= bottom[:, None])
    (found,) = model.detections(outputs)
    sure = found.scores >= SURE * found.scores[:1]  # the surest stands first
    words = "the box that is explained, single lines are the boxes with at least half of the surest one's score"
    return Marks(across[:, None] & down[:, :, None], words, found.boxes[sure])
