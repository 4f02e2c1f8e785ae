"""Inpainting: each removed pixel becomes the weighted mean of its neighbours, solved for all of them at once.

The linear imputation of Rong et al. 2022 (ROAD, arXiv:2202.00449), section 4.2: what a mask leaves visible in the
filled picture is then as little as possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core import rng

_UNDIVIDED = 2  # places along each axis of the smallest parts of a grid
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
    from scipy.sparse import csc_array  # a quarter of a second, which what removes nothing does not wait for
    from scipy.sparse.linalg import splu

    x = x.copy()
    if not gone.any():
        return x
    if gone.all():
        x[:] = x.mean(tuple(range(1, x.ndim)), keepdims=True)
        return x
    order = _elimination_order(gone.shape)
    lost = order[gone.ravel()[order]]
    wider = [size + 2 for size in gone.shape]  # by a border, so that every place has all its neighbours
    at = np.ravel_multi_index([i + 1 for i in np.unravel_index(lost, gone.shape)], wider)
    number = np.full(np.prod(wider), -1, np.int32)  # of each lost place in the system
    number[at] = np.arange(len(lost))
    inside = np.pad(np.ones(gone.shape), 1).ravel()
    known = np.pad(np.where(gone, 0.0, x), ((0, 0), *[(1, 1)] * gone.ndim)).reshape(len(x), -1)
    known_sum, degree = np.zeros((len(lost), len(x))), np.zeros(len(lost))
    others, weights = [number[at]], [degree]
    for step, weight in _neighbours(wider):
        degree += weight * inside[at + step]
        known_sum += weight * known[:, at + step].T
        others.append(number[at + step])
        weights.append(np.full(len(lost), -weight))
    other, value = np.stack(others, 1), np.stack(weights, 1)
    is_lost = other >= 0
    ends = np.concatenate([[0], is_lost.sum(1).cumsum()])
    system = csc_array((value[is_lost], other[is_lost], ends), shape=(len(lost), len(lost)))
    # of one column at a time: SuperLU's panels of several cost more than they save on systems as sparse as these
    factors = splu(system, "NATURAL", diag_pivot_thresh=0.0, panel_size=1, options={"SymmetricMode": True})
    x.reshape(len(x), -1)[:, lost] = factors.solve(known_sum).T
    return x


def _neighbours(shape: Sequence[int]) -> list[tuple[int, float]]:
    """How far each neighbour of a place is away in an array of this shape, counted flat, and its weight."""
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    steps = [step for step in itertools.product((-1, 0, 1), repeat=len(shape)) if any(step)]
    return [(int(np.dot(step, strides)), 1 / sum(map(abs, step))) for step in steps]


@lru_cache(maxsize=8)
def _elimination_order(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """The places of a grid, numbered flat, in the order in which a system of neighbours is best solved.

    Nested dissection (George 1973, doi:10.1137/0710032): each half of the grid, then the line between the halves.
    Found once for all masks, where an order of each one's own takes as long as solving its system.

    >>> _elimination_order((5,)).tolist()
    [0, 1, 3, 4, 2]
    """
    parts: list[NDArray[np.intp]] = []

    def dissect(places: NDArray[np.intp]) -> None:
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
