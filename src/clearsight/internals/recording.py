"""One run of a network, written down as operations on tensors.

What Python did in between (classes, loops, dicts, in-place and reused modules, functional calls) leaves no trace in it.
Networks that differ in nothing but their weights share a recording.
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearsight.core import first_pass, passes
from clearsight.core.classifier import Classifier
from clearsight.core.contents import settled_contents
from clearsight.core.forwards import coarse_type, in_script, too_coarse
from clearsight.core.likeness import Likeness, likeness
from clearsight.core.model import Model
from clearsight.core.uncollected import uncollected
from clearsight.core.weight_digest import Digest, weight_digest
from clearsight.errors import Refused
from clearsight.internals.expected_run import Expected
from clearsight.internals.graph import Graph, Run, Sized, Unrecordable, mark
from clearsight.internals.graph_rewrites import prepared
from clearsight.internals.kept_graph import at_rest, is_kept
from clearsight.internals.kin import Kin
from clearsight.internals.layers import layout_of, module_at
from clearsight.internals.places import as_maps
from clearsight.internals.probe import known_facts, seen_now
from clearsight.internals.seen_again import runs_as_before, scores_alone, scores_seen
from clearsight.internals.tape import Taped, ValueNeededError, tape_of
from clearsight.internals.taped_again import taped_again

T = TypeVar("T")

_KEPT = 8  # recordings, each some hundreds of nodes without weights
_WAY = "way"  # how the network ran with whose logits a graph was held, among what is found of its run
_KIN = "kin"  # those that were seen to run in that way when they were probed
_SAME = 1e-3  # of the largest logit: how far those of a new recording may be from the network's
_SAME_AGAIN = 1e-4  # the same of a recording that is used with other weights


@dataclass(frozen=True, eq=False)
class Recording:
    """A run of any number of pictures, without the weights.

    names: the parameter or buffer that each of its attributes stands for; constants: the tensors of the others.  plain:
    the network was seen to run in a way that is plain (see plain_run.py); hidden: what its modules kept to themselves.
    prepared: the run as it is followed, by whether BatchNorm is folded.
    """

    graph: fx.Graph
    names: dict[str, str]
    constants: dict[str, Tensor]
    plain: bool
    hidden: tuple[Any, ...]
    prepared: dict[bool, Graph] = field(default_factory=dict)

    def is_plain_for(self, alike: Likeness) -> bool:
        """Whether a network that is like this, whose recording it is, can but run in this way."""
        return self.plain and alike.certain and alike.hidden == self.hidden

    def of(self, net: nn.Module, *, fold: bool) -> Graph:
        """The run with the weights of a network, no value of which is looked at before it is needed."""
        if fold not in self.prepared:
            copy = fx.Graph()
            copy.output(copy.graph_copy(self.graph, {}))
            self.prepared[fold] = prepared(copy, {}, fold=fold)
        tensors = _named_tensors(net)
        graph = self.prepared[fold].of_weights(
            {**self.constants, **{k: tensors[name] for k, name in self.names.items()}}
        )
        return graph if self.is_plain_for(likeness(net)) else replace(graph, run_of=Run())


@dataclass(frozen=True, eq=False)
class _Bound:
    """A graph, the weights that it was bound to, and how far its logits may be from the network's."""

    graph: Graph
    weights: Digest
    close: float


_graphs: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], _Bound]] = weakref.WeakKeyDictionary()
recordings: OrderedDict[tuple[Any, ...], Recording] = OrderedDict()


def graph_of(model: Model, x: Tensor, layer: str = "", *, fold: bool = True) -> Graph:
    """The graph of a model for pictures shaped like x (B, C, *S); layer: the module whose output is to be marked.

    It is recorded once for all networks that differ in their weights alone, and again when it no longer gives what the
    network gives, as after a change of what its forward does.

    Refused: networks that cannot be recorded, that draw random numbers, or whose operations depend on the picture.
    """
    _refuse_unrecordable(model.net)
    run = _run_of(model, x, layer)
    weights = weight_digest(model.net)
    graphs = _graphs.setdefault(model.net, {})
    with passes.uncounted(), torch.no_grad():
        z = model.normalised(x[:1])
        wanted = scores_alone(model, x[:1])
        first_pass.note(model.net, x[:1], wanted)
        known = graphs.get((*run, fold))
        if known is not None and known.weights == weights and _same_logits(known.graph(z), wanted, known.close):
            return known.graph
        with uncollected():
            graph = _graph_of_recording(model, z, wanted, run, fold=fold)
        graphs[(*run, fold)] = _Bound(graph, weights, _SAME)
    return graph


