"""Kapishnikov, Bolukbasi, Viégas & Terry 2019, arXiv:1906.02825, section 3 and algorithm 1."""

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

SIDE = 224  # larger pictures are cut into regions at this size, for which the numbers below are meant
SCALES = (50, 100, 150, 250, 500, 1200)  # of Felzenszwalb's method: larger ones give larger regions
SIGMA, SMALLEST = 0.8, 150  # its smoothing, and the fewest pixels of a region
RADIUS = 5  # pixels by which a region is grown, so that it holds its own edge
FEWEST = 50  # pixels; a region that adds fewer is left out


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
    maps = [
        rank_regions(d.cpu().double().numpy(), overlapping_regions(picture))
        for d, picture in zip(density, x.cpu(), strict=True)
    ]
    return torch.from_numpy(np.stack(maps)).to(x.device, torch.float32)


def overlapping_regions(picture: Tensor) -> NDArray[np.bool_]:
    """picture (C, H, W) -> overlapping regions (n, H * W).

    A picture smaller than SIDE is not enlarged for it; areas are then meant as parts of the picture.
    """
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
    regions = []
    for scale in SCALES:
        smallest = max(1, round(SMALLEST * part))
        labels = felzenszwalb(pixels, scale=scale * part, sigma=SIGMA, min_size=smallest, channel_axis=-1)
        inside = grown(labels, radius)
        if canvas != tuple(size):
            inside = inside[:, at[0][:, None], at[1]]
        regions.append(inside.reshape(len(inside), -1))
    return np.concatenate(regions)


def grown(labels: NDArray[np.intp], radius: int) -> NDArray[np.bool_]:
    """The regions of labels (H, W) from 0 to n - 1, each with the pixels no further from it than radius: (n, H, W).

    A pixel outside a region has its nearest neighbour in there on the region's edge.

    >>> grown(np.array([[0, 0, 1, 1]]), 1).astype(int).tolist()
    [[[1, 1, 1, 0]], [[0, 1, 1, 1]]]
    """
    (height, width), n = labels.shape, labels.max() + 1
    framed = np.zeros((n, height + 2 * radius, width + 2 * radius), dtype=bool)
    inside = framed[:, radius : radius + height, radius : radius + width]
    inside[labels, *np.indices(labels.shape, sparse=True)] = True
    edge = np.zeros(labels.shape, dtype=bool)
    for one, other, differ in (
        (edge[1:], edge[:-1], labels[1:] != labels[:-1]),
        (edge[:, 1:], edge[:, :-1], labels[:, 1:] != labels[:, :-1]),
    ):
        one |= differ
        other |= differ
    y, x = edge.nonzero()
    places = np.ravel_multi_index((labels[y, x], y + radius, x + radius), framed.shape)
    steps = np.arange(-radius, radius + 1)
    near = np.add.outer(steps**2, steps**2) <= radius**2
    framed.reshape(-1)[np.add.outer(places, np.add.outer(steps * framed.shape[2], steps)[near])] = True
    return inside


def rank_regions(density: NDArray[np.float64], regions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """density (H, W), regions (n, H * W) -> (H, W): again and again the region whose new pixels have the highest mean.

    What each region would add is kept as a sum and a number of pixels, from which what is taken is subtracted: every
    pixel is taken once, so all rounds together cost as much as one look at all regions.
    """
    flat = density.ravel()
    fewest = max(FEWEST * flat.size / SIDE**2, 1)
    fresh = np.ones(flat.size, dtype=bool)
    region, pixel = np.divmod(np.flatnonzero(regions), flat.size)
    ends = np.bincount(region, minlength=len(regions)).cumsum().tolist()
    around = region[np.argsort(pixel, kind="stable")]  # the regions of each pixel, one pixel after the other
    last = np.bincount(pixel, minlength=flat.size).cumsum().tolist()
    total = np.bincount(region, flat[pixel], len(regions))  # of what is new in each region, and its number of pixels
    count = np.bincount(region, minlength=len(regions))
    count_of = count.tolist()  # before anything is taken
    ranked = np.zeros_like(flat)
    while True:
        gains = np.full(len(regions), -np.inf)
        np.divide(total, count, out=gains, where=count >= fewest)
        best = int(gains.argmax())
        if gains[best] == -np.inf:
            break
        inside = pixel[ends[best] - count_of[best] : ends[best]]
        new = inside[fresh[inside]]
        ranked[new] = gains[best]
        fresh[new] = False
        touched = [around[last[i - 1] if i else 0 : last[i]] for i in new.tolist()]
        less = np.repeat(flat[new], [*map(len, touched)])
        where = np.concatenate(touched)
        total -= np.bincount(where, less, len(regions))
        count -= np.bincount(where, minlength=len(regions))
    if fresh.any():
        ranked[fresh] = flat[fresh].mean()
    return ranked.reshape(density.shape)
