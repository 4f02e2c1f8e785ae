"""A run that was written down of some pictures, written down again of more: what depends on them is not computed.

Only the sizes are of interest then.  Where the pictures lie in each value of the first run says how large it is in the
second (see rows.py); where that cannot be told, or the second run takes another way, it must be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from clearsight.internals.plain_run import follow
from clearsight.internals.rows import NotPlainError, Rows
from clearsight.internals.seen_run import START, SeenRun, Step, Value
from clearsight.internals.tape import Kind, Tape, Taped, kind_of, taped_by

aten = torch.ops.aten


class _Wanted(NamedTuple):
    """One operation of the first run, and of those that depend on the pictures what they give in the second one.

    kinds: how large, and how it lies; none where it only says so of what is there; None: it is computed.  many: the
    sequence that it gives them in; None: one alone.
    """

    operation: Any
    kinds: tuple[tuple[Kind, tuple[int, ...]], ...] | None
    many: Any


class OtherWayError(Exception):
    """Raised where the second run is not the first one with more pictures."""


def taped_again(run: Callable[[Tensor], Tensor], x: Tensor, first: Taped, pictures: int) -> Taped:
    """The operations that run(x) runs, as `tape_of` gives them, if the first run had so many pictures.

    NotPlainError: where the pictures lie in its values cannot be told.  OtherWayError: it takes another way.
    """
    return taped_by(_Again(x, _wanted(first.graph, pictures, len(x))), run, x)


class _Again(Tape):  # type: ignore[no-untyped-call]
    def __init__(self, x: Tensor, wanted: Sequence[_Wanted]) -> None:
        super().__init__(x)
        self.wanted = iter(wanted)

    def outcome(self, func: Any, nodes: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wanted = next(self.wanted, None)
        if wanted is None or wanted.operation is not func or (wanted.kinds is None) == self.any_moving(nodes):
            raise OtherWayError
        if not wanted.kinds:
            return super().outcome(func, nodes, args, kwargs)
        empty = [torch.empty_strided(k.shape, lies, dtype=k.dtype, device=k.device) for k, lies in wanted.kinds]
        return empty[0] if wanted.many is None else wanted.many(empty)


def _wanted(graph: fx.Graph, pictures: int, more: int) -> list[_Wanted]:
    """The operations of a run of some pictures, and what they give for more."""
    nodes = [*graph.nodes]
    numbers = {node: START if node.op == "placeholder" else i + 1 for i, node in enumerate(nodes)}
    given = [(numbers[node], kind_of(node), "") for node in nodes if node.op in ("placeholder", "get_attr")]
    rows = Rows(SeenRun((), tuple(g for g in given if g[1] is not None), 0, None, False), pictures)  # type: ignore[misc]
    moving = {node for node in nodes if node.op == "placeholder"}
    found: list[_Wanted] = []
    for node in nodes:
        if not isinstance(node.target, torch._ops.OpOverload):  # no operation, or a part of what one gave
            moving.update({node} if node.op == "call_function" and node.args[0] in moving else ())
            continue
        gives = node.meta.get("parts") or [node]
        step = _step(node, gives, numbers)
        follow(rows, step)
        if moving.isdisjoint(node.all_input_nodes):
            found.append(_Wanted(node.target, None, None))
            continue
        moving.add(node)
        if step.over:
            found.append(_Wanted(node.target, (), None))
            continue
        axis = next((rows.axes[n] for n in step.gives if n in rows.axes), None)
        lies = [part.meta["strides"] for part in gives]
        kinds = tuple(
            _larger(kind, how, rows.axes.get(n, axis), pictures, more)
            for n, kind, how in zip(step.gives, step.kinds, lies, strict=True)
        )
        found.append(_Wanted(node.target, kinds, node.meta.get("many")))
    return found


def _step(node: fx.Node, gives: Sequence[fx.Node], numbers: dict[fx.Node, int]) -> Step:
    """A node as a step of a run that was seen; views are no copies there."""
    kinds = [kind for kind in map(kind_of, gives) if kind is not None]
    if len(kinds) != len(gives):
        raise NotPlainError
    told: Any = fx.node.map_arg((node.args, tuple(node.kwargs.items())), lambda n: Value(numbers[n]))
    args, kwargs = told
    operation: Any = node.target
    over = tuple(value.number for value in args[:1]) if torch.Tag.inplace_view in operation.tags else ()
    return Step(_viewing(operation), args, kwargs, tuple(numbers[part] for part in gives), tuple(kinds), over)


def _viewing(operation: Any) -> Any:
    """aten.view_copy -> aten.view; what marks a layer gives the same values."""
    name = str(operation.overloadpacket.__name__)
    if name == "mark":
        return aten.clone.default
    packet = getattr(aten, name.removesuffix("_copy"), None) if name.endswith("_copy") else None
    return operation if packet is None else getattr(packet, operation._overloadname)


def _larger(
    kind: Kind, lies: tuple[int, ...], axis: int | None, pictures: int, more: int
) -> tuple[Kind, tuple[int, ...]]:
    """A value for more pictures, which lie along an axis, and how it lies: in the same order of its axes."""
    if axis is None or axis >= len(kind.shape) or kind.shape[axis] % pictures:
        raise NotPlainError
    shape = (*kind.shape[:axis], kind.shape[axis] // pictures * more, *kind.shape[axis + 1 :])
    order = sorted(range(len(shape)), key=lambda i: (lies[i], kind.shape[i]))
    before, after, found = 1, 1, [0] * len(shape)
    for i in order:
        if kind.shape[i] > 1 and lies[i] != before:  # there are gaps in it
            raise NotPlainError
        found[i] = after if lies[i] == before else lies[i]
        before, after = before * kind.shape[i], after * shape[i]
    return Kind(shape, kind.dtype, kind.device), tuple(found)
