"""Run a model by OpenVINO on the CPU, in float32: from normalised pictures to scores, without gradients.

OpenVINO computes in bfloat16 by default where the processor has it, which moves probabilities; so float32 is asked for,
and what it says that it computes in is read back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.engines.facts import EngineFacts, digest, read_bytes
from clearsight.engines.manifest import FILE, PIXELS, Manifest, from_json
from clearsight.engines.no_gradient import blind
from clearsight.engines.normalisation import Normalisation, in_portions
from clearsight.engines.onnx_file import Port, picture_input
from clearsight.engines.signal_stack import kept_signal_stack
from clearsight.errors import Refused

DAMAGED = "it is no model of OpenVINO, or is damaged: export it again, or copy both .xml and .bin"


class OpenVinoNet(nn.Module):
    """A model of OpenVINO as a network: normalised pictures (B, C, *S) in, scores out.

    Args:
        path: its .xml; the .bin lies beside it.
        size: (C, *S) of what it is given.
        inner: of a file of Clearsight the tensor that holds the scores: it is cut at `pixels` and there; "" of others.
        undo: what the file does by itself, and the Classifier has done already.
    """

    file_digest: Tensor

    def __init__(self, path: Path, size: tuple[int, ...], inner: str, undo: Normalisation | None = None) -> None:
        super().__init__()
        self.path, self.size, self.inner, self.undo = path, size, inner, undo
        parts = _bytes(path)
        self.register_buffer("file_digest", digest(parts))
        self.threads, self.compiled = 0, None
        model = read_model(path, inner)
        port = picture_input(tuple(map(_port, model.inputs)), size, path)
        self.fixed = port.shape[0] if port.shape else None
        compiled = self._open(model)
        self.engine_facts = EngineFacts(
            path.name, name(), (str(port),), tuple(str(_port(o)) for o in model.outputs), precision(compiled),
            len(model.get_ops()), 0, sum(map(len, parts)), False, "it gives scores and no gradients",
        )  # fmt: skip

    def _open(self, model: Any = None) -> Any:
        """The compiled model, for as many threads as torch may use now."""
        threads = torch.get_num_threads()
        if self.compiled is None or threads != self.threads:
            if model is None:
                if not torch.equal(digest(_bytes(self.path)), self.file_digest.cpu()):
                    raise Refused(f"{self.path} has changed since it was loaded: load it again")
                model = read_model(self.path, self.inner)
            self.compiled, self.threads = compiled(model, self.path, threads), threads
        return self.compiled

    def forward(self, z: Tensor) -> Any:
        """The scores of normalised pictures z (B, C, *S); several outputs as a tuple."""
        given = (z if self.undo is None else self.undo.undone(z)).detach().cpu().contiguous()
        parts = [self._run(part) for part in in_portions(self.fixed, given)]
        why = f"OpenVINO runs {self.path.name}, which gives scores only"
        whole = tuple(blind(z, torch.cat(scores)[: len(z)].to(z.device), why) for scores in zip(*parts, strict=True))
        return whole[0] if len(whole) == 1 else whole

    def _run(self, pictures: Tensor) -> list[Tensor]:
        opened = self._open()
        results = opened.create_infer_request().infer([pictures.numpy()])
        return [torch.from_numpy(np.array(results[o], dtype=np.float32)) for o in opened.outputs]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "compiled": None, "threads": 0}


def manifest_of(path: Path) -> Manifest | None:
    """The manifest beside an .xml; None of a foreign one."""
    beside = path.with_name(FILE)
    return from_json(read_bytes(beside), beside) if beside.is_file() else None


def _bytes(path: Path) -> list[bytes]:
    weights = path.with_suffix(".bin")
    if not weights.is_file() and path.is_file():
        raise Refused(f"{path} has no weights: {weights.name} must lie beside it")
    return [read_bytes(path), read_bytes(weights)]


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise Refused("OpenVINO is not installed: pip install 'clearsight[openvino]'") from None
    return openvino


def name() -> str:
    return f"OpenVINO {_openvino().__version__.partition('-')[0]}"


def read_model(path: Path, inner: str) -> Any:
    """The model from pictures to scores.  Refused: a damaged file, one of ours without its tensors."""
    ov = _openvino()
    try:
        model = ov.Core().read_model(path)
    except Exception as e:  # OpenVINO raises RuntimeError and others
        raise Refused(f"{path} cannot be read", DAMAGED) from e
    return _cut(ov, model, path, inner) if inner else model


def _cut(ov: Any, model: Any, path: Path, inner: str) -> Any:
    """The part of a model of ours from `pixels` to the tensor that holds the scores."""
    named = {n: port for op in model.get_ops() for port in op.outputs() for n in port.get_names()}
    if PIXELS not in named or inner not in named:
        lacking = PIXELS if PIXELS not in named else inner
        raise Refused(f"{path} has a manifest of Clearsight, but no tensor {lacking!r} inside", "export it again")
    pixels, scores = named[PIXELS], named[inner]
    start = ov.opset13.parameter(pixels.get_partial_shape(), pixels.get_element_type(), PIXELS)
    for target in pixels.get_target_inputs():
        target.replace_source_output(start.output(0))
    given = [r for r in model.get_results() if inner in r.input_value(0).get_names()]  # of a tensor that is an output
    return ov.Model(given[:1] or [ov.opset13.result(scores)], [start], f"pixels_to_{inner}")


def compiled(model: Any, path: Path, threads: int) -> Any:
    """The model compiled for the CPU in float32."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    try:
        return on_cpu(model, settings)
    except Exception as e:
        reason = (str(e).strip().splitlines() or [""])[-1][:200]
        raise Refused(f"OpenVINO cannot compile {path}: {reason}") from e


def on_cpu(model: Any, settings: dict[str, Any]) -> Any:
    """A model of OpenVINO compiled for the CPU, with these settings."""
    with kept_signal_stack():
        return _openvino().Core().compile_model(model, "CPU", settings)


def precision(compiled_model: Any) -> str:
    """The type that a compiled model says it computes in: "float32", "bfloat16" or another."""
    kind = compiled_model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(kind, str(kind))


def _port(port: Any) -> Port:
    kind = str(port.get_element_type().get_type_name())
    shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
    return Port(port.get_any_name() if port.get_names() else "output", {"f32": "float32"}.get(kind, kind), shape)
