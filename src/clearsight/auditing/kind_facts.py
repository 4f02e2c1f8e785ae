"""What `inspect` says of detectors and segmenters: how many candidates, at which strides, and how fine the logits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.outputs import pick
from clearsight.internals.probe import ModuleRun, probed
from clearsight.kinds.detector import Detector


@dataclass(frozen=True)
class Level:
    """Places of one size of feature maps.

    stride: pixels from one place to the next, down and across; places: (h, w); candidates: boxes from them.
    """

    stride: tuple[float, float]
    places: tuple[int, int]
    candidates: int


@dataclass(frozen=True)
class KindFacts:
    """What a detector or a segmenter gives for one picture.

    outputs: shape of what the network gives for it, (N, 5 + K) or (K, h, w).  levels: where a detector's candidates
    lie, in the order of the outputs, none where that cannot be told; of a segmenter one, the places of its logits.
    reports: what a detector reports of its candidates; "" of a segmenter.
    """

    outputs: tuple[int, ...]
    levels: tuple[Level, ...]
    reports: str

    def rows(self) -> list[tuple[str, str]]:
        """The same for the terminal."""
        if not self.reports:
            (level,) = self.levels
            size = " x ".join(map(str, level.places))
            return [("gives", f"a class for every pixel, from logits {size}, stride {_stride(level)}")]
        where = "; ".join(
            f"{level.candidates:,} at stride {_stride(level)} ({level.places[0]} x {level.places[1]} places)"
            for level in self.levels
        )
        found = f"{self.outputs[0]:,} candidates a picture" + (
            f": {where}" if where else ", of levels that are not known"
        )
        return [("gives", found), ("reports", self.reports)]


def kind_facts(model: Model, x: Tensor) -> KindFacts | None:
    """The facts of a detector or a segmenter, measured on pictures x (B, C, H, W); None of a classifier."""
    if model.kind == "classifier":
        return None
    with torch.no_grad():
        out = pick(model.returned(model.normalised(x[:1])), model.output)
    if not isinstance(model, Detector):
        return KindFacts(tuple(out.shape[1:]), (_level(x, out.shape[2:], 0),), "")
    reports = (
        f"at most {model.most} boxes that score above {model.floor:g}; those of one class overlap by an IoU of at "
    )
    levels = levels_of(probed(model, x).runs, out.shape[1], x)
    return KindFacts(tuple(out.shape[1:]), levels, f"{reports}most {model.overlap:g}")


def levels_of(runs: Sequence[ModuleRun], candidates: int, x: Tensor) -> tuple[Level, ...]:
    """The levels of so many candidates for a picture x (B, C, H, W), from the layers that ran; none where none fit.

    They are the sizes of the maps of the last convolution, or of the last ones with like names in a list, whose places
    give all candidates, each place as many.
    """
    sizes: dict[str, list[tuple[int, ...]]] = {}
    for run in runs:
        if run.convolves and run.shape is not None and len(run.shape) == 4:
            sizes.setdefault(re.sub(r"(?<=\.)\d+", "*", run.name), []).append(run.shape)
    for shapes in reversed(sizes.values()):
        each, left = divmod(candidates, sum(prod(s[2:]) for s in shapes))
        if not left and each and all(s[1] % each == 0 for s in shapes):
            return tuple(_level(x, s[2:], each * prod(s[2:])) for s in shapes)
    return ()


def _level(x: Tensor, places: Sequence[int], candidates: int) -> Level:
    down, across = (side / n for side, n in zip(x.shape[2:], places, strict=True))
    return Level((down, across), (int(places[0]), int(places[1])), candidates)


def _stride(level: Level) -> str:
    down, across = (f"{v:.4g}" for v in level.stride)
    return down if down == across else f"{down} x {across}"
