"""The geometry of boxes: figures worked out by hand, empty boxes, and torchvision where it is defined."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision import ops

from clearsight.core import boxes
from clearsight.errors import NotFinite, Refused

SQUARE = torch.tensor([0.0, 0.0, 10.0, 10.0])
POINT = torch.tensor([5.0, 5.0, 5.0, 5.0])
TURNED = torch.tensor([10.0, 10.0, 0.0, 0.0])


def random_boxes(n: int, g: torch.Generator, side: int = 20) -> torch.Tensor:
    """Boxes on whole pixels, so that equal boxes and round IoUs are frequent; some are empty."""
    corner = torch.randint(0, side, (n, 2), generator=g)
    return torch.cat([corner, corner + torch.randint(0, side, (n, 2), generator=g)], dim=1).float()


@pytest.mark.parametrize(
    ("b", "iou", "giou"),
    [
        ((0, 0, 10, 10), 1.0, 1.0),
        ((0, 0, 10, 5), 0.5, 0.5),
        ((5, 5, 15, 15), 25 / 175, 25 / 175 - 50 / 225),
        ((20, 0, 30, 10), 0.0, -1 / 3),
        ((10, 0, 20, 10), 0.0, 0.0),  # they touch
        ((2, 2, 4, 4), 0.04, 0.04),
        ((5, 5, 5, 5), 0.0, 0.0),  # nothing, inside
        ((20, 20, 20, 20), 0.0, 100 / 400 - 1),  # nothing, outside
    ],
)
def test_overlap_by_hand(b, iou, giou):
    other = torch.tensor(b, dtype=torch.float32)
    assert boxes.iou(SQUARE, other).item() == pytest.approx(iou)
    assert boxes.iou(other, SQUARE).item() == pytest.approx(iou)
    assert boxes.giou(SQUARE, other).item() == pytest.approx(giou)
    assert boxes.giou(other, SQUARE).item() == pytest.approx(giou)


@pytest.mark.parametrize(("n", "k"), [(10, 1), (10, 4), (7, 7)])
def test_shifted_squares_overlap_by_the_closed_form(n, k):
    shifted = torch.tensor([float(k), 0.0, n + k, n])
    assert boxes.iou(torch.tensor([0.0, 0.0, n, n]), shifted).item() == pytest.approx((n - k) / (n + k))


def test_an_empty_box_overlaps_nothing_and_nothing_is_no_number():
    empty = torch.stack([POINT, TURNED, torch.tensor([0.0, 0.0, 10.0, 0.0])])
    every = torch.cat([empty, SQUARE[None]])
    assert boxes.area(every).tolist() == [0, 0, 0, 100]
    assert boxes.iou_table(every, every).sum() == 1
    assert boxes.intersection_over_detection(every[:, None], every).sum() == 1
    table = boxes.giou(every[:, None], every)
    assert table.isfinite().all()
    assert table.diagonal().tolist() == [0, 0, 0, 1]
    assert (table >= -1).all()
    assert boxes.giou(POINT, POINT + 7).item() == -1


def test_gradients_of_empty_boxes_are_numbers():
    box = torch.stack([POINT, TURNED, SQUARE]).requires_grad_()
    (boxes.giou(box, SQUARE + 1).sum() + boxes.iou(box, POINT).sum()).backward()
    assert box.grad.isfinite().all()
    assert (box.grad[2] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_overlap_is_torchvisions_where_boxes_are_not_empty(dtype):
    g = torch.Generator().manual_seed(0)
    a, b = random_boxes(40, g), random_boxes(30, g)
    a, b = a[boxes.area(a) > 0].to(dtype), b[boxes.area(b) > 0].to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    torch.testing.assert_close(boxes.iou_table(a, b), ops.box_iou(a.to(wide), b.to(wide)))
    wanted = ops.generalized_box_iou(a.to(wide), b.to(wide))
    torch.testing.assert_close(boxes.giou(a[:, None], b), wanted)


def test_large_boxes_of_half_precision_have_an_area():
    assert boxes.area(torch.tensor([0, 0, 400, 400], dtype=torch.float16)).item() == 160000


@pytest.mark.parametrize("given", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("wanted", ["xyxy", "xywh", "cxcywh"])
def test_formats_are_torchvisions(given, wanted):
    box = ops.box_convert(torch.tensor([[2.0, 4.0, 6.0, 10.0]]), "xyxy", given)
    assert boxes.convert(box, given, wanted).equal(ops.box_convert(box, given, wanted))


def test_an_unknown_format_is_refused():
    with pytest.raises(Refused, match="xyxy, xywh or cxcywh"):
        boxes.convert(SQUARE, "yxyx", "xyxy")


def test_boxes_are_clipped_as_torchvision_does():
    box = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 30
    assert boxes.clip(box, height=20, width=30).equal(ops.clip_boxes_to_image(box, (20, 30)))


def test_suppression_by_hand():
    """IoU 2/3 with the first, then 1/2 exactly, which stays, then apart."""
    box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 15], [0, 0, 10, 5], [20, 0, 30, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert boxes.suppress(box, scores, 0.5).tolist() == [3, 0, 2]
    assert boxes.suppress(box, scores, 0.5, torch.tensor([0, 1, 0, 0])).tolist() == [3, 0, 1, 2]
    assert boxes.suppress(box, torch.ones(4), 0.6).tolist() == [0, 2, 3]  # of equal scores the first
    assert boxes.suppress(torch.stack([POINT, POINT]), torch.ones(2), 0.5).tolist() == [0, 1]
    assert boxes.suppress(torch.empty(0, 4), torch.empty(0), 0.5).tolist() == []


def naive(box: torch.Tensor, scores: torch.Tensor, threshold: float, labels: torch.Tensor) -> list[int]:
    """Suppression as it is told: take the best, remove what overlaps it too much, begin again."""
    left = scores.argsort(descending=True, stable=True).tolist()
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if labels[i] != labels[best] or not boxes.iou(box[best], box[i]) > threshold]
    return kept


def test_suppression_is_torchvisions_in_a_thousand_cases():
    """With ties of scores, IoUs of exactly the threshold, equal and empty boxes."""
    g = torch.Generator().manual_seed(0)
    at_threshold = 0
    for k in range(1000):
        n = int(torch.randint(0, 40, (1,), generator=g))
        box, scores = random_boxes(n, g), torch.randint(0, 8, (n,), generator=g) / 8
        labels = torch.randint(0, 3, (n,), generator=g)
        threshold = (0.0, 0.25, 0.5, 1.0, 0.3)[k % 5]
        at_threshold += int((boxes.iou_table(box, box).triu(1) == threshold).sum())
        assert boxes.suppress(box, scores, threshold).equal(ops.nms(box, scores, threshold))
        kept = boxes.suppress(box, scores, threshold, labels)
        assert sorted(kept.tolist()) == sorted(ops.batched_nms(box, scores, labels, threshold).tolist())
        if k < 30:
            assert kept.tolist() == naive(box, scores, threshold, labels)
    assert at_threshold > 1000


def test_classes_do_not_suppress_each_other_beyond_the_picture():
    """Where torchvision moves classes apart by the largest coordinate, these two would lie on each other."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-11.0, -11.0, -1.0, -1.0]])
    assert boxes.suppress(box, torch.tensor([0.9, 0.8]), 0.5, torch.tensor([0, 1])).tolist() == [0, 1]


