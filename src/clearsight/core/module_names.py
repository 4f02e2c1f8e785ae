"""The modules of a network by name, as `named_modules` gives them, in less time."""

from __future__ import annotations

from torch import nn

from clearsight.core.contents import settled_contents
from clearsight.core.settled import while_settled

Names = list[tuple[str, nn.Module]]


def modules_of(net: nn.Module) -> Names:
    """Every module once, by its first name, as in `named_modules`."""
    return while_settled(net, "modules", lambda: settled_contents(net).called)
