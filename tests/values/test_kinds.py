"""Detectors and segmenters whose outputs are linear in the pixels: gradients, bounds of attacks and scores by hand."""

from __future__ import annotations

import math

import pytest
import torch

import clearsight as cs
from clearsight.core.catalogue import catalogue
from clearsight.kinds.box_goals import objects
from clearsight.kinds.box_targets import box_scores
from clearsight.kinds.detections import detections
from clearsight.testing import linear, pixel_segmenter, template_detector, tiny_detector, tiny_segmenter


def squares() -> torch.Tensor:
    """A red square in the first picture, and a red and a blue one in the second: windows of `tiny_detector`."""
    x = torch.full((2, 3, 32, 32), 0.2)
    x[0, 0, 4:8, 8:12] = 0.9
    x[1, 0, 0:4, 0:4] = 0.9
    x[1, 2, 16:20, 20:24] = 0.9
    return x


def seeded_detector(seed: int = 0):
    """A detector of two classes with random templates of 4 x 4 pixels, whose windows do not overlap."""
    generator = torch.Generator().manual_seed(seed)
    return template_detector(torch.randn(2, 3, 4, 4, generator=generator) / 8, torch.tensor([0.1, -0.2]), 4, (16, 16))


def test_it_finds_the_squares_and_nothing_else():
    first, second = tiny_detector().detect(squares())
    assert first.boxes.tolist() == [[8.0, 4.0, 12.0, 8.0]]
    assert first.labels.tolist() == [0]
    # 8 * (0.9 - 0.2 - 0.2) - 4 = 0
    assert first.scores.item() == pytest.approx(0.5, abs=1e-6)
    assert sorted(zip(second.labels.tolist(), second.boxes.tolist(), strict=True)) == [
        (0, [0.0, 0.0, 4.0, 4.0]),
        (1, [20.0, 16.0, 24.0, 20.0]),
    ]
    assert first.raw.tolist() == [8 * 1 + 2]
    torch.testing.assert_close(first.probabilities[0], torch.tensor([0.5, 1 / (1 + math.exp(11.2))]))


