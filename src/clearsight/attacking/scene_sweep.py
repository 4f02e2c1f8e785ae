"""Attack the pictures of a detector or a segmenter at every budget, and keep what it says of them then."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.attacking.scenes import Scenes
from clearsight.core.catalogue import Call
from clearsight.core.statistics import Interval
from clearsight.core.targets import Goal
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.intervals import precision_intervals
from clearsight.evaluation.pixels import PixelCounts
from clearsight.evaluation.records import box_set, picture_boxes
from clearsight.internals.scores import scores
from clearsight.kinds.attack_outcomes import ObjectFates, object_fates
from clearsight.kinds.box_goals import Objects
from clearsight.kinds.detections import Detections
from clearsight.kinds.detector import Detector
from clearsight.kinds.region_goals import misread_share
from clearsight.kinds.segmenter import Segmenter
from clearsight.runner.results import Attacked
from clearsight.runner.run import attack

LOT = 8  # pictures between two looks at the clock


@dataclass(frozen=True, eq=False)
class SceneOutcome:
    """What a model says of pictures that were attacked within a budget.

    eps: the budget, 0 for the clean pictures.  x: the pictures (B, C, H, W).  met: whether each meets the goal.
    score: AP50 of a detector, mean IoU of a segmenter; None where there is nothing to find.  interval: 95 %, over
    pictures.  found: a detector's boxes above the floor.  fates: what became of its objects.  predicted: a segmenter's
    classes (B, H, W).  misread: (B,) share of the pixels that count.
    passes: forward passes for each picture that was attacked.
    """

    eps: float
    x: Tensor
    met: Tensor
    score: float | None
    interval: Interval | None
    found: tuple[Detections, ...] = ()
    fates: ObjectFates | None = None
    predicted: Tensor | None = None
    misread: Tensor | None = None
    passes: float = 0.0


def sweep_scenes(
    model: Detector | Segmenter,
    scenes: Scenes,
    truth: Objects | Tensor,
    goal: Goal,
    call: Call,
    levels: Sequence[float],
    *,
    access: str = "logits",
    floor: float = 0.5,
    seed: int = 0,
    batch: int | None = None,
    deadline: float = math.inf,
) -> list[SceneOutcome]:
    """The outcome of the clean pictures, and of each budget in turn.

    access: what a black-box attack learns of the outputs.  floor: score of a box that counts as found.  deadline: of
    the clock `time.monotonic`, after which no further picture is attacked; the outcomes are of the pictures before.
    """
    eps_levels, n = sorted(levels), len(scenes.x)
    at_once = n if deadline == math.inf or "lessons" in call.method.injected else LOT
    parts: dict[float, list[Attacked]] = {eps: [] for eps in eps_levels}
    done = 0
    while done < n and (not done or time.monotonic() < deadline):
        rows = slice(done, done + at_once)
        for eps in eps_levels:
            x = scenes.x[rows]
            parts[eps].append(attack(model, x, goal[rows], call, eps=eps, access=access, seed=seed, batch=batch))
        done = min(done + at_once, n)
    reached = slice(done)
    goal, truth = goal[reached], truth[reached]
    outcomes = [_judged(model, scenes.x[reached], truth, goal, 0.0, floor, seed, batch)]
    for eps, attacked in parts.items():
        x = torch.cat([one.x for one in attacked])
        tried = [int((~one.already).sum()) for one in attacked]
        passes = sum(one.queries * k for one, k in zip(attacked, tried, strict=True)) / max(sum(tried), 1)
        outcomes.append(_judged(model, x, truth, goal, eps, floor, seed, batch, passes))
    return outcomes


def _judged(
    model: Detector | Segmenter,
    x: Tensor,
    truth: Objects | Tensor,
    goal: Goal,
    eps: float,
    floor: float,
    seed: int,
    batch: int | None,
    passes: float = 0.0,
) -> SceneOutcome:
    with model.undisturbed():
        outputs = scores(model, x.to(model.device), batch)
    met = goal.met(outputs).cpu()
    if isinstance(model, Detector) and isinstance(truth, Objects):
        every = model.detections(outputs)
        found = tuple(one[one.scores > floor] for one in every)
        score, interval = _ap50(every, truth, len(model.labels), seed)
        fates = object_fates(truth, found)
        return SceneOutcome(eps, x.cpu(), met, score, interval, found=found, fates=fates, passes=passes)
    assert isinstance(truth, Tensor)
    predicted, counts = outputs.argmax(1).cpu(), PixelCounts(len(model.labels))
    for one, right in zip(predicted, truth, strict=True):
        counts.add(one, right)
    figures, misread = counts.scores(seed), misread_share(outputs, truth).cpu()
    score, interval = figures.mean_iou, figures.intervals["mean_iou"]
    return SceneOutcome(eps, x.cpu(), met, score, interval, predicted=predicted, misread=misread, passes=passes)


def _ap50(found: Sequence[Detections], truth: Objects, classes: int, seed: int) -> tuple[float | None, Interval | None]:
    """AP at an IoU of 0.5 by COCO's rule, and its interval over pictures; None without objects."""
    there = truth.present
    if not bool(there.any()):
        return None, None
    pictures = [
        picture_boxes(one.boxes, one.scores, one.labels, boxes[some], labels[some])
        for one, boxes, labels, some in zip(found, truth.boxes, truth.classes, there, strict=True)
    ]
    every = box_set(pictures, range(classes))
    return average_precision(every).mean.ap50, precision_intervals(every, seed).ap50
