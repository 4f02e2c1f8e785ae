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
    negated,
    negative_part,
    positive_part,
    redistribute,
    relevance,
    signed_parts,
    stable,
    total,
)


@method(paper="arXiv:1904.00605", claims="signed class-sensitive few-passes sees-run")
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
    against = negated(op)
    helping, hindering = (signed_parts(o, positive_part, negative_part) for o in (op, against))
    z = total(op, helping)
    share = redistribute(op, helping, r / stable(z))
    share += redistribute(against, hindering, r / stable(z + total(against, hindering)))
    return shifted(share, r, op.pictures)


def shifted(share: Tensor, r: Tensor, pictures: int) -> Shares:
    """Shares with the same taken from each that is not 0, so that in every picture they sum to what r sums to."""
    each = share.reshape(pictures, -1)
    nonzero = each != 0
    number = nonzero.sum(1, keepdim=True)
    missing = r.reshape(pictures, -1).sum(1, keepdim=True) - each.sum(1, keepdim=True)
    handed = (r.reshape(pictures, -1) * (number > 0)).view(r.shape)
    return (each + nonzero * (missing / number.clamp_min(1))).view(share.shape), handed
