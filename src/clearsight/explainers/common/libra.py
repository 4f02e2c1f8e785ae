"""The references that Libra-CAM compares a picture with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.references import library
from clearsight.internals.layers import activations
from clearsight.perturbation.map_thresholds import chances
from clearsight.perturbation.removal import flat

PIECES = (2, 3, 4, 6, 8, 12, 16)  # along each side: from whole parts of objects down to texture


@dataclass(frozen=True, eq=False)
class References:
    """Of one picture: what the model says to each, (n, classes), and what stands there at the layer, (n, K, *s)."""

    logits: Tensor
    activations: Tensor


def references_for(
    model: Classifier, x: Tensor, target: Target, layer: str, words: str, count: int, most: float
) -> list[References]:
    """Those of each picture of x (B, C, *S): of the library that words name, or, without one, made of itself."""
    if not words:
        return _stand_ins(model, x, target, layer, count, most)
    if len(model.preprocess.size) != 2 or x.shape[2:] != model.preprocess.size:
        raise Refused(
            f"the preprocessing makes libra-cam's references of size {model.preprocess.size}, but the explained "
            f"pictures have size {tuple(x.shape[2:])}: leave references= out"
        )
    known = library(model, words, layer)
    references = []
    for i in range(len(x)):
        best = _least(model, known.logits, target[torch.full((len(known.logits),), i)], count, most)
        if not len(best):
            (question, *_) = target[torch.tensor([i])].words(model.labels)
            raise Refused(
                f"none of the {len(known.logits)} references in {words} gives {question!r} a probability below "
                f"most={most:g}: add pictures that do not show it, or raise most"
            )
        references.append(References(known.logits[best], known.activations[best]))
    return references


def _least(model: Classifier, logits: Tensor, target: Target, count: int, most: float) -> Tensor:
    """The numbers of the references that show least of what is asked about: at most count, all below most."""
    chance = chances(model, target, logits.double())
    order = chance.argsort(stable=True)
    return order[chance[order] < most][:count]


def _stand_ins(model: Classifier, x: Tensor, target: Target, layer: str, count: int, most: float) -> list[References]:
    """The mean colour, and each picture in pieces out of order: of these, too, those that show least of the class.

    Where none is below most, the mean colour alone.
    """
    references = []
    for i in range(len(x)):
        versions = torch.cat([flat(model, x[:1]), *(out_of_order(x[i : i + 1], n) for n in PIECES)])
        a, logits = activations(model, versions, layer)
        best = _least(model, logits, target[torch.full((len(versions),), i)], count, most)
        best = best if len(best) else torch.zeros(1, dtype=torch.long)
        references.append(References(logits[best], a[best]))
    return references


def out_of_order(x: Tensor, n: int) -> Tensor:
    """Pictures (B, C, *S) cut into n parts along each side, the second, fourth, ... before the first, third, ...

    >>> out_of_order(torch.tensor([[[1, 2, 3, 4]]]), 4).tolist()
    [[[2, 4, 1, 3]]]
    """
    for axis in range(2, x.dim()):
        parts = x.tensor_split(min(n, x.shape[axis]), axis)
        x = torch.cat([*parts[1::2], *parts[::2]], axis)
    return x
