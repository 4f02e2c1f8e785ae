"""Scores of segmentations by hand, by closed forms and by slow replicas of the definitions; real annotations too."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from clearsight.core.statistics import bootstrap
from clearsight.data.images import open_ids
from clearsight.errors import Refused
from clearsight.evaluation.boundaries import BoundaryCounts, boundary, boundary_iou, boundary_width
from clearsight.evaluation.landmarks import landmark_errors, landmark_scores
from clearsight.evaluation.panoptic import PanopticCounts, Segments
from clearsight.evaluation.pixels import MEANS, PixelCounts, confusion
from clearsight.evaluation.resampling import interval_over_pictures

SHARED = Path(__file__).parents[3] / "shared/data/coco_masks"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")


MODULES = [
    *(
        f"evaluation.{name}"
        for name in ("boundaries", "class_map_boxes", "landmarks", "panoptic", "pixels", "resampling")
    ),
    "core.map_boxes",
    "internals.pixel_fields",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"clearsight.{name}"))
    assert found.attempted
    assert not found.failed


def drawn(*size: int, high: int, seed: int = 0, low: int = 0) -> Tensor:
    return torch.randint(low, high, size, generator=torch.Generator().manual_seed(seed))


# Semantic segmentation ------------------------------------------------------------------------------------------------


def test_pixel_scores_by_hand() -> None:
    """Two pictures, four classes.  Class 2 is only predicted, class 3 nowhere, and one pixel is not judged."""
    counts = PixelCounts(4)
    counts.add(torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]]))
    counts.add(torch.tensor([[2, 1, 1, 3]], dtype=torch.uint8), torch.tensor([[0, 1, 1, 255]], dtype=torch.uint8))
    assert counts.matrix.tolist() == [[2, 0, 1, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = counts.scores()
    assert (found.n, found.truth.tolist()) == (2, [3, 4, 0, 0])
    np.testing.assert_allclose(found.iou, [2 / 4, 3 / 4, 0, np.nan])
    np.testing.assert_allclose(found.dice, [4 / 6, 6 / 7, 0, np.nan])
    np.testing.assert_allclose(found.accuracy, [2 / 3, 3 / 4, np.nan, np.nan])
    assert found.pixel_accuracy == pytest.approx(5 / 7)
    assert found.mean_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert found.mean_iou == pytest.approx((1 / 2 + 3 / 4 + 0) / 3)  # 0 for what is only predicted
    assert found.mean_dice == pytest.approx((4 / 6 + 6 / 7 + 0) / 3)
    assert found.frequency_weighted_iou == pytest.approx((3 * 0.5 + 4 * 0.75) / 7)  # the false alarm weighs nothing
    assert found.intervals == dict.fromkeys(MEANS)  # from two pictures


def test_one_matrix_is_not_the_mean_of_the_pictures() -> None:
    """A small picture that is all wrong beside a large one that is all right."""
    counts = PixelCounts(2)
    counts.add(torch.ones(1, 2, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64))
    counts.add(torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 3, dtype=torch.int64))
    found = counts.scores()
    assert found.iou.tolist() == [9 / 11, 0.0]
    assert found.mean_iou == pytest.approx(9 / 22)


def test_shifted_squares_have_the_iou_of_the_closed_form() -> None:
    n, k = 10, 3
    truth = torch.zeros(30, 30, dtype=torch.int64)
    truth[5 : 5 + n, 5 : 5 + n] = 1
    counts = PixelCounts(2)
    counts.add(truth.roll(k, 1), truth)
    assert counts.scores().iou[1] == pytest.approx((n - k) / (n + k))
    assert counts.scores().dice[1] == pytest.approx((n - k) / n)


def test_intervals_of_pixel_accuracy_are_those_of_a_mean_where_pictures_are_of_one_size() -> None:
    """Of pictures of one size pixel accuracy is the mean of the pictures', whose interval ``bootstrap`` draws."""
    counts, shares = PixelCounts(3), []
    for seed in range(40):
        prediction, truth = drawn(6, 6, high=3, seed=seed), drawn(6, 6, high=2, seed=seed + 100)
        counts.add(prediction, truth)
        shares.append(float((prediction == truth).float().mean()))
    found = counts.scores(seed=3)
    assert found.intervals["pixel_accuracy"] == pytest.approx(bootstrap(shares), abs=0.006)
    for name, interval in found.intervals.items():
        assert interval is not None
        assert interval[0] < getattr(found, name) < interval[1]
    assert counts.scores(seed=3).intervals == found.intervals
    assert counts.scores(seed=4).intervals != found.intervals


