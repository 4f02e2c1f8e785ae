"""Long, Shelhamer & Darrell 2015 (FCN), arXiv:1411.4038, section 5; boundary IoU by Cheng et al. 2021."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.auditing.pixel_outcomes import ground_of, pixel_facts
from clearsight.auditing.place_evidence import evidence_of
from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.core.catalogue import method
from clearsight.core.statistics import judge
from clearsight.core.text import counted
from clearsight.data.truth_records import NOT_JUDGED
from clearsight.drawing import charts
from clearsight.drawing.class_maps import class_map_pictures, with_class_legend
from clearsight.drawing.heatmaps import overlay
from clearsight.errors import Refused
from clearsight.evaluation.boundaries import BoundaryScores
from clearsight.evaluation.pixels import PixelScores, iou_by_picture
from clearsight.internals.pixel_fields import Box, effective_field, effective_side, theoretical_field
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

_EVIDENCE = 8
_CLASSES = 20  # of a confusion matrix that can be read, and 30 rows of a chart
_ROWS = 30
_WORDS = {
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "IoU weighted by the classes' pixels",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "pixel accuracy, mean over classes",
    "mean_dice": "mean Dice",
}


def _validate(case: SegmenterCase, *, floor: float) -> None:
    if not 0 <= floor <= 1:
        raise Refused(f"segmentation-accuracy(floor={floor:g}): a share from 0 to 1")


@method(
    paper="arXiv:1411.4038",
    order=1,
    validate=_validate,
    advice="look at its worst pictures, and at what the network sees from a wrong pixel",
)
def segmentation_accuracy(case: SegmenterCase, *, floor: float = 0.5) -> Finding:
    """How many pixels have the right class, along boundaries too, and in which pictures are they wrong?

    Value: the mean over classes of intersection over union (mean IoU), 0 to 1, from one confusion matrix of all
    pictures; a class that neither the truth nor an answer shows is left out.  Its interval is a bootstrap over
    pictures.  Chance: answering the most frequent class everywhere.  Beside it stand pixel accuracy, the IoU weighted
    by the classes' pixels, Dice, and boundary IoU, all of them by class.  Everything is judged in the frame of the
    model's input.

    Beside an error of each of the worst pictures stands what the network sees from there: the box of all pixels that
    the output depends on, and how much each of them counts.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: the pictures are too few to
    say.

    Args:
        floor: mean IoU that is asked for, 0 to 1.

    Refused: a floor outside of 0 to 1.

    Source: Long et al. 2015; boundary IoU: Cheng et al. 2021, arXiv:2103.16562; fields: Luo et al. 2016,
    arXiv:1701.04128.
    """
    scores, boundaries = case.counts.scores(case.seed), case.boundaries.scores(case.seed)
    if np.isnan(scores.mean_iou):
        return Finding("note", f"None of the pixels of {case.counted(scores.n)} is judged: all are 255.")
    shares = scores.truth / scores.truth.sum()
    shown = ~np.isnan(scores.iou)
    interval = scores.intervals["mean_iou"]
    by_picture = _by_picture(case)
    worst = sorted(by_picture, key=lambda i: (by_picture[i], case.pictures[i].name))
    return Finding(
        judge(interval, floor=floor),
        f"Mean IoU is {share(scores.mean_iou)} ({span(interval, scores.n)}) over "
        f"{counted(int(shown.sum()), 'class', 'classes')}, {share(scores.pixel_accuracy)} of the pixels are right, and "
        f"boundary IoU is {share(boundaries.mean_iou)}.",
        quantity="mean IoU",
        value=scores.mean_iou,
        interval=interval,
        n=scores.n,
        chance=float(shares.max() / (scores.truth > 0).sum()),
        has_bar=True,
        notes=(f"Asked for: at least {share(floor)} (option floor).", *case.learned, *_notes(case, scores, by_picture)),
        tables=(
            *table("How many pixels are right", _measure_rows(scores, boundaries)),
            *table("By class, the worst first", _class_rows(case, scores, boundaries)),
            *table("Pictures, the worst first", [_facts(case, i) for i in worst]),
        ),
        figures=(*_class_figure(case, scores, shares), *_confusion_figure(case, scores)),
        evidence=_evidence(case, [i for i in worst if by_picture[i] < 1][:_EVIDENCE]),
    )


def _by_picture(case: SegmenterCase) -> dict[int, float]:
    """The mean IoU of each picture by itself, over the classes that it or its answer shows, without unjudged ones."""
    own = iou_by_picture(np.stack([case.answers[i].pixels for i in case.annotated]))
    return dict(zip(case.annotated, own.tolist(), strict=True))


def _measure_rows(scores: PixelScores, boundaries: BoundaryScores) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = [
        {"measure": words, "value": getattr(scores, name), **bounds(scores.intervals[name]), "n": scores.n}
        for name, words in _WORDS.items()
    ]
    boundary = {"measure": "boundary IoU, mean", "value": boundaries.mean_iou, **bounds(boundaries.interval)}
    return [*rows, {**boundary, "n": boundaries.n}]


def _class_rows(case: SegmenterCase, scores: PixelScores, boundaries: BoundaryScores) -> list[dict[str, Cell]]:
    def defined(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    order = sorted(range(len(scores.iou)), key=lambda k: (bool(np.isnan(scores.iou[k])), scores.iou[k]))
    every = int(scores.truth.sum())
    return [
        {
            "class": case.model.name(k),
            "share of the pixels": int(scores.truth[k]) / every,
            "IoU": defined(scores.iou[k]),
            "Dice": defined(scores.dice[k]),
            "found": defined(scores.accuracy[k]),
            "boundary IoU": defined(boundaries.iou[k]),
        }
        for k in order
    ]


def _facts(case: SegmenterCase, row: int) -> dict[str, Cell]:
    return pixel_facts(case.pictures[row].name, case.answers[row].pixels, case.model.name)


def _notes(case: SegmenterCase, scores: PixelScores, by_picture: dict[int, float]) -> list[str]:
    height, width = case.model.preprocess.size
    notes = [
        f"Judged in the model's input, {height} x {width} pixels: each has the true class under its centre.",
        "A picture's own mean IoU, by which the worst are chosen, is over the classes that it or its answer shows.",
    ]
    absent = [case.model.name(k) for k in np.flatnonzero(np.isnan(scores.iou)).tolist()]
    if absent:
        notes.append(f"Neither shown nor said, so left out of the means: {', '.join(absent[:9])}.")
    unjudged = scores.n - len(by_picture)
    if unjudged:
        notes.append(f"{case.counted(unjudged, 'has', 'have')} no pixel that is judged.")
    unread = len(case.data.pictures) - case.tried
    if unread > 0:
        notes.append(f"The budget was used up before {case.counted(unread)} could be read.")
    return notes


def _class_figure(case: SegmenterCase, scores: PixelScores, shares: np.ndarray) -> tuple[Figure, ...]:
    shown = [int(k) for k in np.argsort(scores.iou) if not np.isnan(scores.iou[k])]
    if not 2 <= len(shown) <= _ROWS:
        return ()
    dots = [charts.Dot(case.model.name(k), float(scores.iou[k]), float(shares[k])) for k in shown]
    data = charts.dots(dots, xlabel="IoU", value="the segmenter", chance="answering this class everywhere")
    words = ", ".join(f"{d.name} {share(d.value)}" for d in dots)
    caption = f"IoU of each class, {case.counted(scores.n)}."
    return (Figure("segmentation-accuracy-classes.svg", data, caption, f"IoU by class, the worst first: {words}."),)


def _confusion_figure(case: SegmenterCase, scores: PixelScores) -> tuple[Figure, ...]:
    shown = np.flatnonzero(~np.isnan(scores.iou)).tolist()
    if not 2 <= len(shown) <= _CLASSES:
        return ()
    matrix = case.counts.matrix[shown][:, shown].double()
    rows = (matrix / matrix.sum(1, keepdim=True)).tolist()  # nan where the truth shows no pixel of a class
    labels = [case.model.name(k) for k in shown]
    data = charts.shares(labels, labels, rows, of="shown", to="said")
    caption = "Of the pixels of each class, the shares that were said to be of which."
    alt = f"A matrix of {len(shown)} classes: on the diagonal are the right pixels of each."
    return (Figure("segmentation-accuracy-confusion.svg", data, caption, alt),)


# Worst pictures -------------------------------------------------------------------------------------------------------


def _evidence(case: SegmenterCase, worst: Sequence[int]) -> tuple[Evidence, ...]:
    ground = ground_of(case.model.labels)
    evidence = []
    for n, i in enumerate(worst, 1):
        x = case.pixels([i])
        said, truth = case.segment(x)[0], case.truth_of(case.pictures[i])
        images = class_map_pictures(x[0], said, truth, ground)
        row, column = _amid((said != truth) & (truth != NOT_JUDGED))
        heat, box = _seen_from(case, x, (row, column), int(said[row, column]))
        images.append(_field_picture(x[0], heat, box, (row, column)))
        facts = _facts(case, i)
        wrong, right = case.model.name(int(said[row, column])), case.model.name(int(truth[row, column]))
        caption = (
            f"above the truth and the answer; below what is wrong, and what the network sees from the cross (column "
            f"{column}, row {row}), where it says {wrong} for {right}: {box[2] - box[0]} x {box[3] - box[1]} pixels, "
            f"most of it in a square of {effective_side(heat):.0f}"
        )
        image = with_class_legend(
            images, [case.model.name(k) for k in range(len(case.model.labels))], [said, truth], ground
        )
        name = f"segmentation-accuracy-worst-{n}"
        evidence.append(evidence_of(case, i, name, image, caption, facts, "segmentation-accuracy"))
    return tuple(evidence)


def _amid(wrong: Tensor) -> tuple[int, int]:
    """The pixel that lies deepest inside what is wrong, bool (H, W): row and column."""
    from scipy import ndimage  # half a second, which what draws nothing does not wait for

    depth = ndimage.distance_transform_cdt(np.pad(wrong.numpy(), 1), "chessboard")[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)


def _seen_from(case: SegmenterCase, x: Tensor, pixel: tuple[int, int], said: int) -> tuple[Tensor, Box]:
    """How much each pixel of a picture x (1, C, H, W) counts for what is said at a pixel, and the box of all."""
    model = case.model
    with model.undisturbed():
        z = model.normalised(x.to(model.device))
        heat = effective_field(model.from_normalised, z, pixel, said)
        return heat.cpu(), theoretical_field(model.from_normalised, z, pixel)


def _field_picture(x: Tensor, heat: Tensor, box: Box, pixel: tuple[int, int]) -> Image.Image:
    image = overlay(x, heat, signed=False, grey=True).convert("RGB")  # colours are classes here
    scale = image.width / x.shape[2]
    pen = ImageDraw.Draw(image)
    edges = [scale * v for v in box[:2]] + [scale * v - 1 for v in box[2:]]
    pen.rectangle(edges, outline="white", width=4)
    pen.rectangle([edges[0] + 1, edges[1] + 1, edges[2] - 1, edges[3] - 1], outline="black", width=2)
    across, down = (pixel[1] + 0.5) * scale, (pixel[0] + 0.5) * scale
    for width, colour in ((5, "white"), (2, "black")):
        pen.line([(across - 8, down), (across + 8, down)], fill=colour, width=width)
        pen.line([(across, down - 8), (across, down + 8)], fill=colour, width=width)
    return image
