"""Whether a network can be taken apart into its operations, and which methods that rules out."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.model import Model
from clearsight.errors import Refused
from clearsight.internals.graph import word
from clearsight.internals.recording import graph_of

SMOOTH = frozenset(
    {
        "leaky_relu", "_prelu_kernel", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "softplus", "tanh",
    }
)  # fmt: skip


def notes(model: Model, x: Tensor) -> list[str]:
    """Why methods that go through the network operation by operation are refused for it; x (B, C, *S)."""
    try:
        graph = graph_of(model, x[:1])
    except Refused as e:
        return [f"{e}; relevance propagation, DeepLIFT and guided gradients are refused"]
    smooth = sorted({word(n).strip("_") for n in graph.nodes if n in graph.moving and word(n) in SMOOTH})
    if not smooth:
        return []
    return [
        f"its activations are {', '.join(smooth)}: guided-backprop, deconvnet and guided-grad-cam, which are defined "
        "for ReLU, are refused"
    ]
