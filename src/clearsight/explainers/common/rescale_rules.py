"""Which way DeepLIFT goes back through each operation of a recorded network; what has no way is refused by name.

Where an operation is linear in what depends on the picture, its gradient is change over change already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from clearsight.core.pixel_convolution import with_gap
from clearsight.errors import Refused
from clearsight.explainers.common.rescale import (
    curve,
    highest,
    length,
    log_softmax,
    log_sum_exp,
    opened,
    peaks,
    product,
    quotient,
    softmax,
    standardised,
    valued,
)
from clearsight.internals.graph import Graph, Rule, Values, word
from clearsight.internals.pointwise import is_pointwise
from clearsight.internals.relu import RELUS, open_range
from clearsight.internals.tape import kind_of

Args = tuple[Any, ...]
Options = dict[str, Any]
aten = torch.ops.aten


def rules(graph: Graph, before: Values, pictures: int) -> dict[str, Rule]:
    """How to run each operation of a graph, given all values of the baseline, so many times.

    Refused: a graph with an operation that has no rule, or that works in a way its rule does not know.
    """
    for node in graph.nodes:
        if node in graph.moving:
            _knows(graph, node, before, pictures)

    def with_baseline(rule: Callable[..., Any]) -> Rule:
        def run(graph: Graph, node: fx.Node, args: Args, kwargs: Options) -> Any:
            was, _ = graph.arguments(node, before, pictures)
            was = tuple(_as_many(b, a) for b, a in zip(was, args, strict=True))
            if rule is _pooled:
                return rule(graph, node, args, kwargs, was, before[node])
            return rule(graph, node, args, kwargs, was)

        return run

    names = {word(node) for node in graph.nodes if node in graph.moving}
    chosen = {name: _RULES.get(name, _by_itself) for name in names if name not in _LINEAR}
    return {name: with_baseline(rule) for name, rule in chosen.items()}


def fits_every_picture(graph: Graph, before: Values) -> bool:
    """Whether the values of one picture can stand beside those of several: all have an axis of pictures alone.

    They have none where pictures share an axis with something else, as the windows of all pictures do.
    """
    for node in graph.moving:
        value, recorded = before.get(node), kind_of(node)  # in a run of two pictures
        if isinstance(value, Tensor) and recorded is not None:
            if any(one != two and one != 1 for one, two in zip(value.shape, recorded.shape, strict=True)):
                return False
        elif isinstance(value, Tensor) and len(value) != 1:
            return False
    return True


def in_pieces(graph: Graph) -> bool:
    """Whether a network is linear but for ReLUs and max-pooling.

    Others may be divided by what is nearly 0 for a flat picture, where numbers that are rounded otherwise count.
    """
    found = graph.run_of.found
    if "in pieces" not in found:
        found["in pieces"] = all(
            _RULES.get(word(node)) in (_rectified, _pooled) or is_linear(graph, node)
            for node in graph.nodes
            if node in graph.moving
        )
    return bool(found["in pieces"])


def is_linear(graph: Graph, node: fx.Node) -> bool:
    """Whether an operation is linear in what depends on the picture."""
    name, moving = word(node), moving_arguments(graph, node)
    rule = _RULES.get(name)
    if rule in (_product, _added_product, _convolution):
        return len(moving) == 1 and not node.kwargs
    if rule is _division:
        return moving == {0} and not node.kwargs
    return rule is None and moving <= _LINEAR.get(name, frozenset())


def moving_arguments(graph: Graph, node: fx.Node) -> set[int]:
    """The positions of the arguments that depend on the picture; -1 for one that is given by name."""
    return set(_moving(graph, node))


def _as_many(was: Any, now: Any) -> Any:
    """The baseline's value, seen as many times as there are pictures."""
    if isinstance(was, Tensor) and isinstance(now, Tensor) and was.shape != now.shape:
        return was.expand_as(now)
    return was


def _knows(graph: Graph, node: fx.Node, before: Values, pictures: int) -> None:
    """Refuse an operation without a rule."""
    name, moving = word(node), set(_moving(graph, node))
    if name == "getitem":
        _refuse_places(graph, node, before)
        return
    if name in _BATCH and _over_the_batch(node, before, pictures):
        raise Refused(
            f"deep-lift has no rule for {name!r} with statistics over the batch: use integrated-gradients on one "
            "picture at a time"
        )
    known = name in _RULES or moving <= _LINEAR.get(name, frozenset())
    if not known and is_pointwise(node.target) and name not in _LINEAR:
        known = len(moving) == 1 and moving <= {0, 1}
    if not known or not _all_numbers(before[node]):
        raise _without_a_rule(name)


