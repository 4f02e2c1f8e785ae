"""Another way back through every ReLU of a network's own run, where autograd shows all those of its recording."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils.hooks import RemovableHandle

from clearsight.core import passes
from clearsight.core.batch_norm import ScaledBack
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.core.way_back import operations_behind
from clearsight.internals.layers import gradients
from clearsight.internals.vjp import vjp

Backward = Callable[[Tensor, Tensor], Tensor]  # the gradient from above, and what a ReLU passes of it -> what goes down

Operations = tuple[tuple[str, tuple[int, ...]], ...]  # each that autograd wrote down, and which came before it

_OURS = {ScaledBack: "NativeBatchNormBackward0"}  # the operation that each of our functions stands for
_CUTS = ("Clamp", "Threshold", "Hardtanh")  # what may be a ReLU in other words
_SAME = 1e-3  # of the gradient: how far that of the recording may be from the network's own


def own_gradient(
    model: Model, x: Tensor, target: Target, backward: Backward, relus: int, known: Collection[Operations]
) -> Tensor | None:
    """d target / d x (B, C, *S) by a run of the network, with another way back through its ReLUs.

    None where autograd wrote down other operations than any that are known, or another number of ReLUs.
    """
    p = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(p)
    written = _turned(logits, backward, relus)
    if written not in known:
        return None
    with torch.enable_grad():
        score = target(logits)
    return gradients(score, p)[0]


def learnable_gradient(model: Model, p: Tensor, target: Target, backward: Backward, relus: int) -> Tensor | None:
    """d target / d p (B, C, *S) like `own_gradient`, with its graph; None where another number of ReLUs was run.

    Whoever differentiates it comes back through the same ReLUs, which then have their own way back again.
    """
    logits = model(p)
    hooks: list[RemovableHandle] = []
    try:
        return None if _turned(logits, backward, relus, hooks) is None else gradients(target(logits), p)[0]
    finally:
        for hook in hooks:
            hook.remove()


def compared(
    model: Model, x: Tensor, backward: Backward, relus: int, recorded: Callable[[Tensor], Tensor]
) -> Operations | None:
    """The operations of a network's own run, where it gives the gradient of its recording; else None.

    It is looked at with noise shaped like a picture of x (B, C, *S), so that the answer is the same whatever the
    pictures; where there are several, the network runs two, for which autograd may write down other operations than for
    one.  relus: how many the recording has; recorded: logits of pixels, with the same way back through them.
    """
    noise = torch.rand((min(len(x), 2), *x.shape[1:]), generator=torch.Generator().manual_seed(0)).to(x)
    written: Operations | None = None
    found: list[Tensor] = []
    with passes.uncounted():
        for run in (model, recorded):
            p = (noise if run is model else noise[:1]).clone().requires_grad_()
            with torch.enable_grad():
                logits = run(p)
            if run is model:
                written = _turned(logits, backward, relus)
                if written is None:
                    return None
            mix = torch.linspace(2, -1, logits[0].numel()).to(logits).view(logits[:1].shape)
            try:
                found.append(vjp(logits, p, mix.expand_as(logits))[:1])
            except RuntimeError:  # a value that the way back needs was written over
                return None
    own, other = found
    close = (own - other).norm() <= (_SAME * other.norm())
    return written if bool(close & (other.norm() > 0)) else None


def _turned(
    logits: Tensor, backward: Backward, relus: int, hooks: list[RemovableHandle] | None = None
) -> Operations | None:
    """The operations by which logits came about, whose ReLUs have another way back from now on.

    None, and nothing is changed, where there is another number of ReLUs, or what may hide or be one: functions of
    Python, and cuts at other values.  hooks: gets what takes the other way back away again.
    """
    nodes = {node: str(node.name()) for node in operations_behind(logits)}
    rectifiers = {node: name for node, name in nodes.items() if _is_relu(node, name)}
    if len(rectifiers) != relus or any(_may_hide(*n) for n in nodes.items() if n[0] not in rectifiers):
        return None
    for node in rectifiers:
        hook = node.register_hook(lambda passed, above: (backward(above[0], passed[0]),))
        if hooks is not None:
            hooks.append(hook)
    return _written(nodes)


def _written(nodes: dict[Any, str]) -> Operations:
    """The operations in an order of their own, each with the numbers of those before it."""
    number = {node: i for i, node in enumerate(nodes)}
    return tuple(
        (_name(node, name), tuple(number[before] for before, _ in node.next_functions if before is not None))
        for node, name in nodes.items()
    )


def _name(node: Any, name: str) -> str:
    return _OURS[node._forward_cls] if _in_python(node) else name


def _is_relu(node: Any, name: str) -> bool:
    return name == "ReluBackward0" or (name == "HardtanhBackward0" and bool(node._saved_min_val == 0))


def _may_hide(node: Any, name: str) -> bool:
    if _in_python(node):
        return node._forward_cls not in _OURS
    return name.startswith(_CUTS)


def _in_python(node: Any) -> bool:
    return isinstance(node, BackwardCFunction)
