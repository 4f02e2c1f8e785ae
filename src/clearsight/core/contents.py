"""What the modules of a network hold, looked at in few steps: every call looks at its network several times.

How modules hang together is worked out once for each network, and known again by names and identities.  What is kept
for that are numbers, names and weak references, so that no part of a network lives longer for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain, compress
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from clearsight.core.settled import while_settled
from clearsight.core.small_tensors import Grouping, grouping

CONTENTS, JOINED_BUFFERS = "contents", "joined buffers"  # what the guard may tell, which looks at both anyway

_MAPPINGS = attrgetter("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, eq=False)
class _Structure:
    """How the modules of a network hang together, without them.

    names, ids, sizes: of what their dictionaries hold, and how much each holds.  parameters, buffers: the places of
    these among all values, each once.  called: every name of a module, with its number; first_names: the first of each.
    key: all of it that does not depend on identities.  groupings: how the parameters and the buffers last lay.
    """

    modules: list[weakref.ref[nn.Module]]
    names: list[str]
    ids: list[int]
    sizes: list[int]
    parameters: list[int]
    buffers: list[int]
    called: list[tuple[str, int]]
    first_names: dict[str, int]
    key: tuple[Any, ...]
    groupings: dict[str, Grouping] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Contents:
    """The modules of a network, each once, level by level; and what they hold.

    mappings: the parameters, buffers and modules of each in turn, by name.  names, values, sizes: of all mappings, one
    after the other, and how many there are in each.
    """

    modules: list[nn.Module]
    mappings: list[Any]
    names: list[str]
    values: list[Any]
    sizes: list[int]
    structure: _Structure

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Each parameter once."""
        return [*map(self.values.__getitem__, self.structure.parameters)]

    @cached_property
    def buffers(self) -> list[Tensor]:
        """Each buffer once."""
        return [*map(self.values.__getitem__, self.structure.buffers)]

    @cached_property
    def grouped_parameters(self) -> Grouping:
        """How the parameters lie and go together."""
        return self._grouped("parameters", self.parameters)

    @cached_property
    def grouped_buffers(self) -> Grouping:
        """How the buffers lie and go together."""
        return self._grouped("buffers", self.buffers)

    def _grouped(self, what: str, tensors: Sequence[Tensor]) -> Grouping:
        known = self.structure.groupings
        known[what] = grouping(tensors, known.get(what))
        return known[what]

    @property
    def called(self) -> list[tuple[str, nn.Module]]:
        """Every module once, by its first name, as in `named_modules`."""
        return [(name, self.modules[i]) for name, i in self.structure.first_names.items()]

    @property
    def types(self) -> set[Any]:
        return {*map(type, self.modules)}


_known: weakref.WeakKeyDictionary[nn.Module, _Structure] = weakref.WeakKeyDictionary()


def contents(net: nn.Module) -> Contents:
    """What the modules of a network hold now."""
    known = _known.get(net)
    if known is not None:
        modules = [m for alive in known.modules if (m := alive()) is not None]
        if len(modules) == len(known.modules):
            now = _held_by(modules, known)
            if now.sizes == known.sizes and now.names == known.names and [*map(id, now.values)] == known.ids:
                return now
    modules = _modules_once(net)
    mappings = [*chain.from_iterable(map(_MAPPINGS, modules))]
    names, values, sizes = listed(mappings)
    structure = _known[net] = _structure_of(modules, names, values, sizes)
    return Contents(modules, mappings, names, values, sizes, structure)


def settled_contents(net: nn.Module) -> Contents:
    """The same, looked at once while the network is settled."""
    return while_settled(net, CONTENTS, lambda: contents(net))


def joined_buffers(net: nn.Module) -> list[Tensor]:
    """The values of the buffers that go together, joined once while the network is settled."""
    held = settled_contents(net)
    return while_settled(net, JOINED_BUFFERS, lambda: held.grouped_buffers.joined(held.buffers))


def _held_by(modules: list[nn.Module], structure: _Structure) -> Contents:
    mappings = [*chain.from_iterable(map(_MAPPINGS, modules))]
    return Contents(modules, mappings, *listed(mappings), structure)


def listed(mappings: Sequence[Any]) -> tuple[list[str], list[Any], list[int]]:
    """All names and all values of dictionaries, one after the other, and how many there are in each."""
    if {*map(type, mappings)} == {dict}:
        sizes = [*map(len, mappings)]
        full = [*compress(mappings, sizes)]  # most are empty
        return [*chain.from_iterable(full)], [*chain.from_iterable(map(dict.values, full))], sizes
    names = chain.from_iterable([mapping.keys() for mapping in mappings])  # TorchScript has dictionaries of its own
    values = chain.from_iterable([mapping.values() for mapping in mappings])
    return [*names], [*values], [*map(len, mappings)]


def _modules_once(net: nn.Module) -> list[nn.Module]:
    found = [net]
    seen = {id(net)}
    for m in found:  # which grows meanwhile
        for child in m._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def _structure_of(
    modules: Sequence[nn.Module], names: list[str], values: Sequence[Any], sizes: list[int]
) -> _Structure:
    first: dict[int, int] = {}
    pattern = [-1 if v is None else first.setdefault(id(v), i) for i, v in enumerate(values)]
    ends = [0, *accumulate(sizes)]
    parameters, buffers = (
        [*{pattern[i]: i for k in range(kind, len(sizes), 3) for i in range(*ends[k : k + 2]) if pattern[i] >= 0}]
        for kind in (0, 1)
    )
    called = _every_name(modules[0], {id(m): i for i, m in enumerate(modules)})
    name_of: dict[int, str] = {}
    for name, i in called:
        name_of.setdefault(i, name)
    first_names = {name: i for i, name in name_of.items()}
    key = (*names, *sizes, *pattern, *called)
    return _Structure(
        [*map(weakref.ref, modules)], names, [*map(id, values)], sizes, parameters, buffers, called, first_names, key
    )


def _every_name(net: nn.Module, numbers: dict[int, int]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []

    def add(name: str, m: nn.Module) -> None:
        found.append((name, numbers[id(m)]))
        for part, child in m._modules.items():
            if child is not None:
                add(f"{name}.{part}" if name else part, child)

    add("", net)
    return found
