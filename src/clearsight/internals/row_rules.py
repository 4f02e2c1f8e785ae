"""What the operations that are known do to the rows of pictures: along which axis of each result they lie then."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from clearsight.internals.rows import Rows
from clearsight.internals.seen_run import Step, Value, values_in

Axes = int | list[int] | None  # along which axis of each result the pictures lie; None: that cannot be told


def _pointwise(rows: Rows, step: Step) -> Axes:
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


def _of_first(rows: Rows, step: Step) -> Axes:
    """Only the first argument depends on the pictures, which stay where they are: along the first axis."""
    if rows.axis(step.args[0]) != 0 or not rows.is_fixed(step.args[1:]):
        return None
    return 0


def _convolved(rows: Rows, step: Step) -> Axes:
    return _of_first(rows, step) if len(rows.shape(step.args[0])) == len(rows.shape(step.args[1])) else None


def _pooled(rows: Rows, step: Step) -> Axes:
    return _of_first(rows, step) if len(rows.shape(step.args[0])) == 4 else None


def _fixed_statistics(rows: Rows, step: Step) -> Axes:
    trains = step.args[5] if len(step.args) > 7 else False
    return _of_first(rows, step) if trains is False and step.args[3] is not None else None


def _normalised_behind(rows: Rows, step: Step) -> Axes:
    """Over the last axes, of which that of the pictures is none."""
    axis = rows.axis(step.args[0])
    fits = axis < len(rows.shape(step.args[0])) - len(step.args[1]) and rows.is_fixed(step.args[1:])
    return [axis] * len(step.gives) if fits else None


def _padded(rows: Rows, step: Step) -> Axes:
    axis = rows.axis(step.args[0])
    return axis if axis < len(rows.shape(step.args[0])) - len(step.args[1]) // 2 else None


def _linear(rows: Rows, step: Step) -> Axes:
    axis = rows.axis(step.args[0])
    return axis if axis < len(rows.shape(step.args[0])) - 1 and rows.is_fixed(step.args[1:]) else None


def _added_to_product(rows: Rows, step: Step) -> Axes:
    shift, x, weight, *_ = step.args
    return 0 if rows.axis(x) == 0 and rows.is_fixed([shift, weight]) else None


def _product(rows: Rows, step: Step) -> Axes:
    """Of matrices: the pictures' rows with the same ones of the other, or all of them with constants."""
    first, second = step.args
    if rows.is_fixed(second):
        return 1 if rows.axis(first) == 1 else None
    return _of_all(rows, step)


def _of_all(rows: Rows, step: Step) -> Axes:
    """Rows of all that it is given, along the first axis."""
    told = list(values_in((step.args, step.kwargs)))
    return 0 if all(rows.axis(value) == 0 for value in told) and len({rows.shape(v)[0] for v in told}) == 1 else None


def _attention(rows: Rows, step: Step) -> Axes:
    """Each picture's queries meet its own keys and values alone, where nothing is dropped by chance."""
    dropped = [a for a in step.args[3:] if isinstance(a, float)]
    mask_is_fixed = rows.is_fixed([step.args[3:], step.kwargs])
    return _of_all(rows, step._replace(args=step.args[:3], kwargs=())) if mask_is_fixed and not any(dropped) else None


def _laid_out(rows: Rows, step: Step) -> Axes:
    """The same numbers in the same order: all pictures come, one after the other, as often as before."""
    ahead, after = rows.ahead(step.args[0]), step.kinds[0].shape
    fits = [i for i, n in enumerate(after) if prod(after[:i]) <= ahead < prod(after[:i]) * n]
    return fits[0] if fits and ahead % prod(after[: fits[0]]) == 0 else None


def _permuted(rows: Rows, step: Step) -> Axes:
    axes = len(step.kinds[0].shape)
    order: list[int] = [a % axes for a in step.args[1]]
    return order.index(rows.axis(step.args[0]))


def _transposed(rows: Rows, step: Step) -> Axes:
    axis, axes = rows.axis(step.args[0]), len(step.kinds[0].shape)
    one, other = (int(a) % axes for a in (step.args[1:3] if step.name != "t" else (0, 1)))
    return {one: other, other: one}.get(axis, axis)


