"""Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2."""

import math

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.forward_with_patch import forward_with_patch
from clearsight.perturbation.removal import flat


@method(paper="arXiv:1311.2901", claims="signed class-sensitive scores-only")
def occlusion(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    window: int = 32,
    stride: int | None = None,
    fill: float | None = None,
) -> Tensor:
    """How much the target falls when a window is covered, averaged over the windows that cover a pixel.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target.

    Where it is worth it, early layers are run on the window and what it reaches alone, which gives the same to 1e-5 of
    the largest logit.  Each window counts as one pass.

    Args:
        window: side of the window in pixels; a window larger than the picture is cut to it.
        stride: distance between windows in pixels, from 1 to the window; none is half the window.  The last window of a
            row ends at the border.
        fill: pixel value of the cover; none is the mean of the model's preprocessing (0 after normalisation).

    Refused: a stride larger than the window, which would leave gaps.

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> occlusion(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), window=1, stride=1, fill=0.0).tolist()
    [[[1.5, -2.0]]]
    """
    stride = max(1, window // 2) if stride is None else stride
    places = [_starts(side, window, stride) for side in x.shape[2:]]
    windows = torch.cartesian_prod(*[torch.tensor(p) for p in places]).view(-1, len(places))
    cover = flat(model, x[:1], fill)[0][(slice(None), *_slices(windows[0] * 0, window))]
    with torch.no_grad():
        logits, covered = forward_with_patch(model, x, windows, cover.shape[1:])
        whole = target(logits)
        total, count = torch.zeros_like(x[:, 0]), torch.zeros_like(x[0, 0])
        for start in windows:
            count[_slices(start, window)] += 1
        for rows, k in pairs(len(x), len(windows)):
            fall = whole[rows] - target[rows](covered(rows, k, cover.expand(len(k), *cover.shape)))
            for i, (row, w) in enumerate(zip(rows.tolist(), k.tolist(), strict=True)):
                total[row][_slices(windows[w], window)] += fall[i]
    return total / count


def _starts(side: int, window: int, stride: int) -> list[int]:
    if window < 1 or stride < 1 or stride > window:
        raise Refused(
            f"occlusion(window={window}, stride={stride}): stride must be from 1 to window, so that no place is left "
            "out"
        )
    free = max(side - window, 0)
    return [min(i * stride, free) for i in range(math.ceil(free / stride) + 1)]


def _slices(start: Tensor, window: int) -> tuple[slice, ...]:
    return tuple(slice(s, s + window) for s in start.tolist())
