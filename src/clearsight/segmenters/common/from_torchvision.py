"""torchvision's segmenters as ours: the logits before they are enlarged to the picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

AUXILIARY = "aux_classifier."


class BeforeUpsampling(nn.Module):
    """The backbone and the head of one of torchvision's segmenters, by its own names of parameters.

    Weights of torchvision that hold an auxiliary head as well are taken; that head, which only training reads, is left
    out.
    """

    def __init__(self, net: Any, reads: str | None) -> None:
        """net: torchvision's.  reads: the maps of the backbone that its head takes; None where it takes them all."""
        super().__init__()
        self.backbone: nn.Module = net.backbone
        self.classifier: nn.Module = net.classifier
        self._reads = reads
        self.register_load_state_dict_pre_hook(_without_auxiliary)  # type: ignore[no-untyped-call]

    def forward(self, z: Tensor) -> Tensor:
        maps = self.backbone(z)
        logits: Tensor = self.classifier(maps if self._reads is None else maps[self._reads])
        return logits


def _without_auxiliary(_net: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in [n for n in state if n.startswith(prefix + AUXILIARY)]:
        del state[name]
