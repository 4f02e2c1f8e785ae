"""Up to where a network is run on patches alone: the cut of least counted work."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.core import passes
from clearsight.internals.graph import Graph, word
from clearsight.internals.patch_rules import PAIRS, Boxes, Known, Sides, Step, step_of

ELEMENT = 24  # multiply-adds in whose time one value is written: measured beside 1 x 1 convolutions
CALL = 600_000  # the same for one box that is cut out and put together


@dataclass(frozen=True, eq=False)
class Plan:
    """How pictures go through a network that differ from one picture in a window.

    boxes: the windows.  steps: what runs inside boxes alone.  handed: the values that the rest reads, which runs whole.
    kept: the values of the one picture that steps and the rest read.  share: the counted work, of that of whole passes.
    """

    graph: Graph
    boxes: Boxes
    steps: list[Step]
    handed: list[fx.Node]
    rest: list[fx.Node]
    kept: set[fx.Node]
    share: float


def plan_for(graph: Graph, z: Tensor, starts: Tensor, sides: Sides) -> Plan:
    """The plan of least counted work for windows of these starts (W, 2) and sides in pictures like z (1, C, H, W)."""
    with torch.no_grad(), passes.uncounted():
        shapes = {n: first(v).shape for n, v in graph.values(z).items() if _holds_tensor(v)}
    boxes = {graph.start: Boxes(starts, sides)}
    known = Known(graph, boxes, shapes)
    steps: list[Step] = []
    for node in graph.nodes:
        step = step_of(known, node)
        if step is None:
            break
        steps.append(step)
        boxes[node] = step.boxes
    whole = [_macs(graph, n, shapes) * prod(shapes[n][1:]) if n in shapes else 0 for n in graph.nodes]
    cut, share = best_cut(known, steps, whole)
    handed = _read_later(graph, cut)
    kept = {n for s in steps[:cut] for n, read in s.reads.items() if not read.is_same(boxes[n])} | set(handed)
    return Plan(graph, boxes[graph.start], steps[:cut], handed, graph.nodes[cut:], kept, share)


def first(value: Any) -> Tensor:
    """The values alone of an operation that also gives their places."""
    out = value[0] if isinstance(value, tuple | list) else value
    assert isinstance(out, Tensor)
    return out


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and isinstance(value[0], Tensor))


def best_cut(known: Known, steps: list[Step], whole: list[int]) -> tuple[int, float]:
    """How many steps are worth it, and the share of the work that is then left."""
    total = sum(whole)
    cut, least, inside, after = 0, total, 0, total
    for i, step in enumerate(steps, 1):
        inside += _work(known, step)
        after -= whole[i - 1]
        handed = _read_later(known.graph, i)
        if any(word(n) in PAIRS for n in handed if n is not known.graph.start):
            continue
        work = inside + sum(CALL + ELEMENT * prod(known.shapes[n][1:]) for n in handed) + after
        if work < least:
            cut, least = i, work
    return cut, least / max(total, 1)


def _read_later(graph: Graph, cut: int) -> list[fx.Node]:
    """The nodes before a cut, and the picture itself, that nodes after it read, or that are the outputs themselves."""
    before = {graph.start, *graph.nodes[:cut]}
    read = [n for node in graph.nodes[cut:] for n in node.all_input_nodes if n in before]
    return list(dict.fromkeys([*read, graph.end] if graph.end in before else read))


def _work(known: Known, step: Step) -> int:
    """Multiply-adds in whose time a step is done for one window."""
    shapes = known.shapes
    work = _macs(known.graph, step.node, shapes) * shapes[step.node][1] * prod(step.boxes.sides)
    for source, read in step.reads.items():
        if not read.is_same(known.boxes[source]):
            work += CALL + ELEMENT * shapes[source][1] * prod(read.sides)
    return work


def _macs(graph: Graph, node: fx.Node, shapes: dict[fx.Node, torch.Size]) -> int:
    """Multiply-adds for each value of a node's output, with those in whose time it is written."""
    name = word(node)
    if name == "getitem":
        return 0
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        left = node.args[1 if "add" in name else 0]
        return ELEMENT + (shapes[left][-1] if isinstance(left, fx.Node) and left in shapes else 0)
    weight = graph.constants.get(node.args[1]) if name == "convolution" else None  # type: ignore[arg-type]
    return ELEMENT + (prod(weight.shape[1:]) if isinstance(weight, Tensor) else 0)
