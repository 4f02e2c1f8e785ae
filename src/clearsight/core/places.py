"""Which places of an input hold something: all of a picture's, and of a text those up to its last character."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.model import Model


def occupied(model: Model, x: Tensor) -> Tensor | None:
    """bool (B, *S): the places of inputs x (B, C, *S) that hold something; None where all do, as in pictures.

    A text ends with its last character.  Behind that a map says nothing of it, and nothing can be taken away.

    >>> import torch
    >>> from clearsight.testing import linear_text
    >>> model = linear_text([[[0.0] * 4] * 2] * 2, alphabet="a")
    >>> occupied(model, torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])).tolist()
    [[True, True, True, False]]
    """
    if not model.preprocess.alphabet:
        return None
    used = (x.amax(1) > 0).int()
    return used.flip(1).cummax(1).values.flip(1) > 0


def cropped(maps: Tensor, inside: Tensor | None) -> list[Tensor]:
    """Maps (B, *S), each at the places inside (B, *S) alone: (n,) each; as they are where inside is None."""
    return list(maps) if inside is None else [m[here.to(m.device)] for m, here in zip(maps, inside, strict=True)]


def share_inside(model: Model, x: Tensor, regions: Tensor) -> Tensor:
    """(B,) the share of the places of inputs x (B, C, *S) that hold something and lie in regions (B, *S) bool."""
    inside = occupied(model, x)
    places = regions[0].numel() if inside is None else inside.flatten(1).sum(1).clamp_min(1).to(regions.device)
    return regions.flatten(1).float().sum(1) / places