def test_floor_suppression_and_most_boxes():
    logit = [2.0, 1.0, 0.5, -9.0]
    boxes = [[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    outputs = torch.tensor([[[*b, 50.0, z, -9.0] for b, z in zip(boxes, logit, strict=True)]])
    assert detections(outputs)[0].raw.tolist() == [0, 2]
    assert detections(outputs, overlap=0.9)[0].raw.tolist() == [0, 1, 2]  # their IoU is 0.9, not above
    assert detections(outputs, overlap=0.89)[0].raw.tolist() == [0, 2]
    assert detections(outputs, most=1)[0].raw.tolist() == [0]
    assert detections(outputs, floor=torch.tensor(1.0).sigmoid().item() + 1e-6)[0].raw.tolist() == [0]
    other = outputs.clone()
    other[0, 1, 5:] = torch.tensor([-9.0, 1.0])  # of another class: it is not suppressed
    assert detections(other)[0].labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("match", ["matched", "raw", "soft"])
@pytest.mark.parametrize("method", ["saliency", "gradient-x-input", "integrated-gradients(steps=3)", "occlusion"])
def test_the_map_of_a_box_lies_in_its_window_and_is_the_template(match, method):
    model, x = seeded_detector(), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    raw = torch.tensor([0, 5, 15])
    boxes = model(x)[0, raw, :4].detach()
    target = cs.BoxScore(boxes, torch.tensor([0, 1, 1]), raw, match=match)
    call = "occlusion(window=1, stride=1)" if method == "occlusion" else method
    maps = cs.explain(model, x, call, target).maps
    weight = model.net.match.weight.detach()
    for i, (n, k) in enumerate([(0, 0), (5, 1), (15, 1)]):
        top, left = 4 * (n // 4), 4 * (n % 4)
        window = (slice(top, top + 4), slice(left, left + 4))
        outside = maps[i].clone()
        outside[window] = 0
        assert float(outside.abs().max()) < 1e-5, (match, method, i)
        patch = x[i][:, *window]
        mean = x.new_zeros(3, 1, 1)
        parts = {
            "saliency": weight[k].abs().amax(0),
            "gradient-x-input": (weight[k] * patch).sum(0),
            "integrated-gradients(steps=3)": (weight[k] * patch).sum(0),
            "occlusion": (weight[k] * (patch - mean)).sum(0),
        }
        if method != "saliency" or float(maps[i][window].min()) >= 0:
            torch.testing.assert_close(maps[i][window], parts[method], atol=1e-4, rtol=1e-4)


def test_a_box_score_by_hand():
    outputs = torch.tensor([[[0.0, 0, 10, 10, 1, 2, -1], [0, 0, 10, 8, 3, -2, 4], [50, 50, 60, 60, 9, 9, 9]]])
    box, logsig = torch.tensor([[0.0, 0, 10, 10]]), torch.nn.functional.logsigmoid

    def score(k: int, **more: object) -> float:
        return cs.BoxScore(box, torch.tensor([k]), **more)(outputs).item()

    assert score(0) == 2.0  # IoU 1 and score .64 beat .8 and .11
    assert score(1) == 4.0  # .8 * .94 beats 1 * .20
    assert score(0, of="objectness") == 1.0
    assert score(1, of="objectness") == 3.0
    assert score(0, of="log-score") == pytest.approx((logsig(torch.tensor(1.0)) + logsig(torch.tensor(2.0))).item())
    assert score(0, of="score") == pytest.approx(torch.tensor([1.0, 2.0]).sigmoid().prod().item())
    assert score(0, match="raw", raw=torch.tensor([2])) == 9.0
    assert score(0, match="soft") == pytest.approx(math.log(math.exp(2) + math.exp(-2)))
    assert cs.BoxScore(box, torch.tensor([1])).words(("cat", "dog")) == ["class of dog at (0, 0, 10, 10)"]


def test_one_map_for_each_of_two_equal_objects():
    model, x = tiny_detector(), squares()[1:]
    x[0, 0, 16:20, 20:24], x[0, 2, 16:20, 20:24] = 0.9, 0.2  # the second square is red too
    (found,) = model.detect(x)
    assert found.labels.tolist() == [0, 0]
    maps = cs.explain(model, x.expand(2, -1, -1, -1), "gradient-x-input", box_scores(found)).maps.abs()
    for one, box in zip(maps, found.boxes.int().tolist(), strict=True):
        inside = one[box[1] : box[3], box[0] : box[2]].sum()
        assert inside / one.sum() > 0.999


def test_an_attack_makes_boxes_vanish_at_the_bound_and_not_below():
    """The smallest budget of one box is (logit - logit of the floor) / |w|_1; of all, windows apart, the largest."""
    model = seeded_detector(3)
    x = 0.35 + 0.3 * torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    outputs = model(x).detach()
    floor = 0.5
    found = detections(outputs, floor)
    there = objects(found)
    weight = model.net.match.weight.detach().flatten(1).abs().sum(1)
    bounds = torch.stack([(outputs[i, f.raw, 5 + f.labels] / weight[f.labels]).amax() for i, f in enumerate(found)])
    assert float(bounds.max()) < 0.3  # no pixel is clipped
    for factor, falls in ((0.99, False), (1.01, True)):
        for i, bound in enumerate(bounds.tolist()):
            goal = cs.Vanish(there.boxes[i : i + 1], there.classes[i : i + 1], floor)
            attacked = cs.attack(model, x[i : i + 1], goal, "pgd(steps=20)", eps=factor * bound)
            assert bool(attacked.fooled) == falls, (factor, i)
            if not falls:
                assert int(goal.left(model(attacked.x)).sum()) >= 1


def test_an_attack_makes_a_box_appear_and_one_change_its_class_at_the_bound():
    model = seeded_detector(4)
    x = 0.35 + 0.3 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    outputs, weight = model(x).detach(), model.net.match.weight.detach().flatten(1)
    logits = outputs[0, :, 5:]
    none = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.long)
    floor = float(logits[:, 0].max().sigmoid()) + 0.1
    bound = (math.log(floor / (1 - floor)) - float(logits[:, 0].max())) / float(weight[0].abs().sum())
    goal = cs.Appear(torch.tensor([0]), *none, floor=floor)
    assert not goal.met(outputs)
    for factor, falls in ((0.99, False), (1.01, True)):
        assert bool(cs.attack(model, x, goal, "pgd(steps=20)", eps=factor * bound).fooled) == falls
    (found,) = detections(outputs, floor=0.5)
    assert len(found)
    there = objects([found[:1]])
    goal = cs.BoxesBecome(there.boxes, there.classes, 1 - there.classes, floor=0.5)
    assert not goal.met(outputs)
    attacked = cs.attack(model, x, goal, "pgd(steps=40)", eps=0.3)
    assert bool(attacked.fooled)
    after = detections(model(attacked.x), floor=0.5)[0]
    at = (after.boxes == there.boxes[0, 0]).all(1)
    assert after.labels[at].tolist() == [1 - int(there.classes[0, 0])]


def test_a_change_of_nothing_leaves_every_box():
    model, x = tiny_detector(), squares()
    there = objects(model.detect(x))
    attacked = cs.attack(model, x, cs.Vanish(there.boxes, there.classes, floor=0.05), "pgd(steps=3)", eps=0.0)
    assert not attacked.fooled.any()
    torch.testing.assert_close(model(attacked.x), model(x))


def test_pixels_of_a_linear_segmenter_fall_at_their_own_bound():
    """Pixel p of class y flips at min_k (z_y - z_k) / |w_y - w_k|_1, so robust accuracy is the share of those above."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 3, generator=generator)
    model = pixel_segmenter(weight.tolist(), (24, 24))
    x = 0.3 + 0.4 * torch.rand(2, 3, 24, 24, generator=generator)
    z = model(x).detach()
    y = z.argmax(1)
    gaps = z.gather(1, y[:, None]) - z
    norms = (weight[y].permute(0, 3, 1, 2)[:, None] - weight[None, :, :, None, None]).abs().sum(2)
    bound = torch.where(norms > 0, gaps / norms.clamp_min(1e-9), torch.inf).amin(1)
    for eps in (0.02, 0.05, 0.1):
        attacked = cs.attack(model, x, cs.PixelsMisread(y, share=1.0), "pgd(steps=20, step=0.2)", eps=eps)
        left = (model(attacked.x).argmax(1) == y).flatten(1).float().mean(1)
        best = (bound > eps).flatten(1).float().mean(1)
        assert (left >= best - 1e-6).all()
    model = pixel_segmenter(weight[:2].tolist(), (24, 24))
    y = model(x).argmax(1)
    z, gap = model(x).detach(), (weight[0] - weight[1]).abs().sum()
    bound = (z[:, 0] - z[:, 1]).abs() / gap
    for eps in (0.02, 0.05, 0.1):  # with two classes one step is the best there is
        attacked = cs.attack(model, x, cs.PixelsMisread(y, share=1.0), "fgsm", eps=eps)
        left = (model(attacked.x).argmax(1) == y).flatten(1).float().mean(1)
        torch.testing.assert_close(left, (bound > eps).flatten(1).float().mean(1), atol=2e-3, rtol=0)


def test_the_gradient_of_a_region_stays_inside_it():
    model = pixel_segmenter([[1.0, 0.5, -0.2], [-0.3, 0.8, 0.4]], (8, 8))
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    regions = torch.zeros(2, 8, 8, dtype=torch.bool)
    regions[0, :4, :4], regions[1, 5:, 2:] = True, True
    first, second = (
        cs.explain(model, x, "gradient-x-input", cs.RegionScore(torch.tensor([0]), r[None])).maps[0] for r in regions
    )
    expected = torch.einsum("c,chw->hw", torch.tensor([1.0, 0.5, -0.2]), x[0])
    torch.testing.assert_close(first, expected * regions[0] / regions[0].sum())
    torch.testing.assert_close(second, expected * regions[1] / regions[1].sum())


def test_a_region_score_by_hand():
    logits = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [1.0, 1.0]]]])
    region = torch.tensor([[[True, True], [False, False]]])

    def score(of: str) -> float:
        return cs.RegionScore(torch.tensor([1]), region, of=of)(logits).item()

    assert score("logit") == 2.5
    assert score("margin") == pytest.approx((-1 + 3) / 2)
    expected = torch.tensor([[1.0, 0.0], [2.0, 5.0]]).log_softmax(1)[:, 1].mean().item()
    assert score("log-prob") == pytest.approx(expected)


def test_what_is_explained_where_nothing_is_asked():
    x = squares()
    target = cs.explain(tiny_detector(), x, "saliency").target
    assert target.words(("red", "blue"))[0] == "class of red at (8, 4, 12, 8)"
    empty = cs.explain(tiny_detector(), torch.full((1, 3, 32, 32), 0.2), "saliency").target
    assert len(empty.boxes) == 1  # of a picture without a detection, the surest candidate
    target = cs.explain(tiny_segmenter(), x, "saliency").target
    assert target.regions.flatten(1).sum(1).tolist() == [
        int((tiny_segmenter().segment(x)[i] == target.classes[i]).sum()) for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("model", "question", "says"),
    [
        (tiny_detector(), cs.ClassScore(0), "ClassScore asks about a classifier, and the model is a detector"),
        (tiny_segmenter(), cs.BoxScore(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)), "a detector, and the"),
        (linear([[1.0], [2.0]]), cs.RegionScore(torch.zeros(1, dtype=torch.long), torch.ones(1, 1, 1) > 0), "a segme"),
    ],
)
def test_a_question_about_another_kind_is_refused(model, question, says):
    x = torch.zeros(2, model.preprocess.channels, *model.preprocess.size)
    with pytest.raises(cs.Refused, match=says):
        cs.explain(model, x, "saliency", question)


def test_a_goal_of_another_kind_and_a_method_for_classifiers_are_refused():
    with pytest.raises(cs.Refused, match="Misclassify asks about a classifier, and the model is a detector"):
        cs.attack(tiny_detector(), squares(), torch.tensor([0, 1]), "pgd")
    with pytest.raises(cs.Refused, match="cam takes a classifier, and the model is a segmenter"):
        cs.explain(tiny_segmenter(), squares(), "cam")
    assert catalogue("explainers")["grad-cam"].takes == "Model"


def test_outputs_of_another_shape_are_refused():
    for model in (tiny_detector(), tiny_segmenter()):
        other = cs.Detector if isinstance(model, cs.Segmenter) else cs.Segmenter
        with pytest.raises(cs.Refused, match="the network's output has shape"):
            other(model.net, model.preprocess, ("a", "b", "c"))(squares())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: cs.BoxScore(torch.zeros(2, 4), torch.zeros(3, dtype=torch.long)),
        lambda: cs.BoxScore(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), of="clas"),
        lambda: cs.BoxScore(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long), match="raw"),
        lambda: cs.BoxScore(torch.zeros(1, 4), torch.tensor([9]))(torch.zeros(1, 3, 7)),
        lambda: cs.RegionScore(torch.tensor([0]), torch.zeros(1, 4, 4) > 0),
        lambda: cs.RegionScore(torch.tensor([7]), torch.ones(1, 4, 4) > 0)(torch.zeros(1, 3, 4, 4)),
        lambda: cs.PixelsMisread(torch.full((1, 4, 4), 255)),
        lambda: cs.PixelsMisread(torch.zeros(1, 4, 4, dtype=torch.long), share=0.0),
        lambda: cs.PixelsBecome(torch.zeros(1, 4, 4)),
        lambda: cs.Vanish(torch.zeros(1, 2, 4), torch.zeros(1, 3, dtype=torch.long)).loss(torch.zeros(1, 3, 7)),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(wrong):
    with pytest.raises(cs.Refused):
        wrong()


def test_pixels_of_255_do_not_count():
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = logits.argmax(1)
    wrong = (y + 1) % 3
    wrong[:, 0] = 255
    y[:, 1:] = wrong[:, 1:]
    assert cs.PixelsMisread(wrong, share=1.0).met(logits)
    assert not cs.PixelsMisread(y, share=1.0).met(logits)
    assert cs.PixelsMisread(y, share=0.75).met(logits)
    loss = cs.PixelsBecome(wrong).loss(logits)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[:, :, 1:], wrong[:, 1:])[None])
