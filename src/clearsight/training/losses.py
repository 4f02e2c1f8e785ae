"""The plain loss of a training step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clearsight.core.classifier import normalised
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
