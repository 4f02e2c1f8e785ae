"""How similar the maps of several models are where their answers agree; no annotation is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import maps_of, note_on_sample, shown, span, table
from clearsight.comparing.answers import Answers
from clearsight.core.places import occupied
from clearsight.core.progress import Progress
from clearsight.core.similarity import average_ranks
from clearsight.core.statistics import bootstrap
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.drawing.side_by_side import side_by_side
from clearsight.reporting.findings import Cell, Evidence, Finding
from clearsight.reporting.wording import show

Values = npt.NDArray[np.float64]
MOST = 50  # pictures whose maps are compared, a seeded draw
DRAWN = 3  # runs whose maps are drawn side by side
EVIDENCE = 6
SUMMARY = "Do runs that give the same answer have the same reasons for it?"


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of the runs on the same pictures.

    alike (n,): the mean rank correlation of the maps of two runs.  drawn: name of a run -> its maps (n, *S), in the
    order in which they are shown.  case: that of the first one shown.
    """

    case: Case
    alike: Values
    drawn: dict[str, Tensor]
    method: str


def mean_correlation(total: Values, squares: Values, k: int) -> Values:
    """The mean over all pairs of k unit vectors' products, from their sum alone: (|sum|^2 - k) / (k (k - 1)).

    total (n, P): the sum of the k vectors; squares (n,): the sum of their squared lengths, k unless some are zero.

    >>> a, b = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    >>> mean_correlation(a + b, np.array([2.0]), 2).round(9).tolist()
    [0.6]
    """
    mean: Values = ((total * total).sum(1) - squares) / (k * (k - 1))
    return mean


def ranks(m: Values) -> Values:
    """The ranks of a map's places, centred and of length 1; zeros for a constant map.

    The product of two is Spearman's correlation as ``resemblance.spearman`` gives it.
    """
    r: Values = average_ranks(m)
    r -= r.mean()
    size = float(np.sqrt((r * r).sum()))
    return r / size if size else r


def ranks_inside(m: Tensor, inside: Tensor | None) -> Values:
    """The ranks of a map (*S), of a text over its characters alone: 0 behind its end."""
    values = m.double().numpy()
    if inside is None:
        return ranks(values.ravel())
    vector: Values = np.zeros(values.shape)
    vector[inside.numpy()] = ranks(values[inside.numpy()])
    return vector


def compare_maps(
    answers: Sequence[Answers], pictures: Pictures, shown_runs: Sequence[str], *, method: str, seed: int, tell: Progress
) -> Finding:
    """The mean rank correlation of the maps of two runs, over the pictures that all runs answer alike and right."""
    first = answers[0]
    if any(a.preprocessing != first.preprocessing for a in answers):
        return _not_compared(
            "The runs differ in their classes or in their preprocessing, so their maps cannot be compared."
        )
    candidates = first.right if first.labelled else frozenset(first.predictions)
    same = [
        name
        for name in first.predictions
        if name in candidates and len({a.predictions.get(name) for a in answers}) == 1
    ]
    agreement = "alike and right" if first.labelled else "alike"
    if not same:
        return _not_compared(
            f"There is no {pictures.thing} that all {len(answers)} runs answer {agreement}, so no maps were compared."
        )
    chosen = [same[i] for i in torch.randperm(len(same), generator=torch.Generator().manual_seed(seed))][:MOST]
    drawn_pictures = replace(
        pictures, pictures=tuple(p for p in pictures.pictures if p.name in {*chosen}), broken=(), notes=()
    )
    maps = _maps(answers, drawn_pictures, shown_runs, method, seed, tell)
    if maps is None:
        return _not_compared(
            "The networks of the runs need different explainers: name one for all, such as -m integrated-gradients."
        )
    n, value = len(maps.alike), float(maps.alike.mean())
    interval = bootstrap(maps.alike.tolist(), seed)
    order = [int(i) for i in np.argsort(maps.alike, kind="stable")]
    low, high = show(float(maps.alike.min()), ""), show(float(maps.alike.max()), "")
    spread = f" It ranges from {low} to {high} over the {pictures.thing}s." if n > 1 else ""
    return Finding(
        "note",
        f"On {counted(n, pictures.thing)} that all {len(answers)} runs answer {agreement}, the maps of two runs have a "
        f"rank correlation of {show(value, '')} on average ({span(interval, n, shares=False)}).{spread}",
        quantity="rank correlation of two runs' maps",
        value=value,
        interval=interval,
        n=n,
        unit="",
        notes=(
            "1 means the same places in the same order, 0 nothing in common. Maps of any two networks correlate where "
            f"{'texts begin alike' if pictures.are_texts else 'objects are in the middle'}, so the distance from 1 is "
            "what counts.",
            f"Maps: {maps.method}, for the answer that all runs give. The value is the mean over all pairs of runs, "
            f"its interval is over {pictures.thing}s.",
            f"Drawn, in this order: {', '.join(maps.drawn)}, from the run with the fewest acceptable reasons to the "
            "run with the most; where these are not known, from the least accurate run on.",
            *note_on_sample(pictures, n, len(same)),
        ),
        tables=table(f"By {pictures.thing}, the lowest correlation first", [_row(maps, i) for i in order]),
        evidence=tuple(_evidence(maps, k, i) for k, i in enumerate(order[:EVIDENCE], 1)),
        check="likeness",
        summary=SUMMARY,
    )


