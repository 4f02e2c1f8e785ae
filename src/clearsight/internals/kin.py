"""What was measured of one network, known for others that differ from it in the values of their weights alone.

It holds for another one where three things do: the two are alike in all that Python can compare (see likeness.py); what
was measured was found on a run that is plain, so that no value of a weight decides what runs or what comes of it (see
plain_run.py); and the other one is seen to run in just that way (see expected_run.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from clearsight.core.likeness import likeness
from clearsight.internals.expected_run import Expected
from clearsight.internals.seen_run import SeenRun

_MOST = 8  # kinds of network, each with what its layers give

Key = tuple[Any, ...]


@dataclass(eq=False)
class Kin:
    """What holds for all networks of a kind that run in this way.

    expected: that way.  probe: what was measured of the first.  target: the layer that class-activation methods read,
    and why a later one is not; None: it is not known, or it depends on the weights.
    """

    expected: Expected
    probe: Any
    target: tuple[str, str] | None = None


kinds: OrderedDict[Key, Kin] = OrderedDict()


def kin_of(net: nn.Module, about: Key, run: Callable[[Expected], SeenRun | None]) -> Kin | None:
    """What is known of networks like this one; None: nothing, or it does not run as they do.

    about: what else than the network it is for.  run: gives the run of this one, told that which it may equal.
    """
    alike = likeness(net)
    kin = kinds.get((alike, about))
    return kin if kin is not None and kin.expected.run == run(kin.expected) else None


def share(net: nn.Module, about: Key, kin: Kin) -> None:
    """Keep what was measured of a network for others."""
    alike = likeness(net)
    if not alike.certain:
        return
    kinds[(alike, about)] = kin
    kinds.move_to_end((alike, about))
    while len(kinds) > _MOST:
        kinds.popitem(last=False)
