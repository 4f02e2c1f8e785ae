"""An attack on explanations: it changes the map and keeps the answer.

Ghorbani, Abid & Zou 2019, arXiv:1710.10547; a softplus in place of the ReLU, whose second
derivative is zero, Dombrowski et al. 2019, arXiv:1906.07983, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx

from clearsight.core import rng
from clearsight.core.batching import bounded
from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import Call, parse, write_value
from clearsight.core.classifier import Classifier
from clearsight.core.norms import USUAL, Norm, per_picture, project, steepest, within
from clearsight.core.passes import counted
from clearsight.core.similarity import average_ranks, spearman
from clearsight.core.targets import ClassScore, Margin
from clearsight.core.validation import check_pixels, top_class
from clearsight.errors import Refused
from clearsight.internals.graph import Graph, Rule
from clearsight.internals.layers import enlarge
from clearsight.internals.recording import graph_of
from clearsight.internals.scores import scores
from clearsight.internals.second_order import second_order_rules
from clearsight.runner.run import explain, resolve
from clearsight.runner.sharded import require_cpu, spelled
from clearsight.sharding.shards import spread

Through = Literal["saliency", "gradient-x-input", "grad-cam", "cam"]  # maps that we can differentiate
THROUGH: tuple[Through, ...] = ("saliency", "gradient-x-input", "grad-cam", "cam")
_FIRST_ORDER = frozenset({"cam"})  # whose weights are those of the dense layer, the same for every picture
_TIGHT = 0.2  # share of its first lead below which steps also raise the lead


@dataclass(frozen=True, eq=False)
class MovedMap:
    """Pictures whose map was moved while the answer stayed.

    x, clean (B, C, *S): x within eps of clean in the norm; before, after (B, *S): the maps that ``method`` makes of
    them, for the top class of the clean picture; correlation (B,): Spearman's, of the two maps, 1 where nothing moved.
    kept (B,) bool: the top class is the same, counted again.  through: the explainer whose map was followed.
    forwards, backwards: passes per picture, those of the reported maps apart.
    """

    x: Tensor
    clean: Tensor
    before: Tensor
    after: Tensor
    correlation: Tensor
    kept: Tensor
    target: ClassScore
    method: str
    through: str
    signed: bool
    eps: float
    norm: Norm
    seed: int
    forwards: float
    backwards: float
    seconds: float

    def __repr__(self) -> str:
        n = len(self.x)
        mean = float(self.correlation.mean())
        return (
            f"<MovedMap of {self.method}, eps {write_value(self.eps)}, {n} pictures, mean rank correlation {mean:.3g}>"
        )


def move_map(
    model: Classifier,
    x: Tensor,
    method: str | Call = "gradient-x-input",
    *,
    eps: float | None = None,
    steps: int = 20,
    step: float | None = None,
    norm: Norm = "linf",
    beta: float = 10.0,
    through: Through | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> MovedMap:
    """Change pictures so that the map of an explainer becomes as unlike as possible while the answer stays.

    From a random point within eps, steepest descent goes down the correlation of the map with the ranks of the clean
    one.  Where the answer comes to lose more than four fifths of its lead, the steps also raise the lead.  Of all
    iterates with the same top class, the clean picture among them, the one with the least rank correlation is kept for
    each picture.  A step costs two forward passes, one backward pass and the backward pass of that, which takes about
    as long as all before; where cam is followed, one forward pass and one backward pass.  A seed gives the same result
    for any batch and order.

    Args:
        model: the classifier whose maps are moved.
        x: pictures (B, C, *S) in [0, 1].
        method: the explainer whose map is to change.
        eps: the budget in pixels, of the norm; by default 8/255 for linf and 0.5 for l2.
        steps: number of steps.
        step: size of one step; by default eps / 5.
        norm: "linf" or "l2".
        beta: sharpness of the softplus that stands for a ReLU while the slope is taken, in units of one over the
            layer's mean magnitude; the maps themselves are always the network's own.
        through: whose map is followed where ``method`` is not saliency, gradient-x-input, grad-cam or cam; by default
            grad-cam at the same layer for what weights a layer by the class, gradient-x-input for all others.
        seed: start of all randomness.
        batch: number of pictures that go through the network at a time; None as in `explain`.

    Refused: networks that cannot be taken apart into their operations, budgets outside of [0, 1] in linf, and models
    whose answer is not one of several classes.
    """
    eps = USUAL[norm] if eps is None else eps
    if not 0 <= eps < float("inf") or (eps > 1 and norm == "linf"):
        raise Refused(f"eps {eps:g}: give a budget from 0 to 1, in pixels in [0, 1] (8/255)")
    if steps < 1 or (step is not None and not step > 0):
        raise Refused(f"move_map(steps={steps}, step={step}): give at least one step, of a size above 0")
    if not beta > 0:
        raise Refused(f"beta={beta:g}: give a sharpness of the softplus above 0")
    if not model.one_of_many:
        raise Refused(f"the model's outputs are {model.scores}, without one class as the answer: use a classifier")
    require_cpu(model)
    wanted = parse(method, "explainers")
    x = check_pixels(model, x)
    began = time.perf_counter()
    with model.undisturbed(), rng.seeded(seed, x[:1]):
        logits = scores(model, x, batch)
        target = top_class(model, logits)
        followed = resolve(model, x[:1], _choose_followed(wanted, through))
        with bounded(model, x[:1], batch) as most:
            most = max(1, most // 3)  # what a pass keeps is kept once more for each further derivative
        shared = (model, spelled(followed, "explainers"), eps, steps, step, norm, beta, seed)
        slices = [slice(start, start + most) for start in range(0, len(x), most)]
        moved, forwards, backwards = zip(
            *spread(_move_shard, shared, ((x[rows], target[rows]) for rows in slices)), strict=True
        )
        z = project(torch.cat(moved), x, eps, norm)
        kept = scores(model, z, batch).argmax(1) == logits.argmax(1)
    before, after = (explain(model, p, wanted, target, seed=seed, batch=batch) for p in (x, z))
    correlations = [float(_rank_correlation(b, a)) for b, a in zip(before.maps, after.maps, strict=True)]
    return MovedMap(
        x=z.cpu(),
        clean=x.cpu(),
        before=before.maps,
        after=after.maps,
        correlation=torch.tensor(correlations),
        kept=kept,
        target=target,
        method=before.method,
        through=str(followed),
        signed=before.signed or after.signed,
        eps=eps,
        norm=norm,
        seed=seed,
        forwards=sum(forwards) / len(x),
        backwards=sum(backwards) / len(x),
        seconds=time.perf_counter() - began,
    )


def _move_shard(
    shared: tuple[Classifier, str | Call, float, int, float | None, Norm, float, int], x: Tensor, target: ClassScore
) -> tuple[Tensor, int, int]:
    """Some of the pictures, moved; and the passes that it took, forwards and backwards."""
    model, followed, eps, steps, step, norm, beta, seed = shared
    call = parse(followed, "explainers")
    with model.undisturbed(), counted(model.net) as passes, rng.seeded(seed, x, "move-map"):
        moved = moved_pictures(model, x, target, call, eps, steps, step, norm, beta)
    return moved, passes.forwards, passes.backwards


def _choose_followed(wanted: Call, through: Through | None) -> Call:
    if through is not None and through not in THROUGH:
        raise Refused(f"through={through}: give one of {', '.join(THROUGH)}, whose maps can be differentiated")
    if wanted.method.name in THROUGH and through in (None, wanted.method.name):
        return wanted
    reads_layer = "layer" in wanted.method.options and "class-sensitive" in wanted.method.claims
    followed = parse(through or ("grad-cam" if reads_layer else "gradient-x-input"), "explainers")
    if "layer" in wanted.options and "layer" in followed.method.options:
        return followed.with_options(layer=wanted.options["layer"])
    return followed


def _rank_correlation(before: Tensor, after: Tensor) -> float:
    """Spearman's correlation of two maps (*S); 1 where they are the same, constant or not."""
    if torch.equal(before, after):
        return 1.0
    return spearman(before.double().numpy(), after.double().numpy())