def _without_a_rule(name: str) -> Refused:
    return Refused(f"deep-lift has no rule for {name!r}, which this network runs: use integrated-gradients")


def _refuse_places(graph: Graph, node: fx.Node, before: Values) -> None:
    """Of an operation with several results the numbers may be read, not where they came from."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if not _all_numbers(before[node]):
        raise _without_a_rule(f"{word(source)}, its places")


def _all_numbers(value: Any) -> bool:
    """Whether all that is moved is a number with a fractional part; results of several parts are judged one by one."""
    return not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex()


def _moving(graph: Graph, node: fx.Node) -> Iterator[int]:
    """The positions of the arguments that depend on the picture; -1 for one that is given by name."""
    for i, a in enumerate(node.args):
        nodes: list[fx.Node] = []
        fx.node.map_arg(a, nodes.append)
        if any(n in graph.moving for n in nodes):
            yield i
    named: list[fx.Node] = []
    fx.node.map_arg(node.kwargs, named.append)
    if any(n in graph.moving for n in named):
        yield -1


def _over_the_batch(node: fx.Node, before: Values, pictures: int) -> bool:
    """Whether a normalisation's own statistics are of several pictures; each of InstanceNorm's is of one channel."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    recorded = kind_of(source)  # in a run of two pictures
    if recorded is not None:
        return recorded.shape[0] == 2
    return bool(before[source].shape[0] == pictures)


# --- rules: graph, node, its arguments and options, its arguments for the baseline ------------------------------------


