"""Scores of segmentations beside torchmetrics': equal where it is right, and where it is not, what it does instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from clearsight.evaluation.panoptic import PanopticCounts, Segments
from clearsight.evaluation.pixels import PixelCounts

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]


def pictures(classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, classes, (6, 20, 30), generator=generator)
    noise = torch.randint(0, classes, truth.shape, generator=generator)
    prediction = torch.where(torch.rand(truth.shape, generator=generator) < 0.6, truth, noise)
    return prediction, truth.masked_fill(torch.rand(truth.shape, generator=generator) < 0.1, 255)


def counted(prediction: Tensor, truth: Tensor, classes: int) -> PixelCounts:
    counts = PixelCounts(classes)
    for p, t in zip(prediction, truth, strict=True):
        counts.add(p, t)
    return counts


def test_confusion_accuracy_and_iou_are_torchmetrics() -> None:
    tm = pytest.importorskip("torchmetrics.functional.classification")
    prediction, truth = pictures()
    counts = counted(prediction, truth, 5)
    matrix = tm.multiclass_confusion_matrix(prediction, truth, 5, ignore_index=255)
    assert torch.equal(counts.matrix, matrix)
    found, more = counts.scores(), {"ignore_index": 255}
    for ours, average in ((found.pixel_accuracy, "micro"), (found.mean_accuracy, "macro")):
        assert ours == pytest.approx(float(tm.multiclass_accuracy(prediction, truth, 5, average=average, **more)))
    for average in ("none", "macro"):
        theirs = tm.multiclass_jaccard_index(prediction, truth, 5, average=average, **more)
        ours = found.iou if average == "none" else found.mean_iou
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    weighted = tm.multiclass_jaccard_index(prediction, truth, 5, average="weighted", **more)
    assert found.frequency_weighted_iou == pytest.approx(float(weighted))
    np.testing.assert_allclose(
        found.dice, tm.multiclass_f1_score(prediction, truth, 5, average="none", **more), rtol=1e-6
    )


def test_where_torchmetrics_differs_of_absent_classes_and_of_single_pictures() -> None:
    """Jaccard shows 0 for a class that is nowhere; MeanIoU averages the pictures' own IoU, 0.375 for 0.6."""
    tm = pytest.importorskip("torchmetrics")
    prediction, truth = pictures(4)
    found = counted(prediction, truth, 5).scores()
    theirs = tm.functional.classification.multiclass_jaccard_index(
        prediction, truth, 5, average="none", ignore_index=255
    )
    assert np.isnan(found.iou[4])
    assert theirs[4] == 0
    mean = tm.functional.classification.multiclass_jaccard_index(prediction, truth, 5, ignore_index=255)
    assert found.mean_iou == pytest.approx(float(mean))  # from which it leaves that class out, as we do
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    one = torch.tensor([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    other = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    per_picture = segmentation.MeanIoU(2, input_format="index")
    per_picture.update(other, one)
    assert float(per_picture.compute()) == pytest.approx(0.375)
    assert counted(other, one, 2).scores().mean_iou == pytest.approx(0.6)


def panoptic(seed: int, void: bool) -> Segments:
    """Blocks of 4 x 4 pixels, of class 0 or 1 by their number."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0 if void else 1, 9, (5, 6), generator=generator)
    ids = ids.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return Segments(ids, {i: i % 2 for i in ids.unique().tolist() if i})


def as_pairs(s: Segments) -> Tensor:
    """(1, H, W, 2): class and number of each pixel, class 7 for void."""
    classes = torch.tensor([7] + [i % 2 for i in range(1, 20)])
    return torch.stack([classes[s.ids], s.ids], -1)[None]


def noisy(truth: Segments, seed: int) -> Segments:
    generator = torch.Generator().manual_seed(seed + 50)
    other = torch.randint(1, 12, truth.ids.shape, generator=generator)
    full = torch.where(truth.ids == 0, 13, truth.ids)
    ids = torch.where(torch.rand(truth.ids.shape, generator=generator) < 0.2, other, full)
    return Segments(ids, {i: i % 2 for i in ids.unique().tolist()})


def test_panoptic_quality_is_torchmetrics_where_the_prediction_answers_everywhere() -> None:
    detection = pytest.importorskip("torchmetrics.detection")
    theirs = detection.PanopticQuality({0, 1}, set(), True, return_sq_and_rq=True, return_per_class=True)
    ours = PanopticCounts(2)
    for seed in range(6):
        truth = panoptic(seed, void=True)
        prediction = noisy(truth, seed)
        ours.add(prediction, truth)
        theirs.update(as_pairs(prediction), as_pairs(truth))
    found = ours.scores()
    assert (found.counts > 0).all()
    np.testing.assert_allclose(found.by_class, theirs.compute().T, rtol=1e-6)


def test_where_torchmetrics_differs_of_a_prediction_that_leaves_pixels_out() -> None:
    """It takes pixels that the prediction leaves out from the union, and does not count what it leaves out as missed.

    The definition does so with pixels that the truth leaves out alone.
    """
    detection = pytest.importorskip("torchmetrics.detection")
    truth = Segments(torch.tensor([[1, 1, 1, 1, 1, 3, 3, 3]]), {1: 1, 3: 1})
    prediction = Segments(torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]]), {1: 1})
    ours = PanopticCounts(2)
    ours.add(prediction, truth)
    theirs = detection.PanopticQuality({0, 1}, set(), True)
    theirs.update(as_pairs(prediction), as_pairs(truth))
    assert ours.scores().counts[:, 1].tolist() == [1, 0, 1]
    assert ours.scores().pq == pytest.approx(0.6 / 1.5)
    assert float(theirs.compute()) == 1.0
