"""The numbers of segmenters: bilinear beginnings, skips, parameters as published, torchvision's outputs, losses by
hand, landmarks found back, and shapes that a small network learns.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import segmentation
from torchvision.transforms.v2.functional import pil_to_tensor

from clearsight.backbones.features import make_backbone
from clearsight.core.catalogue import parse
from clearsight.errors import Refused
from clearsight.segmenters.common.landmarks import gaussians, heatmap_loss, landmarks
from clearsight.segmenters.common.losses import cross_entropy, dice
from clearsight.segmenters.common.upsampling import bilinear_kernel, upsampling

MASKS = Path(__file__).parents[2].parent / "shared" / "data" / "coco_masks" / "semantic"


def made(spelling: str, classes: int, shape: tuple[int, ...]) -> Any:
    """The segmenter of that spelling, its weights always the same."""
    call = parse(spelling, "segmenters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return call.method(classes, shape, **call.options)


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def parameters(spelling: str, classes: int, channels: int = 3) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in made(spelling, classes, (channels, 224, 224)).parameters())


# -- upsampling and fcn -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_begins_as_bilinear_interpolation(factor: int, mixed: bool) -> None:
    x = random(2, 3, 5, 4)
    up, wanted = upsampling(3, factor, mixed=mixed)(x), F.interpolate(x, scale_factor=factor, mode="bilinear")
    inside = (slice(None), slice(None), slice(factor // 2, -(factor // 2)), slice(factor // 2, -(factor // 2)))
    assert up.shape == wanted.shape
    torch.testing.assert_close(up[inside], wanted[inside], rtol=0, atol=1e-6)
    assert (up[..., 0] - wanted[..., 0]).abs().max() > 0.01  # outside there are zeros, as the docstring says


def test_a_bilinear_kernel_is_that_of_the_paper_s_code_and_odd_factors_are_refused() -> None:
    """By stride 2: (1, 3, 3, 1) / 4 along each axis; the weights of a pixel add up to one."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    torch.testing.assert_close(bilinear_kernel(2), line[:, None] * line)
    assert bilinear_kernel(32).sum() == 32**2
    with pytest.raises(Refused, match="factor must be even"):
        bilinear_kernel(3)


