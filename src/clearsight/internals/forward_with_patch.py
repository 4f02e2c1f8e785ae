"""Scores of pictures that differ from one picture in a window alone: what the window does not reach is computed once.

A convolution reads a few places around each place, so that the window spreads from layer to layer.  Up to the layer
where that has gone so far that it is no longer worth it, only its reach is run, with the borders of the one picture.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from clearsight.core import first_pass, passes
from clearsight.core.model import Model
from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Values, word
from clearsight.internals.patch_plan import ELEMENT, Plan, first, plan_for
from clearsight.internals.patch_rules import Boxes, Step
from clearsight.internals.probe import probed
from clearsight.internals.recording import graph_of

ForwardWithPatch = Callable[[Tensor, Tensor, Tensor], Tensor]

MOST = 0.75  # of the work of whole passes: what is left of it, for the rest to be worth planning
PLAN = 10  # passes in whose time a recorded network is checked, and a plan made and tried
RECORD = 400_000_000  # multiply-adds in whose time one module is recorded, and the passes that come with it
RECORD_PASSES = 8
SAVED = 0.5  # of the work before the first global layer: what is expected to be saved, before the network is recorded
SAME = 1e-5  # of the largest logit: how far a planned change of the logits may be from that of whole passes


def forward_with_patch(
    model: Model, x: Tensor, starts: Tensor, sides: tuple[int, ...]
) -> tuple[Tensor, ForwardWithPatch]:
    """The logits (B, K) of pictures x (B, C, *S), and a function that gives them for pictures with patches.

    The function takes rows (n,), in ascending order, which say of which picture each version is; the numbers (n,) of
    the windows, of starts (W, axes) and these sides, in which it differs; and what stands there, (n, C, *sides).  It
    gives logits (n, K), without a graph.  Each version counts as one pass, also where only a part of it is run.

    Whole passes are run where less would not be worth it, or would not give the same to 1e-5 of the largest logit.
    """
    with torch.no_grad():
        plan = worthwhile_plan(model, x, starts, sides)
        if plan is not None:
            logits = plan.graph(model.normalised(x).to(model.dtype)).to(x.dtype)
            first_pass.note(model.net, x, logits)
            return logits, forward_planned(model, x, plan)
        return model(x), forward_plain(model, x, starts)


def forward_plain(model: Model, x: Tensor, starts: Tensor) -> ForwardWithPatch:
    """By whole passes."""

    def run(rows: Tensor, windows: Tensor, patches: Tensor) -> Tensor:
        versions = x[rows].clone()
        for version, start, patch in zip(versions, starts[windows].tolist(), patches, strict=True):
            version[(..., *[slice(a, a + side) for a, side in zip(start, patch.shape[1:], strict=True)])] = patch
        with torch.no_grad():
            return model(versions)

    return run


def forward_planned(model: Model, x: Tensor, plan: Plan) -> ForwardWithPatch:
    """By a plan."""
    z = model.normalised(x).to(model.dtype)
    values: dict[int, Values] = {}  # of the picture that was asked about last

    def run(rows: Tensor, windows: Tensor, patches: Tensor) -> Tensor:
        passes.note(len(rows))
        inside = model.normalised(patches).to(model.dtype)
        out = []
        with torch.no_grad():
            for row in sorted(set(rows.tolist())):
                if row not in values:
                    values.clear()
                    values[row] = _kept(plan, z[row : row + 1])
                out.append(_through(plan, values[row], windows[rows == row], inside[rows == row]))
        return torch.cat(out).to(x.dtype)

    return run


def worthwhile_plan(model: Model, x: Tensor, starts: Tensor, sides: tuple[int, ...]) -> Plan | None:
    """The plan to follow; None for whole passes."""
    times = len(x) * len(starts)
    if x.dim() != 4 or x.device.type != "cpu" or times * (1 - MOST) < PLAN:
        return None
    try:
        if not _worth_recording(model, x, times):
            return None
        graph = graph_of(model, x[:1])
    except Refused:
        return None
    plan = plan_for(graph, model.normalised(x[:1]).to(model.dtype), starts, (sides[0], sides[1]))
    return plan if plan.share <= MOST and _agrees(model, x[:1], starts, plan) else None


def _worth_recording(model: Model, x: Tensor, times: int) -> bool:
    """Whether recording takes less than it saves in so many passes, by the modules before the first global one."""
    local, total, modules, is_local = 0, 0, 0, True
    for module_run in probed(model, x).runs:
        if not module_run.learns or module_run.shape is None:
            continue
        module = model.net.get_submodule(module_run.name)
        is_local &= isinstance(module, _ConvNd | _BatchNorm) and prod(module_run.shape[2:]) > 1
        work = _work(module, module_run.shape)
        local, total, modules = local + is_local * work, total + work, modules + 1
    return times * local * SAVED >= RECORD_PASSES * total + RECORD * modules


def _work(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds in whose time a module gives its output."""
    weight = getattr(module, "weight", None)
    macs = prod(weight.shape[1:]) if isinstance(weight, Tensor) and weight.dim() > 1 else 0
    return (macs + ELEMENT) * prod(shape)


