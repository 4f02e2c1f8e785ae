"""What changed from one detector to another: precision, every object, false alarms and kinds of error."""

from __future__ import annotations

import numpy as np

from clearsight.auditing.evidence import bounds, table
from clearsight.auditing.place_evidence import interval_of_ratio
from clearsight.comparing.box_evidence import changed_pictures, draw_boxes, drawn_rows
from clearsight.comparing.gain_rows import cost_words, gain_cells, gain_figure, gain_rows, gain_words
from clearsight.comparing.object_fates import ObjectFates, found_gain, gain_of_mean, object_fates
from clearsight.comparing.place_runs import PlaceRun
from clearsight.comparing.repair import NAME, SUMMARY
from clearsight.core.text import counted
from clearsight.data.records import Pictures
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.paired_boxes import BoxGains, box_gains
from clearsight.evaluation.records import BoxSet
from clearsight.reporting.findings import Cell, Figure, Finding
from clearsight.reporting.wording import show

_CLASSES = 30  # rows of a chart that can be read
FATES = {
    "found by both": "kept",
    "mended: missed before, found after": "mended",
    "broken: found before, missed after": "broken",
    "missed by both": "missed",
}


def compare_detectors(before: PlaceRun, after: PlaceRun, pictures: Pictures, *, score: float, seed: int) -> Finding:
    """What changed from the first detector to the second, object by object.

    Value: the difference of the two AP50, -1 to 1, with a bootstrap over pictures that draws the same ones for both.

    Args:
        before: the first run, a model.
        after: the second run, a model, judged on the same pictures.
        pictures: these pictures.
        score: lowest score of a box that finds an object, or is a false alarm.
        seed: start of the draws.

    Source: Lin et al. 2014, arXiv:1405.0312; Efron 1979, doi:10.1214/aos/1176344552.
    """
    first, second = before.answers, after.answers
    assert first is not None
    assert second is not None
    assert first.boxes is not None
    assert second.boxes is not None
    gains = box_gains(first.boxes, second.boxes, seed)
    fates = object_fates(first.boxes, second.boxes, score)
    if gains.ap50.value is None:
        return Finding("note", "No picture shows an object that could be found.", check=NAME, summary=SUMMARY)
    found, alarms = found_gain(fates, seed), gain_of_mean(*fates.alarms(), seed)
    drawn = drawn_rows(fates, first.pictures)
    measures = [
        ("AP50", gains.ap50),
        ("AP75", gains.ap75),
        ("AP, mean of IoU 0.5 to 0.95", gains.ap),
        (f"objects found, from a score of {score:g} on", found),
        (f"false alarms a picture, from a score of {score:g} on", alarms),
    ]
    return Finding(
        "note",
        f"From {before.name} to {after.name}: mended {int(fates.mended.sum())}, broke {int(fates.broken.sum())} of "
        f"{counted(fates.objects, 'object')} in {counted(gains.pictures, 'picture')}; "
        f"{gain_words('AP50', gains.ap50)}; false alarms a picture {show(alarms.before, '')} before, "
        f"{show(alarms.after, '')} after.",
        quantity="AP50 gained",
        value=gains.ap50.value,
        interval=gains.ap50.interval,
        n=gains.pictures,
        notes=(cost_words("AP50", gains.ap50.interval), *_notes(score, drawn, changed_pictures(fates))),
        tables=(
            *table("What became of the objects", _fate_rows(fates, seed)),
            *table("Before and after, on the same pictures", gain_rows(measures)),
            *table("By class, the largest loss of AP50 first", _class_rows(first.labels, gains, fates)),
            *table("Kinds of error (TIDE), at an IoU of 0.5", _error_rows(first.boxes, second.boxes, gains)),
            *table("Pictures that changed, the most broken first", _picture_rows(fates, first.pictures)),
        ),
        figures=_figure(first.labels, gains),
        evidence=draw_boxes(first, second, fates, drawn, pictures),
        check=NAME,
        summary=SUMMARY,
        paper="arXiv:1405.0312",
    )


