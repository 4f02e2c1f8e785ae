"""Hu, Shen, Albanie, Sun & Wu 2017, arXiv:1709.01507."""

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks._blocks import positive
from clearsight.networks._residual import Depth, Stem, Version, residual


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
    """A residual network whose branches weigh their maps by what all of them show on average.

    (B, *shape) -> scores (B, classes).  ratio: how many times fewer units the layer between has than there are maps.
    depth, stem and version are those of resnet, and so is what is refused.

    >>> import torch
    >>> from clearsight.networks._blocks import count
    >>> with torch.device("meta"):
    ...     count(se_resnet())
    28088024
    """
    positive("se-resnet", ratio=ratio)
    return residual("se-resnet", classes, shape, depth, stem, version, ratio)
