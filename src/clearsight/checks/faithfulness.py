"""Petsiuk, Das & Saenko 2018, arXiv:1806.07421, section 3.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    bounds,
    draw_map,
    maps_of,
    note_on_budget,
    note_on_sample,
    share,
    shown,
    span,
    table,
)
from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.statistics import Interval, Judgement, bootstrap
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.perturbation.removal_order import area, curve
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.reporting.wording import show
from clearsight.runner.run import explain

_EVIDENCE = 6


@dataclass(frozen=True)
class _Curves:
    """The probability of the top class of one picture, (steps + 1) values each."""

    row: int
    x: Tensor
    map: Tensor
    deletion: Tensor
    insertion: Tensor
    control_deletion: Tensor
    control_insertion: Tensor

    def areas(self) -> tuple[float, float, float, float]:
        deletion, insertion, control_deletion, control_insertion = area(
            torch.stack([self.deletion, self.insertion, self.control_deletion, self.control_insertion])
        ).tolist()
        return deletion, insertion, control_deletion, control_insertion

    @property
    def gain(self) -> float:
        deletion, insertion, control_deletion, control_insertion = self.areas()
        return (insertion - deletion) - (control_insertion - control_deletion)


def _validate(case: Case, *, steps: int, **others: object) -> None:
    if steps < 1:
        raise Refused(f"faithfulness(steps={steps}): at least one step")


@method(
    paper="arXiv:1806.07421",
    claims="of-texts",
    order=4,
    validate=_validate,
    advice="do not take these maps as reasons, and choose another explainer with -m",
)
def faithfulness(case: Case, *, pictures: int = 100, steps: int = 10) -> Finding:
    """Do the places that the map marks matter to the model more than places drawn at random?

    Value: the insertion area less the deletion area, less the same for a random order (the explainer random), paired by
    picture.  It is a plain number from -2 to 2, in units of the top class's probability, with a bootstrap interval over
    pictures.  In deletion the pixels taken away become the mean of the preprocessing; in insertion a strong blur stands
    before pixels are put back.  Characters of a text leave their places empty.

    pass: the whole interval lies above zero.  fail: none of it does.  warn: else.

    Args:
        pictures: maximum number of pictures, drawn by seed; at least 1.
        steps: number of equal portions in which pixels are taken away or put back, at least 1.

    Refused: fewer than one step, and fewer than one picture.

    Source: Petsiuk et al. 2018.
    """
    rows = case.sample(range(len(case.pictures)), pictures)
    measured: list[_Curves] = []
    for part, x in case.batches(rows):
        measured += _measure_curves(case, part, x, steps)
    n = len(measured)
    gains = [c.gain for c in measured]
    value, interval = sum(gains) / n, bootstrap(gains, case.seed)
    areas = np.array([c.areas() for c in measured])
    order = sorted(measured, key=lambda c: (c.gain, case.pictures[c.row].name))
    deletion, insertion, control_deletion, control_insertion = areas.mean(0).tolist()
    better = sum(g > 0 for g in gains)
    return Finding(
        verdict_of(interval),
        f"Insertion less deletion in the map's order is {show(value, '')} above that in a random order "
        f"({span(interval, n, shares=False)}): deletion {show(deletion, '')} against {show(control_deletion, '')}, "
        f"insertion {show(insertion, '')} against {show(control_insertion, '')}, better on {better} of "
        f"{case.counted(n)}.",
        quantity="gain over a random order",
        value=value,
        interval=interval,
        n=n,
        unit="",
        chance=0.0,
        has_bar=True,
        notes=(
            "Asked for: an interval above 0, which is what a random order gives.",
            f"Maps: {case.method}, for the probability of the top class, in {counted(steps, 'step')}.",
            _note_on_fill(case),
            *note_on_sample(case, len(rows), len(case.pictures)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=(
            *table("Areas under the curves", _area_rows(areas, case.seed)),
            *table(f"By {case.thing}, the worst first", [_picture_row(case, c) for c in order]),
        ),
        figures=_figures(case, measured, steps),
        evidence=_evidence(case, order),
    )


def _note_on_fill(case: Case) -> str:
    """What stands in the place of what is taken away."""
    if case.data.are_texts:
        return "Deleted characters leave their places empty, as behind the end of a text; insertion starts from none."
    mean = ", ".join(f"{m:g}" for m in case.model.preprocess.mean)
    return (
        f"Fill: deleted pixels become the mean of the preprocessing ({mean}); insertion starts from a blur of "
        f"sigma {max(case.model.preprocess.size) / 10:g} pixels."
    )


def _measure_curves(case: Case, rows: list[int], x: Tensor, steps: int) -> list[_Curves]:
    maps = case.maps(rows, x)
    top = case.predicted[rows]
    control = explain(case.model, x, "random", ClassScore(top), seed=case.seed).maps
    target, pixels = ClassScore(top, of="prob"), x.to(case.model.device)
    curves = []
    with case.model.undisturbed():
        for m in (maps, control):
            for insert in (False, True):
                with rng.seeded(case.seed, pixels, "insertion" if insert else "deletion"):
                    fill = "blur" if insert else "mean"
                    values = curve(
                        case.model, pixels, target, m.to(pixels), steps=steps, fill=fill, insert=insert  # type: ignore[arg-type]
                    )  # fmt: skip
                curves.append(values.cpu())
    return [_Curves(i, x[j], maps[j], *(f[j] for f in curves)) for j, i in enumerate(rows)]


def verdict_of(interval: Interval | None) -> Judgement:
    """Zero is what chance gives, so it is not good enough: the bound is strict."""
    if interval is None:
        return "warn"
    if interval[0] > 0:
        return "pass"
    return "fail" if interval[1] <= 0 else "warn"


def _area_rows(areas: np.ndarray[tuple[int, int], np.dtype[np.float64]], seed: int) -> list[dict[str, Cell]]:
    deletion, insertion, control_deletion, control_insertion = areas.T
    gains_by_name = {
        "deletion, the map's order (low is good)": deletion,
        "deletion, a random order": control_deletion,
        "deletion gain, paired": control_deletion - deletion,
        "insertion, the map's order (high is good)": insertion,
        "insertion, a random order": control_insertion,
        "insertion gain, paired": insertion - control_insertion,
    }
    return [
        {"area": name, "mean": float(v.mean()), **bounds(bootstrap(v.tolist(), seed)), "n": len(v)}
        for name, v in gains_by_name.items()
    ]


def _picture_row(case: Case, c: _Curves) -> dict[str, Cell]:
    deletion, insertion, control_deletion, control_insertion = c.areas()
    return {
        case.thing: case.pictures[c.row].name,
        "said": case.label(c.row),
        "gain": c.gain,
        "deletion": deletion,
        "deletion, random": control_deletion,
        "insertion": insertion,
        "insertion, random": control_insertion,
    }


def _figures(case: Case, measured: list[_Curves], steps: int) -> tuple[Figure, ...]:
    x = [k / steps for k in range(steps + 1)]
    figures = []
    for kind, change in (("deletion", "taken away"), ("insertion", "put back")):
        lines = []
        for name, attribute, control in (("the map's order", kind, False), ("a random order", f"control_{kind}", True)):
            values = torch.stack([getattr(c, attribute) for c in measured]).double()
            bands = [bootstrap(values[:, k].tolist(), draws=500) for k in range(steps + 1)]
            low, high = ([b[side] for b in bands if b] or None for side in (0, 1))
            lines.append(charts.Line(name, values.mean(0).tolist(), low, high, control))
        data = charts.curves(
            x,
            lines,
            xlabel=f"{case.parts} {change}, the most relevant first",
            ylabel="probability of the top class",
            xticks=[(k / 5, f"{20 * k} %") for k in range(6)],
        )
        caption = f"{kind.capitalize()}: mean and 95 % interval over {case.counted(len(measured))}."
        ends = [share(sum(line.values) / len(line.values)) for line in lines]
        order = f"{ends[0]} in the map's order, {ends[1]} in a random one"
        alt = f"Mean probability while {case.parts} are {change}: {order}."
        figures.append(Figure(f"faithfulness-{kind}.svg", data, caption, alt))
    return tuple(figures)


def _evidence(case: Case, order: list[_Curves]) -> tuple[Evidence, ...]:
    evidence = []
    for k, c in enumerate(order[:_EVIDENCE], 1):
        facts = _picture_row(case, c)
        caption = f"{facts['said']}: gain {show(c.gain, '')} over a random order"
        image = draw_map(case, c.x, c.map)
        evidence.append(shown(case, c.row, f"faithfulness-{k}", image, caption, facts, maps=maps_of(case)))
    return tuple(evidence)
