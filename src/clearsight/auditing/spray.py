"""Pictures grouped by where a model looks: spectral relevance analysis (SpRAy).

Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4; spectral clustering after Ng, Jordan & Weiss 2001.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import label
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph
from torch import Tensor
from torch.nn import functional as F

Values = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]  # top, left, bottom, right: from the first row or column to before the last

GRID = 16  # a map is compared by its means over at most so many parts along each side
MOST_CLUSTERS = 8  # clusters in a class
_TOUCHING = np.ones((3, 3))  # also at their corners


def pooled(maps: Tensor, grid: int = GRID) -> Tensor:
    """What speaks for the answer, by place: maps (n, H, W) -> (n, h, w) >= 0, each with sum 1, h and w at most grid.

    A map without anything positive is even.

    >>> pooled(torch.tensor([[[3.0, -1.0], [0.0, 1.0]]]))
    tensor([[[0.7500, 0.0000],
             [0.0000, 0.2500]]])
    """
    size = (min(grid, maps.shape[1]), min(grid, maps.shape[2]))
    small = F.adaptive_avg_pool2d(maps.clamp_min(0)[:, None].double(), size)[:, 0]
    total = small.sum((1, 2), keepdim=True)
    shares: Tensor = torch.where(total > 0, small / total.clamp_min(1e-300), 1 / small[0].numel()).float()
    return shares


def clusters(maps: Tensor, *, seed: int = 0, most_clusters: int = MOST_CLUSTERS) -> list[int]:
    """The cluster, 0, 1, ..., of each of the pooled maps (n, h, w); the largest cluster is 0, of equal
    ones that with the first map.

    Each map is joined with its log2 n nearest ones; the number of clusters is where the graph Laplacian's eigenvalues
    leave their largest gap among the first ones, and k-means tells them apart among its eigenvectors.  Fewer than six
    maps are one cluster.

    >>> left, right = torch.zeros(9, 4, 4), torch.zeros(9, 4, 4)
    >>> left[:, :, 0] = right[:, :, 3] = 0.25
    >>> noise = 0.01 * torch.rand(18, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> numbers = clusters(torch.cat([left, right]) + noise)
    >>> sorted({*numbers[:9]}), sorted({*numbers[9:]})
    ([0], [1])
    """
    n = len(maps)
    if n < 6:
        return [0] * n
    places = maps.flatten(1).double().numpy()
    values, vectors = _spectrum(places, max(2, round(np.log2(n))))
    most_clusters = min(most_clusters, n // 3)
    k = int(np.argmax(np.diff(values[: most_clusters + 1]))) + 1
    if k == 1:
        return [0] * n
    rows = vectors[:, :k]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    assigned = KMeans(k, n_init=10, random_state=seed % 2**32).fit_predict(rows)
    members: list[list[int]] = [np.flatnonzero(assigned == j).tolist() for j in range(k)]
    numbers = [0] * n
    for number, cluster in enumerate(sorted((m for m in members if m), key=lambda m: (-len(m), m))):
        for i in cluster:
            numbers[i] = number
    return numbers


def _spectrum(places: Values, neighbours: int) -> tuple[Values, Values]:
    """Eigenvalues, the smallest first, and eigenvectors of the normalised Laplacian of the neighbour graph."""
    neighbour_graph = kneighbors_graph(places, neighbours, mode="connectivity", include_self=False).toarray()
    symmetric = np.maximum(neighbour_graph, neighbour_graph.T)
    root = 1 / np.sqrt(symmetric.sum(1))
    values, vectors = np.linalg.eigh(np.eye(len(places)) - root[:, None] * symmetric * root[None, :])
    return values, vectors


def hotspot(mean: Tensor, size: tuple[int, int], *, mass: float = 0.5) -> tuple[Box, float]:
    """Where maps (h, w) >= 0 with sum 1 come together: a box in pixels of a picture of that size, and its share.

    Of the fewest parts that hold so much of the mass, with all that are as strong as the last of them, those that touch
    and hold the most; one more part on each side.

    >>> mean = torch.zeros(4, 4)
    >>> mean[0, 3], mean[2, 0] = 0.75, 0.25
    >>> hotspot(mean, (8, 8))
    ((0, 4, 4, 8), 0.75)
    """
    values = mean.double().numpy()
    order = np.argsort(-values, axis=None, kind="stable")
    last = int(np.searchsorted(values.ravel()[order].cumsum(), mass - 1e-9))
    weakest = values.ravel()[order[last]]
    parts, _ = label(values >= weakest * (1 - 1e-6), structure=_TOUCHING)
    strongest = np.argmax(np.bincount(parts.ravel(), weights=values.ravel() * (parts.ravel() > 0)))
    rows, columns = np.nonzero(parts == strongest)
    (h, w), (height, width) = values.shape, size
    top, bottom = max(rows.min() - 1, 0), min(rows.max() + 2, h)
    left, right = max(columns.min() - 1, 0), min(columns.max() + 2, w)
    box = (int(top * height // h), int(left * width // w), -int(-bottom * height // h), -int(-right * width // w))
    return box, float(values[top:bottom, left:right].sum())


def cores(mean: Tensor, size: tuple[int, int], largest: float, place: Box) -> list[tuple[Box, float]]:
    """What is densest of maps (h, w) with sum 1: a box of at most ``largest`` pixels, and one that lies off ``place``.

    Boxes in pixels of a picture of that size, each with its share, the greatest that there is; no side is more than
    twice the other.  Left out is a box that holds no more than its share of the area.

    >>> mean = torch.zeros(4, 4)
    >>> mean[0, 3], mean[2, 0] = 0.75, 0.25
    >>> cores(mean, (8, 8), 4, (0, 4, 4, 8))
    [((0, 6, 2, 8), 0.75), ((4, 0, 6, 2), 0.25)]
    """
    (h, w), (height, width) = mean.shape, size
    candidates: list[tuple[float, int, Box]] = []
    for rows, columns in product(range(1, h + 1), range(1, w + 1)):
        if max(rows, columns) > 2 * min(rows, columns) or rows * columns * height * width > largest * h * w:
            continue
        masses = F.avg_pool2d(mean[None, None].double(), (rows, columns), stride=1)[0, 0] * (rows * columns)
        for top, left in product(range(masses.shape[0]), range(masses.shape[1])):
            edges = (top * height // h, left * width // w)
            box = (*edges, -(-(top + rows) * height // h), -(-(left + columns) * width // w))
            mass = float(masses[top, left])
            if area(box) <= largest and mass > area(box) / (height * width):
                candidates.append((-round(mass, 9), area(box), box))
    boxes: list[tuple[Box, float]] = []
    for choices in (candidates, [e for e in candidates if overlap(e[2], place) == 0]):
        mass, _, box = min(choices, default=(0.0, 0, place))
        if mass and (box, -mass) not in boxes:
            boxes.append((box, -mass))
    return boxes


def inside(box: Box, size: tuple[int, int]) -> Tensor:
    """The box as a mask: bool (H, W)."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def area(box: Box) -> int:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes.

    >>> overlap((0, 0, 2, 2), (0, 1, 2, 3))
    0.3333333333333333
    """
    both = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return both / (area(a) + area(b) - both)


def elsewhere(box: Box, size: tuple[int, int], generator: torch.Generator) -> Box:
    """A box of the same size at another place, drawn at random: of eight draws the one that overlaps least."""
    height, width = box[2] - box[0], box[3] - box[1]
    draws = []
    for _ in range(8):
        top = int(torch.randint(size[0] - height + 1, (), generator=generator))
        left = int(torch.randint(size[1] - width + 1, (), generator=generator))
        draws.append((top, left, top + height, left + width))
    return min(draws, key=lambda other: overlap(box, other))


def place_words(box: Box, size: tuple[int, int]) -> str:
    """Where a box lies, in words.

    >>> place_words((0, 0, 4, 4), (28, 28)), place_words((12, 12, 16, 16), (28, 28))
    ('top left', 'centre')
    """
    vertical = ("top", "middle", "bottom")[min(int(3 * (box[0] + box[2]) / 2 / size[0]), 2)]
    horizontal = ("left", "centre", "right")[min(int(3 * (box[1] + box[3]) / 2 / size[1]), 2)]
    return horizontal if vertical == "middle" else f"{vertical} {horizontal}"
