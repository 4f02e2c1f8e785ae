"""Bach et al. 2015, doi:10.1371/journal.pone.0130140; composites: Montavon et al. 2019, Kohlbrenner et al. 2020."""

from typing import Literal

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.lrp_rules import Rules, alpha_beta, box, epsilon, flat, gamma, positive
from clearsight.explainers.common.lrp_walk import relevance

Composite = Literal[
    "epsilon-plus-flat", "epsilon-plus-box", "epsilon-alpha-beta-flat", "epsilon-alpha-beta-box", "epsilon-gamma-box",
    "epsilon", "gamma", "alpha-beta", "plus", "flat",
]  # fmt: skip


@method(paper="doi:10.1371/journal.pone.0130140", claims="signed class-sensitive few-passes learnable")
def lrp(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    composite: Composite = "epsilon-plus-flat",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
) -> Tensor:
    """Layer-wise relevance propagation: the target's value, distributed layer by layer down to the pixels.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target.  The map sums to the target minus the share that
    the biases keep.  The diagnostics are "kept by biases" (that share) and "conservation residual" (the sum's error).
    In deep networks with BatchNorm, whose biases are large, the biases may keep nearly all: then only the map's shape
    has a meaning, and its scale has none.

    BatchNorm is folded into the convolution before it.  Sums of branches and averages are linear layers too: relevance
    is distributed among the terms of the sum's own sign (in proportion to the values for a single epsilon).  In a
    product with a gate, as in squeeze-and-excitation, the signal takes all.  Activations and normalisation of layers
    pass on what they get.

    Args:
        composite: rules for dense layers, for convolutions, and for the layer that sees the pixels, in this order; a
            single name is one rule for all.  box is zB, between black and white; plus is alpha-beta with alpha 1; flat
            gives every input the same.
        epsilon: for the rule epsilon, what is added to the size of a denominator, as a share of the root mean square of
            the layer's output, 0 or more; larger values let weak parts fade.
        gamma: for the rule gamma, the extra weight of parts of the sum's own sign, which count 1 + gamma times; 0 or
            more.
        alpha: for the rule alpha-beta, the weight of positive parts, at least 1; negative parts have beta = alpha - 1.

    Refused: networks with attention, for which these rules say nothing; a map that loses more than 1 % of the target
    (not of the map).

    A linear layer is explained by weight times pixel:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> m = lrp(linear([[3.0, 2.0], [0.0, 0.0]]), x, ClassScore(0), composite="epsilon")
    >>> [round(v, 4) for v in m.flatten().tolist()]
    [1.5, 2.0]
    """
    r, _ = relevance(model, x, target, rules_of(composite, epsilon, gamma, alpha))
    return r.sum(1)


def rules_of(composite: Composite, size: float, strength: float, alpha: float) -> Rules:
    """The rules that a composite's name stands for."""
    if size < 0 or strength < 0 or alpha < 1:
        raise Refused(
            f"lrp(epsilon={size:g}, gamma={strength:g}, alpha={alpha:g}): epsilon and gamma must be at least 0, alpha "
            "at least 1"
        )
    dense = epsilon(max(size, 1e-9))
    mixed = alpha_beta(alpha)
    return {
        "epsilon-plus-flat": Rules(flat, positive, dense),
        "epsilon-plus-box": Rules(box, positive, dense),
        "epsilon-alpha-beta-flat": Rules(flat, mixed, dense),
        "epsilon-alpha-beta-box": Rules(box, mixed, dense),
        "epsilon-gamma-box": Rules(box, gamma(strength), dense),
        "epsilon": Rules(dense, dense, dense, by_sign=False),
        "gamma": Rules(gamma(strength), gamma(strength), gamma(strength)),
        "alpha-beta": Rules(mixed, mixed, mixed),
        "plus": Rules(positive, positive, positive),
        "flat": Rules(flat, flat, flat),
    }[composite]
