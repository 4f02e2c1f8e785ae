"""Figures of boxes: equal to pycocotools, to counts by hand, to slow replicas, and at chance for a random detector."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from clearsight.core.statistics import tails
from clearsight.errors import NotFinite, Refused
from clearsight.evaluation.average_precision import SIZES, THRESHOLDS, average_precision
from clearsight.evaluation.box_calibration import box_calibration
from clearsight.evaluation.chance import dealt_at_random, precision_at_random
from clearsight.evaluation.curves import average_precision_of, by_class
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.intervals import drawn_precision, precision_intervals
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import PictureBoxes, box_set, picture_boxes
from clearsight.evaluation.voc_precision import voc_precision

CLASSES = (3, 17, 90, 91)  # with gaps, as COCO's; the last is never there


def adversarial(seed: int, pictures: int = 12, most: int = 25) -> list[PictureBoxes]:
    """Boxes on whole pixels and scores in eighths, so that ties of both and IoUs of exactly a threshold are frequent.

    Some are crowds, some empty, some pictures have no truth, some no detection, and one class has no truth.
    """
    rng = np.random.default_rng(seed)

    def some(n: int) -> np.ndarray:
        corner = rng.integers(0, 24, (n, 2))
        return np.concatenate([corner, corner + rng.integers(0, 13, (n, 2))], axis=1).astype(float) * 4

    found = []
    for _ in range(pictures):
        k, n = rng.integers(0, 9), rng.integers(0, most)
        k = 0 if rng.random() < 0.2 else k
        truth = some(k)
        boxes = some(n)
        for i in range(n):
            if k and rng.random() < 0.6:  # near a true box, or on it
                boxes[i] = truth[rng.integers(k)] + rng.choice([0, 0, 4, 8], 4) * np.array([0, 0, 1, 1])
        found.append(
            picture_boxes(
                boxes,
                rng.integers(0, 9, n) / 8,
                rng.choice(CLASSES[:3], n),
                truth,
                rng.choice(CLASSES[:2], k),
                rng.random(k) < 0.2,
                rng.choice([9.0, 1024.0, 2000.0, 9216.0, 20000.0], k),
            )
        )
    return found


def crowded(n: int) -> list[PictureBoxes]:
    """More detections of one picture and class than COCO counts, the right one among the last."""
    boxes = [[100.0, 100.0, 140.0, 140.0]] * n + [[0.0, 0.0, 40.0, 40.0]]
    return [picture_boxes(boxes, np.linspace(1, 0.5, n + 1), [3] * (n + 1), [[0, 0, 40, 40], [0, 0, 41, 41]], [3, 3])]


def coco(pictures: Sequence[PictureBoxes], most: int = 100) -> COCOeval:
    """The same records in pycocotools, with the classes' own numbers and ids from 1."""
    truth, found = [], []
    for p, one in enumerate(pictures):
        rows = zip(one.truth_boxes.tolist(), one.truth_labels.tolist(), one.crowd, one.area.tolist(), strict=True)
        for (x, y, right, low), label, crowd, area in rows:
            record = {"id": len(truth) + 1, "image_id": p, "category_id": label, "bbox": [x, y, right - x, low - y]}
            truth.append(record | {"iscrowd": int(crowd), "area": area})
        for (x, y, right, low), label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores, strict=True):
            found.append({"image_id": p, "category_id": label, "bbox": [x, y, right - x, low - y], "score": score})
    data = COCO()
    data.dataset = {
        "images": [{"id": p} for p in range(len(pictures))],
        "categories": [{"id": label} for label in CLASSES],
        "annotations": truth,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        data.createIndex()
        told = data.loadRes(found) if found else COCO()  # pycocotools reads no empty list
        told.dataset = told.dataset or data.dataset | {"annotations": []}
        told.createIndex()
        evaluation = COCOeval(data, told, "bbox")
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def assert_is_cocos(pictures: list[PictureBoxes], most: int = 100) -> None:
    """All figures, of all classes and sizes, and the matches at each IoU."""
    boxes = box_set(pictures, CLASSES)
    ours, evaluation = average_precision(boxes, most), coco(pictures, most)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    wanted = [(ours.mean, slice(None)), *((one.figures, [k]) for k, one in enumerate(ours.by_class))]
    for figures, k in wanted:
        pairs = [
            (figures.ap, precision[:, :, k, 0, -1]),
            (figures.ap50, precision[0, :, k, 0, -1]),
            (figures.ap75, precision[5, :, k, 0, -1]),
            (figures.ar, recall[:, k, 0, -1]),
            *((getattr(figures, f"ap_{s}"), precision[:, :, k, i, -1]) for i, s in enumerate(SIZES) if i),
            *((getattr(figures, f"ar_{s}"), recall[:, k, i, -1]) for i, s in enumerate(SIZES) if i),
            *((figures.ar_by_most[n], recall[:, k, 0, i]) for i, n in enumerate((1, 10, most))),
        ]
        for value, array in pairs:
            assert value == (None if mean(array) is None else pytest.approx(mean(array), abs=1e-9))
    own = by_class(boxes, match(boxes, THRESHOLDS, most))
    theirs = precision[:, :, :, 0, -1].mean(1)
    np.testing.assert_allclose(np.nan_to_num(own, nan=-1), theirs, rtol=0, atol=1e-9)


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]):
    yield
    capsys.readouterr()  # pycocotools prints