def _fate_rows(fates: ObjectFates, seed: int) -> list[dict[str, Cell]]:
    """How many objects have each fate; the intervals are over pictures."""
    objects = fates.by_picture(fates.kept | fates.mended | fates.broken | fates.missed)
    rows: list[dict[str, Cell]] = []
    for words, name in FATES.items():
        of = fates.by_picture(getattr(fates, name))
        interval = interval_of_ratio(of, objects, seed)
        rows.append(
            {"objects that are": words, "n": int(of.sum()), "share": of.sum() / objects.sum(), **bounds(interval)}
        )
    return rows


def _class_rows(labels: tuple[str, ...], gains: BoxGains, fates: ObjectFates) -> list[dict[str, Cell]]:
    boxes = fates.before.boxes
    rows: list[tuple[float, dict[str, Cell]]] = []
    for k, ap50 in gains.ap50_by_class.items():
        ap, of_class = gains.ap_by_class[k], boxes.truth_labels == k
        if ap50.value is None:
            continue
        cells: dict[str, Cell] = {"class": labels[k], "objects": int((of_class & ~boxes.crowd).sum())}
        cells |= {name: int((getattr(fates, name) & of_class).sum()) for name in ("mended", "broken")}
        cells |= gain_cells(ap50, "AP50")
        cells |= {"AP before": ap.before, "AP after": ap.after}
        rows.append((ap50.value, cells))
    return [cells for _, cells in sorted(rows, key=lambda row: (row[0], str(row[1]["class"])))]


def _error_rows(before: BoxSet, after: BoxSet, gains: BoxGains) -> list[dict[str, Cell]]:
    """Each type of error of both, the type that costs the second most first."""
    counts = [error_types(boxes).counts for boxes in (before, after)]
    order = sorted(gains.costs, key=lambda name: -(gains.costs[name].after or 0.0))
    return [
        {
            "type": name,
            "errors before": counts[0][name],
            "errors after": counts[1][name],
            **gain_cells(gains.costs[name], "AP50 lost"),
        }
        for name in order
    ]


def _picture_rows(fates: ObjectFates, names: tuple[str, ...]) -> list[dict[str, Cell]]:
    """A row for each picture of which an object or the number of false alarms changed."""
    mended, broken = fates.by_picture(fates.mended), fates.by_picture(fates.broken)
    objects = mended + broken + fates.by_picture(fates.kept | fates.missed)
    before, after = fates.alarms()
    changed = np.flatnonzero((mended > 0) | (broken > 0) | (before != after)).tolist()
    return [
        {
            "picture": names[i],
            "objects": int(objects[i]),
            "mended": int(mended[i]),
            "broken": int(broken[i]),
            "false alarms before": int(before[i]),
            "false alarms after": int(after[i]),
        }
        for i in sorted(changed, key=lambda i: (-broken[i], before[i] - after[i], mended[i], names[i]))
    ]


def _notes(score: float, drawn: dict[str, list[int]], totals: dict[str, int]) -> list[str]:
    counts = " and ".join(
        f"{len(drawn[word])} of {counted(n, 'picture')} with {word} objects" for word, n in totals.items() if n
    )
    return [
        *([f"Drawn: {counts}."] if counts else []),
        "Mended: an object that the first run misses and the second finds. Broken: the reverse. An object is found by "
        f"a box of its class with an IoU of 0.5 or more and a score of {score:g} or more (option score of "
        "detection-accuracy). A detector whose scores are lower in general finds fewer at one score; AP, which counts "
        "every box that is reported, does not depend on that.",
        "Every interval is a bootstrap over pictures that draws the same pictures for both runs. Objects are not "
        "tested one by one (McNemar), because those of a picture are found or missed together, so that such a test "
        "would be too sure.",
        "What a type of error costs is how much AP50 would rise without it; the costs do not add up, because one error "
        "can hide another.",
    ]


def _figure(labels: tuple[str, ...], gains: BoxGains) -> tuple[Figure, ...]:
    """AP50 of each class, before and after."""
    judged = sorted(((g.value, k) for k, g in gains.ap50_by_class.items() if g.value is not None))
    if not 2 <= len(judged) <= _CLASSES:
        return ()
    rows = [(labels[k], gains.ap50_by_class[k]) for _, k in judged]
    return (gain_figure("repair-classes.svg", "AP50", rows, gains.pictures),)
