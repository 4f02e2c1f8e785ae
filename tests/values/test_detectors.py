"""Values of the detectors: assignment and losses by hand, torchvision's own outputs, and pictures learnt by heart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, box_iou

from clearsight.core.catalogue import catalogue, parse
from clearsight.detectors.common.candidates import clip, of_root, of_softmax
from clearsight.detectors.common.losses import centerness, focal, giou
from clearsight.detectors.common.points import NOBODY, assign, distances, points
from clearsight.detectors.yolo_v1 import cells_of
from clearsight.errors import Refused
from detectornets import as_if_trained

RANGE = ((0.0, 64.0), (64.0, math.inf))


def built(spelling: str, classes: int, shape: tuple[int, ...], seed: int = 0) -> Any:
    call = parse(spelling, "detectors")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return call.method(classes, shape, **call.options).eval()


def detections(found: Tensor, floor: float, iou: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of one picture's candidates: above a floor, one per object and class, the best first."""
    scores = found[:, 4:5].sigmoid() * found[:, 5:].sigmoid()
    row, label = (scores > floor).nonzero(as_tuple=True)
    kept = batched_nms(found[row, :4], scores[row, label], label, iou)[:most]
    return found[row, :4][kept], scores[row, label][kept], label[kept]


# assignment, by hand


def two_levels() -> tuple[Tensor, Tensor, Tensor]:
    """The places, strides and reaches of maps at strides 8 and 16 of a picture of 160 x 160."""
    places = torch.cat([points(20, 20, 8, torch.zeros(())), points(10, 10, 16, torch.zeros(()))])
    strides = torch.cat([torch.full((400,), 8.0), torch.full((100,), 16.0)])
    reach = torch.cat([torch.tensor(RANGE[:1]).expand(400, 2), torch.tensor(RANGE[1:]).expand(100, 2)])
    return places, strides, reach


def learnt(*boxes: list[float]) -> dict[tuple[float, ...], int]:
    """The places that learn an object: (x, y, stride) -> its number."""
    places, strides, reach = two_levels()
    found = assign(places, strides, reach, torch.tensor(boxes, dtype=torch.float32).view(-1, 4))
    return {
        (*place, stride): n
        for place, stride, n in zip(places.tolist(), strides.tolist(), found.tolist(), strict=True)
        if n != NOBODY
    }


def test_assign_takes_places_within_the_radius_and_inside_the_box():
    """A box around (20, 20): of places at 4, 12, 20, 28, 36 three lie less than 12 pixels away in each direction."""
    assert learnt([4, 4, 36, 36]) == {(x, y, 8): 0 for x in (12, 20, 28) for y in (12, 20, 28)}
    # as wide, but 10 pixels high: places at 12 and 28 are above and below it
    assert learnt([4, 15, 36, 25]) == {(x, 20, 8): 0 for x in (12, 20, 28)}
    # a place on the very side is outside
    assert learnt([12, 4, 28, 36]) == {(20, y, 8): 0 for y in (12, 20, 28)}
    assert not learnt()


def test_assign_lets_the_smallest_box_win():
    inner, outer = [16, 16, 24, 24], [4, 4, 36, 36]
    for order in ([inner, outer], [outer, inner]):
        found = learnt(*order)
        assert order[found[20, 20, 8]] == inner
        assert all(order[n] == outer for place, n in found.items() if place != (20, 20, 8))
    assert learnt([12, 12, 28, 28], [12, 12, 28, 28]) == {(20, 20, 8): 0}
    # by a hundredth of a pixel, which single precision tells apart only where nothing large is added
    assert learnt([12, 12, 28, 28], [12, 12, 27.99, 28]) == {(20, 20, 8): 1}