@pytest.mark.parametrize("seed", range(12))
def test_average_precision_is_pycocotools(seed):
    assert_is_cocos(adversarial(seed))


def test_average_precision_is_pycocotools_with_more_boxes_than_count():
    for n in (98, 99, 100, 101):
        assert_is_cocos(crowded(n))
    assert_is_cocos(adversarial(99, most=400))
    assert_is_cocos(adversarial(98, most=90), most=20)
    assert_is_cocos(adversarial(98, most=90), most=1000)  # where torchmetrics by pycocotools says -1


@pytest.mark.parametrize("truths", [0, 2])
@pytest.mark.parametrize("detections", [0, 2])
def test_average_precision_is_pycocotools_where_something_is_missing(truths, detections):
    boxes = [[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 99.0, 99.0]]
    one = picture_boxes(boxes[:detections], [0.9, 0.8][:detections], [3, 17][:detections], boxes[:truths], [3] * truths)
    nothing = picture_boxes([], [], [], [], [])
    assert_is_cocos([nothing, one, nothing])


def test_real_valued_boxes_are_pycocotools():
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(60):
        k, n = rng.integers(0, 6), rng.integers(0, 30)
        corner, size = rng.uniform(0, 200, (k, 2)), rng.uniform(5, 150, (k, 2))
        truth = np.concatenate([corner, corner + size], axis=1)
        corner, size = rng.uniform(0, 200, (n, 2)), rng.uniform(5, 150, (n, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        if k:
            boxes[::2] = truth[rng.integers(0, k, len(boxes[::2]))] + rng.uniform(-2, 2, boxes[::2].shape)
        crowd = rng.random(k) < 0.1
        pictures.append(
            picture_boxes(boxes, rng.random(n), rng.choice(CLASSES, n), truth, rng.choice(CLASSES[:3], k), crowd)
        )
    assert_is_cocos(pictures)


# --- by hand --------------------------------------------------------------------------------------------------------


def line(found: Sequence[float], scores: Sequence[float], truths: Sequence[float]) -> PictureBoxes:
    """Squares of 10 pixels at these places of one row, all of class 3."""

    def at(places: Sequence[float]) -> list[list[float]]:
        return [[x, 0.0, x + 10.0, 10.0] for x in places]

    return picture_boxes(at(found), scores, [3] * len(found), at(truths), [3] * len(truths))


@pytest.mark.parametrize(
    ("truths", "coco_points", "eleven", "every"),
    [([0, 100], 51, 6 / 11, 1 / 2), ([0, 100, 200], 34, 4 / 11, 1 / 3)],
)
def test_one_of_several_objects(truths, coco_points, eleven, every):
    boxes = box_set([line([0], [0.9], truths)])
    assert average_precision(boxes).mean.ap50 == pytest.approx(coco_points / 101, abs=1e-12)
    voc = voc_precision(boxes)
    assert (voc.eleven_point, voc.all_point) == (pytest.approx(eleven), pytest.approx(every))
    assert voc.truths == len(truths)


def test_a_perfect_result_is_one_but_for_the_last_digit():
    """pycocotools adds a spacing to the number of detections, so that one of one is below 1."""
    one = line([0], [0.9], [0])
    theirs = mean(coco([one]).eval["precision"])
    assert 1 - 1e-15 < theirs < 1
    assert by_class(box_set([one]), match(box_set([one]), [0.5])).item() == pytest.approx(theirs, abs=1e-15)
    assert average_precision(box_set([one])).mean.ap == pytest.approx(theirs, abs=1e-15)


def test_seven_of_ten_miss_the_recall_of_seven_tenths():
    """0.7 lies below the 70th of pycocotools' recalls, so 70 points are reached and not 71."""
    right = np.ones(7, dtype=bool)
    assert average_precision_of(right, ~right, 10) * 101 == pytest.approx(70)
    assert average_precision_of(right, ~right, 10, "11") * 11 == pytest.approx(8)  # where k / 10 is exact


def test_an_iou_of_exactly_the_threshold_is_right_for_coco_and_wrong_for_voc():
    one = picture_boxes([[0, 0, 10, 5]], [0.9], [3], [[0, 0, 10, 10]], [3])
    boxes = box_set([one])
    assert average_precision(boxes).mean.ap50 == pytest.approx(1)
    assert voc_precision(boxes).all_point == 0
    assert voc_precision(boxes, iou=0.49).all_point == 1


def test_a_second_box_takes_another_free_object_for_coco_and_none_for_voc():
    """The second detection overlaps the taken object by 9/11, and a free one by 7/13 that it would find."""
    boxes = box_set([line([0, 1], [0.9, 0.8], [0, 4])])
    assert match(boxes, [0.5]).truth.tolist() == [[0, 1]]
    assert average_precision(boxes).mean.ap50 == pytest.approx(1)
    assert voc_precision(boxes).all_point == pytest.approx(1 / 2)


def test_of_objects_that_are_overlapped_equally_the_last_is_found():
    """As in pycocotools, for whose figures it decides what is left to the detections that follow."""
    assert match(box_set([line([5], [0.9], [0, 10])]), [0.3]).truth.tolist() == [[1]]
    twice = [[0, 0, 90, 90], [0, 0, 80, 80]]
    crowds = picture_boxes([[0, 0, 10, 10]], [0.9], [3], twice, [3, 3], [True, True])
    assert match(box_set([crowds]), [0.5]).truth.tolist() == [[1]]


def test_ties_of_scores_are_decided_by_order():
    right, wrong = [0.0], [500.0]
    values = [average_precision(box_set([line(f, [0.5, 0.5], [0])])).mean.ap50 for f in (right + wrong, wrong + right)]
    assert values == [pytest.approx(1), pytest.approx(0.5)]


def test_false_positives_of_classes_without_objects_are_told_because_the_mean_does_not():
    """One of class 17; not the one of class 3, which the mean knows, nor the one in a crowd, which is none."""
    here, crowd, elsewhere = [0, 0, 40, 40], [100, 0, 200, 100], [300, 0, 340, 40]
    given = [(here, 0.9, 3), (here, 0.95, 17), (elsewhere, 0.1, 3), ([100, 0, 140, 40], 0.9, 90)]
    found, scores, labels = zip(*given, strict=True)
    one = picture_boxes(found, scores, labels, [here, crowd], [3, 90], [False, True])
    result = average_precision(box_set([one], CLASSES))
    assert result.mean.ap == pytest.approx(1)
    assert result.classes_without_truths == (17, 90, 91)
    assert (result.unseen_false_positives, result.truths, result.crowds, result.detections) == (1, 1, 1, 4)
    assert result.lines()[1] == "mean over 1 classes with 1 true boxes in 1 pictures; 4 detections"
    assert "3 classes have no true box, so their 1 false positives" in result.lines()[2]
    assert result.as_dict()["by_class"][1]["figures"]["ap"] is None


def test_a_crowd_takes_many_and_none_of_them_counts():
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [200.0, 0.0, 210.0, 10.0]]
    one = picture_boxes(boxes, [0.9, 0.8, 0.7], [3, 3, 3], [[0, 0, 100, 100], [200, 0, 210, 10]], [3, 3], [1, 0])
    found = match(box_set([one]), [0.5])
    assert found.ignored.tolist() == [[True, True, False]]
    assert found.overlap.tolist() == [[1, 1, 1]]
    assert average_precision(box_set([one])).mean.ap50 == pytest.approx(1)
    assert voc_precision(box_set([one])).all_point == pytest.approx(1 / 3)  # none overlaps the difficult one by half


def test_an_object_marked_difficult_is_ignored_by_voc():
    one = picture_boxes([[0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8], [3, 3], [[0, 0, 10, 10]], [3], [True])
    with_another = picture_boxes([[0, 0, 10, 10]], [0.7], [3], [[0, 0, 10, 10]], [3])
    assert voc_precision(box_set([one, with_another])).all_point == 1
    assert voc_precision(box_set([one])).all_point is None


# --- intervals ------------------------------------------------------------------------------------------------------


def test_a_drawn_set_has_the_figures_of_its_pictures_laid_side_by_side():
    rng = np.random.default_rng(0)
    pictures = [replace(one, scores=rng.random(len(one.scores))) for one in adversarial(5) + adversarial(6)]
    drawn = rng.multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), 6)
    found = drawn_precision(box_set(pictures, CLASSES), drawn)
    for counts, values in zip(drawn, found, strict=True):
        again = [one for one, n in zip(pictures, counts, strict=True) for _ in range(n)]
        wanted = average_precision(box_set(again, CLASSES))
        ap = [np.nan if one.figures.ap is None else one.figures.ap for one in wanted.by_class]
        np.testing.assert_allclose(values.mean(0), ap, rtol=0, atol=1e-9)


