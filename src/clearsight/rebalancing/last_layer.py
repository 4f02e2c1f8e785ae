"""Kirichenko, Izmailov & Wilson 2023, arXiv:2204.02937: deep feature reweighting (DFR)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.errors import Refused
from clearsight.rebalancing.common.sparse_logistic import sparse_logistic

Part = Literal["val", "train"]

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001)  # penalties that are tried, the strongest first
TRIALS = 3  # draws that choose among them


def _validate(*, on: Part, draws: int, penalty: float) -> None:
    if draws < 1 or penalty < 0:
        raise Refused(f"last-layer(draws={draws}, penalty={penalty:g}): at least one draw, and a penalty from 0")


@method(paper="arXiv:2204.02937", validate=_validate)
def last_layer(
    features: Tensor,
    y: Tensor,
    group: Tensor,
    seed: int,
    *,
    on: Part = "val",
    draws: int = 10,
    penalty: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Deep feature reweighting: the last layer alone is fitted anew, to equal groups.

    features (N, D): what enters the last layer; y (N, K) shares of the classes; group (N,) from 0 -> its new weight
    (K, D) and bias (K,).  Each draw takes as many pictures of each group as the smallest has, at random, and fits
    logistic regression with an L1 penalty to their standardised features.  The mean of the draws is what is kept.  The
    other layers stay as they are in the run that training comes from, so that this takes seconds.

    Args:
        on: the part whose pictures are used, "val" or "train".  Val was not trained on, so that groups are as hard
            there as on new pictures, but numbers of val say little afterwards.
        draws: how many subsets are drawn and averaged, at least 1.
        penalty: factor of the sum of the absolute weights beside the mean cross entropy, above 0; 0 chooses it: of 0.1
            to 0.001 the one that, fitted to half of a draw, is right most often in the worst group of the other half.

    Refused: options outside their ranges, and a group of fewer than two pictures.

    Source: Kirichenko et al. 2023, section 4 and appendix B, who name it DFR; there 20 draws.

    A feature that tells the classes apart in every group is used, one that does so in most pictures alone is not:

    >>> core, shortcut = torch.tensor([1.0, -1.0] * 20), torch.tensor([1.0, -1.0] * 16 + [-1.0, 1.0] * 4)
    >>> group = (core < 0).long() * 2 + (shortcut < 0).long()
    >>> y = torch.stack([core > 0, core < 0], 1).float()
    >>> weight, bias = last_layer(torch.stack([core, shortcut], 1), y, group, 0)
    >>> bool(weight[0, 0] > 1), abs(round(float(weight[0, 1]), 6))
    (True, 0.0)
    """
    sizes = group.bincount()
    if int(sizes.min()) < 2:
        raise Refused("last-layer: a group has fewer than two pictures", "add pictures to it, or leave it out")
    x, y = features.double(), y.to(features.device).double()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    z = (x - mean) / scale
    generator = torch.Generator().manual_seed(seed % 2**63)
    strength = penalty or _choose(z, y, group, generator)
    weight, bias = x.new_zeros(y.shape[1], x.shape[1]), x.new_zeros(y.shape[1])
    fitted = None
    for _ in range(draws):
        rows = equal_groups(group, generator)
        fitted = sparse_logistic(z[rows], y[rows], strength, fitted)
        weight, bias = weight + fitted[0] / draws, bias + fitted[1] / draws
    weight = weight / scale
    return weight.to(features), (bias - weight @ mean).to(features)


def equal_groups(group: Tensor, generator: torch.Generator) -> Tensor:
    """As many rows of each group as the smallest has, drawn at random, group by group."""
    sizes = group.bincount()
    fewest = int(sizes.min())
    members = [(group == g).nonzero()[:, 0] for g in range(len(sizes))]
    return torch.cat([m[torch.randperm(len(m), generator=generator).to(m.device)[:fewest]] for m in members])


def _choose(z: Tensor, y: Tensor, group: Tensor, generator: torch.Generator) -> float:
    """The penalty that is best in the worst group of the halves that were not fitted; of equal ones the strongest."""
    worst = torch.zeros(len(STRENGTHS))
    for _ in range(TRIALS):
        rows = equal_groups(group, generator).reshape(int(group.max()) + 1, -1)
        cut = rows.shape[1] // 2
        half, other = rows[:, :cut].flatten(), rows[:, cut:].flatten()
        fitted = None
        for i, strength in enumerate(STRENGTHS):
            fitted = sparse_logistic(z[half], y[half], strength, fitted)
            answers = (z[other] @ fitted[0].T + fitted[1]).argmax(1)
            right = y[other].gather(1, answers[:, None])[:, 0] > 0
            worst[i] += right.reshape(len(rows), -1).double().mean(1).min()
    return STRENGTHS[int(worst.argmax())]
