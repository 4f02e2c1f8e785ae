"""Run corruptions, and check what they return.

Random numbers depend on the picture and the corruption, not on its severity, its options or the picture's neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.catalogue import Call, parse
from clearsight.runner.pictures import check_pictures, run_on_pictures
from clearsight.runner.sharded import UNIT, spelled
from clearsight.sharding.shards import hired, spread


def corrupt(x: Tensor, method: str | Call, *, seed: int = 0, batch: int = SIZE) -> Tensor:
    """Run one corruption, spelled like ``fog(severity=3)``, on pictures x (B, C, H, W) in [0, 1], C 1 or 3.

    -> the same shape on the same device, float32 in [0, 1].  Same seed, same damage, whatever the batch size, the order
    or the neighbours; the severities of one picture share their draws.  Refused: unknown names and severities,
    tensors that are not pictures, and results that are not finite or of another shape; values beyond [0, 1] are
    clipped.

    >>> corrupt(torch.tensor([[[[0.0, 1.0]]]]), "contrast(severity=1)").tolist() == [[[[0.125, 0.875]]]]
    True
    """
    call = parse(method, "corruptions")
    pictures = check_pictures(x)
    if hired() and len(pictures) > UNIT:
        shards = ((part,) for part in torch.split(pictures, UNIT))
        return torch.cat([*spread(_corrupt_shard, (spelled(call, "corruptions"), seed), shards)]).to(x.device)
    out = []
    with torch.no_grad():
        for part in torch.split(pictures, batch):
            with rng.seeded(seed, part, what=call.method.name):
                out.append(run_on_pictures(call, part))
    return torch.cat(out).to(x.device)


def _corrupt_shard(kept: tuple[str | Call, int], x: Tensor) -> Tensor:
    words, seed = kept
    return corrupt(x, words, seed=seed)