def test_intervals_lie_around_the_figure_and_narrow_with_more_pictures():
    few, many = (box_set([one for s in range(n) for one in adversarial(s)]) for n in (2, 10))
    widths = []
    for boxes in (few, many):
        found, figures = precision_intervals(boxes, draws=200), average_precision(boxes).mean
        for interval, value in ((found.ap, figures.ap), (found.ap50, figures.ap50), (found.ap75, figures.ap75)):
            assert interval[0] < value < interval[1]
        widths.append(found.ap50[1] - found.ap50[0])
    assert widths[1] < widths[0]
    assert precision_intervals(few, draws=100) == precision_intervals(few, draws=100)
    assert precision_intervals(few, seed=1, draws=100) != precision_intervals(few, draws=100)


def test_intervals_are_the_percentiles_of_drawn_sets_moved_by_their_bias():
    boxes = box_set(adversarial(0))
    drawn = np.random.default_rng(0).multinomial(boxes.pictures, np.full(boxes.pictures, 1 / boxes.pictures), 100)
    values = np.nanmean(drawn_precision(boxes, drawn)[:, 0], axis=1)
    moved = np.percentile(values, tails(boxes.pictures)) + average_precision(boxes).mean.ap50 - values.mean()
    assert precision_intervals(boxes, draws=100).ap50 == pytest.approx(np.clip(moved, 0, 1))


