"""Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3.3."""

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.perturbation.removal import Removal
from clearsight.perturbation.removal_order import area, curve


@method(paper="arXiv:1806.07421", claims="higher-is-better stochastic")
def insertion(
    model: Model, x: Tensor, target: Target, maps: Tensor, *, steps: int = 20, fill: Removal = "blur"
) -> Tensor:
    """Area under the curve of the target while the most relevant places are put back first: high is good.

    x (B, C, *S) in [0, 1], maps (B, *S) -> (B,), in units of the target (a probability by default).  Ties are broken by
    a seeded draw.

    Args:
        steps: number of equal portions in which places are put back.
        fill: what a pixel is before it is put back: mean (of the preprocessing), black, blur (a strong one), or inpaint
            (solved from the pixels that are there).

    Source: Petsiuk, Das & Saenko 2018, section 3.3.

    Of 3 and 1, the 3 comes first, then the 1: 0, 3, 4 leaves an area of 2.5.

    >>> import torch
    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x, maps = torch.ones(1, 1, 1, 2), torch.tensor([[[2.0, 1.0]]])
    >>> insertion(linear([[3.0, 1.0], [0.0, 0.0]]), x, ClassScore(0), maps, steps=2, fill="black").tolist()
    [2.5]
    """
    return area(curve(model, x, target, maps, steps=steps, fill=fill, insert=True))
