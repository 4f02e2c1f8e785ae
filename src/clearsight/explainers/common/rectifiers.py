"""Gradients whose way back through every ReLU is another one; in place, reused or functional, all are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import FunctionCtx

from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.graph import Graph, word
from clearsight.internals.layers import gradients
from clearsight.internals.recording import graph_of, note_first_pass
from clearsight.internals.relu import RELUS, open_range
from clearsight.internals.traceability import SMOOTH

Backward = Callable[[Tensor, Tensor], Tensor]  # the gradient from above, and where the ReLU is open -> what goes down


def rectified_gradient(model: Classifier, x: Tensor, target: Target, backward: Backward, name: str) -> Tensor:
    """d target / d x (B, C, *S), but with another way back through the ReLUs.

    Refused: networks without a ReLU, and those with other activations, for which these methods say nothing.
    """
    graph = graph_of(model, x[:1])
    relus = [n for n in graph.nodes if n in graph.moving and open_range(n) is not None]
    others = sorted({word(n).strip("_") for n in graph.nodes if n in graph.moving and word(n) in SMOOTH})
    if others or not relus:
        has = f"has {', '.join(others)}" if others else "has none"
        raise Refused(f"{name} is defined for ReLU, and this network {has}: use saliency or integrated-gradients")

    def rule(_graph: Graph, node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Tensor:
        low_and_high = open_range(node)
        assert low_and_high is not None
        out: Tensor = _Rectifier.apply(args[0], *low_and_high, backward)
        return out

    def plain(_graph: Graph, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run: Any = node.target
        return run(*args, **kwargs) if open_range(node) is None else rule(_graph, node, args, kwargs)

    p = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = graph(model.normalised(p).to(model.dtype), dict.fromkeys(RELUS, plain)).float()
        note_first_pass(model, p, logits)
        score = target(logits)
    return gradients(score, p)[0]


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
        return ctx.how(grads[0], is_open), None, None, None  # type: ignore[attr-defined]
