"""What the runner asks of pictures before a method changes them, and of what the method returns."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.catalogue import Call
from clearsight.errors import Refused


def check_pictures(x: Tensor) -> Tensor:
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


def run_on_pictures(call: Call, x: Tensor) -> Tensor:
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