def moved_pictures(
    model: Classifier,
    x: Tensor,
    target: ClassScore,
    call: Call,
    eps: float,
    steps: int,
    step: float | None,
    norm: Norm,
    beta: float,
) -> Tensor:
    """Pictures within eps of x whose maps are least like the clean ones, with the same answer; see ``move_map``."""
    layer = call.options.get("layer", "")
    graph = graph_of(model, x[:1], layer)
    lead = Margin(target.index)
    rows = torch.arange(len(x), device=x.device)
    length = eps / 5 if step is None else step
    first, clean = (v.detach() for v in differentiable_map(model, graph, x, target, call, {}))
    ranks = centred_ranks(clean)
    margin = lead(first)
    best = BestSoFar(x)
    best.see(rows, x, torch.ones(len(x)), torch.ones(len(x), dtype=torch.bool))
    z = within(x, eps, norm)
    for i in range(steps + 1):
        seen = maps_and_lead(model, graph, z, target, call, lead, margin, ranks)
        best.see(rows, z, rank_correlations(clean, ranks, seen.maps), seen.out.argmax(1) == target.index.to(x.device))
        if i == steps:
            return best.x
        slope = seen.slope
        if slope is None:
            slope = correlation_gradient(model, graph, z, target, call, ranks, beta)
        way = steepest(slope, norm)
        if seen.rise is not None:
            way = torch.where(per_picture(seen.tight, x), way - 2 * steepest(seen.rise, norm), way)
            way = steepest(way, norm)
        z = project(z - length * way, x, eps, norm)
    raise AssertionError("the last iterate is returned above")


