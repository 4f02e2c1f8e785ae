"""The rules of layer-wise relevance propagation, each for any one linear operation.

Bach et al. 2015, doi:10.1371/journal.pone.0130140; all in one place: Montavon et al. 2019,
doi:10.1007/978-3-030-28954-6_10.  A rule gets the relevance of what the operation gave and shares it out among what it
was given.  It tells how much a bias or the stabiliser of a division kept, so that the sum can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from clearsight.internals.kept_graph import over

TINY = 1e-6  # added to every divisor with its sign, as a share of the divisors' size in the same picture

Change = Callable[[Tensor], Tensor]  # weights -> other weights for the same places
Product = Callable[[Tensor, Change], Tensor]  # of what goes in, or comes back, with weights that are changed first


def as_is(w: Tensor) -> Tensor:
    return w


def positive_part(w: Tensor) -> Tensor:
    return w.clamp(min=0)


def negative_part(w: Tensor) -> Tensor:
    return w.clamp(max=0)


@dataclass(frozen=True)
class Linear:
    """One linear operation, z = forward(x, as_is) + bias; back(s, as_is) is what of s comes back to x.

    Both take what is to become of the weights first, as a function of them: large ones are changed block by block.
    follows_relu: x is what a ReLU gave.  rectified: only ReLUs read z, so that relevance comes
    back only where z is above 0.  thin: the same from one channel to one, where every output reads all channels.
    """

    x: Tensor
    z: Tensor
    bias: Tensor  # of z's shape after broadcasting
    forward: Product
    back: Product
    pictures: int
    low: Tensor | None = None  # what x is for one black and one white picture; only where pixels come in
    high: Tensor | None = None
    follows_relu: bool = False
    rectified: bool = False
    thin: Linear | None = None

    @cached_property
    def is_nonnegative(self) -> bool:
        """Whether no input is below 0; true where there are none."""
        return self.follows_relu or not self.x.numel() or bool(self.x.amin() >= 0)

    def each(self, t: Tensor) -> Tensor:
        return each_picture(t, self.pictures)


def each_picture(t: Tensor, pictures: int) -> Tensor:
    """The sum for each picture, (B,)."""
    alone = len(t) == pictures  # a reshape would copy what is channels_last
    total: Tensor = t.sum(tuple(range(1, t.dim()))) if alone else t.reshape(pictures, -1).sum(1)
    return total


Shares = tuple[Tensor, Tensor]  # the relevance of x, and how much of z's relevance in each picture was kept, (B,)
Rule = Callable[[Linear, Tensor], Shares]


@dataclass(frozen=True)
class Rules:
    """Which rule holds where.

    by_sign: sums and averages are shared among the terms that have the sign of the sum.  last: what becomes of the rule
    of a linear layer that no other one comes after.
    """

    first: Rule
    conv: Rule
    dense: Rule
    by_sign: bool = True
    last: Callable[[Rule], Rule] | None = None


def stable(z: Tensor, share: float = TINY) -> Tensor:
    """z (B, ...), moved away from 0 by a share of its root mean square in each picture."""
    away = torch.copysign(smallest(z, share), z)
    return torch.add(away, z, out=over(away))


def smallest(z: Tensor, share: float = TINY) -> Tensor:
    """How far z (B, ...) is moved away from 0 as a divisor: a share of its root mean square in each picture."""
    places = tuple(range(1, z.dim()))
    norm: Tensor = torch.linalg.vector_norm(z, dim=places, keepdim=True)
    return norm * (share / math.sqrt(max(z[0].numel(), 1))) + max(1e-20, torch.finfo(z.dtype).tiny)


def epsilon(size: float = TINY) -> Rule:
    """LRP-epsilon: in proportion to each input's part in z; an epsilon above TINY lets weak parts fade."""

    def rule(op: Linear, r: Tensor) -> Shares:
        s = r / stable(op.z, size)
        return op.back(s, as_is) * op.x, op.each(r) - op.each((op.z - op.bias).mul_(s))

    return rule


def alpha_beta(alpha: float) -> Rule:
    """LRP-alpha-beta: alpha times the positive parts, less alpha - 1 times the negative ones."""

    def rule(op: Linear, r: Tensor) -> Shares:
        if alpha == 1:
            return positive(op, r)
        up, kept_up = positive(op, alpha * r)
        down, kept_down = positive(negated(op), (alpha - 1) * r)
        return up - down, kept_up - kept_down

    return rule


def negated(op: Linear) -> Linear:
    """The operation with all its weights negated: what spoke for its outputs speaks against them."""
    return replace(
        op,
        z=-op.z,
        bias=-op.bias,
        rectified=False,
        forward=lambda v, change: op.forward(v, lambda w: change(-w)),
        back=lambda s, change: op.back(s, lambda w: change(-w)),
    )


def positive(op: Linear, r: Tensor) -> Shares:
    """LRP-z+ (alpha 1, beta 0): in proportion to the positive parts alone."""
    bias = op.bias.clamp(min=0)
    z = positive_total(op).add_(bias)
    size = smallest(z)
    above = torch.add(z, size, out=over(z))  # no z is below 0
    s = torch.div(r, above, out=over(above))
    return redistribute(op, signed_parts(op, positive_part, negative_part), s), kept_by(op, s, bias + size)


