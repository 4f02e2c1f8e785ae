"""Krizhevsky, Sutskever & Hinton 2012, doi:10.1145/3065386, section 4.1."""

from torch import Tensor

from clearsight.augmentations.common.draws import within
from clearsight.core import rng
from clearsight.core.catalogue import method

# Of the colours of ImageNet, in units of pixels in [0, 1], as fb.resnet.torch (datasets/imagenet.lua) publishes them.
VALUES = (0.2175, 0.0188, 0.0045)
VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))  # one to a column


@method(paper="doi:10.1145/3065386")
def lighting(x: Tensor, y: Tensor, *, std: float = 0.1) -> tuple[Tensor, Tensor]:
    """Add one colour to all of a picture, drawn along the main axes of colour.

    x (B, C, H, W) in [0, 1], y (B, K) shares of the classes -> the same shapes; y does not change.

    Along each of the three eigenvectors of the colours of ImageNet its eigenvalue is added, times a normal number.  The
    eigenvectors are not those of the batch, so a picture's result does not depend on its neighbours.  Pixels are
    clipped to [0, 1].  Grey pictures (C = 1) get the mean of the three channels.

    Args:
        std: standard deviation of the normal numbers, 0 to 10; 0 changes nothing.

    Refused: options outside their ranges.

    >>> import torch
    >>> lighting(torch.full((1, 3, 1, 1), 0.5), torch.ones(1, 1), std=0.0)[0].flatten().tolist()
    [0.5, 0.5, 0.5]
    """
    within(0, 10, std=std)
    strength = std * rng.normal(x.new_empty(len(x), 3))
    light = (strength * x.new_tensor(VALUES)) @ x.new_tensor(VECTORS).T  # (B, 3)
    if x.shape[1] == 1:
        light = light.mean(1, keepdim=True)
    return (x + light[:, :, None, None]).clamp(0, 1), y