def _not_compared(why: str) -> Finding:
    return Finding("note", why, check="likeness", summary=SUMMARY)


def _maps(
    answers: Sequence[Answers], pictures: Pictures, shown_runs: Sequence[str], method: str, seed: int, tell: Progress
) -> Maps | None:
    """The maps of one model after the other, keeping only the sum of their ranks; None if the explainers differ."""
    total: Values | float = 0.0
    squares: Values | float = 0.0
    drawn: dict[str, Tensor] = {}
    methods: set[str] = set()
    first_case: list[Case] = []
    for k, a in enumerate(answers, 1):
        case = Case(a.load(), pictures, seed=seed, method=method)
        methods.add(case.method.method.name)
        if len(methods) > 1:
            return None
        rows = list(range(len(case.pictures)))
        maps = torch.cat([case.maps(part, x) for part, x in case.batches(rows)])
        inside = occupied(case.model, case.pixels(rows)) if case.data.are_texts else None
        rank_vectors = np.stack([ranks_inside(m, None if inside is None else inside[i]) for i, m in enumerate(maps)])
        total, squares = total + rank_vectors, squares + (rank_vectors * rank_vectors).sum(1)
        drawn |= {a.name: maps} if a.name in shown_runs else {}
        first_case += [case] if a.name == shown_runs[0] else []
        tell("comparing maps", k * len(rows), len(answers) * len(rows))
    alike = mean_correlation(np.asarray(total), np.asarray(squares), len(answers))
    return Maps(first_case[0], alike, {name: drawn[name] for name in shown_runs}, *methods)


def _row(maps: Maps, i: int) -> dict[str, Cell]:
    return {
        maps.case.thing: maps.case.pictures[i].name,
        "said": maps.case.label(i),
        "rank correlation": float(maps.alike[i]),
    }


def _evidence(maps: Maps, k: int, i: int) -> Evidence:
    """The photo and the maps of some runs side by side."""
    case = maps.case
    x = case.pixels([i])[0]
    entry = case.pictures[i]
    region = case.regions([i])[0] if entry.regions or entry.marks else None
    signed = any(bool((m < 0).any()) for m in maps.drawn.values())
    drawn = side_by_side(
        x, [m[i] for m in maps.drawn.values()], [signed] * len(maps.drawn), region=region, text=entry.text
    )
    what = "photo" if entry.text is None else "text"
    caption = f"the {what}, and what speaks for {case.label(i)} in {', '.join(maps.drawn)}"
    return shown(case, i, f"likeness-{k}", drawn, caption, _row(maps, i), maps=maps_of(case))
