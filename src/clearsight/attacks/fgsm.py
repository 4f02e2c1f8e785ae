"""Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572, section 4."""

import torch
from torch import Tensor

from clearsight.classifier import Classifier
from clearsight.layers import gradients
from clearsight.methods import method
from clearsight.targets import Goal


@method(paper="arXiv:1412.6572", claims="linf")
def fgsm(model: Classifier, x: Tensor, goal: Goal, *, eps: float) -> Tensor:
    """One step of size eps at every pixel, along the sign of the gradient, towards the goal.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels, the largest change of any.

    On a linear model the step is the best one there is: down where the weight of the right class is larger.

    >>> from clearsight.testing import linear
    >>> from clearsight.targets import Misclassify
    >>> x = torch.tensor([[[[0.5, 0.5]]]])
    >>> fgsm(linear([[3.0, -2.0], [0.0, 0.0]]), x, Misclassify(torch.tensor([0])), eps=0.25).tolist()
    [[[[0.25, 0.75]]]]
    """
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = goal.loss(model(z))
    (g,) = gradients(loss, z)
    return (x - eps * g.sign()).clamp(0, 1)
