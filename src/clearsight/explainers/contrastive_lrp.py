"""Gu, Yang & Tresp 2018, arXiv:1812.02100; z+ and zB: Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008."""

from typing import Literal

from torch import Tensor
from torch.nn.functional import one_hot

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.lrp_rules import (
    Linear,
    Rule,
    Rules,
    Shares,
    box,
    negated,
    positive,
)
from clearsight.explainers.common.lrp_walk import raised_class, relevance


@method(paper="arXiv:1812.02100", claims="class-sensitive few-passes learnable")
def contrastive_lrp(
    model: Classifier, x: Tensor, target: Target, *, kind: Literal["clrp1", "clrp2"] = "clrp1"
) -> Tensor:
    """Relevance for the class minus the relevance for its opposite, where the difference is above zero.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the logit.

    Both sides start with the size of the class's logit, |f|: the class has |f|, and in clrp1 each of the K - 1 other
    classes has -|f| / (K - 1).  The rules are linear, so one backward pass gives the difference.  The class is the one
    whose logit raises the target most.  The layer that sees the pixels follows the rule zB, between black and white;
    all other layers follow z+.

    Args:
        kind: the opposite of the class.  "clrp1" takes all other classes, each with an equal part of the relevance;
            "clrp2" takes the class itself with the weights of its last layer negated.

    Refused: models with a single output, and the networks that lrp refuses.

    In a linear layer with one picture, where each class sees another pixel, only the class's own pixel remains:

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> m = contrastive_lrp(linear([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[[[0.5, 1.0]]]]), ClassScore(0))
    >>> [round(v, 4) for v in m.flatten().tolist()]
    [1.0, 0.0]
    """

    def start(target: Target, logits: Tensor) -> Tensor:
        if logits.shape[1] < 2:
            raise Refused("contrastive-lrp compares a class with the others, but the model has one output: use lrp")
        chosen = one_hot(raised_class(target, logits), logits.shape[1])
        size = (chosen * logits).sum(1, keepdim=True).abs()
        others = (1 - chosen) / (logits.shape[1] - 1) if kind == "clrp1" else 0
        return (chosen - others) * size

    rules = Rules(box, positive, positive, last=against_itself if kind == "clrp2" else None)
    r, _ = relevance(model, x, target, rules, start=start)
    return r.sum(1).relu()


def against_itself(rule: Rule) -> Rule:
    """A rule, less the same rule for the weights negated."""

    def both(op: Linear, r: Tensor) -> Shares:
        share, kept = rule(op, r)
        opposite, kept_there = rule(negated(op), r)
        return share - opposite, op.each(r) + kept - kept_there

    return both