def test_assign_sends_large_objects_to_the_coarse_level():
    """124 pixels around (84, 84): 62 from the place in the middle, which is near enough at stride 8; else stride 16."""
    small = learnt([22, 22, 146, 146])
    assert {s for *_, s in small} == {8.0, 16.0}
    assert all(max(abs(x - 84), abs(y - 84)) + 62 <= 64 for x, y, s in small if s == 8)
    assert all(max(abs(x - 84), abs(y - 84)) + 62 > 64 for x, y, s in small if s == 16)
    assert {s for *_, s in learnt([10, 10, 150, 150])} == {16.0}
    assert {s for *_, s in learnt([40, 40, 100, 100])} == {8.0}


def test_assign_agrees_with_torchvision_on_random_boxes():
    """Its FCOS on the same two levels: its lowest distance is 4 anchors, its highest 8, and open at both ends."""
    net = FCOS(_Maps(), 3, anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,), (1.0,))))
    seen: list[Tensor] = []
    net.head.compute_loss = lambda *words: seen.extend(words[3])  # type: ignore[method-assign]
    places, strides, reach = two_levels()
    anchors = torch.cat([places - strides[:, None] / 2, places + strides[:, None] / 2], 1)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner, size = (torch.rand(12, 2, generator=random) * s for s in (120, 100))
        boxes = torch.cat([corner, corner + 5 + size], 1)
        net.compute_loss([{"boxes": boxes}], {}, [anchors], [400, 100])
        found = assign(places, strides, reach, boxes)
        # torchvision subtracts areas from 1e8 in single precision, which rounds them to multiples of 8
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        assert torch.equal(found == NOBODY, seen[-1] == NOBODY)
        assert bool((areas[found] - areas[seen[-1]]).abs().max() <= 8)
        assert int((found != NOBODY).sum()) > 40


class _Maps(torch.nn.Module):
    out_channels = 32


def test_distances_and_points():
    assert points(2, 2, 16, torch.zeros(())).tolist() == [[8, 8], [24, 8], [8, 24], [24, 24]]
    assert distances(torch.tensor([[1.0, 9.0]]), torch.tensor([[0.0, 2.0, 6.0, 8.0]])).tolist() == [[1, 7, 5, -1]]


# losses, by hand


def test_focal_loss_is_that_of_the_paper():
    """-a (1 - p)^2 log p, by numbers: p = 0.8 of a class that is there, and of one that is not."""
    logit = math.log(0.8 / 0.2)
    there, not_there = 0.25 * 0.2**2 * -math.log(0.8), 0.75 * 0.8**2 * -math.log(0.2)
    z = torch.tensor([logit, logit], dtype=torch.float64)
    assert focal(z[:1], torch.ones(1).double()).item() == pytest.approx(there, rel=1e-9)
    assert focal(z[:1], torch.zeros(1).double()).item() == pytest.approx(not_there, rel=1e-9)
    assert focal(z, torch.tensor([1.0, 0.0]).double()).item() == pytest.approx(there + not_there, rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b", "loss"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 0.0),
        ([0, 0, 10, 10], [10, 0, 20, 10], 1.0),  # they touch: IoU 0, nothing empty around them
        ([0, 0, 10, 10], [20, 0, 30, 10], 4 / 3),  # 10 of 30 columns are empty
        ([0, 0, 10, 10], [5, 5, 15, 15], 1 - 25 / 175 + 50 / 225),
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5),
    ],
)
def test_giou_loss_of_boxes_drawn_by_hand(a, b, loss):
    assert giou(torch.tensor([a]).double(), torch.tensor([b]).double()).item() == pytest.approx(loss, abs=1e-6)


def test_centerness_is_one_in_the_middle_and_none_at_a_side():
    sides = torch.tensor([[5.0, 3.0, 5.0, 3.0], [0.0, 3.0, 10.0, 3.0], [1.0, 1.0, 4.0, 9.0]])
    assert centerness(sides).tolist() == pytest.approx([1.0, 0.0, 1 / 6])


