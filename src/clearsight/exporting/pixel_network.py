"""What every exported network begins with: pixels are normalised, and the part of the output that counts is picked."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.core.outputs import pick


class PixelNetwork(nn.Module):
    """A model's network with its normalisation inside.

    outputs: the names of what `forward` gives, the first of which is what the model itself gives for the pixels.
    """

    mean: Tensor
    std: Tensor
    outputs: tuple[str, ...] = ()

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.net, self.output = model.net, model.output
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.preprocess, name), device=model.device)
            self.register_buffer(name, values.view(-1, 1, 1))
        self.plain = not any(model.preprocess.mean) and set(model.preprocess.std) == {1.0}
        self.number_type = model.dtype

    def raw(self, pixels: Tensor) -> Tensor:
        """What the network returns for pixels (N, C, h, w) in [0, 1], in float32."""
        z = pixels if self.plain else (pixels - self.mean) / self.std
        return pick(self.net(z.to(self.number_type)), self.output).float()

    def watched(self) -> AbstractContextManager[None]:
        """Inside, what the outputs need beside the network's own is noted as it runs."""
        return contextlib.nullcontext()