def _refuse_unrecordable(net: nn.Module) -> None:
    in_script_reason = in_script(net)
    if in_script_reason is not None:
        raise Unrecordable(*in_script_reason)
    coarse = coarse_type(net)
    if coarse is not None:
        raise Unrecordable(*too_coarse(coarse, "the shares of its operations"))


class OtherRunError(Exception):
    """Raised where a network does not run as was recorded."""


def with_graph(model: Model, x: Tensor, run: Callable[[Graph, bool], T], layer: str = "") -> T:
    """What run(graph, is_new) makes of the folded graph of a model for pictures like x (B, C, *S).

    is_new: whether run must `hold` the logits that its first pass gives against those of the network, which costs no
    pass of the graph.  Where they are others, the network is recorded again.

    Inside `keeping_graph` it is the graph of the network at rest, by its weights as they are: they have a gradient.

    Refused: as of `graph_of`.
    """
    if is_kept():
        with at_rest(model):
            at_work = graph_of(model, x[:1], layer)
        with torch.autocast(x.device.type, enabled=False):
            return run(at_work.of_weights(at_work.tensors), False)
    graph = known_graph(model, x, layer) or graph_alike(model, x, layer)
    if graph is None:
        return _with_new_graph(model, x, run, layer)
    with suppress(OtherRunError):
        return run(graph, True)
    return run(graph_of(model, x[:1], layer), False)


def _with_new_graph(model: Model, x: Tensor, run: Callable[[Graph, bool], T], layer: str) -> T:
    graph = new_graph(model, x, layer)
    try:
        return run(graph, True)
    except OtherRunError:
        recordings.pop(_key_of(model.net, _run_of(model, x, layer)), None)
        raise _other_every_time() from None
    except Exception:  # which may be the recording's fault, and that is what is told then
        graph_of(model, x[:1], layer)
        raise


def new_graph(model: Model, x: Tensor, layer: str = "") -> Graph:
    """The folded graph of a model for pictures like x (B, C, *S), recorded now; where none is known of its kind.

    Whether it gives what the network gives is not looked at yet: see `hold`, which costs no pass of the graph.

    Refused: as of `graph_of`.
    """
    _refuse_unrecordable(model.net)
    run = _run_of(model, x, layer)
    with passes.uncounted(), torch.no_grad(), uncollected():
        graph = _record_anew(model, model.normalised(x[:1]), run).of(model.net, fold=True)
    _graphs.setdefault(model.net, {})[(*run, True)] = _Bound(graph, weight_digest(model.net), _SAME)
    return graph


def hold(model: Model, x: Tensor, logits: Tensor, layer: str = "", wanted: Tensor | None = None) -> None:
    """Look whether the logits (B, ...) that the last graph gave for pixels x (B, C, *S) are those of the network.

    wanted: what the network gives for the first of the pictures, where that is known.  Else it runs one of them alone,
    since its logits may depend neither on the pictures beside it nor on chance.  Where it did so before, with a graph
    of the same recording, it is enough to see that it runs in the same way.

    OtherRunError: they are not, and the graph is forgotten.
    """
    at = (*_run_of(model, x, layer), True)
    bound = _graphs[model.net][at]
    if wanted is None:
        if runs_as_held(model, x[:1], bound.graph):
            return
        wanted = _scores_held(model, x[:1], bound.graph)
        first_pass.note(model.net, x[:1], wanted)
    if not _same_logits(logits[: len(wanted)].detach(), wanted[: len(x)], bound.close):
        del _graphs[model.net][at]
        raise OtherRunError
    _graphs[model.net][at] = _Bound(bound.graph, bound.weights, _SAME)


def runs_as_held(model: Model, x: Tensor, graph: Graph) -> bool:
    """Whether the network runs one picture x (1, C, *S) as one did with whose logits such a graph was held.

    Then its logits are the graph's, if nothing but the weights decides what comes of that run.
    """
    way: Expected | None = graph.run_of.found.get(_WAY)
    if way is None:
        return False
    kin = seen_now(model, x)
    return (kin is not None and kin is graph.run_of.found[_KIN]) or runs_as_before(model, x, way)


