"""A file of `clearsight export --to onnx` as a backend: ONNX Runtime runs it from the resized pixels on.

The graph resizes too, but Pillow does it in two thirds of the time, in the threads that decode, to the very values of
`clearsight.pixels`; and pictures of all sizes then share a batch.  So the graph is cut at its tensor `pixels`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.engines.manifest import LOGITS, MAP, PIXELS, PROBABILITIES, VALUES, Manifest
from clearsight.engines.onnx_file import read_onnx
from clearsight.engines.onnx_runtime import cpu_session
from clearsight.errors import Refused
from clearsight.exporting.extras import need
from clearsight.serving.backend import Answers, Backend, Bytes

if TYPE_CHECKING:
    import onnx


def onnx_backend(path: str | Path, classifier: Classifier | None = None, threads: int = 0) -> Backend:
    """A backend that runs an exported file in ONNX Runtime on the CPU.

    Args:
        path: the file, which `clearsight export` wrote: its manifest says what it takes.
        classifier: the same model as explainers take it; None where it is explained by its own map alone.
        threads: threads of one pass; 0 for as many as torch takes, which are the cores if OMP_NUM_THREADS says no less.

    Refused: a file that is missing, broken or without a manifest, and libraries that are not installed.
    """
    need("serving an ONNX file", "onnx", "onnxruntime")
    import onnx

    path = Path(path)
    manifest = read_onnx(path).manifest  # which refuses what is broken, and weights outside of the file's folder
    if manifest is None:
        raise Refused(f"{path} does not say what it takes", "serve a file that clearsight export wrote")
    whole = onnx.load(str(path))
    preprocess = Preprocess(**manifest.preprocess)
    cut, feature_tensor = _cut(whole, manifest, path)
    # several batches at a time have a core each; one alone has them all, and threads that need not be woken
    threads = threads or torch.get_num_threads()
    shared, whole_machine = cpu_session(cut, threads), cpu_session(cut, threads, spin="briefly")
    given = [o.name for o in shared.get_outputs()]
    chances = VALUES if manifest.scores == "values" else PROBABILITIES

    def answers(session: Any, pixels: Bytes) -> Answers:
        x = np.divide(pixels, np.float32(255), out=np.empty(pixels.shape, np.float32))  # as `of_bytes`, to the bit
        out = dict(zip(given, session.run(None, {PIXELS: x}), strict=True))
        return Answers(out[chances], out[LOGITS], out.get(MAP), out.get(feature_tensor))

    run = partial(answers, shared)
    tried = run(np.zeros((2, preprocess.channels, *preprocess.size), np.uint8))
    return Backend(
        engine="onnxruntime",
        labels=manifest.labels if classifier is None else classifier.labels,
        preprocess=preprocess,
        scores=manifest.scores,
        source=str(path),
        fingerprint=manifest.fingerprint,
        run=run,
        run_alone=partial(answers, whole_machine),
        map_shape=None if tried.maps is None else (tried.maps.shape[1], tried.maps.shape[2]),
        features=0 if tried.features is None else tried.features.shape[1],
        layers=({"features": feature_tensor} if feature_tensor else {})
        | ({"map": manifest.heatmap.layer} if manifest.heatmap else {}),
        threads=2,  # one works while the other hands its answers over
        classifier=classifier,
    )


def _cut(model: onnx.ModelProto, manifest: Manifest, path: Path) -> tuple[onnx.ModelProto, str]:
    """The graph from `pixels` on, with the features among its outputs; the name of that tensor, "" if there is none."""
    from onnx.utils import Extractor

    makers = {name: node for node in model.graph.node for name in node.output}
    if PIXELS not in makers or LOGITS not in makers:
        raise Refused(f"{path} has no tensors {PIXELS} and {LOGITS}", "serve a file that clearsight export wrote")
    features = _entering_last_linear(makers, model)
    outputs = [LOGITS, VALUES if manifest.scores == "values" else PROBABILITIES]
    outputs += [MAP] if manifest.heatmap else []
    known = {v.name for v in model.graph.value_info}
    if features and features not in known:
        model.graph.value_info.append(_float_rows(features))
    extracted: Any = Extractor(model).extract_model([PIXELS], outputs + ([features] if features else []))
    return extracted, features


def _entering_last_linear(makers: dict[str, Any], model: onnx.ModelProto) -> str:
    """The tensor that enters the linear layer which gives the logits; "" where they come from something else."""
    name, weights = LOGITS, {w.name for w in model.graph.initializer}
    for _ in range(8):  # a bias, a clone, a clip, or numbers of 8 bits may stand behind it
        node = makers.get(name)
        if node is None:
            return ""
        if node.op_type in ("Gemm", "MatMul") and _float_of(makers, node.input[1]) in weights:
            return str(node.input[0])
        if node.op_type not in ("Add", "Identity", "Cast", "DequantizeLinear", "QuantizeLinear"):
            return ""
        name = node.input[0]
    return ""


def _float_of(makers: dict[str, Any], name: str) -> str:
    """The tensor from whose 8 bits one is made by DequantizeLinear; itself where it is not."""
    node = makers.get(name)
    return str(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else name


def _float_rows(name: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None])
