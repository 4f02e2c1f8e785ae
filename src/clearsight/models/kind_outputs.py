"""Problems with what the network of a detector or a segmenter gives for noise: its form, and its numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.outputs import paths, pick
from clearsight.errors import Refused
from clearsight.kinds.candidates import candidates
from clearsight.kinds.forms import WrongForm, detector_form, segmenter_form
from clearsight.models.problems import Problem

AnyModel = TypeVar("AnyModel", bound=Model)

_UNIT = 1.5  # boxes whose sides all lie below are shares of the picture, not pixels
_INVERTED = 0.25  # share of boxes whose second corner is not behind the first, from which on they are no corners


def find_outputs(model: AnyModel, raw: Any, x: Tensor) -> tuple[AnyModel | None, list[Problem]]:
    """The model with its output picked and its labels counted, for the checks to go on; None where they cannot.

    raw: what the network returned for pictures x (B, C, H, W).
    """
    problems = []
    try:
        out = pick(raw, model.output)
    except Refused as e:
        part = _best_part(model, raw, len(x))
        if part is None:
            return None, [Problem(e.what, e.fix or _return_one(model), "scores-not-found")]
        problems.append(Problem(e.what, f"say where they are: output={part!r} (--output {part})", "scores-not-found"))
        model = replace(model, output=part)
        out = pick(raw, part)
    wrong = _form(model, out, len(x))
    if wrong is None:
        return model, problems
    problems.append(Problem(wrong.what, wrong.mend, wrong.code))
    if wrong.code != "labels-miscounted":
        return None, problems
    classes = out.shape[2] - 5 if model.kind == "detector" else out.shape[1]
    return replace(model, labels=tuple(map(str, range(classes)))), problems


def _return_one(model: Model) -> str:
    shape = "candidates (B, N, 5 + K)" if model.kind == "detector" else "logits (B, K, h, w)"
    return f"let forward return one tensor, {shape}"


def _form(model: Model, out: Tensor, pictures: int) -> WrongForm | None:
    of_kind = detector_form if model.kind == "detector" else segmenter_form
    return of_kind(out, pictures, len(model.labels))


def _best_part(model: Model, raw: Any, pictures: int) -> str | int | None:
    """The path of the part that has the right form, or else of the first with as many axes."""
    parts = [(path, t) for path, t in paths(raw) if t.dim() == (3 if model.kind == "detector" else 4)]
    right = [path for path, t in parts if _form(model, t, pictures) is None]
    return next(iter([*right, *(path for path, _ in parts)]), None)


def check_outputs(model: Model, out: Tensor) -> list[Problem]:
    """Problems of the numbers in the model's outputs for different pictures of noise."""
    if not bool(out.isfinite().all()):
        mend = "look for a division by zero, a log of zero, or weights that are not finite"
        return [Problem("the outputs are not finite", mend, "scores-not-finite")]
    problems = _of_candidates(model, out) if model.kind == "detector" else _of_pixels(out)
    if bool((out == out[:1]).all()):
        mend = "check that it is trained, and that mean and std are those of its training"
        problems.append(Problem("different pictures of noise get the same outputs", mend, "same-scores"))
    return problems


def _of_candidates(model: Model, out: Tensor) -> list[Problem]:
    parts = candidates(out)
    there = parts.objectness > -40  # others fill up the number of rows
    boxes, problems = parts.boxes[there], []
    height, width = model.preprocess.size
    if len(boxes) and min(height, width) > 4 and float(boxes.abs().max()) <= _UNIT:
        what = f"the boxes lie between {float(boxes.min()):.2g} and {float(boxes.max()):.2g}: shares, not pixels"
        mend = f"multiply the sides by those of the picture: out[..., :4] * out.new_tensor([{width}, {height}] * 2)"
        problems.append(Problem(what, mend, "boxes-not-pixels"))
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(1).float()
    if len(boxes) and float(inverted.mean()) > _INVERTED:
        what = f"of {100 * float(inverted.mean()):.0f} % of the boxes the second corner is not behind the first"
        mend = "boxes are x1, y1, x2, y2; of centre and size: torchvision.ops.box_convert(boxes, 'cxcywh', 'xyxy')"
        problems.append(Problem(what, mend, "boxes-not-corners"))
    logits = torch.cat([parts.objectness[there][:, None], parts.classes[there]], 1)
    classes = logits[:, 1:]
    if classes.numel() > 8 and float(classes.min()) >= 0 and float(classes.max()) <= 1 and bool(classes.any()):
        mend = "return logits, of which the sigmoid is taken: torch.logit(p, eps=1e-6)"
        problems.append(
            Problem("the class scores look like probabilities: all lie in 0 to 1", mend, "probabilities-as-logits")
        )
    return problems


def _of_pixels(out: Tensor) -> list[Problem]:
    sums = out.sum(1)
    if out.shape[1] > 1 and float(out.min()) >= 0 and bool(((sums - 1).abs() < 1e-3).all()):
        mend = "return the logits before the softmax; gradients vanish where the model is sure"
        what = "the outputs look like probabilities: none below 0, those of every pixel sum to 1"
        return [Problem(what, mend, "probabilities-as-logits")]
    return []
