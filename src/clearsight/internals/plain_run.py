"""Whether a recorded run treats each picture alone and is differentiated as it is written, whatever the weights.

Then what was measured of one network holds for every one that differs in its weights alone and runs in the same way.
What this file does not know is taken for not plain, and such networks are measured each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from clearsight.internals.graph import word
from clearsight.internals.tape import Taped, kind_of


def is_plain(two: Taped, three: Taped) -> bool:
    """Whether the run of which recordings with two and with three pictures are given is plain.

    Every value that depends on the pictures has a row for each of them and is made of numbers that have slopes; every
    operation on them is known to make each row of that row alone, with a slope that is its own; and Python asked for no
    value, not even of a weight.
    """
    if two.asked or three.asked:
        return False
    moving: set[fx.Node] = set()
    for node, twin in zip(two.graph.nodes, three.graph.nodes, strict=True):
        if node.op == "placeholder":
            moving.add(node)
        elif node.op == "call_function" and not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
            if not (_has_rows(node, twin) and _is_by_rows(node, moving)):
                return False
    return True


def _has_rows(node: fx.Node, twin: fx.Node) -> bool:
    kind, kind_of_three = kind_of(node), kind_of(twin)
    if kind is None or kind_of_three is None:  # several values at once: each of those that are used is looked at
        return all(word(user) == "getitem" for user in node.users)
    if not kind.shape or not kind.dtype.is_floating_point:
        return False
    return 0 < 3 * kind.shape[0] == 2 * kind_of_three.shape[0]  # one or several in a row, as tokens in a linear layer


def _is_by_rows(node: fx.Node, moving: set[fx.Node]) -> bool:
    name = word(node).removesuffix("_copy")
    looks = _LOOKS.get(name)
    if looks is None or (node.kwargs and name not in _POINTWISE):
        return False
    return looks(node, moving)


def _same_rows(node: fx.Node, moving: set[fx.Node]) -> bool:
    """Number by number: rows meet rows, where all that depends on the pictures has as many axes."""
    return len({_axes(n) for n in node.all_input_nodes if n in moving} | {_axes(node)}) == 1


def _of_first(node: fx.Node, moving: set[fx.Node]) -> bool:
    """Only the first argument depends on the pictures."""
    return [n for n in node.all_input_nodes if n in moving] == [node.args[0]]


def _of_second(node: fx.Node, moving: set[fx.Node]) -> bool:
    return [n for n in node.all_input_nodes if n in moving] == [node.args[1]]


def _fixed_statistics(node: fx.Node, moving: set[fx.Node]) -> bool:
    trains = node.args[5] if len(node.args) > 7 else False
    return _of_first(node, moving) and trains is False and node.args[3] is not None


def _spares_rows(node: fx.Node, moving: set[fx.Node]) -> bool:
    """Along axes that are named, of which the rows' is none."""
    axes = node.args[1] if len(node.args) > 1 else None
    named = axes if isinstance(axes, list | tuple) else [axes]
    return (
        _of_first(node, moving) and bool(named) and all(isinstance(a, int) and a % _axes(node.args[0]) for a in named)
    )


def _joined(node: fx.Node, _moving: set[fx.Node]) -> bool:
    parts: Any = node.args[0]
    axis = node.args[1] if len(node.args) > 1 else 0
    return isinstance(axis, int) and axis % _axes(parts[0]) != 0


def _relabelled(node: fx.Node, moving: set[fx.Node]) -> bool:
    """As pooling does with the memory of its result: all numbers of it, in rows of the same size."""
    kind, source = kind_of(node), kind_of(node.all_input_nodes[0])
    sizes = {None if k is None else (k.shape[:1], torch.Size(k.shape).numel()) for k in (kind, source)}
    return _of_first(node, moving) and len(sizes) == 1


def _item(node: fx.Node, _moving: set[fx.Node]) -> bool:
    return True


def _axes(node: Any) -> int:
    kind = kind_of(node)
    return 0 if kind is None else len(kind.shape)


_POINTWISE = frozenset(
    {
        "add", "sub", "mul", "div", "neg", "relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold",
        "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "elu", "celu", "selu", "leaky_relu", "tanh", "softplus",
        "mish", "abs", "exp", "sqrt", "rsqrt", "clone", "copy", "mark", "alias", "bmm",
    }
)  # fmt: skip
_ROWS_STAY = (  # of the one tensor that they work on; that there still are rows is looked at apart
    "convolution", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "view",
    "reshape", "_unsafe_view", "permute", "transpose", "t", "squeeze", "unsqueeze", "constant_pad_nd", "linear", "mm",
    "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle", "native_layer_norm",
)  # fmt: skip
_LOOKS: dict[str, Callable[[fx.Node, set[fx.Node]], bool]] = {
    **dict.fromkeys(_POINTWISE, _same_rows),
    **dict.fromkeys(_ROWS_STAY, _of_first),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _fixed_statistics
    ),
    **dict.fromkeys(("mean", "sum", "amax", "_softmax", "_log_softmax"), _spares_rows),
    "as_strided_": _relabelled,
    "addmm": _of_second,
    "cat": _joined,
    "getitem": _item,
}
