"""Whether a run treats each picture alone and is differentiated as it is written, whatever the weights.

Then what was measured of one network holds for every one that differs in its weights alone and runs in the same way.
What this file does not know is taken for not plain, and such networks are measured each by itself.

It follows where in each value the pictures lie: along one axis, which is cut into groups, each of which is cut into as
many parts as there are pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from clearsight.internals.seen_run import START, SeenRun, Step, Value, values_in


class _NotPlainError(Exception):
    pass


def is_plain(one: SeenRun, many: SeenRun, pictures: int) -> bool:
    """Whether the run of one picture, which the network also ran with several, is plain.

    Every value that depends on the pictures has rows for each of them and is made of numbers that have slopes; every
    operation on them is known to make each row of that row alone, with a slope that is its own; Python asked for no
    value, not even of a weight, and wrote over none; and nothing that is computed depends on how many pictures there
    are.
    """
    if one.asked or many.asked or one.back is None:
        return False
    rows = _Rows(many, pictures)
    try:
        for step in _needed(many):
            rows.follow(step)
        if (rows.axes.get(many.end), rows.groups.get(many.end)) != (0, 1):
            return False
        return _computed(one, pictures, rows.spread) == _computed(many, pictures, rows.spread)
    except _NotPlainError:
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
    rows = _Rows(run, before + places + after)
    rows.axes, rows.groups, rows.moving = {number: 1}, {number: 1}, {number}
    try:
        for step in run.steps:
            rows.shapes.update((n, kind.shape) for n, kind in zip(step.gives, step.kinds, strict=True))
            if not rows.moving.isdisjoint(step.reads) and not _picks_extra(rows, step, before, before + places):
                rows.follow(step)
    except _NotPlainError:
        return False
    return run.end not in rows.moving


def _picks_extra(rows: _Rows, step: Step, first: int, end: int) -> bool:
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
        if is_spread or (_plain_name(step) in _LAID_OUT and (is_moving or not _may_count(step, shapes, pictures))):
            continue
        bare = step.operation, _bare(step.args), _bare(step.kwargs)
        found += [bare] if step.kwargs else _PRODUCTS.get(step.name, [bare])
    return found


def _may_count(step: Step, shapes: dict[int, tuple[int, ...]], pictures: int) -> bool:
    """Whether a size that was not there before might be the number of pictures."""
    before = {n for value in values_in(step.args) for n in shapes[value.number]}
    return step.name in ("permute", "transpose", "t") or any(
        n % pictures == 0 and n not in before for kind in step.kinds for n in kind.shape
    )


def _bare(told: Any) -> Any:
    if type(told) is Value:
        return Value
    return tuple(map(_bare, told)) if isinstance(told, tuple | list) else told


def _plain_name(step: Step) -> str:
    return step.name.removesuffix("_") if step.over else step.name


class _Rows:
    """Where the pictures lie: axes of values and their groups, by number; shapes of all.  spread: see `_computed`."""

    def __init__(self, run: SeenRun, pictures: int) -> None:
        self.pictures = pictures
        self.axes, self.groups = {START: 0}, {START: 1}
        self.shapes = {number: kind.shape for number, kind, _ in run.given}
        self.moving = {START}
        self.spread: list[bool] = []

    def follow(self, step: Step) -> None:
        self.shapes.update((n, kind.shape) for n, kind in zip(step.gives, step.kinds, strict=True))
        if self.moving.isdisjoint(step.reads):
            if step.over:  # a constant, which may be the network's own
                raise _NotPlainError
            if step.name == "expand":
                self._expand_constant(step)
            return
        if not self.moving.issuperset(step.over):
            raise _NotPlainError
        name = _plain_name(step)
        if step.over and name not in (*POINTWISE, "as_strided"):
            raise _NotPlainError
        looks = _LOOKS.get(name)
        axes = None if looks is None else looks(self, step)
        groups = {self.groups[n] for n in step.reads if n in self.groups}
        if axes is None or len(groups) != 1:
            raise _NotPlainError
        group = self._groups_behind(step, _for_each(axes, step)[0]) if name in _REGROUPS else groups.pop()
        self.moving.update(step.gives)
        for number, kind, axis in zip(step.gives, step.kinds, _for_each(axes, step), strict=True):
            if kind.dtype.is_floating_point:  # else it is no value with a slope, and nobody may use it
                if kind.shape[axis] % (group * self.pictures):
                    raise _NotPlainError
                self.axes[number], self.groups[number] = axis, group

    def _expand_constant(self, step: Step) -> None:
        """A constant, repeated as often as there are pictures: each of them gets the same."""
        (number,), (kind,), before = step.gives, step.kinds, self.shape(step.args[0])
        added = len(kind.shape) - len(before)
        old = (1,) * added + before
        grown = [i for i, n in enumerate(kind.shape) if n == self.pictures and old[i] == 1]
        self.spread.append(len(grown) == 1)
        if len(grown) == 1:
            self.moving.add(number)
            self.axes[number], self.groups[number] = grown[0], 1

    def ahead(self, told: Any) -> int:
        """How many times all pictures come, one after the other, in a value."""
        return prod(self.shape(told)[: self.axis(told)]) * self.groups[told.number]

    def _groups_behind(self, step: Step, axis: int) -> int:
        return self.ahead(step.args[0]) // prod(step.kinds[0].shape[:axis])

    def axis(self, told: Any) -> int:
        """That of a value that depends on the pictures."""
        if type(told) is not Value or told.number not in self.axes:
            raise _NotPlainError
        return self.axes[told.number]

    def shape(self, told: Any) -> tuple[int, ...]:
        if type(told) is not Value or told.number not in self.shapes:
            raise _NotPlainError
        return self.shapes[told.number]

    def is_fixed(self, told: Any) -> bool:
        """Whether an argument does not depend on the pictures."""
        return all(self.moving.isdisjoint(value) for value in values_in(told))


def _for_each(axes: int | list[int], step: Step) -> list[int]:
    return axes if isinstance(axes, list) else [axes] * len(step.gives)


Axes = int | list[int] | None  # along which axis of each result the pictures lie; None: that cannot be told


def _pointwise(rows: _Rows, step: Step) -> Axes:
    """Number by number: rows meet rows, and what does not depend on the pictures is the same for all rows."""
    axes = len(step.kinds[0].shape)
    behind: set[int] = set()
    for value in values_in((step.args, step.kwargs)):
        if not rows.is_fixed(value):
            behind.add(len(rows.shape(value)) - rows.axis(value))
    if len(behind) != 1:
        return None
    (back,) = behind
    for value in values_in((step.args, step.kwargs)):
        shape = rows.shape(value)
        if rows.is_fixed(value) and len(shape) >= back and shape[-back] != 1:
            return None
    return axes - back


def _of_first(rows: _Rows, step: Step) -> Axes:
    """Only the first argument depends on the pictures, which stay where they are: along the first axis."""
    if rows.axis(step.args[0]) != 0 or not rows.is_fixed(step.args[1:]):
        return None
    return 0


def _convolved(rows: _Rows, step: Step) -> Axes:
    return _of_first(rows, step) if len(rows.shape(step.args[0])) == len(rows.shape(step.args[1])) else None


def _pooled(rows: _Rows, step: Step) -> Axes:
    return _of_first(rows, step) if len(rows.shape(step.args[0])) == 4 else None


def _fixed_statistics(rows: _Rows, step: Step) -> Axes:
    trains = step.args[5] if len(step.args) > 7 else False
    return _of_first(rows, step) if trains is False and step.args[3] is not None else None


def _normalised_behind(rows: _Rows, step: Step) -> Axes:
    """Over the last axes, of which that of the pictures is none."""
    axis = rows.axis(step.args[0])
    fits = axis < len(rows.shape(step.args[0])) - len(step.args[1]) and rows.is_fixed(step.args[1:])
    return [axis] * len(step.gives) if fits else None


def _padded(rows: _Rows, step: Step) -> Axes:
    axis = rows.axis(step.args[0])
    return axis if axis < len(rows.shape(step.args[0])) - len(step.args[1]) // 2 else None


def _linear(rows: _Rows, step: Step) -> Axes:
    axis = rows.axis(step.args[0])
    return axis if axis < len(rows.shape(step.args[0])) - 1 and rows.is_fixed(step.args[1:]) else None


def _added_to_product(rows: _Rows, step: Step) -> Axes:
    shift, x, weight, *_ = step.args
    return 0 if rows.axis(x) == 0 and rows.is_fixed([shift, weight]) else None


def _product(rows: _Rows, step: Step) -> Axes:
    """Of matrices: the pictures' rows with the same ones of the other, or all of them with constants."""
    first, second = step.args
    if rows.is_fixed(second):
        return 1 if rows.axis(first) == 1 else None
    return _of_all(rows, step)


