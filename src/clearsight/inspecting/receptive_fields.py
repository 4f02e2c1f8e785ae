"""Receptive fields, followed through a run of a network operation by operation.

Each tensor that depends on the picture carries, for each axis of the picture, which of its own axes lies along it and
which pixels one place there sees.  The arithmetic of kernel, stride, dilation and padding is that of Araujo, Norris &
Sim 2019, "Computing receptive fields of convolutional neural networks", doi:10.23915/distill.00021; where branches
meet, the box around both is taken, and all channels of a tensor are taken together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from clearsight.internals.pointwise import is_pointwise


@dataclass(frozen=True)
class Axis:
    """One axis of the picture in a tensor: place p along its axis ``dim`` sees pixels low + p*step to high + p*step.

    dim: None where no axis of the tensor lies along it any more.  whole: it also sees all of the axis, as behind
    global pooling.  merged: other things lie along the same axis of the tensor, as in a row of tokens; there it has
    ``size`` places, ``inner`` numbers of the row apart, or size 0 where tokens were added or taken away.
    """

    dim: int | None
    low: int = 0
    high: int = 0
    step: int = 1
    whole: bool = False
    merged: bool = False
    inner: int = 1
    size: int = 0


View = tuple[Axis, ...]  # one for each axis of the picture
Rule = Callable[[list[View | None], Sequence[Any], dict[str, Any], Tensor], View | None]


class UnknownViewError(Exception):
    """The receptive field of a tensor is not known."""


def start(z: Tensor) -> View:
    """What pictures z (B, C, *S) see: each pixel itself."""
    return tuple(Axis(d) for d in range(2, z.dim()))


def sees(op: Any, views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View:
    """What the first output of an operation sees.

    views: of its tensors, in the order of ``tensors``; None for those that do not depend on the picture.
    Raises UnknownViewError where that is not known.
    """
    name = str(op.overloadpacket.__name__)
    rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if rule is None and is_pointwise(op):
        rule = _pointwise
    view = rule(views, args, kwargs, out) if rule else None
    if view is None:
        raise UnknownViewError(name.strip("_"))
    return view


def tensors(args: Any) -> list[Tensor]:
    """All tensors among arguments, those in lists too."""
    if isinstance(args, Tensor):
        return [args]
    return [t for a in args for t in tensors(a)] if isinstance(args, list | tuple) else []


def union(views: Sequence[View]) -> View | None:
    """The box around what several tensors of one shape see."""
    first, *others = views
    for other in others:
        axes = [_union(a, b) for a, b in zip(first, other, strict=True)]
        if any(m is None for m in axes):
            return None
        first = tuple(m for m in axes if m is not None)
    return first


def _union(a: Axis, b: Axis) -> Axis | None:
    if a.dim is None or b.dim is None:
        axis = b if a.dim is None else a
        return replace(axis, whole=True)
    if a.dim != b.dim:
        return _seen_whole(a)
    if a.step != b.step:
        return None
    box = replace(a, low=min(a.low, b.low), high=max(a.high, b.high), whole=a.whole or b.whole)
    return box if (a.merged, a.inner, a.size) == (b.merged, b.inner, b.size) else _scattered(box)


def _scattered(a: Axis) -> Axis:
    return replace(a, merged=True, inner=1, size=0)


def _seen_whole(a: Axis) -> Axis:
    return replace(a, dim=None, whole=True)


def _shifted(a: Axis, places: int) -> Axis:
    return replace(a, low=a.low + places * a.step, high=a.high + places * a.step)


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return values * n if len(values) == 1 else values


def _windowed(
    view: View, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, n: int, mixes_channels: bool
) -> View | None:
    k, p, d = (_tuple(v, n) for v in (kernel, padding, dilation))
    s = _tuple(stride, n) if stride not in ((), []) else k
    axes = []
    for a in view:
        j = None if a.dim is None else a.dim - (x.dim() - n)
        if j is None or j < -1 or (j == -1 and not mixes_channels):
            axes.append(a)
        elif j == -1:
            axes.append(_seen_whole(a))
        elif a.merged and k[j] > 1:
            return None  # neighbours in the row need not be neighbours in the picture
        else:
            reach = d[j] * (k[j] - 1) - p[j]
            axes.append(replace(a, low=a.low - p[j] * a.step, high=a.high + reach * a.step, step=a.step * s[j]))
    return tuple(axes)


def _only_view(views: list[View | None]) -> View:
    """The only tensor here that depends on the picture."""
    known_views = [v for v in views if v is not None]
    if len(known_views) != 1:
        raise UnknownViewError("an operation on two results")
    return known_views[0]


def _convolution(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x, weight, _bias, stride, padding, dilation, transposed = args[:7]
    n = weight.dim() - 2
    if transposed:
        return _enlarged(_only_view(views), x, weight.shape[2:], stride, padding, dilation, n)
    return _windowed(_only_view(views), x, weight.shape[2:], stride, padding, dilation, n, True)


def _enlarged(view: View, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, n: int) -> View | None:
    """Behind a transposed convolution: the box around what the places see that differ in their remainder by the stride.

    Place o has something of the places (o + padding - t * dilation) / stride, of which t is a place of the kernel.
    """
    k, s, p, d = (_tuple(v, n) for v in (kernel, stride, padding, dilation))
    axes = []
    for a in view:
        j = None if a.dim is None else a.dim - (x.dim() - n)
        if j is None or j < -1:
            axes.append(a)
        elif j == -1:
            axes.append(_seen_whole(a))
        elif a.merged or a.step % s[j]:
            return None
        else:
            step = a.step // s[j]
            low = a.low + (p[j] - d[j] * (k[j] - 1)) * step
            axes.append(replace(a, low=low, high=a.high + p[j] * step, step=step))
    return tuple(axes)


def _upsampled(bilinear: bool) -> Rule:
    """Upsampling by whole factors f: places of a kernel of f places each, or of triangles about twice as wide."""

    def rule(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
        x, view = args[0], _only_view(views)
        sizes = list(zip(out.shape[2:], x.shape[2:], strict=True))
        if any(a % b for a, b in sizes) or (bilinear and args[2]):
            return None
        factors = [a // b for a, b in sizes]
        kernel = [2 * f - f % 2 if bilinear else f for f in factors]
        padding = [f // 2 if bilinear else 0 for f in factors]
        return _enlarged(view, x, kernel, factors, padding, 1, len(factors))

    return rule


def _pool(n: int, dilated: bool) -> Rule:
    def rule(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
        positional = dict(enumerate(args))
        stride, padding = positional.get(2, ()), positional.get(3, 0)
        return _windowed(
            _only_view(views), args[0], args[1], stride, padding, positional.get(4, 1) if dilated else 1, n, False
        )

    return rule


def _adaptive(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x, view, n = args[0], _only_view(views), len(args[1])
    axes = []
    for a in view:
        if a.dim is None or a.dim < x.dim() - n:
            axes.append(a)
            continue
        size, wanted = x.shape[a.dim], out.shape[a.dim]
        if wanted == 1 and size > 1:
            axes.append(_seen_whole(a))
        elif size % wanted or (a.merged and size > wanted):
            return None  # the windows are of several sizes
        else:
            k = size // wanted
            axes.append(replace(a, high=a.high + (k - 1) * a.step, step=a.step * k))
    return tuple(axes)


def _pointwise(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    expanded = []
    for view, t in zip(views, tensors((*args, *kwargs.values())), strict=True):
        if view is not None:
            shift = out.dim() - t.dim()
            moved = [a if a.dim is None else replace(a, dim=a.dim + shift) for a in view]
            spread = [a.dim is not None and t.shape[a.dim - shift] != out.shape[a.dim] for a in moved]
            expanded.append(tuple(_seen_whole(a) if s else a for a, s in zip(moved, spread, strict=True)))
    return union(expanded)


def _same(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return union([v for v in views if v is not None])


def _mixed(view: View, dims: Sequence[int]) -> View:
    return tuple(replace(a, whole=a.whole or a.dim in dims) for a in view)


def _batch_norm(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    own_statistics = args[5] is True or args[3] is None if len(args) > 7 else False  # statistics of the picture itself
    return _mixed(_only_view(views), range(args[0].dim())) if own_statistics else _only_view(views)


def _group_norm(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _mixed(_only_view(views), range(args[0].dim()))


def _layer_norm(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _mixed(_only_view(views), range(args[0].dim() - len(args[1]), args[0].dim()))


def _along(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _mixed(_only_view(views), [int(args[1]) % args[0].dim()])


def _reduced(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x, view = args[0], _only_view(views)
    named_dims = next((a for a in (*args[1:], kwargs.get("dim")) if isinstance(a, list | tuple) and a), None)
    default_dims = args[1:2] if len(args) > 1 and isinstance(args[1], int) else range(x.dim())
    dims: Sequence[int] = default_dims if named_dims is None else named_dims
    return _without(tuple(_seen_whole(a) if a.dim in {d % x.dim() for d in dims} else a for a in view), x, dims, out)


def _without(view: View, x: Tensor, dims: Sequence[int], out: Tensor) -> View:
    """The axes' numbers after some were taken out, where they were."""
    if out.dim() == x.dim():
        return view
    removed = {d % x.dim() for d in dims}
    return tuple(a if a.dim is None else replace(a, dim=a.dim - sum(d < a.dim for d in removed)) for a in view)


