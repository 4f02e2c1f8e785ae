"""torchvision's transforms."""

from clearsight.core.light_imports import without_compiler

with without_compiler():
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

__all__ = ["F", "InterpolationMode"]
