"""The end of a network whose class activation map needs no gradient: averaged channels and one dense layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.explainers.cam import cam
from clearsight.internals.layers import cut_at, enlarge, layout_of
from clearsight.internals.places import Layout
from clearsight.internals.target_layer import target_layer

_CLOSE = 1e-3  # of the largest value of a map: two maps are the same


@dataclass(frozen=True)
class Head:
    """What the map of a class is made of.

    Args:
        layer: the layer whose channels are summed.
        layout: how its output holds its places.
        weight: of each class for each channel (K, C); the dense layer's own parameter where that holds them, so that a
            file does not hold it twice.
        signs: what a row of weight is multiplied by for each class (K, 1) where one row stands for two; else None.
    """

    layer: str
    layout: Layout
    weight: Tensor
    signs: Tensor | None = None


def rows(head: Head, weight: Tensor, classes: Tensor) -> Tensor:
    """The weights (N, C) of classes (N,), out of those of the head, wherever these now lie."""
    return weight[classes] if head.signs is None else head.signs[classes] * weight


def find_head(model: Classifier) -> Head | str:
    """The head behind which the map of a class is a sum of channels; or, in words, why the network has none.

    What is found is held against `cam` on two pictures of noise and all their best classes.
    """
    x = torch.rand((2, model.preprocess.channels, *model.preprocess.size), generator=torch.Generator().manual_seed(5))
    x = x.to(model.device)
    try:
        with model.undisturbed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that another layer may be named, which an export does not ask for
            layer = target_layer(model, x)
            layout = layout_of(model, x, layer)
            top = model(x).argmax(1)
            wanted = cam(model, x, ClassScore(top), layer=layer)
            for head in _candidates(model, x, layer, layout):
                if _is_right(model, x, head, top, wanted):
                    return head
    except Refused as e:
        return e.what
    return f"the scores are not a weighted sum of the channels of {layer}"


def _candidates(model: Classifier, x: Tensor, layer: str, layout: Layout) -> Iterator[Head]:
    """The dense layers that fit, and the weights as gradients measure them."""
    with torch.no_grad(), cut_at(model, x, layer, grad=False) as caught:
        logits = model(x)
    channels, classes = caught[0].shape[1], logits.shape[1]
    for module in model.net.modules():
        if isinstance(module, nn.Linear) and module.in_features == channels:
            if module.out_features == classes:
                yield Head(layer, layout, module.weight)
            elif module.out_features == 1 and model.scores == "one-logit":
                yield Head(layer, layout, module.weight, torch.tensor([[-0.5], [0.5]]).to(module.weight))
    yield Head(layer, layout, _measured(model, x, layer))


def _measured(model: Classifier, x: Tensor, layer: str) -> Tensor:
    """The weights (K, C): how much each score rises where a channel does, over all of its places."""
    with cut_at(model, x[:1], layer, grad=True) as caught, torch.enable_grad():
        logits = model(x[:1])
        slopes = [
            torch.autograd.grad(logits[0, k], caught[0], retain_graph=True, materialize_grads=True)[0]
            for k in range(logits.shape[1])
        ]
    return torch.cat([slope.flatten(2).sum(2) for slope in slopes]).detach()


def _is_right(model: Classifier, x: Tensor, head: Head, top: Tensor, wanted: Tensor) -> bool:
    with torch.no_grad(), cut_at(model, x, head.layer, grad=False) as caught:
        model(x)
    maps = enlarge(summed(rows(head, head.weight, top), caught[0]), x.shape[2:]).float()
    return bool((maps - wanted).abs().max() <= _CLOSE * wanted.abs().max())


def summed(weights: Tensor, channels: Tensor) -> Tensor:
    """The maps (N, h, w) of channels (N, C, h, w) with weights (N, C)."""
    return (weights.to(channels)[:, :, None, None] * channels).sum(1)