def test_losses_of_fcos_are_sums_over_its_places():
    """A slow replica: every place by itself, in plain Python."""
    net = built("fcos(backbone=tiny, width=16)", 2, (3, 96, 160)).double()
    torch.nn.init.normal_(net.outputs.weight, std=0.3, generator=torch.Generator().manual_seed(3))
    net.scales.data.fill_(0.1)  # boxes small enough to lie in the picture, where candidates are not cut
    z = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(4)).double()
    boxes = [torch.tensor([[2.0, 3, 150, 90], [10, 10, 40, 50], [30, 8, 52, 60]]), torch.tensor([[60.0, 20, 90, 70]])]
    labels = [torch.tensor([1, 0, 1]), torch.tensor([0])]
    with torch.no_grad():
        found, losses = net(z), net.loss(z, boxes, labels)
    height, width = (12, 20), (6, 10)
    places = torch.cat([points(*height, 8, z), points(*width, 16, z)]).tolist()
    strides = [8] * 240 + [16] * 60
    classes, around, weight, central, count = 0.0, 0.0, 0.0, 0.0, 0
    for b in range(2):
        for n, ((x, y), s) in enumerate(zip(places, strides, strict=True)):
            choices = []
            for k, (x1, y1, x2, y2) in enumerate(boxes[b].tolist()):
                sides = (x - x1, y - y1, x2 - x, y2 - y)
                near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * s
                if near and min(sides) > 0 and (max(sides) <= 64 if s == 8 else max(sides) > 64):
                    choices.append(((x2 - x1) * (y2 - y1), k, sides))
            mine = min(choices) if choices else None
            for c in range(2):
                p = 1 / (1 + math.exp(-float(found[b, n, 5 + c])))
                hit = mine is not None and int(labels[b][mine[1]]) == c
                classes -= 0.25 * (1 - p) ** 2 * math.log(p) if hit else 0.75 * p**2 * math.log(1 - p)
            if mine is None:
                continue
            left, top, right, bottom = mine[2]
            share = min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            p = 1 / (1 + math.exp(-float(found[b, n, 4])))
            central -= math.sqrt(share) * math.log(p) + (1 - math.sqrt(share)) * math.log(1 - p)
            weight += math.sqrt(share)
            around += math.sqrt(share) * _one_minus_giou(found[b, n, :4].tolist(), boxes[b][mine[1]].tolist())
            count += 1
    assert count > 20
    assert losses["classes"].item() == pytest.approx(classes / count, rel=1e-6)
    assert losses["centerness"].item() == pytest.approx(central / count, rel=1e-6)
    assert losses["boxes"].item() == pytest.approx(around / weight, rel=1e-6)


def _one_minus_giou(a: list[float], b: list[float]) -> float:
    both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    one, other = ((m[2] - m[0]) * (m[3] - m[1]) for m in (a, b))
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = one + other - both
    return 1 - both / union + (hull - union) / hull


def test_distances_of_fcos_are_positive_and_grow_with_the_stride():
    net = built("fcos(backbone=tiny, width=16)", 1, (3, 128, 128))
    torch.nn.init.zeros_(net.outputs.weight)
    net.outputs.bias.data[:4] = torch.tensor([1.0, 2, 3, 4]).log()
    with torch.no_grad():
        found = net(torch.rand(1, 3, 128, 128))[0]
    places, places16 = points(16, 16, 8, found), points(8, 8, 16, found)
    assert torch.allclose(found[136, :4], torch.cat([places[136], places[136]]) + 8 * torch.tensor([-1.0, -2, 3, 4]))
    beside = torch.cat([places16[27], places16[27]]) + 16 * torch.tensor([-1.0, -2, 3, 4])
    assert torch.allclose(found[256 + 27, :4], clip(beside, 128, 128))
    assert torch.allclose(found[:, 5].sigmoid(), torch.tensor(0.01))


def test_maps_of_fcos_are_added_from_coarse_to_fine():
    """Without convolutions between the sums and the outputs, which is a slow replica's whole work."""
    net = built("fcos(backbone=tiny, width=16, convs=0)", 2, (3, 64, 96))
    z = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        found = net(z)[0, :, 4:]
        fine, middle, coarse = (lateral(m) for lateral, m in zip(net.lateral, net.backbone(z), strict=True))
        middle = middle + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        fine = fine + middle.repeat_interleave(2, 2).repeat_interleave(2, 3)
        wanted = torch.cat([net.outputs(m)[0, 4:].flatten(1).T for m in (fine, middle)])
    assert torch.allclose(found, wanted, atol=1e-6)


