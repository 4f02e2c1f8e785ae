"""Owen values over a tree of boxes, as the Partition explainer of the SHAP library spreads them.

Lundberg & Lee 2017, arXiv:1705.07874, for the additive values; Owen 1977, doi:10.1007/978-3-642-45494-3_7, for those of
players in nested groups.
"""

import heapq
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.completeness import note_or_refuse
from clearsight.perturbation.removal import flat

Box = tuple[slice, ...]
ROUND = 8  # boxes halved together: 16 masked pictures, one pass


@method(paper="arXiv:1705.07874", claims="signed class-sensitive scores-only")
def partition_shap(model: Model, x: Tensor, target: Target, *, samples: int = 500, fill: float | None = None) -> Tensor:
    """Owen values: Shapley values of a picture halved again and again, finest where most of the value lies.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target; the map sums to target(x) - target(fill
    everywhere).  The diagnostic "completeness residual" is the sum's error, which is only rounding.

    A box is halved across its longest side; its value is the mean of what it adds when its sibling is hidden and when
    it is seen.  The eight boxes with the largest |value| are halved next, until the budget is spent.  A box that
    remains whole spreads its value evenly over its pixels.

    Args:
        samples: the budget, which is how many versions of each picture are scored; at least 2.
        fill: pixel value of what is hidden; none is the mean of the preprocessing.

    Refused: a map whose sum misses more than 1 % of target(x) - target(fill everywhere) plus 0.0001 of the size of the
    target.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> partition_shap(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), fill=0.0).tolist()
    [[[1.5, -2.0]]]
    """
    if samples < 2:
        raise Refused(f"partition-shap(samples={samples}): samples must be at least 2: the picture and the fill")
    maps, missing, change, size = [], [], [], []
    for i in range(len(x)):
        values, empty, full = owen_values(
            model, x[i : i + 1], target[torch.tensor([i])], flat(model, x[:1], fill), samples
        )
        maps.append(values.float().to(x.device))
        change.append(full - empty)
        missing.append(float(maps[-1].double().sum()) - change[-1])
        size.append(max(abs(full), abs(empty)))
    lost, due, large = (torch.tensor(v, dtype=torch.float64) for v in (missing, change, size))
    note_or_refuse("partition-shap", lost, due, large, "use kernel-shap")
    return torch.stack(maps)


class _Node(NamedTuple):
    """A box in one context: what is seen beside it, the target without and with it, and the share of that context."""

    urgency: float
    number: int  # of equal urgency, the first made goes first
    box: Box
    seen: Tensor
    without: float
    with_it: float
    share: float

    @property
    def value(self) -> float:
        return self.share * (self.with_it - self.without)


def owen_values(model: Model, x: Tensor, target: Target, cover: Tensor, samples: int) -> tuple[Tensor, float, float]:
    """One picture x (1, C, *S) -> its values (*S) float64, target(cover) and target(x)."""

    def ask(seen: list[Tensor]) -> list[float]:
        scores: list[float] = []
        with torch.no_grad():
            for rows, k in pairs(1, len(seen)):
                mask = torch.stack([seen[j] for j in k.tolist()])[:, None].to(x.device)
                scores += target[rows](model(torch.where(mask, x, cover))).double().tolist()
        return scores

    nothing = torch.zeros(x.shape[2:], dtype=torch.bool)
    values = torch.zeros(x.shape[2:], dtype=torch.float64)
    numbers = itertools.count()
    heap: list[_Node] = []

    def settle(box: Box, seen: Tensor, without: float, with_it: float, share: float) -> None:
        node = _Node(-abs(with_it - without) * share, next(numbers), box, seen, without, with_it, share)
        if _pixels(box) == 1:
            values[box] += node.value
        else:
            heapq.heappush(heap, node)

    empty, full = ask([nothing, ~nothing])
    settle(tuple(slice(0, side) for side in x.shape[2:]), nothing, empty, full, 1.0)
    budget = samples - 2
    while heap and budget >= 2:
        nodes = [heapq.heappop(heap) for _ in range(min(ROUND, len(heap), budget // 2))]
        halves = [_halves(n.box) for n in nodes]
        answers = ask([_and(n.seen, half) for n, both in zip(nodes, halves, strict=True) for half in both])
        budget -= 2 * len(nodes)
        for n, (a, b), only_a, only_b in zip(nodes, halves, answers[::2], answers[1::2], strict=True):
            settle(a, n.seen, n.without, only_a, n.share / 2)
            settle(b, n.seen, n.without, only_b, n.share / 2)
            settle(a, _and(n.seen, b), only_b, n.with_it, n.share / 2)
            settle(b, _and(n.seen, a), only_a, n.with_it, n.share / 2)
    for n in heap:
        values[n.box] += n.value / _pixels(n.box)
    return values, empty, full


def _pixels(box: Box) -> int:
    return math.prod(s.stop - s.start for s in box)


def _halves(box: Box) -> tuple[Box, Box]:
    """The box cut across its longest side, the first of equals."""
    axis = max(range(len(box)), key=lambda i: box[i].stop - box[i].start)
    start, stop = box[axis].start, box[axis].stop
    middle = (start + stop) // 2
    return (
        (*box[:axis], slice(start, middle), *box[axis + 1 :]),
        (*box[:axis], slice(middle, stop), *box[axis + 1 :]),
    )


def _and(seen: Tensor, box: Box) -> Tensor:
    also = seen.clone()
    also[box] = True
    return also
