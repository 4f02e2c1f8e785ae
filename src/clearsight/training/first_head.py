"""The first head: a linear layer fitted to the features of the frozen body, before anything else is trained.

It is a model that can be used after one pass over the pictures, and training that begins from it changes the pretrained
features less than training that begins from a random head (Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.internals.scores import finite
from clearsight.training.batches import Store
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.recipe import Recipe
from clearsight.training.temperature_scaling import nll
from clearsight.training.training_data import TrainingData

PATIENCE = 5  # epochs without a better loss on val, where there is a first model
FEATURE_BYTES = 2 * 2**30  # float32 features in memory
PENALTIES = tuple(10 ** (-e / 2) for e in range(2, 13))  # 0.1 to 0.000001, the strongest first
ITERATIONS = 100  # of L-BFGS, for each penalty
BATCH = 32


@dataclass(frozen=True, eq=False)
class Head:
    """A fitted linear layer.  weight (K, D), bias (K,): for the features as the network gives them.

    penalty: the one of PENALTIES that is best on val.  loss: that of the recipe over train, without the penalty.
    val_logits (N, K): of the pictures of val, on the CPU.  layer: its name in the network, where it is of one.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    loss: float
    val_logits: Tensor
    layer: str = ""


def resolve_first_head(recipe: Recipe, start: TrainableNetwork, data: TrainingData) -> tuple[Recipe, list[str]]:
    """The recipe with first_head off where it makes no sense, and its patience; and a sentence on each."""
    reasons = []
    if recipe.first_head and (why := _why_none(recipe, start, data)):
        recipe = replace(recipe, first_head=False)
        reasons.append(f"no first head: {why}")
    if recipe.patience is None:
        recipe = replace(recipe, patience=PATIENCE if recipe.first_head else 0)
        if recipe.first_head:
            reasons.append(f"patience {PATIENCE}: there is a first model, and training goes on while it gets better")
    return recipe, reasons


def _why_none(recipe: Recipe, start: TrainableNetwork, data: TrainingData) -> str:
    """Why no first head can be fitted; "" where one can."""
    if not start.pretrained:
        return "the weights are random, so the features say little"
    if recipe.random_labels:
        return "the labels are random, so val cannot choose its penalty"
    layer = linear_head(unchanged(start, data), start.head)
    if layer is None:
        return "the network does not end in one linear layer that takes one vector per picture"
    n = len(data.rows("train")) + len(data.rows("val"))
    if 4 * n * layer[1].in_features > FEATURE_BYTES:
        return f"the features of {counted(n, 'picture')} take more than {FEATURE_BYTES / 2**30:g} GiB"
    return ""


def unchanged(start: TrainableNetwork, data: TrainingData) -> Classifier:
    """The network before training, as a Classifier."""
    return Classifier(start.net, start.preprocess, data.labels, channels_last=start.channels_last)


def linear_head(model: Classifier, head: frozenset[str]) -> tuple[str, nn.Linear] | None:
    """The linear layer, by its name, that turns one vector per picture into the outputs; None where there is none.

    head: the parameters whose shape follows from the classes.  Layers of the head that run in training only, as those
    of auxiliary outputs, do not count.
    """
    owners = {name.rpartition(".")[0] for name in head}
    runs: list[tuple[str, nn.Module, Any, Any]] = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        runs.append((name, module, args[0] if args else None, out))

    handles = [
        m.register_forward_hook(lambda m, args, out, name=name: note(name, m, args, out))
        for name, m in model.net.named_modules()
        if name in owners
    ]
    size = (1, model.preprocess.channels, *model.preprocess.size)
    try:
        with model.undisturbed(), torch.no_grad():
            logits = model(torch.zeros(size, device=model.device))
    finally:
        for h in handles:
            h.remove()
    if len(runs) != 1:
        return None
    name, module, vectors, out = runs[0]
    if not isinstance(module, nn.Linear) or module.bias is None or vectors.dim() != 2 or not torch.equal(out, logits):
        return None
    return name, module


