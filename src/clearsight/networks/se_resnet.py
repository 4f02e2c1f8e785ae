"""Hu, Shen, Albanie, Sun & Wu 2017, arXiv:1709.01507."""

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.blocks import positive
from clearsight.networks.common.residual import Depth, Stem, Version, residual


@method(paper="arXiv:1709.01507")
def se_resnet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    depth: Depth = 50,
    ratio: int = 16,
    stem: Stem = "imagenet",
    version: Version = "1",
) -> nn.Module:
    """A residual network with squeeze and excitation: each block weighs its maps by the averages of all of them.

    (B, *shape) -> scores (B, classes).

    Args:
        depth: number of layers with weights, as in resnet.
        ratio: how many times fewer units the hidden layer of each gate has than there are maps, at least 1.
        stem: first layers, "imagenet" or "cifar", as in resnet.
        version: where a bottleneck halves the maps, "1" or "1.5", as in resnet.

    Refused: what resnet refuses, and a ratio below 1 or above the number of maps of a stage.

    >>> import torch
    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(se_resnet())
    28088024
    """
    positive("se-resnet", ratio=ratio)
    return residual("se-resnet", classes, shape, depth, stem, version, ratio)
