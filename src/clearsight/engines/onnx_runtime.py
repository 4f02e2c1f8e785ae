"""Run an ONNX file by ONNX Runtime on the CPU: from normalised pictures to scores, without gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.engines.facts import EngineFacts
from clearsight.engines.no_gradient import blind
from clearsight.engines.normalisation import Normalisation, in_portions
from clearsight.engines.onnx_file import OnnxFile, picture_input, ports, read_onnx
from clearsight.errors import Notice, Refused

Spin = Literal["never", "briefly", "always"]


class OnnxRuntimeNet(nn.Module):
    """An ONNX file as a network: normalised pictures (B, C, *S) in, scores out; several outputs as a dict by name.

    It has no weights of its own, but a buffer with the file's digest, by which it is known.  Copies and other processes
    open the file anew.

    Args:
        file: the file, read.
        size: (C, *S) of what it is given.
        undo: what the file does by itself, and the Classifier has done already; None where the file takes normalised
            pictures.

    Refused: a graph that ONNX Runtime cannot open, and inputs that are not pictures of this size.
    """

    file_digest: Tensor

    def __init__(self, file: OnnxFile, size: tuple[int, ...], undo: Normalisation | None = None) -> None:
        super().__init__()
        self.path, self.size, self.undo = file.path, size, undo
        self.register_buffer("file_digest", file.digest)
        inputs, outputs = ports(file.model)
        port = picture_input(inputs, size, file.path)
        self.input, self.kind = port.name, port.kind
        self.fixed = port.shape[0] if port.shape else None
        self.threads, self.session = 0, None
        self._open(file)
        self.engine_facts = EngineFacts(
            file.path.name, name(), tuple(map(str, inputs)), tuple(map(str, outputs)), precision(file.model),
            len(file.model.graph.node), opset(file.model), file.size, False, "it gives scores and no gradients",
        )  # fmt: skip

    def _open(self, file: OnnxFile | None = None) -> Any:
        """The session, opened for as many threads as torch may use now."""
        threads = torch.get_num_threads()
        if self.session is None or threads != self.threads:
            if file is None:
                file = read_onnx(self.path)
                if not torch.equal(file.digest, self.file_digest.cpu()):
                    raise Refused(f"{self.path} has changed since it was loaded: load it again")
            self.session, self.threads = session(file, threads), threads
        return self.session

    def forward(self, z: Tensor) -> Any:
        """The scores, or all outputs by name, of normalised pictures z (B, C, *S)."""
        given = z if self.undo is None else self.undo.undone(z)
        given = given.detach().cpu().contiguous()
        kind = {"float16": np.float16, "float64": np.float64}.get(self.kind, np.float32)
        parts = [self._run(part.numpy().astype(kind)) for part in in_portions(self.fixed, given)]
        by_name = {n: torch.cat([part[n] for part in parts])[: len(z)] for n in parts[0]}
        why = f"ONNX Runtime runs {self.path.name}, which gives scores only"
        outputs = {n: blind(z, scores.to(z.device), why) for n, scores in by_name.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _run(self, pictures: Any) -> dict[str, Tensor]:
        opened = self._open()
        values = opened.run(None, {self.input: pictures})
        found = zip(opened.get_outputs(), values, strict=True)
        return {
            o.name: _scores(v) for o, v in found if isinstance(v, np.ndarray) and v.ndim and len(v) == len(pictures)
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "session": None, "threads": 0}


def _scores(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else None))


def session(file: OnnxFile, threads: int) -> Any:
    """An inference session on the CPU.  Refused: a graph that ONNX Runtime cannot open."""
    try:
        return cpu_session(file.model, threads)
    except Exception as e:  # its own exceptions have no base class
        reason = str(e).strip().partition("\n")[0][:300]
        raise Refused(f"ONNX Runtime cannot open {file.path}: {reason}") from e


def cpu_session(model: Any, threads: int, *, spin: Spin = "never", optimised: Path | None = None) -> Any:
    """A session on the CPU for a graph (`onnx.ModelProto`).

    threads: of one pass; for 0, ONNX Runtime makes one for each core and ties it to that core, where it waits for
    whatever runs there.  optimised: file for the graph that really runs.
    spin: whether threads wait for each other busily.  "always", as ONNX Runtime has it, also after a pass: for nearly
    twice the processor time.  "briefly": 50 microseconds, and only while a pass runs.  "never": they are woken, which
    takes so long that two threads are no sooner than one through a small network.

    Products of 8 bits are added exactly.  By itself ONNX Runtime lets such sums saturate on x86 processors without
    VNNI.  A file that it cannot open otherwise is run like that, and a Notice says so.
    """
    content = model.SerializeToString()
    try:
        return _session(content, threads, spin, optimised, exact=True)
    except Exception:
        session = _session(content, threads, spin, optimised, exact=False)
    warnings.warn(
        "ONNX Runtime cannot add this file's products of 8 bits exactly on this processor, which has no VNNI: answers "
        "may differ from those of one that has it",
        Notice,
        stacklevel=2,
    )
    return session


def _session(content: bytes, threads: int, spin: Spin, optimised: Path | None, *, exact: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what is wrong is raised
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin != "never")))
    if spin == "briefly":
        options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def name() -> str:
    """The engine with its version."""
    return f"ONNX Runtime {_runtime().__version__}"


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise Refused("ONNX files need onnxruntime, which is not installed: pip install 'clearsight[export]'") from None
    return onnxruntime


def opset(model: Any) -> int:
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def precision(model: Any) -> str:
    """What the operations of a graph compute in, by its weights and its quantised operations."""
    from clearsight.engines.onnx_file import tensors

    if any(n.op_type in _QUANTISED for n in model.graph.node):
        return "int8"
    kinds = {t.data_type for t in tensors(model.graph)}
    return next((word for kind, word in _KINDS.items() if kind in kinds), "float32")


_QUANTISED = ("QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_KINDS = {10: "float16", 16: "bfloat16", 11: "float64", 1: "float32"}


def open_onnx(path: Path, size: tuple[int, ...], undo: Normalisation | None = None) -> OnnxRuntimeNet:
    """The network in an ONNX file, run by ONNX Runtime."""
    _runtime()
    return OnnxRuntimeNet(read_onnx(path), size, undo)