def test_intervals_of_a_class_without_objects_or_of_few_pictures_are_none():
    found = precision_intervals(box_set(adversarial(0), CLASSES), draws=100)
    assert found.ap50_by_class[91] is None
    assert found.ap50_by_class[3] is not None
    assert precision_intervals(box_set(adversarial(0)[:6]), draws=100).ap is None


# --- types of errors ------------------------------------------------------------------------------------------------


def test_each_type_of_error_by_hand():
    """Objects 0 and 1 of class 3, 2 of class 17, 3 of class 3 that nothing comes near."""
    truth = [[0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10], [300, 0, 310, 10]]
    given = [
        ([0, 0, 10, 10], 0.9, 3, "right"),
        ([0, 0, 10, 9], 0.8, 3, "duplicate"),
        ([100, 0, 110, 4], 0.7, 3, "place"),  # 0.4 with object 1, which it would find
        ([200, 0, 210, 10], 0.6, 3, "class"),  # on object 2, which it would find
        ([200, 0, 210, 3], 0.5, 3, "both"),  # 0.3 with an object of another class
        ([400, 0, 410, 10], 0.4, 17, "background"),
    ]
    boxes, scores, labels, kinds = zip(*given, strict=True)
    found = error_types(box_set([picture_boxes(boxes, scores, labels, truth, [3, 3, 17, 3])]))
    assert found.of_detection == kinds
    assert found.missed == (3,)
    assert found.counts == {"class": 1, "place": 1, "both": 1, "duplicate": 1, "background": 1, "missed": 1}
    # class 3 has R W W W W of 3 objects: 34 points of precision 1; class 17 has W of 1, which is nothing
    assert found.ap == pytest.approx(34 / 101 / 2)
    wanted = {
        "class": 1 / 2,  # class 17: R W
        "place": (34 + 33 * 2 / 3) / 101 / 2 - 34 / 101 / 2,  # class 3: R W R W W
        "both": 0,
        "duplicate": 0,
        "background": 0,
        "missed": 51 / 101 / 2 - 34 / 101 / 2,  # class 3 has 2 objects
    }
    assert found.costs == {name: pytest.approx(value, abs=1e-12) for name, value in wanted.items()}


