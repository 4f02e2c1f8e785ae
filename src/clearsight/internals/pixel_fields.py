"""What one output pixel of a network sees: its receptive field, and how much each input pixel of it counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from clearsight.errors import Refused

Outputs = Tensor | Mapping[str, Tensor]
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the input; the last ones are outside
PROBES = 4  # noise pictures, so that a unit that is silent for one of them speaks for another
TAIL = 0.0455  # two standard deviations of a normal curve hold the rest


def theoretical_field(net: Callable[[Tensor], Outputs], z: Tensor, pixel: tuple[int, int]) -> Box:
    """The box of all input pixels that an output pixel depends on, whatever the weights say of how much.

    Measured, so that it holds through upsampling, skips and transposed convolutions: the smallest box around all pixels
    of noise pictures that have a gradient to any channel of the output pixel, cut off at the edge of the picture.

    Args:
        net: (B, C, H, W) -> (B, K, h, w), or a dict with that as "out"; in evaluation mode.
        z: inputs (B, C, H, W), of which only size, type and device count.
        pixel: row and column in the output.

    Refused: outputs without places, a pixel outside, and one that depends on no input pixel.

    Source: Araujo, Norris & Sim 2019, doi:10.23915/distill.00021, for the arithmetic that it agrees with.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Conv2d(1, 1, 3, stride=2))
    >>> theoretical_field(net, torch.zeros(1, 1, 20, 20), (3, 4))  # 1 + 2 + 2 pixels from 2 * 4 - 1 and 2 * 3 - 1 on
    (7, 5, 12, 10)
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(PROBES, *z.shape[1:], generator=generator).to(z).requires_grad_()
    with torch.enable_grad():
        scores = _outputs_at(net, noise, pixel)
        weights = torch.rand(scores.shape[1], generator=generator) + 0.5  # so that no two channels cancel each other
        (g,) = torch.autograd.grad((scores * weights.to(scores)).sum(), noise)
    seen = (g != 0).any(0).any(0)
    rows, columns = seen.any(1).nonzero()[:, 0].tolist(), seen.any(0).nonzero()[:, 0].tolist()
    if not rows:
        raise Refused(f"the output at row {pixel[0]}, column {pixel[1]} depends on no pixel of the input")
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def effective_field(
    net: Callable[[Tensor], Outputs], z: Tensor, pixel: tuple[int, int], channel: int | None = None
) -> Tensor:
    """How much each input pixel counts for an output pixel: the mean over pictures of the absolute gradient, (H, W).

    In units of the output per unit of the input, summed over the input's channels.

    Args:
        net: (B, C, H, W) -> (B, K, h, w), or a dict with that as "out"; in evaluation mode.
        z: inputs (B, C, H, W), as the network takes them.
        pixel: row and column in the output.
        channel: the output's channel, such as the class that was said there by mistake; None for the sum of all.

    Refused: outputs without places, and a pixel or channel outside.

    Source: Luo, Li, Urtasun & Zemel 2016, arXiv:1701.04128, section 2.

    >>> net = torch.nn.Conv2d(1, 1, 3, padding=1)
    >>> net.weight.data = torch.tensor([[[[0.0, 1.0, 0.0], [2.0, -4.0, 2.0], [0.0, 1.0, 0.0]]]])
    >>> effective_field(net, torch.rand(2, 1, 3, 3), (1, 1)).tolist()
    [[0.0, 1.0, 0.0], [2.0, 4.0, 2.0], [0.0, 1.0, 0.0]]
    """
    inputs = z.detach().clone().requires_grad_()
    with torch.enable_grad():
        scores = _outputs_at(net, inputs, pixel)
        if channel is not None and not 0 <= channel < scores.shape[1]:
            raise Refused(f"channel {channel}: the output has channels 0 to {scores.shape[1] - 1}")
        chosen = scores if channel is None else scores[:, channel]
        (g,) = torch.autograd.grad(chosen.sum(), inputs)
    return g.abs().sum(1).mean(0)


def effective_side(field: Tensor) -> float:
    """The side of the square that is as large as the part of a field (H, W) above 4.55 % of its highest value.

    Of a normal curve that is within 2.5 standard deviations.  0 for a field without anything.

    Source: Luo, Li, Urtasun & Zemel 2016, section 3.

    >>> effective_side(torch.tensor([[0.0, 0.04, 1.0], [0.5, 0.5, 0.5]]))
    2.0
    """
    return math.sqrt(int(((field > TAIL * field.max()) & (field > 0)).sum()))


def _outputs_at(net: Callable[[Tensor], Outputs], z: Tensor, pixel: tuple[int, int]) -> Tensor:
    """The outputs (B, K) at a pixel."""
    outputs = net(z)
    places = outputs["out"] if isinstance(outputs, Mapping) else outputs
    if places.dim() != 4 or len(places) != len(z):
        raise Refused(f"the network gives {tuple(places.shape)}: receptive fields need outputs (B, K, h, w)")
    height, width = places.shape[2:]
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise Refused(f"row {pixel[0]}, column {pixel[1]}: the output has {height} rows and {width} columns")
    return places[:, :, pixel[0], pixel[1]]
