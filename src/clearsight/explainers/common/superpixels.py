"""Pictures in pieces, SLIC superpixels or blocks, and the target where only some are left.  XRAI cuts by itself."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clearsight.core.batching import pairs
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused

Pieces = Literal["superpixels", "blocks"]


def segments(x: Tensor, cells: int, pieces: Pieces) -> Tensor:
    """x (B, C, *S) -> (B, *S) int64: the piece that each pixel lies in, numbered from 0 for each picture.

    About cells pieces along each side: superpixels of similar colour in a picture (SLIC of Achanta et al. 2012, the
    variant SLICO, which needs no compactness), or blocks, as always in sequences and clips.
    """
    if cells < 1:
        raise Refused(f"cells must be at least 1, not {cells}")
    if pieces == "blocks" or x.dim() != 4:
        return _blocks(x.shape[2:], cells).to(x.device).expand(len(x), *x.shape[2:])
    from skimage.segmentation import slic

    each = []
    for picture in x.detach().cpu().double():
        wanted = min(cells, picture.shape[1]) * min(cells, picture.shape[2])
        labels = slic(picture.permute(1, 2, 0).numpy(), n_segments=wanted, slic_zero=True, channel_axis=-1)
        each.append(torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(labels.shape)))
    return torch.stack(each).to(x.device)


def _blocks(sides: torch.Size, cells: int) -> Tensor:
    labels = torch.zeros(1, dtype=torch.long)
    for side in sides:
        n = min(cells, side)
        labels = labels[..., None] * n + torch.arange(side) * n // side
    return labels.view(sides)


def scores_of_subsets(
    model: Model, x: Tensor, target: Target, labels: Tensor, subsets: list[Tensor], cover: Tensor
) -> list[Tensor]:
    """What the target says of each picture when only some of its pieces are left.

    x (B, C, *S); labels (B, *S) as ``segments`` gives them; subsets[i] (n, pieces of picture i) bool, true where a
    piece is left; cover (1, C, *S) is seen where it is not -> [i] (n,) float64 on the CPU.
    """
    rows_of_all = torch.repeat_interleave(torch.arange(len(x)), torch.tensor([len(s) for s in subsets]))
    number = torch.cat([torch.arange(len(s)) for s in subsets])
    scores = []
    with torch.no_grad():
        for _, k in pairs(1, len(number)):
            rows = rows_of_all[k]
            left = [
                subsets[i][n].to(x.device)[labels[i]] for i, n in zip(rows.tolist(), number[k].tolist(), strict=True)
            ]
            seen = torch.where(torch.stack(left)[:, None], x[rows.to(x.device)], cover)
            scores.append(target[rows](model(seen)).double().cpu())
    return list(torch.split(torch.cat(scores), [len(s) for s in subsets]))


def painted(labels: Tensor, values: list[Tensor]) -> Tensor:
    """labels (B, *S), values[i] (pieces of picture i,) -> (B, *S) float32: each pixel has the value of its piece."""
    return torch.stack([v.to(piece.device, torch.float32)[piece] for piece, v in zip(labels, values, strict=True)])


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    """The shortest u that makes |a u - b| smallest; a (n, m), b (n,), float64 -> (m,)."""
    solution: Tensor = torch.linalg.lstsq(a, b[:, None], driver="gelsd").solution
    return solution[:, 0]