def test_errors_in_front_of_a_right_box_cost_precision():
    """A duplicate is behind its better one by definition, so it costs where another object comes later."""
    one = line([0, 1, 100], [0.9, 0.8, 0.7], [0, 100])
    found = error_types(box_set([one]))
    assert found.of_detection == ("right", "duplicate", "right")
    assert found.costs["duplicate"] == pytest.approx(50 * (1 - 2 / 3) / 101)
    found = error_types(box_set([line([500, 0], [0.9, 0.8], [0])]))
    assert found.costs["background"] == pytest.approx(1 / 2)


def test_one_object_is_mended_once_and_what_else_is_mended_goes_away():
    """Two boxes of the wrong class on one object: the better one becomes right, the other one disappears.

    A false alarm of the right class lies between them, so that it matters which one is mended.
    """
    truth = [[0, 0, 10, 10], [50, 0, 60, 10]]
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [50, 0, 60, 10], [500, 0, 510, 10]]
    one = picture_boxes(boxes, [0.8, 0.9, 0.7, 0.85], [17, 17, 17, 3], truth, [3, 17])
    found = error_types(box_set([one]))
    assert found.of_detection == ("class", "class", "right", "background")
    assert found.costs["class"] == pytest.approx(1 - 1 / 6)  # class 3: 0 to 1, class 17: 1/3 to 1


def test_a_box_of_the_wrong_class_on_an_object_that_is_found_is_not_mended():
    """One of two objects is found, and called another class too: that goes away, and costs nothing."""
    truth, said = [[0, 0, 10, 10], [50, 0, 60, 10]], [[0, 0, 10, 10], [0, 0, 10, 10]]
    found = error_types(box_set([picture_boxes(said, [0.9, 0.8], [3, 17], truth, [3, 3])]))
    assert found.of_detection == ("right", "class")
    assert (found.ap, found.costs["class"]) == (pytest.approx(51 / 101), 0)


def test_what_a_crowd_takes_and_what_is_beyond_the_best_is_no_error():
    one = picture_boxes([[0, 0, 10, 10], [50, 0, 60, 10]], [0.9, 0.8], [3, 3], [[0, 0, 90, 90]], [3], [True])
    assert error_types(box_set([one])).of_detection == ("ignored", "ignored")
    assert error_types(box_set([one])).ap is None
    assert error_types(box_set([line([0, 500], [0.9, 0.8], [0])]), most=1).of_detection == ("right", "ignored")


