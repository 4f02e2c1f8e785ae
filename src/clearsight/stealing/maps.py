"""The leak through explanations: maps that are told with the answers, and what is left of them behind a defence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from clearsight.core.catalogue import Call, parse
from clearsight.errors import Refused
from clearsight.stealing.clone import must_learn_call
from clearsight.stealing.victim import Victim


@dataclass(frozen=True)
class MapLeak:
    """Which maps are told: an explainer's, of the top class, as coarse and as rounded as it is said.

    call: the explainer.  cells: places on each side, None for every pixel.  levels: steps from 0 to the largest value,
    None for the value itself, with its scale.
    """

    call: Call
    cells: int | None = None
    levels: int | None = None

    def __str__(self) -> str:
        words = [str(self.call)]
        words += [] if self.cells is None else [f"{self.cells} cells a side"]
        words += [] if self.levels is None else [f"{self.levels} levels"]
        return ", ".join(words)


def map_leak(explainer: str, cells: int | None = None, levels: int | None = None) -> MapLeak:
    """The leak of an explainer, checked.  Refused: one whose map training cannot change, and no cell or level."""
    call = parse(explainer, "explainers")
    must_learn_call(call)
    if (cells is not None and cells < 1) or (levels is not None and levels < 1):
        raise Refused(f"cells={cells}, levels={levels}", "give at least 1 of each")
    return MapLeak(call, cells, levels)


def shown_maps(victim: Victim, leak: MapLeak, x: Tensor, seed: int) -> Tensor:
    """The maps (n, *S) of pictures x (n, C, *S) as the service tells them."""
    return defended_maps(victim.maps(leak.call, x, seed), leak.cells, leak.levels)


def defended_maps(maps: Tensor, cells: int | None, levels: int | None) -> Tensor:
    """Maps (n, H, W) averaged over cells, then rounded: each divided by its largest absolute value, to so many levels.

    >>> import torch
    >>> defended_maps(torch.tensor([[[0.0, 4.0], [1.0, 1.0]]]), 1, None)
    tensor([[[1.5000, 1.5000],
             [1.5000, 1.5000]]])
    >>> defended_maps(torch.tensor([[[0.0, 4.0], [1.0, 2.1]]]), None, 2)
    tensor([[[0.0000, 1.0000],
             [0.0000, 0.5000]]])
    """
    if cells is not None and min(maps.shape[1:]) > cells:
        coarse = F.adaptive_avg_pool2d(maps[:, None], cells)
        maps = F.interpolate(coarse, maps.shape[1:], mode="nearest")[:, 0]
    if levels is not None:
        largest = maps.abs().flatten(1).amax(1).clamp_min(1e-12)[:, None, None]
        maps = (maps / largest * levels).round() / levels
    return maps