def _of_all(rows: _Rows, step: Step) -> Axes:
    """Rows of all that it is given, along the first axis."""
    told = list(values_in((step.args, step.kwargs)))
    return 0 if all(rows.axis(value) == 0 for value in told) and len({rows.shape(v)[0] for v in told}) == 1 else None


def _attention(rows: _Rows, step: Step) -> Axes:
    """Each picture's queries meet its own keys and values alone, where nothing is dropped by chance."""
    dropped = [a for a in step.args[3:] if isinstance(a, float)]
    mask_is_fixed = rows.is_fixed([step.args[3:], step.kwargs])
    return _of_all(rows, step._replace(args=step.args[:3], kwargs=())) if mask_is_fixed and not any(dropped) else None


def _laid_out(rows: _Rows, step: Step) -> Axes:
    """The same numbers in the same order: all pictures come, one after the other, as often as before."""
    ahead, after = rows.ahead(step.args[0]), step.kinds[0].shape
    fits = [i for i, n in enumerate(after) if prod(after[:i]) <= ahead < prod(after[:i]) * n]
    return fits[0] if fits and ahead % prod(after[: fits[0]]) == 0 else None


def _permuted(rows: _Rows, step: Step) -> Axes:
    axes = len(step.kinds[0].shape)
    order: list[int] = [a % axes for a in step.args[1]]
    return order.index(rows.axis(step.args[0]))


