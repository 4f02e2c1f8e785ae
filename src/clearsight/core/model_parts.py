"""What a user makes a model of, looked at before it is one: the network, its preprocessing and its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from clearsight.core.guard import able
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused


def network_given(net: nn.Module, preprocess: Preprocess, maker: str) -> nn.Module:
    """The network, without what torch.compile and nn.DataParallel wrap around it.

    maker: the function that takes it, for the message.  Refused: what is no network, networks frozen by torch.jit or
    recorded in training mode, and what is no Preprocess.
    """
    net = _unwrapped(net)
    if not isinstance(net, nn.Module):
        raise Refused(
            f"a {type(net).__name__} is not a torch.nn.Module: {maker}(net, preprocess, labels) takes a network"
        )
    able(net)
    if not isinstance(preprocess, Preprocess):
        raise Refused("preprocessing is unknown: give preprocess=Preprocess(size=224, mean=(0.5,) * 3, std=(0.5,) * 3)")
    return net


def class_names(labels: Sequence[str], order: str) -> tuple[str, ...]:
    """The names of one class or more.  order: what their order is that of.  Refused: a string, and none."""
    if isinstance(labels, str) or not len(labels):
        raise Refused(f"labels=[...] takes the names of the classes, in the order of the network's {order}")
    return tuple(map(str, labels))


def _unwrapped(net: nn.Module) -> nn.Module:
    while True:
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        elif isinstance(getattr(net, "_orig_mod", None), nn.Module):
            net = cast(nn.Module, net._orig_mod)
        else:
            return net