def _widened(rows: Rows, step: Step) -> Axes:
    """With a new axis of length 1, or several stacked along one."""
    parts = [*values_in(step.args[0])] if type(step.args[0]) is not Value else [step.args[0]]
    at = (step.args[1] if len(step.args) > 1 else 0) % len(step.kinds[0].shape)
    (axis,) = {rows.axis(part) for part in parts} if len({rows.axis(part) for part in parts}) == 1 else (-1,)
    return None if axis < 0 else axis + (at <= axis)


def _squeezed(rows: Rows, step: Step) -> Axes:
    """Without some axes of length 1, which that of several pictures is not."""
    axis, shape = rows.axis(step.args[0]), rows.shape(step.args[0])
    named = step.args[1] if len(step.args) > 1 else range(len(shape))
    gone = {a % len(shape) for a in (named if isinstance(named, list | tuple | range) else [named])}
    return axis - sum(shape[a] == 1 for a in gone if a < axis)


def _relabelled(rows: Rows, step: Step) -> Axes:
    """Another order in memory for the same shape, as pooling gives its result: still one picture after another."""
    shape, sizes, strides = rows.shape(step.args[0]), tuple(step.args[1]), step.args[2]
    fits = sizes == shape and strides[0] * shape[0] == prod(shape) and len(step.args) < 4
    return _of_first(rows, step) if fits else None


def _expanded(rows: Rows, step: Step) -> Axes:
    axis, before, after = rows.axis(step.args[0]), rows.shape(step.args[0]), step.kinds[0].shape
    return axis + len(after) - len(before)


def _picked(rows: Rows, step: Step) -> Axes:
    """Along another axis than that of the pictures: one place of it, which is gone then, or all in turn."""
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    at = (step.args[1] if len(step.args) > 1 else 0) % axes
    return None if at == axis else axis - (at < axis)


def _cut(rows: Rows, step: Step) -> Axes:
    """Along another axis than that of the pictures, which stays."""
    place = 2 if step.name.startswith("split") else 1
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    at = (step.args[place] if len(step.args) > place else 0) % axes
    return None if at == axis else axis


def _joined(rows: Rows, step: Step) -> Axes:
    at = (step.args[1] if len(step.args) > 1 else 0) % len(step.kinds[0].shape)
    axes = {rows.axis(part) for part in values_in(step.args[0])}
    return axes.pop() if len(axes) == 1 and at not in axes else None


def _over_axes(rows: Rows, step: Step) -> Axes:
    """Along axes that are named, of which that of the pictures is none."""
    axis, axes = rows.axis(step.args[0]), len(rows.shape(step.args[0]))
    named = step.args[1] if len(step.args) > 1 else None
    over = {a % axes for a in (named if isinstance(named, list | tuple) else [named]) if isinstance(a, int)}
    if not over or axis in over:
        return None
    gone = sum(a < axis for a in over) if len(step.kinds[0].shape) < axes else 0
    return axis - gone


def _rolled(rows: Rows, step: Step) -> Axes:
    return _over_axes(rows, step._replace(args=(step.args[0], step.args[2]))) if len(step.args) > 2 else None


POINTWISE = frozenset(
    {
        "add", "sub", "rsub", "mul", "div", "neg", "relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold",
        "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "elu", "celu", "selu", "leaky_relu", "tanh", "softplus",
        "mish", "abs", "exp", "log", "pow", "sqrt", "rsqrt", "sin", "cos", "erf", "clone", "copy", "alias", "_to_copy",
    }
)  # fmt: skip
REGROUPS = ("view", "reshape", "_unsafe_view", "_reshape_alias")
_LAYS_OUT: dict[str, Callable[[Rows, Step], Axes]] = {
    **dict.fromkeys(REGROUPS, _laid_out),
    **dict.fromkeys(("transpose", "t"), _transposed),
    **dict.fromkeys(("clone", "alias"), _pointwise),
    "permute": _permuted,
    "unsqueeze": _widened,
    "squeeze": _squeezed,
    "expand": _expanded,
    "as_strided": _relabelled,
}
LAID_OUT = frozenset(_LAYS_OUT)
LOOKS: dict[str, Callable[[Rows, Step], Axes]] = {
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
