"""The maps of two runs on the same pictures, and how much of each lies on the annotated object."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.comparing.answers import Answers
from clearsight.comparing.paired_measures import ON_THE_MARKS, ON_THE_OBJECT, PairedMeasure
from clearsight.core.progress import Progress
from clearsight.core.statistics import bootstrap
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import Pictures
from clearsight.reporting.findings import Cell
from clearsight.runner.run import measure

MOST = 100  # annotated pictures that are measured, a seeded draw
OF_MAPS = "maps"  # stands where the name of a check does


@dataclass(frozen=True, eq=False)
class RunMaps:
    """What one run shows of some pictures, each by the picture's name.

    pixels (C, *S) in [0, 1]; maps (*S), for the run's own answer; regions (*S), where the object is in view.
    on_the_object: the share of a map's positive relevance inside the region, 0 to 1, where there is any; of the sample.
    texts: the characters of texts.  commands: draw a map again.  explainer: with its layer and options; method: its
    name.
    """

    explainer: str
    method: str
    signed: bool
    pixels: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]
    regions: Mapping[str, Tensor]
    on_the_object: Mapping[str, float]
    commands: Mapping[str, str]
    texts: Mapping[str, str]


def paired_maps(
    before: Answers,
    after: Answers,
    pictures: Pictures,
    drawn: Collection[str],
    *,
    method: str,
    seed: int,
    tell: Progress,
) -> tuple[RunMaps, RunMaps] | None:
    """The maps of both runs, for the drawn pictures and a sample of annotated ones; None where there are none."""
    both = before.predictions.keys() & after.predictions.keys()
    annotated = [p.name for p in pictures.pictures if (p.regions or p.marks) and p.name in both]
    order = torch.randperm(len(annotated), generator=torch.Generator().manual_seed(seed))[:MOST]
    measured = {annotated[i] for i in order}  # these alone: those that are drawn are no fair sample
    names = {*drawn, *measured}
    if not names:
        return None
    chosen = replace(pictures, pictures=tuple(p for p in pictures.pictures if p.name in names), broken=(), notes=())
    runs = []
    for k, run in enumerate((before, after), 1):
        runs.append(_run_maps(run, chosen, measured, method, seed))
        tell("maps before and after", k * len(names), 2 * len(names))
    return runs[0], runs[1]


def _run_maps(run: Answers, pictures: Pictures, measured: Collection[str], method: str, seed: int) -> RunMaps:
    case = Case(run.load(), pictures, seed=seed, method=method)
    rows = list(range(len(case.pictures)))
    names = [p.name for p in case.pictures]
    pixels = case.pixels(rows)
    maps = torch.cat([case.maps(part, x) for part, x in case.batches(rows)])
    in_view, regions, _ = case.in_view(case.annotated)
    shares: list[float] = []
    if in_view:
        target = ClassScore(case.predicted[in_view], of="prob")
        inside = torch.stack(regions)
        shares = measure(
            case.model, pixels[in_view], maps[in_view], "relevance-mass", target, regions=inside, seed=seed
        ).tolist()
    return RunMaps(
        str(case.method),
        case.method.method.name,
        case.signed,
        dict(zip(names, pixels, strict=True)),
        dict(zip(names, maps, strict=True)),
        {names[i]: region for i, region in zip(in_view, regions, strict=True)},
        {
            names[i]: share
            for i, share in zip(in_view, shares, strict=True)
            if names[i] in measured and not math.isnan(share)
        },
        {p.name: case.commands.of_picture("explain", p, "-m", str(case.method)) for p in case.pictures},
        {p.name: p.text for p in case.pictures if p.text is not None},
    )


def on_the_object(before: RunMaps, after: RunMaps, seed: int) -> tuple[PairedMeasure | None, list[dict[str, Cell]]]:
    """The mean share of relevance on the object, and its rows by picture, the least after first.

    Of the pictures where both maps have any positive relevance; nothing where there are none or the explainers differ.
    """
    names = before.on_the_object.keys() & after.on_the_object.keys()
    if not names or before.method != after.method:
        return None, []
    order = sorted(names, key=lambda name: (after.on_the_object[name], name))
    thing, words = ("text", ON_THE_MARKS) if before.texts else ("picture", ON_THE_OBJECT)
    pairs = [(before.on_the_object[name], after.on_the_object[name]) for name in order]
    interval = bootstrap([b - a for a, b in pairs], seed)
    means = fmean(a for a, _ in pairs), fmean(b for _, b in pairs)
    rows: list[dict[str, Cell]] = [
        {thing: name, "before": a, "after": b, "difference": b - a} for name, (a, b) in zip(order, pairs, strict=True)
    ]
    return PairedMeasure(OF_MAPS, words, means[0], means[1], interval, len(order), True), rows
