"""Checks of pictures, targets and results of methods, before they are run or used."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.preprocess import fits
from clearsight.core.taking import KINDS, takes_kind
from clearsight.core.targets import ClassScore, Goal, Of, Target
from clearsight.errors import NotFinite, Refused


def check_pixels(model: Model, x: Tensor) -> Tensor:
    """x as floats on the model's device, or a refusal: pixels are finite and in [0, 1]."""
    if not isinstance(x, Tensor) or x.dim() < 3 or len(x) == 0:
        raise Refused("give the pictures as one tensor (B, C, *S) of at least one, with pixels in [0, 1]")
    if not x.is_floating_point():
        raise Refused(f"pixels of type {x.dtype}: give floats in [0, 1] (x.float() / 255)")
    x = x.detach().clone()  # at once, so that what is looked at is what is used
    lowest, highest = _range(x)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise Refused("the pictures hold values that are not finite")
    if lowest < 0 or highest > 1:
        raise Refused(
            f"pixels run from {lowest:.3g} to {highest:.3g}, not in [0, 1]: divide by 255, and leave "
            "normalisation to the model's Preprocess"
        )
    fits(model.preprocess, x)
    if torch.is_inference_mode_enabled():
        raise Refused("torch.inference_mode() allows no gradients: call outside of it (no_grad is fine)")
    return x.to(model.device, torch.float32)


def top_class(model: Classifier, logits: Tensor, *, chance: bool = False) -> ClassScore:
    """What is explained where nothing else is asked for: the score, or the probability, of each picture's top class.

    A regressor with one value is explained by that; one with several is refused, because none of them is the top one.
    """
    if model.scores == "values":
        if logits.shape[1] != 1:
            raise Refused(f'the model gives {logits.shape[1]} values: say which one, ClassScore(0, of="value")')
        return ClassScore(torch.zeros(len(logits), dtype=torch.long), of="value")
    of: Of = "logit"
    if chance:
        of = "prob" if model.one_of_many else "sigmoid"
    return ClassScore(logits.argmax(1), of)


_QUESTIONS = {
    "classifier": "cs.ClassScore(model.index(name)) is explained, cs.Misclassify(y) attacked",
    "detector": "cs.BoxScore(boxes, classes) is explained, cs.Vanish(boxes, classes) attacked",
    "segmenter": "cs.RegionScore(classes, regions) is explained, cs.PixelsMisread(y) attacked",
}


def check_kind(model: Model, question: Target | Goal) -> None:
    """Refuse a target or a goal of another kind of model; one that says nothing of kinds is taken."""
    kind = getattr(question, "kind", model.kind)
    if kind != model.kind:
        what = type(question).__name__
        raise Refused(f"{what} asks about a {kind}, and the model is a {model.kind}: {_QUESTIONS[model.kind]}")


def check_takes(model: Model, call: Call) -> None:
    """Refuse a method that does not take this kind of model, as its first parameter is annotated."""
    if not takes_kind(call.method, model.kind):
        taken = [kind for kind in KINDS if takes_kind(call.method, kind)]
        raise Refused(
            f"{call.method.name} takes a {' or a '.join(taken)}, and the model is a {model.kind}",
            "clearsight methods NAME says what a method takes",
        )


def check_target(model: Model, target: Target) -> None:
    """Refuse a target of another kind of model, and a probability that the model's outputs do not have."""
    check_kind(model, target)
    if not isinstance(model, Classifier):
        return
    of = target.of if isinstance(target, ClassScore) else ""
    if of == "prob" and not model.one_of_many:
        instead = "value" if model.scores == "values" else "sigmoid"
        raise Refused(f'the model\'s outputs are {model.scores}, which no softmax makes probabilities: of="{instead}"')
    if of == "sigmoid" and model.scores != "multi-label":
        raise Refused(f'of="sigmoid" is for multi-label outputs, and the model\'s are {model.scores}: of="prob"')


def check_rows(question: Target | Goal, n: int) -> None:
    """Refuse a target or goal that names classes for another number of pictures."""
    for value in vars(question).values():
        if isinstance(value, Tensor) and value.dim() and len(value) != n:
            raise Refused(f"the target names classes for {len(value)} pictures, but there are {n}")


def check_result(result: Any, shape: tuple[int, ...], call: Call, *, finite: bool = True, keep: bool = False) -> Tensor:
    """What a method returned, or an error that names the method: shape and finiteness are not taken on trust."""
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        what = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise Refused(f"{call.method.name} gave {what}, not a tensor {shape}")
    if finite and not all(map(math.isfinite, _range(result))):
        raise NotFinite(f"{call.method.name} gave values that are not finite")
    values: Tensor = result.detach().float()
    return values if keep else values.cpu()


def _range(values: Tensor) -> tuple[float, float]:
    """The lowest and the highest value; both are NaN where any is."""
    lowest, highest = values.detach().aminmax()
    return float(lowest), float(highest)
