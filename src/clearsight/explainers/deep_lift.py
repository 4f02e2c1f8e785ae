"""Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685, section 3.5.1 (rescale rule)."""

from __future__ import annotations

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
        return _in_parts(model, graph, x, target, baseline, is_new=is_new)

    return with_graph(model, x, run)


def _in_parts(model: Model, graph: Graph, x: Tensor, target: Target, baseline: float, *, is_new: bool) -> Tensor:
    """As many pictures at once as memory holds; is_new: the logits of the first ones are held against the network's."""
    last = in_pieces(graph) and may_lie_last(model, graph, x[:1])
    before = _before(graph, _flat(model, x[:1], baseline, last), baseline)
    alike = fits_every_picture(graph, before)
    together = 1  # of one picture it need not be measured how many fit
    if len(x) > 1:
        z = model.normalised(x[:1]).to(model.dtype)
        together = graph.at_once(z, work=4, more=1) if alike else graph.at_once(z, work=4, copies=2)
    maps: list[Tensor] = []
    together = -(-len(x) // -(-len(x) // together))  # as many in each portion: one alone costs more than its share
    for rows in torch.split(torch.arange(len(x)), together):
        some, asked = (x, target) if len(rows) == len(x) else (x[rows.to(x.device)], target[rows])
        if not alike:
            before = _before(graph, _flat(model, some, baseline, last), baseline)
        p = some.detach().requires_grad_()
        out = _run(model, graph, p, before, 1 if alike else len(p), last)
        if is_new and not maps:
            hold(model, some, out)
        note_first_pass(model, some, out)
        maps.append(_map(model, p, out, before[graph.end], asked, baseline))
    return maps[0] if len(maps) == 1 else torch.cat(maps)


def _flat(model: Model, x: Tensor, baseline: float, last: bool) -> Tensor:
    """The baseline as the network is given it, as many times as there are pictures x."""
    return ordered(model.normalised(torch.full_like(x, baseline)).to(model.dtype), last)


def _before(graph: Graph, z: Tensor, baseline: float) -> Values:
    """All values of the baseline, normalised as z (B, C, *S)."""
    with torch.no_grad():
        before = graph.values(z)
    if not bool(before[graph.end].isfinite().all()):
        raise Refused(
            f"deep-lift: the scores of the baseline, a flat picture of {baseline:g}, are not finite: give another "
            "baseline="
        )
    return before


def _run(model: Model, graph: Graph, p: Tensor, before: Values, pictures: int, last: bool) -> Tensor:
    with torch.enable_grad():
        return graph(ordered(model.normalised(p).to(model.dtype), last), rules(graph, before, pictures))


def _map(model: Model, p: Tensor, out: Tensor, before: Tensor, target: Target, baseline: float) -> Tensor:
    logits, baseline_logits = out.detach().float(), before.float().expand_as(out)
    g = vjp(out, p, slope(target, logits, baseline_logits))
    with torch.no_grad():
        maps = (g * (p - baseline)).sum(1)
        change = target(logits) - target(baseline_logits)
        missing = maps.flatten(1).sum(1, dtype=torch.float64) - change
    size = size_of(target, logits, baseline_logits)
    note_or_refuse("deep-lift", missing, change, size, _INSTEAD.get(model.kind, _INSTEAD["classifier"]))
    return maps
