"""Layer-wise relevance propagation: the target's value is handed back, operation by operation, to the pixels.

Bach et al. 2015, doi:10.1371/journal.pone.0130140; the rules in one place: Montavon et al. 2019,
doi:10.1007/978-3-030-28954-6_10.  Each operation gets the relevance of what it gave and shares it out among what it
was given.  What a bias or the stabiliser of a division keeps is added up apart, so that the sum can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from clearsight.core import diagnostics, passes
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Values, word
from clearsight.internals.recording import (
    OtherRunError,
    graph_alike,
    graph_of,
    hold,
    known_graph,
    note_first_pass,
)
from clearsight.internals.vjp import vjp

aten = torch.ops.aten

TINY = 1e-6  # added to every divisor with its sign, as a share of the divisors' size in the same picture
WORK = 6  # tensors of an operation's own size that a rule works in
BLOCK = 2**23  # weights that are changed at once, 32 MB
LOST = 1e-2  # what may be missing of the relevance that was put in, as a share of it, before a map is refused


Change = Callable[[Tensor], Tensor]  # weights -> other weights for the same places


def as_is(w: Tensor) -> Tensor:
    return w


def positive_part(w: Tensor) -> Tensor:
    return w.clamp(min=0)


def negative_part(w: Tensor) -> Tensor:
    return w.clamp(max=0)


@dataclass(frozen=True)
class Linear:
    """One linear operation, z = forward(x, as_is) + bias; back(s, as_is) is what of s comes back to x.

    Both take what is to become of the weights first, as a function of them: large ones are changed block by block.
    """

    x: Tensor
    z: Tensor
    bias: Tensor  # of z's shape after broadcasting
    forward: Callable[[Tensor, Change], Tensor]
    back: Callable[[Tensor, Change], Tensor]
    low: Tensor | None = None  # what x is for a black and for a white picture; only where pixels come in
    high: Tensor | None = None
    pictures: int = 1


Shares = tuple[Tensor, Tensor]  # the relevance of x, and how much of z's relevance was handed on to it (of z's shape)
Rule = Callable[[Linear, Tensor], Shares]


@dataclass(frozen=True)
class Rules:
    """Which rule holds where.

    by_sign: sums and averages are shared among the terms that have the sign of the sum.  last: what becomes of the rule
    of a linear layer that no other one comes after.
    """

    first: Rule
    conv: Rule
    dense: Rule
    by_sign: bool = True
    last: Callable[[Rule], Rule] | None = None


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

    def absorb(self, r: Tensor, handed: Tensor) -> None:
        """What of r was not handed on.  Added up at the outputs, so that it says nothing of what the inputs got."""
        self.kept = self.kept + self._each(r) - self._each(handed)

    def bypassing(self) -> Tensor:
        """What is still on its way when a walk stops at a layer: it went past that by other branches, (B,)."""
        goal = self.stop or self.graph.start
        left = [self._each(r) for node, r in self.relevance.items() if node is not goal]
        return torch.stack(left).sum(0) if left else torch.zeros_like(self.kept)

    def _each(self, t: Tensor) -> Tensor:
        """The sum for each picture, (B,)."""
        if len(t) == self.pictures:  # a reshape would copy what is channels_last
            return t.sum(tuple(range(1, t.dim())))
        return t.reshape(self.pictures, -1).sum(1)


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
    graph = known_graph(model, x, layer) or graph_alike(model, x, layer)
    try:
        if graph is not None:
            return _in_parts(model, graph, x, target, rules, layer, start, hold)
    except OtherRunError:
        pass
    return _in_parts(model, graph_of(model, x[:1], layer), x, target, rules, layer, start)


Held = Callable[[Model, Tensor, Tensor, str], None]  # looks at the logits that a graph gave, see `hold`


def _in_parts(
    model: Model,
    graph: Graph,
    x: Tensor,
    target: Target,
    rules: Rules,
    layer: str,
    start: Callable[[Target, Tensor], Tensor] | None,
    held: Held | None = None,
) -> tuple[Tensor, Tensor]:
    """As many pictures at once as memory holds; the logits of the first ones are looked at."""
    if layer and graph.marked is None:
        raise Refused(f"layer {layer} is not run in a forward pass: name another with layer=")
    together = graph.at_once(model.normalised(x[:1]).to(model.dtype), WORK)
    batches = [
        _some(
            model,
            graph,
            x[rows.to(x.device)],
            target[rows] if together < len(x) else target,
            rules,
            layer,
            start,
            held if rows[0] == 0 else None,
        )
        for rows in torch.split(torch.arange(len(x)), together)
    ]
    shares, given = zip(*batches, strict=True)
    return torch.cat(shares), torch.cat(given)


def _some(
    model: Model,
    graph: Graph,
    x: Tensor,
    target: Target,
    rules: Rules,
    layer: str,
    start: Callable[[Target, Tensor], Tensor] | None,
    held: Held | None,
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        values = graph.values(model.normalised(x).to(model.dtype))
        logits = values[graph.end].float()
        if held is not None:
            held(model, x, logits, layer)
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
    return shares, walk.values[walk.stop or graph.start].float()


def parts_of(target: Target, logits: Tensor) -> Tensor:
    """Each output's part in the target, (B, ...): the output times the gradient."""
    return slope(target, logits) * logits


