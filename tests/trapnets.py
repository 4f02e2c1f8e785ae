"""Networks with every trap beside equal ones without, and whether anything of a network was touched."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.core.copying import plain
from clearsight.core.preprocess import Preprocess
from clearsight.core.taking import takes_kind

EXPLAINERS = sorted(n for n, m in cs.catalogue("explainers").items() if takes_kind(m, "classifier"))
ATTACKS = sorted(
    n for n, m in cs.catalogue("attacks").items() if "texts-only" not in m.claims and takes_kind(m, "classifier")
)
NEEDS_A_LINEAR_HEAD = {"needs-a-linear-head"}  # behind the feature maps: none of the nets here has one
FAST = {
    "queries": 40,
    "classes": 2,
    "steps": 4,
    "samples": 12,
    "window": 6,
    "stride": 6,
    "masks": 12,
    "iterations": 6,
    "cells": 3,
    "restarts": 2,
}


def spelled(name: str) -> str:
    """An explainer or an attack with few steps."""
    options = {**cs.catalogue("attacks"), **cs.catalogue("explainers")}[name].options
    return f"{name}({', '.join(f'{k}={v}' for k, v in FAST.items() if k in options)})"


def convs() -> list[nn.Module]:
    """Fresh layers, every time with the same weights: two convolutions, a norm, a head."""
    torch.manual_seed(0)
    made = [nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, 3)]
    g = torch.Generator().manual_seed(1)
    made[2].running_mean = torch.rand(6, generator=g) - 0.5
    made[2].running_var = torch.rand(6, generator=g) + 0.5
    return made


class Net(nn.Module):
    """act after each convolution, add where there is a residual, out at the end: each trap changes one of them."""

    def __init__(
        self,
        act: Callable[[Tensor], Tensor] = torch.relu,
        add: Callable[[Tensor, Tensor], Tensor] = torch.add,
        out: Callable[[Tensor], Any] = lambda z: z,
    ) -> None:
        super().__init__()
        self.first, self.second, self.norm, self.head = convs()
        self.act, self.add, self.out = act, add, out

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.act(self.add(self.norm(self.second(x)), x))

    def forward(self, x: Tensor) -> Any:
        return self.out(self.head(self.features(x).mean((2, 3))))


class Plain(Net):
    """No residual: an in-place ReLU stands right behind the last convolution."""

    def features(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


class Iadd(Net):
    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = self.norm(self.second(x))
        y += x
        return self.act(y)


class Stubborn(Net):
    """Its norm stays in training mode whatever it is told, through an overridden train()."""

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        self.norm.train()
        return self


class Dropped(Net):
    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), 0.5, self.training)


class Counts(Net):
    """Its forward counts in a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def features(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().features(x)


class Fails(Net):
    """Raises in the middle of forward, at the second call."""

    calls = 0

    def features(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        self.calls += 1
        if self.calls % 2 == 0:
            raise KeyError("no cable")
        return self.act(self.second(x))


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


def hooked(net: nn.Module) -> nn.Module:
    net.second.register_forward_hook(lambda m, i, o: None)
    net.register_forward_pre_hook(lambda m, i: None)
    net.head.register_full_backward_hook(lambda m, gi, go: None)
    return net


def with_grads(net: nn.Module) -> nn.Module:
    for p in net.parameters():
        p.grad = torch.full_like(p, 0.5)
    return net


def normed(kind: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def apply(net: nn.Module) -> nn.Module:
        torch.manual_seed(5)
        kind(net.second)
        return net

    return apply


def old_weight_norm(m: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(m)


def run_once(net: nn.Module) -> nn.Module:
    """Such a hook computes its weight in a pass, and leaves a tensor with a history."""
    net.eval()(pictures())
    return net


def as_plain_weight(net: nn.Module) -> nn.Module:
    """The same weights as plain tensors: what a parametrized layer must be equal to in eval mode."""
    net.eval()
    with torch.no_grad():
        w = net.second.weight.detach().clone()
    torch.nn.utils.parametrize.remove_parametrizations(net.second, "weight")
    net.second.weight = nn.Parameter(w)
    return net


def add_in_place(a: Tensor, b: Tensor) -> Tensor:
    return a.add_(b)


def model(net: nn.Module, **options: Any) -> Classifier:
    labels = options.pop("labels", ("a", "b", "c"))
    pre = options.pop("preprocess", Preprocess((12, 16), (0.5,) * 3, (0.25,) * 3))
    return Classifier(net, pre, labels, "trap", **options)


def mixed_modes(net: nn.Module) -> nn.Module:
    net.train()
    net.norm.eval()
    return net


# name -> (the net with the trap, an equivalent one without, options for both)
TRAPS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], dict[str, Any]]] = {
    "in-place ReLU module, reused": (lambda: Net(nn.ReLU(inplace=True)), Net, {}),
    "in-place ReLU behind the target convolution": (lambda: Plain(nn.ReLU(inplace=True)), Plain, {}),
    "functional in-place relu": (lambda: Plain(torch.relu_), Plain, {}),
    "one ReLU module for all": (lambda: Net(nn.ReLU()), Net, {}),
    "functional relu": (lambda: Net(F.relu), Net, {}),
    "residual in place": (lambda: Net(nn.ReLU(inplace=True), add_in_place), Net, {}),
    "residual x += y": (lambda: Iadd(nn.ReLU(inplace=True)), Net, {}),
    "SiLU in place": (lambda: Net(nn.SiLU(inplace=True)), lambda: Net(F.silu), {}),
    "tuple": (lambda: Net(out=lambda z: (z * 0 + 7, z)), Net, {"output": 1}),
    "dict": (lambda: Net(out=lambda z: {"aux": z * 0 + 7, "logits": z}), Net, {"output": "logits"}),
    "probabilities": (lambda: Net(out=lambda z: z.softmax(1)), lambda: Net(out=lambda z: z.log_softmax(1)), {}),
    "frozen": (lambda: frozen(Net()), Net, {}),
    "training mode": (lambda: mixed_modes(Net()), lambda: Net().eval(), {}),
    "norm kept in training mode": (lambda: Stubborn().train(), lambda: Net().eval(), {}),
    "a buffer that counts": (Counts, Net, {}),
    "dropout": (lambda: Dropped().train(), Net, {}),
    "hooks of the user's": (lambda: hooked(Net()), Net, {}),
    "gradients of the user's": (lambda: with_grads(Net()), Net, {}),
    "spectral norm": (
        lambda: normed(parametrizations.spectral_norm)(Net()),
        lambda: as_plain_weight(normed(parametrizations.spectral_norm)(Net())),
        {},
    ),
    "weight norm": (lambda: normed(parametrizations.weight_norm)(Net()), Net, {}),
    "weight norm by a hook": (lambda: normed(old_weight_norm)(Net()), Net, {}),
    "spectral norm by a hook": (
        lambda: run_once(normed(nn.utils.spectral_norm)(Net())),
        lambda: plain(run_once(normed(nn.utils.spectral_norm)(Net()))),
        {},
    ),
}


def pictures(n: int = 3, shape: tuple[int, ...] = (3, 12, 16)) -> Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(2))