def test_a_class_that_a_draw_lacks_leaves_the_mean_of_that_draw() -> None:
    rows = np.array([[1.0, 0, 0]] * 6 + [[0, 1.0, 0]] * 2)
    seen = []

    def score(sums):
        seen.append(sums)
        return sums[:, :1] / np.where(sums[:, 1:2] > 0, sums[:, 1:2], np.nan)

    [interval] = interval_over_pictures(rows, score, shares=False)
    assert interval is not None
    assert interval[0] > 0  # a tenth of the draws would be 0 if they counted
    assert any((s[:, 1] == 0).any() for s in seen)  # some draws were without the rare pictures, and left out
    assert all((s.sum(1) == 8).all() for s in seen)


def test_intervals_of_shares_are_moved_to_where_the_draws_have_the_score() -> None:
    """The largest share is too high in the draws; the percentiles go down by as much, and end at 0 and 1."""
    rows = np.random.default_rng(0).integers(0, 2, (20, 6)).astype(float)

    def score(sums):
        return sums.max(1, keepdims=True) / 20

    drawn = []
    [plain] = interval_over_pictures(rows, lambda sums: [drawn.append(score(sums)), score(sums)][1], shares=False)
    [moved] = interval_over_pictures(rows, score)
    assert plain is not None
    bias = float(np.concatenate(drawn[:-1]).mean() - score(rows.sum(0)[None])[0, 0])
    assert bias > 0.02
    assert moved == pytest.approx([v - bias for v in plain])
    [none] = interval_over_pictures(rows, lambda sums: 0 * score(sums))
    [whole] = interval_over_pictures(rows, lambda sums: 2 * score(sums))
    assert (none, whole) == ((0.0, 0.0), (pytest.approx(whole[0]), 1.0))


def test_no_picture_has_no_score() -> None:
    found = PixelCounts(2).scores()
    assert found.n == 0
    assert np.isnan([found.mean_iou, found.pixel_accuracy]).all()


