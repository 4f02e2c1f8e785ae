"""Springenberg et al. 2015, arXiv:1412.6806, section 3.4."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.rectifiers import rectified_gradient


@method(paper="arXiv:1412.6806", claims="signed class-sensitive needs-relu few-passes learnable")
def guided_backprop(model: Model, x: Tensor, target: Target) -> Tensor:
    """The gradient, except that every ReLU passes only positive gradients back, and only where it was open.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target per unit of pixel value, summed over channels.
    The maps are known to look alike for different classes and weights (see the check `sanity`).

    Refused: networks without a ReLU, and networks with activations other than ReLU and ReLU6 (gates may be sigmoids).

    Of two ReLU units one is closed, and one speaks against the class:

    >>> import torch
    >>> from clearsight.testing import rectified
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[1.0, 0.5]]]])
    >>> guided_backprop(rectified([[2.0, 0.0], [0.0, 3.0]], [[1.0, -1.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[2.0, 0.0]]]
    """
    return rectified_gradient(model, x, target, lambda _above, passed: passed.clamp(min=0), "guided-backprop").sum(1)