def test_fcos_has_the_size_that_was_planned():
    with torch.device("meta"):
        net = catalogue("detectors")["fcos"](3)
        sizes = [sum(p.numel() for p in part.parameters()) for part in (net.backbone, net)]
        assert net(torch.rand(1, 3, 224, 224)).shape == (1, 28 * 28 + 14 * 14, 8)
    assert sizes == [2958848, 3067850]


@pytest.mark.parametrize(
    ("options", "told"),
    [({"width": 24}, "multiple of 16"), ({"width": 0}, "at least 16"), ({"convs": -1}, "convs=-1")],
)
def test_fcos_refuses_options_outside_their_ranges(options: dict[str, int], told: str):
    with pytest.raises(Refused, match=told):
        catalogue("detectors")["fcos"](2, (3, 64, 64), backbone="tiny", **options)


@pytest.mark.parametrize("options", [{"grid": 0}, {"boxes": 0}, {"dense": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_yolo_v1_refuses_options_outside_their_ranges(options: dict[str, float]):
    with pytest.raises(Refused, match=rf"yolo-v1\({next(iter(options))}="):
        catalogue("detectors")["yolo-v1"](2, (3, 64, 64), backbone="tiny", **options)


# YOLO


def test_yolo_v1_of_the_paper_gives_7_x_7_x_30_numbers_and_98_boxes():
    with torch.device("meta"):
        net = catalogue("detectors")["yolo-v1"]()
        z = torch.rand(2, 3, 448, 448)
        assert net.read(z).shape == (2, 7, 7, 30)
        assert net(z).shape == (2, 98, 25)
        assert net.features(z).shape == (2, 1024, 7, 7)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 24
    dense = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(50176, 4096), (4096, 1470)]


def test_yolo_v1_cells_belong_to_the_centre_and_to_the_largest():
    """On a grid of 7: the dog's and the bicycle's cells, and two centres in one cell."""
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.9], [0.05, 0.2, 0.4, 0.8], [0.9, 0.95, 1.0, 1.0], [0.4, 0.0, 0.8, 0.1]])
    cells, objects = cells_of(boxes, 7)  # the centres (.2, .5) and (.225, .5) both lie in row 3, column 1
    assert list(zip(cells.tolist(), objects.tolist(), strict=True)) == [(4, 3), (22, 1), (48, 2)]
    assert [len(part) for part in cells_of(torch.zeros(0, 4), 7)] == [0, 0]


def test_candidates_of_yolo_v1_are_its_boxes():
    """Cell (1, 2) of a grid of 4: centre (2.5 / 4, 1.25 / 4), sides 0.5 squared and 1 squared of the picture's."""
    net = built("yolo-v1(backbone=tiny, grid=4, boxes=3, dense=8)", 2, (3, 64, 128))
    raw = torch.zeros(1, 4, 4, 17)
    raw[0, 1, 2, 5:10] = torch.tensor([0.5, 0.25, 0.5, -0.2, 3.0])
    raw[0, 1, 2, 15:] = torch.tensor([-1.0, 2.0])
    net.read = lambda z: raw
    found = net(torch.zeros(1, 3, 64, 128))[0]
    assert found.shape == (48, 7)
    row = found[(1 * 4 + 2) * 3 + 1].tolist()
    middle, half = (2.5 / 4 * 128, 1.25 / 4 * 64), (0.25 * 128 / 2, 0.04 * 64 / 2)
    corners = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
    assert row == pytest.approx([*corners, 3.0, -1.0, 2.0])
    assert found[(1 * 4 + 2) * 3 + 2, 5:].tolist() == [-1.0, 2.0], "the boxes of a cell share its classes"


