"""Layers inside the network: which one the class-activation methods read, and what stands and flows there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from clearsight.classifier import Classifier
from clearsight.errors import NoGradient, Refused, nearest
from clearsight.targets import Target
from clearsight.tokens import as_maps, layout

_POOLS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd, nn.Dropout, nn.Dropout2d, nn.Identity)


@dataclass(frozen=True)
class Seen:
    """One run of one module in a forward pass."""

    name: str
    kind: str
    shape: tuple[int, ...] | None  # of its output; None where that is not a tensor
    convolves: bool
    pools: bool


def walk(model: Classifier, x: Tensor) -> list[Seen]:
    """Every module run in one forward pass of x (B, C, *S), in the order in which they finish."""
    seen: list[Seen] = []

    def note(name: str, module: nn.Module, out: Any) -> None:
        shape = tuple(out.shape) if isinstance(out, Tensor) else None
        seen.append(Seen(name, type(module).__name__, shape, isinstance(module, _ConvNd), isinstance(module, _POOLS)))

    handles = [
        m.register_forward_hook(lambda module, _i, out, name=n: note(name, module, out))
        for n, m in model.net.named_modules()
        if n
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for h in handles:
            h.remove()
    return seen


def target_layer(model: Classifier, x: Tensor) -> str:
    """The last feature maps before the spatial axes are pooled away: what class-activation methods read by default.

    x (B, C, *S).  Found by one forward pass: the last convolution whose output still has more than one place, then on
    through what follows at the same resolution (normalisation, activation, the block and the stage around them).
    One branch of a block is no answer, nor is a module that runs several times: everything must pass through the layer.
    A transformer, whose last convolution only cuts the picture into patches, is read where its tokens were last mixed:
    at the last layer through which everything passes and at whose places the scores still have a slope.

    Refused for networks without any such layer.
    """
    seen = walk(model, x[:1])

    def spatial(s: Seen) -> bool:
        return s.shape is not None and len(s.shape) == x.dim() and max(s.shape[2:]) > 1

    last = max((i for i, s in enumerate(seen) if s.convolves and spatial(s)), default=None)
    tokens = _last_tokens(model, x[:1], seen[-1 if last is None else last :])
    if tokens:
        return tokens
    if last is None:
        raise Refused(
            f"{model.source or 'the network'} has no convolution with more than one place: class-activation methods "
            "need feature maps; name a layer that has them with layer=, or use a gradient or perturbation method"
        )
    if any(_attends(s) for s in seen[last + 1 :]):
        raise Refused(
            f"after its last convolution ({seen[last].name}) {model.source or 'the network'} goes on with attention: "
            "name a layer with feature maps with layer=, or use a gradient or perturbation method"
        )
    runs = Counter(s.name for s in seen)  # what runs several times (one ReLU for all) cannot be caught
    kept = [s for s in seen if spatial(s) and not s.pools and runs[s.name] == 1]
    size = (seen[last].shape or ())[2:]
    names = [s.name for s in kept if s in seen[:last] or (s.shape or ())[2:] == size]
    return next((name for name in reversed(names) if _everything_passes(model, x[:1], name)), seen[last].name)


def _attends(s: Seen) -> bool:
    return "attention" in s.kind.lower()


def _last_tokens(model: Classifier, x: Tensor, seen: list[Seen]) -> str:
    """The last layer of a transformer whose places matter; "" where no tokens, or no attention, come after all.

    The places of a network's last block often matter no more: its scores are read from the class token alone.
    """
    size = model.preprocess.size
    rows = [s for s in seen if s.shape is not None and layout(s.shape, size) is not None]
    if not any(_attends(s) for s in seen) and not any(len(s.shape or ()) == 3 for s in rows):
        return ""
    runs = Counter(s.name for s in seen)
    for s in reversed(rows):
        if (
            runs[s.name] == 1
            and not s.pools
            and _everything_passes(model, x, s.name)
            and _places_matter(model, x, s.name)
        ):
            return s.name
    return ""


def _places_matter(model: Classifier, x: Tensor, layer: str) -> bool:
    with cut_at(model, layer, grad=True) as caught, torch.enable_grad():
        out = model(x.detach())
    top = out.amax(1).sum()
    return top.requires_grad and bool(torch.autograd.grad(top, caught[0])[0].any())


def _everything_passes(model: Classifier, x: Tensor, layer: str) -> bool:
    """Whether the output depends on the picture through this layer alone, not past it as by one branch of a block."""
    z = x.detach().requires_grad_()
    handle = model.net.get_submodule(layer).register_forward_hook(lambda _m, _i, out: out.detach())
    try:
        with torch.enable_grad():
            out = model(z).sum()
    finally:
        handle.remove()
    return not out.requires_grad or torch.autograd.grad(out, z, allow_unused=True)[0] is None


def find_layer(model: Classifier, x: Tensor, layer: str) -> str:
    """The layer that the caller named, checked; or, for "auto", the one found by ``target_layer``."""
    if layer == "auto":
        return target_layer(model, x)
    names = [n for n, _ in model.net.named_modules() if n]
    if layer not in names:
        raise Refused(f"the network has no layer {layer!r}: {nearest(layer, names)}")
    return layer


@contextmanager
def cut_at(model: Classifier, layer: str, *, grad: bool) -> Iterator[list[Tensor]]:
    """Catch what the layer gives, as feature maps, in the list that is yielded.  With grad, the graph begins there.

    What runs after the layer works on a copy, so that an in-place ReLU behind it cannot change what was caught.

    Refused: a layer that gives no feature maps, that runs more than once inside, or not at all.
    """
    caught: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, out: Any) -> Tensor:
        if not isinstance(out, Tensor):
            raise Refused(f"layer {layer} gives a {type(out).__name__}, not a tensor: name another with layer=")
        if caught:
            raise Refused(f"layer {layer} runs more than once in a forward pass: name another with layer=")
        maps, back = as_maps(out.detach(), model.preprocess.size)
        if maps.dim() != 2 + len(model.preprocess.size):
            raise Refused(
                f"layer {layer} gives {tuple(out.shape)}, which are not feature maps: name another with layer="
            )
        caught.append(maps.requires_grad_(grad))
        return back(caught[0].clone())

    handle = model.net.get_submodule(layer).register_forward_hook(hook)
    try:
        yield caught
    finally:
        handle.remove()
    if not caught:
        raise Refused(f"layer {layer} is not run in a forward pass: name another with layer=")


def activations(model: Classifier, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What stands at a layer, A (B, K, *s), and the logits (B, classes), without a graph."""
    with torch.no_grad(), cut_at(model, layer, grad=False) as caught:
        logits = model(x)
    return caught[0], logits