def _agrees(model: Model, x: Tensor, starts: Tensor, plan: Plan) -> bool:
    """Whether black patches in the first, middle and last window change the logits of x (1, C, H, W) as they should."""
    windows = torch.tensor([0, len(starts) // 2, len(starts) - 1])
    rows = torch.zeros_like(windows)
    patches = x.new_zeros((3, x.shape[1], *plan.boxes.sides))
    with passes.uncounted(), torch.no_grad():
        before = model(x)
        wanted = forward_plain(model, x, starts)(rows, windows, patches) - before
        planned = forward_planned(model, x, plan)(rows, windows, patches)
        change = planned - plan.graph(model.normalised(x).to(model.dtype)).to(x.dtype)
    return bool((change - wanted).abs().max() <= SAME * before.abs().max())


def _kept(plan: Plan, z: Tensor) -> Values:
    """What a plan keeps of one picture z (1, C, H, W)."""
    values = plan.graph.follow([s.node for s in plan.steps], {plan.graph.start: z}, 1, wanted=plan.kept)
    return {n: first(values[n]) for n in plan.kept}


def _through(plan: Plan, one: Values, windows: Tensor, patches: Tensor) -> Tensor:
    """The logits (n, K) of one picture, whose values are kept, with these patches (n, C, h, w) in these windows."""
    boxes = {plan.graph.start: plan.boxes} | {s.node: s.boxes for s in plan.steps}
    last = {used: s for s in plan.steps for used in s.reads}
    values: Values = {plan.graph.start: patches}
    for step in plan.steps:
        inputs: Values = {}
        for used, read in step.reads.items():
            inputs[used] = values[used]
            if not read.is_same(boxes[used]):
                inputs[used] = _cut_out(one[used], read, boxes[used], values[used], windows, step.fill)
        values[step.node] = _run(plan.graph, step, inputs)
        for used in step.reads:
            if last[used] is step and used not in plan.handed:
                del values[used]
    handed: Values = {}
    for node in plan.handed:
        everywhere = Boxes(torch.zeros_like(boxes[node].starts), (one[node].shape[2], one[node].shape[3]))
        handed[node] = _cut_out(one[node], everywhere, boxes[node], values[node], windows)
    out: Tensor = plan.graph.follow(plan.rest, handed, len(windows), wanted={plan.graph.end})[plan.graph.end]
    return out


def _run(graph: Graph, step: Step, inputs: Values) -> Tensor:
    """A node's output in its boxes."""
    if word(step.node) == "getitem":
        (values,) = inputs.values()
        return first(values)

    def look(a: Any) -> Any:
        if isinstance(a, fx.Node):
            return inputs[a] if a in inputs else graph.constants[a]
        return a

    args: Any = fx.node.map_aggregate(step.args, look)
    assert callable(step.node.target)
    return first(step.node.target(*args, **step.node.kwargs))


def _cut_out(one: Tensor, read: Boxes, boxes: Boxes, patches: Tensor, windows: Tensor, fill: float = 0.0) -> Tensor:
    """Boxes (n, C, *read.sides) of one picture's value (1, C, H, W), with patches in it; outside it stands fill."""
    last = one.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if last else torch.contiguous_format
    out = torch.empty((len(windows), one.shape[1], *read.sides), dtype=one.dtype, memory_format=form)
    starts, sides = read.starts[windows], torch.tensor(read.sides)
    if bool((starts < 0).any()) or bool((starts + sides > torch.tensor(one.shape[2:])).any()):
        out.fill_(fill)
    changed = boxes.starts[windows].tolist()
    for box, patch, (top, left), (row, column) in zip(out, patches, starts.tolist(), changed, strict=True):
        _put(box, one[0], -top, -left)
        _put(box, patch, row - top, column - left)
    return out


def _put(box: Tensor, source: Tensor, top: int, left: int) -> None:
    """Write source (C, h, w) into a box (C, H, W), its first place at (top, left), as far as it lies inside."""
    (height, width), (rows, columns) = box.shape[1:], source.shape[1:]
    a, b, c, d = max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)
    if a < b and c < d:
        box[:, a:b, c:d] = source[:, a - top : b - top, c - left : d - left]
