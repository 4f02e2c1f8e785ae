"""Layer-wise relevance propagation: the target's value is handed back, operation by operation, to the pixels.

Each operation gets the relevance of what it gave and shares it out among what it was given, linear ones by the rules of
lrp_rules.py.  What is kept on the way is added up apart, so that the sum can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from clearsight.core import diagnostics, first_pass, passes
from clearsight.core.model import Model
from clearsight.core.pixel_convolution import with_gap
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.lrp_rules import (
    Change,
    Linear,
    Product,
    Rules,
    box,
    each_picture,
    negative_part,
    positive_part,
    stable,
)
from clearsight.explainers.common.one_output import one_output, slope_of_one
from clearsight.internals.graph import Graph, Values, word
from clearsight.internals.kept_graph import is_kept, single
from clearsight.internals.layers import activations, gradients
from clearsight.internals.recording import hold, note_first_pass, with_graph
from clearsight.internals.relu import open_range
from clearsight.internals.twice_differentiable import back_through_convolution
from clearsight.internals.vjp import vjp

T = TypeVar("T")
aten = torch.ops.aten

WORK = 6  # tensors of an operation's own size that a rule works in
BLOCK = 2**23  # weights that are changed at once, 32 MB
LOST = 1e-2  # what may be missing of the relevance that was put in, as a share of it, before a map is refused

Changing = Callable[[Tensor, Change], Tensor]  # weights, and what is to become of them -> other weights


def changed(w: Tensor, change: Change) -> Tensor:
    return change(w)


LASTING = frozenset({positive_part, negative_part, torch.abs})  # what becomes of weights in every call
KEPT = 2**25  # weights of a network that are kept changed, 128 MB


@dataclass
class Walk:
    """A way back through the network: relevance of every node that has some, and what was kept on the way, (B,)."""

    graph: Graph
    values: Values
    rules: Rules
    pictures: int
    normal: tuple[tuple[float, ...], tuple[float, ...]]  # the preprocessing's mean and std
    relevance: dict[fx.Node, Tensor] = field(default_factory=dict)
    kept: Tensor = field(default_factory=lambda: torch.zeros(()))
    stop: fx.Node | None = None  # where the walk ends, if not at the picture

    def add_relevance(self, node: Any, share: Tensor) -> None:
        if node in self.graph.moving:
            so_far = self.relevance.get(node)
            self.relevance[node] = share if so_far is None else so_far + share

    def absorb(self, kept: Tensor) -> None:
        """What was not handed on, (B,).  Told by the outputs, so that it says nothing of what the inputs got."""
        self.kept = self.kept + kept

    def changing(self, source: Any) -> Changing:
        """How the weights of a node are changed; what becomes of them in every call is kept with the graph."""
        graph = self.graph
        if source not in graph.constants:
            return changed

        def run(w: Tensor, change: Change) -> Tensor:
            key = source, w.storage_offset(), w.shape, change
            if change in LASTING and key not in graph.kept:
                if sum(t.numel() for t in graph.kept.values()) + w.numel() > KEPT:
                    return change(w)
                graph.kept[key] = change(w)
            return graph.kept[key] if change in LASTING else change(w)

        return run

    def bypassing(self) -> Tensor:
        """What is still on its way when a walk stops at a layer: it went past that by other branches, (B,)."""
        goal = self.stop or self.graph.start
        left = [self.each(r) for node, r in self.relevance.items() if node is not goal]
        return torch.stack(left).sum(0) if left else torch.zeros_like(self.kept)

    def each(self, t: Tensor) -> Tensor:
        """The sum for each picture, (B,)."""
        return each_picture(t, self.pictures)


def relevance(
    model: Model,
    x: Tensor,
    target: Target,
    rules: Rules,
    *,
    layer: str = "",
    start: Callable[[Target, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The relevance of what the network is given, or of a layer's output, (B, C, *s), and those values themselves.

    start: target, outputs (B, ...) -> their relevance, of that shape; by default each output's part in the target, the
    output times its gradient, which for a logit or a margin sums to the target.  Notes the diagnostics "conservation
    residual" (what is missing of the sum, as a share of it) and, without a start of its own, "kept by biases" (the
    share of the relevance that biases and stabilisers took).

    Refused: networks with operations that have no rule, and maps that have lost relevance.
    """

    def run(graph: Graph, is_new: bool) -> tuple[Tensor, Tensor]:
        return _in_parts(model, graph, x, target, rules, layer, start, is_new=is_new)

    return with_graph(model, x, run, layer)