def activations_and_gradients(model: Classifier, x: Tensor, target: Target, layer: str) -> tuple[Tensor, Tensor]:
    """What stands at a layer, A (B, K, *s), and how the target changes with it, G = d target / d A, of the same shape.

    The graph is cut at the layer: below it nothing is kept, so frozen networks work and it costs little over a forward.
    """
    layer = find_layer(model, x, layer)
    with cut_at(model, layer, grad=True) as caught, torch.enable_grad():
        score = target(model(x.detach()))
    (a,) = caught
    (g,) = gradients(score, a, f"layer {layer}")
    return a.detach(), g


def flowing(score: Tensor, where: str = "the pixels") -> Tensor:
    """The score itself; NoGradient where none flows back from it."""
    if not score.requires_grad:
        raise NoGradient(
            f"no gradient flows back to {where}: part of the network's forward runs under torch.no_grad() or detaches",
            "let it flow, name a later layer with layer=, or use a perturbation method such as occlusion",
        )
    return score


def gradients(score: Tensor, at: Tensor, where: str = "the pixels") -> tuple[Tensor]:
    """d (sum of score) / d at; NoGradient, which says why, where there is none."""
    (g,) = torch.autograd.grad(flowing(score, where), at, torch.ones_like(score), allow_unused=True)
    if g is None:
        raise NoGradient(
            f"the target does not depend on {where}: nothing in the forward leads from there to it",
            "use another layer or method",
        )
    return (g,)


def enlarge(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Maps of a layer (B, *s) -> the picture's size (B, *S), linearly between the places' centres."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return nn.functional.interpolate(maps[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]
