"""The network as the plain operations that it runs, taken by torch.fx, for methods that must go through it one by one.

What Python did in between (classes, loops, dicts, in-place and reused modules, functional calls) leaves no trace in it:
one run of the network is recorded as operations on tensors.  BatchNorm is folded into the convolution before it.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearsight.core import passes
from clearsight.core.classifier import Classifier
from clearsight.core.forwards import coarse_type, in_script, too_coarse
from clearsight.errors import Refused
from clearsight.internals.layers import layout_of, module_at
from clearsight.internals.places import as_maps

Values = dict[fx.Node, Any]
Rule = Callable[["Graph", fx.Node, tuple[Any, ...], dict[str, Any]], Any]  # another way to run a node on its arguments
aten = torch.ops.aten

BYTES = 300 * 2**20  # of values that are kept together; the recording and folded weights come on top, below 1 GB


class Unrecordable(Refused):
    """Raised for a network that runs, but that cannot be taken apart into its operations."""


@torch.library.custom_op("clearsight::mark", mutates_args=())
def mark(x: Tensor) -> Tensor:
    """Marks a layer's output in a recorded run; returns the same values."""
    return x.clone()


mark.register_autograd(lambda _context, g: g)


@dataclass(frozen=True)
class Sized:
    """A size in a recorded operation that grows with the number of pictures: fixed + each * pictures."""

    fixed: int
    each: int

    def of(self, pictures: int) -> int:
        return self.fixed + self.each * pictures


