"""Desai & Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360, equations 3 and 4."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.one_output import one_output
from clearsight.internals.forward_from_layer import ForwardFrom, forward_from, logits_of
from clearsight.internals.forward_without_channel import parts_of_outputs, without_channels
from clearsight.internals.layers import enlarge, find_layer


@method(paper="doi:10.1109/WACV45572.2020.9093360", claims="class-sensitive needs-convolutions")
def ablation_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer, each weighted by how much the target falls without it, summed and rectified.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the target times activation.  A channel is removed by setting
    it to 0 at all places.  The paper divides the fall by the target of the whole picture.  This division is left out
    here: it changes nothing within a map, but it inverts the map where the target is negative.

    Only what follows the layer runs again, and of that no more than a channel changes: behind pooling its own numbers,
    and of a dense layer after that its own part.  These runs do not count as passes.  Where the network cannot be
    recorded, they are whole passes, one for each channel that is not 0 already, and count as such.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Behind one averaged channel, [0, 1] and weight 4, the target falls from 2 to 0:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> ablation_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 2.0]]]
    """
    layer = find_layer(model, x, layer)
    a, rest = forward_from(model, x, layer)
    with torch.no_grad():
        falls = falls_without(rest, a, target)
    cam = (falls.view(*falls.shape, *[1] * (a.dim() - 2)) * a).sum(1).relu()
    return enlarge(cam, x.shape[2:]).float()


def falls_without(rest: ForwardFrom, a: Tensor, target: Target) -> Tensor:
    """How much the target falls without each channel of a layer's output a (B, K, *s): (B, K)."""
    logits = logits_of(rest, a)
    index = one_output(target, logits)
    falls = None if index is None else parts_of_outputs(rest, a, index)
    if falls is None:
        before = target(logits)
        falls = before.new_zeros(a.shape[:2])
        for rows, k, without in without_channels(rest, a):
            falls[rows, k] = before[rows] - target[rows](without)
    return falls
