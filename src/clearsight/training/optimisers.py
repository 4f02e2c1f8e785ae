"""Optimisers and learning-rate schedules: those of timm, under their usual names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from clearsight.core.copying import copied
from clearsight.errors import Refused, nearest

_OURS = {"sgd": "momentum", "momentum": "momentum", "nesterov": "nesterov"}  # timm's own "sgd" is Nesterov's
_FALL, _WAIT = 0.3, 3  # "plateau" falls to this share behind so many epochs without a lower validation loss
_STEPS, _STEP = 3, 0.1  # "step" falls to a tenth at each third of the steps
_DECAY = 0.95  # "exponential", an epoch


def optimiser(name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> Optimizer:
    """An optimiser over parameter groups that have their own lr and weight_decay.

    sgd is without momentum, momentum is heavy-ball SGD, nesterov is Nesterov's; all other names are timm's.
    """
    from timm.optim import create_optimizer_v2, list_optimizers

    timm_names = [str(n) for n in list_optimizers()]
    if name not in timm_names and name not in _OURS:
        raise Refused(f"optimiser {name!r}: {nearest(name, [*_OURS, *timm_names])}")
    if name == "nesterov" and momentum == 0:
        raise Refused("optimiser nesterov needs a momentum above 0: give momentum, such as 0.9")
    try:
        result: Optimizer = create_optimizer_v2(
            groups, opt=_OURS.get(name, name), lr=lr, momentum=0.0 if name == "sgd" else momentum
        )
    except Exception as e:  # some need packages of their own
        raise Refused(f"optimiser {name} cannot be built here: {type(e).__name__}: {e}") from e
    return result


@dataclass(frozen=True)
class Pace:
    """A learning-rate schedule: call step(n) before step n (counted from 0) and epoch(val_loss) after each epoch.

    plateau: the schedule whose state must be saved with the optimiser; None where the rate follows from n alone.
    """

    step: Callable[[int], None]
    epoch: Callable[[float], None]
    plateau: ReduceLROnPlateau | None = None


def pace(name: str, opt: Optimizer, *, steps: int, per_epoch: int, warmup: float) -> Pace:
    """The schedule of an optimiser's learning rates over so many steps.

    After a linear rise over the share ``warmup`` of the steps: cosine falls to 0; one-cycle rises over a quarter
    from a 25th (the schedule of Smith & Topin 2018, arXiv:1708.07120, momentum left as it is) and falls to 0;
    step falls to a tenth at each third; exponential by 5 % an epoch; plateau to 0.3 whenever the validation loss has
    not fallen for more than three epochs; constant stays.
    """
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    def ignore(loss: float) -> None:
        pass

    rise = round(warmup * steps)
    early: dict[str, Any] = {"t_in_epochs": False, "warmup_t": rise, "warmup_lr_init": 0.0}
    if name in ("cosine", "one-cycle"):
        if name == "one-cycle":
            early |= {"warmup_t": max(1, steps // 4), "warmup_lr_init": max(g["lr"] for g in opt.param_groups) / 25}
        early |= {"warmup_prefix": True}
        scheduler: Any = CosineLRScheduler(opt, t_initial=max(1, steps - early["warmup_t"]), **early)
        return Pace(lambda n: scheduler.step_update(n + 0.5), ignore)  # halves: neither end is without a rate
    if name in ("step", "exponential"):
        decay_every, rate = (max(1, math.ceil(steps / _STEPS)), _STEP) if name == "step" else (per_epoch, _DECAY)
        scheduler = StepLRScheduler(opt, decay_t=decay_every, decay_rate=rate, **early)
        return Pace(lambda n: scheduler.step_update(n + 0.5), ignore)
    start_rates = [g["lr"] for g in opt.param_groups]
    plateau = ReduceLROnPlateau(opt, factor=_FALL, patience=_WAIT) if name == "plateau" else None

    def warm_up(n: int) -> None:
        if n < rise:
            for g, lr in zip(opt.param_groups, start_rates, strict=True):
                g["lr"] = lr * (n + 1) / rise
        elif n == rise:
            for g, lr in zip(opt.param_groups, start_rates, strict=True):
                g["lr"] = lr

    return Pace(warm_up, plateau.step if plateau else ignore, plateau)


def range_test(
    net: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    make: Callable[[nn.Module, float], Optimizer],
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 60,
) -> tuple[float, list[tuple[float, float]]]:
    """A learning rate by the range test (Smith 2017, arXiv:1506.01186), and the curve (rate, smoothed loss) behind it.

    The rate rises from low to high by equal factors, a step each, on a copy of the network, until the loss is four
    times its least.  loss(net, n): the loss on batch n.  The rate taken is a tenth of the one at the least loss.
    Refused where the loss is never finite.
    """
    net = copied(net)
    opt = make(net, low)
    ratios = [g["lr"] / low for g in opt.param_groups]
    curve: list[tuple[float, float]] = []
    mean = 0.0
    for n in range(steps):
        rate = low * (high / low) ** (n / (steps - 1))
        for g, ratio in zip(opt.param_groups, ratios, strict=True):
            g["lr"] = rate * ratio
        value = loss(net, n)
        if not bool(torch.isfinite(value)):
            break
        mean = 0.9 * mean + 0.1 * float(value.detach())
        smooth = mean / (1 - 0.9 ** (n + 1))
        curve.append((rate, smooth))
        if smooth > 4 * min(v for _, v in curve):
            break
        opt.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        opt.step()
    if not curve:
        raise Refused(
            "the learning-rate range test has a loss that is not finite in its first step: give --lr a number"
        )
    return min(curve, key=lambda c: c[1])[0] / 10, curve
