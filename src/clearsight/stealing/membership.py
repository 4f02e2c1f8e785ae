"""Whether a picture was among those a network was trained on: by its loss, and by the likelihood ratio of LiRA.

Sources: Yeom, Giacomelli, Fredrikson & Jha 2018, arXiv:1709.01604, adversary 1; Carlini, Chien, Nasr, Song, Terzis &
Tramèr 2022, arXiv:2112.03570, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.core.statistics import Interval, clopper_pearson

Numbers = npt.NDArray[np.float64]
Attack = Literal["loss", "lira-offline", "lira-online"]
_SPREAD = 0.05  # least standard deviation of a normal distribution, in units of the confidence


def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """The scaled confidence log(p / (1 - p)) of the right class: logits (N, K), y (N,) -> (N,) float64.

    Carlini et al. 2022, in its stable form: the logit of the right class over the log-sum-exp of the
    others.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> confidence(z, torch.tensor([0])).item()
    2.0
    """
    z = logits.double()
    own = z.gather(1, y[:, None])[:, 0]
    others = z.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return own - others


def loss_scores(logits: Tensor, y: Tensor) -> Numbers:
    """The score of the loss attack, larger for members: minus the cross entropy of the right class, (N,)."""
    found: Numbers = logits.double().log_softmax(1).gather(1, y[:, None])[:, 0].numpy()
    return found


def lira_scores(target: Numbers, shadows: Numbers, inside: npt.NDArray[np.bool_], *, online: bool) -> Numbers:
    """The log-likelihood ratio of LiRA, larger for members: (N,).

    Each picture's confidences under shadow networks that were not trained on it are taken as normally distributed, and,
    online, those under networks that were as well.  Offline the score is the probability that a network that was not
    trained on the picture has a smaller confidence (as a log-odds it would order the same).  The standard deviations
    are pooled over all pictures, as the paper does with few shadow networks.

    Args:
        target: confidences (N,) of the network under test.
        shadows: confidences (M, N) of the shadow networks.
        inside: whether each picture (M, N) was among those that trained the shadow network.
        online: whether shadow networks that were trained on the picture are used too.

    Source: Carlini et al. 2022, algorithm 1, its offline variant, and its fixed variance.
    """
    out = ~inside
    mean_out, std_out = _mean_of(shadows, out), _pooled(shadows, out)
    if not online:
        return np.asarray((target - mean_out) / std_out, np.float64)
    mean_in, std_in = _mean_of(shadows, inside), _pooled(shadows, inside)
    return _log_normal(target, mean_in, std_in) - _log_normal(target, mean_out, std_out)


def _mean_of(values: Numbers, among: npt.NDArray[np.bool_]) -> Numbers:
    """The mean (N,) of each picture's values (M, N) among those; where there is none, the mean of all."""
    count = among.sum(0)
    whole = values[among].mean() if among.any() else 0.0
    found: Numbers = np.where(count > 0, (values * among).sum(0) / np.maximum(count, 1), whole)
    return found


def _pooled(values: Numbers, among: npt.NDArray[np.bool_]) -> float:
    """One standard deviation of the values (M, N) around each picture's own mean, over all pictures."""
    count = among.sum(0)
    free = int(np.maximum(count - 1, 0).sum())
    squares = float((((values - _mean_of(values, among)) ** 2) * among)[:, count > 1].sum())
    return max((squares / free) ** 0.5 if free else 1.0, _SPREAD)


def _log_normal(v: Numbers, mean: Numbers, std: float) -> Numbers:
    return np.asarray(-0.5 * ((v - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi), np.float64)


def roc(scores: Numbers, member: npt.NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """False and true positive rates, from (0, 0) to (1, 1), at every threshold: of equal scores all or none.

    >>> f, t = roc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
    >>> f.tolist(), t.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    order = np.argsort(-scores, kind="stable")
    s, m = scores[order], member[order]
    last = np.r_[np.nonzero(np.diff(s))[0], len(s) - 1]
    hits, alarms = np.cumsum(m)[last], np.cumsum(~m)[last]
    return (
        np.r_[0.0, alarms / max(int((~member).sum()), 1)],
        np.r_[0.0, hits / max(int(member.sum()), 1)],
    )


def area(scores: Numbers, member: npt.NDArray[np.bool_]) -> tuple[float, Interval]:
    """The area under the ROC curve, and its 95 % interval (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747).

    >>> area(np.array([2.0, 1.0]), np.array([True, False]))[0]
    1.0
    """
    f, t = roc(scores, member)
    a, n, m = float(np.sum(np.diff(f) * (t[1:] + t[:-1]) / 2)), int(member.sum()), int((~member).sum())
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m)
    half = 1.959963984540054 * max(variance, 0.0) ** 0.5
    return a, (max(0.0, a - half), min(1.0, a + half))


@dataclass(frozen=True)
class AtRate:
    """The true positive rate at a false positive rate.

    alarms: non-members above the threshold, the most that the rate allows; hits of members.  interval: 95 %, exact
    (Clopper and Pearson), for that threshold.  resolved: whether the non-members are enough for the rate at all: with
    fewer than 1 / rate of them it means that no alarm is allowed, which is stricter.
    """

    rate: float
    hits: int
    members: int
    alarms: int
    others: int
    interval: Interval

    @property
    def value(self) -> float:
        return self.hits / self.members

    @property
    def resolved(self) -> bool:
        return self.others * self.rate >= 1 - 1e-9


def at_rate(scores: Numbers, member: npt.NDArray[np.bool_], rate: float) -> AtRate:
    """The most members that a threshold finds while it raises at most rate x others alarms.

    >>> found = at_rate(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False]), 0.001)
    >>> found.hits, found.alarms, found.resolved
    (1, 0, False)
    """
    f, t = roc(scores, member)
    members, others = int(member.sum()), int((~member).sum())
    k = int(np.nonzero(f <= rate + 1e-12)[0][-1])
    hits, alarms = round(float(t[k]) * members), round(float(f[k]) * others)
    return AtRate(rate, hits, members, alarms, others, clopper_pearson(hits, members))
