"""Paired differences of the scores of boxes and pixels, whose values are known by hand or by counting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clearsight.errors import Refused
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.gains import Gain, gain_of
from clearsight.evaluation.intervals import precision_intervals
from clearsight.evaluation.paired_boxes import box_gains
from clearsight.evaluation.paired_pixels import pixel_gains
from clearsight.evaluation.records import BoxSet, PictureBoxes, box_set, picture_boxes


def one_picture(rng: np.random.Generator, skill: float, truth: Any) -> PictureBoxes:
    """Detections of the objects with scores by chance: each in place or with an IoU of 0.53, and else beside it."""
    sides, labels = truth
    luck = rng.random(len(sides))
    off = np.where(luck < skill, np.where(luck < skill / 2, 0, 1.7), 30)[:, None]
    return picture_boxes(sides + off, rng.random(len(sides)), labels, sides, labels)


def pair(seed: int, skills: tuple[float, float], pictures: int = 12) -> tuple[BoxSet, BoxSet]:
    """Two detectors of these skills on the same objects."""
    rng = np.random.default_rng(seed)
    truths = []
    for _ in range(pictures):
        n = int(rng.integers(1, 5))
        corner = np.arange(n)[:, None] * 100 + np.zeros(2)
        truths.append((np.concatenate([corner, corner + 10], 1), rng.integers(0, 2, n)))
    first, second = (box_set([one_picture(rng, s, t) for t in truths], [0, 1]) for s in skills)
    return first, second


def test_the_paired_difference_is_that_of_the_two_scores() -> None:
    before, after = pair(0, (0.4, 0.8))
    gains = box_gains(before, after, draws=100)
    first, second = average_precision(before), average_precision(after)
    for name in ("ap", "ap50", "ap75"):
        gain = getattr(gains, name)
        assert gain.value == pytest.approx(getattr(second.mean, name) - getattr(first.mean, name), abs=1e-12)
        assert gain.interval[0] < gain.value < gain.interval[1]
    for a, b in zip(first.by_class, second.by_class, strict=True):
        assert gains.ap50_by_class[a.label].value == pytest.approx(b.figures.ap50 - a.figures.ap50, abs=1e-12)  # type: ignore[operator]
        assert gains.ap_by_class[a.label].value == pytest.approx(b.figures.ap - a.figures.ap, abs=1e-12)  # type: ignore[operator]
    costs = error_types(before).costs, error_types(after).costs
    assert {n: g.value for n, g in gains.costs.items()} == pytest.approx(
        {n: costs[1][n] - costs[0][n] for n in costs[0]}
    )  # type: ignore[operator]


def test_a_detector_beside_itself_gains_exactly_nothing() -> None:
    before, _ = pair(1, (0.5, 0.5))
    gains = box_gains(before, before, draws=100)
    every = [gains.ap, gains.ap50, gains.ap75, *gains.ap50_by_class.values(), *gains.costs.values()]
    assert {(g.value, g.interval) for g in every} == {(0.0, (0.0, 0.0))}


def test_the_same_pictures_are_drawn_for_both() -> None:
    """The second finds what the first misses in one picture of 30, so that the scores of a drawn set move together."""
    before, _ = pair(2, (0.5, 0.5), 30)
    moved = before.boxes.copy()
    moved[before.picture == 0] = before.truth_boxes[before.truth_picture == 0]
    after = BoxSet(**{**vars(before), "boxes": moved})
    low, high = box_gains(before, after, draws=200).ap50.interval or (0, 0)
    alone = precision_intervals(before, draws=200).ap50 or (0, 0)
    assert high - low < 0.75 * (alone[1] - alone[0])


def test_detectors_of_equal_skill_differ_by_chance_alone() -> None:
    """Of 40 intervals 38 should hold the 0; fewer than 33 would come up in one of ten thousand such tests."""
    held = 0
    for seed in range(40):
        low, high = box_gains(*pair(100 + seed, (0.6, 0.6)), seed=seed, draws=100).ap50.interval or (1, 1)
        held += low <= 0 <= high
    assert held >= 33


def test_the_percentiles_are_moved_by_the_bias_of_the_draws() -> None:
    """Every drawn set gains 0.3, all pictures together 0.1; undefined sets say nothing, and six pictures neither."""
    before, after = np.array([0.5, 0.4, 0.2, np.nan, 0.1]), np.array([0.6, 0.7, 0.5, 0.9, 0.4])
    gain = gain_of(before, after, 12)
    assert (gain.value, gain.interval) == (pytest.approx(0.1), pytest.approx((0.1, 0.1)))
    assert gain_of(before, after, 6).interval is None
    assert gain_of(np.full(3, np.nan), after[:3], 12) == Gain(None, 0.6, None)


def test_boxes_of_other_truth_are_refused() -> None:
    before, _ = pair(3, (0.5, 0.5))
    classes = {"truth_labels": 1 - before.truth_labels}
    for other in (pair(4, (0.5, 0.5))[0], BoxSet(**{**vars(before), **classes})):
        with pytest.raises(Refused, match="not judged by the same true boxes"):
            box_gains(before, other)
    with pytest.raises(Refused, match="draws 7"):
        box_gains(before, before, draws=7)


def counts(seed: int, skill: float, n: int = 12) -> np.ndarray:
    """(n, 3, 3): of 100 pixels of a picture in two classes this share is right, by chance; the third is nowhere."""
    rng = np.random.default_rng(seed)
    truth = np.stack([np.full(n, 60), np.full(n, 40), np.zeros(n, int)], 1)
    both = rng.binomial(truth, skill)
    said = both + (truth - both)[:, [1, 0, 2]]  # what is wrong is said to be of the other class
    return np.stack([both, truth, said], 1)


def test_the_difference_of_two_segmenters_by_hand() -> None:
    before, after = counts(0, 0.6), counts(1, 0.8)
    gains = pixel_gains(before, after, draws=200)
    sums = before.sum(0), after.sum(0)
    right = [s[0].sum() / s[1].sum() for s in sums]
    iou = [s[0][:2] / (s[1] + s[2] - s[0])[:2] for s in sums]
    assert gains.means["pixel_accuracy"].value == pytest.approx(right[1] - right[0])
    assert gains.means["mean_iou"].value == pytest.approx(iou[1].mean() - iou[0].mean())
    assert [g.value for g in gains.iou] == [pytest.approx(v) for v in iou[1] - iou[0]] + [None]
    same = pixel_gains(before, before, draws=200)
    assert {(g.value, g.interval) for g in same.means.values()} == {(0.0, (0.0, 0.0))}
    for other in (after[:7], after[:, :2], after[:, :, :2]):
        with pytest.raises(Refused, match="of the same pictures"):
            pixel_gains(before, other)


def test_segmenters_of_equal_skill_differ_by_chance_alone() -> None:
    held = 0
    for seed in range(40):
        gain = pixel_gains(counts(2 * seed, 0.7), counts(2 * seed + 1, 0.7), draws=100).means["mean_iou"]
        low, high = gain.interval or (1, 1)
        held += low <= 0 <= high
    assert held >= 33
