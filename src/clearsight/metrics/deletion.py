"""Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3.3."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.perturbation.removal import Removal
from clearsight.perturbation.removal_order import area, curve


@method(paper="arXiv:1806.07421", claims="lower-is-better stochastic")
def deletion(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, steps: int = 20, fill: Removal = "mean"
) -> Tensor:
    """Area under the curve of the target while the most relevant places are removed first: low is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,), in units of the target (a probability by default).  Ties are broken by
    a seeded draw.

    Args:
        steps: number of equal portions in which places are removed.
        fill: what a removed pixel becomes: mean (of the preprocessing), black, blur (a strong one), or inpaint (solved
            from the pixels that are left).

    Source: Petsiuk, Das & Saenko 2018, section 3.3.

    Of 3 and 1, the 3 goes first, then the 1: 4, 1, 0 leaves an area of 1.5.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[2.0, 1.0]]])
    >>> deletion(linear([[3.0, 1.0], [0.0, 0.0]]), x, ClassScore(0), maps, steps=2).tolist()
    [1.5]
    """
    return area(curve(model, x, target, maps, steps=steps, fill=fill, insert=False))
