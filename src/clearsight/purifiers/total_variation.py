"""Rudin, Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; as a defence Guo et al. 2018, arXiv:1711.00117."""

from typing import Any

import torch
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.errors import Refused

_CHANGE = 1e-5  # of the energy from one step to the next, relative to the first: where the descent ends
_STEPS = 500


@method(paper="doi:10.1016/0167-2789(92)90242-F")
def total_variation(x: Tensor, *, weight: float = 0.05) -> Tensor:
    """The picture near the given one whose neighbouring pixels differ least: flat areas are smoothed, edges stay.

    x (B, C, H, W) in [0, 1] -> the same shape.  Of each channel, half the squared distance to the given one plus the
    weight times the sum of the lengths of the gradient is made small, by Chambolle's descent of scikit-image.  Guo et
    al. also leave out half of the pixels, at random, before that; here all are kept, so the same picture always comes
    out the same.

    Args:
        weight: how much smoothness counts, above 0, in units of pixel values.

    Refused: a weight of 0 or less.

    Source: Rudin et al. 1992; as a defence Guo et al. 2018, section 4.

    Of a step between two bright and two dark columns, each side moves by half of the weight:

    >>> x = torch.tensor([0.2, 0.2, 0.8, 0.8]).expand(1, 1, 4, 4)
    >>> [round(v, 3) for v in total_variation(x, weight=0.1)[0, 0, 0].tolist()]
    [0.25, 0.25, 0.75, 0.75]
    """
    if not weight > 0:
        raise Refused(f"a weight of {weight:g}: give more than 0")
    run: Any = denoise_tv_chambolle
    each = [run(z.numpy(), weight=weight, eps=_CHANGE, max_num_iter=_STEPS, channel_axis=0) for z in x]
    return torch.stack([torch.from_numpy(z).to(x) for z in each]).clamp(0, 1)
