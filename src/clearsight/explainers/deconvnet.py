"""Zeiler & Fergus 2014, arXiv:1311.2901, section 2; as a gradient: Springenberg et al. 2015, section 3.4."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.rectifiers import rectified_gradient


@method(paper="arXiv:1311.2901", claims="signed class-sensitive needs-relu few-passes learnable")
def deconvnet(model: Model, x: Tensor, target: Target) -> Tensor:
    """The gradient, except that every ReLU passes only positive gradients back, whether it was open or closed.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target per unit of pixel value, summed over channels.
    The method is known to show the picture's edges rather than the decision (see the check `sanity`).

    Refused: networks without a ReLU, and networks with activations other than ReLU and ReLU6 (gates may be sigmoids).

    One unit is closed, and one speaks against the class:

    >>> import torch
    >>> from clearsight.testing import rectified
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[1.0, 0.5]]]])
    >>> deconvnet(rectified([[-2.0, 0.0], [0.0, 3.0]], [[1.0, -1.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[-2.0, 0.0]]]
    """
    return rectified_gradient(model, x, target, lambda above, _passed: above.clamp(min=0), "deconvnet").sum(1)
