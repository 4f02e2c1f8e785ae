"""What a network gives without single channels of a layer, by no more of what follows the layer than they change.

Pooling and functions of each number keep channels apart: behind them one channel's numbers are others, and all that
are left beside it are the same.  A dense layer behind that is a sum over channels: without one it gives what it gave
less that channel's part, and the parts of all channels take as many products as the dense layer itself.  Which nodes of
the recording these are is read from their operations, whatever the modules are called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, fx

from clearsight.core.batching import at_once, pairs
from clearsight.internals.forward_from_layer import ForwardFrom, Recorded
from clearsight.internals.graph import word
from clearsight.internals.pointwise import is_pointwise
from clearsight.internals.tape import Kind, kind_of

IN_CACHE = 2**20  # of them, where they are worked out element by element
BYTES = 2**24  # of values that what follows is run on at once: weights are read once for all of them

Portion = tuple[Tensor, Tensor, Tensor]

_POOLING = {
    "avg_pool1d": 1, "avg_pool2d": 2, "avg_pool3d": 3, "_adaptive_avg_pool2d": 2, "_adaptive_avg_pool3d": 3,
    "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3, "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3,
}  # fmt: skip
_OVER_AXES = ("mean", "sum", "amax")
_SAME_NUMBERS = ("reshape", "clone", "squeeze", "unsqueeze", "alias")  # in the same order


def without_channels(rest: ForwardFrom, a: Tensor) -> Iterator[Portion]:
    """Logits without each channel of a layer's output a (B, K, *s) in turn: rows (n,), channels (n,), logits (n, ...).

    rest: what follows the layer, of `forward_from`.  A channel is removed by setting it to 0 at all places.  Channels
    without which nothing changes may be left out.
    """
    channels = a.shape[1]
    if not isinstance(rest, Recorded):
        yield from _by_copies(rest, a, torch.zeros_like(a[:1]), channels)
        return
    chain, dense = _found_once(rest, channels)
    now, empty = _with_and_without(rest, chain, a)
    if dense is not None:
        yield from _by_parts(rest, [*chain, dense], _weight_of(rest, dense), now, empty, channels)
    else:
        yield from _by_copies(rest.behind(chain), now, empty, channels)


def parts_of_outputs(rest: ForwardFrom, a: Tensor, index: Tensor) -> Tensor | None:
    """What one output of each picture loses without each channel of a layer's output a (B, K, *s): (B, K).

    index (B,): which outputs.  None where these are not sums over the channels, so that `without_channels` must tell.
    """
    channels = a.shape[1]
    if not isinstance(rest, Recorded):
        return None
    chain, dense = _found_once(rest, channels)
    if dense is None or dense is not rest.graph.end:
        return None
    now, empty = _with_and_without(rest, chain, a)
    parts = (now - empty) * _weight_of(rest, dense).T[index.to(now.device)]
    return parts.reshape(len(a), channels, -1).sum(2).float()


def _with_and_without(rest: Recorded, chain: list[fx.Node], a: Tensor) -> tuple[Tensor, Tensor]:
    """What a chain of nodes behind the layer makes of its output a (B, K, *s), and of an empty one (1, K, *s)."""
    nothing = torch.zeros_like(a[:1])
    now, empty = (rest.graph.follow(chain[1:], {rest.marked: t}, len(t))[chain[-1]] for t in (a, nothing))
    return now, empty


def _by_copies(run: ForwardFrom, now: Tensor, empty: Tensor, channels: int) -> Iterator[Portion]:
    """On a copy of the values (B, ...) for each channel, which is in it as in those of an empty layer (1, ...)."""
    values, none = (t.reshape(len(t), channels, -1) for t in (now, empty))
    alive = (values != none).any(2).nonzero()
    for i, _ in pairs(len(alive), 1, max(at_once(), BYTES // now[0].nbytes)):
        rows, k = alive[i].T
        without = values[rows]
        without[torch.arange(len(i)), k] = none[0, k]
        yield rows, k, run(rows, without.view(len(i), *now.shape[1:]))


def _by_parts(
    rest: Recorded, chain: list[fx.Node], weight: Tensor, now: Tensor, empty: Tensor, channels: int
) -> Iterator[Portion]:
    """By each channel's part in a dense node of weight (K * m, n), for the values (B, ...) and those of an empty layer.

    chain: the nodes up to the dense one.  Where that is the last, its parts are all; what follows another one runs on
    what it gives without each channel.
    """
    *_, source, node = chain
    follow = rest.behind(chain)
    whole = rest.unchanged if node is rest.graph.end else None
    if whole is None or whole.dtype != now.dtype:
        whole = rest.graph.run(node, {source: now}, len(now))
    shape, whole = whole.shape[1:], whole.flatten(1)
    less, weights = (empty - now).reshape(len(now), channels, -1), weight.view(channels, -1, weight.shape[1])
    for rows, k in _portions(less, whole[0].nbytes):
        some = less[rows].transpose(0, 1)[k]
        if some.shape[2] == 1:
            without = torch.addcmul(whole[rows], some, weights[k])
        else:
            without = torch.baddbmm(whole[rows].expand(len(some), -1, -1), some, weights[k])
        channel, row = (
            t.flatten().to(now.device)
            for t in torch.meshgrid(torch.arange(channels)[k], torch.arange(len(now))[rows], indexing="ij")
        )
        without = without.flatten(0, 1)
        if node is not rest.graph.end:
            alive = (some != 0).any(2).flatten()
            row, channel, without = row[alive], channel[alive], without[alive]
        yield row, channel, follow(row, without.reshape(len(without), *shape))


def _portions(values: Tensor, nbytes: int) -> Iterator[tuple[slice, slice]]:
    """Which pictures and channels of values (B, K, m) go together, where each of their pairs gives so many bytes.

    Weights of many numbers for each channel are read once for all pictures.  Those of one are read element by element,
    which is fast for one picture, or for few numbers.
    """
    pictures, channels, numbers = values.shape
    together = pictures if numbers > 1 else min(pictures, max(1, IN_CACHE // (channels * nbytes)))
    few = max(1, BYTES // (together * nbytes))
    for row in range(0, pictures, together):
        for k in range(0, channels, few):
            yield slice(row, row + together), slice(k, k + few)


def _apart(rest: Recorded, channels: int) -> list[fx.Node]:
    """The nodes from the layer on that work on every channel by itself, each of which alone reads the one before."""
    chain, some = [rest.marked], [rest.marked]
    kind, needed = kind_of(rest.marked), {*rest.order}
    while kind:
        readers = [user for user in some[-1].users if user in needed]
        if len(readers) != 1 or not _keeps_apart(rest, readers[0], some[-1], kind, channels):
            break
        some += readers
        if word(some[-1]) not in _POOLING or kind_of(some[-1]):  # else the values are one of its results
            chain, kind = [*some], kind_of(some[-1]) or kind
    return chain


def _keeps_apart(rest: Recorded, node: fx.Node, source: fx.Node, before: Kind, channels: int) -> bool:
    """Whether a node works on every channel of another node's value, of the kind before, by itself.

    Values are laid out channel after channel, whatever their shape is.
    """
    if node.args[0] is not source or any(
        n is not source and n not in rest.graph.constants for n in node.all_input_nodes
    ):
        return False
    name, kind = word(node), kind_of(node)
    if name == "getitem":
        return bool(node.args[1] == 0)
    if name == "affine":  # what is left of a BatchNorm, whose kind was never written down
        return True
    dims = len(before.shape)
    is_whole = dims > 2 and before.shape[1] == channels
    if name in _POOLING:
        return is_whole and dims == 2 + _POOLING[name]
    if kind is None or kind.shape[0] != before.shape[0]:
        return False
    if name in _OVER_AXES:
        axes: Any = node.args[1] if len(node.args) > 1 else None
        return is_whole and isinstance(axes, list | tuple) and all(axis % dims > 1 for axis in axes)
    if name == "permute":
        order: Any = node.args[1]
        long = [axis % dims for axis in order if before.shape[axis] > 1]
        return long == sorted(long)
    return name in _SAME_NUMBERS or (is_pointwise(node.target) and kind.shape == before.shape)


def _found_once(rest: Recorded, channels: int) -> tuple[list[fx.Node], fx.Node | None]:
    """The nodes of `_apart` and that of `_dense_after`, whatever the weights: once for all networks of the run."""
    found = rest.graph.run_of.found
    if ("apart", channels) not in found:
        chain = _apart(rest, channels)
        found["apart", channels] = chain, _dense_after(rest, chain[-1])
    chain, dense = found["apart", channels]
    return chain, dense


def _dense_after(rest: Recorded, source: fx.Node) -> fx.Node | None:
    """The dense layer that alone reads a node; None where there is none."""
    kind, readers = kind_of(source), [user for user in source.users if user in {*rest.order}]
    if len(readers) != 1 or kind is None:
        return None
    (node,) = readers
    held, name = rest.graph.constants, word(node)
    args: Any = node.args
    if any(n is not source and n not in held for n in node.all_input_nodes) or node.kwargs:
        return None
    if name in ("addmm", "mm") and args[-2] is source and len(kind.shape) == 2:
        return node
    if name == "convolution" and args[0] is source and set(kind.shape[2:]) == {1}:
        weight, padding, transposed, groups = held[args[1]], args[4], args[6], args[8]
        if set(weight.shape[2:]) == {1} and not any(padding) and not transposed and groups == 1:
            return node
    return None


def _weight_of(rest: Recorded, dense: fx.Node) -> Tensor:
    """The weight (in, out) of a node of `_dense_after`."""
    is_convolution = word(dense) == "convolution"
    weight: Tensor = rest.graph.constants[cast("fx.Node", dense.args[1 if is_convolution else -1])]
    return weight.flatten(1).T if is_convolution else weight
