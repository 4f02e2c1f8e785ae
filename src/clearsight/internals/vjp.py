"""The product of a vector with a Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.internals.kept_graph import held, is_kept


def vjp(out: Tensor, at: Tensor, weights: Tensor) -> Tensor:
    """The gradient, shaped like at, of the sum of out weighted by weights (shaped like out).

    Inside `keeping_graph` it is differentiable itself, in the weights too.

    Where a gradient is handed to torch.autograd.grad, it imports sympy, which takes half a second.
    """
    weights = held(weights).to(out.dtype)
    if out.is_complex():
        (g,) = torch.autograd.grad(out, at, weights)
    else:
        with torch.enable_grad():
            total = (out * weights).sum()
        (g,) = torch.autograd.grad(total, at, create_graph=is_kept())
    return g
