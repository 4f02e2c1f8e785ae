"""Which part of an operation's output changes when a part of its input does, and how that part alone is computed.

For operations along two spatial axes of which each place reads a few places of the input: convolution, pooling,
padding, and what is done to each place by itself.  Their arithmetic is that of Araujo, Norris & Sim 2019, "Computing
receptive fields of convolutional neural networks", doi:10.23915/distill.00021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.internals.graph import Graph, affine, word
from clearsight.internals.pointwise import is_pointwise

Sides = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Boxes:
    """A box in a value (1, C, H, W) for each of W windows, all of the same size.

    starts: (W, 2), its first row and column.  sides: its height and width.
    """

    starts: Tensor
    sides: Sides

    def is_same(self, other: Boxes) -> bool:
        return self.sides == other.sides and torch.equal(self.starts, other.starts)


@dataclass(frozen=True, eq=False)
class Step:
    """How a node is computed where it changes.

    boxes: where its output changes.  reads: for each of its inputs that depend on the picture, the boxes of it that are
    read; places outside it have the value fill.  args: the operation's arguments for boxes that have their borders.
    """

    node: fx.Node
    boxes: Boxes
    reads: dict[fx.Node, Boxes]
    args: tuple[Any, ...]
    fill: float = 0.0


@dataclass(frozen=True)
class _Sliding:
    """Kernel, stride, padding before the first place and dilation along both axes, and the value of the padding."""

    kernel: Sides
    stride: Sides
    padding: Sides
    dilation: Sides = (1, 1)
    fill: float = 0.0


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a graph so far.  boxes: where nodes change; shapes: of the values of all, for one picture."""

    graph: Graph
    boxes: dict[fx.Node, Boxes]
    shapes: dict[fx.Node, torch.Size]


def step_of(known: Known, node: fx.Node) -> Step | None:
    """How a node is computed where it changes; None where that cannot be said, as of global pooling."""
    moving = [n for n in node.all_input_nodes if n not in known.graph.constants]
    if not moving or any(n not in known.boxes for n in moving) or len(known.shapes.get(node, ())) != 4:
        return None
    if any(isinstance(a, fx.Node) for a in node.kwargs.values()):
        return None
    rule = _RULES.get(word(node), _pointwise)
    return rule(known, node, moving)


def _convolution(known: Known, node: fx.Node, moving: list[fx.Node]) -> Step | None:
    source, weight, _, stride, padding, dilation, transposed, *_ = node.args
    if transposed or moving != [source]:
        return None
    kernel = known.graph.constants[weight]  # type: ignore[index]
    sliding = _Sliding(_two(kernel.shape[2:]), _two(stride), _two(padding), _two(dilation))
    return _slid(known, node, sliding, (*node.args[:4], [0, 0], *node.args[5:]))


def _max_pool(known: Known, node: fx.Node, _moving: list[fx.Node]) -> Step | None:
    source, kernel, stride, padding, dilation = _defaults(node, (None, None, (), 0, 1))
    sliding = _Sliding(_two(kernel), _two(stride or kernel), _two(padding), _two(dilation), -inf)
    return _slid(known, node, sliding, (source, kernel, sliding.stride, [0, 0], dilation))


def _average_pool(known: Known, node: fx.Node, _moving: list[fx.Node]) -> Step | None:
    source, kernel, stride, padding, ceil, padding_counts, divisor = _defaults(
        node, (None, None, (), 0, False, True, None)
    )
    sliding = _Sliding(_two(kernel), _two(stride or kernel), _two(padding))
    if ceil or not (padding_counts or sliding.padding == (0, 0)):  # at the border it divides by fewer places
        return None
    return _slid(known, node, sliding, (source, kernel, sliding.stride, [0, 0], False, True, divisor))


def _padding(known: Known, node: fx.Node, _moving: list[fx.Node]) -> Step | None:
    source, pads, value = _defaults(node, (None, None, 0.0))
    if len(pads) != 4:
        return None
    sliding = _Sliding((1, 1), (1, 1), (pads[2], pads[0]), fill=float(value))
    return _slid(known, node, sliding, (source, [0, 0, 0, 0], value))