def _transposed(rows: _Rows, step: Step) -> Axes:
    axis, axes = rows.axis(step.args[0]), len(step.kinds[0].shape)
    one, other = (int(a) % axes for a in (step.args[1:3] if step.name != "t" else (0, 1)))
    return {one: other, other: one}.get(axis, axis)


def _widened(rows: _Rows, step: Step) -> Axes:
    """With a new axis of length 1, or several stacked along one."""
    parts = [*values_in(step.args[0])] if type(step.args[0]) is not Value else [step.args[0]]
    at = (step.args[1] if len(step.args) > 1 else 0) % len(step.kinds[0].shape)
    (axis,) = {rows.axis(part) for part in parts} if len({rows.axis(part) for part in parts}) == 1 else (-1,)
    return None if axis < 0 else axis + (at <= axis)


def _squeezed(rows: _Rows, step: Step) -> Axes:
    """Without some axes of length 1, which that of several pictures is not."""
    axis, shape = rows.axis(step.args[0]), rows.shape(step.args[0])
    named = step.args[1] if len(step.args) > 1 else range(len(shape))
    gone = {a % len(shape) for a in (named if isinstance(named, list | tuple | range) else [named])}
    return axis - sum(shape[a] == 1 for a in gone if a < axis)


def _relabelled(rows: _Rows, step: Step) -> Axes:
    """Another order in memory for the same shape, as pooling gives its result: still one picture after another."""
    shape, sizes, strides = rows.shape(step.args[0]), tuple(step.args[1]), step.args[2]
    fits = sizes == shape and strides[0] * shape[0] == prod(shape) and len(step.args) < 4
    return _of_first(rows, step) if fits else None


