"""Wang et al. 2020, arXiv:1910.01279, section 4.3; the pointing game is Zhang et al. 2018, arXiv:1608.00507."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from clearsight.auditing.mending import mend_by_marks
from clearsight.core.catalogue import method
from clearsight.core.places import share_inside
from clearsight.core.statistics import Interval, Judgement, bootstrap, judge, wilson
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.runner.run import measure

_EVIDENCE = 12
_DOTS = 40  # more rows cannot be read
_FITS = 0.5  # IoU from which on a box counts as that of the object
_WRONG_REASON = "right for the wrong reason"


@dataclass(frozen=True)
class _MeasuredPicture:
    """The measures of one picture."""

    row: int
    mass: float  # nan where the map has nothing positive
    hit: float
    area: float
    box: float  # IoU of the map's box and the object's
    whole: float  # that of the box around everything
    right: bool | None  # None without a label
    x: Tensor
    map: Tensor
    region: Tensor

    @property
    def gain(self) -> float:
        return self.mass - self.area

    @property
    def remark(self) -> str:
        return _WRONG_REASON if self.right and self.gain < 0 else ""


@method(
    paper="arXiv:1910.01279",
    claims="of-texts",
    order=3,
    advice="look at the maps with the least relevance on the object, which come first in its evidence",
    mend="--guide {marks}",
)
def localisation(case: Case, *, floor: float = 0.3, pictures: int = 200) -> Finding:
    """Does what speaks for the answer lie on the object, or beside it?

    Value: the mean share of the map's positive relevance inside the annotated boxes or masks (metric relevance-mass), 0
    to 1, with a bootstrap interval.  It counts the annotated pictures that are answered right or have no label.
    Chance: the mean share of the area.  The pointing game (is the highest point inside?) stands beside it, and for
    pictures how well a box around the map's brightest part fits the object (metric box-iou), and on how many that box
    fits and the answer is right (metric top-1-localisation).  A right answer with less relevance on the object than
    chance is called right for the wrong reason.  Of texts the object is the marked characters, and the area that of all
    characters.

    pass: the interval of the value lies at or above floor, and that of the paired difference from chance lies above
    zero.  fail: the first lies wholly below floor, or the second wholly at or below zero.  warn: else.

    Args:
        floor: mean share of the relevance on the object that is asked for, 0 to 1.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: fewer than one picture.

    Source: the energy-based pointing game of Wang et al. 2020; the pointing game of Zhang et al. 2018.
    """
    if not case.annotated:
        return _finding_without_annotations(case)
    rows = case.sample(case.annotated, pictures)
    measured, left_out, done = _measure_pictures(case, rows)
    judged = [s for s in measured if s.right is not False and not math.isnan(s.mass)]
    notes = _notes(case, measured, left_out, floor, pictures) + note_on_budget(case, done, len(rows))
    order = sorted(measured, key=lambda s: (s.right is False, math.isnan(s.mass), s.gain, case.pictures[s.row].name))
    tables = table(f"By {case.thing}, the worst first", [_picture_row(case, s) for s in order])
    evidence = _evidence(case, order)
    if not judged:
        return Finding(
            "note",
            f"None of {counted(done, f'annotated {case.thing}')} can be judged: the answer is wrong, "
            f"{case.the_object} {'are all' if case.data.are_texts else 'fills the view or lies outside it'}, or the "
            "map has no positive relevance.",
            has_bar=True,
            notes=notes,
            tables=tables,
            evidence=evidence,
        )
    n = len(judged)
    mass, area = [s.mass for s in judged], [s.area for s in judged]
    gains, hits = [s.gain for s in judged], [s.hit for s in judged]
    interval, gain = bootstrap(mass, case.seed), bootstrap(gains, case.seed)
    value, chance, points = _mean(mass), _mean(area), _mean(hits)
    wrong = sum(bool(s.remark) for s in judged)
    pointing = wilson(round(sum(hits)), n) if set(hits) <= {0.0, 1.0} else bootstrap(hits, case.seed)
    measures: list[dict[str, Cell]] = [
        {"measure": f"relevance mass on {case.the_object}", "mean": value, **bounds(interval), "n": n},
        {
            "measure": f"{case.its_share} (chance for both)",
            "mean": chance,
            **bounds(bootstrap(area, case.seed)),
            "n": n,
        },
        {"measure": "relevance mass less area, paired", "mean": _mean(gains), **bounds(gain), "n": n},
        {"measure": "pointing game", "mean": points, **bounds(pointing), "n": n},
        *_box_rows(case, judged),
        *_top_1_row(case, measured),
    ]
    return Finding(
        _verdict(interval, gain, floor),
        f"{share(value)} of what speaks for the answer lies on {case.the_object} ({span(interval, n)}), "
        f"which cover{'' if case.data.are_texts else 's'} {share(chance)} of {case.the_area}; the highest point lies "
        f"there in {share(points)}, and {counted(wrong, 'answer is', 'answers are')} {_WRONG_REASON}.",
        quantity=f"relevance on {case.the_object}",
        value=value,
        interval=interval,
        n=n,
        chance=chance,
        has_bar=True,
        notes=notes,
        tables=(*table(f"On {case.the_object}", measures), *tables),
        figures=_dots_figure(case, order),
        evidence=evidence,
        mend=mend_by_marks(case.data.are_texts),
    )


def _box_rows(case: Case, judged: list[_MeasuredPicture]) -> list[dict[str, Cell]]:
    """IoU of the maps' boxes, beside that of a box that knows nothing; [] of texts."""
    if case.data.are_texts:
        return []
    columns = {
        "box IoU, of the largest part above 20 % of the map's highest value": [s.box for s in judged],
        "box IoU of the whole picture (knows nothing)": [s.whole for s in judged],
        "box IoU less that of the whole picture, paired": [s.box - s.whole for s in judged],
    }
    return [
        {"measure": name, "mean": _mean(values), **bounds(bootstrap(values, case.seed)), "n": len(values)}
        for name, values in columns.items()
    ]


