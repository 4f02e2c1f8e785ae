"""Convolutions of one pixel, 1 x 1, that one thread runs by the same library as several threads do.

PyTorch (2.14.1, on a processor) hands them to a matrix product where it has one thread and fewer than 16 pictures, and
else to oneDNN.  For pictures whose channels lie last oneDNN took 0.4 to 0.5 of the product's time, forwards and back.
A convolution with gaps in its kernel always goes to oneDNN, and a kernel of one pixel has no place for a gap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearsight.core.memory_order import lies_last

GAP = 2  # a dilation, of which a kernel of one pixel sees nothing
LEAST = 2**14  # numbers of an input, from which on it pays
MANY = 16  # pictures, from which on PyTorch does so itself

Convolution = Callable[..., Tensor]


def widened(conv2d: Convolution) -> Convolution:
    """The function ``torch.nn.functional.conv2d``, with a gap in kernels of one pixel where that is the faster way."""

    def convolution(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if groups == 1 and gains(input, weight):
            dilation = GAP
        return conv2d(input, weight, bias, stride, padding, dilation, groups)

    return convolution


def with_gap(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of aten's convolution, with a gap in a kernel of one pixel where that is the faster way."""
    x, weight, transposed, groups = args[0], args[1], args[6], args[8]
    if transposed or groups != 1 or not gains(x, weight):
        return args
    return (*args[:5], [GAP] * len(args[5]), *args[6:])


def gains(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of x by weight, neither of them in groups nor transposed, is faster with a gap."""
    if torch.get_num_threads() > 1 or type(x) is not Tensor:
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # which may write the operation down
        return False
    with torch._C.DisableTorchFunction():  # as in lies_last
        usual = weight.shape[2:] == (1, 1) and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
        return usual and x.shape[0] < MANY and x.numel() >= LEAST and lies_last(x)
