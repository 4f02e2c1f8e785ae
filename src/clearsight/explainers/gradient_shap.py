"""Lundberg & Lee 2017, arXiv:1705.07874, by the expected gradients of Erion et al. 2021, arXiv:1906.10670."""

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.core import diagnostics, rng
from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.background import background
from clearsight.explainers.common.completeness import note_missing, size_of
from clearsight.explainers.common.gradient import many_passes, pixel_gradients
from clearsight.internals.fused_forward import fused_forward


@method(paper="arXiv:1705.07874", claims="signed class-sensitive stochastic learnable")
def gradient_shap(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    samples: int = 25,
    baseline: float | None = None,
    references: str | None = None,
    noise: float = 0.0,
) -> Tensor:
    """Gradients at random places on paths from random background pictures, times the paths, averaged.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: an estimate, from a number of samples, of SHAP
    values against a background.  The map sums to about target(x) minus the mean target of the background pictures that
    were drawn.  The diagnostic "completeness residual" is the sum's error.  No error is refused, because it falls with
    more samples.

    The background is one flat picture (baseline) or pictures of the user (references).  Where both are none, it is flat
    pictures, each of a random grey.

    Args:
        samples: gradients that are averaged for each picture, each at a random place on the path from a random
            background picture.
        baseline: pixel value of the flat background picture (0 is black); none takes references, or random greys.
        references: pictures that are the background, such as the training data: a folder, a CSV or "demo"; of more than
            64 pictures an even spread is taken.
        noise: standard deviation of Gaussian noise on the end of each path, as a share of the picture's own range; 0 is
            no noise.  Noisy copies are not cut to [0, 1].

    Refused: a baseline together with references.

    The gradient of a linear model is the same on all paths:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> gradient_shap(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), baseline=0.0).tolist()
    [[[1.5, -2.0]]]
    """
    if samples < 1 or not 0 <= noise < float("inf"):
        raise Refused(
            f"gradient-shap(samples={samples}, noise={noise:g}): samples must be at least 1, noise at least 0"
        )
    if baseline is not None and references is not None:
        raise Refused("gradient-shap: baseline and references both name a background: give one of them")
    along = [1] * (x.dim() - 1)
    flat = x.flatten(1)
    sigma = noise * (flat.amax(1) - flat.amin(1)).view(-1, *along)
    chance = rng.uniform(x.new_empty(len(x), samples, 2))  # all at once: taking turns with the noise, it would differ
    them = None if references is None else background(model, x, references)

    def begin(rows: Tensor, k: Tensor) -> Tensor:
        which = chance[rows, k, 1].view(-1, *along)
        if them is not None:
            return them[(which.flatten() * len(them)).long()]
        return which if baseline is None else torch.full_like(which, baseline)

    total = torch.zeros_like(x)
    with many_passes(model, x, len(x) * samples):
        for rows, k in pairs(len(x), samples, backward=True):
            part, start, end = chance[rows, k, 0].view(-1, *along), begin(rows, k), x[rows]
            if noise:
                end = end + sigma[rows] * rng.normal(end, rows)
            g = pixel_gradients(model, start + part * (end - start), target[rows])
            total.index_add_(0, rows.to(x.device), g * (end - start))
    maps = (total / samples).sum(1)
    _note_residual(model, x, target, maps, begin, samples if baseline is None else 1)
    return maps


def _note_residual(
    model: Model,
    x: Tensor,
    target: Target,
    maps: Tensor,
    begin: Callable[[Tensor, Tensor], Tensor],
    different: int,
) -> None:
    """Note how far each map's sum is from the target's change from the pictures where its paths begin, on average.

    different: how many of these there are for each picture.  One more forward for each, and one for the picture itself,
    where anybody reads it.
    """
    if not diagnostics.wanted():
        return
    with torch.no_grad(), fused_forward(model, x, len(x) * different):
        clean_logits = model(x).float()
        baseline_scores, sizes = (torch.zeros(len(x), different, device=x.device) for _ in range(2))
        for rows, k in pairs(len(x), different):
            logits = model(begin(rows, k).expand(-1, *x.shape[1:])).float()
            baseline_scores[rows, k] = target[rows](logits)
            sizes[rows, k] = size_of(target[rows], logits)
        change = target(clean_logits) - baseline_scores.mean(1)
    note_missing(maps.flatten(1).sum(1) - change, change, torch.maximum(sizes.amax(1), size_of(target, clean_logits)))