def raised_class(target: Target, logits: Tensor) -> Tensor:
    """The class whose logit raises the target most, (B,): the one asked about, where a way back starts with a contrast.

    Logits are scaled to at most 1 for it, where no probability is so near to 1 that nothing raises it.
    """
    return slope(target, logits / logits.abs().amax(1, keepdim=True).clamp_min(1e-12)).argmax(1)


def slope(target: Target, logits: Tensor) -> Tensor:
    """d target / d outputs, (B, ...)."""
    free = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        score = target(free).sum()
    (g,) = torch.autograd.grad(score, free)
    return g


def back_to(walk: Walk) -> Tensor:
    """Walk the nodes back to the start, or to where it stops, and return the relevance there."""
    graph, stop = walk.graph, walk.stop
    first = _first_layers(graph)
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
    return walk.relevance[goal].float()


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
    elif name in _MOVES:
        share = _through(lambda v: node.target(v, *args[1:], **kwargs), args[0], r)  # type: ignore[operator]
        walk.add_relevance(node.args[0], share)
    else:
        raise Refused(
            f"relevance propagation has no rule for {name!r}, which this network runs: use a gradient, "
            "class-activation or perturbation method"
        )


# --- rules for linear operations --------------------------------------------------------------------------------------


def stable(z: Tensor, share: float = TINY) -> Tensor:
    """z (B, ...), moved away from 0 by a share of its root mean square in each picture."""
    places = tuple(range(1, z.dim()))
    norm = torch.linalg.vector_norm(z, dim=places, keepdim=True)
    size = norm * (share / math.sqrt(max(z[0].numel(), 1))) + max(1e-20, torch.finfo(z.dtype).tiny)
    return torch.copysign(size, z).add_(z)


def epsilon(size: float = TINY) -> Rule:
    """LRP-epsilon: in proportion to each input's part in z; an epsilon above TINY lets weak parts fade."""

    def rule(op: Linear, r: Tensor) -> Shares:
        s = r / stable(op.z, size)
        return op.back(s, as_is) * op.x, (op.z - op.bias).mul_(s)

    return rule


def alpha_beta(alpha: float) -> Rule:
    """LRP-alpha-beta: alpha times the positive parts, less alpha - 1 times the negative ones."""

    def rule(op: Linear, r: Tensor) -> Shares:
        if alpha == 1:
            return positive(op, r)
        up, handed_up = positive(op, alpha * r)
        down, handed_down = positive(negated(op), (alpha - 1) * r)
        return up - down, handed_up - handed_down

    return rule


