"""The modules of a network, as `named_modules` and `state_dict` give them, in less time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import nn

from clearsight.core.settled import while_settled

Names = list[tuple[str, nn.Module]]


def modules_once(net: nn.Module) -> list[nn.Module]:
    """Every module once, in the order in which they are found level by level."""
    found = [net]
    seen = {id(net)}
    for m in found:  # which grows meanwhile
        for child in m._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def every_name(net: nn.Module) -> Names:
    """Every module by its name; one that has two names twice, as in `state_dict`."""
    return while_settled(net, "names", lambda: _every_name(net))


def modules_of(net: nn.Module) -> Names:
    """Every module once, by its first name, as in `named_modules`."""
    return while_settled(
        net, "modules", lambda: [*{id(m): (n, m) for n, m in reversed(every_name(net))}.values()][::-1]
    )


def listed(mappings: Sequence[Any]) -> tuple[list[str], list[Any], list[int]]:
    """All names and all values of dictionaries, one after the other, and how many there are in each."""
    names = chain.from_iterable([mapping.keys() for mapping in mappings])
    values = chain.from_iterable([mapping.values() for mapping in mappings])
    return [*names], [*values], [*map(len, mappings)]


def _every_name(net: nn.Module) -> Names:
    found: Names = []

    def add(name: str, m: nn.Module) -> None:
        found.append((name, m))
        for part, child in m._modules.items():
            if child is not None:
                add(f"{name}.{part}" if name else part, child)

    add("", net)
    return found


def _first_names(names: Names) -> Names:
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, m in names:
        found.setdefault(id(m), (name, m))
    return [*found.values()]