def _top_1_row(case: Case, measured: list[_MeasuredPicture]) -> list[dict[str, Cell]]:
    """On how many pictures the answer is right and the box fits (metric top-1-localisation); [] of texts."""
    labelled = [s for s in measured if s.right is not None]
    if case.data.are_texts or not labelled:
        return []
    fits, n = sum(bool(s.right) and s.box >= _FITS for s in labelled), len(labelled)
    name = f"right, and a box IoU of at least {_FITS:g} (top-1 localisation)"
    return [{"measure": name, "mean": fits / n, **bounds(wilson(fits, n)), "n": n}]


def _verdict(mass: Interval | None, gain: Interval | None, floor: float) -> Judgement:
    if mass is None or gain is None:
        return "warn"
    by_floor = judge(mass, floor=floor)
    if by_floor == "fail" or gain[1] <= 0:
        return "fail"
    return "pass" if by_floor == "pass" and gain[0] > 0 else "warn"


def _finding_without_annotations(case: Case) -> Finding:
    give = "--boxes FILE (COCO, Pascal VOC, YOLO or CSV) or --masks FOLDER"
    if case.data.are_texts:
        give = "a column marks, or --marks-column NAME"
    says = f"says where {'its marked characters are' if case.data.are_texts else 'its object is'}"
    return Finding("note", f"None of the {case.counted(len(case.pictures))} {says}: give {give}.")


def _measure_pictures(case: Case, rows: list[int]) -> tuple[list[_MeasuredPicture], list[tuple[str, str]], int]:
    """The measured pictures, (name, reason) of those left out, and how many were tried."""
    measured: list[_MeasuredPicture] = []
    left_out: list[tuple[str, str]] = []
    done = 0
    for part, x in case.batches(rows):
        done += len(part)
        in_view, regions, out_of_view = case.in_view(part)
        left_out += out_of_view
        if not in_view:
            continue
        pixels = x[[part.index(i) for i in in_view]]
        maps, inside = case.maps(in_view, pixels), torch.stack(regions)
        target = ClassScore(case.predicted[in_view], of="prob")
        mass = measure(case.model, pixels, maps, "relevance-mass", target, regions=inside, seed=case.seed)
        hit = measure(case.model, pixels, maps, "pointing-game", target, regions=inside, seed=case.seed)
        area = share_inside(case.model, pixels, inside)
        box, whole = (
            measure(case.model, pixels, m, "box-iou", target, regions=inside) for m in (maps, torch.ones_like(maps))
        )
        labelled = case.truth[in_view].any(1)
        for j, i in enumerate(in_view):
            right = bool(case.right[i]) if labelled[j] else None
            measured.append(
                _MeasuredPicture(
                    i,
                    float(mass[j]),
                    float(hit[j]),
                    float(area[j]),
                    float(box[j]),
                    float(whole[j]),
                    right,
                    pixels[j],
                    maps[j],
                    regions[j],
                )
            )
    return measured, left_out, done


