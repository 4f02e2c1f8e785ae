"""Networks whose gradient is not that of their scores, or that do not repeat themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess

SIZE = (12, 16)


def wrapped(net: nn.Module, **more: Any) -> Classifier:
    return Classifier(net.eval(), Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3), ("a", "b", "c"), "net", **more)


def body(act: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    convs = [nn.Conv2d(3, 8, 3, padding=1), act(), nn.Conv2d(8, 8, 3, padding=1), act()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


class Frozen(nn.Module):
    """A backbone under no_grad beside a small branch that is trained; honest: the same without no_grad."""

    def __init__(self, honest: bool = False, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.backbone, self.branch, self.honest = body(act), body(act, seed=1), honest
        with torch.no_grad():
            self.branch[-1].weight *= 0.2

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.honest and torch.is_grad_enabled()):
            frozen = self.backbone(x)
        return frozen + self.branch(x)


class Detached(nn.Module):
    """Half of the channels go on without their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        h = self.body[:2](x)
        return self.body[2:](torch.cat([h[:, :4].detach(), h[:, 4:]], 1))


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g


class Doubled(nn.Module):
    """A backward of its own that says twice too much."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(Twice.apply(x))


class Numpied(nn.Module):
    """Part of the scores goes through NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.other = body(), body(seed=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x) + torch.from_numpy(self.body(x).detach().numpy() * 3)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        return self.body[5:](F.dropout(self.body[:5](x), 0.5))


class Together(nn.Module):
    """Normalises by the batch, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = body(), nn.BatchNorm2d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body[1:](self.norm(self.body[0](x)))
