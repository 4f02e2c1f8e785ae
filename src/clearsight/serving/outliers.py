"""How unusual a picture is to a model: a score for each, and its place among those of reference pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.errors import Refused
from clearsight.serving.backend import Answers, Floats

NEIGHBOURS = 10
LEAST = 20  # reference pictures


@dataclass(frozen=True)
class Reference:
    """What reference pictures, such as those of the training set, look like to the model.

    confidences (N,): probability of each top class; scores (N,): how unusual each is among the others, sorted;
    directions (N, D): features of length 1, None where the model has none.
    """

    confidences: Floats
    scores: Floats
    directions: Floats | None

    @property
    def method(self) -> str:
        """What the scores are: "knn" or "max-logit"."""
        return "max-logit" if self.directions is None else "knn"


def reference_of(answers: Answers) -> Reference:
    """The reference that the answers to its pictures make.  Refused: fewer than 20 pictures."""
    n = len(answers.values)
    if n < LEAST:
        raise Refused(f"the reference has {n} pictures that can be read", f"give at least {LEAST}")
    if answers.features is None:
        return Reference(answers.values.max(1), np.sort(max_logit(answers)), None)
    directions = _directions(answers.features)
    between = directions @ directions.T
    np.fill_diagonal(between, -np.inf)  # nobody is a neighbour of itself
    return Reference(answers.values.max(1), np.sort(_distance_to_kth(between)), directions)


def outlier_scores(answers: Answers, reference: Reference | None) -> Floats:
    """How unusual each picture is (B,): the larger, the more.

    With a reference and features: the distance to the 10th nearest reference picture, between features of length 1.
    Otherwise the largest logit, with its sign turned.

    Sources: Sun, Ming, Zhu & Li 2022, arXiv:2204.06507, section 3; Hendrycks et al. 2022, arXiv:1911.11132, section 4.
    """
    if reference is None or reference.directions is None or answers.features is None:
        return max_logit(answers)
    return _distance_to_kth(_directions(answers.features) @ reference.directions.T)


def max_logit(answers: Answers) -> Floats:
    """The largest logit of each picture, with its sign turned.

    >>> max_logit(Answers(np.zeros((1, 2)), np.array([[3.0, -1.0]]))).tolist()
    [-3.0]
    """
    largest: Floats = answers.logits.max(1)
    return -largest


def shares_below(scores: Floats, reference: Reference) -> list[float]:
    """Which share of the reference pictures is less unusual than each score says."""
    return [float(v) for v in np.searchsorted(reference.scores, scores) / len(reference.scores)]


def _directions(features: Floats) -> Floats:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.maximum(length, np.finfo(np.float32).tiny)
    return unit


def _distance_to_kth(products: Floats) -> Floats:
    """(B,) the distance to the 10th nearest of unit vectors, from the products with all of them (B, N)."""
    k = min(NEIGHBOURS, products.shape[1] - 1)
    kth = np.partition(products, -k, axis=1)[:, -k]
    distance: Floats = np.sqrt(np.maximum(0, 2 - 2 * kth)).astype(np.float32)
    return distance
