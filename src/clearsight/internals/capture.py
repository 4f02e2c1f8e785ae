"""Values inside a network: a layer's output and preactivation, the embedding, and receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.batching import SIZE
from clearsight.core.model import Model
from clearsight.errors import Refused
from clearsight.internals.layers import gradients, module_at

_SQUASHING = (nn.ReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus)  # none of them changes the order
_PROBES = 2  # noise pictures whose gradients say what a place can see

Field = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the model's input


@dataclass(frozen=True)
class Captured:
    """One forward pass: logits (B, classes), and of the layer out (B, K, h, w) and preactivation (B, K, h, w).

    preactivation is what goes into the layer's last squashing (ReLU, ReLU6, sigmoid), where that is a module of its
    own: in the same order as out, but neither cut off above nor without a gradient below.  Elsewhere it is out.
    maps: False for a layer (B, K) without places, whose output is given one place here.
    """

    logits: Tensor
    out: Tensor
    preactivation: Tensor
    maps: bool


OTHER = "name another, layer=NAME (--layer NAME)"


def capture(model: Model, x: Tensor, layer: str) -> Captured:
    """One forward pass of x (B, C, H, W), with the output of a layer.  Gradients flow where they are enabled."""
    module = module_at(model, layer)
    last_squashing: list[tuple[Any, Tensor]] = []
    outputs: list[tuple[Tensor, Tensor]] = []
    entering: dict[nn.Module, Tensor] = {}

    def enter(act: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            entering[act] = args[0].clone()  # the squashing may work in place

    def leave(act: nn.Module, _args: Any, out: Any) -> None:
        if act in entering:
            last_squashing[:] = [(out, entering.pop(act))]

    def end(_module: nn.Module, _args: Any, out: Any) -> None:
        if not isinstance(out, Tensor):
            raise Refused(f"layer {layer} gives a {type(out).__name__}, not a tensor: {OTHER}")
        if outputs:
            raise Refused(f"layer {layer} runs more than once in a forward pass: {OTHER}")
        copy = out.clone()  # what follows may work in place
        outputs.append((copy, last_squashing[0][1] if last_squashing and last_squashing[0][0] is out else copy))

    squashings = [m for m in module.modules() if isinstance(m, _SQUASHING)]
    handles = [h for m in squashings for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    handles.append(module.register_forward_hook(end))
    try:
        logits = model(x)
    finally:
        for h in handles:
            h.remove()
    if not outputs:
        raise Refused(f"layer {layer} is not run in a forward pass: {OTHER}")
    out, preactivation = outputs[0]
    if out.dim() not in (2, 4) or len(out) != len(x) or not out.is_floating_point():
        raise Refused(f"layer {layer} gives {tuple(out.shape)}, not feature maps: {OTHER}")
    if out.dim() == 2:
        return Captured(logits, out[..., None, None], preactivation[..., None, None], maps=False)
    return Captured(logits, out, preactivation, maps=True)


def receptive_fields(model: Model, layer: str, places: Sequence[tuple[int, int]]) -> list[Field]:
    """The receptive field of each place (row, column) of a layer, cut off at the picture's edge.

    Measured: the smallest box around all pixels of noise pictures with a gradient to any unit at the place.
    """
    size = model.preprocess.size
    fields: list[Field] = []
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(_PROBES, model.preprocess.channels, *size, generator=generator).to(model.device)
    step = max(1, SIZE // _PROBES)
    for start in range(0, len(places), step):
        batch = places[start : start + step]
        z = noise.repeat(len(batch), 1, 1, 1).requires_grad_()
        with torch.enable_grad():
            preactivation = capture(model, z, layer).preactivation
            signs = torch.rand(preactivation.shape[1], generator=generator).to(preactivation) + 0.5
            score = sum(
                (preactivation[i * _PROBES : (i + 1) * _PROBES, :, y, x] * signs).sum()
                for i, (y, x) in enumerate(batch)
            )
        (g,) = gradients(torch.as_tensor(score), z, f"layer {layer}")
        support = (g != 0).any(1).view(len(batch), _PROBES, *size).any(1)
        fields += [_box(s, size) for s in support]
    return fields


def _box(support: Tensor, size: tuple[int, ...]) -> Field:
    rows, columns = support.any(1).nonzero()[:, 0].tolist(), support.any(0).nonzero()[:, 0].tolist()
    if not rows:
        return 0, 0, size[1], size[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def last_linear(model: Model, x: Tensor) -> str:
    """The last linear layer of a forward pass of x that takes one vector per picture."""
    called: list[str] = []

    def note(name: str, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].dim() == 2 and len(args[0]) == len(x):
            called.append(name)

    handles = [
        m.register_forward_pre_hook(lambda _m, args, name=n: note(name, args))
        for n, m in model.net.named_modules()
        if isinstance(m, nn.Linear)
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for h in handles:
            h.remove()
    if not called:
        raise Refused(
            f"{model.source or 'the network'} has no linear layer that takes one vector per picture, so there is no "
            "embedding before it: choose methods other than neighbours and embedding, methods=[...] (-m METHOD)"
        )
    return called[-1]


def embedded(model: Model, x: Tensor, linear: str) -> Tensor:
    """(B, D): what enters the linear layer of that name in a forward pass of x."""
    inputs: list[Tensor] = []
    handle = module_at(model, linear).register_forward_pre_hook(
        lambda _m, args: inputs.append(args[0].detach().clone())
    )
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return inputs[-1]


def answers(model: Model, x: Tensor, layer: str, values: Tensor) -> Tensor:
    """Logits (n, classes) of x (1, C, H, W) with the layer's output replaced by values (n, K, h, w)."""
    handle = module_at(model, layer).register_forward_hook(lambda _m, _a, out: values.to(out))
    try:
        with torch.no_grad():
            return model(x.expand(len(values), *x.shape[1:])).float()
    finally:
        handle.remove()