def positive_total(op: Linear) -> Tensor:
    """The sum of all parts above 0, without the bias; no others' memory.

    Where inputs have both signs, it is half of what all parts and their sizes add up to.  That is one product less than
    adding up the parts of positive and of negative inputs, and as exact where the sum of all is above 0: only there a
    ReLU gives any relevance back.
    """
    if not op.rectified or op.is_nonnegative:
        return total(op, signed_parts(op, positive_part, negative_part))
    return op.forward(op.x.abs(), torch.abs).add_(op.z).sub_(op.bias).mul_(0.5).clamp_(min=0)


def kept_by(op: Linear, s: Tensor, keeps: Tensor) -> Tensor:
    """What biases and stabilisers keep in each picture, (B,): s times their part in the denominators."""
    if s.dim() > 2 and keeps.dim() == s.dim() and keeps.shape[2:].numel() == 1:
        s = s.sum(tuple(range(2, s.dim())), keepdim=True)
    return op.each(s * keeps)


Parts = list[tuple[Tensor, Change]]  # inputs, and what becomes of the weights that they meet


def signed_parts(op: Linear, for_positive: Change, for_negative: Change) -> Parts:
    """Positive and negative inputs with weights of their own.  There often are no negative ones: what a ReLU gave."""
    if op.is_nonnegative:
        return [(op.x, for_positive)]
    return [(op.x.clamp(min=0), for_positive), (op.x.clamp(max=0), for_negative)]


def total(op: Linear, parts: Parts) -> Tensor:
    """What the parts add up to, without a bias; no others' memory, so it may be worked in."""
    z = op.forward(*parts[0])
    for part in parts[1:]:
        z += op.forward(*part)
    return z


def redistribute(op: Linear, parts: Parts, s: Tensor) -> Tensor:
    """The inputs' shares, where each output hands back s times what each part gave to it."""
    (x, change), *others = parts
    share = op.back(s, change).mul_(x)
    for x, change in others:
        share.addcmul_(op.back(s, change), x)
    return share


def gamma(size: float) -> Rule:
    """LRP-gamma: parts of the sign of z count 1 + gamma times, so that they outweigh the others (any sign of input)."""

    def rule(op: Linear, r: Tensor) -> Shares:
        favoured = total(op, signed_parts(op, positive_part, negative_part))
        plain = op.z - op.bias
        is_positive = op.z >= 0
        z = torch.where(is_positive, plain + size * favoured, plain + size * (plain - favoured))
        bias = torch.where(is_positive, op.bias.clamp(min=0), op.bias.clamp(max=0)) * size + op.bias
        s = r / stable(z + bias)

        def more_up(w: Tensor) -> Tensor:
            return w + size * positive_part(w)

        def more_down(w: Tensor) -> Tensor:
            return w + size * negative_part(w)

        share = redistribute(op, signed_parts(op, more_up, more_down), torch.where(is_positive, s, 0.0))
        share = share + redistribute(op, signed_parts(op, more_down, more_up), torch.where(is_positive, 0.0, s))
        return share, op.each(r) - op.each(torch.mul(z, s, out=over(z)))

    return rule


def influence(op: Linear, r: Tensor) -> Shares:
    """In proportion to the size of each input's part, whichever its sign."""
    parts: Parts = [(op.x.abs(), torch.abs)]
    z = total(op, parts)
    s = r / stable(z)
    return redistribute(op, parts, s), op.each(r) - op.each(torch.mul(z, s, out=over(z)))


def flat(op: Linear, r: Tensor) -> Shares:
    """LRP-flat: the same for every input that the operation reads; so no channel need be looked at by itself."""
    one = op if op.thin is None else op.thin
    channels = 1 if op.thin is None else op.x.shape[1]
    z = one.forward(torch.ones_like(one.x), torch.ones_like).mul_(channels)
    s = r / stable(z)
    summed = s if op.thin is None else s.sum(1, keepdim=True)
    share = one.back(summed, torch.ones_like).expand_as(op.x)
    return share, op.each(r) - op.each(z * s)


def box(op: Linear, r: Tensor) -> Shares:
    """LRP-zB: for pixels between black and white, in proportion to x w - low w+ - high w-."""
    assert op.low is not None
    assert op.high is not None
    ends = op.forward(op.low, positive_part) + op.forward(op.high, negative_part)  # the same for all pictures
    low, high, ends = (_of_every_picture(t, op.pictures) for t in (op.low, op.high, ends))
    z = op.z - (ends + op.bias)
    s = r / stable(z)
    parts: Parts = [(op.x - low, positive_part), (op.x - high, negative_part)]
    return redistribute(op, parts, s), op.each(r) - op.each(torch.mul(z, s, out=over(z)))


def _of_every_picture(t: Tensor, pictures: int) -> Tensor:
    """What is the same for every picture, for all of them where each has several rows."""
    return t if len(t) == 1 else t.repeat(pictures, *[1] * (t.dim() - 1))
