"""Boxes around class maps: by hand, by closed forms and by slow replicas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from clearsight.core.classifier import Classifier, Preprocess
from clearsight.core.map_boxes import box_overlap, boxes_of, overlap
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.evaluation.class_map_boxes import box_overlaps, map_box, max_box_accuracy
from clearsight.runner.run import explain, measure
from clearsight.testing import linear


@pytest.fixture(scope="module")
def blank() -> Classifier:
    """Says class 1 of every picture (1, 8, 12)."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(96, 2))
    net[1].weight.data.zero_()
    net[1].bias.data = torch.tensor([0.0, 1.0])
    return Classifier(net, Preprocess((8, 12), (0.0,), (1.0,)), ("a", "b"), "blank")


def spotted(*spots: tuple[int, int, int, int, float]) -> Tensor:
    """A map (1, 8, 12) of rectangles x1, y1, x2, y2 of one height each."""
    maps = torch.zeros(1, 8, 12)
    for x1, y1, x2, y2, height in spots:
        maps[0, y1:y2, x1:x2] = height
    return maps


def inside(*boxes: tuple[int, int, int, int]) -> Tensor:
    return spotted(*((*b, 1.0) for b in boxes)) > 0


@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 3), (3, 0), (2, 2)])
def test_shifted_squares_have_the_iou_of_the_closed_form(n: int, k: int) -> None:
    one = np.array([[[0.0, 0.0], [n, n]]])
    assert overlap(one, one + np.array([0, k])).item() == pytest.approx((n - k) / (n + k))


def test_boxes_without_volume_overlap_nothing() -> None:
    empty, square = np.zeros((1, 2, 2)), np.array([[[0.0, 0.0], [2.0, 2.0]]])
    assert overlap(empty, np.concatenate([empty, square])).tolist() == [[0.0, 0.0]]
    assert overlap(square[:, ::-1], square).tolist() == [[0.0]]  # turned inside out
    assert overlap(square[:0], square).shape == (0, 1)


def test_the_largest_part_has_the_box_and_corners_touch() -> None:
    maps = spotted((0, 0, 3, 3, 1.0), (3, 3, 4, 4, 1.0), (8, 0, 12, 2, 5.0))
    assert map_box(maps, 0.1).tolist() == [[0, 0, 4, 4]]  # 10 places, one of them at a corner, against 8
    assert map_box(maps, 0.2).tolist() == [[0, 0, 4, 4]]  # 1 is a fifth of the highest value, itself included
    assert map_box(maps, 0.21).tolist() == [[8, 0, 12, 2]]
    assert map_box(-maps).isnan().all()
    assert boxes_of(np.zeros((3, 3), dtype=bool)).shape == (0, 2, 2)
    clip = np.zeros((3, 3, 3), dtype=bool)
    clip[0, 0, 0] = clip[1, 1, 1] = True
    assert boxes_of(clip).tolist() == [[[0, 0, 0], [2, 2, 2]]]


def test_localisation_metrics_by_hand(blank) -> None:
    maps = torch.cat([spotted((0, 0, 4, 4, 2.0)), spotted((0, 0, 4, 4, 2.0), (6, 0, 12, 8, 0.3)), spotted()])
    regions = torch.cat([inside((0, 0, 4, 8), (10, 6, 12, 8)), inside((0, 0, 4, 3)), inside((0, 0, 4, 4))])
    x, target = torch.zeros(3, 1, 8, 12), ClassScore(torch.tensor([1, 1, 0]))
    measured = [measure(blank, x, maps, f"box-iou(threshold={t})", target, regions=regions) for t in (0.2, 0.1)]
    torch.testing.assert_close(measured[0], torch.tensor([16 / 32, 12 / 16, 0]))  # the box that fits best counts
    torch.testing.assert_close(measured[1], torch.tensor([16 / 32, 0, 0]))  # the darker part is larger
    assert measure(blank, x, maps, "gt-known-localisation", target, regions=regions).tolist() == [1, 1, 0]
    strict = measure(blank, x, maps, "gt-known-localisation(overlap=0.7)", target, regions=regions)
    assert strict.tolist() == [0, 1, 0]
    whole = torch.ones(3, 8, 12)
    everywhere = torch.ones(3, 8, 12, dtype=torch.bool)
    assert measure(blank, x, whole, "gt-known-localisation", target, regions=everywhere).tolist() == [1, 1, 1]
    assert measure(blank, x, whole, "top-1-localisation", target, regions=everywhere).tolist() == [1, 1, 0]
    assert measure(blank, x, maps, "top-1-localisation(threshold=0.1)", target, regions=regions).tolist() == [1, 0, 0]
    with pytest.raises(Refused, match="true classes"):
        measure(blank, x, maps, "top-1-localisation", Margin(0), regions=regions)
    with pytest.raises(Refused, match="threshold, a share"):
        measure(blank, x, maps, "box-iou(threshold=1)", target, regions=regions)