@pytest.mark.parametrize(
    ("prediction", "truth", "said"),
    [
        (torch.zeros(2, 2).long(), torch.zeros(2, 3).long(), "does not fit a truth"),
        (torch.zeros(2, 2), torch.zeros(2, 2).long(), "prediction is torch.float32"),
        (torch.zeros(2, 2).long(), torch.zeros(2, 2).bool(), "truth is torch.bool"),
        (torch.full((2, 2), 3), torch.zeros(2, 2).long(), "class 3 in the prediction"),
        (torch.zeros(2, 2).long(), torch.full((2, 2), -1), "class -1 in the truth: classes are 0 to 2"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(prediction: Tensor, truth: Tensor, said: str) -> None:
    with pytest.raises(Refused, match=said):
        confusion(prediction, truth, 3)


def test_as_many_classes_as_the_mark_leaves_room_for() -> None:
    with pytest.raises(Refused, match="256 classes"):
        PixelCounts(256)


# Boundaries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(20, 1), (20, 3), (5, 2), (4, 9)])
def test_the_boundary_of_a_square(n: int, d: int) -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[7 : 7 + n, 9 : 9 + n] = True
    assert boundary(mask, d).sum() == n * n - max(n - 2 * d, 0) ** 2


def test_the_boundary_is_the_mask_without_its_erosion() -> None:
    """The paper's code erodes d times by 3 x 3 after a padding by 1, so that the picture's edge counts."""
    rng = np.random.default_rng(0)
    for d in (1, 2, 4):
        mask = ndimage.binary_dilation(rng.random((60, 50)) > 0.97, iterations=5)
        eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=d)[1:-1, 1:-1]
        assert (boundary(mask, d) == (mask & ~eroded)).all()


def test_boundary_iou_is_that_of_the_masks_where_they_are_thin() -> None:
    one, other = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=bool)
    one[10:14, 10:60], other[11:15, 10:60] = True, True
    assert boundary_width(100, 100) == 3
    assert boundary_iou(one, other) == pytest.approx(3 / 5)
    assert np.isnan(boundary_iou(one & False, other & False))
    assert boundary_iou(one, other & False) == 0


def test_boundaries_of_classes_are_summed_over_the_pictures() -> None:
    truth = torch.from_numpy(np.kron(drawn(2, 5, 8, high=3, seed=1).numpy(), np.ones((1, 8, 8), dtype=np.int64)))
    prediction = truth.roll(2, 2)
    counts, both, every = BoundaryCounts(5), np.zeros(5), np.zeros(5)
    for p, t in zip(prediction, truth, strict=True):
        counts.add(p, t)
        for k in range(5):
            a, b = boundary((p == k).numpy(), 2), boundary((t == k).numpy(), 2)  # 2 % of 75.5
            both[k] += (a & b).sum()
            every[k] += (a | b).sum()
    found = counts.scores()
    assert found.n == 2
    np.testing.assert_allclose(found.iou[:3], both[:3] / every[:3])
    assert np.isnan(found.iou[3:]).all()
    assert found.mean_iou == pytest.approx((both[:3] / every[:3]).mean())


def test_what_is_not_judged_has_one_edge_in_both() -> None:
    truth = torch.zeros(30, 30, dtype=torch.int64)
    truth[10:20, 10:20] = 1
    right = truth.clone()
    truth[:, 15:] = 255
    counts = BoundaryCounts(2)
    counts.add(right, truth)
    assert counts.scores().iou.tolist() == [1.0, 1.0]
    with pytest.raises(Refused, match="share 0"):
        boundary_width(5, 5, 0)


# Panoptic quality -----------------------------------------------------------------------------------------------------


def test_panoptic_quality_by_hand() -> None:
    """A match of IoU 3/4, a match across void of IoU 1, a miss, a false alarm, one excused by void, one by a crowd."""
    truth = Segments(torch.tensor([[1, 1, 1, 1, 2, 2, 0, 3, 3, 0, 0, 0, 4, 4, 4, 4]]), {1: 0, 2: 1, 3: 1, 4: 1}, {4})
    said = torch.tensor([[9, 9, 9, 8, 5, 5, 5, 8, 8, 7, 7, 7, 6, 6, 6, 0]])
    prediction = Segments(said, {9: 0, 8: 0, 5: 1, 7: 1, 6: 1})
    counts = PanopticCounts(3)
    counts.add(prediction, truth)
    found = counts.scores()
    assert found.counts.tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(found.by_class[0], [0.75 / 1.5, 1 / 1.5, np.nan])
    np.testing.assert_allclose(found.by_class[1], [0.75, 1.0, np.nan])
    np.testing.assert_allclose(found.by_class[2], [1 / 1.5, 1 / 1.5, np.nan])
    np.testing.assert_allclose(found.by_class[0], found.by_class[1] * found.by_class[2])
    assert found.pq == pytest.approx((0.5 + 2 / 3) / 2)
    assert (found.n, found.intervals) == (1, dict.fromkeys(("pq", "sq", "rq")))


def test_half_is_no_match() -> None:
    """IoU has to be above 0.5; and a false alarm that is half in void counts."""
    counts = PanopticCounts(1)
    counts.add(Segments(torch.tensor([[1, 0]]), {1: 0}), Segments(torch.tensor([[1, 1]]), {1: 0}))
    assert counts.scores().counts[:, 0].tolist() == [0, 1, 1]
    counts = PanopticCounts(2)
    counts.add(Segments(torch.tensor([[1, 1]]), {1: 1}), Segments(torch.tensor([[1, 0]]), {1: 0}))
    assert counts.scores().counts.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert counts.scores().by_class[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_crowd_excuses_answers_of_its_class_alone() -> None:
    counts = PanopticCounts(2)
    truth = Segments(torch.tensor([[1, 1, 1, 1]]), {1: 0}, frozenset({1}))
    counts.add(Segments(torch.tensor([[1, 1, 2, 2]]), {1: 0, 2: 1}), truth)
    assert counts.scores().counts.tolist() == [[0, 0], [0, 1], [0, 0]]


def replica(prediction: Segments, truth: Segments, classes: int) -> np.ndarray:
    """The definition in section 4.2 of the paper, pair by pair on masks."""
    said, true = prediction.ids.numpy(), truth.ids.numpy()
    counts = np.zeros((4, classes))
    taken: set[int] = set()
    void = true == 0
    for t, k in truth.classes.items():
        if t in truth.crowd:
            continue
        a = true == t
        for p, c in prediction.classes.items():
            b = said == p
            iou = (a & b).sum() / (a | (b & ~void)).sum()
            if c == k and iou > 0.5:
                counts[0, k] += iou
                counts[1, k] += 1
                taken.add(p)
                break
        else:
            counts[3, k] += 1
    for p, c in prediction.classes.items():
        b = said == p
        crowd = np.isin(true, [t for t in truth.crowd if truth.classes[t] == c])
        if p not in taken and (b & (void | crowd)).sum() / b.sum() <= 0.5:
            counts[2, c] += 1
    return counts


def segments(seed: int, classes: int = 3, crowd: bool = False) -> Segments:
    """Segments of 4 x 4 pixels and more, some void, of random classes."""
    coarse = drawn(5, 6, high=12, seed=seed).numpy()
    ids = torch.from_numpy(np.kron(coarse, np.ones((4, 4), dtype=np.int64)))
    named = [i for i in ids.unique().tolist() if i]
    found = {i: (7 * i) % classes for i in named}
    return Segments(ids, found, frozenset(named[:2]) if crowd else frozenset())


def moved(truth: Segments, seed: int) -> Segments:
    """The same segments with some of the pixels of others."""
    other = drawn(*truth.ids.shape, high=14, seed=seed + 1000)
    ids = torch.where(drawn(*truth.ids.shape, high=5, seed=seed) == 0, other, truth.ids)
    return Segments(ids, {i: (7 * i) % 3 for i in ids.unique().tolist() if i})


def test_panoptic_quality_is_that_of_the_definition() -> None:
    counts, total = PanopticCounts(3), np.zeros((4, 3))
    for seed in range(12):
        truth = segments(seed, crowd=seed % 2 == 0)
        prediction = moved(truth, seed)
        counts.add(prediction, truth)
        total += replica(prediction, truth, 3)
    np.testing.assert_allclose(np.sum(counts.per_picture, 0), total)
    assert (total > 0).all()
    found = counts.scores()
    assert found.intervals["pq"] is not None
    assert found.intervals["pq"][0] < found.pq < found.intervals["pq"][1]


@pytest.mark.parametrize(
    ("prediction", "truth", "said"),
    [
        (Segments(torch.tensor([[1]]), {1: 0}), Segments(torch.tensor([[1, 1]]), {1: 0}), "not of one picture"),
        (Segments(torch.tensor([[1]]), {1: 0}, frozenset({1})), Segments(torch.tensor([[1]]), {1: 0}), "is a crowd"),
        (Segments(torch.tensor([[1]]), {}), Segments(torch.tensor([[1]]), {1: 0}), "1 of the prediction has no class"),
        (Segments(torch.tensor([[1]]), {1: 0}), Segments(torch.tensor([[1]]), {1: 0, 5: 0}), "5 of the truth has no p"),
        (Segments(torch.tensor([[1]]), {1: 2}), Segments(torch.tensor([[1]]), {1: 0}), "is of class 2: classes"),
        (Segments(torch.tensor([[1]]), {1: 0}), Segments(torch.tensor([[1]]), {1: 0}, frozenset({3})), "crowd 3"),
        (Segments(torch.tensor([[1.0]]), {1: 0}), Segments(torch.tensor([[1]]), {1: 0}), "are torch.float32"),
    ],
)  # fmt: skip
def test_segments_that_do_not_fit_are_refused(prediction: Segments, truth: Segments, said: str) -> None:
    with pytest.raises(Refused, match=said):
        PanopticCounts(2).add(prediction, truth)


# Landmarks ------------------------------------------------------------------------------------------------------------


def test_landmarks_by_hand() -> None:
    truth = torch.tensor([[[0.0, 0.0], [10.0, 0.0]], [[5.0, 5.0], [9.0, 9.0]]])
    predicted = truth + torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 2.0], [torch.nan, 0.0]]])
    errors = landmark_errors(predicted, truth, torch.tensor([10.0, 20.0]), torch.tensor([[True, True], [True, False]]))
    np.testing.assert_allclose(errors, [[0.5, 0.1], [0.1, np.nan]])
    found = landmark_scores(errors, share=0.1)
    assert (found.pck, found.n, found.pictures) == (pytest.approx(2 / 3), 3, 2)
    assert found.error == pytest.approx(0.7 / 3)
    np.testing.assert_allclose(found.pck_of, [0.5, 1.0])
    np.testing.assert_allclose(found.error_of, [0.3, 0.1])
    assert (found.pck_interval, found.error_interval) == (None, None)
    assert landmark_scores(errors, share=0.5).pck == 1
    many = landmark_scores(errors.repeat(10, 1), share=0.1)
    assert many.error_interval == bootstrap([0.3, 0.1] * 10)
    hidden = landmark_errors(predicted, truth, torch.ones(2), torch.zeros(2, 2, dtype=torch.bool))
    assert np.isnan([landmark_scores(hidden).pck, landmark_scores(hidden).error]).all()


