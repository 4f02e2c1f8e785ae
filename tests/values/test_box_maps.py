"""What explainers make of boxes and regions: closed forms on linear detectors and segmenters."""

from __future__ import annotations

import pytest
import torch

import clearsight as cs
from clearsight.errors import Notice
from clearsight.kinds.box_targets import box_scores
from clearsight.testing import pixel_segmenter, template_detector
from kindnets import small_pyramid, small_skips, taught_shapes


def seeded_detector():
    """A detector of two classes with random templates of 4 x 4 pixels, without bias; windows do not overlap."""
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 8
    return template_detector(weight, torch.zeros(2), 4, (16, 16))


@pytest.mark.parametrize("method", ["deep-lift", "lrp(composite=epsilon)"])
def test_the_share_of_each_pixel_in_a_boxs_logit_is_weight_times_pixel(method):
    model, x = seeded_detector(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    raw = torch.tensor([5, 14])
    target = cs.BoxScore(model(x)[0, raw, :4].detach(), torch.tensor([1, 0]), raw)
    found = cs.explain(model, x, method, target)
    expected, weight = torch.zeros(2, 16, 16), model.net.match.weight.detach()
    for i, (n, k) in enumerate([(5, 1), (14, 0)]):
        window = slice(4 * (n // 4), 4 * (n // 4) + 4), slice(4 * (n % 4), 4 * (n % 4) + 4)
        expected[i][window] = (weight[k] * x[i][:, *window]).sum(0)
    torch.testing.assert_close(found.maps, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.maps.flatten(1).sum(1), target(model(x)).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("of", ["logit", "log-prob", "margin"])
def test_deep_lift_of_a_region_sums_to_its_change_also_where_the_slope_changes(of):
    weight = [[1.0, 0.5, -0.2], [-0.3, 0.8, 0.4], [2.0, -1.0, -0.5]]
    model, x = pixel_segmenter(weight, (64, 96)), torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(1, 64, 96, dtype=torch.bool)
    region[0, 3:9, 2:6] = True
    target = cs.RegionScore(torch.tensor([1]), region, of=of)
    maps = cs.explain(model, x, "deep-lift(baseline=0.2)", target).maps
    assert not maps[~region].any()
    change = target(model(x)) - target(model(torch.full_like(x, 0.2)))
    torch.testing.assert_close(maps[region].sum(), change[0].detach(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("method", ["deep-lift", "lrp", "rap", "lrp(composite=epsilon)"])
@pytest.mark.parametrize("model", [small_pyramid(), small_skips()], ids=["pyramid", "skips"])
def test_nothing_is_lost_on_the_way_through_a_pyramid_or_skips(model, method):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs, black = model(x), model(torch.zeros_like(x))
    if model.kind == "detector":
        raw = torch.tensor([20, 70])
        target = cs.BoxScore(outputs[torch.arange(2), raw, :4], torch.tensor([0, 1]), raw, match="raw")
    else:
        target = cs.RegionScore(torch.tensor([1, 2]), torch.rand(2, 32, 32) > 0.5)
    found = cs.explain(model, x, method, target)
    if method == "deep-lift":
        torch.testing.assert_close(found.maps.sum((1, 2)), target(outputs) - target(black), atol=1e-3, rtol=1e-3)
    else:
        assert float(found.diagnostics["conservation residual"].abs().max()) < 1e-3


def test_a_box_that_jumps_to_another_candidate_on_the_way_is_refused_with_the_remedy():
    model, x = seeded_detector(), torch.zeros(1, 3, 16, 16)
    x[0, :, :4, :4] = (model.net.match.weight[0] > 0).float()  # the first window, of which the box covers less
    target = cs.BoxScore(torch.tensor([[1.0, 0, 8, 4]]), torch.tensor([0]))
    with pytest.raises(cs.Refused, match='match="raw"'):
        cs.explain(model, x, "deep-lift", target)


def test_occlusion_where_the_outputs_are_those_of_a_convolution_itself():
    """The network was recorded before, so that only the window is run: there is nothing behind it."""
    model, x = pixel_segmenter([[1.0, 0.5, -0.2], [-0.3, 0.8, 0.4]], (32, 32)), torch.rand(1, 3, 32, 32)
    region = torch.zeros(1, 32, 32, dtype=torch.bool)
    region[0, 4:10, 4:12] = True
    target = cs.RegionScore(torch.tensor([0]), region)
    cs.explain(model, x, "deep-lift", target)
    maps = cs.explain(model, x, "occlusion(window=2, stride=2)", target).maps
    parts = torch.einsum("c,chw->hw", torch.tensor([1.0, 0.5, -0.2]), x[0]) * region[0] / region.sum()
    falls = 4 * torch.nn.functional.avg_pool2d(parts[None], 2)[0]
    torch.testing.assert_close(maps[0], falls.repeat_interleave(2, 0).repeat_interleave(2, 1), atol=1e-5, rtol=1e-4)


def test_why_here_why_this_class_and_why_not_that_one_by_hand():
    """Two candidates of three classes; the box is nearer to the first, the second is surer."""
    outputs = torch.tensor([[[0.0, 0, 10, 10, 1, 2, -1, 5], [0, 0, 10, 8, 3, -2, 4, 1]]]).requires_grad_()
    box = torch.tensor([[0.0, 0, 10, 10]])

    def score(k: int, **more: object) -> float:
        return cs.BoxScore(box, torch.tensor([k]), **more)(outputs).item()

    assert score(0, of="margin") == 2 - 5
    assert score(2, of="margin") == 5 - 2
    assert score(1, of="margin") == 4 - 1  # .95 * .98 * .8 of the second beats .73 * .27 of the first
    assert score(0, of="margin", against=torch.tensor([1])) == 2 + 1
    assert score(0, of="margin", match="raw", raw=torch.tensor([1]), against=torch.tensor([2])) == -2 - 1
    two = cs.BoxScore(box.expand(2, 4), torch.tensor([0, 0]), of="margin", against=torch.tensor([1, 2]))
    assert two(outputs.expand(2, -1, -1)).tolist() == [3, -3]
    assert two[1:](outputs).tolist() == [-3]
    assert two.words(("cat", "dog", "cow"))[1] == "cat rather than cow at (0, 0, 10, 10)"
    assert cs.BoxScore(box, torch.tensor([0]), of="margin").words(("cat", "dog")) == [
        "cat rather than any other at (0, 0, 10, 10)"
    ]
    (slope,) = torch.autograd.grad(cs.BoxScore(box, torch.tensor([0]), of="margin")(outputs).sum(), outputs)
    assert slope[0, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, -1]
    assert not slope[0, 1].any()


def test_the_map_of_a_margin_is_that_of_one_class_less_that_of_the_other():
    model, x = seeded_detector(), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    box, raw = model(x)[0, [5], :4].detach(), torch.tensor([5])
    maps = [
        cs.explain(
            model, x, "gradient-x-input", cs.BoxScore(box, torch.tensor([0]), raw, of=of, match="raw", against=b)
        ).maps
        for of, b in (("margin", torch.tensor([1])), ("class", None))
    ]
    other = cs.explain(model, x, "gradient-x-input", cs.BoxScore(box, torch.tensor([1]), raw, match="raw")).maps
    torch.testing.assert_close(maps[0], maps[1] - other)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"against": torch.tensor([1])}, 'of="class" is asked'),
        ({"of": "margin", "against": torch.tensor([0])}, "both are the same"),
        ({"of": "margin", "against": torch.tensor([1, 2])}, "2 classes to compare with for 1 boxes"),
        ({"of": "margin", "against": torch.tensor([7])}, "class 7: this model has classes 0 to 1"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(more, says):
    with pytest.raises(cs.Refused, match=says):
        cs.BoxScore(torch.zeros(1, 4), torch.tensor([0]), **more)(torch.zeros(1, 3, 7))


def test_a_detector_of_one_class_has_no_margin():
    with pytest.raises(cs.Refused, match="this model has one"):
        cs.BoxScore(torch.zeros(1, 4), torch.tensor([0]), of="margin")(torch.zeros(1, 3, 6))


@pytest.mark.parametrize("method", ["grad-cam", "hires-cam"])
def test_a_regions_class_map_by_hand(method):
    """Grad-CAM on the pixels of a linear segmenter: weights are pooled, so that the region scales the map alone.

    With the mean over the region M of Z pixels the weights are W_ck / Z, and the map is relu(z_c) / Z everywhere; the
    product at each place is relu(z_c) / |M| inside and 0 outside.
    """
    weight = [[1.0, 0.5, -0.8], [-0.3, 0.8, 0.4]]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first = torch.nn.Conv2d(3, 3, 1, groups=3, bias=False)
    first.weight.data.fill_(1)
    model = pixel_segmenter(weight, (8, 8))
    model.net.insert(0, first)
    rectified = torch.einsum("c,chw->hw", torch.tensor(weight[0]), x[0]).relu()
    for rows in (slice(0, 3), slice(5, 8)):
        region = torch.zeros(1, 8, 8, dtype=torch.bool)
        region[0, rows, 2:6] = True
        maps = cs.explain(model, x, f"{method}(layer=0)", cs.RegionScore(torch.tensor([0]), region)).maps[0]
        expected = rectified / 64 if method == "grad-cam" else rectified * region[0] / region.sum()
        torch.testing.assert_close(maps, expected)


def test_the_layer_of_a_box_is_the_level_of_the_pyramid_that_made_it():
    """Of 80 candidates the first 64 come from the fine level, whose layer only they pass through."""
    model, x = small_pyramid(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    outputs = model(x)[0].detach()
    raw = torch.tensor([20, 70, 40])
    target = cs.BoxScore(outputs[raw, :4], torch.tensor([0, 1, 1]), raw, match="raw")
    x = x.expand(3, -1, -1, -1)
    names = ["level_fine", "level_coarse", "level_fine"]
    for words in ("hires-cam", 'smooth-grad(samples=3, inner="grad-cam")'):
        together = cs.explain(model, x, words, target)
        assert "layer=" not in together.method  # they have several
        for i, name in enumerate(names):
            alone = cs.explain(model, x[:1], words, target[i : i + 1])
            assert f"layer={name}" in alone.method
            torch.testing.assert_close(alone.maps[0], together.maps[i])
    both = cs.BoxScore(torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([0]), match="soft")  # candidates of both levels
    with pytest.warns(Notice, match="the layer that is read is fine"):
        assert cs.explain(model, x[:1], "hires-cam", both).method == "hires-cam(layer=fine)"
    assert cs.explain(model, x, "hires-cam(layer=coarse)", target).method == "hires-cam(layer=coarse)"


@pytest.mark.parametrize("method", ["hires-cam", "grad-cam", "gradient-x-input", "d-rise(masks=600, cells=8)"])
def test_of_two_equal_objects_each_box_has_a_map_of_its_own(method):
    """More than 90 % of what lies on the two lies on the box's own; pooled weights cannot tell them apart."""
    model, x = taught_shapes(), torch.full((1, 3, 32, 32), 0.4)
    x[0, :, 5:11, 5:11] = x[0, :, 21:27, 21:27] = 0.9
    (found,) = model.detect(x)
    found = found[found.scores > 0.3]
    assert found.labels.tolist() == [1, 1]
    found = found[found.boxes[:, 0].argsort()]
    maps = cs.explain(model, x.expand(2, -1, -1, -1), method, box_scores(found)).maps.relu()
    on = torch.stack([maps[:, 4:12, 4:12].sum((1, 2)), maps[:, 20:28, 20:28].sum((1, 2))], 1)
    own = on.diagonal() / on.sum(1)
    if method == "grad-cam":
        torch.testing.assert_close(own, torch.tensor([0.5, 0.5]), atol=0.05, rtol=0)
    else:
        assert float(own.min()) > 0.9


def test_the_mean_probability_of_a_region_by_hand():
    logits = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])
    region = torch.tensor([[[True, True]]])
    found = cs.RegionScore(torch.tensor([1]), region, of="prob")(logits).item()
    assert found == pytest.approx((1 / (1 + 2.718281828) + 1 / (1 + 2.718281828**-3)) / 2)
