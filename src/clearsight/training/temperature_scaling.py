"""Temperature scaling, which calibrates a classifier (Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

LEAST, MOST = 0.05, 20.0


@dataclass(frozen=True)
class Scaled:
    """The result of temperature scaling: T, the loss on val before and after, and whether the network was divided."""

    temperature: float
    before: float
    after: float
    n: int
    done: bool

    def words(self, thing: str = "picture") -> str:
        """The result as a sentence."""
        if self.temperature == 1 and not self.done:
            return "Not calibrated: the last layer was fitted to val, which cannot say how sure the model may be."
        change = f"temperature {self.temperature:.2f}, which changes the loss on {self.n} {thing}s of val from "
        change += f"{self.before:.3f} to {self.after:.3f} nats"
        if self.done:
            return f"Calibrated by {change}: the head's weights are divided by it."
        return f"Not calibrated ({change}): the network does not end in one linear layer whose weights it could divide."


def temperature(logits: Tensor, y: Tensor) -> float:
    """The T, from 0.05 to 20, for which softmax(logits / T) gives y the highest likelihood.

    logits (N, K); y (N, K) the shares of the classes.  The likelihood has one maximum in 1 / T.

    Where two logits differ by 2 and three of four pictures are of the first class, log(3) = 2 / T:

    >>> shares = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    >>> round(temperature(torch.tensor([[2.0, 0.0]] * 4), shares), 3)
    1.82
    """
    optimum = minimize_scalar(
        lambda log_t: nll(logits / math.exp(log_t), y),
        bounds=(math.log(LEAST), math.log(MOST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(optimum.x))


def nll(logits: Tensor, y: Tensor) -> float:
    """The mean negative log-likelihood in nats of shares y (N, K) under softmax of logits (N, K)."""
    return float(-(y.double() * logits.double().log_softmax(1)).sum(1).mean())


def divide(net: nn.Module, head: frozenset[str], x: Tensor, t: float) -> bool:
    """Divide the head's weights by t, so that the network itself gives logits / t; False where it would not.

    x (B, C, *S), normalised, is run before and after.  Only a network whose head is one linear layer, or one
    convolution, at its very end can be divided; any other is left as it was.
    """
    head_parameters = {n: p for n, p in net.named_parameters() if n in head}
    if len({n.rpartition(".")[0] for n in head_parameters}) != 1:
        return False
    original = {n: p.detach().clone() for n, p in head_parameters.items()}
    with torch.no_grad():
        before = net(x)
        for p in head_parameters.values():
            p.div_(t)
        after = net(x)
        if isinstance(after, Tensor) and torch.allclose(after * t, before, rtol=1e-3, atol=1e-3):
            return True
        for n, p in head_parameters.items():
            p.copy_(original[n])
    return False