def test_losses_of_yolo_v1_are_those_of_equation_3():
    """A slow replica: every cell and box by itself, in plain Python."""
    net = built("yolo-v1(backbone=tiny, grid=3, dense=8)", 4, (3, 96, 96)).double()
    raw = torch.rand(2, 3, 3, 14, generator=torch.Generator().manual_seed(5)).double()
    net.read = lambda z: raw
    boxes = [torch.tensor([[2.0, 3, 90, 90], [10, 40, 40, 60], [36, 40, 60, 60]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1, 3, 0]), torch.zeros(0, dtype=torch.int64)]
    losses = net.loss(torch.zeros(2, 3, 96, 96).double(), boxes, labels)
    sums = dict.fromkeys(("places", "sizes", "objects", "background", "classes"), 0.0)
    objects = {(1, 1): (0, 1), (1, 0): (1, 3)}  # (row, column): the object and its class; the third shares the first's
    for b in range(2):
        for row in range(3):
            for column in range(3):
                cell = raw[b, row, column].tolist()
                mine, responsible = objects.get((row, column)) if b == 0 else None, None
                if mine:
                    x1, y1, x2, y2 = (v / 96 for v in boxes[0][mine[0]].tolist())
                    overlaps = [_overlap(cell[5 * j : 5 * j + 4], row, column, (x1, y1, x2, y2)) for j in range(2)]
                    responsible = overlaps.index(max(overlaps))
                    x, y, w, h, c = cell[5 * responsible : 5 * responsible + 5]
                    at = ((x1 + x2) / 2 * 3 - column, (y1 + y2) / 2 * 3 - row)
                    sums["places"] += 5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2)
                    sums["sizes"] += 5 * ((w - math.sqrt(x2 - x1)) ** 2 + (h - math.sqrt(y2 - y1)) ** 2)
                    sums["objects"] += (_sigmoid(c) - max(overlaps)) ** 2
                    sums["classes"] += sum((_sigmoid(cell[10 + k]) - (k == mine[1])) ** 2 for k in range(4))
                for j in range(2):
                    if j != responsible:
                        sums["background"] += 0.5 * _sigmoid(cell[5 * j + 4]) ** 2
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: v / 2 for k, v in sums.items()})


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _overlap(own: list[float], row: int, column: int, truth: tuple[float, ...]) -> float:
    x, y, w, h = (own[0] + column) / 3, (own[1] + row) / 3, own[2] ** 2, own[3] ** 2
    box = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]])
    return box_iou(box.double(), torch.tensor([truth]).double()).item()


def test_yolo_v1_reads_pictures_of_its_own_size_alone():
    net = built("yolo-v1(backbone=tiny, dense=8)", 2, (3, 64, 64))
    with pytest.raises(Refused, match=r"built for pictures of shape \(3, 64, 64\), not \(3, 96, 96\)"):
        net(torch.zeros(1, 3, 96, 96))


# torchvision's own output


def test_clip_cuts_each_side_at_its_own_border():
    boxes = torch.tensor([[-3.0, -4, 120, 80], [100, 70, 120, 90], [5, 6, 7, 8]])
    assert clip(boxes, 64, 96).tolist() == [[0, 0, 96, 64], [96, 64, 96, 64], [5, 6, 7, 8]]


