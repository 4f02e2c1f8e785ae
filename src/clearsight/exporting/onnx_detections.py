"""The last part of a detector's ONNX graph: candidates become boxes in pixels of the picture that was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clearsight.core.preprocess import Preprocess
from clearsight.engines.manifest import BOXES, CANDIDATES, LABELS, SCORES, Suppression
from clearsight.exporting.onnx_steps import Steps

if TYPE_CHECKING:
    import onnx


def detections_graph(
    preprocess: Preprocess, suppression: Suppression, candidates: int, classes: int
) -> onnx.GraphProto:
    """`candidates` (N, M, 5 + K) -> `boxes` (N, R, 4), `scores` (N, R) and `labels` (N, R), the surest first.

    They are what `Detector.detections` reports: scores above the floor, of boxes of one class that overlap the surest,
    and of all that are left the best R, which is `most` or as many as there can be.  Boxes are x1, y1, x2, y2 in pixels
    of the picture as it was given.  Rows that no box fills have label -1, and zeros elsewhere.

    The graph uses the tensors of `pixels_graph` that say where the pixels come from.

    candidates: how many a picture has; classes: how many classes there are.
    """
    from onnx import TensorProto, helper

    steps = Steps("found", (BOXES, SCORES, LABELS))
    most = min(suppression.most, candidates * classes)
    boxes = _columns(steps, "corners", 0, 4)
    object_score = steps.run("Sigmoid", [_columns(steps, "object", 4, 5)], "object_score")
    class_score = steps.run("Sigmoid", [_columns(steps, "class", 5, 5 + classes)], "class_score")
    scores = steps.run("Mul", [object_score, class_score], "products")
    by_class = steps.run("Transpose", [scores], "by_class", perm=[0, 2, 1])
    limits = [
        steps.constant("most", [suppression.most]),  # of each class: no more of it can be among the best of all
        steps.constant("overlap", [suppression.overlap], "float32"),
        steps.constant("floor", [suppression.floor], "float32"),
    ]
    staying = steps.run("NonMaxSuppression", [boxes, by_class, *limits], "staying")
    values = steps.run("GatherND", [by_class, staying], "staying_scores")
    nothing = steps.run("Mul", [by_class, steps.constant("nothing", 0, "float32")], "nothing_stays")
    kept = steps.run("ScatterND", [nothing, staying, values], "kept")
    flat = steps.run("Reshape", [kept, steps.constant("flat", [0, -1])], "flat_scores")
    found, place = steps.run_two("TopK", [flat, steps.constant("k", [most])], SCORES, "place", axis=1)
    count = steps.constant("count", [candidates])
    label, row = steps.run("Div", [place, count], "label"), steps.run("Mod", [place, count], "row")
    there = steps.run("Greater", [found, steps.constant("zero", 0, "float32")], "there")
    steps.run("Where", [there, label, steps.constant("no_label", -1)], LABELS)
    four = steps.run("Concat", [_wide(steps, row)] * 4, "rows", axis=2)
    chosen = steps.run("GatherElements", [boxes, four], "chosen", axis=1)
    original = _to_picture(steps, chosen, preprocess)
    steps.run("Where", [_wide(steps, there), original, steps.constant("no_box", 0, "float32")], BOXES)
    outputs = [
        helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, ["n", most, 4]),
        helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["n", most]),
        helper.make_tensor_value_info(LABELS, TensorProto.INT64, ["n", most]),
    ]
    given = helper.make_tensor_value_info(CANDIDATES, TensorProto.FLOAT, ["n", candidates, 5 + classes])
    return helper.make_graph(steps.nodes, "detections", [given], outputs, steps.constants)


def _columns(steps: Steps, name: str, first: int, end: int) -> str:
    bounds = [steps.constant(f"{name}.{word}", [n]) for word, n in (("first", first), ("end", end), ("axis", 2))]
    return steps.run("Slice", [CANDIDATES, *bounds], name)


def _wide(steps: Steps, values: str) -> str:
    """(N, R) -> (N, R, 1)."""
    name = values.rpartition(".")[2]
    return steps.run("Unsqueeze", [values, steps.constant(f"{name}.last", [2])], f"{name}.wide")


def _to_picture(steps: Steps, boxes: str, preprocess: Preprocess) -> str:
    """Boxes in pixels of the network's input -> in those of the picture: see `box_to_original`."""
    from onnx import TensorProto

    sides = steps.run("Cast", ["picture.sides"], "sides", to=TensorProto.FLOAT)  # height, width
    resized = "picture.size" if preprocess.resize is None else "picture.whole"
    whole = steps.run("Cast", [resized], "whole", to=TensorProto.FLOAT)
    if preprocess.resize is not None:
        start = steps.run("Cast", ["picture.start"], "start", to=TensorProto.FLOAT)
        boxes = steps.run("Add", [boxes, _corners(steps, start)], "uncut")
    grown = steps.run("Mul", [boxes, _corners(steps, sides)], "grown")
    return steps.run("Div", [grown, _corners(steps, whole)], "in_picture")


def _corners(steps: Steps, of_sides: str) -> str:
    """A number for rows and one for columns (2,) -> for x, y, x, y (4,)."""
    name = of_sides.rpartition(".")[2]
    order: Any = np.array([1, 0, 1, 0])
    return steps.run("Gather", [of_sides, steps.constant(f"{name}.order", order)], f"{name}.corners", axis=0)
