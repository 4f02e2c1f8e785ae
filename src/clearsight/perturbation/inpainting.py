"""Inpainting: each removed pixel becomes the weighted mean of its neighbours, solved for all of them at once.

The linear imputation of Rong et al. 2022 (ROAD, arXiv:2202.00449), section 4.2: what a mask leaves visible in the
filled picture is then as little as possible.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core import rng

_UNDIVIDED = 5  # places along each axis of the smallest parts of a grid
NOISE = 0.01  # standard deviation of what is added, in pixels, so that a filled place does not look filled
_Places = NDArray[np.intp]  # of a picture, numbered flat
_Values = NDArray[np.float64]
_Matrix = Any  # of SciPy, whose import takes a quarter of a second, which what removes nothing does not wait for


def inpainted(x: Tensor, gone: Tensor, *, noise: float = NOISE, rows: Tensor | None = None) -> Tensor:
    """x (B, C, *S) in [0, 1] with the places of gone (B, *S) bool filled from those around them, in [0, 1].

    Each filled place is the mean of its neighbours, direct ones weighing twice as much as diagonal ones, plus seeded
    noise; rows (B,): of which picture of the batch each x is a version.  Where all places are gone there is nothing to
    fill from: those pictures become their mean.

    >>> inpainted(torch.tensor([[[0.0, 0.5, 0.5, 0.9]]]), torch.tensor([[False, True, True, False]]), noise=0.0)
    tensor([[[0.0000, 0.3000, 0.6000, 0.9000]]])
    """
    masks, pictures = gone.flatten(1).cpu().numpy(), x.flatten(2).double().cpu().numpy()
    filled = np.where(masks[:, None], pictures.mean(2, keepdims=True), pictures)
    partly = np.flatnonzero(masks.any(1) & ~masks.all(1))
    if len(partly):
        systems = (_system(pictures[i], masks[i], tuple(gone.shape[1:])) for i in partly)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SuperLU lets other threads run while it factors
            for i, (lost, values) in zip(partly, pool.map(lambda system: _solved(*system), systems), strict=True):
                filled[i][:, lost] = values
    solved = torch.from_numpy(filled).view(x.shape).to(x)
    return (solved + noise * rng.normal(x, rows) * gone[:, None]).clamp(0, 1)


def _system(x: _Values, gone: NDArray[np.bool_], shape: tuple[int, ...]) -> tuple[_Places, _Matrix, _Values]:
    """The lost places (n,) of one picture x (C, places), a sparse, symmetric matrix (n, n), and what it must give.

    That is the weighted sum of the known neighbours of each place, (n, C): one system for all channels.
    """
    order, grid = _grid(shape)
    lost = gone[order]
    of_lost = grid[np.flatnonzero(lost)]
    known_sum = -(of_lost @ np.where(gone, 0.0, x).T[order])
    return order[lost], of_lost[:, np.flatnonzero(lost)], known_sum


def _solved(lost: _Places, matrix: _Matrix, known_sum: _Values) -> tuple[_Places, _Values]:
    """The lost places (n,), and their values (C, n)."""
    from scipy.sparse.linalg import splu

    # of one column at a time: SuperLU's panels of several cost more than they save on systems as sparse as these
    columns = matrix.T  # the same numbers by column, since the matrix is symmetric
    factors = splu(columns, "NATURAL", diag_pivot_thresh=0.0, panel_size=1, options={"SymmetricMode": True})
    return lost, factors.solve(known_sum).T


@lru_cache(maxsize=4)
def _grid(shape: tuple[int, ...]) -> tuple[_Places, _Matrix]:
    """The places (n,) of a grid in the order in which they are eliminated, and its Laplacian (n, n) in that order.

    In a row the weights of a place's neighbours are negative, and its own is their sum.
    """
    from scipy.sparse import csr_array, diags_array

    order = _elimination_order(shape)
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    number = number.reshape(shape)
    weights, places, neighbours = [], [], []
    for step in itertools.product((-1, 0, 1), repeat=len(shape)):
        if any(step):
            place = number[*(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))].ravel()
            neighbour = number[*(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, shape, strict=True))].ravel()
            places.append(place)
            neighbours.append(neighbour)
            weights.append(np.full(len(place), 1 / sum(map(abs, step))))
    links = csr_array((np.concatenate(weights), (np.concatenate(places), np.concatenate(neighbours))))
    return order, csr_array(diags_array(links.sum(1)) - links)


def _elimination_order(shape: tuple[int, ...]) -> _Places:
    """The places of a grid, numbered flat, in the order in which a system of neighbours is best solved.

    Nested dissection (George 1973, doi:10.1137/0710032): each half of the grid, then the line between the halves.
    The same for all masks, where an order of each one's own takes as long as solving its system.

    >>> _elimination_order((11,)).tolist()
    [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 5]
    """
    parts: list[_Places] = []

    def dissect(places: _Places) -> None:
        axis = int(np.argmax(places.shape))
        if places.shape[axis] <= _UNDIVIDED:
            parts.append(places.ravel())
            return
        before, middle, after = np.split(places, [places.shape[axis] // 2, places.shape[axis] // 2 + 1], axis)
        dissect(before)
        dissect(after)
        parts.append(middle.ravel())

    dissect(np.arange(np.prod(shape)).reshape(shape))
    return np.concatenate(parts)
