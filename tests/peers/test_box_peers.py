"""Agreement with other libraries about boxes: calibration and soft suppression."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearsight.core.boxes import soft_suppress
from clearsight.evaluation.box_calibration import box_calibration
from clearsight.evaluation.matching import match
from clearsight.evaluation.records import box_set, picture_boxes

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # they warn of much


def pictures(n: int) -> list:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        corner = rng.uniform(0, 200, (4, 2))
        truth = np.concatenate([corner, corner + rng.uniform(20, 60, (4, 2))], axis=1)
        boxes = np.concatenate([truth + rng.uniform(-6, 6, (4, 4)), truth[:2] + 90])
        found.append(picture_boxes(boxes, rng.random(6), [1] * 6, truth, [1] * 4))
    return found


def test_d_ece_is_netcals():
    metrics = pytest.importorskip("netcal.metrics")
    boxes = box_set(pictures(200)).above(0.3)
    right = match(boxes, [0.5]).is_right()[0]
    wanted = metrics.ECE(bins=10, detection=True).measure(boxes.scores, right.astype(int))
    assert 0.05 < wanted < 0.5
    assert box_calibration(boxes).d_ece == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("decay", "number"), [("linear", 1), ("gaussian", 2)])
def test_soft_suppression_picks_as_ensemble_boxes_does(decay, number):
    """In the same order, and the same boxes stay.  The scores that it returns are those it was given, unchanged."""
    soft_nms = pytest.importorskip("ensemble_boxes").soft_nms
    left_out = 0
    for one in pictures(40):
        boxes = one.boxes.clip(0) / 400  # it takes shares of the picture
        kept, _, _ = soft_nms(
            [boxes.tolist()], [one.scores.tolist()], [[0] * 6], method=number, iou_thr=0.2, sigma=0.2, thresh=0.2
        )
        order, _ = soft_suppress(
            torch.tensor(boxes), torch.tensor(one.scores), decay=decay, threshold=0.2, sigma=0.2, floor=0.2
        )
        np.testing.assert_array_equal(boxes[order], kept)
        left_out += 6 - len(order)
    assert left_out > 10
