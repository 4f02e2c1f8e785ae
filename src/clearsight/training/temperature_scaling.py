"""One number that makes a classifier as sure as it is right (Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

LEAST, MOST = 0.05, 20.0


@dataclass(frozen=True)
class Scaled:
    """What temperature scaling came to: T, the loss on val before and after, and whether the network was divided."""

    temperature: float
    before: float
    after: float
    n: int
    done: bool

    def words(self) -> str:
        """The same as a sentence."""
        told = f"temperature {self.temperature:.2f}, which takes the loss on {self.n} pictures of val from "
        told += f"{self.before:.3f} to {self.after:.3f} nats"
        if self.done:
            return f"Calibrated by {told}: the head's weights are divided by it."
        return f"Not calibrated ({told}): the network does not end in one linear layer whose weights it could divide."


def temperature(logits: Tensor, y: Tensor) -> float:
    """The T, from 0.05 to 20, for which softmax(logits / T) gives y the highest likelihood.

    logits (N, K); y (N, K) the shares of the classes.  The likelihood has one maximum in 1 / T.

    Where two logits differ by 2 and three of four pictures are of the first class, log(3) = 2 / T:

    >>> shares = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    >>> round(temperature(torch.tensor([[2.0, 0.0]] * 4), shares), 3)
    1.82
    """
    found = minimize_scalar(
        lambda log_t: nll(logits / math.exp(log_t), y),
        bounds=(math.log(LEAST), math.log(MOST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(found.x))


def nll(logits: Tensor, y: Tensor) -> float:
    """The mean negative log-likelihood in nats of shares y (N, K) under softmax of logits (N, K)."""
    return float(-(y.double() * logits.double().log_softmax(1)).sum(1).mean())


def divide(net: nn.Module, head: frozenset[str], x: Tensor, t: float) -> bool:
    """Divide the head's weights by t, so that the network itself gives logits / t; False where that does not hold.

    x (B, C, *S), normalised, is run before and after.  Only a network whose head is one linear layer, or one
    convolution, at its very end can be divided; any other is left as it was.
    """
    own = {n: p for n, p in net.named_parameters() if n in head}
    if len({n.rpartition(".")[0] for n in own}) != 1:
        return False
    kept = {n: p.detach().clone() for n, p in own.items()}
    with torch.no_grad():
        before = net(x)
        for p in own.values():
            p.div_(t)
        after = net(x)
        if isinstance(after, Tensor) and torch.allclose(after * t, before, rtol=1e-3, atol=1e-3):
            return True
        for n, p in own.items():
            p.copy_(kept[n])
    return False