def tide_by_hand(one: PictureBoxes, boxes_of_set, right, iou=0.5, background=0.1) -> list[str]:
    """The types of one picture, box by box, in the order of Bolya et al.; no crowds."""

    def overlap(a, b):
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = sides.clip(0).prod()
        whole = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared
        return shared / whole if whole else 0.0

    used = {int(k) for k, is_right in zip(boxes_of_set.truth[0], right, strict=True) if is_right}
    kinds = []
    for d, box in enumerate(one.boxes):
        table = [(overlap(box, b), one.truth_labels[k] == one.labels[d], k) for k, b in enumerate(one.truth_boxes)]
        same = max((v for v, is_same, _ in table if is_same), default=0)
        other = max((v for v, is_same, _ in table if not is_same), default=0)
        of_used = max((v for v, is_same, k in table if is_same and k in used), default=0)
        if right[d]:
            kinds.append("right")
        elif background <= same <= iou:
            kinds.append("place")
        elif other >= iou:
            kinds.append("class")
        elif of_used >= iou:
            kinds.append("duplicate")
        else:
            kinds.append("background" if max(same, other) <= background else "both")
    return kinds


@pytest.mark.parametrize("seed", range(8))
def test_types_are_those_of_the_slow_way(seed):
    """On every picture of adversarial sets without crowds; the costs add nothing where there is no error."""
    seen = set()
    for one in adversarial(seed):
        plain = picture_boxes(one.boxes, one.scores, one.labels, one.truth_boxes, one.truth_labels)
        boxes = box_set([plain])
        matches = match(boxes, [0.5])
        found = error_types(boxes)
        assert list(found.of_detection) == tide_by_hand(plain, matches, matches.is_right()[0])
        assert all(found.costs[name] in (0, None) for name, n in found.counts.items() if n == 0)
        seen |= set(found.of_detection)
    assert len(seen) >= 5


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_by_hand_and_beside_it_recall_floor_and_iou():
    """Scores 0.8, 0.8 with one right at IoU 0.9, 0.4 that is wrong, and 0.2 below the floor, which is right."""
    truth = [[0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]]
    boxes = [[0, 0, 10, 9], [50, 0, 60, 10], [300, 0, 310, 10], [100, 0, 110, 10]]
    one = picture_boxes(boxes, [0.8, 0.8, 0.4, 0.2], [3, 3, 3, 3], truth, [3, 3, 3])
    found = box_calibration(box_set([one], CLASSES))
    assert found.d_ece == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.4)
    assert found.la_ece == pytest.approx(2 / 3 * (0.8 - 0.45) + 1 / 3 * 0.4)
    assert (found.recall, found.precision) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (found.floor, found.iou, found.detections, found.truths) == (0.3, 0.5, 3, 3)
    assert found.la_ece_by_class[17] is None
    (full,) = [b for b in found.bins if b.detections == 2]
    assert (full.high, full.score, full.precision) == (pytest.approx(0.8), pytest.approx(0.8), 0.5)
    assert box_calibration(box_set([one]), floor=0.1).recall == pytest.approx(2 / 3)
    assert box_calibration(box_set([one]), iou=0.95).recall == 0


def test_calibration_leaves_out_crowds_and_counts_duplicates_as_wrong():
    crowd = picture_boxes([[0, 0, 10, 10]], [0.9], [3], [[0, 0, 90, 90]], [3], [True])
    twice = line([0, 0], [1.0, 1.0], [0])
    assert box_calibration(box_set([crowd, twice])).d_ece == pytest.approx(1 / 2)
    assert box_calibration(box_set([crowd])).d_ece is None
    assert box_calibration(box_set([crowd])).recall is None


def test_a_calibrated_detector_has_no_error_and_its_recall_says_what_it_leaves_out():
    """Every tenth box with 0.9 is wrong, and half of the objects have no box at all."""
    pictures = [line([0 if k % 10 else 500], [0.9], [0, 100]) for k in range(100)]
    found = box_calibration(box_set(pictures))
    assert found.d_ece == pytest.approx(0, abs=1e-12)
    assert found.recall == pytest.approx(0.45)


# --- chance ---------------------------------------------------------------------------------------------------------


def random_detector(pictures: int, side: int, size: int, seed: int) -> list[PictureBoxes]:
    """In each picture one square object in the middle, and one such box anywhere, with any score."""
    rng = np.random.default_rng(seed)
    middle = (side - size) / 2
    truth = [[middle, middle, middle + size, middle + size]]
    corners = rng.uniform(0, side - size, (pictures, 2))
    scores = rng.random(pictures)
    boxes = np.concatenate([corners, corners + size], axis=1)
    return [picture_boxes([box], [s], [3], truth, [3]) for box, s in zip(boxes, scores, strict=True)]


