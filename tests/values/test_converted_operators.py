"""Each operator that is converted to torch gives what ONNX's own reference gives, in several forms of it."""

from __future__ import annotations

import inspect

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from clearsight.engines.converted import layers, operations
from clearsight.engines.converted.convert import convert
from clearsight.engines.converted.node import Unknown

rng = np.random.default_rng(0)
F = np.float32


def f(*shape):
    return rng.normal(size=shape).astype(F)


def i(*values):
    return np.array(values, np.int64)


CASES = [  # operator, constants behind the picture, attributes
    ("Conv", [f(6, 2, 3, 3), f(6)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [f(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [f(6, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [f(6, 4, 3, 3)], {"pads": [1, 1, 1, 1]}),
    ("BatchNormalization", [f(4), f(4), f(4), f(4) ** 2], {"epsilon": 1e-3}),
    ("LayerNormalization", [f(6), f(6)], {"axis": -1, "epsilon": 1e-3}),
    ("InstanceNormalization", [f(4), f(4)], {}),
    ("GroupNormalization", [f(4), f(4)], {"num_groups": 2}),
    ("MatMul", [f(6, 3)], {}),
    ("Relu", [], {}), ("LeakyRelu", [], {"alpha": 0.3}), ("Elu", [], {"alpha": 0.5}), ("Sigmoid", [], {}),
    ("Tanh", [], {}), ("Softplus", [], {}), ("Gelu", [], {}), ("Gelu", [], {"approximate": "tanh"}),
    ("HardSwish", [], {}), ("Mish", [], {}), ("HardSigmoid", [], {"alpha": 0.3}), ("PRelu", [f(4, 1, 1)], {}),
    ("Clip", [F(0), F(6)], {}), ("Clip", [F(-0.5), F(0.5)], {}), ("Softmax", [], {"axis": 1}), ("LogSoftmax", [], {}),
    ("LRN", [], {"size": 3, "alpha": 0.2}),
    ("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", [], {}), ("GlobalMaxPool", [], {}), ("Flatten", [], {}), ("Flatten", [], {"axis": 2}),
    ("Identity", [], {}), ("Dropout", [], {}),
    ("Add", [f(4, 1, 1)], {}), ("Sub", [f(6)], {}), ("Mul", [f(4, 1, 1)], {}),
    ("Div", [f(6)], {}), ("Pow", [F(2)], {}), ("Neg", [], {}), ("Abs", [], {}), ("Exp", [], {}), ("Erf", [], {}),
    ("Sin", [], {}), ("Cos", [], {}), ("Max", [f(6), F(0.1)], {}), ("Min", [f(6)], {}), ("Sum", [f(6), f(6)], {}),
    ("Mean", [f(6)], {}), ("ReduceMean", [i(2, 3)], {"keepdims": 0}), ("ReduceMean", [], {}),
    ("ReduceSum", [i(-1)], {}),
    ("ReduceMax", [i(1)], {}), ("ReduceMin", [i(2)], {}), ("ReduceL2", [i(1)], {}),
    ("Reshape", [i(0, -1, 3)], {}), ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Transpose", [], {}),
    ("Unsqueeze", [i(0, -1)], {}), ("Concat", [f(2, 4, 5, 6)], {"axis": -1}),
    ("Slice", [i(1, -4), i(100, -1), i(2, 3), i(2, 1)], {}), ("Gather", [i(1, -1)], {"axis": 3}),
    ("Gather", [np.int64(-2)], {"axis": 1}), ("Expand", [i(3, 1, 1, 1, 6)], {}), ("Tile", [i(1, 2, 1, 3)], {}),
    ("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1), F(0.5)], {}), ("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", [i(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "edge"}), ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("Cast", [], {"to": 11}), ("ReduceLogSumExp", [i(1)], {"keepdims": 0}),
    ("ConvTranspose", [f(4, 3, 2, 3), f(6)],
     {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0], "output_padding": [1, 0]}),
    ("ConvTranspose", [f(4, 3, 2, 2)], {"dilations": [2, 1]}),
    ("Resize", [f(0), f(0), i(2, 4, 7, 4)], {"mode": "linear"}),
    ("Resize", [f(0), np.array([1, 1, 2, 1.5], F)],
     {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
    ("Resize", [f(0), np.array([1, 1, 2, 3], F)],
     {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
]  # fmt: skip
NUMBERED = [pytest.param(*case, id=f"{case[0]}-{k}") for k, case in enumerate(CASES)]
ELSEWHERE = {  # whose forms are asked below, or that need more than one input of pictures
    "gemm", "reciprocal", "sqrt", "log", "where", "less", "greater", "einsum", "shape", "squeeze", "split", "castlike",
    "clip",
}  # fmt: skip


def model_of(nodes, constants, outputs=("y",)):
    picture = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4, 5, 6])
    made = [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [picture], made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def check(model, x=None):
    x = f(2, 4, 5, 6) if x is None else x
    # of LRN the reference of onnx 1.23 leaves channels out, and ConvTranspose in groups breaks it
    if any(n.op_type in ("LRN", "ConvTranspose") for n in model.graph.node):
        wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    else:
        wanted = ReferenceEvaluator(model).run(None, {"x": x})
    with torch.no_grad():
        given = convert(model)(torch.from_numpy(x))
    parts = [*given.values()] if isinstance(given, dict) else [given]
    for got, want in zip(parts, wanted, strict=True):
        assert tuple(got.shape) == want.shape
        np.testing.assert_allclose(got.numpy(), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("kind", "constants", "attributes"), NUMBERED)
def test_converted_operators_give_what_the_reference_gives(kind, constants, attributes):
    named = {f"c{k}": v for k, v in enumerate(constants)}
    check(model_of([helper.make_node(kind, ["x", *named], ["y"], **attributes)], named))


def test_converted_operators_of_several_inputs_and_shapes():
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Add", ["a", "one"], ["b"]),
        helper.make_node("Sqrt", ["b"], ["c"]), helper.make_node("Log", ["c"], ["d"]),
        helper.make_node("Reciprocal", ["b"], ["e"]), helper.make_node("Less", ["d", "e"], ["which"]),
        helper.make_node("Greater", ["d", "x"], ["other"]), helper.make_node("Where", ["which", "d", "e"], ["p"]),
        helper.make_node("Where", ["other", "p", "x"], ["q"]),
        helper.make_node("Shape", ["q"], ["s"]), helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0), helper.make_node("Reshape", ["q", "to"], ["r"]),
        helper.make_node("Split", ["r", "sizes"], ["t", "u"], axis=1), helper.make_node("Gemm", ["t", "w", "v"], ["z"],
                                                                                     alpha=0.5, beta=2.0, transB=1),
        helper.make_node("Einsum", ["z", "z"], ["k"], equation="ij,kj->ik"),
        helper.make_node("Squeeze", ["u", "at"], ["y"]),
    ]  # fmt: skip
    constants = {"one": F(1), "first": i(0), "rest": i(-1), "sizes": i(119, 1), "w": f(3, 119), "v": f(3), "at": i(1)}
    check(model_of(nodes, constants, ("y", "k")))


def test_every_converted_operator_is_asked_about():
    names = {n for m in (layers, operations) for n, v in vars(m).items()
             if inspect.isfunction(v) and v.__module__ == m.__name__ and not n.startswith("_")}  # fmt: skip
    assert names - {kind.lower() for kind, *_ in CASES} <= ELSEWHERE


@pytest.mark.parametrize(
    ("kind", "constants", "attributes", "told"),
    [
        ("Hardmax", [], {}, "the operator Hardmax cannot be converted"),
        ("Cast", [], {"to": 16}, "Cast to type 16"),
        ("DepthToSpace", [], {"blocksize": 2}, "DepthToSpace with mode DCR"),
        ("Slice", [i(3), i(0), i(2), i(-1)], {}, "Slice backwards"),
        ("Resize", [f(0), f(0), i(2, 4, 7, 4)], {"mode": "cubic"}, "Resize with mode cubic"),
        ("Resize", [f(0), np.array([1, 1, 1.3, 1], F)], {"mode": "linear"}, "no whole number of pixels"),
        ("ConvTranspose", [f(4, 3, 2, 2)], {"auto_pad": "SAME_UPPER"}, "ConvTranspose that pads"),
    ],
)
def test_forms_that_are_not_known_are_named(kind, constants, attributes, told):
    named = {f"c{k}": v for k, v in enumerate(constants)}
    with pytest.raises(Unknown, match=told):
        convert(model_of([helper.make_node(kind, ["x", *named], ["y"], **attributes)], named))(torch.zeros(2, 4, 5, 6))
