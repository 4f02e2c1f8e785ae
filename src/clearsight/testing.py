"""Networks small enough that the right answer can be written down."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.theft import Theft
from clearsight.core.training_step import TrainingStep
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
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


class _Templates(nn.Module):
    """Every window of the picture is a candidate: its box is the window, its logits are linear in its pixels."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int) -> None:
        super().__init__()
        self.match = nn.Conv2d(weight.shape[1], len(weight), (weight.shape[2], weight.shape[3]), stride)
        self.match.weight.data, self.match.bias = weight.clone(), nn.Parameter(bias.clone())
        self.stride, self.sides = stride, (weight.shape[3], weight.shape[2])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.match(x)
        top, left = torch.meshgrid(*(torch.arange(n, device=x.device) for n in logits.shape[2:]), indexing="ij")
        corner = self.stride * torch.stack([left, top], -1).reshape(1, -1, 2).to(logits)
        boxes = torch.cat([corner, corner + corner.new_tensor(self.sides)], -1).expand(x.shape[0], -1, -1)
        return torch.cat([boxes, torch.full_like(boxes[..., :1], 50.0), logits.flatten(2).mT], -1)


def template_detector(weight: Tensor, bias: Tensor, stride: int, size: tuple[int, int]) -> Detector:
    """A detector whose class logits are those of a template, weight (K, C, h, w), at every window of a picture.

    bias (K,); stride: pixels from one window to the next; size: (H, W) of the pictures; no normalisation.
    """
    channels = weight.shape[1]
    labels = tuple(f"class {i}" for i in range(len(weight)))
    return Detector(_Templates(weight, bias, stride), Preprocess(size, (0.0,) * channels, (1.0,) * channels), labels)


def tiny_detector() -> Detector:
    """Finds red and blue squares of 4 x 4 pixels in pictures (3, 32, 32): 64 windows that do not overlap.

    The logit of a window is 8 times its mean of the colour, less that of the other two, less 4.
    """
    weight = torch.full((2, 3, 4, 4), -8 / 16)
    weight[0, 0], weight[1, 2] = 8 / 16, 8 / 16
    return template_detector(weight, torch.full((2,), -4.0), 4, (32, 32))


def pixel_segmenter(weight: list[list[float]], size: tuple[int, int] = (32, 32)) -> Segmenter:
    """A segmenter whose logits are linear in each pixel by itself, one row of weights per class; no normalisation."""
    layer = nn.Conv2d(len(weight[0]), len(weight), 1, bias=False)
    layer.weight.data = torch.tensor(weight)[..., None, None]
    channels = len(weight[0])
    labels = tuple(f"class {i}" for i in range(len(weight)))
    return Segmenter(nn.Sequential(layer), Preprocess(size, (0.0,) * channels, (1.0,) * channels), labels)


def tiny_segmenter() -> Segmenter:
    """Names each pixel of a picture (3, 32, 32) after its strongest colour: class 0 is red, 1 green, 2 blue."""
    return pixel_segmenter([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])


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
