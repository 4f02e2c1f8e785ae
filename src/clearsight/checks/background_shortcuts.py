"""Xiao, Engstrom, Ilyas & Madry 2021, arXiv:2006.09994, sections 2 and 3."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clearsight.auditing.backgrounds import background_of, donors, found, inside, is_background
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.evidence import bounds, note_on_budget, points, share, table
from clearsight.auditing.place_evidence import evidence_of, interval_of_ratio
from clearsight.core.catalogue import method
from clearsight.core.statistics import Interval
from clearsight.core.text import counted
from clearsight.data.truth_records import BoxTruth
from clearsight.drawing import charts
from clearsight.drawing.box_picture import BLUE, ORANGE, BoxGroup, box_picture
from clearsight.drawing.heatmaps import strip
from clearsight.errors import Refused
from clearsight.evaluation.records import Numbers
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Verdict

_EVIDENCE = 8


@dataclass
class _Picture:
    """What became of a picture's objects.

    Of so many objects, how many are found in the picture as it is (untouched), on its own background mirrored, on those
    of others (swapped, the mean over them), and where they were once they are painted over (removed).  donor: the row
    of the first other background.  shown: the mirrored and the first swapped pixels, the objects, and which of them are
    found there.
    """

    row: int
    objects: int
    untouched: float
    mirrored: float
    swapped: float
    removed: float
    donor: int
    shown: tuple[Tensor, Tensor, BoxTruth, list[bool], list[bool]]


@dataclass
class _Tally:
    pictures: list[_Picture] = field(default_factory=list)

    def column(self, name: str) -> Numbers:
        return np.array([getattr(p, name) for p in self.pictures], dtype=np.float64)

    def share(self, name: str) -> float:
        return float(self.column(name).sum() / self.column("objects").sum())


def _validate(case: DetectorCase, *, ceiling: float, score: float, pictures: int, backgrounds: int) -> None:
    if not 0 <= ceiling <= 1 or not 0 <= score <= 1:
        raise Refused(f"background-shortcuts(ceiling={ceiling:g}, score={score:g}): shares from 0 to 1")
    if backgrounds < 1:
        raise Refused(f"background-shortcuts(backgrounds={backgrounds}): at least one")


@method(
    paper="arXiv:2006.09994",
    order=5,
    validate=_validate,
    advice="add pictures of the same objects elsewhere, and of the same places without them",
)
def background_shortcuts(
    case: DetectorCase, *, ceiling: float = 0.1, score: float = 0.3, pictures: int = 60, backgrounds: int = 2
) -> Finding:
    """Does the detector find the objects themselves, or what is usually around them?

    The objects of a picture are cut out with their boxes and put, where they were, on the background of other pictures,
    whose own objects were painted over.  The control puts them on their own background, mirrored: it has the same
    edges, and the surroundings that the objects usually have.  The reverse paints them over where they are.

    Value: the share of objects that are found on the control less the share found on other backgrounds, -1 to 1, of
    the same objects, with a bootstrap over pictures.  Beside it stands the share of objects that are still reported
    where they were once they are gone.  A control on which few objects are found, as a detector that needs an unbroken
    scene has, leaves little to lose: it is in the table.

    pass: both intervals lie at or below ceiling.  fail: one of them lies above.  warn: the pictures are too few to say.

    Args:
        ceiling: largest share that may be lost, and that may be reported of objects that are gone, 0 to 1.
        score: lowest score of a box that finds an object, 0 to 1; its IoU must be 0.5 or more and its class right.
        pictures: maximum number of pictures, drawn by seed; at least 1.
        backgrounds: number of other backgrounds for each picture, at least 1; those first that show none of its
            classes.

    Refused: shares outside of 0 to 1, and fewer than one picture or background.

    Source: Xiao et al. 2021, whose Mixed-Same and Mixed-Next sets swap backgrounds for classifiers.
    """
    rows, usable = _rows(case, pictures)
    if not rows or not set(usable) - {rows[0]}:
        return Finding("note", "There are no two pictures of which one shows an object and the other has a background.")
    tally = _run(case, rows, usable, score, backgrounds)
    n, value = len(tally.pictures), tally.share("mirrored") - tally.share("swapped")
    objects, total = tally.column("objects"), counted(int(tally.column("objects").sum()), "object")
    gap = interval_of_ratio(tally.column("mirrored") - tally.column("swapped"), objects, case.seed, shares=False)
    still, still_gap = tally.share("removed"), interval_of_ratio(tally.column("removed"), objects, case.seed)
    ordered = _most_lost_first(case, tally)
    in_words = f"95 % {points(gap[0])} to {points(gap[1])} points" if gap else "too few for an interval"
    return Finding(
        _verdict(gap, still_gap, ceiling),
        f"On the backgrounds of other pictures {share(tally.share('swapped'))} of {total} are found, on "
        f"their own, mirrored, {share(tally.share('mirrored'))}: {points(value)} points are lost ({in_words}, "
        f"n = {n}); where they are gone, {share(still)} are still reported.",
        quantity="objects lost with their background",
        value=value,
        interval=gap,
        n=n,
        has_bar=True,
        notes=_notes(case, ceiling, score, tally, rows, backgrounds),
        tables=(
            *table("Of the same objects there are found", _measures(tally, case.seed)),
            *table("Pictures, those that lose most first", [_row(case, p) for p in ordered]),
        ),
        figures=(_figure(tally),),
        evidence=_evidence(case, [p for p in ordered[:_EVIDENCE] if p.mirrored > p.swapped or p.removed]),
    )


def _rows(case: DetectorCase, most: int) -> tuple[list[int], list[int]]:
    """Rows whose objects can be cut out, and rows whose background can be used, both in the seeded order."""
    objects: list[int] = []
    backgrounds: list[int] = []
    height, width = case.model.preprocess.size
    for i in case.sample(range(len(case.pictures)), len(case.pictures)):
        if is_background(inside(case.all_objects(i).boxes, height, width)):
            backgrounds.append(i)
            if len(objects) < most and len(case.objects(i)):
                objects.append(i)
    return objects, backgrounds


def _run(case: DetectorCase, rows: list[int], usable: list[int], score: float, most: int) -> _Tally:
    tally, emptied = _Tally(), dict[int, Tensor]()

    def background(row: int) -> Tensor:
        if row not in emptied:
            if len(emptied) > 4 * most + 16:
                emptied.pop(next(iter(emptied)))
            emptied[row] = background_of(case, row, case.pixels([row])[0])[0]
        return emptied[row]

    for batch, xs in case.batches(rows, 1):
        row, x = batch[0], xs[0]
        truth, taken = case.objects(row), donors(case, rows, usable, row, most)
        where = inside(truth.boxes, *x.shape[1:])
        versions = [torch.where(where, x, background(i)) for i in taken]
        mirrored = torch.where(where, x, background(row).flip(-1))
        said = list(case.detect(torch.stack([x, mirrored, background(row), *versions])))
        hits = [found(truth.boxes, truth.labels, one, score) for one in said]
        on_others = np.mean(hits[3:], axis=0)
        tally.pictures.append(
            _Picture(
                row, len(truth), sum(hits[0]), sum(hits[1]), float(on_others.sum()), sum(hits[2]), taken[0],
                (mirrored, versions[0], truth, hits[1], hits[3]),
            )
        )  # fmt: skip
        _forget(case, tally)
    return tally


def _most_lost_first(case: DetectorCase, tally: _Tally) -> list[_Picture]:
    return sorted(tally.pictures, key=lambda p: (p.swapped - p.mirrored, -p.removed, case.pictures[p.row].name))


def _forget(case: DetectorCase, tally: _Tally) -> None:
    """Keep the pixels of the pictures that lose most alone."""
    for p in _most_lost_first(case, tally)[_EVIDENCE:]:
        p.shown = (torch.zeros(0), torch.zeros(0), *p.shown[2:])


def _verdict(gap: Interval | None, still: Interval | None, ceiling: float) -> Verdict:
    if gap is None or still is None:
        return "warn"
    if gap[0] > ceiling or still[0] > ceiling:
        return "fail"
    return "pass" if gap[1] <= ceiling and still[1] <= ceiling else "warn"


def _measures(tally: _Tally, seed: int) -> list[dict[str, Cell]]:
    words = {
        "untouched": "in the picture as it is",
        "mirrored": "on their own background, mirrored (control)",
        "swapped": "on the background of other pictures",
        "removed": "where they were, once they are painted over",
    }
    objects = tally.column("objects")
    return [
        {
            "where": words[name],
            "share found": tally.share(name),
            **bounds(interval_of_ratio(tally.column(name), objects, seed)),
            "objects": int(objects.sum()),
        }
        for name in words
    ]


def _row(case: DetectorCase, p: _Picture) -> dict[str, Cell]:
    return {
        "picture": case.pictures[p.row].name,
        "objects": p.objects,
        "found": int(p.untouched),
        "mirrored": int(p.mirrored),
        "on others": p.swapped,
        "once gone": int(p.removed),
        "background": case.pictures[p.donor].name,
    }


def _notes(
    case: DetectorCase, ceiling: float, score: float, tally: _Tally, rows: list[int], backgrounds: int
) -> tuple[str, ...]:
    shared = sum(
        bool(set(case.found[p.row].truth_labels.tolist()) & set(case.found[p.donor].truth_labels.tolist()))
        for p in tally.pictures
    )
    return (
        f"Asked for: at most {share(ceiling)} lost, and at most as much reported of objects that are gone (option "
        "ceiling).",
        f"A box finds an object from a score of {score:g} on (option score), with its class and an IoU of 0.5 or more.",
        f"Each picture got {counted(backgrounds, 'other background')}; the first of {shared} of them is of a picture "
        "that shows some of the same classes, because no other was left.",
        "Objects are painted over with the weighted mean of what is around them, which leaves a smooth patch.",
        *note_on_budget(case, len(tally.pictures), len(rows)),
    )


def _figure(tally: _Tally) -> Figure:
    names = {
        "in the picture as it is": "untouched",
        "own background, mirrored": "mirrored",
        "background of others": "swapped",
        "objects painted over": "removed",
    }
    dots = [charts.Dot(words, tally.share(name), tally.share("untouched")) for words, name in names.items()]
    data = charts.dots(dots, xlabel="share of objects found", value="found", chance="in the picture as it is")
    words = ", ".join(f"{d.name} {share(d.value)}" for d in dots)
    caption = "How many of the same objects are found on which background."
    return Figure("background-shortcuts.svg", data, caption, f"Share of objects found: {words}.")


def _evidence(case: DetectorCase, worst: list[_Picture]) -> tuple[Evidence, ...]:
    evidence = []
    for n, p in enumerate(worst, 1):
        mirrored, swapped, truth, before, after = p.shown
        image = strip([_drawn(mirrored, truth, before), _drawn(swapped, truth, after)], down=True)
        caption = (
            f"{sum(before)} of {counted(p.objects, 'object')} found on their own background, mirrored (above), "
            f"{sum(after)} on that of {case.pictures[p.donor].name} (below)"
        )
        if p.removed:
            caption += f"; {int(p.removed)} still reported once they are gone"
        name = f"background-shortcuts-{n}"
        evidence.append(evidence_of(case, p.row, name, image, caption, _row(case, p), "background-shortcuts"))
    return tuple(evidence)


def _drawn(x: Tensor, truth: BoxTruth, hits: list[bool]) -> Image.Image:
    right = torch.tensor(hits, dtype=torch.bool)
    groups = [
        BoxGroup("found", truth.boxes[right], BLUE),
        BoxGroup("not found", truth.boxes[~right], ORANGE, dashed=True),
    ]
    return box_picture(x, groups)