@pytest.mark.parametrize("scale", [1, 30, 1e4])
def test_the_logits_of_a_softmax_are_those_of_each_class_against_all_others(scale):
    z = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * scale
    z[:3, 2], z[3] = z[:3].amax(1), scale  # two classes are best at once, and all are equal
    single, z = of_softmax(z), z.double()
    others = z[:, None].expand(-1, 7, -1).masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf).logsumexp(2)
    torch.testing.assert_close(of_softmax(z), z - others, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(single.double(), z - others, rtol=1e-6, atol=1e-6 * scale)
    assert torch.allclose(of_softmax(z).sigmoid(), z.softmax(-1))
    assert torch.autograd.gradcheck(of_softmax, (z[:5] + scale * torch.arange(7) / 100).requires_grad_())


def test_the_logits_of_a_softmax_take_no_more_memory_than_a_few_times_their_own():
    z, sizes = torch.randn(50, 60, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        of_softmax(z)
    assert max(sizes) == z.numel()


def test_logits_of_probabilities():
    z = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double() * 5
    assert torch.allclose(of_root(z).sigmoid(), z.sigmoid().sqrt())
    far = torch.tensor([-90.0, -50.0, 50.0, 90.0, 200.0], requires_grad=True)
    (g,) = torch.autograd.grad(of_root(far)[:4].sum() + of_root(far).sum(), far)
    assert bool(g.isfinite().all())
    assert of_root(far)[:2].tolist() == [-45.0, -25.0]
    assert bool((of_root(far)[2:] > 49).all())


@pytest.mark.parametrize(
    "spelling",
    ["faster-rcnn(proposals=200)", "faster-rcnn(backbone=mobilenet-320)", "retinanet", "torchvision-fcos", "ssdlite"],
)
def test_candidates_give_the_detections_of_torchvision(spelling: str):
    """Theirs on the same normalised picture, whose sides are no multiples of 32; with their floor and suppression."""
    shape = (3, 90, 122)
    net = as_if_trained(built(spelling, 3, shape), shape)
    inner = net.net
    if spelling in ("retinanet", "torchvision-fcos"):  # no object bears class 0, which a trained network never finds
        bias = inner.head.classification_head.cls_logits.bias.data.view(-1, 4)
        bias[:, 0], bias[:, 1:] = -100, -2
    inner.transform.image_mean, inner.transform.image_std = [0.0] * 3, [1.0] * 3
    inner.transform.min_size, inner.transform.max_size = (90,), 122
    if spelling == "ssdlite":
        inner.transform.fixed_size = (122, 90)
    rules = inner.roi_heads if hasattr(inner, "roi_heads") else inner
    z = torch.randn(2, *shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        found, theirs = net(z), inner(list(z))
    for mine, their in zip(found, theirs, strict=True):
        boxes, scores, labels = detections(mine, rules.score_thresh, rules.nms_thresh, rules.detections_per_img)
        assert len(scores) == len(their["scores"]) > 20
        assert labels.tolist() == (their["labels"] - 1).tolist()
        assert len(set(labels.tolist())) > 1
        assert torch.allclose(scores, their["scores"], atol=1e-5)
        assert torch.allclose(boxes, their["boxes"], atol=1e-3)


@pytest.mark.parametrize(
    "spelling", ["faster-rcnn(backbone=mobilenet-320)", "torchvision-fcos", "ssdlite", "retinanet"]
)
def test_losses_are_those_of_torchvision(spelling: str):
    """Its network in training, BatchNorm in eval mode; what Faster R-CNN draws comes from the global generator."""
    z = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(7))
    boxes = [torch.tensor([[4.0, 6, 60, 70], [30, 10, 90, 60]]), torch.zeros(0, 4)]
    labels = [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64)]
    truth = [{"boxes": b, "labels": c + 1} for b, c in zip(boxes, labels, strict=True)]
    net = built(spelling, 3, (3, 96, 96)).train()
    net.net.transform.image_mean, net.net.transform.image_std = [0.0] * 3, [1.0] * 3
    net.net.transform.min_size, net.net.transform.max_size = (96,), 96
    if spelling == "ssdlite":
        net.net.transform.fixed_size = (96, 96)
    with torch.random.fork_rng(), torch.no_grad():
        torch.default_generator.manual_seed(3)
        mine = net.loss(z, boxes, labels)
        torch.default_generator.manual_seed(3)
        theirs = net.net(list(z), truth)
    assert {k: v.item() for k, v in mine.items()} == pytest.approx({k: v.item() for k, v in theirs.items()})


def test_proposals_of_faster_rcnn_are_kept_where_they_are_asked_for():
    """Of the clean picture, for any number of changed ones; outside each picture has its own again."""
    net = as_if_trained(built("faster-rcnn(backbone=mobilenet-320, proposals=40)", 1, (3, 96, 96)), (3, 96, 96))
    z = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(7))
    seen: list[list[Tensor]] = []
    net.net.roi_heads.box_roi_pool.register_forward_pre_hook(lambda _, words: seen.append(words[1]))
    with torch.no_grad():
        own = net(z)
        with net.proposals_of(z[:1]):
            shared = net(z)
            assert torch.allclose(net(z[:1]), own[:1], atol=1e-3)
        assert torch.equal(net(z), own)
        with net.proposals_of(z), pytest.raises(Refused, match="2 pictures cannot share the proposals of 3"):
            net(z[:2])
    assert all(torch.equal(part, seen[1][0]) for part in seen[1])
    assert torch.allclose(seen[1][0], seen[0][0], atol=1e-3)
    assert not torch.equal(seen[0][1], seen[0][0])
    assert not torch.equal(shared[1:], own[1:])


