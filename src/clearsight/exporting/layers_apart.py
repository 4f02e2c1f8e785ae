"""Which layer of an exported graph is the first that computes something else than the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from clearsight.exporting.whole_file import onnx_session

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class LayerGap:
    """One tensor of the graph beside the network's: its layer, its operation, how far it is off.

    error: the norm of the difference as a share of the norm of the network's tensor.
    """

    tensor: str
    layer: str
    operation: str
    error: float


@dataclass(frozen=True)
class LayerGaps:
    """Every tensor that both have, in the order of the graph, and how they were matched."""

    gaps: tuple[LayerGap, ...]
    matched: int
    of: int

    @property
    def how(self) -> str:
        return (
            f"{self.matched} of the {self.of} tensors of numbers in the graph carry the name of the network's own "
            "operation, which torch's exporter gives them, or are its outputs; each is asked of the engine."
        )

    def first(self, more_than: float) -> LayerGap | None:
        """The first that is off by more than a share; None where none is."""
        return next((gap for gap in self.gaps if gap.error > more_than), None)

    def steps(self) -> list[tuple[LayerGap, float]]:
        """Each gap with how much larger it is than the largest before it: where the error comes in."""
        largest, found = 0.0, []
        for gap in self.gaps:
            found.append((gap, gap.error - largest))
            largest = max(largest, gap.error)
        return found


def layer_gaps(graph: onnx.ModelProto, program: torch.export.ExportedProgram, pixels: Tensor) -> LayerGaps:
    """Hold every tensor of a network's graph (from `pixels`) against the program that it was written from.

    program: the one whose operations gave the tensors their names (see `onnx_file.network_graph`).
    """
    import onnx

    wanted = _values(program, pixels, [output.name for output in graph.graph.output])
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    made = {name: node for node in model.graph.node for name in node.output}
    given = {output.name for output in model.graph.output}
    shared = [name for name in made if name in wanted]
    for name in shared:
        if name not in given:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    _typed_as_they_are(model, shared, given)
    session = onnx_session(model)
    values = session.run(shared, {"pixels": pixels.numpy()})
    gaps = [
        LayerGap(name, layer_of(made[name]), made[name].op_type, _error(torch.from_numpy(value).float(), wanted[name]))
        for name, value in zip(shared, values, strict=True)
    ]
    floats = [name for name, node in made.items() if node.op_type not in ("Shape", "Constant", "ArgMax")]
    return LayerGaps(tuple(gaps), len(shared), len(floats))


def _typed_as_they_are(model: onnx.ModelProto, shared: list[str], given: set[str]) -> None:
    """Say of the further outputs what type they have, where it is known: of float16 graphs not all are float."""
    known = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    for output in model.graph.output:
        if output.name in shared and output.name not in given and known.get(output.name):
            output.type.tensor_type.elem_type = known[output.name]


class _Recording(fx.Interpreter):
    """Runs a program and keeps what its operations give, by name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point():
            self.values[n.name] = value.detach().float()
        return value


def _values(program: torch.export.ExportedProgram, pixels: Tensor, outputs: Sequence[str]) -> Mapping[str, Tensor]:
    """What each operation of the program gives, by its name; of its outputs by theirs."""
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    recording = _Recording(module)
    with torch.no_grad():
        found = recording.run(pixels)
    return recording.values | {name: value.float() for name, value in zip(outputs, found, strict=True)}


def layer_of(node: onnx.NodeProto) -> str:
    """The module that an operation belongs to, as the network names it; "" where the exporter did not note one."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    names = [name.strip("[] '\"") for name in scopes.split(",")]
    inner = [name.removeprefix("net.") for name in names[:-1] if name.startswith("net.")]
    return inner[-1] if inner else ""


def _error(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
