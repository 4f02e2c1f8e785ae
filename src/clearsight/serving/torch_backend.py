"""A Classifier as a backend: answers, features and, behind global average pooling, the map come from one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.data.images import of_bytes
from clearsight.errors import Refused
from clearsight.internals.capture import last_linear
from clearsight.internals.layers import enlarge, module_at
from clearsight.internals.target_layer import target_layer
from clearsight.runner.run import explain
from clearsight.serving.backend import Answers, Backend, Bytes

_CLOSE = (
    1e-4  # the map of the same pass and that of the explainer cam are the same up to this share of the largest value
)


@dataclass(frozen=True)
class Head:
    """What stands behind the last feature maps: global average pooling and one linear layer with weight (K, D)."""

    layer: str
    linear: str
    weight: Tensor


def torch_backend(model: Classifier) -> Backend:
    """A backend that runs a classifier's network in torch.

    The network is run as a copy of its own that shares the weights, so that explainers can work on the model meanwhile.

    Refused: models that take no pictures, and networks that cannot be copied or run on one.
    """
    if len(model.preprocess.size) != 2:
        raise Refused("the model takes no pictures, and only models of pictures are served")
    served = _copied(model)
    probe = torch.rand(
        (1, model.preprocess.channels, *model.preprocess.size), generator=torch.Generator().manual_seed(0)
    )
    probe = probe.to(model.device)
    linear = _linear_of(served, probe)
    head = _head_of(model, served, probe, linear)

    def run(pixels: Bytes) -> Answers:
        x = of_bytes(torch.from_numpy(np.ascontiguousarray(pixels)).to(model.device))
        with torch.inference_mode(), _caught(served, head, linear) as caught:
            logits = served(x).float()
            values = served.chances(logits)
            maps = None if head is None else class_maps(caught["maps"], head.weight, logits)
        return Answers(_array(values), _array(logits), _array(maps), _array(caught.get("features")))

    tried = run((probe.cpu().numpy() * 255).astype(np.uint8))
    layers = {"features": linear} if linear else {}
    return Backend(
        engine="torch",
        labels=model.labels,
        preprocess=model.preprocess,
        scores=model.scores,
        source=model.source,
        fingerprint=model.fingerprint(),
        run=run,
        map_shape=None if tried.maps is None else (tried.maps.shape[1], tried.maps.shape[2]),
        features=0 if tried.features is None else tried.features.shape[1],
        layers=layers | ({"map": head.layer} if head else {}),
        classifier=model,
    )


def class_maps(maps: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """The class activation map of each top class (B, h, w), of feature maps (B, D, h, w) and the dense layer's weight.

    Source: Zhou et al. 2016, arXiv:1512.04150, equation 2.

    >>> class_maps(torch.ones(1, 2, 1, 1), torch.tensor([[1.0, 2.0], [4.0, 5.0]]), torch.tensor([[0.0, 1.0]])).item()
    9.0
    """
    return torch.einsum("bd,bdhw->bhw", weight[logits.argmax(1)].to(maps), maps).float()


def _copied(model: Classifier) -> Classifier:
    """The classifier in eval mode, its network a copy that shares the parameters."""
    shared = {id(p): p for p in model.net.parameters()}
    try:
        net = copy.deepcopy(model.net, shared)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as e:
        reason = str(e).partition("\n")[0]
        raise Refused(
            f"the network cannot be copied ({type(e).__name__}: {reason})",
            "keep objects that cannot be copied outside its modules",
        ) from e
    return replace(model, net=net.eval())


def _linear_of(model: Classifier, probe: Tensor) -> str:
    """The name of the last linear layer, or "" where there is none."""
    try:
        return last_linear(model, probe)
    except Refused:
        return ""


def _head_of(model: Classifier, served: Classifier, probe: Tensor, linear: str) -> Head | None:
    """The head, where the map that it gives is that of the explainer `cam` on a picture of noise; else None."""
    try:
        with model.undisturbed():
            layer = target_layer(model, probe)
        reference = explain(model, probe, "cam").maps
    except Refused:
        return None
    dense = served.net.get_submodule(linear) if linear else None
    if not isinstance(dense, nn.Linear) or dense.out_features != len(model.labels):
        return None
    head = Head(layer, linear, dense.weight.detach())
    with torch.inference_mode(), _caught(served, head, linear) as caught:
        logits = served(probe)
    maps, features = caught["maps"], caught["features"]
    if maps.dim() != 4 or maps.shape[1] != head.weight.shape[1] or features.shape[-1] != maps.shape[1]:
        return None
    found = enlarge(class_maps(maps, head.weight, logits), model.preprocess.size).cpu()
    apart = (found - reference).abs().amax()
    return head if bool(apart <= _CLOSE * reference.abs().amax()) else None


@contextmanager
def _caught(model: Classifier, head: Head | None, linear: str) -> Iterator[dict[str, Tensor]]:
    """Inside, what a pass gives at the head is noted: "maps" (B, D, h, w) and "features" (B, D)."""
    caught: dict[str, Tensor] = {}
    handles = []
    if head is not None:

        def keep_maps(_module: nn.Module, _args: Any, out: Any) -> None:
            caught["maps"] = out.clone()  # what follows may work in place

        handles.append(module_at(model, head.layer).register_forward_hook(keep_maps))
    if linear:

        def keep_features(_module: nn.Module, args: Any) -> None:
            caught["features"] = args[0].float().clone()

        handles.append(module_at(model, linear).register_forward_pre_hook(keep_features))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _array(values: Tensor | None) -> Any:
    return None if values is None else values.float().cpu().numpy()
