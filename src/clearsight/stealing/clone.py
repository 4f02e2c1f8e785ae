"""The clone: a network that learns from what a thief was told, by a small loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.rng import gpus, seed_torch
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals.kept_graph import keeping_graph, must_learn
from clearsight.internals.twice_differentiable import twice_differentiable
from clearsight.models.architectures import build, kind_of
from clearsight.models.model_words import LIBRARIES

SMALL = 'clearsight:plain-cnn(widths="16,32", padding=1, pools=2, dense=64)'
LARGE = 'clearsight:plain-cnn(widths="16,32,64,64", padding=1, pools="4,2,2,2", norm=batch, head=average, dense="")'
_SIDE = 64  # pixels: from more on a clone averages its maps


@dataclass(frozen=True)
class Lesson:
    """How a clone learns.

    arch: its network, "auto" or such as "clearsight:lenet5(form=modern)".  epochs: passes over what is known; steps:
    the fewest steps of training in all.  batch: pictures of a step.  rate: Adam's step size, which falls to 0 along a
    cosine.  map_weight: weight of the maps beside the answers, where a thief is told maps.
    """

    arch: str = "auto"
    epochs: int = 10
    steps: int = 200
    batch: int = 64
    rate: float = 2e-3
    map_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.epochs, self.steps) < 1 or self.batch < 2 or self.rate <= 0:
            raise Refused(f"{self}", "give at least one epoch and step, two pictures a step, and a rate above 0")
        if self.arch != "auto" and not self.arch.startswith(LIBRARIES):
            raise Refused(f"arch {self.arch!r}", "name a network, such as clearsight:plain-cnn or timm:resnet18")


def new_clone(lesson: Lesson, preprocess: Preprocess, labels: tuple[str, ...], seed: int) -> Classifier:
    """A network of random weights that takes what the victim takes, and normalises it by itself."""
    arch = lesson.arch
    if arch == "auto":
        arch = SMALL if max(preprocess.size) <= _SIDE else LARGE
    if (kind := kind_of(arch)) != "classifier":
        raise Refused(
            f"a clone is a classifier, as its victim is, and {arch} is a {kind}", f"name one, such as {SMALL}"
        )
    own = Preprocess(preprocess.size, (0.5,) * preprocess.channels, (0.5,) * preprocess.channels)
    return Classifier(build(arch, len(labels), own, seed=seed), own, labels, arch)


def train_clone(
    clone: Classifier, x: Tensor, y: Tensor, lesson: Lesson, *, seed: int = 0, maps: tuple[Call, Tensor] | None = None
) -> Classifier:
    """Train a clone, in place, on pictures x (N, C, *S) and shares of classes y (N, K), by their cross entropy.

    The cross entropy with shares has the gradient of their divergence KL; with labels it is the usual one.  maps: the
    explainer and maps (N, *S) of the victim's, of each picture's top class.  Then 1 - the cosine between them and the
    clone's own maps is added.  An answer that is all 0, as rounding may give, teaches nothing and is left out.

    Refused: no pictures, and explainers whose map training cannot change.
    """
    told = y.sum(1) > 0
    if not bool(told.any()):
        raise Refused("no answer to learn from", "give a larger budget, or an access that tells more")
    x, y = x[told], y[told] / y[told].sum(1, keepdim=True)
    call, wanted = maps if maps is not None else (None, None)
    wanted = None if wanted is None else wanted[told]
    net, device = clone.net, clone.device
    steps = max(lesson.steps, -(-lesson.epochs * len(x) // lesson.batch))
    rows = _rows(len(x), lesson.batch, steps, seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=lesson.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.random.fork_rng(devices=gpus()), torch.enable_grad():
        seed_torch(seed)
        net.train()
        for row in rows:
            z, shares = x[row].to(device), y[row].to(device)
            if call is None or wanted is None:
                loss = F.cross_entropy(clone(z), shares)
            else:
                loss = _with_maps(clone, z, shares, call, wanted[row].to(device), lesson.map_weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        net.eval()
        for p in net.parameters():
            p.grad = None
    return clone


def _rows(n: int, batch: int, steps: int, seed: int) -> list[Tensor]:
    """Which pictures each step sees, `batch` of them; every one comes once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-steps * batch // n))])
    return list(torch.split(order, batch)[:steps])


def _with_maps(clone: Classifier, x: Tensor, y: Tensor, call: Call, wanted: Tensor, weight: float) -> Tensor:
    """The cross entropy, and how far the clone's maps (B, *S) point from the wanted ones."""
    z = x.clone().requires_grad_()
    with keeping_graph(), twice_differentiable():
        own: Tensor = call.method(clone, z, ClassScore(y.argmax(1)), **call.options)
    apart = 1 - F.cosine_similarity(own.flatten(1), wanted.flatten(1), dim=1, eps=1e-12)
    return F.cross_entropy(clone(x), y) + weight * apart.mean()


def must_learn_call(call: Call) -> None:
    """Refuse an explainer whose map training cannot change."""
    with keeping_graph():
        must_learn(call)


def answers_of(clone: Classifier) -> Callable[[Tensor], Tensor]:
    """The clone's logits (N, K) of pictures, many at a time: it is small."""

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([clone(part.to(clone.device)).float().cpu() for part in torch.split(x, 256)])

    return logits
