"""Networks small enough that the right answer can be written down."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.theft import Theft
from clearsight.core.training_step import TrainingStep
from clearsight.training.losses import weighted_entropy
from clearsight.training.perturb import attacker, training_attack


def linear(weight: list[list[float]], bias: list[float] | None = None) -> Classifier:
    """One logit per row of weights, over the pixels of a (1, 1, W) picture; no normalisation."""
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias or [0.0] * len(weight))
    labels = tuple(f"class {i}" for i in range(len(weight)))
    return Classifier(nn.Sequential(nn.Flatten(), layer), Preprocess((1, len(weight[0])), (0.0,), (1.0,)), labels)


def linear_text(weight: list[list[list[float]]], alphabet: str = "") -> Classifier:
    """One logit per class of weights (letters, L), over a text (1, letters, L); with its alphabet, if it has one."""
    model = linear([[v for row in of_class for v in row] for of_class in weight])
    letters, length = len(weight[0]), len(weight[0][0])
    preprocess = Preprocess((length,), (0.0,) * letters, (1.0,) * letters, alphabet=alphabet)
    return replace(model, preprocess=preprocess)


class _Pooled(nn.Module):
    def __init__(self, weight: list[list[float]], relu: bool) -> None:
        super().__init__()
        self.relu = relu
        channels = len(weight[0])
        self.features = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        self.features.weight.data.fill_(1.0)
        self.head = nn.Linear(channels, len(weight), bias=False)
        self.head.weight.data = torch.tensor(weight)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        scores: Tensor = self.head((maps.relu() if self.relu else maps).mean((2, 3)))
        return scores


def pooled(weight: list[list[float]], relu: bool = False) -> Classifier:
    """The feature maps are the picture's own channels; one logit per row of weights over their averages.

    relu: they pass a ReLU on the way.
    """
    channels = len(weight[0])
    labels = tuple(f"class {i}" for i in range(len(weight)))
    return Classifier(_Pooled(weight, relu), Preprocess((1, 2), (0.0,) * channels, (1.0,) * channels), labels)


def rectified(first: list[list[float]], second: list[list[float]], bias: list[float] | None = None) -> Classifier:
    """Dense, ReLU, dense, over the pixels of a (1, 1, W) picture; no normalisation.  bias: of the first layer."""
    below, above = nn.Linear(len(first[0]), len(first)), nn.Linear(len(first), len(second), bias=False)
    below.weight.data, above.weight.data = torch.tensor(first), torch.tensor(second)
    below.bias.data = torch.tensor(bias or [0.0] * len(first))
    labels = tuple(f"class {i}" for i in range(len(second)))
    net = nn.Sequential(nn.Flatten(), below, nn.ReLU(), above)
    return Classifier(net, Preprocess((1, len(first[0])), (0.0,), (1.0,)), labels)


def training_step(model: Classifier, attack: str = "fgsm", *, eps: float = 8 / 255, seed: int = 0) -> TrainingStep:
    """A step of training against an attack, without label smoothing and class weights."""
    call, _, norm = training_attack(attack)
    entropy = weighted_entropy(torch.ones(len(model.labels)), 0.0)
    return TrainingStep(model, entropy, attacker(model, call, eps, norm, seed), eps, norm, seed=seed)


def theft(
    pool: Tensor,
    *,
    weight: list[list[float]] | None = None,
    bias: list[float] | None = None,
    asked: Tensor | None = None,
    answers: list[list[float]] | None = None,
    seed: int = 0,
) -> Theft:
    """A theft with a linear clone; of the pool (P, C, *S) nothing was asked about, unless it is said."""
    pixels = pool[0].numel() if len(pool) else pool.shape[1:].numel()
    weight = weight or [[0.0] * pixels, [0.0] * pixels]
    asked = pool[:0] if asked is None else asked
    told = torch.full((len(asked), len(weight)), 1 / len(weight)) if answers is None else torch.tensor(answers)
    return Theft(pool, asked, told, linear(weight, bias), torch.Generator().manual_seed(seed))
