"""Whether a run treats each picture alone and is differentiated as it is written, whatever the weights.

Then what was measured of one network holds for every one that differs in its weights alone and runs in the same way.
What this file does not know is taken for not plain, and such networks are measured each by itself.

It follows where in each value the pictures lie (see rows.py and, operation by operation, row_rules.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from clearsight.internals.row_rules import LAID_OUT, LOOKS, POINTWISE, REGROUPS
from clearsight.internals.rows import NotPlainError, Rows
from clearsight.internals.seen_run import START, SeenRun, Step, Value, values_in

_SUM: Any = (torch.ops.aten.add.Tensor, (Value, Value), ())
_PRODUCT: Any = "product", (Value, Value), ()
_PRODUCTS = {"mm": [_PRODUCT], "bmm": [_PRODUCT], "addmm": [_PRODUCT, _SUM]}  # which it is, the order in memory decides


def is_plain(one: SeenRun, many: SeenRun, pictures: int) -> bool:
    """Whether the run of one picture, which the network also ran with several, is plain.

    Every value that depends on the pictures has rows for each of them and is made of numbers that have slopes; every
    operation on them is known to make each row of that row alone, with a slope that is its own; Python asked for no
    value, not even of a weight, and wrote over none; and nothing that is computed depends on how many pictures there
    are.
    """
    if one.asked or many.asked or one.back is None:
        return False
    rows = Rows(many, pictures)
    try:
        for step in _needed(many):
            follow(rows, step)
        if (rows.axes.get(many.end), rows.groups.get(many.end)) != (0, 1):
            return False
        return _computed(one, pictures, rows.spread) == _computed(many, pictures, rows.spread)
    except NotPlainError:
        return False


def everything_through(run: SeenRun, number: int) -> bool:
    """Whether the scores depend on the picture by way of one value alone."""
    return _gate(run, START, run.end, number)


def always_agree(run: SeenRun, one: int, other: int) -> bool:
    """Whether two values decide each other: to change the one for that of another picture is to change the other so."""
    first, last = sorted((one, other))
    return first == last or (_gate(run, START, last, first) and _gate(run, first, run.end, last))


def _gate(run: SeenRun, start: int, end: int, through: int) -> bool:
    """Whether all that a value does to a later one goes through a third."""
    reached = {start}
    for step in run.steps:
        if through not in step.gives and not reached.isdisjoint(step.reads):
            reached.update(step.gives)
    return end not in reached


def reads_no_place(run: SeenRun, number: int, before: int, places: int, after: int) -> bool:
    """Whether of a value (B, N, C) the scores depend on extra tokens alone, those before and behind its places.

    Where each token is worked on alone until one of them is picked; what this file does not know counts as no.
    """
    rows = Rows(run, before + places + after)
    rows.axes, rows.groups, rows.moving = {number: 1}, {number: 1}, {number}
    try:
        for step in run.steps:
            rows.shapes.update((n, kind.shape) for n, kind in zip(step.gives, step.kinds, strict=True))
            if not rows.moving.isdisjoint(step.reads) and not _picks_extra(rows, step, before, before + places):
                follow(rows, step)
    except NotPlainError:
        return False
    return run.end not in rows.moving


def _picks_extra(rows: Rows, step: Step, first: int, end: int) -> bool:
    """Whether a step picks one of the tokens along which the rows lie, before the first place or behind the last."""
    if step.name != "select" or rows.axis(step.args[0]) != step.args[1] % len(rows.shape(step.args[0])):
        return False
    return not first <= step.args[2] % (rows.pictures * rows.groups[step.args[0].number]) < end


def _needed(run: SeenRun) -> list[Step]:
    """The steps that the scores depend on, and those that write over something."""
    wanted, found = {run.end}, []
    for step in reversed(run.steps):
        if step.over or not wanted.isdisjoint(step.gives):
            wanted.update(step.reads)
            found.append(step)
    return found[::-1]


def _computed(run: SeenRun, pictures: int, spread: Sequence[bool]) -> list[Any]:
    """The steps without their tensors, and without those that only lay values out anew.

    Of these, those stay that might take the number of pictures for a size of what does not depend on them.  spread: of
    each step that repeats a constant, whether it does so for each picture.
    """
    moving, repeats = {START}, iter(spread)
    found: list[Any] = []
    shapes = {number: kind.shape for number, kind, _ in run.given}
    for step in _needed(run):
        shapes.update((n, kind.shape) for n, kind in zip(step.gives, step.kinds, strict=True))
        is_moving = not moving.isdisjoint(step.reads)
        is_spread = not is_moving and step.name == "expand" and next(repeats, False)
        if is_moving or is_spread:
            moving.update(step.gives)
        if is_spread or (_plain_name(step) in LAID_OUT and (is_moving or not _may_count(step, shapes, pictures))):
            continue
        bare = step.operation, _bare(_without_gaps(step, shapes)), _bare(step.kwargs)
        found += [bare] if step.kwargs else _PRODUCTS.get(step.name, [bare])
    return found


def _may_count(step: Step, shapes: dict[int, tuple[int, ...]], pictures: int) -> bool:
    """Whether a size that was not there before might be the number of pictures."""
    before = {n for value in values_in(step.args) for n in shapes[value.number]}
    return step.name in ("permute", "transpose", "t") or any(
        n % pictures == 0 and n not in before for kind in step.kinds for n in kind.shape
    )


def _without_gaps(step: Step, shapes: dict[int, tuple[int, ...]]) -> tuple[Any, ...]:
    """The arguments, without the gaps in a kernel of one place, which has none (see pixel_convolution.py)."""
    if step.name != "convolution" or prod(shapes[step.args[1].number][2:]) != 1:
        return step.args
    return *step.args[:5], (1,) * len(step.args[5]), *step.args[6:]


def _bare(told: Any) -> Any:
    if type(told) is Value:
        return Value
    return tuple(map(_bare, told)) if isinstance(told, tuple | list) else told


def _plain_name(step: Step) -> str:
    return step.name.removesuffix("_") if step.over else step.name


def follow(rows: Rows, step: Step) -> None:
    """Look where the pictures lie in what a step gives."""
    rows.shapes.update((n, kind.shape) for n, kind in zip(step.gives, step.kinds, strict=True))
    if rows.moving.isdisjoint(step.reads):
        if step.over:  # a constant, which may be the network's own
            raise NotPlainError
        if step.name == "expand":
            rows.expand_constant(step)
        return
    if not rows.moving.issuperset(step.over):
        raise NotPlainError
    name = _plain_name(step)
    if step.over and name not in (*POINTWISE, "as_strided"):
        raise NotPlainError
    looks = LOOKS.get(name)
    axes = None if looks is None else looks(rows, step)
    groups = {rows.groups[n] for n in step.reads if n in rows.groups}
    if axes is None or len(groups) != 1:
        raise NotPlainError
    group = rows.groups_behind(step, _for_each(axes, step)[0]) if name in REGROUPS else groups.pop()
    rows.moving.update(step.gives)
    for number, kind, axis in zip(step.gives, step.kinds, _for_each(axes, step), strict=True):
        if kind.dtype.is_floating_point:  # else it is no value with a slope, and nobody may use it
            if kind.shape[axis] % (group * rows.pictures):
                raise NotPlainError
            rows.axes[number], rows.groups[number] = axis, group


def _for_each(axes: int | list[int], step: Step) -> list[int]:
    return axes if isinstance(axes, list) else [axes] * len(step.gives)