def test_the_distribution_of_errors_is_that_of_the_noise() -> None:
    """Of a normal error of standard deviation s in x and y, PCK at r is 1 - exp(-r^2 / 2 s^2) (Rayleigh)."""
    noise = torch.randn(2000, 5, 2, generator=torch.Generator().manual_seed(0))
    errors = landmark_errors(3 * noise, torch.zeros_like(noise), torch.full((2000,), 10.0))
    found = landmark_scores(errors, share=0.4)
    wanted = 1 - np.exp(-(4**2) / (2 * 3**2))
    assert found.pck == pytest.approx(wanted, abs=0.01)
    assert found.pck_interval is not None
    assert found.pck_interval[0] < wanted < found.pck_interval[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"predicted": torch.zeros(1, 2, 3)}, r"give \(B, P, 2\)"),
        ({"length": torch.zeros(1)}, "a length of 0 pixels"),
        ({"length": torch.ones(2)}, "one for each of the 1 pictures"),
        ({"predicted": torch.full((1, 2, 2), torch.inf)}, "landmark 0 of picture 0"),
        ({"visible": torch.ones(1, 2)}, "give a bool"),
    ],
)
def test_landmarks_that_do_not_fit_are_refused(changes: dict[str, Tensor], said: str) -> None:
    good = {"predicted": torch.zeros(1, 2, 2), "truth": torch.zeros(1, 2, 2), "length": torch.ones(1)}
    with pytest.raises(Refused, match=said):
        landmark_errors(**{**good, **changes})
    with pytest.raises(Refused, match="share 0"):
        landmark_scores(torch.zeros(1, 1), share=0)