def _scores_held(model: Model, x: Tensor, graph: Graph) -> Tensor:
    """The network's scores of one picture x (1, C, *S), with which a graph is held; how it ran is kept once.

    Where it did not run in that way the next time, to look again would be in vain.
    """
    if not _is_seen_plain(model, x) or _WAY in graph.run_of.found:
        graph.run_of.found[_WAY] = None
        return scores_alone(model, x)
    scores, way = scores_seen(model, x)
    graph.run_of.found[_WAY], graph.run_of.found[_KIN] = way, None if way is None else _kin_that_runs(model, x, way)
    return scores


def _kin_that_runs(model: Model, x: Tensor, way: Expected) -> Kin | None:
    """The known ones that the network is one of, if they ran by the same steps; None: they did not."""
    facts = known_facts(model, x)
    kin = None if facts is None else facts.kin
    same = kin is not None and (kin.expected.run.steps, kin.expected.run.given) == (way.run.steps, way.run.given)
    return kin if same else None


def known_graph(model: Model, x: Tensor, layer: str = "") -> Graph | None:
    """The folded graph that was given before for pictures like x (B, C, *S) and these weights; None if there is none.

    Whether the network still runs in that way is not looked at.
    """
    bound = _graphs.get(model.net, {}).get((*_run_of(model, x, layer), True))
    return bound.graph if bound is not None and bound.weights == weight_digest(model.net) else None


def graph_alike(model: Model, x: Tensor, layer: str = "") -> Graph | None:
    """The folded graph by a recording of a network that differs in its weights alone; None if there is none.

    Whether this network runs in that way is not looked at.
    """
    run = _run_of(model, x, layer)
    recording = recordings.get((likeness(model.net).key, *run))
    if recording is None:
        return None
    graph = recording.of(model.net, fold=True)
    _graphs.setdefault(model.net, {})[(*run, True)] = _Bound(graph, weight_digest(model.net), _SAME_AGAIN)
    return graph


def is_recorded(model: Model, x: Tensor, layer: str = "") -> bool:
    """Whether a network like this one was recorded for pictures like x (B, C, *S)."""
    return _key_of(model.net, _run_of(model, x, layer)) in recordings


def is_plain(model: Model, x: Tensor, layer: str = "") -> bool:
    """Whether networks like this one run, for pictures like x (B, C, *S), in a way that is plain (see plain_run.py).

    As far as Python shows: one of them was recorded, and nothing that it holds beside weights is left out of account.
    """
    alike = likeness(model.net)
    recording = recordings.get((alike.key, *_run_of(model, x, layer)))
    return recording is not None and recording.is_plain_for(alike)


def note_first_pass(model: Model, x: Tensor, logits: Tensor) -> None:
    """Tell the logits (B, K) that a graph gave for pixels x (B, C, *S), and where they leave a doubt on the top class.

    They are the network's up to what `graph_of` lets pass.  Only a classifier has a top class.
    """
    if not isinstance(model, Classifier) or not first_pass.is_awaited(model.net):
        return
    best = logits.detach().topk(min(2, logits.shape[1]), 1).values
    doubt = 2 * _SAME * logits.detach().abs().amax(1)
    first_pass.note(model.net, x, logits, best[:, 0] - best[:, -1] > doubt)


def _run_of(model: Model, x: Tensor, layer: str) -> tuple[Any, ...]:
    """What else than the network a recording is for."""
    return tuple(x.shape[1:]), x.device, layer, model.reading


def _key_of(net: nn.Module, run: tuple[Any, ...]) -> tuple[Any, ...]:
    """For which networks and pictures a recording is."""
    return (likeness(net).key, *run)


def _graph_of_recording(model: Model, z: Tensor, wanted: Tensor, run: tuple[Any, ...], *, fold: bool) -> Graph:
    """A graph that gives the logits that are wanted for z (1, C, *S), by a recording of earlier or by a new one."""
    key = _key_of(model.net, run)
    if key in recordings:
        recordings.move_to_end(key)
        graph = recordings[key].of(model.net, fold=fold)
        if _same_logits(graph(z), wanted, _SAME_AGAIN):
            return graph
    graph = _record_anew(model, z, run).of(model.net, fold=fold)
    if not _same_logits(graph(z), wanted, _SAME):
        del recordings[key]
        raise _other_every_time()
    return graph


