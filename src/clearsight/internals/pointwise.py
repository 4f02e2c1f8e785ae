"""Which recorded operations work number by number.

PyTorch tags most of them.  Those that it leaves out are named here: hardswish has no tag in any release until 2.14, and
leaky_relu and what celu, elu, hardsigmoid, hardtanh, leaky_relu and selu do in place have none in 2.11.
"""

from __future__ import annotations

from typing import Any

import torch

_UNTAGGED = frozenset(
    {"hardswish", "_prelu_kernel", "logit", "leaky_relu"}
    | {"celu_", "elu_", "hardsigmoid_", "hardswish_", "hardtanh_", "leaky_relu_", "selu_"}
)


def is_pointwise(operation: Any) -> bool:
    """Whether each number of what an operation gives depends on the numbers at its own place alone.

    operation: what a recorded node calls, such as torch.ops.aten.relu.default.

    >>> [is_pointwise(op) for op in (torch.ops.aten.leaky_relu.default, torch.ops.aten.hardtanh_.default)]
    [True, True]
    >>> is_pointwise(torch.ops.aten.mm.default)
    False
    """
    packet = getattr(operation, "overloadpacket", None)
    name = None if packet is None else packet.__name__
    return torch.Tag.pointwise in getattr(operation, "tags", ()) or name in _UNTAGGED
