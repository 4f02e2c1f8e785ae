"""What the modules of a network hold, looked at in few steps: every call looks at its network several times.

How modules hang together is worked out once for each network, and known again by names and identities.  What is kept
for that are numbers, names and weak references, so that no part of a network lives longer for it.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain, compress, pairwise
from operator import is_, itemgetter, not_
from typing import Any

from torch import Tensor, nn

from clearsight.core.settled import while_settled
from clearsight.core.small_tensors import Grouping, grouping

CONTENTS, JOINED_BUFFERS = "contents", "joined buffers"  # what the guard may tell, which looks at both anyway

_MAPPINGS = ("_parameters", "_buffers", "_modules")
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)
_SAVING_HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks")
_NAMES = (*_MAPPINGS, *_HOOKS, *_SAVING_HOOKS)
_FROM_MODULE, _MODE = itemgetter(*_NAMES), itemgetter("training")


@dataclass(frozen=True, eq=False)
class _Structure:
    """How the modules of a network hang together, without them.

    names, ids, sizes: of what their mappings hold (see `Contents`), and how much each holds.  parameters, buffers: the
    places of these among all values, each once.  called: every name of a module, with its number; first_names: the
    first of each.  key: all of it that does not depend on identities.  groupings: how the parameters and the buffers
    last lay.
    """

    modules: list[weakref.ref[nn.Module]]
    names: list[str]
    ids: array[int]
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

    attributes: their own attributes.  mappings: the parameters of each by name, then the buffers of each, then the
    modules of each.  hooks: of each kind those of each module; saving_hooks: those that change what is saved of them.
    names, values, sizes: of all mappings, one after the other, and how many there are in each; full: the mappings that
    hold something, None where some are no dictionaries.
    """

    modules: list[nn.Module]
    attributes: list[dict[str, Any]]
    mappings: list[Any]
    hooks: list[Any]
    saving_hooks: list[Any]
    names: list[str]
    values: list[Any]
    sizes: list[int]
    full: list[dict[str, Any]] | None
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
    def is_unchanged(self) -> bool:
        """Whether the mappings still hold the very same things under the same names, in the same order."""
        if self.full is None:
            names, values, sizes, _ = listed(self.mappings)
            same_sizes = sizes == self.sizes
        else:
            names, values = _in_all(self.full)
            same_sizes = [*map(len, self.full)] == [*filter(None, self.sizes)]
            same_sizes &= not any(compress(self.mappings, map(not_, self.sizes)))  # faster than to ask for their sizes
        return same_sizes and names == self.names and all(map(is_, values, self.values))

    @property
    def modes(self) -> list[bool]:
        """Of each module, whether it is in training mode now."""
        try:
            return [*map(_MODE, self.attributes)]
        except KeyError:  # of TorchScript, or a class that gives it otherwise
            return [m.training for m in self.modules]

    @cached_property
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
            if now.sizes == known.sizes and now.names == known.names and _ids(now.values) == known.ids:
                return now
    modules = _modules_once(net)
    attributes, mappings, hooks, saving_hooks = _parts_of(modules)
    names, values, sizes, full = listed(mappings)
    structure = _known[net] = _structure_of(modules, names, values, sizes)
    return Contents(modules, attributes, mappings, hooks, saving_hooks, names, values, sizes, full, structure)


def settled_contents(net: nn.Module) -> Contents:
    """The same, looked at once while the network is settled."""
    return while_settled(net, CONTENTS, lambda: contents(net))


def joined_buffers(net: nn.Module) -> list[Tensor]:
    """The values of the buffers that go together, joined once while the network is settled."""
    held = settled_contents(net)
    return while_settled(net, JOINED_BUFFERS, lambda: held.grouped_buffers.joined(held.buffers))


def _held_by(modules: list[nn.Module], structure: _Structure) -> Contents:
    attributes, mappings, hooks, saving_hooks = _parts_of(modules)
    return Contents(modules, attributes, mappings, hooks, saving_hooks, *listed(mappings), structure)


def _parts_of(modules: list[nn.Module]) -> tuple[list[dict[str, Any]], list[Any], list[Any], list[Any]]:
    """What the modules have, their mappings, their hooks and their saving hooks, each kind of all modules in turn."""
    attributes = [*map(vars, modules)]
    try:
        by_kind = [*zip(*map(_FROM_MODULE, attributes), strict=True)]
    except KeyError:  # modules that torch made without some of them, or that give them otherwise
        by_kind = [
            tuple(getattr(m, name) if name in _MAPPINGS else vars(m).get(name) for m in modules) for name in _NAMES
        ]
    ends = 0, len(_MAPPINGS), len(_MAPPINGS) + len(_HOOKS), len(_NAMES)
    mappings, hooks, saving = ([*chain.from_iterable(by_kind[start:end])] for start, end in pairwise(ends))
    return attributes, mappings, hooks, saving


def _ids(values: Sequence[Any]) -> array[int]:
    return array("Q", map(id, values))


def listed(mappings: Sequence[Any]) -> tuple[list[str], list[Any], list[int], list[dict[str, Any]] | None]:
    """All names and all values of mappings, one after the other, how many there are in each, and those that hold some.

    The last are None where some are no dictionaries.
    """
    if {*map(type, mappings)} == {dict}:
        sizes = [*map(len, mappings)]
        full = [*compress(mappings, sizes)]  # most are empty
        return *_in_all(full), sizes, full
    names = chain.from_iterable([mapping.keys() for mapping in mappings])  # TorchScript has dictionaries of its own
    values = chain.from_iterable([mapping.values() for mapping in mappings])
    return [*names], [*values], [*map(len, mappings)], None


def _in_all(full: list[dict[str, Any]]) -> tuple[list[str], list[Any]]:
    """The names and the values in dictionaries, one after the other."""
    return [*chain.from_iterable(full)], [*chain.from_iterable(map(dict.values, full))]


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
        [*{pattern[i]: i for i in range(ends[len(modules) * kind], ends[len(modules) * (kind + 1)]) if pattern[i] >= 0}]
        for kind in (0, 1)
    )
    called = _every_name(modules[0], {id(m): i for i, m in enumerate(modules)})
    name_of: dict[int, str] = {}
    for name, i in called:
        name_of.setdefault(i, name)
    first_names = {name: i for i, name in name_of.items()}
    key = (*names, *sizes, *pattern, *called)
    return _Structure(
        [*map(weakref.ref, modules)], names, _ids(values), sizes, parameters, buffers, called, first_names, key
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
