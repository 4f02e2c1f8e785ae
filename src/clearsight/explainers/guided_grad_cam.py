"""Selvaraju et al. 2017, arXiv:1610.02391, section 3.2."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.grad_cam import grad_cam
from clearsight.explainers.guided_backprop import guided_backprop


@method(paper="arXiv:1610.02391", claims="signed class-sensitive needs-convolutions needs-relu few-passes learnable")
def guided_grad_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """Guided backpropagation, times Grad-CAM: fine lines where the class is seen.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target squared per unit of pixel value.

    Args:
        layer: name of the module whose feature maps Grad-CAM reads; "auto" takes the last one before pooling.

    Refused: networks without a ReLU, and networks with activations other than ReLU and ReLU6 (gates may be sigmoids).

    Two channels, each under a ReLU and averaged, with weights 4 and -2: Grad-CAM is (0, 0.5), since half of the first
    one's places are closed, and guided backpropagation is 4 / 2 where the first one is open:

    >>> import torch
    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.0, 1.0]], [[0.5, 0.5]]]])
    >>> guided_grad_cam(pooled([[4.0, -2.0], [0.0, 0.0]], relu=True), x, ClassScore(0), layer="features").tolist()
    [[[0.0, 1.0]]]
    """
    maps: Tensor = guided_backprop(model, x, target) * grad_cam(model, x, target, layer=layer)
    return maps
