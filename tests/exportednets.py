"""Small networks as exported files: ONNX, torch.export and OpenVINO, ours and others'."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight import Classifier, Preprocess, wrap
from clearsight.engines.manifest import KEY, LOGITS, PICTURE, PIXELS, PROBABILITIES, Manifest

PRE = Preprocess(16, (0.4, 0.5, 0.6), (0.25, 0.3, 0.2))
LABELS = ("cat", "dog", "owl", "fox", "elk")


class Small(nn.Module):
    """A residual block with batch norms, a strided convolution, a pool and a linear head; smooth, or with ReLUs."""

    def __init__(self, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.block, self.act = nn.Conv2d(8, 8, 3, padding=1, groups=2), act()
        self.down, self.head = nn.Conv2d(8, 12, 3, stride=2), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.bn(self.stem(x)))
        h = self.act(self.block(h)) + h
        return self.head(self.act(self.down(h)).mean((2, 3)))


@cache
def small(act: type[nn.Module] = nn.SiLU) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Small(act)
        for p in net.parameters():
            nn.init.normal_(p, std=0.4)
        net.bn.running_mean.normal_()
        net.bn.running_var.uniform_(0.5, 2.0)
    return wrap(net.eval(), PRE, LABELS)


@cache
def onnx_bytes(act: type[nn.Module] = nn.SiLU, batch: int | None = None) -> bytes:
    """The small network as somebody else's ONNX file: normalised pictures in, logits out."""
    shapes = None if batch else ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            small(act).net,
            (torch.rand(batch or 2, 3, 16, 16),),
            dynamo=True,
            external_data=False,
            dynamic_shapes=shapes,
        )
    return program.model_proto.SerializeToString()


def manifest(scores: Any = "logits") -> Manifest:
    return Manifest(LABELS, PRE.as_dict(), scores, "", small().fingerprint())


@cache
def our_onnx(act: type[nn.Module] = nn.SiLU) -> bytes:
    """The same as a file of ours: decoded pictures in, pixels and logits inside, probabilities out."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(onnx_bytes(act))
    graph = model.graph
    inner, logits = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for i, name in enumerate(node.output):
            node.output[i] = LOGITS if name == logits else name
    constants = {
        "of_bytes": np.float32(255),
        "the_mean": np.float32(PRE.mean).reshape(1, 3, 1, 1),
        "the_std": np.float32(PRE.std).reshape(1, 3, 1, 1),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    before = [
        helper.make_node("Cast", [PICTURE], ["as_float"], to=1),
        helper.make_node("Div", ["as_float", "of_bytes"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], [PIXELS], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", [PIXELS, "the_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "the_std"], [inner]),
    ]
    nodes = [*before, *graph.node, helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=1)]
    picture = helper.make_tensor_value_info(PICTURE, onnx.TensorProto.UINT8, ["n", 16, 16, 3])
    chances = helper.make_tensor_value_info(PROBABILITIES, onnx.TensorProto.FLOAT, ["n", 5])
    whole = helper.make_model(
        helper.make_graph(nodes, "ours", [picture], [chances], graph.initializer),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    whole.metadata_props.add(key=KEY, value=manifest().to_json())
    return whole.SerializeToString()


@cache
def pt2_bytes(act: type[nn.Module] = nn.SiLU) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = ({0: torch.export.Dim("n")},)
        program = torch.export.export(small(act).net, (torch.rand(2, 3, 16, 16),), dynamic_shapes=dynamic)
        file = io.BytesIO()
        torch.export.save(program, file)
    return file.getvalue()


def write(folder: Path, data: bytes, name: str = "model.onnx") -> Path:
    (folder / name).write_bytes(data)
    return folder / name