def chance_of_overlap(iou: float, side: int, size: int) -> float:
    """How often a square that lies anywhere overlaps one in the middle by the IoU.

    Shifts by the shares (u, v) of a side leave (1 - |u|)(1 - |v|) of it, and the IoU is reached where that is at least
    c = 2 IoU / (1 + IoU); such shifts cover 4 (1 - c + c ln c) squares, out of all places.
    """
    c = 2 * iou / (1 + iou)
    return 4 * (1 - c + c * np.log(c)) * size**2 / (side - size) ** 2


def test_random_boxes_come_out_at_chance_in_every_table():
    n, side, size = 3000, 100, 58
    p = chance_of_overlap(0.5, side, size)  # 0.48
    boxes = box_set(random_detector(n, side, size, seed=0))
    noise = 4 * (p * (1 - p) / n) ** 0.5
    result = average_precision(boxes)
    right = int(match(boxes, [0.5]).is_right().sum())
    assert right / n == pytest.approx(p, abs=noise)
    assert result.mean.ar_by_most[1] < right / n  # of all IoUs
    chance = precision_at_random(right, n, n)
    assert chance == pytest.approx((right / n) ** 2, rel=0.01)  # precision times recall
    # the envelope of a noisy curve lies a little above
    assert 0.95 * chance < result.mean.ap50 < 1.1 * chance
    voc = voc_precision(boxes)
    assert 0.95 * chance < voc.all_point < 1.1 * chance
    # of the recalls 0 to 0.4, each of precision p, the first is decided by luck of the best few
    assert 0.95 * 5 * p < 11 * voc.eleven_point < 1 + 1.1 * 4 * p
    # with p of the boxes right at every score, the error is the mean of |score - p|
    calibration = box_calibration(boxes, floor=0.0)
    assert calibration.d_ece == pytest.approx((p**2 + (1 - p) ** 2) / 2, abs=noise)
    assert calibration.recall == pytest.approx(p, abs=noise)
    interval = precision_intervals(boxes, draws=100).ap50
    assert interval[0] < result.mean.ap50 < interval[1]
    assert interval[1] - interval[0] < 0.3 * chance


def test_errors_of_random_boxes_are_background_as_often_as_geometry_says():
    n, side, size = 4000, 100, 10
    found = error_types(box_set(random_detector(n, side, size, seed=1)))
    near, right = chance_of_overlap(0.1, side, size), chance_of_overlap(0.5, side, size)  # 0.025 and 0.003
    assert found.counts["background"] == pytest.approx(n * (1 - near), abs=4 * (n * near) ** 0.5)
    assert found.counts["place"] == pytest.approx(n * (near - right), abs=4 * (n * near) ** 0.5)
    assert found.counts["missed"] == found.counts["background"]
    assert found.counts["class"] == found.counts["duplicate"] == found.counts["both"] == 0
    assert found.ap < 0.02


def test_a_good_detector_falls_to_chance_when_its_boxes_are_dealt_to_other_pictures():
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 4000, 800)
    good = box_set([line([x], [s], [x]) for x, s in zip(places, rng.random(800), strict=True)])
    assert average_precision(good).mean.ap50 == pytest.approx(1)
    dealt = dealt_at_random(good)
    assert average_precision(dealt).mean.ap50 < 0.01
    assert sorted(dealt.scores) == sorted(good.scores)
    assert (np.diff(dealt.picture) >= 0).all()
    assert np.bincount(dealt.picture).max() > 1  # a picture's number of boxes is chance, too


def test_chance_is_the_mean_over_all_orders():
    flags = [True, True, False, False, False]
    orders = set(permutations(flags))
    exact = [(np.arange(1, 3) / (np.flatnonzero(o) + 1)).sum() / 3 for o in orders]
    assert precision_at_random(2, 5, 3) == pytest.approx(np.mean(exact))
    assert precision_at_random(0, 5, 3) == 0
    assert precision_at_random(4, 4, 4) == pytest.approx(1)


# --- records --------------------------------------------------------------------------------------------------------


