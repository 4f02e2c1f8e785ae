"""Gradients whose way back through every ReLU is another one; in place, reused or functional, all are seen."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import FunctionCtx

from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.own_rectifiers import Backward, Operations, compared, learnable_gradient, own_gradient
from clearsight.internals.graph import Graph, Run, word
from clearsight.internals.kept_graph import at_rest, is_kept
from clearsight.internals.layers import gradients
from clearsight.internals.recording import (
    graph_alike,
    graph_of,
    is_plain,
    is_recorded,
    known_graph,
    new_graph,
    note_first_pass,
)
from clearsight.internals.relu import RELUS, open_range
from clearsight.internals.traceability import SMOOTH
from clearsight.internals.twice_differentiable import as_torch_does

_Shown = dict[bool, Operations | None]  # of one picture and of several, what was compared; None: it cannot be followed
_shown: weakref.WeakKeyDictionary[Run, dict[str, _Shown]] = weakref.WeakKeyDictionary()  # by method


def rectified_gradient(model: Model, x: Tensor, target: Target, backward: Backward, name: str) -> Tensor:
    """d target / d x (B, C, *S), but with another way back through the ReLUs.

    By the network's own run, where that shows just the ReLUs of its recording (see own_rectifiers.py); else by the
    recording.  name: the method, whose way back is always the same.

    Refused: networks without a ReLU, and those with other activations, for which these methods say nothing.
    """
    if is_kept():
        return _learnable(model, x, target, backward, name)
    graph = known_graph(model, x) or (graph_alike(model, x) if is_plain(model, x) else None)
    own = None if graph is None else _own(model, x, target, backward, name, graph)
    if own is None and graph is None and not is_recorded(model, x):  # the recording's scores need not be looked at,
        graph = _with_relus(new_graph(model, x), name)  # where its gradient is the network's, which does the rest
        own = _newly_compared(model, x, target, backward, name, graph)
    if own is not None:
        return own
    graph = _with_relus(graph_of(model, x[:1]), name)
    own = _newly_compared(model, x, target, backward, name, graph)
    if own is not None:
        return own
    p = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = _recorded(model, graph, backward, p)
        note_first_pass(model, p, logits)
        score = target(logits)
    return gradients(score, p)[0]


def _newly_compared(
    model: Model, x: Tensor, target: Target, backward: Backward, name: str, graph: Graph
) -> Tensor | None:
    """The gradient by the network's own run, compared with the recording now; None where it was before, or is other."""
    shown = _shown.setdefault(graph.run_of, {}).setdefault(name, {})
    if (len(x) > 1) in shown:
        return None
    shown[len(x) > 1] = compared(model, x, backward, len(_relus(graph)), partial(_recorded, model, graph, backward))
    return _own(model, x, target, backward, name, graph)


def _recorded(model: Model, graph: Graph, backward: Backward, p: Tensor) -> Tensor:
    """The outputs (B, ...) of a graph for pixels p (B, C, *S), with another way back through its ReLUs."""
    return graph(model.normalised(p).to(model.dtype), dict.fromkeys(RELUS, partial(_run, backward))).float()


def _learnable(model: Model, x: Tensor, target: Target, backward: Backward, name: str) -> Tensor:
    """The same by a pass of its own, differentiable in the weights: the loss of the labels needs the usual way back."""
    with at_rest(model):
        relus = len(_relus(_with_relus(graph_of(model, x[:1]), name)))
    p = x.detach().clone().requires_grad_()
    with as_torch_does():
        found = learnable_gradient(model, p, target, backward, relus)
    if found is None:
        raise Refused(
            f"{name}: the network runs its {relus} ReLUs in training in a way that has no other way back",
            "guide by saliency or grad-cam",
        )
    return found


def _own(model: Model, x: Tensor, target: Target, backward: Backward, name: str, graph: Graph) -> Tensor | None:
    """The gradient by the network's own run; None where that was not compared with the recording, or is another now."""
    shown = _shown.get(graph.run_of, {}).get(name, {})
    known = [operations for operations in shown.values() if operations is not None]
    if not known or shown.get(len(x) > 1, known) is None:
        return None
    return own_gradient(model, x, target, backward, len(_relus(graph)), known)


def _with_relus(graph: Graph, name: str) -> Graph:
    """The graph itself; refused where it is none of ReLUs."""
    relus = _relus(graph)
    others = sorted({word(n).strip("_") for n in graph.nodes if n in graph.moving and word(n) in SMOOTH})
    if others or not relus:
        has = f"has {', '.join(others)}" if others else "has none"
        raise Refused(f"{name} is defined for ReLU, and this network {has}: use saliency or integrated-gradients")
    return graph


def _relus(graph: Graph) -> list[fx.Node]:
    found = graph.run_of.found
    if _relus not in found:
        found[_relus] = [n for n in graph.nodes if n in graph.moving and open_range(n) is not None]
    relus: list[fx.Node] = found[_relus]
    return relus


def _run(backward: Backward, _graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation as it is, or a ReLU with its other way back."""
    low_and_high = open_range(node)
    if low_and_high is None:
        run: Any = node.target
        return run(*args, **kwargs)
    return _Rectifier.apply(args[0], *low_and_high, backward)


class _Rectifier(torch.autograd.Function):
    """A ReLU, open between two values, with a way back of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, backward: Backward) -> Tensor:
        ctx.save_for_backward((x > low) & (x < high))
        ctx.how = backward
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (is_open,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return ctx.how(grads[0], grads[0] * is_open), None, None, None  # type: ignore[attr-defined]
