"""Run a program of torch.export (.pt2): from normalised pictures to scores, with torch's own gradients."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.engines.facts import EngineFacts, read_bytes
from clearsight.engines.manifest import FILE, Manifest, from_json
from clearsight.engines.normalisation import Normalisation, in_portions
from clearsight.engines.onnx_file import Port, picture_input
from clearsight.engines.program_scan import unsafe
from clearsight.errors import Refused

INNER = ".pixels.pt2"  # beside model.pt2 of ours: model.pixels.pt2, from pixels to logits
DAMAGED = "it is no program of torch.export, or is damaged: export it again, or copy it whole"


class ExportedProgramNet(nn.Module):
    """A program of torch.export as a network: normalised pictures (B, C, *S) in, scores out, differentiable.

    Args:
        path: its file.
        program: torch.export.ExportedProgram.
        size: (C, *S) of what it is given.
        undo: what the program does by itself, and the Classifier has done already.
        bytes: size of the file.
        trust: whether the file may hold what runs code, for other processes that open it.
    """

    def __init__(
        self, path: Path, program: Any, size: tuple[int, ...], undo: Normalisation | None, bytes: int, trust: bool
    ) -> None:
        super().__init__()
        self.path, self.size, self.undo, self.bytes, self.trust = path, size, undo, bytes, trust
        port = picture_input(inputs_of(program), size, path)
        self.fixed = port.shape[0]
        self.program = program.module()
        nodes = [n for n in program.graph.nodes if n.op == "call_function"]
        kinds = {str(p.dtype).removeprefix("torch.") for p in self.program.parameters()}
        self.engine_facts = EngineFacts(
            path.name, f"torch.export, torch {torch.__version__}", (str(port),), tuple(_outputs(program)),
            " and ".join(sorted(kinds)) or "float32", len(nodes), 0, bytes, False, "torch gives its gradients",
        )  # fmt: skip

    def forward(self, z: Tensor) -> Any:
        """What the program returns for normalised pictures z (B, C, *S)."""
        x = z if self.undo is None else self.undo.undone(z)
        if self.fixed is None or self.fixed == len(x):
            return self.program(x)
        return torch.cat([self.program(part) for part in in_portions(self.fixed, x)])[: len(z)]

    def train(self, mode: bool = True) -> ExportedProgramNet:
        """What was exported stays in the mode that it was exported in."""
        self.training = mode
        return self

    def __reduce__(self) -> Any:
        return _reopened, (
            self.path,
            self.size,
            self.undo,
            self.trust,
            {k: v.cpu() for k, v in self.state_dict().items()},
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedProgramNet:
        twin = type(self).__new__(type(self))
        nn.Module.__init__(twin)
        memo[id(self)] = twin
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 warns of itself when a graph is copied
            for name, value in vars(self).items():
                setattr(twin, name, copy.deepcopy(value, memo))
        return twin


def _reopened(
    path: Path, size: tuple[int, ...], undo: Normalisation | None, trust: bool, state: dict[str, Tensor]
) -> ExportedProgramNet:
    """The network in another process: its file again, with the weights that it had."""
    program, data = read_program(path, trust)
    net = ExportedProgramNet(path, program, size, undo, len(data), trust)
    net.load_state_dict(state)
    return net


def read_program(path: Path, trust: bool) -> tuple[Any, bytes]:
    """The program in a file, and the file's bytes.

    Refused: a damaged file, and without trust one whose loading could run code of a stranger (see program_scan.py).
    """
    data = read_bytes(path)
    try:
        why = "" if trust else unsafe(data)
    except Exception as e:  # whatever a broken archive raises
        raise Refused(f"{path} cannot be read", DAMAGED) from e
    if why:
        raise Refused(
            f"{path}: {why}, and loading or running it could run code of a stranger",
            "if you trust the file, give trust=True (--trust)",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(data)), data
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise Refused(f"{path} cannot be loaded by torch {torch.__version__} ({reason})", DAMAGED) from e


def manifest_of(path: Path) -> Manifest | None:
    """The manifest in a .pt2; None in a foreign one."""
    data = read_bytes(path)
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(data))
        names = [record for record in reader.get_all_records() if record == f"extra/{FILE}"]
        text = reader.get_record(names[0]) if names else None
    except RuntimeError as e:
        raise Refused(f"{path} cannot be read", DAMAGED) from e
    return None if text is None else from_json(text, path)


def inputs_of(program: Any) -> tuple[Port, ...]:
    """The program's inputs of pictures and the like."""
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    return tuple(_port(name, values[name]) for name in program.graph_signature.user_inputs)


def _port(name: str, value: Any) -> Port:
    shape = tuple(n if isinstance(n, int) else None for n in getattr(value, "shape", ()))
    return Port(name, str(getattr(value, "dtype", "no tensor")).removeprefix("torch."), shape)


def _outputs(program: Any) -> list[str]:
    values = {n.name: n.meta.get("val") for n in program.graph.nodes}
    return [str(_port(str(name), values.get(name))) for name in program.graph_signature.user_outputs]
