"""The loss of a training step: plain, or that of a defence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearsight.core import rng
from clearsight.core.catalogue import Call
from clearsight.core.preprocess import normalised
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.recipe import Recipe
from clearsight.training.training_data import TrainingData


def training_loss(
    net: nn.Module, start: TrainableNetwork, x: Tensor, y: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    """The mean cross entropy; a network with auxiliary outputs in training (a tuple) adds theirs at a weight of 0.3,
    as GoogLeNet does (Szegedy et al. 2015, arXiv:1409.4842)."""
    z = normalised(start.preprocess, x)
    out = net(z.contiguous(memory_format=torch.channels_last) if start.channels_last else z)
    parts = list(out) if isinstance(out, tuple | list) else [out]
    losses = [cross_entropy(part, y, weights, label_smoothing=smoothing) for part in parts]
    return losses[0] + 0.3 * sum(losses[1:], losses[0].new_zeros(()))


def class_weights_of(data: TrainingData, recipe: Recipe) -> Tensor:
    """(K,) ones, or the inverse frequency of each class in train, 1 on average over the pictures."""
    shares = data.y[data.rows("train")].sum(0)
    if not recipe.class_weights:
        return torch.ones_like(shares)
    return shares.sum() / (shares.clamp_min(1) * (shares > 0).sum())


def defended_losses(defence: Call, step: TrainingStep, x: Tensor, y: Tensor) -> Tensor:
    """The losses (B,) of a step that a defence is used in; what it draws belongs to the picture.

    Refused: losses that are not one number for each picture.
    """
    with rng.seeded(step.seed, x, defence.method.name, in_step=True):
        losses = defence.method(step, x, y, **defence.options)
    return one_each(losses, defence, len(x))


def one_each(losses: object, call: Call, n: int, what: str = "loss") -> Tensor:
    """What a method gave for n pictures, (n,).  Refused: losses, or what they are, that are not one number for each."""
    if not isinstance(losses, Tensor) or losses.shape != (n,):
        given = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise Refused(f"{call.method.name} gave {given}, not one {what} for each picture: ({n},)")
    return losses


def weighted_entropy(weights: Tensor, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross entropy (B,) of logits (B, K) and shares (B, K), with these class weights (K,) and label smoothing."""

    def entropy(logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits, y, weights, label_smoothing=smoothing, reduction="none")

    return entropy


def guided_loss(guide: Call, step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor) -> Tensor:
    """The mean over a batch of what a guide adds to the loss of its annotated pictures.

    x (B, C, *S) whose pixels have a gradient; inside (B, 1, *S): 1 where a right answer may look, NaN in pictures
    without an annotation, which add nothing.

    Refused: penalties that are not one number for each picture.
    """
    annotated = ~inside.flatten(1)[:, 0].isnan()
    if not bool(annotated.any()):
        return x.new_zeros(())
    penalties = guide.method(step, x, y, inside.nan_to_num(1.0), **guide.options)
    penalties = one_each(penalties, guide, len(x), "penalty")
    return penalties.masked_fill(~annotated, 0.0).mean()
