"""Adebayo et al. 2018, arXiv:1810.03292, section 4.1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, span, table
from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.places import cropped, occupied
from clearsight.core.similarity import Map, alike, constant, spearman
from clearsight.core.statistics import bootstrap, judge
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.engines.facts import facts_of
from clearsight.errors import Refused
from clearsight.internals.randomisation import Unlearnt, cuts, fresh, scores_now, unlearnt
from clearsight.reporting.findings import Cell, Figure, Finding
from clearsight.reporting.wording import show
from clearsight.runner.run import explain

_KINDS = ("|rank correlation|", "|rank correlation| of |map|", "SSIM")


def _validate(case: Case, *, stages: int, **others: object) -> None:
    if stages < 1:
        raise Refused(f"sanity(stages={stages}): at least one stage")


@method(
    paper="arXiv:1810.03292",
    claims="of-texts of-weights",
    order=5,
    validate=_validate,
    advice="do not take these maps as reasons, and choose an explainer that depends on the weights with -m",
)
def sanity(case: Case, *, pictures: int = 50, stages: int = 5, ceiling: float = 0.5) -> Finding:
    """Does the map change when what the network has learnt is taken from it?

    A copy of the network is re-initialised from the output layer to the input.  After each stage its maps are compared
    with the trained network's, for the same class and layer.

    Value: the mean absolute Spearman rank correlation of the two maps when all layers are random, 0 to 1, with a
    bootstrap interval over pictures.  Beside it stand the rank correlation of the maps' magnitudes and SSIM (each map
    over its largest magnitude, data range from both).  An empty or constant map of a random network counts as not
    alike, 0, and is reported.  Chance: the maps of different pictures.  Of a text its characters are compared.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: else, and if more than a
    third of the maps are empty.

    Layers without a reset of their own are drawn from a normal of the trained root mean square.  Weights that are
    computed from others (weight_norm, spectral_norm) are drawn as plain ones.  Of an exported file that an engine runs,
    whose weights nobody can change, a note says so.

    Args:
        pictures: maximum number of pictures, drawn by seed; at least 1.
        stages: number of steps from the output layer alone to all layers, at least 1.
        ceiling: largest mean rank correlation that is accepted, 0 to 1.

    Refused: networks that cannot be copied or hold quantised weights, and those in which a layer uses its old weights
    after they were drawn, or whose scores for a picture stay the same; fewer than one stage or picture.

    Source: the cascading randomisation of Adebayo et al. 2018.
    """
    rows = case.sample(range(len(case.pictures)), pictures)
    call = case.method  # its layer is named, so that the randomised network is asked about the same one
    likeness: dict[int, list[tuple[float, float, float]]] = {}  # by picture, by stage
    trained: list[Map] = []
    depths: list[int] = []
    empty, done = [0] * stages, 0
    for part, x in case.batches(rows):
        done += len(part)
        inside = occupied(case.model, x)
        before = dict(zip(part, _values(case.maps(part, x), inside), strict=True))
        varying = [i for i in part if not constant(before[i])]
        if not varying:
            continue
        trained += [before[i] for i in varying]
        which, target = [part.index(i) for i in varying], ClassScore(case.predicted[varying])
        pixels, inside = x[which], None if inside is None else inside[which]
        randomised = unlearnt(case.model, x[:1])
        depths = cuts(len(randomised.layers), stages)
        for stage in _randomise_in_stages(case, randomised, depths, x, pixels):
            after = explain(randomised.model, pixels, call, target, seed=case.seed).maps
            for i, m in zip(varying, _values(after, inside), strict=True):
                empty[stage] += constant(m)
                likeness.setdefault(i, []).append(alike(before[i], m))
    if not likeness:
        all_constant = f"All maps of the trained network are constant ({case.counted(done)})"
        return Finding("note", f"{all_constant}: nothing can change.")
    values = np.array(list(likeness.values()))  # pictures, stages, kinds
    n, final = len(values), values[:, -1, 0].tolist()
    value, interval = float(np.mean(final)), bootstrap(final, case.seed)
    between = _likeness_between_pictures(trained)
    magnitude, ssim = (float(values[:, -1, kind].mean()) for kind in (1, 2))
    verdict, rows_of_data = judge(interval, ceiling=ceiling), _picture_rows(case, list(likeness), values)
    if empty[-1] > n / 3 and verdict == "pass":
        verdict = "warn"  # empty maps count as 0: too many of them say nothing of the method
    return Finding(
        verdict,
        f"With all {counted(depths[-1], 'layer')} random the maps keep a rank correlation of {show(value, '')} "
        f"({span(interval, n, shares=False)}) with the trained network's, {show(magnitude, '')} by magnitude alone, "
        f"at an SSIM of {show(ssim, '')}.",
        quantity="similarity after randomisation",
        value=value,
        interval=interval,
        n=n,
        unit="",
        chance=between,
        has_bar=True,
        notes=(
            f"Asked for: at most {ceiling:g} (option ceiling); 1 is a method that ignores what the network has learnt.",
            f"Maps: {call}, for the class that the trained network gives, held fixed.",
            *_notes(case, values, empty[-1], done - n, ceiling),
            *_note_on_chance(case, between),
            *note_on_sample(case, len(rows), len(case.pictures)),
            *note_on_budget(case, done, len(rows)),
        ),
        tables=(
            *table("Likeness to the trained network's maps, by stage", _stage_rows(values, depths, empty, case.seed)),
            *table(f"By {case.thing} when all is random, the most alike first", rows_of_data),
        ),
        figures=(_stages_figure(case, values, depths),),
    )


def _values(maps: Tensor, inside: Tensor | None) -> list[Map]:
    """Each map (*S) as NumPy has it; of texts its places inside alone."""
    return [m.double().numpy() for m in cropped(maps, inside)]


def _randomise_in_stages(
    case: Case, randomised: Unlearnt, depths: list[int], x: Tensor, pixels: Tensor
) -> Iterator[int]:
    """Re-initialise the copy from the output layer down, and give the number of each stage when it is done.

    depths: number of random layers after each stage.  x: the pictures by whose first one random numbers are seeded;
    pixels (B, C, *S): those whose scores must change.
    """
    logits = scores_now(randomised.model, pixels)
    last = 0
    for stage, cut in enumerate(depths):
        with rng.seeded(fresh(case.seed, stage), x[:1]):
            randomised.draw(randomised.layers[last:cut])
        last = cut
        if not randomised.check(pixels, logits) and stage == len(depths) - 1:
            raise Refused("the scores stay the same when all layers of this network are random: it has learnt nothing")
        yield stage


def _likeness_between_pictures(maps: list[Map]) -> float | None:
    """How alike the trained network's maps of different pictures are: each with the next.

    Of texts, whose lengths differ, as many of the first characters as both have.
    """
    if len(maps) < 2:
        return None
    pairs = ((a[: len(b)], b[: len(a)]) for a, b in zip(maps, [*maps[1:], maps[0]], strict=True))
    return float(np.mean([abs(spearman(a, b)) for a, b in pairs]))


def _note_on_chance(case: Case, between: float | None) -> list[str]:
    if between is None:
        return []
    return [f"Chance: the trained network's maps of different {case.thing}s are alike at {show(between, '')}."]


def _note_on_folding(case: Case) -> list[str]:
    """A sentence on the layers of a converted file, which are not those of its network."""
    facts = facts_of(case.model.net)
    if facts is None or not facts.converted:
        return []
    return [
        "In an exported file batch normalisation is often part of the convolution before it, and both are drawn as one "
        "layer with biases: the network that it was exported from, where each is drawn by itself, gets another value."
    ]


def _notes(case: Case, values: Map, empty: int, constant_maps: int, ceiling: float) -> list[str]:
    n, notes = len(values), []
    if empty:
        remaining = values[values[:, -1, :].any(1), -1, 0]
        others = f"; the others keep {show(float(remaining.mean()), '')}" if len(remaining) else ""
        notes.append(
            f"{empty} of {counted(n, 'map')} {'is' if empty == 1 else 'are'} empty or constant when all is random, "
            f"counted as 0{others}."
        )
    if constant_maps:
        notes.append(f"{case.counted(constant_maps, 'is', 'are')} left out: the trained network's map is constant.")
    if values[:, -1, 1].mean() > ceiling >= values[:, -1, 0].mean():
        notes.append(
            "By magnitude alone the maps stay alike: the weights decide the sign of the relevance, not where it lies."
        )
    return [*notes, *_note_on_folding(case)]


def _stage_rows(values: Map, depths: list[int], empty: list[int], seed: int) -> list[dict[str, Cell]]:
    rows = []
    for k, depth in enumerate(depths):
        means: dict[str, Cell] = {kind: _finite_or_none(values[:, k, j].mean()) for j, kind in enumerate(_KINDS)}
        interval = bootstrap(values[:, k, 0].tolist(), seed)
        row = {"random layers": f"{depth} of {depths[-1]}", _KINDS[0]: means.pop(_KINDS[0])}
        rows.append({**row, **bounds(interval), **means, "empty maps": empty[k], "n": len(values)})
    return rows


def _picture_rows(case: Case, rows: list[int], values: Map) -> list[dict[str, Cell]]:
    cells: list[dict[str, Cell]] = [
        {case.thing: case.pictures[i].name, **{kind: _finite_or_none(v[-1, j]) for j, kind in enumerate(_KINDS)}}
        for i, v in zip(rows, values, strict=True)
    ]
    return sorted(cells, key=lambda r: (-float(r[_KINDS[0]] or 0), str(r[case.thing])))


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _stages_figure(case: Case, values: Map, depths: list[int]) -> Figure:
    lines = []
    for j, kind in enumerate(_KINDS):
        v = values[:, :, j]
        if not np.isfinite(v).all() or (j == 1 and np.allclose(v, values[:, :, 0])):
            continue  # nothing to draw, or the magnitudes are the maps themselves
        bands = [bootstrap(v[:, k].tolist(), draws=500) for k in range(len(depths))]
        means = [1.0, *v.mean(0).tolist()]
        if j:
            lines.append(charts.Line(kind, means, control=True))
        else:
            low, high = ([1.0, *(b[side] for b in bands if b)] if all(bands) else None for side in (0, 1))
            lines.append(charts.Line(kind, means, low, high))
    data = charts.curves(
        list(range(len(depths) + 1)),
        lines,
        xlabel="layers with random weights, counted from the output",
        ylabel="likeness to the trained maps",
        xticks=[(0, "0"), *((k + 1, f"{d}") for k, d in enumerate(depths))],
        shares=False,
    )
    caption = f"How the maps change as the network is randomised, mean over {case.counted(len(values))}."
    ends = values[:, -1, 0].mean()
    alt = f"Curves of likeness over randomised layers, from 1 down to {show(float(ends), '')} when all are random."
    return Figure("sanity-stages.svg", data, caption, alt)