def test_faster_rcnn_that_proposes_nothing_finds_nothing():
    net = built("faster-rcnn(backbone=mobilenet-320, proposals=5)", 2, (3, 64, 64))
    net.net.rpn.score_thresh = 2.0  # no proposal is as sure
    with torch.no_grad():
        found = net(torch.rand(2, 3, 64, 64))
    assert found.shape == (2, 10, 7)
    assert bool((found[..., 4:] == -50).all())


def test_rows_of_faster_rcnn_that_fill_up_have_no_score():
    net = built("faster-rcnn(backbone=mobilenet-320, proposals=1000)", 2, (3, 64, 64))
    with torch.no_grad():
        found = net(torch.zeros(1, 3, 64, 64))[0]
    assert found.shape == (2000, 7)
    assert found[-1].tolist() == [0, 0, 0, 0, -50, -50, -50]
    named = found[found[:, 4] > 0][:, 5:]
    assert bool(((named == -50).sum(1) == 1).all()), "each class has a box of its own"


# learning


def squares(n: int, side: int, seed: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Noise with two or three squares each, red, green or blue, which do not touch."""
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, side, side, generator=random) * 0.4 + 0.3
    boxes, labels = [], []
    for picture in x:
        own: list[list[float]] = []
        colours: list[int] = []
        while len(own) < 3:
            size = int(torch.randint(12, 32, (), generator=random))
            a, b = torch.randint(0, side - size, (2,), generator=random).tolist()
            if any(a < p[2] and p[0] < a + size and b < p[3] and p[1] < b + size for p in own):
                continue
            colours.append(int(torch.randint(0, 3, (), generator=random)))
            picture[:, b : b + size, a : a + size] = torch.eye(3)[colours[-1]][:, None, None]
            own.append([float(v) for v in (a, b, a + size, b + size)])
        boxes.append(torch.tensor(own))
        labels.append(torch.tensor(colours))
    return (x - 0.5) / 0.5, boxes, labels


def test_fcos_learns_eight_pictures_by_heart():
    """Every square is found with its colour, IoU above one half, before any wrong box: AP50 is 1."""
    z, boxes, labels = squares(8, 96, 0)
    net = built("fcos(backbone=tiny)", 3, (3, 96, 96)).train()
    steps = 100
    optimiser = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(net.loss(z, boxes, labels).values()).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        found = net.eval()(z)
    judged: list[tuple[float, bool]] = []
    for candidates, truth, classes in zip(found, boxes, labels, strict=True):
        own, scores, told = detections(candidates, 0.05, 0.5, 100)
        free = list(range(len(truth)))
        for box, score, label in zip(own, scores.tolist(), told.tolist(), strict=True):
            hits = [k for k in free if classes[k] == label and float(box_iou(box[None], truth[k][None])) >= 0.5]
            judged.append((score, bool(hits)))
            free = [k for k in free if k not in hits[:1]]
        assert not free, "a square was missed"
    right = sorted(score for score, hit in judged if hit)
    wrong = [score for score, hit in judged if not hit]
    assert len(right) == 24
    assert sum(w > right[1] for w in wrong) == 0, "at most the last square stands behind a wrong box: AP50 > 0.95"
