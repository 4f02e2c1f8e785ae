"""The first part of an OpenVINO graph: the bytes of decoded pictures become pixels as `data.images` makes them."""

from __future__ import annotations

from typing import Any

from clearsight.core.preprocess import Preprocess
from clearsight.engines.manifest import PICTURE, PIXELS
from clearsight.exporting.onnx_pixels import pillow_weighs

_PILLOW = {"bilinear": "bilinear_pillow", "bicubic": "bicubic_pillow"}


def pixels_nodes(preprocess: Preprocess) -> tuple[Any, Any]:
    """The parameter `picture` (N, H, W, C) of bytes, and the node `pixels` (N, C, h, w) in [0, 1].

    It is written in OpenVINO's own operations: what it makes of ONNX's antialiased Resize is off by dozens of levels,
    and its filters of Pillow by 1.  Nearest neighbours are found in whole numbers, since sums in float64 are rounded to
    float32 there; Pillow's differ from them by a pixel at rare sizes.
    """
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    height, width = preprocess.size

    def whole_number(*values: int) -> Any:
        return ops.constant(np.array(values, np.int64))

    picture = ops.parameter([-1, -1, -1, preprocess.channels], openvino.Type.u8, name=PICTURE)
    picture.output(0).set_names({PICTURE})
    axis = ops.constant(np.int64(0))
    sides = ops.gather(ops.shape_of(picture, "i64"), whole_number(1, 2), axis)
    planes = ops.transpose(picture, whole_number(0, 3, 1, 2))
    whole = whole_number(height, width)
    if preprocess.resize is not None:
        short = ops.reduce_min(sides, axis, keep_dims=True)
        whole = _whole_quotient(ops.multiply(sides, whole_number(preprocess.resize)), short)
    if preprocess.interpolation == "nearest":
        resized = _nearest(planes, sides, whole)
    else:
        between = _between(sides, whole)
        resized = planes
        for size in (between, whole):
            resized = ops.interpolate(
                resized, size, _PILLOW[preprocess.interpolation], "sizes", axes=whole_number(2, 3), cube_coeff=-0.5
            )
    if preprocess.resize is not None:
        margin, two = ops.subtract(whole, whole_number(height, width)), whole_number(2)
        half, odd = ops.divide(margin, two), ops.mod(margin, two)
        start = ops.add(half, ops.multiply(odd, ops.mod(half, two)))  # a half is rounded to the even number
        end = ops.add(start, whole_number(height, width))
        resized = ops.slice(resized, start, end, whole_number(1, 1), whole_number(2, 3))
    fixed = ops.reshape(resized, whole_number(0, preprocess.channels, height, width), special_zero=True)
    pixels = ops.divide(ops.convert(fixed, "f32"), ops.constant(np.float32(255)))
    pixels.output(0).set_names({PIXELS})
    pixels.set_friendly_name(PIXELS)
    return picture, pixels


def _whole_quotient(a: Any, b: Any) -> Any:
    """a // b, as (2 a + 1) // (2 b), which is never whole: OpenVINO multiplies by 1 / b, and 80 / 40 may be 1.99."""
    import numpy as np
    from openvino import opset13 as ops

    one, two = (ops.constant(np.int64(n)) for n in (1, 2))
    return ops.divide(ops.add(ops.multiply(a, two), one), ops.multiply(b, two))


def _between(sides: Any, whole: Any) -> Any:
    """The size between the two passes: see `onnx_pixels`."""
    import numpy as np
    from openvino import opset13 as ops

    axis = ops.constant(np.int64(0))
    high, wide = (ops.constant(np.array([i], np.int64)) for i in (0, 1))
    old, new = ([ops.gather(size, at, axis) for at in (high, wide)] for size in (sides, whole))
    lost = [ops.subtract(a, b) for a, b in zip(old, new, strict=True)]
    nothing = ops.constant(np.array([0], np.int64))
    if pillow_weighs():
        least = ops.maximum(ops.multiply(lost[1], ops.constant(np.array([2], np.int64))), nothing)
        height_first = ops.greater(lost[0], least)
    else:
        tall = ops.greater(old[0], ops.multiply(old[1], ops.constant(np.array([100], np.int64))))
        height_first = ops.logical_and(tall, ops.greater(lost[0], nothing))
    return ops.select(height_first, ops.concat([new[0], old[1]], 0), ops.concat([old[0], new[1]], 0))


def _nearest(planes: Any, sides: Any, whole: Any) -> Any:
    """Place k of a side is ((2 k + 1) in) // (2 out)."""
    import numpy as np
    from openvino import opset13 as ops

    axis = ops.constant(np.int64(0))
    one, two, none = (ops.constant(np.int64(n)) for n in (1, 2, 0))
    found = planes
    for side in (0, 1):
        at = ops.constant(np.int64(side))
        length, count = ops.gather(sides, at, axis), ops.gather(whole, at, axis)
        odd = ops.add(ops.multiply(ops.range(none, count, one, "i64"), two), one)
        places = _whole_quotient(ops.multiply(odd, length), ops.multiply(count, two))
        found = ops.gather(found, places, ops.constant(np.int64(side + 2)))
    return found
