"""The gradient at the pixels, which every gradient method begins with."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.internals.graph import Graph, Unrecordable
from clearsight.internals.kept_graph import is_kept
from clearsight.internals.layers import gradients
from clearsight.internals.recording import graph_of, is_recorded

WORTH = 100  # passes from which on recording the network costs less than folding BatchNorm saves
WORTH_KNOWN = 25  # the same where the architecture was recorded before

_folded: ContextVar[tuple[nn.Module, Graph] | None] = ContextVar("folded", default=None)


def pixel_gradients(model: Model, x: Tensor, target: Target) -> Tensor:
    """d target / d x, signed, in units of the target per unit of pixel value: x (B, C, *S) -> (B, C, *S)."""
    z = x if is_kept() and x.requires_grad else x.detach().requires_grad_()
    folded = _folded.get()
    with torch.enable_grad():
        if folded is not None and folded[0] is model.net:
            out = folded[1](model.normalised(z).to(model.dtype)).to(z.dtype)
        else:
            out = model(z)
        score = target(out)
    (g,) = gradients(score, z)
    return g


@contextmanager
def many_passes(model: Model, x: Tensor, passes: int) -> Iterator[None]:
    """Inside, gradients are taken with BatchNorm folded into convolutions, where so many passes are worth it.

    The logits stay the same up to rounding, and the way back is about half as long again without it.
    """
    current = _folded.get()
    if is_kept() or (current is not None and current[0] is model.net) or not _is_worth(model, x, passes):
        yield
        return
    try:
        folded = (model.net, graph_of(model, x[:1]))
    except Unrecordable:  # it is run as it is
        folded = None
    token = _folded.set(folded)
    try:
        yield
    finally:
        _folded.reset(token)


def _is_worth(model: Model, x: Tensor, passes: int) -> bool:
    """Whether so many passes cost more than they would with BatchNorm folded, and recording the network for that."""
    if passes < WORTH_KNOWN or not any(isinstance(m, _BatchNorm) for m in model.net.modules()):
        return False
    return passes >= WORTH or is_recorded(model, x)
