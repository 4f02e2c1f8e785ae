"""Muhammad & Yeasin 2020, arXiv:2008.00299."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.kept_graph import is_kept, single
from clearsight.internals.layers import activations, enlarge, find_layer

FLAT = 1e-3  # of what the channels would add up to without their signs: a sum that bfloat16's rounding may turn over

SMALL = 128  # rows of a matrix, up to which a squaring takes less time than a look at what it leaves
SQUARINGS = 14  # the second eigenvalue is then gone unless it is within 0.2 % of the largest
TIE = 1e-9  # of the largest eigenvalue: a second one no farther from it is as large
REST = 1e-6  # what the others may still have before the last squaring, which leaves them its square


@method(paper="arXiv:2008.00299", claims="needs-convolutions few-passes learnable")
def eigen_cam(model: Model, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The first principal component of one layer's channels: what stands out in the picture, whatever the class.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the layer's activations.  Each channel's mean over the places
    is subtracted first, and values below the picture's average become 0.

    A principal component has no sign of its own.  The sign is the one with which the sum of the channels grows.  Where
    that sum is flat except for rounding, as behind a LayerNorm, the sign is the one that puts the few places that stand
    out above 0.

    Training that is guided by it is refused where the two largest components of a picture are equal: no gradient says
    then which of them it becomes.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    One channel is its own component, minus its mean:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> eigen_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, 0.5]]]
    """
    layer = find_layer(model, x, layer)
    a, _ = activations(model, x, layer)
    component = first_component(a.flatten(2).double())
    return enlarge(component.view(len(a), *a.shape[2:]).relu().to(single(a)), x.shape[2:])


def first_component(a: Tensor) -> Tensor:
    """What each of the places of a (B, K, P) is worth along the direction in which they differ most: (B, P)."""
    a = a - a.mean(2, keepdim=True)
    if a.shape[1] < a.shape[2]:  # the smaller of the two Gram matrices has the same eigenvalues
        component = (a.mT @ _leading(a @ a.mT)[..., None])[..., 0]
    else:
        gram = a.mT @ a
        top = _leading(gram)[..., None]
        component = (top * (top.mT @ gram @ top).clamp(min=0).sqrt())[..., 0]
    sign = (component * a.sum(1)).sum(1, keepdim=True)
    size = (component.abs() * a.abs().sum(1)).sum(1, keepdim=True)
    sign = torch.where(sign.abs() <= FLAT * size, component.pow(3).sum(1, keepdim=True), sign)
    return torch.where(sign < 0, -component, component)


def _leading(gram: Tensor) -> Tensor:
    """The eigenvector of the largest eigenvalue, which follows the weights where a graph is kept."""
    top = top_eigenvector(gram.detach())
    return _following(gram, top) if is_kept() else top


def _following(gram: Tensor, top: Tensor) -> Tensor:
    """top (B, n) itself, with its gradient in Gram matrices (B, n, n), whose leading eigenvector it is.

    A change dG turns it by the sum of v_i (v_i dG top) / (largest - l_i) over all other eigenvectors v_i.

    Refused: matrices whose two largest eigenvalues are equal, for then it has no gradient.
    """
    values, others = torch.linalg.eigh(gram.detach())
    largest, values, others = values[:, -1:], values[:, :-1], others[..., :-1]
    second = values[:, -1:] if values.shape[1] else torch.zeros_like(largest)
    if bool((largest - second <= TIE * largest).any()):
        raise Refused(
            "eigen-cam: in a picture the two largest components of the layer are equal, so its map has no gradient "
            "that training could follow",
            "guide by grad-cam, or name another layer with layer=",
        )
    turn = (others.mT @ (gram @ top[..., None])) / (largest - values)[..., None]
    step = (others @ turn)[..., 0]
    turned: Tensor = top + (step - step.detach())
    return turned


def top_eigenvector(gram: Tensor) -> Tensor:
    """The eigenvector (B, n), of length 1, of the largest eigenvalue of Gram matrices (B, n, n) in float64.

    Squared again and again, a matrix divided by its trace becomes the product of that vector with itself: in fewer
    steps than it takes to find all eigenvectors.  Where the second eigenvalue is nearly as large, all are found.
    """
    power = gram / _trace(gram)
    together = 2 if gram.shape[1] <= SMALL else 1
    for _ in range(SQUARINGS // together):
        for _ in range(together):
            power = torch.bmm(power, power)
        shares = _trace(power)  # the sum of a power of each eigenvalue's share: 1 where one has all
        power.div_(shares)
        if float(shares.amin()) > 1 - REST:
            largest = power.diagonal(dim1=1, dim2=2).argmax(1)
            return normalize(power[torch.arange(len(power), device=power.device), largest])
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[..., -1]


def _trace(matrices: Tensor) -> Tensor:
    """(B, n, n) -> (B, 1, 1), above 0."""
    tiny = torch.finfo(matrices.dtype).tiny
    return matrices.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).clamp_min_(tiny)[..., None]
