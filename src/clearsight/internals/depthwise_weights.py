"""Gradients of the weights of depthwise convolutions whose filters are wide, three columns of them at a time.

The library that torch calls on a processor has a way of its own for depthwise filters of up to three columns.  Wider
ones it takes as dense blocks of 16 channels by 16, of which it keeps the diagonal.  Those of
EfficientNet-Lite0, 5 by 5, take it 1.6 to 4.5 times as long as the parts here together (oneDNN 3.12, torch 2.14).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDEST = 3  # columns of a filter, up to which the library's own way serves
_aten = torch.ops.aten


def is_wide_depthwise(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Whether the weights (K, 1, a, b) of a convolution of x (B, K, H, W) are better taken in parts."""
    usual = x.dim() == 4 and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    return usual and groups == x.shape[1] == weight.shape[0] and weight.shape[3] > WIDEST


def depthwise_weights(g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """The gradient at the weights (K, 1, a, b) of a depthwise convolution of x (B, K, H, W), from g (B, K, h, w).

    Some columns of a filter see some columns of x, which are cut out of it.

    >>> x, g = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), torch.tensor([[[[1.0]]]])
    >>> depthwise_weights(g, x, torch.zeros(1, 1, 1, 4), (1, 1), (0, 0), (1, 1))
    tensor([[[[1., 2., 3., 4.]]]])
    """
    k, _, rows, columns = weight.shape
    around = (padding[1], padding[1], padding[0], padding[0])
    wide = _aten.constant_pad_nd.default(x, around) if any(around) else x
    parts = []
    for first in range(0, columns, WIDEST):
        some = min(WIDEST, columns - first)
        seen = wide.narrow(3, first * dilation[1], (g.shape[3] - 1) * stride[1] + (some - 1) * dilation[1] + 1)
        like, wanted = weight.new_empty(k, 1, rows, some), (False, True, False)
        geometry = (stride, (0, 0), dilation, False, (0, 0), k)
        parts.append(_aten.convolution_backward.default(g, seen, like, None, *geometry, wanted)[1])
    return torch.cat(parts, 3)