def _in_parts(
    model: Model,
    graph: Graph,
    x: Tensor,
    target: Target,
    rules: Rules,
    layer: str,
    start: Callable[[Target, Tensor], Tensor] | None,
    *,
    is_new: bool,
) -> tuple[Tensor, Tensor]:
    """As many pictures at once as memory holds; is_new: the logits of the first ones are held against the network's."""
    if layer and graph.marked is None:
        raise Refused(f"layer {layer} is not run in a forward pass: name another with layer=")
    a, wanted = _by_network(model, graph, x, layer)
    together = len(x)  # of one picture it need not be measured how many fit, nor where all of them are kept
    if len(x) > 1 and not is_kept():
        together = graph.at_once(lambda: model.normalised(x[:1]).to(model.dtype), WORK)
    batches: list[tuple[Tensor, Tensor]] = []
    for rows in torch.split(torch.arange(len(x)), together):
        whole = together >= len(x)
        some, asked = (x, target) if whole else (x[rows.to(x.device)], target[rows])
        values = _values(model, graph, some, a if whole or a is None else a[rows.to(a.device)])
        if is_new and not batches:
            hold(model, some, values[graph.end], layer, wanted)
        batches.append(_some(model, graph, values, some, asked, rules, layer, start))
    shares, inputs = zip(*batches, strict=True)
    return (shares[0], inputs[0]) if len(batches) == 1 else (torch.cat(shares), torch.cat(inputs))


def _by_network(model: Model, graph: Graph, x: Tensor, layer: str) -> tuple[Tensor | None, Tensor | None]:
    """What a layer gives for pictures x, and the logits, where everything behind the layer comes from it.

    The network itself runs the pictures then, and the graph no more than what is behind.
    """
    if not layer or is_kept() or _found_once(nodes_behind, graph) is None:
        return None, None
    a, logits = activations(model, x, layer)
    first_pass.note(model.net, x, logits)
    return a, logits


def _values(model: Model, graph: Graph, x: Tensor, a: Tensor | None) -> Values:
    """The values of all nodes; of those behind the marked layer, where it is told what that gives."""
    behind = None if a is None else _found_once(nodes_behind, graph)
    with torch.set_grad_enabled(is_kept()):
        if a is None or behind is None or graph.marked is None:
            return graph.values(model.normalised(x).to(model.dtype))
        return graph.follow(behind, {graph.marked: a.to(model.dtype)}, len(x))


def _found_once(find: Callable[[Graph], T], graph: Graph) -> T:
    """What is found of the nodes of a graph alone, whatever the weights: once for all networks of its run."""
    known = graph.run_of.found
    if find not in known:
        known[find] = find(graph)
    result: T = known[find]
    return result


def nodes_behind(graph: Graph) -> list[fx.Node] | None:
    """The nodes to run, given the marked layer's output; None where the scores come from elsewhere too."""
    found = {graph.marked}
    for node in graph.nodes:
        if node in graph.moving and all(n in found for n in node.all_input_nodes if n in graph.moving):
            found.add(node)
    return (
        [n for n in graph.nodes if n in found - {graph.marked} or n not in graph.moving] if graph.end in found else None
    )


