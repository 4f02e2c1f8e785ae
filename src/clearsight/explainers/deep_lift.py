"""Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685, section 3.5.1 (rescale rule)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.completeness import note_or_refuse, size_of
from clearsight.explainers.common.gradient import may_lie_last, ordered
from clearsight.explainers.common.rescale import slope
from clearsight.explainers.common.rescale_rules import fits_every_picture, in_pieces, rules
from clearsight.explainers.common.rescale_together import UNKEPT, ApartError, plan_of, run_together
from clearsight.internals.graph import Graph, Values
from clearsight.internals.recording import hold, note_first_pass, with_graph
from clearsight.internals.vjp import vjp

_INSTEAD = {
    "classifier": "use integrated-gradients, or another baseline=",
    "detector": 'where another candidate takes over on the way the score jumps: BoxScore(..., match="raw"), or another '
    "baseline=",
}


@method(paper="arXiv:1704.02685", claims="complete signed class-sensitive few-passes")
def deep_lift(model: Model, x: Tensor, target: Target, *, baseline: float = 0.0) -> Tensor:
    """What each pixel's difference from a flat picture adds to the target, by the rescale rule.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: the map sums to target(x) - target(baseline).
    The diagnostic "completeness residual" is the sum's error.  Every rule is exact, so only rounding may be missing.

    An activation's multiplier is its change of output over its change of input.  Beyond the paper: a product
    (squeeze-and-excitation, attention) is shared half and half, as the Shapley value of its two factors; a quotient
    follows the same rule inverted; a max-pool is treated as in DeepSHAP; normalisation and softmax are split into such
    steps.  A probability, or any other target, is followed along the straight line between the logits of the two
    pictures.

    Args:
        baseline: pixel value of the flat picture (0 is black).

    Refused: a network with an operation that has no rule (the message names it), and a map that misses more than 1 % of
    the target's own change plus 0.0001 of the size of the scores.

    A ReLU that opens on the way from black gets the slope from there:

    >>> from clearsight.testing import rectified
    >>> from clearsight.core.targets import ClassScore
    >>> net = rectified([[2.0, 2.0]], [[1.0], [0.0]], bias=[-1.0])
    >>> m = deep_lift(net, torch.tensor([[[[1.0, 0.5]]]]), ClassScore(0))
    >>> [round(v, 4) for v in m.flatten().tolist()]
    [1.3333, 0.6667]
    """

    def run(graph: Graph, is_new: bool) -> Tensor:
        if plan_of(graph) is not None:
            with suppress(ApartError):
                return _in_parts(model, graph, x, target, baseline, together=True, is_new=is_new)
        return _in_parts(model, graph, x, target, baseline, together=False, is_new=is_new)

    return with_graph(model, x, run)


def _in_parts(
    model: Model, graph: Graph, x: Tensor, target: Target, baseline: float, *, together: bool, is_new: bool
) -> Tensor:
    """As many pictures at once as memory holds; is_new: the logits of the first ones are held against the network's.

    together: each part and the baseline are one batch.
    """
    last = in_pieces(graph) and may_lie_last(model, graph, x[:1])
    z, flat = (_normalised(model, t, last) for t in (x[:1], torch.full_like(x[:1], baseline)))
    fit, run = (_together if together else _beside)(graph, z, flat, baseline)
    most = fit() if len(x) > 1 else 1  # of one picture it need not be measured
    maps: list[Tensor] = []
    size = -(-len(x) // -(-len(x) // most))  # as many in each portion: one alone costs more than its share
    for rows in torch.split(torch.arange(len(x)), size):
        some, asked = (x, target) if len(rows) == len(x) else (x[rows.to(x.device)], target[rows])
        p = some.detach().requires_grad_()
        with torch.enable_grad():
            out, before = run(_normalised(model, p, last))
        if is_new and not maps:
            hold(model, some, out)
        note_first_pass(model, some, out)
        maps.append(_map(model, p, out, before, asked, baseline))
    return maps[0] if len(maps) == 1 else torch.cat(maps)


Fit = Callable[[], int]  # how many pictures go at once
Run = Callable[[Tensor], tuple[Tensor, Tensor]]  # from normalised pictures to their logits, and those of the baseline


def _together(graph: Graph, z: Tensor, flat: Tensor, baseline: float) -> tuple[Fit, Run]:
    """How many pictures like z (1, C, *S) go at once, and how: with the flat one in their batch."""

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        out, before = run_together(graph, z, flat)
        return out, _finite(before, baseline)

    return lambda: graph.at_once(z, work=4, more=1, unkept=UNKEPT), run


def _beside(graph: Graph, z: Tensor, flat: Tensor, baseline: float) -> tuple[Fit, Run]:
    """How many pictures like z (1, C, *S) go at once, and how: after the flat one, by its values.

    That goes once for all, where its values can stand beside those of several pictures.
    """

    def values(flat: Tensor) -> Values:
        with torch.no_grad():
            before = graph.values(flat)
        _finite(before[graph.end], baseline)
        return before

    once = values(flat)
    alike = fits_every_picture(graph, once)

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        before = once if alike else values(torch.cat([flat] * len(z)))
        return graph(z, rules(graph, before, 1 if alike else len(z))), before[graph.end]

    return lambda: graph.at_once(z, work=4, more=1) if alike else graph.at_once(z, work=4, copies=2), run


def _finite(scores: Tensor, baseline: float) -> Tensor:
    """The scores of the baseline.  Refused: they are not finite."""
    if not bool(scores.isfinite().all()):
        raise Refused(
            f"deep-lift: the scores of the baseline, a flat picture of {baseline:g}, are not finite: give another "
            "baseline="
        )
    return scores


def _normalised(model: Model, x: Tensor, last: bool) -> Tensor:
    """Pixels as the network is given them."""
    return ordered(model.normalised(x).to(model.dtype), last)


def _map(model: Model, p: Tensor, out: Tensor, before: Tensor, target: Target, baseline: float) -> Tensor:
    logits, baseline_logits = out.detach().float(), before.float().expand_as(out)
    g = vjp(out, p, slope(target, logits, baseline_logits))
    with torch.no_grad():
        maps = (g * (p - baseline if baseline else p)).sum(1)
        change = target(logits) - target(baseline_logits)
        missing = maps.flatten(1).sum(1, dtype=torch.float64) - change
    size = size_of(target, logits, baseline_logits)
    note_or_refuse("deep-lift", missing, change, size, _INSTEAD.get(model.kind, _INSTEAD["classifier"]))
    return maps
