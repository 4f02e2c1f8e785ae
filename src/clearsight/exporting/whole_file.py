"""An exported file, opened by the engine that will run it: from decoded pictures to its outputs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from clearsight.engines.onnx_runtime import cpu_session

if TYPE_CHECKING:
    import onnx

Bytes = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]

# operations that hold nearly all of the work
_WORK = ("Conv", "Gemm", "MatMul", "Attention", "LSTM", "GRU")


@dataclass(frozen=True)
class WholeFile:
    """A file that is open.

    Args:
        engine: what runs it, with its version.
        run: pictures (N, H, W, C) of 8 bits and one size -> outputs by name.
        pixels: the same pictures -> what the file resizes and cuts them to, (N, C, h, w) in [0, 1].
        computes_in: how many operations with weights compute in which numbers, as the engine itself says:
            {"fp32": 50}.
        size: bytes of the files.
    """

    engine: str
    run: Callable[[Bytes], Outputs]
    pixels: Callable[[Bytes], npt.NDArray[np.float32]]
    size: int
    computes_in: dict[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What most operations compute in; "" where the engine does not say."""
        return max(self.computes_in, key=lambda kind: self.computes_in[kind], default="")


def open_onnx(file: Path) -> WholeFile:
    """An ONNX file of ours in ONNX Runtime, on the CPU with as many threads as torch has."""
    import onnx
    import onnxruntime

    model = onnx.load(file)
    whole = onnx_session(model)
    names = [output.name for output in whole.get_outputs()]

    def run(pictures: Bytes) -> Outputs:
        return dict(zip(names, whole.run(None, {"picture": pictures}), strict=True))

    engine = f"ONNX Runtime {onnxruntime.__version__}"
    return WholeFile(engine, run, onnx_pixels(model), file.stat().st_size, onnx_precision(model))


def onnx_pixels(model: onnx.ModelProto) -> Callable[[Bytes], npt.NDArray[np.float32]]:
    """What a whole graph makes of pictures (N, H, W, C) before its network: pixels (N, C, h, w) in [0, 1]."""
    session = onnx_session(_up_to_pixels(model))

    def pixels(pictures: Bytes) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = session.run(None, {"picture": pictures})[0]
        return found

    return pixels


def onnx_session(model: onnx.ModelProto, optimised: Path | None = None) -> Any:
    """A session on the CPU; optimised: where the graph goes that it really runs."""
    return cpu_session(model, torch.get_num_threads(), spin="always", optimised=optimised)  # as its callers will run it


def _up_to_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part of a whole graph that makes pixels."""
    from onnx.utils import Extractor

    return Extractor(model).extract_model(["picture"], ["pixels"])


def onnx_precision(model: onnx.ModelProto) -> dict[str, int]:
    """What the operations compute in, read from the graph that ONNX Runtime made of the file and runs."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "optimised.onnx"
        onnx_session(model, place)
        graph = onnx.load(place).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    words = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    integers = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    counts: Counter[str] = Counter()
    for node in graph.node:
        if any(node.op_type.endswith(work) for work in _WORK):
            of_inputs = [kinds[name] for name in node.input if name in kinds]
            whole = any(kind in integers for kind in of_inputs)
            counts["int8" if whole else next((words[k] for k in of_inputs if k in words), "fp32")] += 1
    return dict(counts)
