"""The scores of pictures by a network that may draw random numbers."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.model import Model
from clearsight.core.remembered import digest, once, tasks
from clearsight.core.weight_digest import weight_digest
from clearsight.errors import NotFinite
from clearsight.internals.probe import last_probe
from clearsight.sharding.shards import hired, spread


def scores(model: Model, x: Tensor, batch: int | None = None) -> Tensor:
    """Logits (B, K) on the CPU, without a graph; refused where they are not finite.

    A network that is known to draw random numbers is asked about each picture alone, from the same seed.  Inside
    `remembering` it is asked about the same pictures once, while its weights stay as they are.
    """
    if not tasks():
        return _scores(model, x, batch)
    key = ("scores", model.reading, model.preprocess, digest(x), weight_digest(model.net))
    return once(model.net, key, lambda: _scores(model, x, batch))


def _scores(model: Model, x: Tensor, batch: int | None) -> Tensor:
    probe = last_probe(model, x)
    random = probe is not None and probe.repeats == "never"
    if hired() and not random and len(x) > SIZE and model.device.type == "cpu":
        shards = spread(_scores_of_shard, model, ((part,) for part in torch.split(x, SIZE)))
        return finite(model, torch.cat([*shards]))
    parts = []
    with torch.no_grad():
        for part in torch.split(x, 1 if random else batch or SIZE):
            with rng.seeded(0, part) if random else nullcontext():
                parts.append(model(part).float().cpu())
    return finite(model, torch.cat(parts))


def _scores_of_shard(model: Model, x: Tensor) -> Tensor:
    with model.undisturbed():
        return scores(model, x)


def finite(model: Model, logits: Tensor) -> Tensor:
    """The logits themselves; refused where they are not finite."""
    if not bool(logits.isfinite().all()):
        raise NotFinite(f"{model.source or 'the model'} gives scores that are not finite for some of the pictures")
    return logits


def scores_of(model: Model, x: Tensor) -> Tensor:
    """The scores (B, K) of pictures on any device, with the model guarded by ``undisturbed``."""
    with model.undisturbed():
        return scores(model, x.to(model.device))
