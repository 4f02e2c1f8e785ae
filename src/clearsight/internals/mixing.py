"""One number of all outputs of a picture: their sum with random weights, whose slope is then looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.model import Model


def random_mix(model: Model, x: Tensor, generator: torch.Generator) -> Tensor:
    """A normal random weight for each output of a picture like x (1, C, *S), float64 (n,).

    How many outputs there are, the labels of a classifier say; of any other kind of model x is run.
    """
    if isinstance(model, Classifier):
        n = len(model.labels)
    else:
        with torch.no_grad():
            n = model(x).numel()
    return torch.randn(n, generator=generator, dtype=torch.float64).to(x.device)


def mixed(outputs: Tensor, mix: Tensor) -> Tensor:
    """Outputs (B, ...) summed with the weights (n,) of a mix: float64 (B,)."""
    return outputs.flatten(1).double() @ mix