@pytest.mark.parametrize("stride", [16, 8])
def test_finer_fcns_begin_as_fcn_32s(stride: int) -> None:
    """Skips begin at zero, so what a finer network says is the doubled scores of the coarse one."""
    z = random(1, 3, 160, 224)
    coarse, fine = (made(f"fcn(backbone=tiny, stride={s})", 4, (3, 160, 224)).eval() for s in (32, stride))
    fine.backbone.load_state_dict(coarse.backbone.state_dict())
    fine.head.score32.load_state_dict(coarse.head.score32.state_dict())
    with torch.no_grad():
        wanted, found = coarse(z), fine(z)
    for _ in range(int(math.log2(32 // stride))):
        wanted = F.interpolate(wanted, scale_factor=2, mode="bilinear")
    edge = 32 // stride
    torch.testing.assert_close(found[..., edge:-edge, edge:-edge], wanted[..., edge:-edge, edge:-edge])
    assert found.std() > 0


def test_fcn_8s_adds_the_scores_of_each_stride() -> None:
    """Figure 3 of the paper, layer by layer, with weights everywhere; and the last layer that is learned."""
    net = made("fcn(backbone=tiny, stride=8, last=learned)", 4, (3, 64, 64)).eval()
    for i, p in enumerate(net.head.parameters()):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    z = random(2, 3, 93, 64)
    with torch.no_grad():
        at8, at16, at32 = net.backbone(z)
        assert [m.shape[2:] for m in (at8, at16, at32)] == [(12, 8), (6, 4), (3, 2)]
        head = net.head
        sum16 = head.doubled["to16"](head.score32(at32)) + head.skips["score16"](at16)
        sum8 = head.doubled["to8"](sum16) + head.skips["score8"](at8)
        torch.testing.assert_close(net.head([at8, at16, at32]), sum8)
        torch.testing.assert_close(net(z), net.enlarge(sum8)[..., :93, :64])


def test_backbones_have_strides_8_16_and_32() -> None:
    with torch.device("meta"):
        for name in ("lite0", "vgg16", "tiny"):
            net, maps = make_backbone("fcn", name, 3)  # type: ignore[arg-type]
            out = net.eval()(torch.empty(1, 3, 225, 64, device="meta"))
            assert [o.shape[1:] for o in out] == [
                (m, -(-225 // s), 64 // s) for m, s in zip(maps, (8, 16, 32), strict=True)
            ]
    with pytest.raises(Refused, match=r"fcn\(backbone=vgg16\) takes 3 channels, not 1"):
        made("fcn(backbone=vgg16)", 2, (1, 64, 64))


def test_parameters_as_published() -> None:
    """VGG-16 as convolutions: 134 million (the paper's table 1); by hand the scores and doublings of 21 classes."""
    vgg = 14_714_688 + (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096
    assert vgg == 134_260_544
    assert parameters("fcn(backbone=vgg16, stride=32)", 21) == vgg + 4097 * 21
    skips = 513 * 21 + 257 * 21 + 2 * 16 * 21**2
    assert parameters("fcn(backbone=vgg16, stride=8)", 21) == vgg + 4097 * 21 + skips
    assert parameters("lraspp", 21) == 3_221_538
    auxiliary = 9 * 40 * 10 + 2 * 10 + (10 + 1) * 21
    assert parameters("deeplabv3", 21) == 11_029_328 - auxiliary


# -- unet -------------------------------------------------------------------------------------------------------------


def test_unet_reads_each_size_twice() -> None:
    """Figure 1 for depth 1, step by step."""
    net = made("unet(width=4, depth=1)", 2, (3, 7, 6)).eval()
    z = random(2, 3, 7, 6)
    with torch.no_grad():
        fine = net.down[0](z)
        coarse = net.down[1](F.max_pool2d(fine, 2, ceil_mode=True))
        assert coarse.shape == (2, 8, 4, 3)
        both = torch.cat(
            [fine, F.conv_transpose2d(coarse, net.enlarge[0].weight, net.enlarge[0].bias, 2)[..., :7, :]], 1
        )
        torch.testing.assert_close(net(z), net.score(net.up[0](both)))


def test_unet_has_as_many_parameters_as_figure_1() -> None:
    """23 convolutions, four of them doubling; and with normalisation, which makes the others' biases needless."""
    maps = [64, 128, 256, 512, 1024]
    kernels = sum(9 * a * b + 9 * b * b for a, b in zip([1, *maps], maps, strict=False))
    kernels += sum(9 * 2 * m * m + 9 * m * m for m in maps[:4])
    biases = 2 * sum(maps) + 2 * sum(maps[:4])
    doubling = sum(4 * 2 * m * m + m for m in maps[:4])
    assert parameters("unet(norm=none)", 2, 1) == kernels + biases + doubling + 2 * 65 == 31_030_658
    assert parameters("unet", 2, 1) == kernels + 2 * biases + doubling + 2 * 65


def test_unet_begins_as_he_et_al_say() -> None:
    net = made("unet(width=32, depth=2)", 2, (3, 16, 16))
    weight = net.down[2].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)


# -- torchvision's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "build"),
    [
        ("deeplabv3", segmentation.deeplabv3_mobilenet_v3_large),
        pytest.param("deeplabv3(backbone=resnet50)", segmentation.deeplabv3_resnet50, marks=pytest.mark.slow),
        ("lraspp", segmentation.lraspp_mobilenet_v3_large),
    ],
)
def test_torchvision_s_outputs_are_ours_enlarged(spelling: str, build: Any) -> None:
    """With torchvision's own state, the auxiliary head among it where there is one."""
    auxiliary = {} if spelling == "lraspp" else {"aux_loss": True}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = build(weights=None, weights_backbone=None, num_classes=5, **auxiliary)
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None
    z = random(3, 3, 65, 96)
    with torch.no_grad():
        theirs.train()(z)
        ours = made(spelling, 5, (3, 65, 96))
        ours.load_state_dict(theirs.state_dict())
        wanted, logits = theirs.eval()(z)["out"], ours.eval()(z)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(F.interpolate(logits, size=(65, 96), mode="bilinear", align_corners=False), wanted)


@pytest.mark.parametrize("name", ["deeplabv3", "lraspp"])
def test_torchvision_s_take_three_channels(name: str) -> None:
    with pytest.raises(Refused, match=f"{name} takes 3 channels, not 1"):
        made(name, 2, (1, 64, 64))


def test_other_parameters_than_the_auxiliary_head_are_not_left_out() -> None:
    net = made("lraspp", 2, (3, 64, 64))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*classifier\.extra"):
        net.load_state_dict(net.state_dict() | {"classifier.extra": torch.zeros(1)})


# -- losses -----------------------------------------------------------------------------------------------------------

TRUTH = torch.tensor([[[0, 1, 255], [2, 255, 1]]])


def test_cross_entropy_is_the_mean_over_judged_pixels() -> None:
    logits = random(1, 3, 2, 3)
    places = [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 2, 1)]  # row, column, class
    own = torch.stack([-logits[0, :, r, c].log_softmax(0)[k] for r, c, k in places])
    torch.testing.assert_close(cross_entropy(logits, TRUTH), own.mean())
    weight = torch.tensor([1.0, 2.0, 0.5])
    of = torch.tensor([1.0, 2.0, 0.5, 2.0])
    torch.testing.assert_close(cross_entropy(logits, TRUTH, weight), (of * own).sum() / of.sum())
    torch.testing.assert_close(
        cross_entropy(logits, TRUTH, weight), F.cross_entropy(logits, TRUTH, weight, ignore_index=255)
    )
    more = torch.where(TRUTH == 255, random(1, 3, 2, 3, seed=5), logits)
    assert cross_entropy(more, TRUTH) == cross_entropy(logits, TRUTH)


def test_dice_by_hand() -> None:
    """Two classes and three pixels, of which two are judged: p of class 1 is 3/4 and 1/4, the truth 1 and 0."""
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).repeat(1, 1, 1, 3)
    logits[..., 1] = logits[..., 1].flip(1)
    truth = torch.tensor([[[1, 0, 255]]])
    one = 2 * 0.75 / (1 + 1)
    torch.testing.assert_close(dice(logits, truth), torch.tensor(1 - one))
    sure = 100 * F.one_hot(torch.tensor([[[1, 0, 0]]]), 2).movedim(3, 1).float()
    assert dice(sure, truth) < 1e-6
    assert dice(-sure, truth) > 1 - 1e-6


def test_dice_is_the_mean_of_the_classes_that_are_there() -> None:
    logits = torch.zeros(1, 4, 1, 4)
    truth = torch.tensor([[[0, 0, 0, 2]]])
    own = [2 * 0.75 / (1 + 3), 2 * 0.25 / (1 + 1)]  # 4 pixels at 1/4 each: sum(p) is 1
    torch.testing.assert_close(dice(logits, truth), torch.tensor(1 - sum(own) / 2))
    weight = torch.tensor([1.0, 9.0, 3.0, 9.0])
    torch.testing.assert_close(dice(logits, truth, weight), torch.tensor(1 - (own[0] + 3 * own[1]) / 4))
    logits[:, 1] = -1e4  # neither in the truth nor predicted: its probability is 0 exactly
    logits.requires_grad_()
    found = dice(logits, truth)
    found.backward()
    torch.testing.assert_close(found.detach(), torch.tensor(1 - (2 / (4 / 3 + 3) + 2 / 3 / (4 / 3 + 1)) / 2))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_a_batch_without_judged_pixels_gives_zero_and_a_graph(loss: Any) -> None:
    logits = random(2, 3, 2, 2).requires_grad_()
    found = loss(logits, torch.full((2, 2, 2), 255))
    found.backward()
    assert found.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", [cross_entropy, dice])
def test_losses_refuse_what_does_not_fit(loss: Any) -> None:
    logits = torch.zeros(1, 3, 2, 3)
    with pytest.raises(Refused, match="enlarge the logits"):
        loss(logits, torch.zeros(1, 4, 6, dtype=torch.long))
    for wrong in (3, -1, 254):
        with pytest.raises(Refused, match=f"the truth has class {wrong}, but the logits have 3"):
            loss(logits, torch.full((1, 2, 3), wrong))
    for weight in (torch.ones(2), torch.tensor([1.0, -1.0, 1.0])):
        with pytest.raises(Refused, match="one for each of 3 classes, at least 0"):
            loss(logits, TRUTH, weight)


# -- landmarks --------------------------------------------------------------------------------------------------------


def test_gaussians_are_one_at_their_points_and_fall_as_they_say() -> None:
    heat = gaussians(torch.tensor([[[10.0, 22.0], [8.0, 8.0]]]), (8, 12), stride=4, sigma=1.5)
    assert heat.shape == (1, 2, 8, 12)
    assert heat[0, 0, 5, 2] == 1  # the middle of place (5, 2) is (10, 22) in pixels
    torch.testing.assert_close(heat[0, 0, 5, 4], torch.tensor(math.exp(-4 / (2 * 1.5**2))))
    torch.testing.assert_close(heat[0, 0, 2, 3], torch.tensor(math.exp(-10 / (2 * 1.5**2))))
    torch.testing.assert_close(heat[0, 1, 1, 1], torch.tensor(math.exp(-0.5 / (2 * 1.5**2))))  # between four places
    with pytest.raises(Refused, match="above 0"):
        gaussians(torch.zeros(1, 1, 2), (4, 4), 4, sigma=0)


def test_the_middle_of_a_gaussian_is_found_back() -> None:
    """A thousand points between places: 0.02 places by the mean, a quarter by the quarter; a place is 4 pixels here."""
    points = 32 + 60 * torch.rand(1, 1000, 2, generator=torch.Generator().manual_seed(0))
    heat = gaussians(points, (32, 32), stride=4)
    soft, height = landmarks(heat, stride=4)
    assert (soft - points).abs().max() < 0.02 * 4 < 0.1
    assert height.min() > 0.93
    quarter, _ = landmarks(heat, stride=4, how="quarter")
    assert (quarter - points).abs().max() < 0.2501 * 4
    assert (quarter - points).abs().mean() < 0.13 * 4
    plain = (quarter / 4 - 0.5).round() * 4 + 2
    assert (plain - points).abs().mean() > 1.8 * (quarter - points).abs().mean()


def test_landmarks_at_the_border_stay_beside_their_hottest_place() -> None:
    points = torch.tensor([[[0.5, 30.0], [127.9, 64.0], [5.0, 5.0], [64.0, 126.0]]])
    heat = gaussians(points, (32, 32), stride=4)
    for how in ("soft", "quarter"):
        found, _ = landmarks(heat, stride=4, how=how)  # type: ignore[arg-type]
        assert (found - points).abs().max() < 0.5 * 4 + 1e-4
    middle = torch.tensor([[[2.0, 126.0], [126.0, 2.0]]])  # of a place at two borders, with no neighbour beyond
    assert torch.equal(landmarks(gaussians(middle, (32, 32), stride=4), 4, "quarter")[0], middle)


def test_negative_heat_weighs_nothing() -> None:
    heat = gaussians(torch.tensor([[[61.0, 67.0]]]), (32, 32), stride=4)
    cold = torch.where(heat < 0.05, -1.0, heat)
    cold[..., :15] = -2.0
    assert torch.equal(landmarks(cold, 4)[0], landmarks(cold.clamp(min=0), 4)[0])


def test_flat_and_negative_heat_gives_a_point_and_no_nan() -> None:
    for heat in (torch.zeros(1, 2, 4, 5), -torch.ones(1, 2, 4, 5)):
        for how in ("soft", "quarter"):
            assert landmarks(heat, 4, how)[0].isfinite().all()  # type: ignore[arg-type]


def test_the_soft_point_moves_with_the_heat() -> None:
    heat = gaussians(torch.tensor([[[62.0, 62.0]]]), (32, 32), stride=4).requires_grad_()
    (g,) = torch.autograd.grad(landmarks(heat, 4)[0][0, 0, 0], heat)
    row, column = 15, 15
    assert g[0, 0, row, column + 2] > 0 > g[0, 0, row, column - 2]


def test_the_loss_of_heat_is_a_mean_square_of_visible_landmarks() -> None:
    points, heat = torch.tensor([[[6.0, 2.0], [2.0, 6.0]]]), random(1, 2, 2, 2)
    seen = torch.tensor([[True, False]])
    wanted = (heat[0, 0] - gaussians(points, (2, 2), 4)[0, 0]).square().mean()
    torch.testing.assert_close(heatmap_loss(heat, points, seen, 4), wanted)
    heat.requires_grad_()
    none = heatmap_loss(heat, points, ~(seen | True), 4)
    none.backward()
    assert none.item() == 0
    assert heat.grad is not None
    with pytest.raises(Refused, match=r"give \(B, K, h, w\), \(B, K, 2\) and \(B, K\)"):
        heatmap_loss(heat, points[:, :1], seen, 4)


# -- real masks, and learning -----------------------------------------------------------------------------------------


def mean_iou(predicted: Tensor, truth: Tensor, classes: int) -> float:
    """By hand, from one matrix over all judged pixels; classes that are nowhere are left out."""
    judged = truth != 255
    matrix = (
        (truth[judged] * classes + predicted[judged]).bincount(minlength=classes**2).view(classes, classes).double()
    )
    both = matrix.diagonal()
    return float((both / (matrix.sum(0) + matrix.sum(1) - both)).nanmean())


@pytest.mark.skipif(not MASKS.is_dir(), reason="the masks of COCO are not there")
def test_a_finer_stride_allows_more() -> None:
    """Long et al., section 5: the truth at stride 32, 16, 8 and back; on 53 photos of COCO, all classes, at 224."""
    ids = torch.stack(
        [
            pil_to_tensor(Image.open(f).resize((224, 224), Image.Resampling.NEAREST))[0].long()
            for f in sorted(MASKS.glob("*.png"))
        ]
    )
    truth = torch.where(ids == 0, 255, ids)
    found = {}
    for stride in (32, 16, 8, 1):
        coarse = F.interpolate(ids[:, None].float(), scale_factor=1 / stride, mode="nearest-exact")
        back = F.interpolate(coarse, size=(224, 224), mode="nearest-exact")[:, 0].long()
        found[stride] = mean_iou(back, truth, 201)
    print(found)
    assert found[32] < found[16] < found[8] < found[1] == 1
    assert [round(found[s], 2) for s in (32, 16, 8)] == [0.47, 0.60, 0.74]


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 96, 96) of two of disc, square and triangle (classes 1 to 3), light on a dark ground."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    truth, colour = torch.zeros(n, 96, 96, dtype=torch.long), -torch.rand(n, 3, 1, 1, generator=g).repeat(1, 1, 96, 96)
    for i in range(n):
        for left, kind in zip((4, 52), (torch.randperm(3, generator=g) + 1).tolist(), strict=False):
            u, v, r = torch.rand(3, generator=g).tolist()
            r = 14 + 6 * r
            dx, dy = (x - left - r - u * (40 - 2 * r)).abs(), y - 4 - r - v * (88 - 2 * r)
            inside = {
                1: dx**2 + dy**2 <= r**2, 2: (dx <= r) & (dy.abs() <= r), 3: (dy.abs() <= r) & (2 * dx <= dy + r),
            }[kind]  # fmt: skip
            truth[i][inside] = kind
            colour[i][:, inside] = torch.rand(3, 1, generator=g)
    return colour + 0.1 * torch.randn(n, 3, 96, 96, generator=g), truth


def learned(spelling: str, steps: int, rate: float) -> float:
    """The mean IoU on 64 pictures of shapes that a segmenter has after so many steps of 16 others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = made(spelling, 4, (3, 96, 96)).train()
    adam = torch.optim.AdamW(net.parameters(), rate)
    slower = torch.optim.lr_scheduler.OneCycleLR(adam, rate, steps)
    for step in range(steps):
        z, truth = shapes(16, seed=step + 1)
        loss = cross_entropy(F.interpolate(net(z), size=(96, 96), mode="bilinear"), truth)
        adam.zero_grad()
        loss.backward()
        adam.step()
        slower.step()
    z, truth = shapes(64, seed=0)
    with torch.no_grad():
        logits = F.interpolate(net.eval()(z), size=(96, 96), mode="bilinear")
    return mean_iou(logits.argmax(1), truth, 4)


@pytest.mark.slow
def test_fcn_learns_shapes() -> None:
    """In 10 seconds of a processor; what stride 8 allows at most is printed beside it."""
    _, truth = shapes(64, seed=0)
    coarse = F.interpolate(truth[:, None].float(), scale_factor=1 / 8, mode="nearest-exact")
    allowed = mean_iou(F.interpolate(coarse, size=(96, 96), mode="nearest-exact")[:, 0].long(), truth, 4)
    found = learned("fcn(backbone=tiny)", 300, 0.02)
    print(f"fcn {found:.3f}, the truth at stride 8 {allowed:.3f}")
    assert found > 0.9


def discs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 64, 64) of a red and a blue disc, and their middles (n, 2, 2) in pixels."""
    g = torch.Generator().manual_seed(seed)
    points = 10 + 44 * torch.rand(n, 2, 2, generator=g)
    at = torch.arange(64) + 0.5
    d = (at - points[..., 0, None])[..., None, :] ** 2 + (at - points[..., 1, None])[..., :, None] ** 2
    near = (d < 36).float()
    z = torch.stack([near[:, 0], torch.zeros(n, 64, 64), near[:, 1]], 1)
    return z + 0.1 * torch.randn(n, 3, 64, 64, generator=g), points


@pytest.mark.slow
def test_heatmaps_learn_where_discs_are() -> None:
    """Within a pixel on average, a quarter of a place of the heat, on pictures that it has not seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = made("heatmaps(backbone=tiny, width=16)", 2, (3, 64, 64)).train()
    adam, steps = torch.optim.AdamW(net.parameters(), 0.005), 600
    slower = torch.optim.lr_scheduler.OneCycleLR(adam, 0.005, steps)
    for step in range(steps):
        z, points = discs(16, seed=step + 1)
        loss = heatmap_loss(net(z), points, torch.ones(16, 2, dtype=torch.bool), stride=4)
        adam.zero_grad()
        loss.backward()
        adam.step()
        slower.step()
    z, points = discs(64, seed=0)
    with torch.no_grad():
        found, _ = landmarks(net.eval()(z), stride=4)
    away = (found - points).norm(dim=2)
    print(f"{away.mean():.2f} pixels on average, {away.max():.2f} at most")
    assert away.mean() < 1
