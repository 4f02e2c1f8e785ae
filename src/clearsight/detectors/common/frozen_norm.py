"""BatchNorm that keeps its statistics: a batch of few large pictures would estimate them badly."""

from torch import nn


def freeze_norm(net: nn.Module) -> None:
    """Put every BatchNorm into eval mode: it uses the statistics that it has, and does not change them."""
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