@pytest.mark.parametrize("name", ["box-iou", "gt-known-localisation", "top-1-localisation"])
def test_without_a_region_nothing_can_be_told(blank, name) -> None:
    maps, x = spotted((0, 0, 4, 4, 2.0)), torch.zeros(1, 1, 8, 12)
    assert measure(blank, x, maps, name, ClassScore(1), regions=maps < 0).isnan().all()


def test_sequences_have_boxes_too() -> None:
    maps, regions = torch.tensor([[0.0, 3.0, 3.0, 0.0, 5.0]]), torch.tensor([[False, True, True, True, False]])
    assert box_overlap(maps, regions, 0.5).item() == pytest.approx(2 / 3)
    assert measure(linear([[0.0] * 5] * 2), torch.zeros(1, 1, 1, 5), maps[:, None], "box-iou", regions=regions[:, None])


def flood(map_: np.ndarray, threshold: float) -> list[tuple[int, int, int, int]]:
    """Boxes of the bright parts of a map, found place by place from the definition, the largest part first."""
    left = {(y, x) for y, x in np.argwhere((map_ >= threshold * map_.max()) & (map_ > 0)).tolist()}
    parts = []
    for start in sorted(left):
        part, edge = [], [start] if start in left else []
        left -= {start}
        while edge:
            y, x = edge.pop()
            part.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        if part:
            parts.append(part)
    boxes = []
    for part in sorted(parts, key=len, reverse=True):
        ys, xs = zip(*part, strict=True)
        boxes.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return boxes


def fit(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize("parts", ["largest", "all"])
@pytest.mark.parametrize("scale", ["top", "range"])
def test_max_box_accuracy_is_that_of_the_definition(parts, scale) -> None:
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.normal(size=(9, 10, 14)).astype(np.float32))
    truth = [[(1, 1, 8, 9)], [(0, 0, 14, 10), (3, 2, 6, 6)], [(5, 5, 9, 9)]] * 3
    thresholds = (0.1, 0.3, 0.5, 0.7, 0.9)
    boxes = [torch.tensor(b, dtype=torch.float32) for b in truth]
    found = box_overlaps(maps, boxes, thresholds, parts=parts, scale=scale)
    wanted = np.zeros((9, 5))
    for i, map_ in enumerate(maps.numpy()):
        for j, t in enumerate(thresholds):
            own = flood(map_ - map_.min() if scale == "range" else map_, t)
            wanted[i, j] = max(fit(a, b) for a in (own if parts == "all" else own[:1]) for b in truth[i])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    best = max_box_accuracy(found, thresholds)
    shares = [[np.mean(wanted[:, j] >= delta) for j in range(5)] for delta in (0.3, 0.5, 0.7)]
    assert best.accuracy == pytest.approx([max(s) for s in shares])
    assert best.threshold == tuple(thresholds[int(np.argmax(s))] for s in shares)
    assert best.mean == pytest.approx(np.mean(best.accuracy))
    assert best.n == 9
    assert best.mean_interval is not None
    assert best.mean_interval[0] <= best.mean <= best.mean_interval[1]
    assert max_box_accuracy(found[:6], thresholds).intervals == (None,) * 3


def test_the_threshold_is_one_for_all_pictures() -> None:
    """Each picture has a threshold under which its box fits, but no threshold suits both."""
    best = max_box_accuracy(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), (0.1, 0.5), at=(0.5,))
    assert (best.accuracy, best.threshold) == ((0.5,), (0.1,))


def test_the_control_centre_has_centred_boxes_of_all_sizes(blank) -> None:
    """The baseline that MaxBoxAcc gives the box that suits the set best, as it does with the methods' boxes."""
    maps = explain(blank, torch.zeros(1, 1, 8, 12), "centre", ClassScore(0)).maps
    boxes = torch.cat([map_box(maps, k / 20) for k in range(20)])
    assert boxes[0].tolist() == [0, 0, 12, 8]
    assert (boxes[:, :2] + boxes[:, 2:] == torch.tensor([12.0, 8.0])).all()
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides[1:] <= sides[:-1]).all()
    assert sides[-1].tolist() == [2, 2]


def test_maps_and_boxes_that_do_not_fit_are_refused() -> None:
    maps = torch.rand(2, 5, 5)
    with pytest.raises(Refused, match="made of maps"):
        map_box(maps[0])
    with pytest.raises(Refused, match="at least one"):
        box_overlaps(maps, [torch.zeros(1, 4), torch.zeros(0, 4)])
    with pytest.raises(Refused, match=r"give \(B, 2\)"):
        max_box_accuracy(torch.rand(2, 3), (0.1, 0.2))
