"""Average pooling with a divisor of its own, which exporters to ONNX leave out without a word."""

from __future__ import annotations

import torch

from clearsight.errors import Refused

_POOLS = {torch.ops.aten.avg_pool2d.default: 2, torch.ops.aten.avg_pool3d.default: 3}
_KERNEL, _CEIL, _COUNT_PADDING, _DIVISOR = 1, 4, 5, 6  # positions of the arguments of both


def without_divisors(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, in which pooling that divides by a number of its own divides by its window, and is scaled after.

    torch.onnx writes divisor_override as if it were not there (seen with 2.14), so that the file answers otherwise.

    Refused: such pooling with ceil_mode, whose windows at the edge are smaller.
    """
    graph = program.graph_module.graph
    for node in [n for n in graph.nodes if n.target in _POOLS and len(n.args) > _DIVISOR and n.args[_DIVISOR]]:
        if node.args[_CEIL]:
            raise Refused("average pooling with divisor_override and ceil_mode cannot be exported", "leave one out")
        kernel = list(node.args[_KERNEL])
        kernel = kernel * _POOLS[node.target] if len(kernel) == 1 else kernel
        scale = float(torch.tensor(kernel).prod()) / node.args[_DIVISOR]
        node.args = (*node.args[:_COUNT_PADDING], True)
        with graph.inserting_after(node):
            scaled = graph.call_function(torch.ops.aten.mul.Tensor, (node, scale))
        scaled.meta = dict(node.meta)
        node.replace_all_uses_with(scaled, delete_user_cb=lambda user, scaled=scaled: user is not scaled)
    program.graph_module.recompile()
    return program