class Look(NamedTuple):
    """What one pass says of pictures (B, C, *S).

    out (B, K): logits.  maps (B, *S).  tight (B,) bool: whose lead is small.  rise: the gradient of the leads at the
    pictures, None where none is tight.  slope: that of the correlation with the clean map's ranks; None where the map
    is made of gradients, so that another pass has to find it.
    """

    out: Tensor
    maps: Tensor
    tight: Tensor
    rise: Tensor | None
    slope: Tensor | None


def maps_and_lead(
    model: Classifier,
    graph: Graph,
    z: Tensor,
    target: ClassScore,
    call: Call,
    lead: Margin,
    margin: Tensor,
    ranks: Tensor,
) -> Look:
    """Look at pictures z (B, C, *S), by one pass and its ways back."""
    p = z.detach().requires_grad_()
    scored, maps = differentiable_map(model, graph, p, target, call, {})
    out = scored.detach()
    tight = lead(out) < _TIGHT * margin
    rises = bool(tight.any())
    slope = _slope(maps, ranks, p, again=rises) if call.method.name in _FIRST_ORDER else None
    rise = torch.autograd.grad(lead(scored).sum(), p)[0] if rises else None
    return Look(out, maps.detach(), tight, rise, slope)


def rank_correlations(clean: Tensor, ranks: Tensor, maps: Tensor) -> Tensor:
    """Spearman's correlations (B,) of maps with the clean ones (B, *S), whose centred ranks are known."""
    alike = (ranks * centred_ranks(maps)).flatten(1).sum(1)
    same = (clean == maps).flatten(1).all(1).to(alike.device)
    return torch.where(same, 1.0, alike).float()


def centred_ranks(maps: Tensor) -> Tensor:
    """The ranks of each map's places (B, *S), their mean taken off, of length 1; 0 where the map is constant."""
    ranks = torch.stack([torch.from_numpy(average_ranks(m.cpu().double().numpy())) for m in maps])
    ranks = ranks - ranks.mean(1, keepdim=True)
    unit: Tensor = ranks / ranks.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit.view(maps.shape)


def correlation_gradient(
    model: Classifier, graph: Graph, z: Tensor, target: ClassScore, call: Call, ranks: Tensor, beta: float
) -> Tensor:
    """The gradient, at pictures z (B, C, *S), of the map's correlation with the clean map's ranks."""
    p = z.detach().requires_grad_()
    _, maps = differentiable_map(model, graph, p, target, call, second_order_rules(beta), again=True)
    return _slope(maps, ranks, p, again=False)


def _slope(maps: Tensor, ranks: Tensor, p: Tensor, *, again: bool) -> Tensor:
    """The gradient, at pictures p (B, C, *S), of the correlation of their maps (B, *S) with ranks.

    again: whether the pass is gone back through once more.
    """
    with torch.enable_grad():
        flat = maps.flatten(1)
        usual = flat.detach().abs().mean(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
        even = flat / (flat.abs() + usual)  # near to ranks: one large value counts little more than a middling one
        even = even - even.mean(1, keepdim=True)
        alike = (even * ranks.to(flat).flatten(1)).sum(1) / even.norm(dim=1).clamp_min(1e-12)
    if not alike.requires_grad:
        return torch.zeros_like(p)  # a map that is the same for every picture
    (g,) = torch.autograd.grad(alike.sum(), p, retain_graph=again, allow_unused=True)
    return torch.zeros_like(p) if g is None else g.nan_to_num(0)


def differentiable_map(
    model: Classifier,
    graph: Graph,
    z: Tensor,
    target: ClassScore,
    call: Call,
    rules: Mapping[str, Rule],
    *,
    again: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the maps (B, *S) of one of THROUGH, that can be differentiated ``again``.

    The logits can be differentiated at z (B, C, *S) where that requires a gradient.
    """
    captured: list[Tensor] = []

    def capture(_graph: Graph, _node: fx.Node, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Tensor:
        captured.append(args[0])
        return captured[0]

    p = z if z.requires_grad else z.detach().requires_grad_()
    with torch.enable_grad():
        out = graph(model.normalised(p).to(model.dtype), {**rules, "mark": capture}).to(p.dtype)
        at = captured[0] if captured else p
        score = target(out).sum()
        (g,) = torch.autograd.grad(score, at, create_graph=again, retain_graph=again or p is z)
        if call.method.name == "cam":
            return out, enlarge((g.detach() * at).sum(1) * at[0, 0].numel(), z.shape[2:]).to(p.dtype)
        if call.method.name == "grad-cam":
            cam = (g.mean(tuple(range(2, at.dim())), keepdim=True) * at).sum(1).relu()
            return out, enlarge(cam, z.shape[2:]).to(p.dtype)
        if call.method.name == "gradient-x-input":
            return out, (g * (p - call.options.get("reference", 0.0))).sum(1)
        return out, g.abs().amax(1) if call.options.get("absolute", True) else g.sum(1)