def _notes(
    case: Case, measured: list[_MeasuredPicture], left_out: list[tuple[str, str]], floor: float, pictures: int
) -> tuple[str, ...]:
    without_relevance = [case.pictures[s.row].name for s in measured if math.isnan(s.mass)]
    wrong = sum(s.right is False for s in measured)
    notes = [
        f"Asked for: at least {share(floor)} on {case.the_object} (option floor), and more than {case.its_share}.",
        f"Maps: {case.method}, for the top class.",
        *note_on_sample(case, min(pictures, len(case.annotated)), len(case.annotated)),
    ]
    boxes_of_class = [case.objects(s.row)[1] for s in measured]
    if case.data.are_texts:
        boxes_of_class = []  # marks name no class
    if any(boxes_of_class) and not all(boxes_of_class):
        notes.append(
            f"On {case.counted(boxes_of_class.count(False))} no box names the picture's class: all its boxes count."
        )
    elif boxes_of_class and not any(boxes_of_class):
        notes.append("No box names its picture's class: all boxes of a picture count as its object.")
    if wrong:
        notes.append(f"{case.counted(wrong, 'is', 'are')} answered wrong: in the table, but not in the value.")
    if without_relevance:
        names = ", ".join(without_relevance[:5])
        notes.append(
            f"{counted(len(without_relevance), 'map has', 'maps have')} no positive relevance and "
            f"cannot be measured: {names}."
        )
    notes += [f"{name} is left out: {why}." for name, why in left_out]
    return tuple(notes)


def _picture_row(case: Case, s: _MeasuredPicture) -> dict[str, Cell]:
    without_relevance = math.isnan(s.mass)
    return {
        case.thing: case.pictures[s.row].name,
        "said": case.label(s.row),
        "answer": {True: "right", False: "wrong", None: "unlabelled"}[s.right],
        f"on {case.the_object}": None if without_relevance else s.mass,
        "chance": s.area,
        "highest point on it": None if without_relevance else s.hit,
        "remark": "the map has no positive relevance" if without_relevance else s.remark,
    }


def _evidence(case: Case, order: list[_MeasuredPicture]) -> tuple[Evidence, ...]:
    evidence = []
    for k, s in enumerate(order[:_EVIDENCE], 1):
        image = draw_map(case, s.x, s.map, s.region)
        facts = _picture_row(case, s)
        location = (
            "no positive relevance"
            if math.isnan(s.mass)
            else f"{share(s.mass)} on {case.the_object}, chance {share(s.area)}"
        )
        remark = f"; the answer is {facts['answer']}" if s.right is False else ""
        if s.remark:
            remark = f"; {s.remark}"
        caption = f"{facts['said']}: {location}{remark}"
        evidence.append(shown(case, s.row, f"localisation-{k}", image, caption, facts, maps=maps_of(case)))
    return tuple(evidence)


def _dots_figure(case: Case, order: list[_MeasuredPicture]) -> tuple[Figure, ...]:
    ordered = sorted((s for s in order if not math.isnan(s.mass)), key=lambda s: s.gain)
    rows = [charts.Dot(case.pictures[s.row].name, s.mass, s.area, s.right is False) for s in ordered[:_DOTS]]
    data = charts.dots(
        rows,
        xlabel="share of the positive relevance",
        value=f"on {case.the_object}",
        chance=f"chance: {case.its_share}",
        hollow=f"on {case.the_object}, answer wrong",
    )
    more = f", the worst {_DOTS} of {len(ordered)}" if len(ordered) > _DOTS else ""
    below = sum(s.gain < 0 for s in ordered)
    caption = f"How much of what speaks for the answer lies on {case.the_object}, the worst first{more}."
    alt = f"A dot for each {case.thing} beside its chance level; {below} of {len(ordered)} lie below."
    return (Figure("localisation-dots.svg", data, caption, alt),)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
