"""Nodes of an ONNX graph, written one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


class Steps:
    """Nodes in their order, each with outputs that are named after what they hold.

    part: what stands before these names, with a dot.  outputs: those of the graph, whose names stay as they are.
    """

    def __init__(self, part: str, outputs: tuple[str, ...]) -> None:
        self.part, self.outputs = part, outputs
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Any, dtype: str = "int64") -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(values, dtype), f"{self.part}.{name}"))
        return f"{self.part}.{name}"

    def run(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output; name: of that output."""
        return self._add(kind, inputs, [name], attributes)[0]

    def run_two(self, kind: str, inputs: list[str], first: str, second: str, **attributes: Any) -> list[str]:
        """Add a node with two outputs of these names."""
        return self._add(kind, inputs, [first, second], attributes)

    def _add(self, kind: str, inputs: list[str], names: list[str], attributes: dict[str, Any]) -> list[str]:
        from onnx import helper

        outs = [name if name in self.outputs else f"{self.part}.{name}" for name in names]
        self.nodes.append(helper.make_node(kind, inputs, outs, f"{outs[0]}.{kind}", **attributes))
        return outs
