"""Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3 (equation 6)."""

import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.grid_masks import MaskGrid
from clearsight.explainers.common.linear_control import ControlledSums
from clearsight.perturbation.removal import flat


@method(paper="arXiv:1806.07421", claims="signed class-sensitive stochastic scores-only")
def rise(
    model: Model,
    x: Tensor,
    target: Target,
    *,
    masks: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    centre: bool = True,
    control: bool = False,
    fill: float | None = None,
) -> Tensor:
    """The mean of random masks, each times the target of the picture that is seen through it.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: an estimate of the target's mean while a pixel is
    visible, minus its mean over all masks.

    The paper scores probabilities (ClassScore(of="prob")) and does not subtract the mean.  A logit's mean would stand
    as a constant over the whole map and, times the uneven cover of so few masks, hide it.  Subtracting it changes the
    order of the pixels only by this uneven cover.

    Args:
        masks: number of masks (the paper takes 4000 to 8000); the error falls with their square root.
        cells: cells along each side of the coarse grid, each kept at random; the grid is enlarged and shifted by a part
            of a cell.
        keep: probability that a cell is kept, above 0 and up to 1.
        centre: whether the target's mean over all masks is subtracted; false keeps it, as the paper does.
        control: whether what a linear model of the masks, fitted to all others, says of each score is taken off, and
            its mean over all masks there are put in place of it (a control variate: Owen 2013, section 8.9): the same
            map in the mean, from 1.2 to 5 times fewer masks; false is the paper's plain mean.
        fill: pixel value behind the masks; none is the mean of the preprocessing, as in the paper.

    With all cells kept, the target itself stands everywhere:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 1.0]]]])
    >>> rise(linear([[3.0, -2.0], [0.0, 0.0]]), x, ClassScore(0), masks=4, keep=1.0, centre=False).tolist()
    [[[-0.5, -0.5]]]
    """
    if masks < 1 or cells < 1 or not 0 < keep <= 1:
        raise Refused(
            f"rise(masks={masks}, cells={cells}, keep={keep}): masks and cells must be at least 1, keep above 0 and "
            "at most 1"
        )
    sides = x.shape[2:]
    grid = MaskGrid(tuple(sides), cells, keep)
    cover = flat(model, x[:1], fill)
    total, covered = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    scores = x.new_zeros(len(x))
    sums: dict[int, ControlledSums] = {}  # of pictures of which masks are still to come
    controlled = torch.zeros_like(total)
    with torch.no_grad():
        for rows, _ in pairs(len(x), masks):
            kept, shifts = grid.draw(x, rows)
            mask = grid.enlarged(kept, shifts, x)
            parts = {i: rows == i for i in {*rows.tolist()}} if control and keep < 1 else {}
            rows = rows.to(x.device)
            score = target[rows](model(cover + mask[:, None] * (x[rows] - cover)))
            total.index_add_(0, rows, score.view(-1, *[1] * len(sides)) * mask)
            covered.index_add_(0, rows, mask)
            scores.index_add_(0, rows, score)
            for i, own in parts.items():
                if i not in sums:
                    sums[i] = ControlledSums(1, grid, x[:1], masks, control=True)
                sums[i].add(kept[own], shifts[own], mask[own], score[own, None])
                if sums[i].masks == masks:
                    controlled[i] = sums.pop(i).estimate(centred=centre)[0][0].to(x) / keep
    if control and keep < 1:
        return controlled
    if centre:
        total -= (scores / masks).view(-1, *[1] * len(sides)) * covered
    return total / (masks * keep)
