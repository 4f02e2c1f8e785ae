"""What changed from one segmenter to another: IoU and pixel accuracy, of each class, and picture by picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearsight.auditing.evidence import table
from clearsight.comparing.class_map_evidence import draw_class_maps, drawn_rows
from clearsight.comparing.gain_rows import cost_words, gain_cells, gain_figure, gain_rows, gain_words
from clearsight.comparing.place_runs import PlaceAnswers, PlaceRun
from clearsight.comparing.repair import NAME, SUMMARY
from clearsight.core.text import counted
from clearsight.data.records import Pictures
from clearsight.evaluation.paired_pixels import PixelGains, pixel_gains
from clearsight.evaluation.pixels import iou_by_picture
from clearsight.evaluation.resampling import ratio
from clearsight.reporting.findings import Cell, Figure, Finding

_CLASSES = 30  # rows of a chart that can be read
_WORDS = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "frequency_weighted_iou": "IoU weighted by the classes' pixels",
    "mean_accuracy": "pixel accuracy, mean over classes",
    "mean_dice": "mean Dice",
}


def compare_segmenters(before: PlaceRun, after: PlaceRun, pictures: Pictures, *, seed: int) -> Finding:
    """What changed from the first segmenter to the second, class by class and picture by picture.

    Value: the difference of the two mean IoU, -1 to 1, with a bootstrap over pictures that draws the same ones for
    both.

    Args:
        before: the first run, a model.
        after: the second run, a model, judged on the same pictures.
        pictures: these pictures.
        seed: start of the draws.

    Source: Long et al. 2015, arXiv:1411.4038; Efron 1979, doi:10.1214/aos/1176344552.
    """
    first, second = before.answers, after.answers
    assert first is not None
    assert second is not None
    assert first.pixels is not None
    assert second.pixels is not None
    gains = pixel_gains(first.pixels, second.pixels, seed)
    iou, accuracy = gains.means["mean_iou"], gains.means["pixel_accuracy"]
    if iou.value is None:
        return Finding("note", "None of the pixels is judged: all are 255.", check=NAME, summary=SUMMARY)
    values = [iou_by_picture(run.pixels) for run in (first, second) if run.pixels is not None]
    change = values[1] - values[0]
    rose, fell = int((change > 0).sum()), int((change < 0).sum())
    drawn = drawn_rows(change, first.pictures)
    return Finding(
        "note",
        f"From {before.name} to {after.name}: {gain_words('mean IoU', iou)}, {gain_words('pixel accuracy', accuracy)}; "
        f"IoU rose in {rose} and fell in {fell} of {counted(gains.pictures, 'picture')}.",
        quantity="mean IoU gained",
        value=iou.value,
        interval=iou.interval,
        n=gains.pictures,
        notes=(cost_words("mean IoU", iou.interval), *_notes(first, second, drawn, rose, fell)),
        tables=(
            *table(
                "Before and after, on the same pictures",
                gain_rows((words, gains.means[name]) for name, words in _WORDS.items()),
            ),
            *table("By class, the largest loss of IoU first", _class_rows(first.labels, gains)),
            *table("Pictures, the largest loss of mean IoU first", _picture_rows(first, second, *values)),
        ),
        figures=_figure(first.labels, gains),
        evidence=draw_class_maps(first, second, drawn, change, pictures),
        check=NAME,
        summary=SUMMARY,
        paper="arXiv:1411.4038",
    )


def _class_rows(labels: tuple[str, ...], gains: PixelGains) -> list[dict[str, Cell]]:
    judged = [(gain.value, labels[k], gain) for k, gain in enumerate(gains.iou) if gain.value is not None]
    return [{"class": name, **gain_cells(gain, "IoU")} for _, name, gain in sorted(judged, key=lambda row: row[:2])]


def _picture_rows(
    before: PlaceAnswers, after: PlaceAnswers, first: NDArray[np.float64], second: NDArray[np.float64]
) -> list[dict[str, Cell]]:
    right = [_right(run) for run in (before, after)]
    judged = np.flatnonzero(~np.isnan(second - first)).tolist()
    return [
        {
            "picture": before.pictures[i],
            "mean IoU before": float(first[i]),
            "mean IoU after": float(second[i]),
            "difference": float(second[i] - first[i]),
            "pixels right before": float(right[0][i]),
            "pixels right after": float(right[1][i]),
        }
        for i in sorted(judged, key=lambda i: (second[i] - first[i], before.pictures[i]))
    ]


def _right(run: PlaceAnswers) -> NDArray[np.float64]:
    assert run.pixels is not None
    return ratio(run.pixels[:, 0].sum(1).astype(np.float64), run.pixels[:, 1].sum(1).astype(np.float64))


def _notes(before: PlaceAnswers, after: PlaceAnswers, drawn: dict[str, list[int]], rose: int, fell: int) -> list[str]:
    totals = {"rose": rose, "fell": fell}
    counts = " and ".join(f"{len(drawn[word])} of {n} that {word}" for word, n in totals.items() if n)
    notes = [f"Drawn: {counts}."] if counts else []
    sizes = [" x ".join(map(str, run.preprocess.size)) for run in (before, after)]
    if before.preprocess != after.preprocess:
        notes.append(
            f"Each run is judged in the frame of its own input, {sizes[0]} and {sizes[1]} pixels, so that a part of "
            "the difference may be of the frames."
        )
    return [
        *notes,
        "IoU is of one table of all pixels of all pictures, its mean over the classes that the truth or an answer "
        "shows. A picture's own mean IoU is over the classes that it or its answer shows.",
        "Every interval is a bootstrap over pictures that draws the same pictures for both runs: the pixels of a "
        "picture are right or wrong together, so that a test of single pixels would be too sure.",
    ]


def _figure(labels: tuple[str, ...], gains: PixelGains) -> tuple[Figure, ...]:
    """IoU of each class, before and after."""
    judged = sorted((gain.value, k) for k, gain in enumerate(gains.iou) if gain.value is not None)
    if not 2 <= len(judged) <= _CLASSES:
        return ()
    return (gain_figure("repair-classes.svg", "IoU", [(labels[k], gains.iou[k]) for _, k in judged], gains.pictures),)
