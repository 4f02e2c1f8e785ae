"""Kapishnikov, Bolukbasi, Viégas & Terry 2019, arXiv:1906.02825, section 3 and algorithm 1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.path import path_gradients

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

SIDE = 224  # larger pictures are cut into regions at this size, for which the numbers below are meant
SCALES = (50, 100, 150, 250, 500, 1200)  # of Felzenszwalb's method: larger ones give larger regions
SIGMA, SMALLEST = 0.8, 150  # its smoothing, and the fewest pixels of a region
RADIUS = 5  # pixels by which a region is grown, so that it holds its own edge
FEWEST = 50  # pixels; a region that adds fewer is left out
RANKED = SIDE**2  # pixels of pictures whose regions are ranked together, so that what is kept of them is bounded


@method(paper="arXiv:1906.02825", claims="signed class-sensitive pictures-only")
def xrai(model: Model, x: Tensor, target: Target, *, steps: int = 50) -> Tensor:
    """Regions of the picture, taken in the order of their mean integrated gradients.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target per pixel: each pixel has the mean attribution of
    the pixels that were new in the region that brought it in.  The pixels that no region brings in have the mean of
    their own.

    The attribution is that of integrated gradients, the largest over the channels, the mean over two flat baselines:
    the picture's darkest and its lightest value.  Regions are Felzenszwalb's at six scales, grown by 5 pixels at 224.

    Args:
        steps: number of gradients on each of the two paths.

    Refused: sequences and clips, which are not cut into regions.

    Two halves, two regions; the left one is against the class, beside its lightest value:

    >>> from clearsight.testing import linear
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.5, 0.5, 1.0, 1.0]]]])
    >>> xrai(linear([[8.0, 8.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]), x, ClassScore(0)).tolist()
    [[[-2.0, -2.0, 1.0, 1.0]]]
    """
    if x.dim() != 4:
        raise Refused("xrai divides pictures (B, C, H, W) into regions: it does not take sequences or clips")
    if steps < 1:
        raise Refused(f"xrai(steps={steps}): steps must be at least 1")
    ends = [x.flatten(1).amin(1), x.flatten(1).amax(1)]
    paths = [path_gradients(model, x, target, end.view(-1, 1, 1, 1), steps) for end in ends]
    density = ((paths[0] + paths[1]) / 2).amax(1)
    numbers, pictures = density.cpu().double().numpy(), x.cpu()
    few = max(1, RANKED // numbers[0].size)
    maps = []
    for i in range(0, len(pictures), few):
        regions = [overlapping_regions(picture) for picture in pictures[i : i + few]]
        maps.append(rank_regions(numbers[i : i + few], regions))
    return torch.from_numpy(np.concatenate(maps)).to(x.device, torch.float32)


def overlapping_regions(picture: Tensor) -> NDArray[np.bool_]:
    """picture (C, H, W) -> overlapping regions (n, H * W).

    A picture smaller than SIDE is not enlarged for it; areas are then meant as parts of the picture.
    """
    from scipy import ndimage
    from skimage.segmentation import felzenszwalb

    size = picture.shape[1:]
    canvas = (min(size[0], SIDE), min(size[1], SIDE))
    part = canvas[0] * canvas[1] / SIDE**2
    seen = picture
    if canvas != tuple(size):
        seen = F.interpolate(picture[None], canvas, mode="bilinear", antialias=True)[0]
    pixels = (seen.permute(1, 2, 0) * 2 - 1).double().numpy()
    at = [((np.arange(s) + 0.5) * c / s).astype(int) for s, c in zip(size, canvas, strict=True)]
    radius = round(RADIUS * part**0.5)
    smallest = max(1, round(SMALLEST * part))
    smooth = ndimage.gaussian_filter(pixels, (SIGMA, SIGMA, 0))  # once for all scales, as felzenszwalb does it for each
    cuts = [felzenszwalb(smooth, scale=scale * part, sigma=0, min_size=smallest, channel_axis=-1) for scale in SCALES]
    inside = grown(np.stack(cuts), radius)
    if canvas != tuple(size):
        inside = inside[:, at[0][:, None], at[1]]
    return inside.reshape(len(inside), -1)


def grown(cuts: NDArray[np.intp], radius: int) -> NDArray[np.bool_]:
    """The regions of cuts (s, H, W), numbered from 0 in each, with the pixels no further than radius: (n, H, W).

    The regions of the first cut come first.  A pixel outside a region has its nearest neighbour in there on the
    region's edge.

    >>> grown(np.array([[[0, 0, 1, 1]]]), 1).astype(int).tolist()
    [[[1, 1, 1, 0]], [[0, 1, 1, 1]]]
    """
    many = cuts.max((1, 2)) + 1
    labels = cuts + (many.cumsum() - many)[:, None, None]
    height, width = labels.shape[1:]
    framed = np.zeros((many.sum(), height + 2 * radius, width + 2 * radius), dtype=bool)
    inside = framed[:, radius : radius + height, radius : radius + width]
    inside[labels, *np.indices((height, width), sparse=True)] = True
    edge = np.zeros(labels.shape, dtype=bool)
    for one, other, differ in (
        (edge[:, 1:], edge[:, :-1], labels[:, 1:] != labels[:, :-1]),
        (edge[..., 1:], edge[..., :-1], labels[..., 1:] != labels[..., :-1]),
    ):
        one |= differ
        other |= differ
    _, y, x = edge.nonzero()
    places = np.ravel_multi_index((labels[edge], y + radius, x + radius), framed.shape)
    steps = np.arange(-radius, radius + 1)
    near = np.add.outer(steps**2, steps**2) <= radius**2
    framed.reshape(-1)[np.add.outer(places, np.add.outer(steps * framed.shape[2], steps)[near])] = True
    return inside


def rank_regions(density: NDArray[np.float64], regions: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """density (B, H, W), of each picture regions (n, H * W) -> (B, H, W), ranked picture by picture.

    Again and again the region is taken whose new pixels have the highest mean, of all pictures at once.  What each
    region would add is kept as a sum and a number of pixels, from which what is taken is subtracted: every pixel is
    taken once, so all rounds together cost as much as one look at all regions.
    """
    from scipy.sparse import csr_array

    flat, size, most = density.ravel(), density[0].size, max(map(len, regions))
    fewest = max(FEWEST * size / SIDE**2, 1)
    region, pixel = _numbered(regions, size, most)
    rows = np.arange(len(density)) * most
    slots = len(density) * most  # for regions: as many for each picture
    total = np.bincount(region, flat[pixel], slots)  # of what is new in each region, and its number of pixels
    count = np.bincount(region, minlength=slots)
    shape, begins = (slots, flat.size), np.concatenate([[0], count.cumsum()])
    by_region = csr_array((np.ones(len(pixel), dtype=bool), pixel, begins), shape=shape)
    by_pixel = by_region.tocsc()
    fresh = np.ones(flat.size, dtype=bool)
    ranked = np.zeros_like(flat)
    while True:
        gains = np.full(slots, -np.inf)
        np.divide(total, count, out=gains, where=count >= fewest)
        best = gains.reshape(-1, most).argmax(1) + rows
        best = best[gains[best] > -np.inf]
        if not len(best):
            break
        inside, lengths = _listed(by_region, best)
        is_new = fresh[inside]
        new = inside[is_new]
        ranked[new] = np.repeat(gains[best], lengths)[is_new]
        fresh[new] = False
        touched, lengths = _listed(by_pixel, new)
        total -= np.bincount(touched, np.repeat(flat[new], lengths), slots)
        count -= np.bincount(touched, minlength=slots)
    for one, values, left in zip(*(a.reshape(-1, size) for a in (ranked, flat, fresh)), strict=True):
        if left.any():
            one[left] = values[left].mean()
    return ranked.reshape(density.shape)


def _numbered(regions: Sequence[NDArray[np.bool_]], size: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each region (n, size) of each picture with each of its pixels, both numbered on from picture to picture."""
    held = [np.divmod(np.flatnonzero(inside), size) for inside in regions]
    numbers = zip(*((region + i * most, pixel + i * size) for i, (region, pixel) in enumerate(held)), strict=True)
    region, pixel = map(np.concatenate, numbers)
    return region, pixel


def _listed(lists: "csr_array | csc_array", keys: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixels of some regions, or the regions of some pixels, one key after the other, and how many each has."""
    begins = lists.indptr[keys]
    lengths = lists.indptr[keys + 1] - begins
    ends = lengths.cumsum()
    return lists.indices[np.arange(lengths.sum()) + np.repeat(begins - ends + lengths, lengths)], lengths
