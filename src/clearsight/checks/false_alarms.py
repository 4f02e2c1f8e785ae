"""False positives on pictures of background: Dollár, Wojek, Schiele & Perona 2012, doi:10.1109/TPAMI.2011.155."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.backgrounds import FULL, background_of, is_background
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, table
from clearsight.auditing.place_evidence import evidence_of
from clearsight.core.batching import SIZE
from clearsight.core.catalogue import method
from clearsight.core.statistics import Interval, bootstrap, judge
from clearsight.core.text import counted
from clearsight.drawing.box_picture import PURPLE, BoxGroup, box_picture, cut_out
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Evidence, Finding
from clearsight.reporting.wording import show, show_range

_EVIDENCE = 12


@dataclass(frozen=True)
class _Alarm:
    """A box on background: its row, class and score, and the part of the picture around it with the box in it."""

    row: int
    label: int
    score: float
    part: Tensor
    box: Tensor


@dataclass
class _Alarms:
    """How many false alarms each picture has, which of them were painted over, and the surest of all.

    crowded: pictures without enough background.  on_patches: boxes on places that were painted over.
    """

    rows: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    painted: list[bool] = field(default_factory=list)
    crowded: int = 0
    on_patches: int = 0
    surest: list[_Alarm] = field(default_factory=list)
    by_class: dict[int, int] = field(default_factory=dict)


def _validate(case: DetectorCase, *, ceiling: float, score: float, pictures: int) -> None:
    if ceiling < 0 or not 0 <= score <= 1:
        raise Refused(
            f"false-alarms(ceiling={ceiling:g}, score={score:g}): a number from 0 on, and a share from 0 to 1"
        )


@method(
    paper="doi:10.1109/TPAMI.2011.155",
    order=4,
    validate=_validate,
    advice="look through its gallery, and add such pictures without objects to the training",
)
def false_alarms(case: DetectorCase, *, ceiling: float = 0.5, score: float = 0.3, pictures: int = 100) -> Finding:
    """What does the detector find where there is nothing?

    Pictures without objects are taken as they are; in others the objects are painted over with the weighted mean of
    what is around them.  Whatever is found there is a false alarm.  Boxes that lie by half or more on a place that was
    painted over are counted by themselves: they may be of what was left of the object.

    Value: the number of false alarms for each picture, beside painted places, with a bootstrap over pictures.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: the pictures are too few to
    say.

    Args:
        ceiling: largest number of false alarms for each picture that is accepted, from 0 on.
        score: lowest score of a box that counts, 0 to 1.
        pictures: maximum number of pictures, drawn by seed, those without objects first; at least 1.

    Refused: a ceiling below 0, a score outside of 0 to 1, and fewer than one picture.

    Source: false positives per image, as in Dollár et al. 2012.
    """
    rows, usable = _rows(case, pictures)
    alarms = _run(case, rows, score)
    n = len(alarms.rows)
    if not n:
        return Finding("note", "Objects cover most of every picture, so that no background is left to look at.")
    value, interval = float(np.mean(alarms.counts)), _interval(alarms.counts, case.seed)
    empty, named = n - sum(alarms.painted), sum(count > 0 for count in alarms.counts)
    between = f"95 % {show_range(*interval, '')}" if interval else "too few for an interval"
    return Finding(
        judge(interval, ceiling=ceiling),
        f"On background there are {show(value, '')} false alarms for each picture ({between}, n = {n}), in {named} of "
        f"{case.counted(n)}.",
        quantity="false alarms a picture",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        unit="",
        notes=(
            f"Asked for: at most {ceiling:g} a picture (option ceiling), of boxes with a score of {score:g} or more "
            "(option score).",
            f"{case.counted(empty, 'shows', 'show')} no object; in the others the objects were painted over.",
            f"{counted(alarms.on_patches, 'further box lies', 'further boxes lie')} on places that were painted over.",
            *note_on_sample(case, len(rows), usable),
            *_note_on_crowded(case, alarms.crowded),
            *note_on_budget(case, n + alarms.crowded, len(rows)),
        ),
        tables=(
            *table("Pictures with false alarms, the most first", _picture_rows(case, alarms)),
            *table("False alarms by the class that was said", _class_rows(case, alarms)),
            *table("With and without objects", _kind_rows(case, alarms)),
        ),
        evidence=_evidence(case, alarms),
    )


def _rows(case: DetectorCase, most: int) -> tuple[list[int], int]:
    """At most so many rows in the seeded order, those without objects first, and how many there are."""
    order = case.sample(range(len(case.pictures)), len(case.pictures))
    order.sort(key=lambda i: bool(len(case.found[i].truth_labels)))
    return order[:most], len(order)


def _run(case: DetectorCase, rows: list[int], score: float) -> _Alarms:
    alarms = _Alarms()
    for batch, xs in case.batches(rows, SIZE // 2):
        pairs = [background_of(case, row, x) for row, x in zip(batch, xs, strict=True)]
        kept = [k for k, (_, where) in enumerate(pairs) if is_background(where)]
        alarms.crowded += len(batch) - len(kept)
        if not kept:
            continue
        x = torch.stack([pairs[k][0] for k in kept])
        for k, picture, said in zip(kept, x, case.detect(x), strict=True):
            where, count = pairs[k][1], 0
            for box, label, sure in zip(said.boxes, said.labels.tolist(), said.scores.tolist(), strict=True):
                if sure < score:
                    continue
                if _covered(box, where) >= 0.5:
                    alarms.on_patches += 1
                    continue
                count += 1
                alarms.by_class[label] = alarms.by_class.get(label, 0) + 1
                part, corner = cut_out(picture, box.tolist())
                shifted = box - box.new_tensor([*corner, *corner])
                alarms.surest.append(_Alarm(batch[k], label, sure, part, shifted))
            alarms.rows.append(batch[k])
            alarms.counts.append(count)
            alarms.painted.append(bool(where.any()))
        alarms.surest = sorted(alarms.surest, key=lambda a: -a.score)[:_EVIDENCE]
    return alarms


def _note_on_crowded(case: DetectorCase, crowded: int) -> tuple[str, ...]:
    if not crowded:
        return ()
    return (f"Left out: {case.counted(crowded)}, of which objects cover more than {FULL:.0%}.".replace("%", " %"),)


def _covered(box: Tensor, where: Tensor) -> float:
    """The share of a box (4,) that lies on places where bool (H, W)."""
    x1, y1, x2, y2 = (int(v) for v in box.round().tolist())
    part = where[max(0, y1) : max(y2, y1 + 1), max(0, x1) : max(x2, x1 + 1)]
    return float(part.float().mean()) if part.numel() else 0.0


def _interval(counts: list[int], seed: int) -> Interval | None:
    return bootstrap([float(c) for c in counts], seed)


def _picture_rows(case: DetectorCase, alarms: _Alarms) -> list[dict[str, Cell]]:
    found = [
        (count, case.pictures[i].name, p)
        for i, count, p in zip(alarms.rows, alarms.counts, alarms.painted, strict=True)
    ]
    return [
        {"picture": name, "false alarms": count, "objects painted over": painted}
        for count, name, painted in sorted(found, key=lambda f: (-f[0], f[1]))
        if count
    ]


def _class_rows(case: DetectorCase, alarms: _Alarms) -> list[dict[str, Cell]]:
    ordered = sorted(alarms.by_class.items(), key=lambda item: (-item[1], item[0]))
    return [{"class": case.model.name(label), "false alarms": count} for label, count in ordered]


def _kind_rows(case: DetectorCase, alarms: _Alarms) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for painted, words in ((False, "pictures without objects"), (True, "pictures with their objects painted over")):
        counts = [c for c, p in zip(alarms.counts, alarms.painted, strict=True) if p == painted]
        if counts:
            mean = float(np.mean(counts))
            rows.append({"of": words, "a picture": mean, **bounds(_interval(counts, case.seed)), "n": len(counts)})
    return rows


def _evidence(case: DetectorCase, alarms: _Alarms) -> tuple[Evidence, ...]:
    evidence = []
    for n, alarm in enumerate(alarms.surest, 1):
        label = case.model.name(alarm.label)
        image = box_picture(alarm.part, [BoxGroup(f"{label} {alarm.score:.2f}", alarm.box[None], PURPLE)], counts=False)
        facts: dict[str, Cell] = {"said": label, "score": alarm.score}
        caption = f"said {label} with {alarm.score:.2f} on background"
        evidence.append(evidence_of(case, alarm.row, f"false-alarms-{n}", image, caption, facts, "false-alarms"))
    return tuple(evidence)
