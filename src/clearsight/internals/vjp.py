"""The product of a vector with a Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor


def vjp(out: Tensor, at: Tensor, weights: Tensor) -> Tensor:
    """The gradient, shaped like at, of the sum of out weighted by weights (shaped like out).

    Where a gradient is handed to torch.autograd.grad, it imports sympy, which takes half a second.
    """
    weights = weights.detach().to(out.dtype)
    if out.is_complex():
        (g,) = torch.autograd.grad(out, at, weights)
    else:
        with torch.enable_grad():
            total = (out * weights).sum()
        (g,) = torch.autograd.grad(total, at)
    return g