def _some(
    model: Model,
    graph: Graph,
    values: Values,
    x: Tensor,
    target: Target,
    rules: Rules,
    layer: str,
    start: Callable[[Target, Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    with torch.set_grad_enabled(is_kept()):
        logits = single(values[graph.end])
        note_first_pass(model, x, logits)
        begin = parts_of(target, logits) if start is None else start(target, logits)
        walk = Walk(graph, values, rules, len(x), (model.preprocess.mean, model.preprocess.std))
        walk.stop = graph.marked if layer else None
        walk.add_relevance(graph.end, begin.to(values[graph.end].dtype))
        shares = back_to(walk)
    passes.note(0, len(x))
    whole, put_in = begin.abs().flatten(1).sum(1).clamp_min(1e-12), begin.flatten(1).sum(1)
    residual = (put_in - walk.kept - walk.bypassing() - shares.flatten(1).sum(1)) / whole
    if not bool((residual.abs() <= LOST).all()):
        raise Refused(
            f"{model.source or 'the network'} loses {100 * float(residual.abs().max()):.2g} % of the relevance: these "
            "rules are not stable for it; try lrp(composite=epsilon-plus-flat)"
        )
    diagnostics.note("conservation residual", residual)
    if start is None:
        diagnostics.note("kept by biases", walk.kept / whole * put_in.sign())
    return shares, single(walk.values[walk.stop or graph.start])


def parts_of(target: Target, logits: Tensor) -> Tensor:
    """Each output's part in the target, (B, ...): the output times the gradient."""
    return slope(target, logits) * logits


def raised_class(target: Target, logits: Tensor) -> Tensor:
    """The class whose logit raises the target most, (B,): the one asked about, where a way back starts with a contrast.

    Logits are scaled to at most 1 for it, where no probability is so near to 1 that nothing raises it.
    """
    index = one_output(target, logits)
    if index is not None:
        return index
    return slope(target, logits / logits.abs().amax(1, keepdim=True).clamp_min(1e-12)).argmax(1)


def slope(target: Target, logits: Tensor) -> Tensor:
    """d target / d outputs, (B, ...)."""
    known = slope_of_one(target, logits)
    if known is not None:
        return known
    free = logits if is_kept() else logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        score = target(free)
    return gradients(score, free, "the scores")[0]


def back_to(walk: Walk) -> Tensor:
    """Walk the nodes back to the start, or to where it stops, and return the relevance there."""
    graph, stop = walk.graph, walk.stop
    first = _found_once(_first_layers, graph)
    for node in reversed(graph.nodes):
        if node is stop:
            break
        share = walk.relevance.pop(node, None)
        if share is not None and node in graph.moving:
            try:
                _step(walk, node, share, node in first)
            except Refused:
                if bool(share.any()):
                    raise  # without any relevance no rule is needed, as where a box's sides are made of its cell
        walk.values.pop(node, None)
    goal = stop or graph.start
    if goal not in walk.relevance:
        raise Refused("no relevance reaches " + ("the layer: name another with layer=" if stop else "the pixels"))
    return single(walk.relevance[goal])


def _step(walk: Walk, node: fx.Node, r: Tensor, is_first: bool) -> None:
    name = word(node)
    args, kwargs = walk.graph.arguments(node, walk.values, walk.pictures)
    if name in _LINEAR and sum(a in walk.graph.moving for a in node.all_input_nodes) == 1:
        _linear(walk, node, args, kwargs, r, is_first)
    elif name in ("add", "sub"):
        _sum(walk, node, args, kwargs, r)
    elif name in ("mul", "div"):
        walk.add_relevance(_signal(walk, node), _like(r, walk.values[_signal(walk, node)]))
    elif name in _UNTOUCHED or (name in _FINAL and node is walk.graph.end):
        walk.add_relevance(node.args[0], r)
    elif name in _AVERAGES:
        _average(walk, node, args, kwargs, r)
    elif name == "cat":
        dim = int(args[1]) if len(args) > 1 else 0
        sizes = [part.shape[dim] for part in args[0]]
        nodes: Any = node.args[0]
        for part, share in zip(nodes, torch.split(r, sizes, dim), strict=True):
            walk.add_relevance(part, share)
    elif name == "getitem":
        _item(walk, node, args, r)
    elif name in _SAME_ORDER:
        walk.add_relevance(node.args[0], r.reshape(args[0].shape))
    elif name in _MOVES:
        share = _through(lambda v: node.target(v, *args[1:], **kwargs), args[0], r)  # type: ignore[operator]
        walk.add_relevance(node.args[0], share)
    else:
        raise Refused(
            f"relevance propagation has no rule for {name!r}, which this network runs: use a gradient, "
            "class-activation or perturbation method"
        )


# --- what the operations are ------------------------------------------------------------------------------------------

_LINEAR = frozenset({"convolution", "addmm", "mm", "bmm", "matmul", "linear"})
_UNTOUCHED = frozenset(
    {
        "relu", "hardtanh", "leaky_relu", "_prelu_kernel", "elu", "celu", "selu", "gelu", "silu", "mish",
        "hardswish", "softplus", "tanh", "sigmoid", "hardsigmoid", "clamp", "clamp_min", "native_layer_norm",
        "native_group_norm", "native_batch_norm", "layer_norm", "group_norm", "affine", "mark", "clone", "alias",
        "detach", "_to_copy", "contiguous", "lift_fresh", "dropout"
    }
)  # fmt: skip
_AVERAGES = frozenset(
    {
        "mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
        "adaptive_avg_pool1d", "upsample_bilinear2d", "upsample_nearest2d"
    }
)  # fmt: skip
_MOVES = frozenset(
    {
        "permute", "transpose", "t", "select", "slice", "expand", "constant_pad_nd", "roll", "flip", "unfold", "amax",
        "pixel_shuffle", "pixel_unshuffle", "reflection_pad2d", "replication_pad2d"
    }
)  # fmt: skip
_SAME_ORDER = frozenset({"reshape", "view", "squeeze", "unsqueeze"})  # what is moved by them is only called otherwise
_PARTS = frozenset({"max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d"})
_FINAL = frozenset({"_log_softmax"})  # what takes the same from all scores of a picture
_GATES = ("sigmoid", "hardsigmoid", "_softmax", "tanh", "hardtanh")


def _linear(walk: Walk, node: fx.Node, args: Any, kwargs: Any, r: Tensor, is_first: bool) -> None:
    op, source = _as_linear(walk, node, args, kwargs)
    rules = walk.rules
    rule = rules.dense if _is_dense(node, op, walk.pictures) else rules.conv
    if is_first:
        rule = rules.first
        if rule is box:
            low, high = (_of_a_flat_picture(walk, source, level) for level in (0.0, 1.0))
            op = replace(op, low=low, high=high)
    if rules.last is not None and node in _found_once(_last_layers, walk.graph):
        rule = rules.last(rule)
    share, kept = rule(op, r)
    walk.absorb(kept)
    walk.add_relevance(source, share)


def _as_linear(walk: Walk, node: fx.Node, args: Any, kwargs: Any) -> tuple[Linear, fx.Node]:
    name, z = word(node), walk.values[node]
    none = torch.zeros((), dtype=z.dtype, device=z.device)
    if name == "convolution":
        x, weight, bias, *rest = args
        if node.args[0] not in walk.graph.moving:
            raise Refused(
                "relevance propagation has no rule for a convolution whose weights depend on the picture: use a "
                "gradient, class-activation or perturbation method"
            )

        column = (-1,) + (1,) * (z.dim() - 2)
        added = none if bias is None else bias.view(column)
        forward, back = _convolving(x, weight, rest, walk.changing(node.args[1]))
        op = Linear(x, z, added, forward, back, walk.pictures, **signs_of(walk.graph, node))
        if rest[-1] == 1 and not rest[3]:
            forward, back = _convolving(x[:, :1], weight[:1, :1], rest, changed)
            op = replace(op, thin=Linear(x[:, :1], z, added, forward, back, walk.pictures))
        return op, _node(node.args[0])
    added, at = (args[0] * kwargs.get("beta", 1), 1) if name == "addmm" else (none, 0)
    a, b = args[at], args[at + 1]
    if name == "linear":
        added, b = (args[2] if len(args) > 2 and args[2] is not None else none), b.mT
    times = kwargs.get("alpha", 1)
    if node.args[at] in walk.graph.moving:
        forward, back = _times(b, times, walk.changing(node.args[at + 1]))
        op = Linear(a, z, added, forward, back, walk.pictures, **signs_of(walk.graph, node))
        return op, _node(node.args[at])

    def from_left(v: Tensor, change: Change) -> Tensor:
        out: Tensor = change(a * times) @ v
        return out

    def back_to_right(s: Tensor, change: Change) -> Tensor:
        out: Tensor = change(a * times).mT @ s
        return out

    return Linear(b, z, added, from_left, back_to_right, walk.pictures), _node(node.args[at + 1])


def _convolving(x: Tensor, weight: Tensor, rest: list[Any], changing: Changing) -> tuple[Product, Product]:
    """The convolution of things like x, and the way back."""

    def forward(v: Tensor, change: Change) -> Tensor:
        out: Tensor = aten.convolution.default(*with_gap((v, changing(weight, change), None, *rest)))
        return out

    def back(s: Tensor, change: Change) -> Tensor:
        if is_kept() and not rest[3]:  # it is no transposed one
            return back_through_convolution(s, x, changing(weight, change), tuple(rest))
        args = with_gap((x, changing(weight, change), None, *rest))
        out: Tensor = aten.convolution_backward.default(s, *args, [True, False, False])[0]
        return out

    return forward, back


def _times(weight: Tensor, times: float, changing: Changing) -> tuple[Product, Product]:
    """The product with weights (..., m, n) times a number, and the way back; in blocks of outputs."""
    width = max(1, BLOCK * weight.shape[-1] // max(weight.numel(), 1))
    blocks = torch.split(weight, width, -1)

    def changed_block(block: Tensor, change: Change) -> Tensor:
        return changing(block, change) if times == 1 else change(block * times)

    def forward(v: Tensor, change: Change) -> Tensor:
        return torch.cat([v @ changed_block(block, change) for block in blocks], -1)

    def back(s: Tensor, change: Change) -> Tensor:
        parts = torch.split(s, width, -1)
        share = parts[0] @ changed_block(blocks[0], change).mT
        for part, block in zip(parts[1:], blocks[1:], strict=True):
            share += part @ changed_block(block, change).mT
        return share

    return forward, back


def signs_of(graph: Graph, node: fx.Node) -> dict[str, Any]:
    """What is known of the signs of a linear operation's input and output."""
    moving = next(n for n in node.all_input_nodes if n in graph.moving)
    rectified = node is not graph.end and all(open_range(n) is not None and n.args[0] is node for n in node.users)
    return {"follows_relu": _follows_relu(moving), "rectified": rectified}


_PASSING = frozenset(
    {
        "mark", "clone", "alias", "contiguous", "dropout", "max_pool2d_with_indices", "avg_pool2d", "mean",
        "_adaptive_avg_pool2d", "reshape", "view"
    }
)  # fmt: skip


def _follows_relu(node: Any) -> bool:
    """Whether a value is what a ReLU gave, passed on by nothing that could make it negative."""
    while isinstance(node, fx.Node):
        if open_range(node) is not None:
            return True
        if word(node) not in _PASSING and not (word(node) == "getitem" and node.args[1] == 0):
            return False
        node = node.args[0]
    return False


def _node(a: Any) -> fx.Node:
    assert isinstance(a, fx.Node)
    return a


def _is_dense(node: fx.Node, op: Linear, pictures: int) -> bool:
    """One output row per picture; a matrix product over the places of a picture is a convolution of size 1."""
    return word(node) != "convolution" and op.z.numel() == pictures * op.z.shape[-1]


def _last_layers(graph: Graph) -> set[fx.Node]:
    """The linear operations that no other one comes after."""
    before: set[fx.Node] = set()
    last: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if word(node) in _LINEAR and node not in before:
            last.add(node)
        if word(node) in _LINEAR or node in before:
            before.update(node.all_input_nodes)
    return last


def _first_layers(graph: Graph) -> set[fx.Node]:
    """The linear operations that no other one comes before."""
    after: set[fx.Node] = set()
    first: set[fx.Node] = set()
    for node in graph.nodes:
        if node in graph.moving:
            behind = any(n in after for n in node.all_input_nodes)
            if word(node) in _LINEAR and not behind:
                first.add(node)
            if behind or word(node) in _LINEAR:
                after.add(node)
    return first


def _of_a_flat_picture(walk: Walk, node: fx.Node, level: float) -> Tensor:
    """What a node before the first layer is for one picture of one grey level, black or white."""
    z: Tensor = walk.values[walk.graph.start]
    mean, std = (z.new_tensor(v).view(-1, *[1] * (z.dim() - 2)) for v in walk.normal)
    flat_picture = ((level - mean) / std).expand_as(z[:1])

    def value(n: fx.Node) -> Any:
        if n is walk.graph.start:
            return flat_picture
        known = {a: value(a) for a in n.all_input_nodes if a in walk.graph.moving}
        return walk.graph.run(n, known, 1)

    out: Tensor = value(node)
    return out


def _sum(walk: Walk, node: fx.Node, args: Any, kwargs: Any, r: Tensor) -> None:
    a, b = node.args[:2]
    moving = [n for n in (a, b) if n in walk.graph.moving]
    if len(moving) == 1:
        walk.add_relevance(moving[0], _like(r, walk.values[_node(moving[0])]))
        return
    sign = (-1 if word(node) == "sub" else 1) * kwargs.get("alpha", 1)
    first, second = args[0].expand_as(r), (sign * args[1]).expand_as(r)
    z = first + second
    if walk.rules.by_sign:
        positive = z >= 0
        first, second = (torch.where(positive, t.clamp(min=0), t.clamp(max=0)) for t in (first, second))
        z = first + second
    s = r / stable(z)
    walk.absorb(walk.each(r) - walk.each(s * z))
    walk.add_relevance(a, _like(s * first, args[0]))
    walk.add_relevance(b, _like(s * second, args[1]))


def _average(walk: Walk, node: fx.Node, args: Any, kwargs: Any, r: Tensor) -> None:
    """Averages and sums over places: linear, with weights that are all positive."""

    def run(v: Tensor) -> Tensor:
        out: Tensor = node.target(v, *args[1:], **kwargs)  # type: ignore[operator]
        return out

    x, z = args[0], walk.values[node]
    parts = [x]
    if walk.rules.by_sign and bool((x < 0).any()) and bool((x > 0).any()):
        parts = [x.clamp(min=0), x.clamp(max=0)]
    shares: list[Tensor] = []
    for i, part in enumerate(parts):
        r_part = r if len(parts) == 1 else torch.where((z >= 0) == (i == 0), r, 0.0)
        out = z if part is x else run(part)
        s = r_part / stable(out)
        is_mean = word(node) == "mean" and not kwargs
        shares.append(part * (back_through_mean(s, part, *args[1:]) if is_mean else _through(run, part, s)))
        walk.absorb(walk.each(r_part) - walk.each(s * out))
    walk.add_relevance(node.args[0], shares[0] if len(shares) == 1 else shares[0] + shares[1])


def back_through_mean(s: Tensor, x: Tensor, axes: list[int] | None = None, keepdim: bool = False) -> Tensor:
    """What comes back to x of what comes back to its mean over some axes, s: as autograd gives it, to the bit."""
    over = sorted(axis % x.dim() for axis in axes) if axes else [*range(x.dim())]
    for axis in () if keepdim else over:
        s = s.unsqueeze(axis)
    return s.expand_as(x) / math.prod(x.shape[axis] for axis in over)


def _signal(walk: Walk, node: fx.Node) -> fx.Node:
    """Of a product the factor that is no gate takes all; of a quotient, what is divided."""
    a, b = node.args[:2]
    moving = [n for n in (a, b) if n in walk.graph.moving]
    if len(moving) == 1 and (word(node) == "mul" or moving[0] is a):
        return _node(moving[0])
    if word(node) == "div" and a in walk.graph.moving:
        return _node(a)
    ranks = [_gate_rank(n) for n in moving]
    if len(moving) == 2 and ranks[0] != ranks[1]:
        return _node(moving[0] if ranks[0] > ranks[1] else moving[1])
    raise Refused(
        "relevance propagation has no rule for a product of two signals of which neither is a gate, as this network "
        "computes: use a gradient, class-activation or perturbation method"
    )


def _gate_rank(node: Any) -> int:
    """The lower, the more a gate: which squashing function it comes from."""
    while isinstance(node, fx.Node) and node.op == "call_function":
        if word(node) in _GATES:
            return _GATES.index(word(node))
        if word(node) in ("mul", "div", "add") or word(node) in _MOVES | _SAME_ORDER | {"clone", "alias"}:
            inputs = [n for n in node.args[:2] if isinstance(n, fx.Node) and n.op == "call_function"]
            if len(inputs) != 1:
                break
            node = inputs[0]
            continue
        break
    return len(_GATES)


def _item(walk: Walk, node: fx.Node, args: Any, r: Tensor) -> None:
    """One of the outputs of an operation that has several."""
    parts, number = node.args
    parts = _node(parts)
    inner, kwargs = walk.graph.arguments(parts, walk.values, walk.pictures)
    name = word(parts)
    if name in _UNTOUCHED and number == 0:
        walk.add_relevance(parts.args[0], r)
    elif name == "max_pool2d_with_indices" and number == 0:
        settings = [*inner[1:], *([], 0, 1, False)[len(inner) - 2 :]]
        share = aten.max_pool2d_with_indices_backward.default(r, inner[0], *settings, walk.values[parts][1])
        walk.add_relevance(parts.args[0], share)
    elif name in _PARTS or name in ("split", "split_with_sizes", "unbind", "chunk", "unsafe_split"):
        share = _through(lambda v: parts.target(v, *inner[1:], **kwargs)[number], inner[0], r)  # type: ignore[operator]
        walk.add_relevance(parts.args[0], share)
    else:
        raise Refused(
            f"relevance propagation has no rule for {name!r}, which this network runs: use a gradient, "
            "class-activation or perturbation method"
        )


def _through(run: Callable[[Tensor], Any], x: Tensor, r: Tensor) -> Tensor:
    free = x.detach().requires_grad_()
    with torch.enable_grad():
        out = run(free)
    return vjp(out, free, r)


def _like(share: Tensor, x: Tensor) -> Tensor:
    """Relevance of a result that was broadcast, summed back to the shape of what was broadcast."""
    return share.sum_to_size(x.shape) if share.shape != x.shape else share
