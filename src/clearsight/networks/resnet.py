"""He, Zhang, Ren & Sun 2015, arXiv:1512.03385, table 1 and section 4.2."""

from torch import nn

from clearsight.core.catalogue import method
from clearsight.networks._residual import Depth, Stem, Version, residual


@method(paper="arXiv:1512.03385")
def resnet(
    classes: int = 1000,
    shape: tuple[int, ...] = (3, 224, 224),
    *,
    depth: Depth = 50,
    stem: Stem = "imagenet",
    version: Version = "1",
) -> nn.Module:
    """Blocks that add to their input instead of replacing it, so that depth does no harm.

    (B, *shape) -> scores (B, classes).  depth: 18 and 34 have blocks of two 3 × 3 convolutions, 50, 101 and 152 have
    bottlenecks of 1 × 1, 3 × 3 and 1 × 1; 20, 32, 44, 56 and 110 are the paper's small ones for CIFAR, of three stages,
    whose shortcuts have no weights.  stem: 7 × 7 at stride 2 and pooling, or for small pictures ("cifar") 3 × 3 at
    stride 1.  version: a bottleneck that halves the maps does so in its first 1 × 1 convolution ("1", the paper), or in
    its 3 × 3 one ("1.5", torchvision's).  Refused: less than 17 × 17 (stem=cifar: 5 × 5, or 3 × 3 with three stages).

    >>> import torch
    >>> from clearsight.networks._blocks import count
    >>> with torch.device("meta"):
    ...     count(resnet()), count(resnet(10, (3, 32, 32), depth=20, stem="cifar"))
    (25557032, 269722)
    """
    return residual("resnet", classes, shape, depth, stem, version, None)
