"""A Classifier as a backend: answers, features and, behind averaged channels, the map come from one pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.copying import copied
from clearsight.data.images import of_bytes
from clearsight.errors import Refused
from clearsight.exporting.heatmap_head import Head, find_head, rows, summed
from clearsight.internals.capture import last_linear
from clearsight.internals.layers import module_at
from clearsight.internals.places import as_maps
from clearsight.serving.backend import Answers, Backend, Bytes


def torch_backend(model: Classifier) -> Backend:
    """A backend that runs a classifier's network in torch.

    The network is run as a copy of its own that shares the weights, so that explainers can work on the model meanwhile.

    Refused: models that take no pictures, and networks that cannot be copied or run on one.
    """
    if len(model.preprocess.size) != 2:
        raise Refused("the model takes no pictures", "only models of pictures are served")
    served = replace(model, net=copied(model.net, sharing_weights=True).eval())
    shape = (1, model.preprocess.channels, *model.preprocess.size)
    probe = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    linear = _linear_of(served, of_bytes(torch.from_numpy(probe)).to(model.device))
    found = find_head(model)
    head = None if isinstance(found, str) else found

    def run(pixels: Bytes) -> Answers:
        x = of_bytes(torch.from_numpy(np.ascontiguousarray(pixels)).to(model.device))
        with torch.inference_mode(), _caught(served, head, linear) as caught:
            logits = served(x).float()
            values, maps = served.chances(logits), None
            if head is not None:
                maps = summed(rows(head, head.weight.detach(), logits.argmax(1)), caught["maps"])
        return Answers(_array(values), _array(logits), _array(maps), _array(caught.get("features")))

    tried = run(probe)
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
        layers=({"features": linear} if linear else {}) | ({"map": head.layer} if head else {}),
        classifier=model,
    )


def _linear_of(model: Classifier, probe: Tensor) -> str:
    """The name of the last linear layer, or "" where there is none."""
    try:
        return last_linear(model, probe)
    except Refused:
        return ""


@contextmanager
def _caught(model: Classifier, head: Head | None, linear: str) -> Iterator[dict[str, Tensor]]:
    """Inside, what a pass gives at the head is noted: "maps" (B, C, h, w) and "features" (B, D)."""
    caught: dict[str, Tensor] = {}
    handles = []
    if head is not None:

        def keep_maps(_module: nn.Module, _args: Any, out: Any) -> None:
            caught["maps"] = as_maps(out.clone(), head.layout)[0]  # what follows may work in place

        handles.append(module_at(model, head.layer).register_forward_hook(keep_maps))
    if linear:

        def keep_features(_module: nn.Module, args: Any) -> None:
            caught["features"] = args[0].clone()

        handles.append(module_at(model, linear).register_forward_pre_hook(keep_features))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _array(values: Tensor | None) -> Any:
    return None if values is None else values.float().cpu().numpy()
