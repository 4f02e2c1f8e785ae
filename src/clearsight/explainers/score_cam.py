"""Wang et al. 2020, arXiv:1910.01279, section 3 (algorithm 1)."""

from typing import Literal

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.layers import activations, enlarge, find_layer
from clearsight.perturbation.map_thresholds import chances, mask_by_map, stretched
from clearsight.perturbation.removal import flat


@method(paper="arXiv:1910.01279", claims="class-sensitive needs-convolutions")
def score_cam(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    mode: Literal["paper", "reference"] = "paper",
    scores: Literal["probability", "target"] = "probability",
    channels: int | None = None,
    layer: str = "auto",
) -> Tensor:
    """The channels of one layer, each weighted by the score of the picture seen through it, summed and rectified.

    x (B, C, *S) in [0, 1] -> (B, *S), >= 0, in units of the layer's activations (in mode reference, times a
    probability).  Each channel is enlarged and then stretched from 0 to 1 to be a mask; what it hides becomes the mean
    colour (0 after normalisation).  The method costs one forward pass for each channel that is not the same everywhere.

    Args:
        mode: "paper" takes the softmax of the scores over the channels as weights; a channel that is the same
            everywhere shows only the mean colour and has its score, and the paper's baseline f(X_b) is left out because
            it would change nothing.  "reference" is the authors' code: the scores themselves are the weights, and
            channels that are the same everywhere are left out.
        scores: "probability" scores by the probability of the target's class, also where the target is its logit; the
            softmax of probabilities is nearly even, so the map is close to the channels' mean, whatever the class.
            "target" scores by the target as it is; the softmax of logits is nearly one channel alone.
        channels: number of channels to score, those of the largest sum of squares; none is all.  The others take the
            mean score of these in mode paper, and are left out in mode reference.  On rectified maps, as the demo
            network's last are, few do: `benchmarks/score_cam.md` has the rank correlation with the whole map.
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.  Networks that
            expand the channels once more at the end, as EfficientNet does, have fewer in the last block before
            (blocks.6 there), which takes half the passes and is another map.

    Refused: channels below 1.

    One channel alone has all the weight:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> score_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 0.5]]]]), ClassScore(0)).tolist()
    [[[0.0, 0.5]]]
    """
    if channels is not None and channels < 1:
        raise Refused(f"score-cam(channels={channels}): channels must be at least 1, or none for all")
    layer = find_layer(model, x, layer)
    a, _ = activations(model, x, layer)
    with torch.no_grad():
        weights = _weights(model, x, target, a, channels, of_the_class=scores == "probability", paper=mode == "paper")
        cam = (weights.to(a).view(*weights.shape, *[1] * (a.dim() - 2)) * a).sum(1)
    return enlarge(cam.relu(), x.shape[2:]).float()


def _weights(
    model: Model, x: Tensor, target: Target, a: Tensor, channels: int | None, *, of_the_class: bool, paper: bool
) -> Tensor:
    """The weight of each channel, (B, K)."""

    def score(question: Target, outputs: Tensor) -> Tensor:
        return chances(model, question, outputs) if of_the_class else question(outputs)

    values = a.flatten(2)
    says_something = values.amax(2) > values.amin(2)
    weights = x.new_zeros(a.shape[:2])
    if paper and not bool(says_something.all()):
        nothing = score(target, model(flat(model, x[:1])).expand(len(x), -1))
        weights += nothing[:, None]
    scored = says_something if channels is None else says_something & _strongest(values, says_something, channels)
    todo = scored.nonzero()
    for i, _ in pairs(len(todo), 1):
        rows, k = todo[i].T
        masks = stretched(enlarge(a[rows, k].to(x), x.shape[2:]))
        weights[rows, k] = score(target[rows], model(mask_by_map(model, x[rows], masks)))
    if not paper:
        return weights
    mean = (weights * scored).sum(1, keepdim=True) / scored.sum(1, keepdim=True).clamp_min(1)
    return torch.where(says_something & ~scored, mean, weights).softmax(1)


def _strongest(values: Tensor, says_something: Tensor, channels: int) -> Tensor:
    """Which channels of values (B, K, places) have the largest sum of squares, of those that say something: (B, K)."""
    energy = values.float().square().sum(2).masked_fill(~says_something, -1)
    order = energy.sort(dim=1, descending=True, stable=True).indices[:, :channels]
    return torch.zeros_like(says_something).scatter(1, order, True)
