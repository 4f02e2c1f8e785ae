"""Nam, Gur, Choi, Wolf & Lee 2020, arXiv:1904.00605."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.explainers.common.lrp_rules import (
    Linear,
    Rules,
    Shares,
    box,
    influence,
    negative_part,
    positive_part,
    positive_total,
    redistribute,
    signed_parts,
    stable,
)
from clearsight.explainers.common.lrp_walk import relevance


@method(paper="arXiv:1904.00605", claims="signed class-sensitive few-passes learnable")
def rap(model: Model, x: Tensor, target: Target) -> Tensor:
    """Relative attributing propagation: units of much influence, of either sign, against units of little.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target, to which the map sums.  The diagnostic
    "conservation residual" is the sum's error.

    The last layer distributes the logit by the size of each input's part in it, whatever the sign.  Every layer before
    it passes all relevance R along the positive parts (their sum is P), and a further R N / (P + N) along the negative
    ones (of size N).  The excess is subtracted from all units that have any relevance, the same from each, so that
    units of little influence become negative.  The layer that sees the pixels follows the rule zB, between black and
    white.

    Biases get nothing.  Where a layer sees values of both signs, as after SiLU, parts are positive or negative by the
    sign of value times weight.  Sums of branches, averages and gates are treated as in lrp.

    Refused: the networks that lrp refuses.

    A linear layer with parts 1.5 and -0.5 has a logit of 1, distributed 3 to 1:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> m = rap(linear([[3.0, -1.0], [0.0, 0.0]]), torch.tensor([[[[0.5, 0.5]]]]), ClassScore(0))
    >>> [round(v, 4) for v in m.flatten().tolist()]
    [0.75, 0.25]
    """
    r, _ = relevance(model, x, target, Rules(box, relative, relative, last=lambda _rule: influence))
    return r.sum(1)


def relative(op: Linear, r: Tensor) -> Shares:
    """All along the positive parts, in part along the negative ones too; then shifted to the sum that came in."""
    z = positive_total(op)
    both = z * 2 - (op.z - op.bias)  # what the sizes of all parts add up to
    share = redistribute(op, signed_parts(op, positive_part, negative_part), r / stable(z))
    share -= redistribute(op, signed_parts(op, negative_part, positive_part), r / stable(both))
    return shifted(share, op, r)


def shifted(share: Tensor, op: Linear, r: Tensor) -> Shares:
    """Shares with the same taken from each that is not 0, so that in every picture they sum to what r sums to."""
    nonzero = share != 0
    number, came = op.each(nonzero), op.each(r)
    each = (came - op.each(share)) / number.clamp_min(1)
    each = each.repeat_interleave(len(share) // op.pictures).view(-1, *[1] * (share.dim() - 1))
    return share.add_(each).mul_(nonzero), came * (number == 0)
