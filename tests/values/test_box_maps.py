"""What explainers make of boxes and regions: closed forms on linear detectors and segmenters."""

from __future__ import annotations

import pytest
import torch

import clearsight as cs
from clearsight.testing import pixel_segmenter, template_detector
from kindnets import small_pyramid, small_skips


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