def soft_by_hand(box, scores, factor, floor):
    """Soft-NMS with a list of what is left, one pair at a time."""
    left = dict(enumerate(scores.tolist()))
    told = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score < floor:
            break
        told.append((best, score))
        left = {i: s * factor(boxes.iou(box[best], box[i]).item()) for i, s in left.items()}
    return told


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_soft_suppression_is_the_papers(decay):
    g = torch.Generator().manual_seed(1)
    factor = {"linear": lambda v: 1 - v if v >= 0.3 else 1.0, "gaussian": lambda v: math.exp(-(v**2) / 0.4)}[decay]
    for _ in range(5):
        box, scores = random_boxes(12, g).double(), torch.rand(12, generator=g).double()
        order, left = boxes.soft_suppress(box, scores, decay=decay, threshold=0.3, sigma=0.4, floor=0.05)
        wanted = soft_by_hand(box, scores, factor, 0.05)
        assert order.tolist() == [i for i, _ in wanted]
        assert left.tolist() == pytest.approx([s for _, s in wanted])


def test_soft_suppression_keeps_classes_apart():
    box = torch.stack([SQUARE, SQUARE, SQUARE])
    order, left = boxes.soft_suppress(box, torch.tensor([0.9, 0.8, 0.8]), labels=torch.tensor([0, 1, 0]))
    assert order.tolist() == [0, 1, 2]
    assert left.tolist() == pytest.approx([0.9, 0.8, 0.8 * math.exp(-2)])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"boxes": torch.zeros(2, 5)}, r"boxes \(2, 5\)"),
        ({"scores": torch.zeros(3)}, r"scores \(3,\)"),
        ({"labels": torch.zeros(3)}, r"labels \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given, words):
    fitting = {"boxes": torch.zeros(2, 4), "scores": torch.zeros(2), "labels": torch.zeros(2)} | given
    with pytest.raises(Refused, match=words):
        boxes.suppress(fitting["boxes"], fitting["scores"], 0.5, fitting["labels"])


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(NotFinite, match="no numbers"):
        boxes.suppress(torch.zeros(1, 4), torch.tensor([torch.nan]), 0.5)
    with pytest.raises(Refused, match="sigma 0"):
        boxes.soft_suppress(torch.zeros(1, 4), torch.ones(1), sigma=0)
    with pytest.raises(Refused, match="no decay 'cubic'"):
        boxes.soft_suppress(torch.zeros(1, 4), torch.ones(1), decay="cubic")
