"""A network in evaluation mode for a moment, in the middle of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from clearsight.core.contents import settled_contents


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode and its weights have no gradient; both are given back as they were.

    The mode is set as the guard sets it, module by module: ``net.eval()`` may do more, which nobody would undo.
    """
    held = settled_contents(net)
    modes = [(m, m.training) for m in held.modules]
    learning = [p for p in held.parameters if p.requires_grad]
    _set([(m, False) for m, _ in modes])
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
        _set(modes)


def _set(modes: list[tuple[nn.Module, bool]]) -> None:
    for m, training in modes:
        if m.training != training:
            own = vars(m)
            if "training" in own and type(m).__setattr__ is nn.Module.__setattr__:
                own["training"] = training  # as that does, after it has asked whether it is a part or a parameter
            else:
                m.training = training
