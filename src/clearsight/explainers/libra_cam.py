"""Lee & Han 2022, IJCAI, doi:10.24963/ijcai.2022/442; references as in Contrast-CAT (arXiv:2507.21186)."""

import torch
from torch import Tensor

from clearsight.core import diagnostics
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.forwards import coarse_type, too_coarse
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.libra import References, references_for
from clearsight.internals.layers import activations_and_gradients, enlarge, find_layer
from clearsight.perturbation.map_thresholds import (
    calibrated,
    chances,
    check_threshold,
    mask_by_map,
    stretched,
    without_lowest,
    worth_keeping,
)


@method(paper="doi:10.24963/ijcai.2022/442", claims="class-sensitive needs-convolutions")
def libra_cam(
    model: Classifier,
    x: Tensor,
    target: Target,
    *,
    references: str = "",
    count: int = 30,
    most: float = 0.1,
    filtering: bool = True,
    threshold: float | None = None,
    layer: str = "auto",
) -> Tensor:
    """How one layer's channels differ from those of pictures without the class, times the target's gradient there.

    x (B, C, *S) in [0, 1] -> (B, *S), from 0 to 1, without a unit.  To first order, the target's difference from a
    reference is the sum over the layer of gradient times difference of activations.  Summed over the channels alone,
    this is a map for each reference, stretched from 0 to 1.  The result is the mean of the maps through which the
    picture is seen best.

    Without references there are stand-ins, which are ours and not the paper's: the mean colour alone, and the picture
    itself cut into 2, 3, 4, 6, 8, 12 and 16 pieces along each side, in another order.  For the demo model they do as
    well by the paper's measures (see benchmarks/libra_table.md), but they compare the picture with itself, not with
    other pictures.

    What is seen through a map is mixed with the mean colour (0 after normalisation).  The probability is that of the
    target's class, also where the target is its logit; for "a rather than b" it is that of a among the two.

    The method costs two forward passes, a backward pass from the layer, one forward pass for each reference (two for a
    stand-in), and ten for the threshold.  The library of references is built once for a network and kept in the user's
    cache folder, at most 256 MB of it: from a larger folder an even spread is taken.

    Diagnostics: "references" (those that were taken), "references kept", "probability in references" (the mean over
    those kept), "threshold" (per cent) and "completeness residual" (mean over those kept: the map before stretching,
    summed, minus the target's difference from the reference; 0 where the network is linear behind the layer).

    Args:
        references: folder of pictures, such as the model's training data (a CSV and "demo" are taken too; of splits,
            train).  For each class those are taken that the model finds least probable to show it.  Empty takes the
            stand-ins.
        count: number of references for each picture, at least 1.
        most: probability of the class below which a picture counts as a reference, above 0 and up to 1; where no
            stand-in is below it, the mean colour remains.
        filtering: keep only maps that make the class more probable where the picture is seen through them, and that are
            not more than a standard deviation below the mean of these (see map_thresholds.worth_keeping); false keeps
            all.
        threshold: per cent of the places, the lowest, that are set to 0, from 0 to 90; none tries 0, 10, ... 90 for
            each picture and takes the one under which the class's probability rises most.
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Behind one averaged channel the map is that channel, minus the black of the mean colour; no other order of these
    pieces makes the class improbable enough:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> libra_cam(pooled([[4.0], [0.0]]), torch.tensor([[[[0.0, 0.25, 0.5]]]]), ClassScore(0)).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    check_threshold(threshold, "libra-cam")
    if count < 1 or not 0 < most <= 1:
        raise Refused(
            f"libra-cam(count={count}, most={most:g}): count must be at least 1, and the probability most above 0"
        )
    if model.scores == "values":
        raise Refused(
            "libra-cam needs the probability of a class, but the model gives values (regression): use grad-cam"
        )
    layer = find_layer(model, x, layer)
    coarse = coarse_type(model.net)
    if coarse is not None:  # the smallest difference decides which reference counts
        raise Refused(*too_coarse(coarse, "the scores that libra-cam compares"))
    a, g = activations_and_gradients(model, x, target, layer)
    with torch.no_grad():
        logits = model(x)
        before = chances(model, target, logits)
        them = references_for(model, x, target, layer, references, count, most)
        base = torch.cat([_base_maps(a[i], g[i], r.activations) for i, r in enumerate(them)])
        owner = torch.cat([torch.full((len(r.logits),), i) for i, r in enumerate(them)])
        maps = stretched(base)
        keep = _kept(model, x, target, maps, owner, before) if filtering and len(owner) > len(x) else owner >= 0
        mean = torch.stack([maps[keep & (owner == i)].mean(0) for i in range(len(x))])
        cam = enlarge(mean, x.shape[2:]).float()
        if threshold is None:
            cam, chosen = calibrated(model, x, target, cam, before)
        else:
            cam, chosen = without_lowest(cam, threshold), cam.new_full((len(x),), threshold)
        diagnostics.note("threshold", chosen)
        _note(model, target, logits, them, base, owner, keep)
    return cam


def _base_maps(a: Tensor, g: Tensor, references: Tensor) -> Tensor:
    """Each place's part in the target's difference from each reference: a, g (K, *s), (n, K, *s) -> (n, *s), signed."""
    return (g * (a - references.to(a))).sum(1)


def _kept(model: Classifier, x: Tensor, target: Target, maps: Tensor, owner: Tensor, before: Tensor) -> Tensor:
    """Which of the maps (n, *s), each of the picture owner (n,), are worth keeping: (n,) bool."""
    rises = before.new_empty(len(maps))
    for k, _ in pairs(len(maps), 1):
        rows = owner[k]
        masked = mask_by_map(model, x[rows], enlarge(maps[k], x.shape[2:]).to(x))
        rises[k] = chances(model, target[rows], model(masked)) - before[rows]
    return torch.cat([worth_keeping(rises[owner == i]) for i in range(len(x))]).cpu()


def _note(
    model: Classifier, target: Target, logits: Tensor, them: list[References], base: Tensor, owner: Tensor, keep: Tensor
) -> None:
    score = target(logits)
    residual, chance = [], []
    for i, r in enumerate(them):
        kept = keep[owner == i].nonzero()[:, 0]
        away = r.logits[kept].to(logits)
        same = target[torch.full((len(kept),), i)]
        gap = score[i] - same(away)
        residual.append((base[owner == i][kept].flatten(1).sum(1) - gap).mean())
        chance.append(chances(model, same, away).mean())
    diagnostics.note("references", torch.tensor([len(r.logits) for r in them]))
    diagnostics.note("references kept", torch.stack([keep[owner == i].sum() for i in range(len(them))]))
    diagnostics.note("probability in references", torch.stack(chance))
    diagnostics.note("completeness residual", torch.stack(residual))
