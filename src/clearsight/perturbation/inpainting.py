"""Inpainting: each removed pixel becomes the weighted mean of its neighbours, solved for all of them at once.

The linear imputation of Rong et al. 2022 (ROAD, arXiv:2202.00449), section 4.2: what a mask leaves visible in the
filled picture is then as little as possible.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu
from torch import Tensor

from clearsight.core import rng

NOISE = 0.01  # standard deviation of what is added, in pixels, so that a filled place does not look filled


def inpainted(x: Tensor, gone: Tensor, *, noise: float = NOISE, rows: Tensor | None = None) -> Tensor:
    """x (B, C, *S) in [0, 1] with the places of gone (B, *S) bool filled from those around them, in [0, 1].

    Each filled place is the mean of its neighbours, direct ones weighing twice as much as diagonal ones, plus seeded
    noise; rows (B,): of which picture of the batch each x is a version.  Where all places are gone there is nothing to
    fill from: those pictures become their mean.

    >>> inpainted(torch.tensor([[[0.0, 0.5, 0.5, 0.9]]]), torch.tensor([[False, True, True, False]]), noise=0.0)
    tensor([[[0.0000, 0.3000, 0.6000, 0.9000]]])
    """
    pictures = zip(x.double().cpu().numpy(), gone.cpu().numpy(), strict=True)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy lets other threads run while it solves
        filled = np.stack(list(pool.map(lambda pair: _filled(*pair), pictures)))
    return (torch.from_numpy(filled).to(x) + noise * rng.normal(x, rows) * gone[:, None]).clamp(0, 1)


def _filled(x: NDArray[np.float64], gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One picture (C, *S): the lost places are the solution of one sparse, symmetric system for all channels."""
    x, lost = x.copy(), np.argwhere(gone)
    if not len(lost):
        return x
    if gone.all():
        x[:] = x.mean(tuple(range(1, x.ndim)), keepdims=True)
        return x
    number = np.full(gone.shape, -1)
    number[gone] = np.arange(len(lost))
    degree, known_sum = np.zeros(len(lost)), np.zeros((len(lost), len(x)))
    cells: list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]] = []
    for step in itertools.product((-1, 0, 1), repeat=gone.ndim):
        if not (distance := sum(map(abs, step))):
            continue
        neighbours = lost + step
        inside = np.flatnonzero(((neighbours >= 0) & (neighbours < gone.shape)).all(1))
        other, weight = tuple(neighbours[inside].T), 1 / distance
        degree[inside] += weight
        is_lost = gone[other]
        centres = inside[~is_lost]
        known_sum[centres] += weight * x[(slice(None), *(axis[~is_lost] for axis in other))].T
        centres = inside[is_lost]
        cells.append((np.full(len(centres), -weight), centres, number[other][is_lost]))
    diagonal = np.arange(len(lost))
    values, places, others = (np.concatenate(part) for part in zip(*cells, (degree, diagonal, diagonal), strict=True))
    system = csc_array((values, (places, others)), shape=(len(lost), len(lost)))
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    x[:, gone] = factors.solve(known_sum).T
    return x
