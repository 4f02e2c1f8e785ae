"""The smooth maximum of what reaches each place of a mask from those around it, without a copy of what surrounds each.

The maximum of the values r_k = n_k v_k is sum(r_k e^(s r_k)) / sum(e^(s r_k)), where n_k says how near a place is and
v_k is its value.  Places that are equally near have the same e^(s n v): it is worked out once for each nearness and
each place of the padded mask, and both sums are sums of shifted maps.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

Shift = tuple[slice, ...]
Ring = tuple[float, list[Shift]]  # how near, and where the places of the mask find the values that are so near


def smooth_maximum(rings: list[Ring], beyond: list[int], values: Tensor, sharpness: float) -> Tensor:
    """values (B, *s + 2 beyond), from 0 to 1 -> (B, *s): nearly the largest of what reaches each place; differentiable.

    rings: how much of the values around a place reaches it.  beyond: how far they reach on each axis.
    """
    found: Tensor = _SmoothMaximum.apply(values, rings, beyond, sharpness)
    return found


def rings_of(near: Tensor, beyond: list[int]) -> list[Ring]:
    """Each nearness that occurs in near (k,), of the values around a place row by row, and where these stand."""
    rings: dict[float, list[Shift]] = {}
    offsets = itertools.product(*[range(2 * b + 1) for b in beyond])
    for nearness, offset in zip(near.tolist(), offsets, strict=True):
        shift = tuple(slice(o, o - 2 * b or None) for o, b in zip(offset, beyond, strict=True))
        rings.setdefault(nearness, []).append(shift)
    return [*rings.items()]


class _SmoothMaximum(torch.autograd.Function):
    """Pictures are the last axis, so that shifted maps are long rows; the two sums lie one after the other there."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rings: list[Ring], beyond: list[int], sharpness: float) -> Tensor:
        v = values.movedim(0, -1).contiguous()
        n = len(values)
        sums = v.new_zeros(*[side - 2 * b for side, b in zip(v.shape, beyond, strict=False)], 2 * n)
        powers = v.new_empty(len(rings), *v.shape)
        both = v.new_empty(*v.shape[:-1], 2 * n)
        for power, (nearness, shifts) in zip(powers, rings, strict=True):
            torch.mul(v, sharpness * nearness, out=power).exp_()
            both[..., :n] = power
            torch.mul(power, v, out=both[..., n:]).mul_(nearness)
            for shift in shifts:
                sums += both[shift]
        out = sums[..., n:] / sums[..., :n]
        ctx.save_for_backward(v, powers, sums[..., :n], out)
        ctx.about = rings, beyond, sharpness
        return out.movedim(-1, 0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v, powers, below, out = ctx.saved_tensors
        rings, _, sharpness = ctx.about
        n = v.shape[-1]
        above = g.movedim(0, -1) / below  # the gradient at the upper sum; that at the lower is -above * out
        slopes = torch.cat([above * out * -sharpness, above], -1)
        reached = v.new_empty(*v.shape[:-1], 2 * n)
        total, part = torch.zeros_like(v), torch.empty_like(v)
        for power, (nearness, shifts) in zip(powers, rings, strict=True):
            reached.zero_()
            for shift in shifts:
                reached[shift] += slopes
            torch.mul(v, sharpness * nearness, out=part).add_(1).mul_(reached[..., n:]).add_(reached[..., :n])
            total.addcmul_(part, power, value=nearness)
        return total.movedim(-1, 0), None, None, None
