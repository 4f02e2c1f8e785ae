"""Carlini & Wagner 2017, arXiv:1608.04644, section VI.A; Adam after Kingma & Ba 2015, arXiv:1412.6980, algorithm 1."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.attacks.common.bisection import cut
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Become, Goal, Misclassify
from clearsight.errors import Refused
from clearsight.internals.layers import gradients

INSIDE = 0.999999  # pixels of 0 and 1 are moved this far inside, where tanh still has a slope
SLOW, SLOWER = 0.9, 0.999  # Adam's decay of the mean gradient and of the mean squared gradient
TINY = 1e-12  # Adam's epsilon; it is small, because gradients of pixels at 0 and 1 are a millionth of the others
WORTH = 0.9999  # a search goes on while each tenth of its steps brings the loss to at most this share of the last
HOPE = 0.9  # and one that has not fooled since: it can only tell that its c is too small
PATIENCE = 40  # minimum number of steps between these checks; pixels at 0 and 1 need as many to move visibly


@method(paper="arXiv:1608.04644", claims="l2 minimal")
def carlini_wagner(
    model: Classifier,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    steps: int = 200,
    rate: float | None = None,
    searches: int = 7,
    c: float = 0.01,
    confidence: float = 0.0,
    back: int = 10,
) -> Tensor:
    """The smallest change that fools, by gradient descent on its squared length plus c times the remaining margin.

    x (B, C, *S) in [0, 1] -> the same shape.  eps, in pixels, is used by the runner alone: the smallest L2 change that
    is found is returned, whatever its size.

    For each picture the smallest c that succeeds is searched for.  c is multiplied by ten while no search succeeds and
    divided by ten while all do; once both are known it is half-way between them, on the scale of their logarithms.
    Each search runs Adam over arctanh(2 x - 1), and ends sooner for a picture that no longer gains, or gains little and
    is not fooled.

    The cost is up to searches x steps passes forward and back: 1400 by default, of which a ResNet-20 on CIFAR-10 took
    1160.  With 6 searches it took a seventh less, and the mean distance grew by 0.2 % (24 pictures).

    Args:
        steps: maximum number of Adam steps in each search.
        rate: learning rate of Adam at the beginning.  Unlike the paper's it falls linearly to 0, so that few steps end
            close to the boundary.  none is 15 / steps, at most 0.5, with which a pixel of 0 or 1 can reach the middle.
        searches: number of values of c that are tried for each picture, from 1.
        c: the first value of c, above 0.
        confidence: how far the output of the wrong class must exceed the right one's, from 0.
        back: number of halvings that find the smallest ball to which the result can be cut and still succeeds; 0 leaves
            the result as it is.

    Refused: a goal that is neither Misclassify nor Become.

    Source: Carlini & Wagner 2017, section VI.A.

    The boundary is where a = b, and (0.75, 0.25) lies 0.5 / sqrt(2) from it:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import Misclassify
    >>> x, right = torch.tensor([[[[0.75, 0.25]]]]), Misclassify(torch.tensor([0]))
    >>> found = carlini_wagner(linear([[1.0, 0.0], [0.0, 1.0]]), x, right, eps=1.0, steps=50)
    >>> [round(value, 2) for value in found.flatten().tolist()]
    [0.5, 0.5]
    """
    if not isinstance(goal, Misclassify | Become):
        raise Refused(
            "carlini-wagner minimises the margin between classes, but the goal names no class: give right classes, "
            "or Become"
        )
    if searches < 1 or c <= 0 or min(steps, confidence, back) < 0 or (rate is not None and rate <= 0):
        raise Refused(
            f"carlini-wagner(steps={steps}, searches={searches}, c={c:g}, confidence={confidence:g}, back={back}, "
            f"rate={rate}): searches must be at least 1, c and rate above 0, the others at least 0"
        )

    def judge(rows: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        mine = goal[rows.cpu()]
        short = (mine.margin(out) + confidence).clamp(min=0)
        return short, mine.met(out) & (short == 0)

    rate = min(15 / max(steps, 1), 0.5) if rate is None else rate
    best = BestSoFar(x, "l2")
    weight = torch.full((len(x),), c, device=x.device)
    low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    for _ in range(searches):
        fooled = _search(model, x, best, judge, weight, steps, rate)
        low, high = torch.where(fooled, low, weight), torch.where(fooled, weight, high)
        between = torch.where(low > 0, (low * high).sqrt(), weight / 10)
        weight = torch.where(high.isinf(), weight * 10, between)
    return cut(model, best, judge, "l2", back)


def _search(
    model: Classifier,
    x: Tensor,
    best: BestSoFar,
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    weight: Tensor,
    steps: int,
    rate: float,
) -> Tensor:
    """Run one search for each picture, with its c in weight (B,); return which were fooled in its last part, (B,)."""
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    w = ((2 * x - 1) * INSIDE).atanh()
    start, mean, square = _pixels(w.tanh()), torch.zeros_like(w), torch.zeros_like(w)
    before = torch.full((len(x),), torch.inf, device=x.device)
    for i in range(steps + 1):
        bent = w.tanh()
        x_adv = _pixels(bent).requires_grad_(i < steps)
        with torch.set_grad_enabled(i < steps):
            short, met = judge(rows, model(x_adv))
            push = weight[rows] * short
        best.see(rows, x_adv, short, met)
        fooled[rows] |= met.to(x.device)
        if i == steps:
            break
        (g,) = gradients(push, x_adv)  # of the margin alone, so that a network without a gradient is noticed
        move = x_adv.detach() - start
        g = torch.add(g, move, alpha=2).mul_(bent.square_().neg_().add_(1).div_(2))
        mean.mul_(SLOW).add_(g, alpha=1 - SLOW)
        square.mul_(SLOWER).addcmul_(g, g, value=1 - SLOWER)
        root = (square / (1 - SLOWER ** (i + 1))).sqrt_().add_(TINY)
        w.addcdiv_(mean, root, value=-rate * (1 - i / steps) / (1 - SLOW ** (i + 1)))
        if i and i % max(steps // 10, PATIENCE) == 0:
            loss = move.square().flatten(1).sum(1) + push.detach()
            on = loss <= torch.where(fooled[rows], WORTH, HOPE) * before[rows]
            before[rows] = loss
            rows, w, start, mean, square = rows[on], w[on], start[on], mean[on], square[on]
            fooled[rows] = False  # large first steps fool with any c, so only the last part counts
            if not len(rows):
                break
    return fooled


def _pixels(bent: Tensor) -> Tensor:
    """Pixels of tanh(w)."""
    return (bent + 1) / 2