def negated(op: Linear) -> Linear:
    """The operation with all its weights negated: what spoke for its outputs speaks against them."""
    return replace(
        op,
        z=-op.z,
        bias=-op.bias,
        forward=lambda v, change: op.forward(v, lambda w: change(-w)),
        back=lambda s, change: op.back(s, lambda w: change(-w)),
    )


def positive(op: Linear, r: Tensor) -> Shares:
    """LRP-z+ (alpha 1, beta 0): in proportion to the positive parts alone."""
    parts = signed_parts(op, positive_part, negative_part)
    z = total(op, parts)
    s = r / stable(z + op.bias.clamp(min=0))
    return redistribute(op, parts, s), z.mul_(s)


Parts = list[tuple[Tensor, Change]]  # inputs, and what becomes of the weights that they meet


def signed_parts(op: Linear, for_positive: Change, for_negative: Change) -> Parts:
    """Positive and negative inputs with weights of their own.  There often are no negative ones: what a ReLU gave."""
    if not op.x.numel() or bool(op.x.amin() >= 0):
        return [(op.x, for_positive)]
    return [(op.x.clamp(min=0), for_positive), (op.x.clamp(max=0), for_negative)]


def total(op: Linear, parts: Parts) -> Tensor:
    """What the parts add up to, without a bias; no others' memory, so it may be worked in."""
    z = op.forward(*parts[0])
    for part in parts[1:]:
        z += op.forward(*part)
    return z


def redistribute(op: Linear, parts: Parts, s: Tensor) -> Tensor:
    """The inputs' shares, where each output hands back s times what each part gave to it."""
    (x, change), *others = parts
    share = op.back(s, change).mul_(x)
    for x, change in others:
        share.addcmul_(op.back(s, change), x)
    return share


def gamma(size: float) -> Rule:
    """LRP-gamma: parts of the sign of z count 1 + gamma times, so that they outweigh the others (any sign of input)."""

    def rule(op: Linear, r: Tensor) -> Shares:
        favoured = total(op, signed_parts(op, positive_part, negative_part))
        plain = op.z - op.bias
        is_positive = op.z >= 0
        z = torch.where(is_positive, plain + size * favoured, plain + size * (plain - favoured))
        bias = torch.where(is_positive, op.bias.clamp(min=0), op.bias.clamp(max=0)) * size + op.bias
        s = r / stable(z + bias)

        def more_up(w: Tensor) -> Tensor:
            return w + size * positive_part(w)

        def more_down(w: Tensor) -> Tensor:
            return w + size * negative_part(w)

        share = redistribute(op, signed_parts(op, more_up, more_down), torch.where(is_positive, s, 0.0))
        share = share + redistribute(op, signed_parts(op, more_down, more_up), torch.where(is_positive, 0.0, s))
        return share, z.mul_(s)

    return rule


def influence(op: Linear, r: Tensor) -> Shares:
    """In proportion to the size of each input's part, whichever its sign."""
    parts: Parts = [(op.x.abs(), torch.abs)]
    z = total(op, parts)
    s = r / stable(z)
    return redistribute(op, parts, s), z.mul_(s)


def flat(op: Linear, r: Tensor) -> Shares:
    """LRP-flat: the same for every input that the operation reads."""
    parts: Parts = [(torch.ones_like(op.x), torch.ones_like)]
    z = total(op, parts)
    s = r / stable(z)
    return redistribute(op, parts, s), z.mul_(s)


