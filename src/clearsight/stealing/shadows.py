"""Shadow networks: how sure networks are of a picture that were, and were not, trained on it.

Source: Carlini et al. 2022, arXiv:2112.03570: each picture trains half of the networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.errors import Refused
from clearsight.internals.scores import scores_of
from clearsight.stealing.clone import Lesson, answers_of, new_clone, train_clone
from clearsight.stealing.membership import Attack, Numbers, confidence, lira_scores, loss_scores

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shadows:
    """Confidences (M, N) of shadow networks, and which pictures (M, N) trained each of them."""

    confidences: Numbers
    inside: Flags


def halves(networks: int, pictures: int, seed: int) -> Flags:
    """Which pictures (networks, pictures) train each network: each picture half of them, drawn by itself.

    >>> halves(4, 5, 0).sum(0).tolist()
    [2, 2, 2, 2, 2]
    """
    order = np.random.default_rng(seed).random((networks, pictures)).argsort(0)
    found: Flags = order < networks // 2
    return found


def train_shadows(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    networks: int,
    lesson: Lesson,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shadows:
    """Train shadow networks for a model on halves of labelled pictures x (N, C, *S), y (N,).

    Refused: fewer than two networks, or an odd number of them.
    """
    if networks < 2 or networks % 2:
        raise Refused(f"{networks} shadow networks", "give an even number from 2: each picture trains half of them")
    inside = halves(networks, len(x), seed)
    shares = torch.nn.functional.one_hot(y, len(model.labels)).float()
    rows = []
    for k in range(networks):
        among = torch.from_numpy(inside[k])
        shadow = new_clone(lesson, model.preprocess, model.labels, seed + 1000 + k)
        train_clone(shadow, x[among], shares[among], lesson, seed=seed + 1000 + k)
        rows.append(confidence(answers_of(shadow)(x), y).numpy())
        if progress is not None:
            progress("training shadow networks", (k + 1) * len(x), networks * len(x))
    return Shadows(np.stack(rows), inside)


def membership_scores(model: Classifier, x: Tensor, y: Tensor, shadows: Shadows) -> dict[Attack, Numbers]:
    """The scores (N,) of every attack, larger for members."""
    logits = scores_of(model, x)
    own = confidence(logits, y).numpy()
    return {
        "loss": loss_scores(logits, y),
        "lira-offline": lira_scores(own, shadows.confidences, shadows.inside, online=False),
        "lira-online": lira_scores(own, shadows.confidences, shadows.inside, online=True),
    }
