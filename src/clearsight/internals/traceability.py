"""Whether a network can be taken apart into its operations, and which methods that rules out."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.errors import Refused
from clearsight.internals.graph import graph_of, word

SMOOTH = frozenset(
    {
        "leaky_relu", "_prelu_kernel", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "softplus", "tanh",
    }
)  # fmt: skip


def notes(model: Classifier, x: Tensor) -> list[str]:
    """What keeps the methods that go through the network operation by operation from this one; x (B, C, *S)."""
    try:
        graph = graph_of(model, x[:1])
    except Refused as e:
        return [f"{e}; those of relevance propagation, DeepLIFT and guided gradients are refused"]
    found = sorted({word(n).strip("_") for n in graph.nodes if n in graph.moving and word(n) in SMOOTH})
    if not found:
        return []
    return [
        f"its activations are {', '.join(found)}: guided-backprop, deconvnet and guided-grad-cam, which are defined "
        "for ReLU, are refused"
    ]
