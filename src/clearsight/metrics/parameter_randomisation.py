"""Adebayo et al. 2018, arXiv:1810.03292, section 4."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.places import occupied
from clearsight.core.remembered import digest, once
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.randomisation import Unlearnt, again_from, cuts, fresh, scores_now, unlearnt
from clearsight.metrics.common.likeness import Likeness, likeness

Order = Literal["cascading", "independent"]
KEPT = 128 * 2**20  # bytes of a network's parameters up to which a random one is kept for the next explainer


@method(paper="arXiv:1810.03292", claims="lower-is-better stochastic judges-the-explainer")
def parameter_randomisation(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    *,
    again: Callable[[Model, Tensor], Tensor],
    order: Order = "cascading",
    by: Likeness = "spearman",
    magnitude: bool = False,
    stages: int = 4,
) -> Tensor:
    """Likeness of the map to those of networks whose layers were drawn anew at random: low is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,): the mean over stages of the likeness to the map of a network in which
    layers are drawn anew.  BatchNorm and its statistics are drawn too, and weights that are computed from others
    (weight_norm, spectral_norm) are drawn as plain ones.  A map that becomes constant is not alike and counts 0; nan
    where it was constant before.

    Layers that are as a fresh network has them, such as a BatchNorm that was never trained, change nothing when they
    are drawn; such a stage is left out of the mean.

    Args:
        order: cascading draws the layers from the output to the input, until all are random; independent draws one
            layer at a time, at equal distances, and leaves all others as learnt.
        by: how likeness is measured: spearman, the magnitude of the correlation of the places' ranks, or ssim, the
            magnitude of SSIM.
        magnitude: compare |map| instead of the map.
        stages: number of networks with random layers, from 1.

    Refused: networks that cannot be copied or hold quantised weights, and those in which a layer uses its old weights
    after they were drawn, or whose scores for a picture stay the same: their maps are not those of a random network.

    Source: Adebayo et al. 2018, section 4.

    An edge detector does not look at the network:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> from clearsight.runner.run import explain, measure
    >>> model, x = linear([[2.0, 1.0, 4.0], [0.0] * 3]), torch.tensor([[[[0.1, 0.9, 0.8]]]])
    >>> maps = explain(model, x, "edge").maps
    >>> measure(model, x, maps, "parameter-randomisation", method="edge").item()
    1.0
    """
    if stages < 1:
        raise Refused(f"stages must be at least 1, not {stages}")
    if stages == 1 and order == "cascading" and _bytes(model) <= KEPT:  # one network, the same for every explainer
        networks: Iterable[Model] = _random_network(model, x)
    else:
        networks = _random_networks(model, x, order, stages)
    inside = occupied(model, x)
    likenesses = [likeness(maps, again(random, x), by, magnitude, inside).abs() for random in networks]
    if not likenesses:
        raise Refused(
            "no layer of this network changes the scores when its parameters are drawn at random: there is no random "
            "network to compare it with"
        )
    return torch.stack(likenesses).mean(0)


def _bytes(model: Model) -> int:
    return sum(p.nbytes for p in model.net.parameters())


def _random_network(model: Model, x: Tensor) -> list[Model]:
    """The network with all layers drawn anew, one for all explainers and pictures; none if its scores stay the same."""
    seed = torch.initial_seed()
    drawn = once(model.net, ("random", seed, x.shape[1:]), lambda: _all_drawn(model, x), longest=True)
    differs = once(model.net, ("differs", seed, digest(x)), lambda: drawn.check(x, scores_now(model, x)))
    return [drawn.model] if differs else []


def _all_drawn(model: Model, x: Tensor) -> Unlearnt:
    start = unlearnt(model, x[:1])
    _draw(start, 0, len(start.layers))
    return start


def _draw(taken: Unlearnt, last: int, cut: int) -> None:
    """Draw the layers from last to cut anew, from the seed that goes with the cut."""
    with torch.random.fork_rng(devices=rng.gpus()):
        rng.seed_torch(fresh(torch.initial_seed(), cut))
        taken.draw(taken.layers[last:cut])


def _random_networks(model: Model, x: Tensor, order: Order, stages: int) -> Iterator[Model]:
    """One network after the other, each with its layers drawn anew; those whose scores stay as they are, left out."""
    start = unlearnt(model, x[:1])
    layers, logits = start.layers, scores_now(start.model, x)
    chosen = cuts(len(layers), stages) if order == "cascading" else _apart(len(layers), stages)
    last, taken = 0, start
    for cut in chosen:
        if order == "independent":
            taken, last = again_from(start), cut - 1
        _draw(taken, last, cut)
        last = cut
        if taken.check(x, logits):
            yield taken.model


def _apart(layers: int, stages: int) -> list[int]:
    """The numbers, counted from 1, of layers at equal distances, one for each stage; the first is among them.

    >>> _apart(9, 3), _apart(2, 4)
    ([1, 5, 9], [1, 2])
    """
    if stages == 1:
        return [1]
    return sorted({round(1 + (layers - 1) * k / (stages - 1)) for k in range(stages)})
