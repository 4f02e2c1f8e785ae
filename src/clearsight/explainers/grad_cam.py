"""Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.internals.layers import activations_and_gradients, enlarge


@method(paper="arXiv:1610.02391", claims="class-sensitive needs-convolutions few-passes learnable")
def grad_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer, weighted by their mean gradient, summed, rectified and enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target (divided by the number of places of the layer).

    On the mean score of a region this is Seg-Grad-CAM (arXiv:2002.11434).  The weights hold for all places: the map
    lies on every object that looks like a box's, and hardly depends on where a region is; hires-cam keeps them apart.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Behind one averaged channel the map is that channel, times its weight, over its number of places:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> grad_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 2.0]]]
    """
    a, g = activations_and_gradients(model, x, target, layer)
    places = tuple(range(2, a.dim()))
    cam = (g.mean(places, keepdim=True) * a).sum(1).relu()
    return enlarge(cam, x.shape[2:]).to(torch.float32)