def _rectified(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """A ReLU, or a ReLU6."""
    bounds = open_range(node)
    return _by_itself(graph, node, args, kwargs, was) if bounds is None else opened(args[0], was[0], *bounds)


def _by_itself(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """A function of each number."""
    (at,) = _moving(graph, node)
    run: Any = node.target
    value, baseline = args[at], was[at]
    for other in args:
        if isinstance(other, Tensor) and other.dim() >= value.dim():  # a constant that makes it larger
            value, baseline = (t + torch.zeros_like(other) for t in (value, baseline))
    return curve(value, baseline, lambda v: run(*args[:at], v, *args[at + 1 :], **kwargs))


def _product(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    run: Any = node.target
    if set(_moving(graph, node)) != {0, 1}:
        return run(*args, **kwargs)
    return product(args[0], was[0], args[1], was[1], lambda a, b: run(a, b, **kwargs))


def _added_product(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """beta * added + alpha * (a @ b)."""
    run: Any = node.target
    if not {1, 2} <= set(_moving(graph, node)):
        return run(*args, **kwargs)
    times = kwargs.get("alpha", 1) * product(args[1], was[1], args[2], was[2], torch.matmul)
    return valued(kwargs.get("beta", 1) * args[0] + times, run(*args, **kwargs))


def _convolution(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """A convolution whose weights may depend on the picture too."""
    run: Any = node.target
    x, weight, bias, *rest = args
    if not {0, 1} <= set(_moving(graph, node)):
        return run(*with_gap(args), **kwargs)
    out = product(x, was[0], weight, was[1], lambda a, b: run(a, b, None, *rest))
    return out if bias is None else out + bias.view(-1, *[1] * (out.dim() - 2))


def _division(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    run: Any = node.target
    moving = set(_moving(graph, node))
    if kwargs.get("rounding_mode"):
        raise _without_a_rule("div with a rounding mode")
    if moving == {0}:
        return run(*args, **kwargs)
    if moving == {1}:
        return _by_itself(graph, node, args, kwargs, was)
    return quotient(args[0], was[0], args[1], was[1])


def _of_two(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """The larger of two: the first, and what the second is above it; the smaller likewise."""
    if set(_moving(graph, node)) != {0, 1}:
        return _by_itself(graph, node, args, kwargs, was)
    (a, b), (was_a, was_b) = args[:2], was[:2]
    if "max" in word(node):
        return valued(a + curve(b - a, was_b - was_a, torch.relu), torch.maximum(a, b))
    return valued(a - curve(a - b, was_a - was_b, torch.relu), torch.minimum(a, b))


def _max_or_min(graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """torch.max and torch.min are three operations: of two tensors, along an axis, and over all."""
    two = len(args) > 1 and isinstance(args[1], Tensor)
    return (_of_two if two else _extreme)(graph, node, args, kwargs, was)


def _pooled(_graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args, result: Any) -> Any:
    """Max-pooling; result: the baseline's."""
    run: Any = node.target
    return peaks(args[0], was[0], lambda v: run(v, *args[1:], **kwargs), result)


def _extreme(_graph: Graph, node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    """amax, amin, and max and min along an axis, which also say where."""
    x, axes, keep = args[0], args[1] if len(args) > 1 else (), bool(args[2]) if len(args) > 2 else False
    if not _spares_pictures(x, axes):
        raise _without_a_rule(f"{word(node)} over all pictures")
    sign = 1 if "max" in word(node) else -1
    out = sign * highest(sign * x, sign * was[0], _axes(axes))
    out = out if keep else out.squeeze(_axes(axes))
    return out if word(node).startswith("a") else (out, None)


def _axes(axes: Any) -> tuple[int, ...]:
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _spares_pictures(x: Tensor, axes: Any) -> bool:
    """Whether a reduction names its axes, and not that of the pictures."""
    dims = {a % x.dim() for a in _axes(axes)} if axes is not None else set()
    return bool(dims) and 0 not in dims


def _norm(_graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """A vector norm along some axes: of order 2 the root of the squares, of any other by its powers."""
    x, order, axes, keep = (*args, *(2, None, False)[len(args) - 1 :])[:4]
    if not _spares_pictures(x, axes):
        raise _without_a_rule(f"{word(node)} over all pictures")
    axes = _axes(axes)
    if order == 2:
        out = length(x, was[0], axes)
    elif order in (torch.inf, -torch.inf):
        sign = 1 if order > 0 else -1
        out = sign * highest(sign * curve(x, was[0], torch.abs), sign * was[0].abs(), axes)
    elif order:
        powers, was_powers = curve(x, was[0], lambda v: v.abs() ** order), was[0].abs() ** order
        total, was_total = (t.sum(axes, keepdim=True) for t in (powers, was_powers))
        out = curve(total, was_total, lambda v: v ** (1 / order))
    else:
        raise _without_a_rule(f"{word(node)} of order 0")
    out = out if keep else out.squeeze(axes)
    return out if kwargs.get("dtype") is None else out.to(kwargs["dtype"])


def _spread(_graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    """Variance and standard deviation along some axes."""
    x, axes = args[0], args[1] if len(args) > 1 else None
    if not _spares_pictures(x, axes):
        raise _without_a_rule(f"{word(node)} over all pictures")
    axes = _axes(axes)
    number = 1
    for a in axes:
        number *= x.shape[a]
    taken = kwargs.get("correction")
    share = 1 / (number - (1 if taken is None else taken))
    centred, was_centred = (t - t.mean(axes, keepdim=True) for t in (x, was[0]))
    if word(node).startswith("std"):
        out = length(centred, was_centred, axes, share=share)
    else:
        out = product(centred, was_centred, centred, was_centred).sum(axes, keepdim=True) * share
    out, mean = (t if kwargs.get("keepdim") else t.squeeze(axes) for t in (out, x.mean(axes, keepdim=True)))
    return (out, mean) if word(node).endswith("_mean") else out


def _layer_norm(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    x, shape, weight, bias, eps = args
    out = standardised(x, was[0], tuple(range(-len(shape), 0)), eps)
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias,)


def _group_norm(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    x, weight, bias, n, channels, places, groups, eps = args
    rows = (n, groups, channels // groups * places)
    out = standardised(x.reshape(rows), was[0].reshape(rows), (2,), eps).view_as(x)
    return (_scaled(out, weight, bias),)


def _own_batch_norm(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    """BatchNorm as InstanceNorm runs it: every channel of every picture is a channel of one."""
    x, weight, bias = args[:3]
    out = standardised(x, was[0], (0, *range(2, x.dim())), args[-1])
    return (_scaled(out, weight, bias),)


def _scaled(out: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    column = (-1,) + (1,) * (out.dim() - 2)
    out = out if weight is None else out * weight.view(column)
    return out if bias is None else out + bias.view(column)


def _root_mean_square_norm(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    x, shape, weight, eps = (*args, None, None)[:4]
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    number = 1
    for n in shape:
        number *= n
    size = length(x, was[0], axes, eps, 1 / number)
    was_size = (was[0].square().mean(axes, keepdim=True) + eps).sqrt()
    out = quotient(x, was[0], size, was_size)
    return (out if weight is None else out * weight, size.reciprocal())


def _softmax(_graph: Graph, node: fx.Node, args: Args, kwargs: Options, was: Args) -> Any:
    run: Any = node.target
    return softmax(args[0], was[0], args[1], lambda v: run(v, *args[1:], **kwargs))


def _log_softmax(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    return log_softmax(args[0], was[0], args[1])


def _log_sum_exp(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    axes = _axes(args[1])
    if not _spares_pictures(args[0], axes):
        raise _without_a_rule("logsumexp over all pictures")
    out = log_sum_exp(args[0], was[0], axes)
    return out if len(args) > 2 and args[2] else out.squeeze(axes)


def _gated(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    """GLU: one half of the channels times the sigmoid of the other."""
    axis = args[1] if len(args) > 1 else -1
    (a, b), (was_a, was_b) = (t.chunk(2, axis) for t in (args[0], was[0]))
    return product(a, was_a, curve(b, was_b, torch.sigmoid), was_b.sigmoid())


def _log_sigmoid(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, was: Args) -> Any:
    return curve(args[0], was[0], F.logsigmoid), None


def _through(_graph: Graph, _node: fx.Node, args: Args, _kwargs: Options, _was: Args) -> Any:
    """detach: the value depends on the picture, whatever its gradient says."""
    return args[0].clone()


POOLS = ("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d")
_SOFTMAX = ("_softmax", "_safe_softmax")
_RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(RELUS, _rectified),
    **dict.fromkeys(("mul", "bmm", "mm", "matmul"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _added_product),
    "convolution": _convolution,
    "div": _division,
    **dict.fromkeys(POOLS, _pooled),
    **dict.fromkeys(("amax", "amin"), _extreme),
    **dict.fromkeys(("max", "min"), _max_or_min),
    **dict.fromkeys(("maximum", "minimum"), _of_two),
    "linalg_vector_norm": _norm,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _spread),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_fused_rms_norm": _root_mean_square_norm,
    **dict.fromkeys(_SOFTMAX, _softmax),
    "_log_softmax": _log_softmax,
    "logsumexp": _log_sum_exp,
    "glu": _gated,
    "log_sigmoid_forward": _log_sigmoid,
    "detach": _through,
}

_BATCH = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
_RULES |= dict.fromkeys(_BATCH, _own_batch_norm)

# operations that are linear in the arguments at these positions, where no others depend on the picture
_LINEAR: dict[str, frozenset[int]] = {
    **dict.fromkeys(("add", "sub", "rsub", "slice_scatter", "select_scatter", "copied", "lerp"), frozenset({0, 1})),
    "where": frozenset({1, 2}),
    "linear": frozenset({0}),
    **dict.fromkeys(
        (
            "neg", "sum", "mean", "cumsum", "affine", "mark", "clone", "alias", "_to_copy", "contiguous",
            "lift_fresh", "lift_fresh_copy", "dropout", "cat", "stack", "reshape", "view", "permute", "transpose", "t",
            "squeeze", "unsqueeze", "select", "slice", "expand", "as_strided", "diagonal", "unfold", "narrow",
            "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
            "replication_pad2d", "replication_pad3d", "roll", "flip", "rot90", "repeat", "repeat_interleave",
            "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "index", "index_select", "gather", "masked_fill",
            "tril", "triu", "split", "split_with_sizes", "unbind", "chunk", "unsafe_split", "getitem", "im2col",
            "col2im", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
            "adaptive_avg_pool1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
            "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d",
            "_upsample_bilinear2d_aa", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
            "grid_sampler_2d", "grid_sampler_3d", "_fft_r2c", "_fft_c2r", "_fft_c2c", "view_as_real",
            "view_as_complex", "real", "imag", "unflatten", "flatten", "movedim", "ones_like",
            "zeros_like", "full_like"
        ),
        frozenset({0}),
    ),
}  # fmt: skip