# Real annotations -----------------------------------------------------------------------------------------------------


def annotated(split: str) -> list[tuple[str, Segments, Tensor]]:
    """(name, panoptic segments, semantic classes) of some photos of COCO."""
    listed = json.loads((SHARED / f"panoptic_{split}2017.json").read_text())["annotations"]
    found = []
    for entry in listed:
        file = next(SHARED.glob(f"panoptic/**/{entry['file_name']}"), None)
        semantic = next(SHARED.glob(f"semantic/**/{entry['file_name']}"), None)
        if file and semantic and len(found) < 4:
            ids = torch.from_numpy(open_ids(file).astype(np.int64))
            info = entry["segments_info"]
            crowd = frozenset(s["id"] for s in info if s["iscrowd"])
            classes = torch.from_numpy(np.array(Image.open(semantic)))
            found.append((entry["file_name"], Segments(ids, {s["id"]: s["category_id"] for s in info}, crowd), classes))
            for s in info:
                assert int((ids == s["id"]).sum()) == s["area"]  # the ids are read as COCO means them
    return found


@real
def test_real_photos_judge_their_own_truth_and_the_same_shifted() -> None:
    photos = annotated("train")
    assert len(photos) == 4
    right, shifted, pixels, edges = PanopticCounts(201), PanopticCounts(201), PixelCounts(201), BoundaryCounts(201)
    total = np.zeros((4, 201))
    for _, truth, classes in photos:
        own = Segments(truth.ids, truth.classes)
        right.add(own, truth)
        ids = truth.ids.roll(12, 1)
        moved_by_12 = Segments(ids, truth.classes)
        shifted.add(moved_by_12, truth)
        total += replica(moved_by_12, truth, 201)
        judged = torch.where(classes == 0, 255, classes)  # 0 is what nobody labelled
        pixels.add(classes.roll(12, 1), judged)
        edges.add(classes.roll(12, 1), judged)
    assert (right.scores().pq, right.scores().rq) == (1.0, 1.0)
    np.testing.assert_allclose(np.sum(shifted.per_picture, 0), total)
    found = pixels.scores()
    assert 0 < edges.scores().mean_iou < found.mean_iou < found.pixel_accuracy < 1
