"""Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3.1, with crystals that are drawn here."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.corruptions.common.clouds import plasma, power_of_two
from clearsight.corruptions.common.resampling import Floats
from clearsight.corruptions.common.severity import constants

# the weights of the picture and of the frost
_SMALL = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
_LARGE = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
_LAYERS, _WEIGHTS = (14, 60), (0.7, 0.5)  # number of large and of small crystals, and their weights
_FINEST = 96  # minimum pixels of the longer side for the branches of the crystals to show
_TINT = (0.86, 0.95, 1.0)  # a little blue


@method(paper="arXiv:1903.12261", claims="common stochastic uneven")
def frost(x: Tensor, *, severity: int = 3) -> Tensor:
    """Frost on the lens: feathers of ice crystals over the picture.

    x (B, C, H, W) in [0, 1] -> the same shape.  The frost is the same at each severity.  Because less of the picture is
    kept, the two can come nearer in brightness.

    The paper lays photographs of frost over the picture, which are not part of this package.  Here the crystals are
    drawn as feathers around 74 places, thicker where a plasma fractal is high and towards the border.  The numbers are
    therefore not those of the paper's frost.

    Args:
        severity: 1 to 5; the weights of the picture and of the frost, 1 and 0.4 to 0.6 and 0.75 (ImageNet-C), or 1 and
            0.2 to 0.75 and 0.45 where the shorter side is below 84 pixels (CIFAR-10-C).

    Source: Hendrycks & Dietterich 2019, section 3.1, with crystals that are drawn here.

    Frost on black is the frost itself, with its weight:

    >>> 0.2 < float(frost(torch.zeros(1, 3, 32, 32), severity=5).max()) <= 0.45 + 1e-6
    True
    """
    (kept, much), _ = constants(x, severity, _SMALL, _LARGE)
    k = math.ceil(_FINEST / max(x.shape[2:]))  # frost is drawn this many times larger, and averaged
    high, wide = (k * side for side in x.shape[2:])
    n = power_of_two(max(high, wide))
    clouds = plasma(rng.uniform(x.new_empty(len(x), n, n, dtype=torch.float64)), 1.6)[:, :high, :wide].numpy()
    chance = rng.uniform(x.new_empty(len(x), sum(_LAYERS), 4, dtype=torch.float64)).numpy()
    drawn = torch.from_numpy(np.stack([crystals(c, cloud) for c, cloud in zip(chance, clouds, strict=True)]))
    ice = torch.nn.functional.avg_pool2d(drawn[:, None], k)
    tint = x.new_tensor(_TINT if x.shape[1] == 3 else [1.0])[:, None, None]
    return (kept * x + much * tint * ice.to(x)).clamp(0, 1)


def crystals(chance: Floats, clouds: Floats) -> Floats:
    """Ice (H, W) from 0 to 1, for clouds (H, W); chance (n, 4): place (2), rotation and fineness of each crystal."""
    high, wide = clouds.shape
    side = max(high, wide)
    rows, columns = (np.indices((high, wide)) + 0.5) / side
    bent = 0.08 * (clouds - 0.5)  # crystals are slightly bent
    ice = np.zeros((high, wide))
    for some, weight in zip(np.split(chance, np.cumsum(_LAYERS)[:-1]), _WEIGHTS, strict=True):
        places = some[:, :2] * [high / side, wide / side]
        points = np.stack([rows + bent, columns - bent], -1)
        near = cKDTree(places).query(points.reshape(-1, 2))[1].reshape(high, wide)
        down, right = np.moveaxis(points - places[near], -1, 0)
        turned, fine = some[near, 2], 1 + some[near, 3]
        ice += weight * feather(down, right, turned, fine * len(some) ** 0.5)
    middle = np.maximum(np.abs(rows * side / high - 0.5), np.abs(columns * side / wide - 0.5))  # 0 to 0.5 at the border
    ice = ice * np.clip(0.2 + 1.1 * clouds + 0.6 * middle, 0, 1) + 0.5 * clouds * middle
    scaled: Floats = ice / max(float(ice.max()), 1e-12)
    return scaled**0.8


def feather(down: Floats, right: Floats, turned: Floats, fine: Floats) -> Floats:
    """The amount of ice at places down and right of a crystal's centre: six stems, with branches at 60 degrees.

    turned: rotation as a share of 60 degrees, in [0, 1); fine: the larger, the narrower.  A stem has the most ice:

    >>> zero = np.zeros(1)
    >>> round(float(feather(zero, zero + 0.1, zero, zero + 5.0)[0]), 6)
    1.0
    """
    radius, angle = np.hypot(down, right), np.arctan2(down, right) / (math.pi / 3) + turned
    off = np.abs(angle - np.round(angle)) * (math.pi / 3)  # 0 on a stem, 30 degrees between two
    along, beside = radius * np.cos(off), radius * np.sin(off)
    stem = np.exp(-60 * fine / 4 * beside)
    branch = np.abs(np.cos(8 * math.pi * fine * (along - beside / math.sqrt(3)))) ** 3 * np.exp(-3 * fine * beside)
    combined: Floats = np.maximum(stem, 0.8 * branch)
    return combined
