"""What was measured of one network, taken for that of others that differ from it in the values of their weights alone.

It is taken by methods that look at the run of the network themselves, each time, and only where three things hold: the
two are alike in all that Python can compare (see likeness.py); what was recorded of one is plain, so that no value of a
weight decides what runs (see plain_run.py); and in the call itself the other one is seen to run in that way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from clearsight.core.likeness import likeness
from clearsight.core.model import Model
from clearsight.core.settled import is_noted
from clearsight.internals.graph import everything_through
from clearsight.internals.probe import Probe, forget, key_of, known_facts, take_over, taking
from clearsight.internals.recording import FOLLOWED, STRAYED, is_plain, known_graph

_MOST = 8  # kinds of network, each with what its layers give


@dataclass(frozen=True)
class _Kin:
    """What holds for all networks of a kind; target: the layer that class-activation methods read, None: not known."""

    probe: Probe
    target: tuple[str, str] | None = None


kinds: OrderedDict[tuple[Any, ...], _Kin] = OrderedDict()


@contextmanager
def taking_over(model: Model, x: Tensor, *, sees_run: bool) -> Iterator[bool]:
    """Inside, `facts_in_use` may be those of a like network, and whether they are; x (B, C, *S): pictures like those.

    sees_run: whoever asks looks at the run of the network, and tells it by the notes FOLLOWED and STRAYED.
    """
    is_taken = sees_run and _is_taken(model, x)
    with taking(is_taken):
        yield is_taken


def _is_taken(model: Model, x: Tensor) -> bool:
    known = known_facts(model, x)
    if known is None:
        kin = kinds.get(_kind(model, x)) if likeness(model.net).certain else None
        if kin is None:
            return False
        take_over(model, x, kin.probe, kin.target)
        return True
    return known.taken_over


def is_followed(model: Model) -> bool:
    """Whether the network was seen to run as was recorded of its kind, since it is settled."""
    return is_noted(model.net, FOLLOWED) and not is_noted(model.net, STRAYED)


def disown(model: Model, x: Tensor) -> None:
    """Forget what was taken over, and all of that kind of network: to be alike was not enough."""
    forget(model, x)
    kinds.pop(_kind(model, x), None)


def _kind(model: Model, x: Tensor) -> tuple[Any, ...]:
    alike = likeness(model.net)
    return alike.key, alike.hidden, *key_of(model, x)


def share(model: Model, x: Tensor, layer: str = "") -> None:
    """Keep what was measured of the network for others that are like it, where it must hold for them too.

    layer: that which was read, if any.
    """
    own = known_facts(model, x)
    if own is None or own.taken_over or layer in own.shared:
        return
    own.shared.add(layer)
    if (own.probe.repeats, own.probe.slopes.flows) != ("yes", "right") or not is_plain(model, x, layer):
        return
    key = _kind(model, x)
    kin = kinds.get(key, _Kin(own.probe))
    if isinstance(own.target, tuple) and own.target == (layer, "") and _is_last(model, x, own.probe, layer):
        kin = replace(kin, target=own.target)
    kinds[key] = kin
    kinds.move_to_end(key)
    while len(kinds) > _MOST:
        kinds.popitem(last=False)


def _is_last(model: Model, x: Tensor, probe: Probe, layer: str) -> bool:
    """Whether everything passes through a layer, and nothing with places comes later, whatever the weights."""
    graph = known_graph(model, x, layer)
    if graph is None or graph.marked is None or not everything_through(graph, graph.marked):
        return False
    names = [run.name for run in probe.runs]
    later = probe.runs[len(names) - names[::-1].index(layer) :]
    return all(run.pools or run.shape is None or prod(run.shape[2:]) == 1 for run in later)