def first_head(
    model: Classifier,
    head: frozenset[str],
    data: TrainingData,
    store: Store,
    weights: Tensor,
    smoothing: float,
    tell: Progress,
) -> Head:
    """The head fitted to what the network makes of the pictures of train and val; each passes it once.

    store: keeps the pictures of val, which every epoch needs in the same form; those of train are not kept.
    """
    found = linear_head(model, head)
    assert found is not None  # else resolve_first_head has turned it off
    train, val = data.rows("train"), data.rows("val")
    passing = Store(data.pictures, store.preprocess, False, room=0)
    x, y = features(model, found[1], passing, train, tell), data.y[train]
    if data.times is not None:  # in proportion, none less than once
        copies = (data.times[train] / data.times[train].min()).round().long()
        x, y = x.repeat_interleave(copies.to(x.device), 0), y.repeat_interleave(copies, 0)
    val_x = features(model, found[1], store, val, tell)
    return replace(fit_head(x, y, val_x, data.y[val], weights, smoothing), layer=found[0])


def put_head(net: nn.Module, head: Head) -> None:
    """Give the network's last layer the fitted weights."""
    with torch.no_grad():
        net.get_parameter(f"{head.layer}.weight").copy_(head.weight)
        net.get_parameter(f"{head.layer}.bias").copy_(head.bias)


def features(
    model: Classifier,
    layer: nn.Linear,
    store: Store,
    rows: Sequence[int],
    tell: Progress,
    what: str = "features for the first model",
) -> Tensor:
    """(N, D): what enters the linear layer for each of these pictures, which pass the network once.

    what: the name of this step in the progress.
    """
    vectors: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _m, args: vectors.append(args[0].detach().clone()))
    try:
        with model.undisturbed(), torch.no_grad():
            for start in range(0, len(rows), BATCH):
                finite(model, model(store.pixels(rows[start : start + BATCH]).to(model.device)))
                tell(what, min(start + BATCH, len(rows)), len(rows))
    finally:
        handle.remove()
    return torch.cat(vectors)


def fit_head(x: Tensor, y: Tensor, val_x: Tensor, val_y: Tensor, weights: Tensor, smoothing: float) -> Head:
    """The linear layer with the least loss on train, for the penalty that gives the least loss on val.

    x (N, D) features and y (N, K) shares of the classes; weights (K,): of the classes.  The loss is that of training,
    the mean cross entropy with weights and label smoothing; the penalty on the weights is that of ``penalised``.
    Penalties are tried from the strongest on, as long as the loss on val falls.
    """
    centre = x.mean(0)
    scale = float((x - centre).square().sum(1).mean().sqrt()) or 1.0
    z, val_z = (x - centre) / scale, (val_x - centre) / scale
    w, b = x.new_zeros(y.shape[1], x.shape[1]), x.new_zeros(y.shape[1])
    y, weights = y.to(x), weights.to(x)
    best: Head | None = None
    least = math.inf
    for penalty in PENALTIES:
        w, b = penalised(z, y, weights, smoothing, penalty, w, b)
        val_logits = linear(val_z, w, b).float().cpu()
        val_loss = nll(val_logits, val_y)
        if best is not None and not val_loss < least:
            break
        loss = float(cross_entropy(linear(z, w, b), y, weights, label_smoothing=smoothing))
        best, least = Head(w / scale, b - linear(centre, w) / scale, penalty, loss, val_logits), val_loss
    assert best is not None
    return best


def penalised(
    z: Tensor, y: Tensor, weights: Tensor, smoothing: float, penalty: float, w: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """The w (K, D) and b (K,) with the least cross entropy of z (N, D) plus penalty / 2 times the sum of squares of w.

    They begin at the w and b given.  The problem is convex; L-BFGS (Liu & Nocedal 1989) solves it.
    """
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    opt = torch.optim.LBFGS(
        [w, b], max_iter=ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        opt.zero_grad()
        loss = cross_entropy(linear(z, w, b), y, weights, label_smoothing=smoothing) + penalty / 2 * w.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        opt.step(closure)  # type: ignore[no-untyped-call]
    return w.detach(), b.detach()