def box(op: Linear, r: Tensor) -> Shares:
    """LRP-zB: for pixels between black and white, in proportion to x w - low w+ - high w-."""
    assert op.low is not None
    assert op.high is not None
    parts: Parts = [(op.x - op.low, positive_part), (op.x - op.high, negative_part)]
    z = total(op, parts)
    s = r / stable(z)
    return redistribute(op, parts, s), z.mul_(s)


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
        "reshape", "view", "permute", "transpose", "t", "squeeze", "unsqueeze", "select", "slice", "expand",
        "constant_pad_nd", "roll", "flip", "unfold", "amax", "pixel_shuffle", "pixel_unshuffle", "reflection_pad2d",
        "replication_pad2d"
    }
)  # fmt: skip
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
            low, high = (_for_a_flat_picture(walk, source, level) for level in (0.0, 1.0))
            op = replace(op, low=low, high=high)
    if rules.last is not None and node in _last_layers(walk.graph):
        rule = rules.last(rule)
    share, handed = rule(op, r)
    walk.absorb(r, handed)
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

        def forward(v: Tensor, change: Change) -> Tensor:
            out: Tensor = aten.convolution.default(v, change(weight), None, *rest)
            return out

        def back(s: Tensor, change: Change) -> Tensor:
            out: Tensor = aten.convolution_backward.default(s, x, change(weight), None, *rest, [True, False, False])[0]
            return out

        column = (-1,) + (1,) * (z.dim() - 2)
        added = none if bias is None else bias.view(column)
        return Linear(x, z, added, forward, back, pictures=walk.pictures), _node(node.args[0])
    added, at = (args[0] * kwargs.get("beta", 1), 1) if name == "addmm" else (none, 0)
    a, b = args[at], args[at + 1]
    if name == "linear":
        added, b = (args[2] if len(args) > 2 and args[2] is not None else none), b.mT
    times = kwargs.get("alpha", 1)
    if node.args[at] in walk.graph.moving:
        return Linear(a, z, added, *_times(b, times), pictures=walk.pictures), _node(node.args[at])

    def from_left(v: Tensor, change: Change) -> Tensor:
        out: Tensor = change(a * times) @ v
        return out

    def back_to_right(s: Tensor, change: Change) -> Tensor:
        out: Tensor = change(a * times).mT @ s
        return out

    return Linear(b, z, added, from_left, back_to_right, pictures=walk.pictures), _node(node.args[at + 1])


def _times(
    weight: Tensor, times: float
) -> tuple[Callable[[Tensor, Change], Tensor], Callable[[Tensor, Change], Tensor]]:
    """The product with weights (..., m, n) times a number, and the way back; in blocks of outputs."""
    width = max(1, BLOCK * weight.shape[-1] // max(weight.numel(), 1))
    blocks = torch.split(weight, width, -1)

    def changed(block: Tensor, change: Change) -> Tensor:
        return change(block if times == 1 else block * times)

    def forward(v: Tensor, change: Change) -> Tensor:
        return torch.cat([v @ changed(block, change) for block in blocks], -1)

    def back(s: Tensor, change: Change) -> Tensor:
        parts = torch.split(s, width, -1)
        share = parts[0] @ changed(blocks[0], change).mT
        for part, block in zip(parts[1:], blocks[1:], strict=True):
            share += part @ changed(block, change).mT
        return share

    return forward, back


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


def _for_a_flat_picture(walk: Walk, node: fx.Node, level: float) -> Tensor:
    """What a node before the first layer is for a picture of one grey level, black or white."""
    z: Tensor = walk.values[walk.graph.start]
    mean, std = (z.new_tensor(v).view(-1, *[1] * (z.dim() - 2)) for v in walk.normal)
    flat_picture = ((level - mean) / std).expand_as(z)

    def value(n: fx.Node) -> Any:
        if n is walk.graph.start:
            return flat_picture
        known = {a: value(a) for a in n.all_input_nodes if a in walk.graph.moving}
        return walk.graph.run(n, known, walk.pictures)

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
    walk.absorb(r, s * z)
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
    share = torch.zeros_like(x)
    for i, part in enumerate(parts):
        r_part = r if len(parts) == 1 else torch.where((z >= 0) == (i == 0), r, 0.0)
        out = run(part)
        s = r_part / stable(out)
        share = share + part * _through(run, part, s)
        walk.absorb(r_part, s * out)
    walk.add_relevance(node.args[0], share)


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
        if word(node) in ("mul", "div", "add") or word(node) in _MOVES | {"clone", "alias"}:
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