def _values_of_pool(known: Known, node: fx.Node, moving: list[fx.Node]) -> Step | None:
    """Of a pooling that also gives the places of its values: a step keeps the values alone."""
    if word(moving[0]) not in PAIRS or node.args[1] != 0:
        return None
    boxes = known.boxes[moving[0]]
    return Step(node, boxes, {moving[0]: boxes}, node.args)


def _pointwise(known: Known, node: fx.Node, moving: list[fx.Node]) -> Step | None:
    """A step of an operation that reads the same place of each input."""
    if not _reads_the_same_place(known, node, moving):
        return None
    first = torch.stack([known.boxes[n].starts for n in moving]).amin(0)
    ends = torch.stack([known.boxes[n].starts + torch.tensor(known.boxes[n].sides) for n in moving]).amax(0)
    boxes = _fitting(first, ends - 1, torch.tensor(known.shapes[node][2:]))
    return Step(node, boxes, dict.fromkeys(moving, boxes), node.args)


PAIRS = ("max_pool2d_with_indices",)  # operations that give two values
_RULES: dict[str, Callable[[Known, fx.Node, list[fx.Node]], Step | None]] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _average_pool,
    "constant_pad_nd": _padding,
    "getitem": _values_of_pool,
}
_COPIES = ("clone", "_to_copy", "alias", "detach")


def _reads_the_same_place(known: Known, node: fx.Node, moving: list[fx.Node]) -> bool:
    """Whether each place of the output reads that place alone of each input, and constants that hold for all places."""
    sides = known.shapes[node][2:]
    if any(len(known.shapes[n]) != 4 or known.shapes[n][2:] != sides for n in moving):
        return False
    if node.target is affine:
        return moving == [node.args[0]]
    if word(node) == "cat":
        return len(node.args) > 1 and node.args[1] in (1, -3) and set(moving) == set(node.all_input_nodes)
    constants = [known.graph.constants[n] for n in node.all_input_nodes if n in known.graph.constants]
    alike = all(isinstance(v, Tensor) and all(side == 1 for side in v.shape[-2:]) for v in constants)
    return alike and (is_pointwise(node.target) or word(node) in _COPIES)


def _slid(known: Known, node: fx.Node, sliding: _Sliding, args: tuple[Any, ...]) -> Step:
    """A step of an operation that slides a kernel along its first argument."""
    source = args[0]
    changed = known.boxes[source]
    stride, padding = torch.tensor(sliding.stride), torch.tensor(sliding.padding)
    reach = torch.tensor(sliding.dilation) * (torch.tensor(sliding.kernel) - 1)
    first = -((reach - changed.starts - padding) // stride)  # rounded up
    last = (changed.starts + torch.tensor(changed.sides) - 1 + padding) // stride
    boxes = _fitting(first, last, torch.tensor(known.shapes[node][2:]))
    read = (torch.tensor(boxes.sides) - 1) * stride + reach + 1
    reads = Boxes(boxes.starts * stride - padding, _two(read))
    return Step(node, boxes, {source: reads}, args, sliding.fill)


def _fitting(first: Tensor, last: Tensor, out: Tensor) -> Boxes:
    """The smallest boxes of one size, inside a value of sides out (2,), that hold the places first to last, (W, 2)."""
    first, last = first.clamp_min(0).minimum(out - 1), last.clamp_min(0).minimum(out - 1)
    sides = (last - first + 1).amax(0).clamp_min(1)
    return Boxes(first.minimum(out - sides), _two(sides))


def _defaults(node: fx.Node, defaults: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first arguments of a node, those that are left out by their defaults."""
    return (*node.args[: len(defaults)], *defaults[len(node.args) :])


def _two(value: Any) -> Sides:
    """A number for both axes, or one for each."""
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])
