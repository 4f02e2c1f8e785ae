"""A network that runs the operations of an ONNX graph one after another, by torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.engines.converted.node import Unknown
from clearsight.engines.facts import EngineFacts
from clearsight.engines.normalisation import Normalisation


@dataclass(frozen=True)
class Step:
    """One operation.

    inputs, outputs: names of tensors, "" for one that is left out; layer: the name of the torch layer that does it, or
    ""; operation: the function that does it, with its attributes, where there is no layer; before: what is done to a
    layer's input first; node: the operation in ONNX's own words, for what it does with numbers that are no pictures;
    last: tensors that nothing needs afterwards.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str
    operation: Callable[..., Any] | None
    attributes: Mapping[str, Any]
    before: Callable[[Tensor], Tensor] | None
    node: bytes
    opset: int
    last: tuple[str, ...] = field(default=())


class ConvertedGraph(nn.Module):
    """An ONNX graph as a torch network: normalised pictures (B, C, *S) in, scores out; several outputs as a dict.

    Args:
        steps: the operations in their order.
        input: the name of the pictures.
        outputs: the names of what is given back.
        numbers: whole numbers by name, such as shapes and axes, and what little else they may be reckoned with.
        tensors: the names of other constants, each with that of the parameter or buffer that holds it.
        undo: what the file does by itself, and the Classifier has done already.
    """

    engine_facts: EngineFacts
    opened_from: tuple[Path, Tensor]  # the file, and the digest of its bytes

    def __init__(
        self,
        steps: tuple[Step, ...],
        input: str,
        outputs: tuple[str, ...],
        numbers: Mapping[str, Any],
        tensors: Mapping[str, str],
        undo: Normalisation | None = None,
    ) -> None:
        super().__init__()  # what follows has a _ before it: layers have the names that the network gave them
        self._steps, self._input, self._outputs = steps, input, outputs
        self._numbers, self._tensors, self._undo = dict(numbers), dict(tensors), undo

    def forward(self, z: Tensor) -> Any:
        """The scores, or all outputs by name, of normalised pictures z (B, C, *S); differentiable in z."""
        known: dict[str, Any] = {"": None, self._input: z if self._undo is None else self._undo.undone(z)}
        for step in self._steps:
            results = self._run(step, known)
            known.update(zip(step.outputs, results, strict=False))
            for name in step.last:
                del known[name]
        found = {name: self._value(known, name) for name in self._outputs}
        return next(iter(found.values())) if len(found) == 1 else found

    def _value(self, known: Mapping[str, Any], name: str) -> Any:
        if name in known:
            return known[name]
        place = self._tensors.get(name)
        return self._numbers[name] if place is None else functools.reduce(getattr, place.split("."), self)

    def _run(self, step: Step, known: Mapping[str, Any]) -> tuple[Any, ...]:
        moving = [known[name] for name in step.inputs if name and name in known]
        of_numbers = all(name in known or name in self._numbers for name in step.inputs)
        if moving and of_numbers and all(isinstance(v, np.ndarray) for v in moving):  # arithmetic of shapes
            given = [known[n] if n in known else self._numbers[n] for n in step.inputs]
            return tuple(by_reference(step.node, step.opset, given))
        if step.layer:
            (x,) = moving
            return (self.get_submodule(step.layer)(x if step.before is None else step.before(x)),)
        if step.operation is None:
            raise Unknown(
                f"{step.outputs[0]} is worked out from what the picture shows, by an operation without gradient"
            )
        values = [self._value(known, name) for name in step.inputs]
        device = next((v.device for v in values if isinstance(v, Tensor)), torch.device("cpu"))
        result = step.operation(*(_as_tensor(v, device) for v in values), **step.attributes)
        return result if isinstance(result, tuple) else (result,)


def _as_tensor(value: Any, device: torch.device) -> Any:
    """An array of other than whole numbers as a tensor; anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fb":
        return torch.from_numpy(np.array(value)).to(device)
    return value


def by_reference(node: bytes, opset: int, given: list[Any]) -> list[Any]:
    """What ONNX's own reference gives for an operation on arrays."""
    names, run = _reference(node, opset)
    return [np.asarray(v) for v in run(None, {n: v for n, v in zip(names, given, strict=True) if n})]


@functools.lru_cache(maxsize=4096)
def _reference(node: bytes, opset: int) -> tuple[list[str], Callable[..., Any]]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    read = onnx.NodeProto.FromString(node)
    unknown = onnx.TypeProto()
    inputs = [onnx.helper.make_value_info(n, unknown) for n in dict.fromkeys(read.input) if n]
    outputs = [onnx.helper.make_value_info(n, unknown) for n in read.output if n]
    graph = onnx.helper.make_graph([read], "node", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    run: Callable[..., Any] = ReferenceEvaluator(model).run
    return list(read.input), run
