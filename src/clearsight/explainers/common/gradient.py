"""The gradient at the pixels, which every gradient method begins with."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clearsight.core.memory_order import last as laid_last
from clearsight.core.model import Model
from clearsight.core.passes import uncounted
from clearsight.core.targets import Target
from clearsight.internals.graph import Graph, Unrecordable
from clearsight.internals.kept_graph import is_kept
from clearsight.internals.layers import gradients
from clearsight.internals.recording import graph_of

WORTH = 40  # passes from which on recording the network costs less than folding BatchNorm saves (Lite0: 20 to 50)

_SAME = 1e-5  # of the largest output: how far those of pictures that lie in another order may be from the others


@dataclass(frozen=True, eq=False)
class _Folded:
    """The graph of a network with BatchNorm folded; last: its pictures are passed with their channels last."""

    net: nn.Module
    graph: Graph
    last: bool


_folded: ContextVar[_Folded | None] = ContextVar("folded", default=None)
_last: weakref.WeakKeyDictionary[fx.Graph, bool] = weakref.WeakKeyDictionary()


def pixel_gradients(model: Model, x: Tensor, target: Target) -> Tensor:
    """d target / d x, signed, in units of the target per unit of pixel value: x (B, C, *S) -> (B, C, *S)."""
    z = x if is_kept() and x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        score = target(folded_outputs(model, z))
    (g,) = gradients(score, z)
    return g


def folded_outputs(model: Model, x: Tensor) -> Tensor:
    """Outputs (B, ...) of pixels x (B, C, *S), differentiable; inside `many_passes` with BatchNorm folded."""
    folded = _folded.get()
    if folded is None or folded.net is not model.net:
        return model(x)
    return folded.graph(ordered(model.normalised(x).to(model.dtype), folded.last)).to(x.dtype)


def ordered(z: Tensor, last: bool) -> Tensor:
    """Pictures z (B, C, *S), with their channels last if they may lie so."""
    return laid_last(z) if last else z


@contextmanager
def many_passes(model: Model, x: Tensor, passes: int) -> Iterator[None]:
    """Inside, gradients are taken with BatchNorm folded into convolutions, where so many passes are worth it.

    The logits stay the same up to rounding, and the way back is about half as long again without it.
    """
    current = _folded.get()
    if is_kept() or (current is not None and current.net is model.net) or not _is_worth(model, passes):
        yield
        return
    try:
        graph = graph_of(model, x[:1])
        folded = _Folded(model.net, graph, may_lie_last(model, graph, x[:1]))
    except Unrecordable:  # it is run as it is
        folded = None
    token = _folded.set(folded)
    try:
        yield
    finally:
        _folded.reset(token)


def may_lie_last(model: Model, graph: Graph, x: Tensor) -> bool:
    """Whether a graph gives the same for pictures like x (1, C, H, W) whose channels lie last: it is faster then.

    One that looks at feature maps by how they lie fails, or gives other outputs.  It is seen once for networks that
    share a recording.
    """
    if x.dim() != 4:
        return False
    if graph.owner not in _last:
        noise = torch.rand((2, *x.shape[1:]), generator=torch.Generator().manual_seed(0))  # not what is asked about
        two = model.normalised(noise.to(x)).to(model.dtype)
        with uncounted(), torch.no_grad():
            wanted = graph(two)
            try:
                found = graph(ordered(two, last=True))
            except RuntimeError:
                _last[graph.owner] = False
            else:
                _last[graph.owner] = bool((found - wanted).abs().max() <= _SAME * wanted.abs().max())
    return _last[graph.owner]


def _is_worth(model: Model, passes: int) -> bool:
    """Whether so many passes cost more than they would with BatchNorm folded, and recording the network for that.

    Whether it was recorded before does not count: maps are the same to the bit whatever this process did earlier.
    """
    return passes >= WORTH and any(isinstance(m, _BatchNorm) for m in model.net.modules())
