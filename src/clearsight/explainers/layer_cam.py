"""Jiang, Zhang, Hou, Cheng & Wei 2021, doi:10.1109/TIP.2021.3089943 (one layer, without fusion)."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.internals.layers import activations_and_gradients, enlarge


@method(paper="doi:10.1109/TIP.2021.3089943", claims="class-sensitive needs-convolutions few-passes learnable")
def layer_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer times their gradient where it is positive, summed, rectified and enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target.  The method also reads early layers, whose maps are
    finer.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Behind two averaged channels, of which one speaks against the class, only the other is seen; its gradient at each of
    two places is half its weight:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> import torch
    >>> x = torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]]]])
    >>> layer_cam(pooled([[4.0, -6.0], [0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[0.0, 2.0]]]
    """
    a, g = activations_and_gradients(model, x, target, layer)
    return enlarge((g.relu() * a).sum(1).relu(), x.shape[2:]).float()
