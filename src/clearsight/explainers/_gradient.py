"""The gradient at the pixels, which every gradient method begins with."""

import torch
from torch import Tensor

from clearsight.classifier import Classifier
from clearsight.layers import gradients
from clearsight.targets import Target


def pixel_gradients(model: Classifier, x: Tensor, target: Target) -> Tensor:
    """d target / d x, signed, in units of the target per unit of pixel value: x (B, C, *S) -> (B, C, *S)."""
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        score = target(model(z))
    (g,) = gradients(score, z)
    return g
