"""Run corruptions, and check what they return.

Random numbers depend on the picture and the corruption, not on its severity, its options or the picture's neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.catalogue import Call, parse
from clearsight.errors import Refused
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
    pictures = _check_pictures(x)
    if hired() and len(pictures) > UNIT:
        shards = ((part,) for part in torch.split(pictures, UNIT))
        return torch.cat([*spread(_corrupt_shard, (spelled(call, "corruptions"), seed), shards)]).to(x.device)
    out = []
    with torch.no_grad():
        for part in torch.split(pictures, batch):
            with rng.seeded(seed, part, what=call.method.name):
                out.append(_run(call, part))
    return torch.cat(out).to(x.device)


def _corrupt_shard(kept: tuple[str | Call, int], x: Tensor) -> Tensor:
    words, seed = kept
    return corrupt(x, words, seed=seed)


def _check_pictures(x: Tensor) -> Tensor:
    """x as float32 on the CPU, in memory of its own, or a refusal."""
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.numel() or x.shape[1] not in (1, 3):
        what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise Refused(f"pictures {what}: give one tensor (B, C, H, W) with 1 (grey) or 3 (RGB) channels")
    if not x.is_floating_point():
        raise Refused(f"pixels of type {x.dtype}: give floats in [0, 1] (x.float() / 255)")
    low, high = (float(v) for v in x.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise Refused(f"pixels run from {low:.3g} to {high:.3g}, not in [0, 1]: divide by 255")
    return x.detach().to("cpu", torch.float32, copy=True)


def _run(call: Call, x: Tensor) -> Tensor:
    """One call on pictures (B, C, H, W), checked; an error in a method of the user's own is refused by its name."""
    name = call.method.name
    try:
        pictures = call.method(x.clone(), **call.options)
    except Refused as e:
        raise Refused(f"{name}: {e}") from e
    except Exception as e:
        if ".py:" not in name:
            raise
        raise Refused(f"{name} failed: {type(e).__name__}: {e}") from e
    if not isinstance(pictures, Tensor) or pictures.shape != x.shape:
        what = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise Refused(f"{name} gave {what}, not pictures {tuple(x.shape)}")
    if not bool(pictures.isfinite().all()):
        raise Refused(f"{name} gave pixels that are not finite")
    return pictures.detach().float().clamp(0, 1)