@dataclass(eq=False)
class Graph:
    """One run of a network, from the normalised picture to the logits, as fx nodes in the order of their run.

    moving: the nodes whose value depends on the picture; constants: the values of those that do not.
    """

    nodes: list[fx.Node]
    constants: Values
    moving: set[fx.Node]
    start: fx.Node
    end: fx.Node
    marked: fx.Node | None
    owner: fx.GraphModule = field(repr=False)  # nodes live as long as it does
    sizes: list[int] = field(default_factory=list, repr=False)  # bytes that each node adds, for one picture

    def __call__(self, z: Tensor, rules: Mapping[str, Rule] | None = None) -> Tensor:
        """Logits of normalised pictures z (B, C, *S); differentiable.

        rules: operations to run in another way, by name.
        """
        passes.note(len(z))
        out = self.follow(self.nodes, {self.start: z}, len(z), rules=rules, wanted={self.end})[self.end]
        assert isinstance(out, Tensor)
        passes.await_back(out)
        return out

    def values(self, z: Tensor) -> Values:
        """The value of every moving node, for normalised pictures z (B, C, *S)."""
        passes.note(len(z))
        return self.follow(self.nodes, {self.start: z}, len(z))

    def at_once(self, z: Tensor, work: int, copies: int = 1) -> int:
        """How many pictures like z (1, C, *S), normalised, may be run with all their values kept: as BYTES hold.

        copies: how often each value is kept.  work: what a node needs while it is worked on, in tensors of its size.
        """
        if not self.sizes:
            with torch.no_grad(), passes.uncounted():
                values = self.values(z)
            counted: set[int] = set()
            for node in self.nodes:
                parts = values[node] if isinstance(values[node], list | tuple) else [values[node]]
                storages = {t.untyped_storage().data_ptr(): t for t in parts if isinstance(t, Tensor)}
                self.sizes.append(sum(t.untyped_storage().nbytes() for at, t in storages.items() if at not in counted))
                counted |= storages.keys()
        most = max(copies * total + work * new for total, new in zip(accumulate(self.sizes), self.sizes, strict=True))
        return max(1, BYTES // max(most, 1))

    def follow(
        self,
        order: list[fx.Node],
        values: Values,
        pictures: int,
        *,
        rules: Mapping[str, Rule] | None = None,
        wanted: set[fx.Node] | None = None,
    ) -> Values:
        """Run some nodes in their order, each on what was found before, and add their values to it.

        wanted: the values to keep to the end; others are let go after their last use.  By default all are kept.
        """
        last = {} if wanted is None else {used: node for node in order for used in node.all_input_nodes}
        for node in order:
            values[node] = self.run(node, values, pictures, rules)
            for used in node.all_input_nodes if wanted is not None else ():
                if last[used] is node and used not in (wanted or ()):
                    values.pop(used, None)
        return values

    def arguments(self, node: fx.Node, values: Values, pictures: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a node's operation."""

        def look(a: Any) -> Any:
            if isinstance(a, fx.Node):
                return values[a] if a in values else self.constants[a]
            return a.of(pictures) if isinstance(a, Sized) else a

        args: Any = fx.node.map_aggregate(node.args, look)
        kwargs: Any = fx.node.map_aggregate(node.kwargs, look)
        return args, kwargs

    def run(self, node: fx.Node, values: Values, pictures: int, rules: Mapping[str, Rule] | None = None) -> Any:
        """Run one operation on values that were computed before."""
        args, kwargs = self.arguments(node, values, pictures)
        assert callable(node.target)
        rule = rules.get(word(node)) if rules else None
        return rule(self, node, args, kwargs) if rule else node.target(*args, **kwargs)


def word(node: fx.Node) -> str:
    """The name of a node's operation: "convolution", "relu", "getitem"."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return target if isinstance(target, str) else target.__name__


_graphs: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[Graph, list[tuple[int, int]]]]] = (
    weakref.WeakKeyDictionary()
)  # the graph, and the weights that it was recorded with


def graph_of(model: Classifier, x: Tensor, layer: str = "", *, fold: bool = True) -> Graph:
    """The graph of a model for pictures shaped like x (B, C, *S); layer: the module whose output is to be marked.

    It is recorded once for each network, and again when weights have changed or it no longer gives what the network
    gives, as after a change of what its forward does.

    Refused: networks that cannot be recorded, that draw random numbers, or whose operations depend on the picture.
    """
    in_script_reason = in_script(model.net)
    if in_script_reason is not None:
        raise Unrecordable(*in_script_reason)
    coarse = coarse_type(model.net)
    if coarse is not None:
        raise Unrecordable(*too_coarse(coarse, "the shares of its operations"))
    key = (tuple(x.shape[1:]), x.device, layer, fold, model.output, model.scores)
    weights = _weights(model.net)
    graphs = _graphs.setdefault(model.net, {})
    with passes.uncounted(), torch.no_grad():
        z = model.normalised(x[:1])
        wanted = model.logits(z.clone())  # forward may write into what it is given
        graph, recorded_weights = graphs.get(key, (None, None))
        if graph is None or recorded_weights != weights or not _same_logits(graph, z, wanted):
            graph = record(model, z, layer, fold=fold)
            if not _same_logits(graph, z, wanted):
                raise Unrecordable(
                    "the network does not run in the same way every time, so it cannot be taken apart into its "
                    "operations: use a gradient, class-activation or perturbation method"
                )
            graphs[key] = graph, weights
    return graph


def _weights(net: nn.Module) -> list[tuple[int, int]]:
    """Where every weight and buffer lies, and how often it was written to."""
    tensors = (*net.parameters(), *net.buffers())
    return [(t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors]


def _same_logits(graph: Graph, z: Tensor, wanted: Tensor) -> bool:
    out = graph(z)
    return out.shape == wanted.shape and torch.allclose(out, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def record(model: Classifier, z: Tensor, layer: str, *, fold: bool) -> Graph:
    """Record a run of two pictures and one of three: sizes that differ between them grow with their number."""
    two, three = (_recorded(model, z, layer, n) for n in (2, 3))
    if len(two.graph.nodes) != len(three.graph.nodes):
        raise Unrecordable(
            "the forward pass depends on the batch size, so it cannot be taken apart into its operations"
        )
    twins = dict(zip(three.graph.nodes, two.graph.nodes, strict=True))
    for node_of_three, node_of_two in twins.items():
        if node_of_two.op != node_of_three.op or (
            node_of_two.op == "call_function" and node_of_two.target != node_of_three.target
        ):
            raise Unrecordable(
                "the forward pass depends on the batch size, so it cannot be taken apart into its operations"
            )
        if node_of_two.op == "get_attr":
            _same_constant(getattr(two, str(node_of_two.target)), getattr(three, str(node_of_three.target)))
        node_of_two.args = tuple(_sized(a, b) for a, b in zip(node_of_two.args, node_of_three.args, strict=True))
        node_of_two.kwargs = {k: _sized(v, node_of_three.kwargs[k]) for k, v in node_of_two.kwargs.items()}
    return _prepared(two, fold=fold)


def _recorded(model: Classifier, z: Tensor, layer: str, pictures: int) -> fx.GraphModule:
    def run(z: Tensor) -> Tensor:
        return model.logits(z)

    many = z[:1].expand(pictures, *z.shape[1:]).contiguous()
    with _marking(model, z, layer), warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        try:
            recorded: fx.GraphModule = make_fx(functionalize(run, remove="mutations_and_views"))(many)
        except Refused as e:
            message = str(e.__cause__)  # by torch
            if "tracing tensor" in message or "data-dependent" in message:
                raise Unrecordable(
                    "the network looks at values of the picture to decide what to do, so it cannot be taken apart into "
                    "its operations: use a gradient, class-activation or perturbation method"
                ) from e
            raise Unrecordable(f"the network cannot be taken apart into its operations: {e}") from e
        except (RuntimeError, TypeError, ValueError, AttributeError) as e:
            message = str(e).partition("\n")[0]
            raise Unrecordable(
                f"the network cannot be taken apart into its operations: {type(e).__name__}: {message}"
            ) from e
    recorded.graph.eliminate_dead_code()
    return recorded


@contextmanager
def _marking(model: Classifier, z: Tensor, layer: str) -> Iterator[None]:
    if not layer:
        yield
        return
    places = layout_of(model, z, layer)

    def hook(_module: nn.Module, _inputs: Any, out: Any) -> Tensor:
        if not isinstance(out, Tensor):
            raise Refused(f"layer {layer} gives a {type(out).__name__}, not a tensor: name another with layer=")
        maps, back = as_maps(out, places)
        return back(mark(maps))

    handle = module_at(model, layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _same_constant(a: Any, b: Any) -> None:
    if isinstance(a, Tensor) and a.data_ptr() != b.data_ptr() and not torch.equal(a, b):
        raise Unrecordable(
            "the forward pass uses different constants in each run, so it cannot be taken apart into its operations"
        )


def _sized(a: Any, b: Any) -> Any:
    """The argument of a run of two pictures, given that of a run of three."""
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return a
    if isinstance(a, list | tuple):
        return type(a)(_sized(i, j) for i, j in zip(a, b, strict=True))
    if isinstance(a, int) and not isinstance(a, bool) and a != b:
        return Sized(a - 2 * (b - a), b - a)
    return a


def _prepared(recorded: fx.GraphModule, *, fold: bool) -> Graph:
    """Views that were copies become views, constants are worked out, BatchNorm becomes part of what is before it."""
    g = recorded.graph
    constants: Values = {}
    for node in g.nodes:
        if node.op == "get_attr":
            constants[node] = getattr(recorded, str(node.target)).detach()
        elif node.op == "call_function":
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise Unrecordable(
                    f"the network draws random numbers ({word(node)}), so it cannot be taken apart into its "
                    "operations: use a gradient, class-activation or perturbation method"
                )
            node.target = _as_view(node.target)
            if word(node) in _FILLED:  # of the shape that it names, whatever the picture is
                node.target, node.kwargs = _as_constant(node)
                node.args = node.args[1:]
            if word(node) == "as_strided_":  # pooling of channels_last pictures; where it is more, graph_of sees it
                node.target, node.args = aten.reshape.default, node.args[:2]
            node.target = _out_of_place(node.target)
    for node in reversed(list(g.nodes)):  # what forward wrote into its input is written back at the end: not into ours
        if node.op == "call_function" and node.target is aten.copy_.default and not node.users:
            g.erase_node(node)
    (start,) = (n for n in g.nodes if n.op == "placeholder")
    (end,) = next(n for n in g.nodes if n.op == "output").all_input_nodes
    moving: set[fx.Node] = {start}
    for node in g.nodes:
        if node.op == "call_function" and any(n in moving for n in node.all_input_nodes):
            moving.add(node)
    if end not in moving:
        raise Refused("the network's scores do not depend on the picture: let forward use its input")
    graph = Graph([], constants, moving, start, end, None, recorded)
    for node in g.nodes:
        if node.op == "call_function" and node not in moving and not _grows_with_batch(node):
            constants[node] = graph.run(node, {}, 0)
    if fold:
        _without_batch_norm(graph)
    _with_log_softmax(graph)
    g.eliminate_dead_code()
    graph.end = next(n for n in g.nodes if n.op == "output").all_input_nodes[0]
    graph.nodes = [n for n in g.nodes if n.op == "call_function" and n not in constants]
    marked = [n for n in graph.nodes if word(n) == "mark"]
    if len(marked) > 1:
        raise Refused("the layer runs more than once in a forward pass: name another with layer=")
    graph.marked = marked[0] if marked else None
    return graph


def _as_view(target: Any) -> Any:
    """aten.view_copy -> aten.view: functionalisation records views as copies.  A view may copy where it has to."""
    if target is aten.copy.default:
        return copied
    if target in (aten.view.default, aten._unsafe_view.default, aten.view_copy.default):
        return aten.reshape.default
    if isinstance(target, torch._ops.OpOverload) and target.overloadpacket.__name__.endswith("_copy"):
        packet = getattr(aten, target.overloadpacket.__name__.removesuffix("_copy"), None)
        return getattr(packet, target._overloadname, target) if packet is not None else target
    return target


_FILLED = {"new_zeros": aten.zeros.default, "new_ones": aten.ones.default, "new_full": aten.full.default}


def _as_constant(node: fx.Node) -> tuple[Any, dict[str, Any]]:
    """x.new_zeros(shape) -> zeros(shape) of the same type: such a mask does not depend on the picture."""
    value: Tensor = node.meta["val"]
    return _FILLED[word(node)], {"dtype": value.dtype, "device": value.device}


def _out_of_place(target: Any) -> Any:
    """aten.add_ -> aten.add: what PyTorch's own functions do in place in their own copies; it is read by its result."""
    if not isinstance(target, torch._ops.OpOverload):
        return target
    if torch.Tag.pointwise not in target.tags and torch.Tag.inplace_view not in target.tags:
        return target
    name = target.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") and name[0] != "_" else None
    return target if packet is None else getattr(packet, target._overloadname, target)


def _grows_with_batch(node: fx.Node) -> bool:
    """Whether a constant operation has a size that depends on the number of pictures."""
    sized: list[Sized] = []
    fx.node.map_aggregate((node.args, node.kwargs), lambda a: sized.append(a) if isinstance(a, Sized) else a)
    return bool(sized) or any(_grows_with_batch(n) for n in node.all_input_nodes)


def copied(into: Tensor, source: Tensor) -> Tensor:
    """What a tensor is after source was written over it; unlike aten.copy, gradients flow through it."""
    return source.to(into.dtype).expand_as(into)


def _with_log_softmax(graph: Graph) -> None:
    """The logarithm of probabilities, by which they become logits, is one operation with the softmax before it."""
    g = graph.owner.graph
    for node in list(g.nodes):
        if node.op != "call_function" or word(node) != "log":
            continue
        source = node.args[0]
        while isinstance(source, fx.Node) and source.op == "call_function" and word(source) in ("clamp_min", "clamp"):
            source = source.args[0]
        if isinstance(source, fx.Node) and source.op == "call_function" and word(source) == "_softmax":
            with g.inserting_before(node):
                new = g.call_function(aten._log_softmax.default, tuple(source.args))
            graph.moving.add(new)
            node.replace_all_uses_with(new)


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A scale and a shift for each channel of x (B, C, *s)."""
    column = (-1,) + (1,) * (x.dim() - 2)
    return x * scale.view(column) + shift.view(column)


_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


def _without_batch_norm(graph: Graph) -> None:
    """BatchNorm in eval mode is a scale and a shift for each channel: part of the convolution before it, or alone."""
    g = graph.owner.graph
    for node in list(g.nodes):
        if node.op != "call_function" or word(node) not in _BATCH_NORMS or node not in graph.moving:
            continue
        if any(isinstance(a, fx.Node) and a not in graph.constants for a in node.args[1:5]) or node.args[3] is None:
            continue  # the statistics are the picture's own, as in InstanceNorm
        args, _ = graph.arguments(node, {node.args[0]: None}, 0)
        gamma, beta, mean, var = args[1:5]
        scale = (var + args[-1]).rsqrt() * (1 if gamma is None else gamma)
        shift = -mean * scale + (0 if beta is None else beta)
        out = next(u for u in node.users if word(u) == "getitem" and u.args[1] == 0)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        with g.inserting_before(node):
            if _takes_a_scale(graph, source):
                weight, bias = (graph.constants.get(a) if isinstance(a, fx.Node) else a for a in source.args[1:3])
                assert isinstance(weight, Tensor)
                wide = scale.view(-1, *[1] * (weight.dim() - 1))
                new_weight = _constant(graph, weight * wide)
                new_bias = _constant(graph, shift if bias is None else bias * scale + shift)
                new = g.call_function(
                    aten.convolution.default, (source.args[0], new_weight, new_bias, *source.args[3:])
                )
            else:
                new = g.call_function(affine, (source, _constant(graph, scale), _constant(graph, shift)))
        graph.moving.add(new)
        out.replace_all_uses_with(new)


def _takes_a_scale(graph: Graph, node: fx.Node) -> bool:
    """A convolution by constant weights that only the BatchNorm reads, and that is not a transposed one."""
    if word(node) != "convolution" or len(node.users) != 1 or node.args[6]:
        return False
    return all(a is None or a in graph.constants for a in node.args[1:3])


def _constant(graph: Graph, value: Tensor) -> fx.Node:
    name = f"folded_{len(graph.constants)}"
    graph.owner.register_buffer(name, value.detach())
    node = graph.owner.graph.get_attr(name)
    graph.constants[node] = value.detach()
    return node