def _record_anew(model: Model, z: Tensor, run: tuple[Any, ...]) -> Recording:
    """A recording that is made now, and kept for networks that are alike."""
    key = _key_of(model.net, run)
    recordings[key] = record(model, z, layer=run[2])
    recordings.move_to_end(key)
    while len(recordings) > _KEPT:
        recordings.popitem(last=False)
    return recordings[key]


def _other_every_time() -> Unrecordable:
    return Unrecordable(
        "the network does not run in the same way every time, so it cannot be taken apart into its operations: use a "
        "gradient, class-activation or perturbation method"
    )


def _named_tensors(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters(remove_duplicate=False)), **dict(net.named_buffers(remove_duplicate=False))}


def _same_logits(out: Tensor, wanted: Tensor, close: float) -> bool:
    if out.shape != wanted.shape:
        return False
    scale = float(wanted.abs().max())
    if float((out.to(wanted.dtype) - wanted).abs().max()) <= close * scale < torch.inf:
        return True
    return torch.allclose(out.to(wanted.dtype), wanted, rtol=close, atol=close * scale)


def record(model: Model, z: Tensor, layer: str) -> Recording:
    """Record a run of two pictures and one of three: sizes that differ between them grow with their number."""
    two = recorded_run(model, z, layer, 2)
    three = recorded_again(model, z, layer, two, 2, 3)
    for recorded in (two, three):
        recorded.graph.eliminate_dead_code()
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
            _same_constant(two.tensors[str(node_of_two.target)], three.tensors[str(node_of_three.target)])
        node_of_two.args = tuple(_sized(a, b) for a, b in zip(node_of_two.args, node_of_three.args, strict=True))
        node_of_two.kwargs = {k: _sized(v, node_of_three.kwargs[k]) for k, v in node_of_two.kwargs.items()}
    return _without_weights(two, model.net, plain=_is_seen_plain(model, z))


def _is_seen_plain(model: Model, z: Tensor) -> bool:
    """Whether the network was seen to run in a way that is plain (see plain_run.py), pictures like z (1, C, *S)."""
    known = known_facts(model, z)
    return known is not None and known.probe.plain is not None


def _without_weights(recorded: Taped, net: nn.Module, *, plain: bool) -> Recording:
    name_of = {_place(t): name for name, t in _named_tensors(net).items()}
    names: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    for node in recorded.graph.nodes:
        if node.op == "get_attr":
            at = str(node.target)
            tensor = recorded.tensors[at]
            if _place(tensor) in name_of:
                names[at] = name_of[_place(tensor)]
            else:
                constants[at] = tensor
    return Recording(recorded.graph, names, constants, plain, likeness(net).hidden)


def _place(t: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies, and how."""
    return t.data_ptr(), t.shape, t.stride(), t.dtype


def recorded_run(model: Model, z: Tensor, layer: str, pictures: int) -> Taped:
    try:
        with to_record(model, z, layer):
            return tape_of(model.from_normalised, several(z, pictures))
    except Refused as e:
        if isinstance(e.__cause__, ValueNeededError):
            raise Unrecordable(
                "the network looks at values of the picture to decide what to do, so it cannot be taken apart into its "
                "operations: use a gradient, class-activation or perturbation method"
            ) from e
        raise Unrecordable(f"the network cannot be taken apart into its operations: {e}") from e
    except (RuntimeError, TypeError, ValueError, AttributeError) as e:
        message = str(e).partition("\n")[0]
        raise Unrecordable(
            f"the network cannot be taken apart into its operations: {type(e).__name__}: {message}"
        ) from e


def recorded_again(model: Model, z: Tensor, layer: str, first: Taped, before: int, pictures: int) -> Taped:
    """The same, given the recording of so many pictures before; not computed, where that tells how all lies.

    It is for hooks of others, which are given what there is.
    """
    if not passes.is_hooked(settled_contents(model.net).modules):
        with suppress(Exception), to_record(model, z, layer):  # it is computed then, and fails in its own words
            return taped_again(model.from_normalised, several(z, pictures), first, before)
    return recorded_run(model, z, layer, pictures)


def several(z: Tensor, pictures: int) -> Tensor:
    return z[:1].expand(pictures, *z.shape[1:]).contiguous()


@contextmanager
def to_record(model: Model, z: Tensor, layer: str) -> Iterator[None]:
    with _marking(model, z, layer), warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _marking(model: Model, z: Tensor, layer: str) -> Iterator[None]:
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
