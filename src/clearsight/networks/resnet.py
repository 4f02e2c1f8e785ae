"""He, Zhang, Ren & Sun 2015, arXiv:1512.03385, table 1 and section 4.2."""

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks.common.residual import Depth, Stem, Version, residual


@method(paper="arXiv:1512.03385")
def resnet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    depth: Depth = 50,
    stem: Stem = "imagenet",
    version: Version = "1",
) -> nn.Module:
    """Residual blocks, which add to their input instead of replacing it, so that very deep networks can be trained.

    (B, *shape) -> scores (B, classes).

    Args:
        depth: number of layers with weights.  18 and 34 have blocks of two 3 × 3 convolutions; 50, 101 and 152 have
            bottlenecks of 1 × 1, 3 × 3 and 1 × 1; 20, 32, 44, 56 and 110 are the paper's small networks for CIFAR, with
            three stages and shortcuts without weights.
        stem: first layers: "imagenet" is a 7 × 7 convolution at stride 2 and pooling, "cifar" is a 3 × 3 convolution at
            stride 1, for small pictures.
        version: where a bottleneck halves the maps: "1" in its first 1 × 1 convolution, as in the paper, "1.5" in its
            3 × 3 convolution, as in torchvision.

    Refused: pictures of less than 17 × 17 pixels (with stem=cifar 5 × 5, or 3 × 3 with three stages), the depths for
    CIFAR without stem=cifar, and fewer than one class.

    >>> import torch
    >>> from clearsight.networks.common.blocks import count
    >>> with torch.device("meta"):
    ...     count(resnet()), count(resnet(10, (3, 32, 32), depth=20, stem="cifar"))
    (25557032, 269722)
    """
    return residual("resnet", classes, shape, depth, stem, version, None)