def _expanded(rows: _Rows, step: Step) -> Axes:
    axis, before, after = rows.axis(step.args[0]), rows.shape(step.args[0]), step.kinds[0].shape
    return axis + len(after) - len(before)


def _picked(rows: _Rows, step: Step) -> Axes:
    """Along another axis than that of the pictures: one place of it, which is gone then, or all in turn."""
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    at = (step.args[1] if len(step.args) > 1 else 0) % axes
    return None if at == axis else axis - (at < axis)


def _cut(rows: _Rows, step: Step) -> Axes:
    """Along another axis than that of the pictures, which stays."""
    place = 2 if step.name.startswith("split") else 1
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    at = (step.args[place] if len(step.args) > place else 0) % axes
    return None if at == axis else axis


def _joined(rows: _Rows, step: Step) -> Axes:
    at = (step.args[1] if len(step.args) > 1 else 0) % len(step.kinds[0].shape)
    axes = {rows.axis(part) for part in values_in(step.args[0])}
    return axes.pop() if len(axes) == 1 and at not in axes else None


def _over_axes(rows: _Rows, step: Step) -> Axes:
    """Along axes that are named, of which that of the pictures is none."""
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    named = step.args[1] if len(step.args) > 1 else None
    over = {a % axes for a in (named if isinstance(named, list | tuple) else [named]) if isinstance(a, int)}
    if not over or axis in over:
        return None
    gone = sum(a < axis for a in over) if len(step.kinds[0].shape) < axes else 0
    return axis - gone


def _rolled(rows: _Rows, step: Step) -> Axes:
    return _over_axes(rows, step._replace(args=(step.args[0], step.args[2]))) if len(step.args) > 2 else None


POINTWISE = frozenset(
    {
        "add", "sub", "rsub", "mul", "div", "neg", "relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold",
        "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "elu", "celu", "selu", "leaky_relu", "tanh", "softplus",
        "mish", "abs", "exp", "log", "pow", "sqrt", "rsqrt", "sin", "cos", "erf", "clone", "copy", "alias", "_to_copy",
    }
)  # fmt: skip
_REGROUPS = ("view", "reshape", "_unsafe_view", "_reshape_alias")
_LAYS_OUT: dict[str, Callable[[_Rows, Step], Axes]] = {
    **dict.fromkeys(_REGROUPS, _laid_out),
    **dict.fromkeys(("transpose", "t"), _transposed),
    **dict.fromkeys(("clone", "alias"), _pointwise),
    "permute": _permuted,
    "unsqueeze": _widened,
    "squeeze": _squeezed,
    "expand": _expanded,
    "as_strided": _relabelled,
}
_LAID_OUT = frozenset(_LAYS_OUT)
_SUM: Any = (torch.ops.aten.add.Tensor, (Value, Value), ())
_PRODUCT: Any = "product", (Value, Value), ()
_PRODUCTS = {"mm": [_PRODUCT], "bmm": [_PRODUCT], "addmm": [_PRODUCT, _SUM]}  # which it is, the order in memory decides
_LOOKS: dict[str, Callable[[_Rows, Step], Axes]] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **_LAYS_OUT,
    **dict.fromkeys(
        (
            "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
            "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle",
        ),
        _pooled,
    ),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _fixed_statistics
    ),
    **dict.fromkeys(("mean", "sum", "amax", "_softmax", "_log_softmax", "_safe_softmax"), _over_axes),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
    **dict.fromkeys(("split", "split_with_sizes", "slice"), _cut),
    **dict.fromkeys(("select", "unbind"), _picked),
    "convolution": _convolved,
    "native_layer_norm": _normalised_behind,
    "constant_pad_nd": _padded,
    "linear": _linear,
    "mm": _linear,
    "addmm": _added_to_product,
    "bmm": _product,
    "cat": _joined,
    "stack": _widened,
    "roll": _rolled,
}  # fmt: skip