def _select(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x, dim = args[0], (args[1] if len(args) > 1 else 0) % args[0].dim()
    return _without(tuple(_seen_whole(a) if a.dim == dim else a for a in _only_view(views)), x, [dim], out)


def _slice(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    arguments = (*args, *(0, None, None, 1)[len(args) - 1 :])
    x, dim, first, by = arguments[0], arguments[1], arguments[2], arguments[4]
    first = first or 0
    if first < 0:
        first += x.shape[dim]
    if any(a.merged and a.dim == dim % x.dim() for a in _only_view(views)):
        if by != 1:
            return None
        return tuple(_scattered(a) if a.dim == dim % x.dim() else a for a in _only_view(views))
    return tuple(
        replace(_shifted(a, first), step=a.step * by) if a.dim == dim % x.dim() else a for a in _only_view(views)
    )


def _split(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].dim()
    view = _only_view(views)
    return None if any(a.dim == dim for a in view) else view  # its parts would begin at different pixels


def _cat(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    known_views = [v for v in views if v is not None]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    if len(known_views) > 1 and any(a.dim == dim for v in known_views for a in v):
        return None
    before = 0
    for view, t in zip(views, tensors(args), strict=True):
        if view is not None and len(known_views) == 1:
            moved = (_scattered(a) if a.merged else _shifted(a, -before) for a in view)
            return tuple(m if a.dim == dim else a for a, m in zip(view, moved, strict=True))
        before += t.shape[dim]
    return union(known_views)


def _picked(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    """Some channels by their numbers: x[:, [0, 2]]."""
    view, numbers = _only_view(views), args[1]
    chosen = [d for d, index in enumerate(numbers) if index is not None]
    if len(chosen) != 1 or numbers[chosen[0]].dim() != 1 or any(a.dim == chosen[0] for a in view):
        return None
    return view


def _copy(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _pointwise(views[1:2], args[1:2], {}, out)


def _stack(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    view = union([v for v in views if v is not None])
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    return None if view is None else _inserted(view, dim)


def _inserted(view: View, dim: int) -> View:
    return tuple(a if a.dim is None or a.dim < dim else replace(a, dim=a.dim + 1) for a in view)


def _unsqueeze(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _inserted(_only_view(views), args[1] % out.dim())


def _expand(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    return _pointwise(views, args[:1], {}, out)


def _permute(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    order = [d % out.dim() for d in args[1]]
    return tuple(a if a.dim is None else replace(a, dim=order.index(a.dim)) for a in _only_view(views))


def _transpose(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    i, j = (d % out.dim() for d in (args[1:] or (0, out.dim() - 1)))
    swap = {i: j, j: i}
    return tuple(a if a.dim is None else replace(a, dim=swap.get(a.dim, a.dim)) for a in _only_view(views))


def _reshaped(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    """Each axis lies where its places lie in the row of all numbers: alone, or with others along a longer axis."""
    x = args[0]
    axes = []
    for a in _only_view(views):
        if a.dim is None:
            axes.append(a)
            continue
        size = a.size or x.shape[a.dim]
        stride = a.inner * prod(x.shape[a.dim + 1 :])
        dim = next((d for d in range(out.dim()) if _holds(out, d, stride, size)), None)
        if dim is None:
            return None
        torn = a.merged and not a.size
        inner = stride // prod(out.shape[dim + 1 :])
        alone = out.shape[dim] == size and not torn
        axes.append(
            replace(a, dim=dim, merged=not alone, inner=1 if torn else inner, size=0 if alone or torn else size)
        )
    return tuple(axes)


def _holds(out: Tensor, d: int, stride: int, size: int) -> bool:
    """Whether places that are so many numbers apart lie along axis d, all of them."""
    inner = prod(out.shape[d + 1 :])
    return inner > 0 and stride % inner == 0 and (inner * out.shape[d]) % (stride * size) == 0


def _as_strided(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    view = _only_view(views)
    return view if all(a.dim is None for a in view) else None


def _squeeze(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x = args[0]
    dims = args[1] if len(args) > 1 else range(x.dim())
    dims = [dims] if isinstance(dims, int) else dims
    dims = [d % x.dim() for d in dims if x.shape[d] == 1]
    return _without(tuple(_seen_whole(a) if a.dim in dims else a for a in _only_view(views)), x, dims, out)


def _padded(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    x, pads = args[:2]
    axes = []
    for a in _only_view(views):
        i = None if a.dim is None else 2 * (x.dim() - 1 - a.dim)
        padding = pads[i] if i is not None and i < len(pads) else 0
        if a.merged and padding:
            return None
        axes.append(_shifted(a, -padding))
    return tuple(axes)


def _product(views: list[View | None], args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
    """Matrix products: what is summed over is seen whole; rows come from the first, columns from the second."""
    products = []
    factors = [t for t in tensors(args) if t.dim() >= 1][-2:]
    if any(v is not None for v in views[:-2]):
        return None  # what is added depends on the picture as well
    for which, (view, t) in enumerate(zip(views[-2:], factors, strict=True)):
        if view is not None:
            last, summed = t.dim() - 1, t.dim() - 1 if which == 0 or t.dim() == 1 else t.dim() - 2
            placed = [replace(a, dim=out.dim() - 1) if which and a.dim == last else a for a in view]
            products.append(tuple(_seen_whole(a) if a.dim == summed else k for a, k in zip(view, placed, strict=True)))
    return union(products)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool(2, True),
    "max_pool3d_with_indices": _pool(3, True),
    "avg_pool2d": _pool(2, False),
    "avg_pool3d": _pool(3, False),
    "upsample_nearest2d": _upsampled(False),
    "upsample_bilinear2d": _upsampled(True),
    "constant_pad_nd": _padded,
    "_unsafe_view": _reshaped,
    "select": _select,
    "unbind": _select,
    "slice": _slice,
    "stack": _stack,
    "cat": _cat,
    "copy": _copy,
    "index": _picked,
    "as_strided": _as_strided,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "permute": _permute,
}
RULES |= dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool2d"), _adaptive)
RULES |= dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), _adaptive)
RULES |= dict.fromkeys(("view", "reshape", "_reshape_alias"), _reshaped)
RULES |= dict.fromkeys(("transpose", "t"), _transpose)
RULES |= dict.fromkeys(("mish", "relu6"), _pointwise)  # which torch does not call so
RULES |= dict.fromkeys(("split", "split_with_sizes"), _split)
RULES |= dict.fromkeys(("clone", "_to_copy", "alias", "detach", "lift_fresh", "mark"), _same)
RULES |= dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax", "cumsum"), _along)
RULES |= dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "var_mean", "max", "min"), _reduced)
RULES |= dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"), _product)
RULES |= dict.fromkeys(("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"), _padded)
RULES |= dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm)
RULES |= {"native_group_norm": _group_norm, "native_layer_norm": _layer_norm}
