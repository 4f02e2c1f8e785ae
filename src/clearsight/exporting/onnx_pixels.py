"""The first part of an ONNX graph: the bytes of decoded pictures become pixels as `data.images` makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clearsight.core.preprocess import Preprocess
from clearsight.engines.manifest import PIXELS
from clearsight.exporting.onnx_steps import Steps

if TYPE_CHECKING:
    import onnx

PILLOW_CUBIC = -0.5  # the coefficient of Pillow's bicubic filter, which is that of Keys 1981; ONNX's default is -0.75


def pixels_graph(preprocess: Preprocess) -> onnx.GraphProto:
    """`picture` (N, H, W, C) uint8 -> `pixels` (N, C, h, w) float32 in [0, 1], resized and cut as `preprocess` says.

    The N pictures have one size, which may be any.  Values differ from those of Pillow by 1 of 255, rarely by 2: ONNX's
    antialiased filters are Pillow's only if what lies outside the picture is left out of the weights
    (`exclude_outside`).  Pillow's nearest neighbour, which steps through the picture by repeated addition in float64,
    is written as that.
    """
    from onnx import TensorProto, helper

    height, width = preprocess.size
    steps = Steps("picture", (PIXELS,))
    sides = steps.run("Shape", ["picture"], "sides", start=1, end=3)
    planes = steps.run("Transpose", ["picture"], "planes", perm=[0, 3, 1, 2])
    whole = _whole_size(steps, sides, preprocess)
    if preprocess.interpolation == "nearest":
        resized = _nearest(steps, planes, sides, whole)
    else:
        resized = _antialiased(steps, planes, sides, whole, preprocess)
    if preprocess.resize is not None:
        resized = _centre(steps, resized, whole, preprocess.size)
    shape = steps.constant("shape", [0, preprocess.channels, height, width])
    fixed = steps.run("Reshape", [resized, shape], "bytes")
    values = steps.run("Cast", [fixed], "values", to=TensorProto.FLOAT)
    steps.run("Div", [values, steps.constant("white", 255, "float32")], "pixels")
    picture = helper.make_tensor_value_info("picture", TensorProto.UINT8, ["n", "height", "width", preprocess.channels])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", preprocess.channels, height, width])
    return helper.make_graph(steps.nodes, "pixels", [picture], [pixels], steps.constants)


def _whole_size(steps: Steps, sides: str, preprocess: Preprocess) -> str:
    """Height and width (2,) of the whole picture once it is resized, before the centre is cut out."""
    if preprocess.resize is None:
        return steps.constant("size", preprocess.size)
    short = steps.run("ReduceMin", [sides], "short", keepdims=1)
    grown = steps.run("Mul", [sides, steps.constant("resize", [preprocess.resize])], "grown")
    return steps.run("Div", [grown, short], "whole")


def _antialiased(steps: Steps, planes: str, sides: str, whole: str, preprocess: Preprocess) -> str:
    """Resize one side and then the other, in the order of Pillow, which rounds to 8 bits in between.

    The four sides are given, though two of them with the attribute `axes` would do: ONNX Runtime 1.32 cannot load
    that, since it moves the transposition behind the resizing and forgets the attribute.
    """
    count = steps.run("Shape", ["picture"], "count", start=0, end=1)
    channels = steps.constant("channels", [preprocess.channels])
    between = steps.run("Where", [_height_first(steps, sides, whole), *_middles(steps, sides, whole)], "between")
    found = planes
    for name, last in (("between", between), ("resized", whole)):
        four = steps.run("Concat", [count, channels, last], f"{name}.sides", axis=0)
        found = steps.run(
            "Resize",
            [found, "", "", four],
            f"{name}.bytes",
            mode={"bilinear": "linear", "bicubic": "cubic"}[preprocess.interpolation],
            antialias=1,
            exclude_outside=1,
            cubic_coeff_a=PILLOW_CUBIC,
            coordinate_transformation_mode="half_pixel",
        )
    return found


def _middles(steps: Steps, sides: str, whole: str) -> tuple[str, str]:
    """The size (2,) between the two passes: where the height is resized first, and where the width is."""
    high, wide = steps.constant("high", [0]), steps.constant("wide", [1])
    old = [steps.run("Gather", [sides, at], f"old_{name}") for name, at in (("high", high), ("wide", wide))]
    new = [steps.run("Gather", [whole, at], f"new_{name}") for name, at in (("high", high), ("wide", wide))]
    first = steps.run("Concat", [new[0], old[1]], "height_first.size", axis=0)
    return first, steps.run("Concat", [old[0], new[1]], "width_first.size", axis=0)


def _height_first(steps: Steps, sides: str, whole: str) -> str:
    """Whether the installed Pillow resizes the height before the width, (1,) bool.

    It is told by what it gives.  Pillow 13 does so where the height shrinks by more pixels than twice those by which
    the width shrinks.  Those before it resize the width first, unless the picture is a hundred times higher than wide
    and its height shrinks.
    """
    shrunk = steps.run("Sub", [sides, whole], "shrunk")
    high, wide = steps.constant("row", [0]), steps.constant("column", [1])
    lost_rows = steps.run("Gather", [shrunk, high], "lost_rows")
    if pillow_weighs():
        lost_columns = steps.run("Gather", [shrunk, wide], "lost_columns")
        twice = steps.run("Mul", [lost_columns, steps.constant("twice", [2])], "twice_the_columns")
        least = steps.run("Max", [twice, steps.constant("none", [0])], "least")
        return steps.run("Greater", [lost_rows, least], "height_first")
    rows, columns = steps.run("Gather", [sides, high], "rows"), steps.run("Gather", [sides, wide], "columns")
    hundred = steps.run("Mul", [columns, steps.constant("hundred", [100])], "hundred_columns")
    tall = steps.run("Greater", [rows, hundred], "tall")
    shrinks = steps.run("Greater", [lost_rows, steps.constant("none", [0])], "shrinks")
    return steps.run("And", [tall, shrinks], "height_first")


def pillow_weighs() -> bool:
    """Whether the installed Pillow looks at how much each side shrinks before it chooses which to resize first."""
    stripes = np.indices((32, 32)).sum(0) // 3 % 2 * 255
    picture = Image.fromarray(stripes.astype(np.uint8))
    height_first = picture.resize((32, 24), Image.Resampling.BICUBIC).resize((40, 24), Image.Resampling.BICUBIC)
    return picture.resize((40, 24), Image.Resampling.BICUBIC).tobytes() == height_first.tobytes()


def _nearest(steps: Steps, planes: str, sides: str, whole: str) -> str:
    """Take the nearest rows and columns: place k of Pillow's is where k steps of in / out lead from half a step."""
    from onnx import TensorProto

    found = planes
    zero, one, half = (steps.constant(n, v) for n, v in (("zero", 0), ("one", [1]), ("first", [0])))
    for axis, name in ((0, "rows"), (1, "columns")):
        at = steps.constant(f"{name}.axis", [axis])
        side = steps.run("Gather", [sides, at], f"{name}.side")
        count = steps.run("Gather", [whole, at], f"{name}.count")
        lengths = [
            steps.run("Cast", [n], f"{name}.{k}", to=TensorProto.DOUBLE) for k, n in (("in", side), ("out", count))
        ]
        step = steps.run("Div", lengths, f"{name}.step")
        all_steps = steps.run("Expand", [step, count], f"{name}.steps")
        start = steps.run("Mul", [step, steps.constant(f"{name}.half", [0.5], "float64")], f"{name}.start")
        spread = steps.run("ScatterElements", [all_steps, half, start], f"{name}.spread", axis=0)
        places = steps.run("CumSum", [spread, zero], f"{name}.places")
        whole_places = steps.run("Cast", [places], f"{name}.whole", to=TensorProto.INT64)
        last = steps.run("Sub", [side, one], f"{name}.last")
        inside = steps.run("Min", [whole_places, last], f"{name}.inside")
        found = steps.run("Gather", [found, inside], name, axis=axis + 2)
    return found


def _centre(steps: Steps, resized: str, whole: str, size: tuple[int, ...]) -> str:
    """Cut out the centre; where the margin is odd, half of it is rounded to the even number, as Python does."""
    inner, two = steps.constant("inner", size), steps.constant("two", [2])
    margin = steps.run("Sub", [whole, inner], "margin")
    half, odd = steps.run("Div", [margin, two], "half"), steps.run("Mod", [margin, two], "odd")
    odd_half = steps.run("Mod", [half, two], "odd_half")
    start = steps.run("Add", [half, steps.run("Mul", [odd, odd_half], "rounded")], "start")
    end = steps.run("Add", [start, inner], "end")
    return steps.run("Slice", [resized, start, end, steps.constant("axes", [2, 3])], "cut")
