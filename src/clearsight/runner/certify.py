"""Certify answers by randomised smoothing: Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918, section 3.2.2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import at_once, bounded, pairs
from clearsight.core.model import Model
from clearsight.core.settled import settled
from clearsight.core.statistics import clopper_pearson_lower, normal_quantile
from clearsight.core.validation import check_pixels
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.internals.soundness import alone

PURPOSE = "certify"  # for whom the noise is drawn


@dataclass(frozen=True)
class Certificates:
    """What was proven of the answers of a smoothed classifier, one of each for every picture.

    Args:
        classes: (B,) the class that a few draws of noise chose.
        counts: (B,) how many of the other draws gave that class.
        lower: (B,) float64, the lower bound on the probability of that class under noise.
        radii: (B,) float64, in L2 of pixels in [0, 1]; 0 where the smoothed classifier abstains.
        abstained: (B,) bool, whether the bound is no more than one half, so that nothing is proven.
    """

    classes: Tensor
    counts: Tensor
    lower: Tensor
    radii: Tensor
    abstained: Tensor


def certify(
    model: Model,
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    batch: int | None = None,
) -> Certificates:
    """Certify pictures x (B, C, *S) in [0, 1]: within its radius no change alters the smoothed classifier's answer.

    The smoothed classifier gives the class that the network gives most often when Gaussian noise is added to the
    picture.  The noise is not clipped to [0, 1], as in the paper.  n0 draws choose the class; n others count how often
    it comes; the Clopper-Pearson lower bound p of its probability gives the radius sigma * Phi^-1(p), or nothing where
    p is no more than one half.  Each certificate is wrong with a probability of at most alpha.  The noise belongs to
    the picture and the seed.

    Args:
        model: the classifier.
        x: pictures (B, C, *S) in [0, 1], as the model takes them.
        sigma: standard deviation of the noise, above 0, in units of pixels in [0, 1].
        n0: draws of noise that choose the class, at least 1.
        n: draws of noise that count it; at least as many as can prove anything.
        alpha: probability with which a certificate may be wrong, between 0 and 1.
        seed: start of all randomness.
        batch: maximum number of pictures that go through the network at once; None for as many as suit the network.

    Refused: options outside their ranges, and networks whose scores depend on the neighbours in the batch.
    """
    check_options(sigma=sigma, n0=n0, n=n, alpha=alpha)
    x = check_pixels(model, x)
    with settled(model.net), model.undisturbed(), rng.seeded(seed, x, PURPOSE), bounded(model, x[:1], None):
        alone(model, x[:1])
        classes = _class_counts(model, x, sigma, n0, batch).argmax(1)
        counts = _class_counts(model, x, sigma, n, batch).gather(1, classes[:, None])[:, 0]
    lower = torch.tensor([clopper_pearson_lower(k, n, alpha) for k in counts.tolist()], dtype=torch.float64)
    abstained = lower <= 0.5
    radii = torch.tensor([sigma * normal_quantile(max(p, 0.5)) for p in lower.tolist()], dtype=torch.float64)
    return Certificates(classes, counts, lower, radii, abstained)


def check_options(*, sigma: float, n0: int, n: int, alpha: float) -> None:
    """Refuse options with which nothing can be certified."""
    words = f"sigma={sigma:g}, n0={n0}, n={n}, alpha={alpha:g}"
    if not 0 < sigma < float("inf") or n0 < 1 or n < 1 or not 0 < alpha < 1:
        raise Refused(f"smoothing({words})", "give a sigma above 0, at least one draw each, an alpha between 0 and 1")
    if clopper_pearson_lower(n, n, alpha) <= 0.5:
        raise Refused(f"smoothing({words}) can certify nothing, even if all draws agree", "give more draws (n)")


def largest_radius(sigma: float, n: int, alpha: float) -> float:
    """The radius of a picture whose n draws all give one class: none can be larger.

    >>> round(largest_radius(1.0, 100_000, 0.001), 2)
    3.81
    """
    return sigma * normal_quantile(clopper_pearson_lower(n, n, alpha))


def _class_counts(model: Model, x: Tensor, sigma: float, draws: int, batch: int | None) -> Tensor:
    """How many draws of noise give each class, (B, K), for pictures x (B, C, *S)."""
    counts = torch.zeros(len(x), len(model.labels), dtype=torch.long)
    for rows, _ in pairs(len(x), draws, batch or at_once()):
        noisy = x[rows.to(x.device)]
        noisy = noisy + sigma * rng.normal(noisy, rows)
        classes = scores(model, noisy, len(noisy)).argmax(1)
        counts.index_put_((rows, classes), torch.ones_like(rows), accumulate=True)
    return counts
