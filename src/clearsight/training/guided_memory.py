"""Whether a guided step fits into memory, before the first one is taken."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clearsight.core.catalogue import Call
from clearsight.core.free_memory import free_memory
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused

SPARE = 1.75  # a step works in more than it keeps: 1.3 to 1.7 times as much, of four guides on a ResNet-18
TRIED = 2  # pictures of the step that is measured: BatchNorm in training takes no single one


def must_fit(guide: Call, step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor) -> None:
    """Refuse a guided step that needs more memory than is free, and say how many pictures would fit.

    x (B, C, *S) whose pixels have a gradient, y (B, K), inside (B, 1, *S): a whole batch, of which two pictures are
    tried.  What they keep for their way back is counted and taken times B / 2.  Where the system does not say how much
    is free, nothing is refused.
    """
    free = free_memory(x.device)
    some = x.detach()[:TRIED].requires_grad_()
    each = kept_by(guide, step, some, y[:TRIED], inside[:TRIED]) / len(some) * SPARE
    if free is not None and each * len(x) > free:
        raise Refused(
            f"a step by {guide} of {len(x)} pictures needs about {_giga(each * len(x))}, and {_giga(free)} are free",
            f"--batch {int(free / each)} would fit"
            if free >= TRIED * each
            else "guide by a method that looks at one layer, such as cam-loss, or take smaller pictures with --size",
        )


def kept_by(guide: Call, step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor) -> int:
    """Bytes that a guided step keeps for its way back, parameters and buffers apart; nothing is learnt meanwhile."""
    net = step.model.net
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    buffers = [(b, b.detach().clone()) for b in net.buffers()]
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return t

    def unpack(t: Any) -> Any:
        return t

    devices = [] if x.device.type == "cpu" else [x.device]
    with torch.random.fork_rng(devices=devices), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        kept = guide.method(step, x, y, inside.nan_to_num(1.0), **guide.options)
    del kept
    with torch.no_grad():
        for b, before in buffers:
            b.copy_(before)
    return sum(storages.values())


def _giga(n: float) -> str:
    return f"{n / 2**30:.1f} GB"
