"""How pictures are cut into shards for workers, and how results of shards become one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from clearsight.core.batching import bounded
from clearsight.core.catalogue import Call, catalogue
from clearsight.core.model import Model
from clearsight.core.targets import ClassScore, Goal, Target
from clearsight.errors import Refused
from clearsight.runner.results import Attacked, Explanation
from clearsight.sharding.shards import hired

UNIT = 4  # pictures of a shard; a pass over as many costs a processor 1.04 times what one over 16 does for each
TOGETHER = 16 * UNIT  # pictures that are handed to the runner at once where workers share them


def shards_of(model: Model, x: Tensor, batch: int | None, *, share: bool = False) -> list[slice]:
    """The pictures x (B, C, *S) of each shard; no shards where no workers are hired.

    Small networks get more pictures at once.  share: equal neighbours are of one shard.  Refused: a network that is not
    on the CPU.
    """
    if not hired():
        return []
    require_cpu(model)
    with model.undisturbed(), bounded(model, x[:1], batch) as size:
        unit = max(UNIT, size // UNIT)
    parts = portions(x, torch.arange(len(x)), unit, share=share)
    return [slice(int(rows[0]), int(rows[-1]) + 1) for rows in parts]


def portions(x: Tensor, rows: Tensor, size: int, *, share: bool) -> list[Tensor]:
    """These rows of x (B, ...), size at a time; share: each part goes on to where pictures equal to its last one end.

    >>> [part.tolist() for part in portions(torch.tensor([1, 2, 2, 2, 3]), torch.arange(5), 2, share=True)]
    [[0, 1, 2, 3], [4]]
    """
    parts, start = [], 0
    while start < len(rows):
        stop = min(start + size, len(rows))
        while share and stop < len(rows) and torch.equal(x[int(rows[stop])], x[int(rows[stop - 1])]):
            stop += 1
        parts.append(rows[start:stop])
        start = stop
    return parts


def require_cpu(model: Model) -> None:
    """Refuse a network elsewhere, where workers are hired."""
    if hired() and model.device.type != "cpu":
        raise Refused(f"the network is on {model.device}", "workers compute on the CPU: give device cpu, or no workers")


def spelled(call: Call, kind: str) -> str | Call:
    """What names the call in another process: its spelling; the call itself where no catalogue knows it."""
    known = catalogue(kind).get(call.method.name)
    return str(call) if known is not None or ".py:" in call.method.name else call


T = TypeVar("T", Tensor, Target, Goal)


def of_shard(value: T | None, rows: slice) -> T | None:
    """The part of a value that belongs to these pictures; None stays None."""
    return None if value is None else value[rows]


def joined_explanations(parts: Sequence[Explanation], target: Target | None, began: float) -> Explanation:
    """One explanation of the shards' pictures.

    target: what was asked of them all; None for each one's top class.  began: by the clock `time.perf_counter`.
    """
    first, n = parts[0], sum(len(e.x) for e in parts)
    if target is None:
        targets = [e.target for e in parts]
        classes = [t.index for t in targets if isinstance(t, ClassScore)]
        target = ClassScore(torch.cat(classes), first.target.of if isinstance(first.target, ClassScore) else "logit")
    return Explanation(
        maps=torch.cat([e.maps for e in parts]),
        x=torch.cat([e.x for e in parts]),
        method=first.method,
        target=target,
        forwards=sum(e.forwards * len(e.x) for e in parts) / n,
        backwards=sum(e.backwards * len(e.x) for e in parts) / n,
        seconds=time.perf_counter() - began,
        seed=first.seed,
        model=first.model,
        fingerprint=first.fingerprint,
        labels=first.labels,
        signed=any(e.signed for e in parts),
        diagnostics={name: torch.cat([e.diagnostics[name] for e in parts]) for name in first.diagnostics},
    )


def joined_attacks(parts: Sequence[Attacked], began: float) -> Attacked:
    """One result of the shards' attacks.  began: by the clock `time.perf_counter`."""
    first = parts[0]
    attacked = [max(int((~a.already).sum()), 1) for a in parts]  # as the runner counts passes per picture
    n = max(sum(int((~a.already).sum()) for a in parts), 1)
    spent = [a.spent for a in parts if a.spent is not None]
    queried = [a.first for a in parts if a.first is not None]
    return Attacked(
        x=torch.cat([a.x for a in parts]),
        fooled=torch.cat([a.fooled for a in parts]),
        already=torch.cat([a.already for a in parts]),
        overstep=max(a.overstep for a in parts),
        queries=sum(a.queries * k for a, k in zip(parts, attacked, strict=True)) / n,
        backwards=sum(a.backwards * k for a, k in zip(parts, attacked, strict=True)) / n,
        seconds=time.perf_counter() - began,
        method=first.method,
        eps=first.eps,
        seed=first.seed,
        clean=torch.cat([a.clean for a in parts]),
        norm=first.norm,
        spent=torch.cat(spent) if spent else None,
        first=torch.cat(queried) if queried else None,
    )