HOOKS = [n for n in vars(nn.Module()) if "hook" in n]


@contextmanager
def untouched(net: nn.Module, x: Tensor) -> Iterator[None]:
    """Everything that a user could notice is as it was: also when an exception went through."""

    def state() -> dict[str, Any]:
        return {
            "modes": [m.training for m in net.modules()],
            "requires_grad": [p.requires_grad for p in net.parameters()],
            "grads are the same objects": [id(p.grad) for p in net.parameters()],
            "hooks": [
                {k: dict(v) for k, v in vars(m).items() if k in HOOKS and hasattr(v, "keys")} for m in net.modules()
            ],
            "forward": [vars(m).get("forward") for m in net.modules()],
            "parameters are the same objects": [id(p) for p in net.parameters()],
            "buffers are the same objects": [id(b) for b in net.buffers()],
            "python": random.getstate(),
            "grad mode": torch.is_grad_enabled(),
        }

    def tensors() -> dict[str, Tensor]:
        found = {f"value of {n}": v for n, v in net.state_dict(keep_vars=True).items()}
        found |= {f"grad of {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
        found |= {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64))}
        return {k: v.detach().clone() for k, v in (found | {"pictures": x}).items()}

    was, values = state(), tensors()
    try:
        yield
    finally:
        for what, value in state().items():
            assert value == was[what], f"{what} changed"
        now = tensors()
        assert now.keys() == values.keys()
        for what, value in now.items():
            assert torch.equal(value, values[what]), f"{what} changed"