def test_records_take_tensors_arrays_and_lists():
    box = [[0.0, 0.0, 4.0, 4.0]]
    made = [
        picture_boxes(box, [0.5], [1], box, [1]),
        picture_boxes(np.array(box), np.array([0.5]), np.array([1]), np.array(box), np.array([1])),
        picture_boxes(
            torch.tensor(box, requires_grad=True), torch.tensor([0.5]), torch.tensor([1]), torch.tensor(box), [1]
        ),
    ]
    for one in made:
        assert (one.boxes.tolist(), one.scores.tolist(), one.labels.tolist()) == (box, [0.5], [1])
        assert (one.area.tolist(), one.crowd.tolist()) == ([16.0], [False])


def test_the_order_of_the_classes_is_the_users():
    squares = [[0, 0, 10, 10]] * 4
    boxes = box_set([picture_boxes(squares, [0.9] * 4, [3, 17, 90, 3], squares, [17, 90, 3, 3])], [90, 3, 17])
    assert boxes.classes == (90, 3, 17)
    assert boxes.labels.tolist() == [1, 2, 0, 1]
    assert boxes.truth_labels.tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([[0, 0, 4]], [1], [1], [], []), r"boxes is of shape \(1, 3\)"),
        (([[0, 0, 4, 4]], [1, 2], [1], [], []), r"scores is of shape \(2,\) beside 1 boxes"),
        (([[0, 0, 4, 4]], [1], [1.5], [], []), "no whole numbers"),
        (([], [], [], [[4, 0, 0, 4]], [1]), "true box 0 is turned over"),
        (([], [], [], [[0, 0, 4, 4]], []), r"truth_labels is of shape \(0,\)"),
        (([], [], [], [[0, 0, 4, 4]], [1], [False, True]), r"crowd is of shape \(2,\)"),
        (([], [], [], [[0, 0, 4, 4]], [1], None, [-1.0]), "area of true box 0 is below 0"),
    ],
)
def test_records_that_do_not_fit_are_refused(given, words):
    with pytest.raises(Refused, match=words):
        picture_boxes(*given)


def test_what_cannot_be_evaluated_is_refused():
    one = line([0], [0.9], [0])
    with pytest.raises(NotFinite, match="scores holds"):
        picture_boxes([[0, 0, 1, 1]], [np.nan], [1], [], [])
    with pytest.raises(Refused, match="no pictures"):
        box_set([])
    with pytest.raises(Refused, match="class 3, which is not judged"):
        box_set([one], [1, 2])
    with pytest.raises(Refused, match="twice"):
        box_set([one], [3, 3])
    with pytest.raises(Refused, match="IoU thresholds"):
        match(box_set([one]), [0.0])
    for call in (match, lambda b, _, most: average_precision(b, most)):
        with pytest.raises(Refused, match="most 0"):
            call(box_set([one]), [0.5], most=0)
    with pytest.raises(Refused, match="iou 1"):
        voc_precision(box_set([one]), iou=1)
    with pytest.raises(Refused, match="draws 10"):
        precision_intervals(box_set([one]), draws=10)
    with pytest.raises(Refused, match="not below iou"):
        error_types(box_set([one]), background=0.5)
    with pytest.raises(Refused, match=r"not in \[0, 1\]"):
        box_calibration(box_set([line([0], [3.0], [0])]))
    with pytest.raises(Refused, match="bins 0"):
        box_calibration(box_set([one]), bins=0)
    with pytest.raises(Refused, match="right of"):
        precision_at_random(3, 2, 5)


def test_a_detection_that_is_turned_over_finds_nothing():
    one = picture_boxes([[10, 10, 0, 0], [0, 0, 10, 10]], [0.9, 0.8], [3, 3], [[0, 0, 10, 10]], [3])
    assert match(box_set([one]), [0.5]).is_right().tolist() == [[False, True]]
    assert average_precision(box_set([one])).mean.ap50 == pytest.approx(1 / 2)


def test_python_of_the_page(capsys):
    page = (Path(__file__).parents[2] / "docs" / "detection-metrics.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    exec(code, {})
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("AP 100.0 %, AP50 100.0 %")
    assert told[2] == "1 classes have no true box, so their 0 false positives do not lower the mean"
    assert len(told) == 4
