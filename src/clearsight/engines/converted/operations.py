"""Operators that are plain operations in torch.  One function per operator: its inputs in order, then its attributes.

They are found by their names: those of ONNX in small letters.  Whole numbers that say where and how much (shapes, axes,
indices) come as NumPy arrays; what the pictures become comes as tensors.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.engines.converted.node import Array, Unknown


def _ints(values: Any) -> list[int]:
    """Whole numbers in whatever they come."""
    if isinstance(values, Tensor):
        raise Unknown("a shape or place that depends on the picture's values")
    return [int(v) for v in np.asarray(values).reshape(-1)]


def add(a: Any, b: Any) -> Any:
    return a + b


def sub(a: Any, b: Any) -> Any:
    return a - b


def mul(a: Any, b: Any) -> Any:
    return a * b


def div(a: Any, b: Any) -> Any:
    return a / b


def pow(a: Tensor, b: Tensor) -> Tensor:
    return a.pow(b)


def neg(x: Tensor) -> Tensor:
    return -x


def abs(x: Tensor) -> Tensor:
    return x.abs()


def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


def reciprocal(x: Tensor) -> Tensor:
    return x.reciprocal()


def exp(x: Tensor) -> Tensor:
    return x.exp()


def log(x: Tensor) -> Tensor:
    return x.log()


def erf(x: Tensor) -> Tensor:
    return x.erf()


def sin(x: Tensor) -> Tensor:
    return x.sin()


def cos(x: Tensor) -> Tensor:
    return x.cos()


def max(*x: Tensor) -> Tensor:
    return _folded(torch.maximum, x)


def min(*x: Tensor) -> Tensor:
    return _folded(torch.minimum, x)


def sum(*x: Tensor) -> Tensor:
    return _folded(torch.add, x)


def mean(*x: Tensor) -> Tensor:
    return _folded(torch.add, x) / len(x)


def _folded(join: Callable[[Tensor, Tensor], Tensor], parts: tuple[Tensor, ...]) -> Tensor:
    whole = parts[0]
    for part in parts[1:]:
        whole = join(whole, part)
    return whole


def hardsigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x.clamp(low, high)


def where(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(which, a, b)


def less(a: Tensor, b: Tensor) -> Tensor:
    return a < b


def greater(a: Tensor, b: Tensor) -> Tensor:
    return a > b


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,  # noqa: N803 (as ONNX calls them)
) -> Tensor:  # fmt: skip
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def einsum(*x: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *x)


def layernormalization(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return F.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def instancenormalization(x: Tensor, weight: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias, eps=epsilon)


def groupnormalization(
    x: Tensor, weight: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return F.group_norm(x, num_groups, weight, bias, epsilon)


def _reduced(x: Tensor, axes: Any, keepdims: int, nothing: int, by: Callable[..., Tensor]) -> Tensor:
    where = [] if axes is None else _ints(axes)
    if not where and nothing:
        return x
    return by(x, where or list(range(x.dim())), bool(keepdims))


def reducemean(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, torch.mean)


def reducesum(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, torch.sum)


def reducemax(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, torch.amax)


def reducemin(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, torch.amin)


def reducelogsumexp(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, torch.logsumexp)


def reducel2(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduced(x, axes, keepdims, noop_with_empty_axes, lambda t, at, keep: t.square().sum(at, keep).sqrt())


def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Array:
    return np.array(tuple(x.shape)[start:end], dtype=np.int64)


def reshape(x: Tensor, shape: Any, *, allowzero: int = 0) -> Tensor:
    wanted = _ints(shape)
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(wanted)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return x.permute(perm or list(range(x.dim()))[::-1])


def squeeze(x: Tensor, axes: Any = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(_ints(axes))


def unsqueeze(x: Tensor, axes: Any) -> Tensor:
    where = _ints(axes)
    whole = x.dim() + len(where)
    for axis in sorted(a % whole for a in where):
        x = x.unsqueeze(axis)
    return x


def concat(*x: Tensor, axis: int) -> Tensor:
    return torch.cat(x, axis)


def split(x: Tensor, sizes: Any = None, *, axis: int = 0, num_outputs: int = 0) -> tuple[Tensor, ...]:
    n = x.shape[axis]
    parts = [-(-n // num_outputs)] * num_outputs if sizes is None else _ints(sizes)
    if sizes is None:
        parts[-1] -= parts[0] * num_outputs - n
    return tuple(torch.split(x, parts, axis))


def slice(x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    first, last = _ints(starts), _ints(ends)
    where = range(len(first)) if axes is None else _ints(axes)
    for a, start, end, step in zip(
        where, first, last, [1] * len(first) if steps is None else _ints(steps), strict=True
    ):
        if step < 1:
            raise Unknown("Slice backwards")
        places = range(x.shape[a])[start:end:step]
        x = x.narrow(a, places.start, len(range(places.start, places.stop))) if len(places) else x.narrow(a, 0, 0)
        if step > 1:
            x = x.index_select(a, torch.arange(0, x.shape[a], step, device=x.device))
    return x


def gather(x: Tensor, places: Any, *, axis: int = 0) -> Tensor:
    if isinstance(places, Tensor):
        raise Unknown("Gather at places that depend on the picture")
    at = np.asarray(places) % x.shape[axis]
    if at.ndim == 0:
        return x.select(axis, int(at))
    chosen = x.index_select(axis, torch.as_tensor(at.reshape(-1), device=x.device))
    axis %= x.dim()
    return chosen.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


def expand(x: Tensor, shape: Any) -> Tensor:
    wanted = _ints(shape)
    return x.broadcast_to(np.broadcast_shapes(tuple(wanted), tuple(x.shape)))


def tile(x: Tensor, times: Any) -> Tensor:
    return x.tile(_ints(times))


def pad(x: Tensor, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Tensor:
    sides = _ints(pads)
    n = len(sides) // 2
    where = list(range(x.dim())) if axes is None else [a % x.dim() for a in _ints(axes)]
    by_axis = {a: (sides[i], sides[n + i]) for i, a in enumerate(where)}
    if mode not in _MODES:
        raise Unknown(f"Pad with mode {mode}")
    if mode != "constant":
        by_axis = {a: pair for a, pair in by_axis.items() if any(pair)}
    first = builtins.min(by_axis, default=x.dim())
    flat = [side for a in reversed(range(first, x.dim())) for side in by_axis.get(a, (0, 0))]
    filled = 0.0 if value is None else float(value)
    return F.pad(x, flat, _MODES[mode], filled if mode == "constant" else None)


_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64}
    if to not in kinds:
        raise Unknown(f"Cast to type {to}")
    return x.to(kinds[to])


def castlike(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:
    return x.to(like.dtype)


def depthtospace(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode != "CRD":
        raise Unknown(f"DepthToSpace with mode {mode}")
    return F.pixel_shuffle(x, blocksize)


def resize(
    x: Tensor, region: Any = None, scales: Any = None, sizes: Any = None, *, mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel", nearest_mode: str = "round_prefer_floor", axes: Any = None,
    antialias: int = 0, exclude_outside: int = 0, keep_aspect_ratio_policy: Any = "stretch",
    cubic_coeff_a: float = -0.75, extrapolation_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """Of pictures (B, C, H, W): linear between the centres of pixels, or the nearest as torch takes it."""
    plain = axes is None and not antialias and not exclude_outside and keep_aspect_ratio_policy == "stretch"
    linear = mode == "linear" and coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel")
    nearest = mode == "nearest" and (coordinate_transformation_mode, nearest_mode) == ("asymmetric", "floor")
    if x.dim() != 4 or not plain or not (linear or nearest):
        raise Unknown(f"Resize with mode {mode}, {coordinate_transformation_mode}")
    if sizes is not None and len(sizes):
        wanted = _ints(sizes)
    else:
        exact = [n * s for n, s in zip(x.shape, torch.as_tensor(scales).tolist(), strict=True)]
        wanted = [round(n) for n in exact]
        if not np.allclose(exact, wanted, rtol=0, atol=1e-4):
            raise Unknown("Resize by a scale that gives no whole number of pixels")
    if wanted[:2] != list(x.shape[:2]):
        raise Unknown("Resize of other axes than those of a picture")
    if linear:
        return F.interpolate(x, wanted[2:], mode="bilinear", align_corners=False)
    return F.interpolate(x, wanted[2:])
