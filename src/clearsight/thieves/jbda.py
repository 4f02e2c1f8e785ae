"""Papernot, McDaniel, Goodfellow, Jha, Celik & Swami 2017, arXiv:1602.02697: Jacobian-based dataset augmentation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.theft import Theft
from clearsight.errors import Refused


def _validate(*, step: float, **others: object) -> None:
    if not 0 < step <= 1:
        raise Refused(f"jbda(step={step:g})", "give a step above 0, in pixels in [0, 1], such as 0.1")


@method(paper="arXiv:1602.02697", claims="asks-the-clone makes-pictures", order=3, validate=_validate)
def jbda(theft: Theft, n: int, *, step: float = 0.1, towards: Literal["answer", "another"] = "answer") -> Tensor:
    """Ask about pictures that are made from those before, by a step along the clone's gradient (JBDA).

    n pictures (n, C, *S) in [0, 1], fewer where there are fewer to make them from.  The first ones are drawn at random
    from the pool.  Then each picture that was asked about gives a new one, x + step sign(d F_c(x) / dx), where F is the
    clone and c the class that the model answered with; where there are more than n, n are drawn.

    Args:
        step: size of the step in pixels in [0, 1], lambda of the paper, above 0 and at most 1.
        towards: "answer" makes the answered class more likely, as in the paper; "another" goes towards a class drawn
            at random (T-RND of Juuti et al. 2019, one step).

    Refused: a step of 0 or less, or above 1.

    Source: Papernot et al. 2017, Jacobian-based dataset augmentation; Juuti et al. 2019, arXiv:1805.02628, T-RND.

    A linear clone's gradient is its weights:

    >>> from clearsight.testing import theft
    >>> x = torch.full((1, 1, 1, 2), 0.5)
    >>> jbda(theft(x[:0], weight=[[3.0, -2.0], [0.0, 0.0]], asked=x, answers=[[1.0, 0.0]]), 1, step=0.25).tolist()
    [[[[0.75, 0.25]]]]
    """
    if not len(theft.asked):
        return theft.take(theft.drawn(n, len(theft.pool)))
    rows = theft.drawn(n, len(theft.asked))
    x, k = theft.asked[rows], theft.answers[rows].argmax(1)
    if towards == "another":
        k = (k + torch.randint(1, theft.classes, (len(k),), generator=theft.generator)) % theft.classes
    made = [_moved(theft, z, c, step) for z, c in zip(torch.split(x, 256), torch.split(k, 256), strict=True)]
    return torch.cat(made)


def _moved(theft: Theft, x: Tensor, k: Tensor, step: float) -> Tensor:
    """Pictures x (B, C, *S) after a step that makes the classes k (B,) more likely to the clone."""
    z = x.detach().clone().to(theft.clone.device).requires_grad_()
    with theft.clone.undisturbed(), torch.enable_grad():
        score = theft.clone(z).log_softmax(1).gather(1, k.to(z.device)[:, None]).sum()
        (slope,) = torch.autograd.grad(score, z)
    return (x + step * slope.sign().to(x)).clamp(0, 1)
