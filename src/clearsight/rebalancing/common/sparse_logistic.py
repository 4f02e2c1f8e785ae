"""Multinomial logistic regression with an L1 penalty, by accelerated proximal gradients."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 3000  # steps
NEAR = 1e-5  # how far the gradient may be from that of the solution, as a share of the penalty


def sparse_logistic(
    x: Tensor, y: Tensor, penalty: float, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The w (K, D) and b (K,) with the least mean cross entropy plus penalty times the sum of absolute values of w.

    x (N, D) float64, y (N, K) shares of the classes.  FISTA (Beck & Teboulle 2009, doi:10.1137/080716542), begun again
    where a step goes back on the one before (O'Donoghue & Candes 2015, arXiv:1204.3982).  The problem is convex.

    start: where the search begins, the solution for another penalty.

    >>> x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.eye(2).double()
    >>> w, b = sparse_logistic(x, y, 0.25)
    >>> (2 * w[0, 0]).sigmoid()  # weights grow until the slope, 1 - p, is that of the penalty
    tensor(0.7500, dtype=torch.float64)
    """
    n, d = x.shape
    w = x.new_zeros(y.shape[1], d + 1) if start is None else torch.cat([start[0], start[1][:, None]], 1)
    z = torch.cat([x, x.new_ones(n, 1)], 1)
    step = 2 * n / float(torch.linalg.matrix_norm(z, 2)) ** 2  # the softmax has a slope of at most 1 / 2
    ahead, momentum = w, 1.0
    for _ in range(MOST):
        slope = ((z @ ahead.T).softmax(1) - y).T @ z / n
        new = ahead - step * slope
        new[:, :d] = new[:, :d].sign() * (new[:, :d].abs() - step * penalty).clamp_min(0)
        if float((new - ahead).abs().max()) <= NEAR * penalty * step:
            w = new
            break
        if float(((ahead - new) * (new - w)).sum()) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - w)
        w, momentum = new, following
    return w[:, :d], w[:, d]
