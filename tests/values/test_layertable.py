"""Layer by layer: sizes by hand, receptive fields in closed form and by gradients, multiply-adds beside torch's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import wilson
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import Refused
from clearsight.inspecting import compare_models as comparing
from clearsight.inspecting.compare_models import compare_models
from clearsight.inspecting.layer_drawing import layer_drawing
from clearsight.inspecting.layer_table import Field, Row, folded, layer_table
from clearsight.networks.alexnet import alexnet
from clearsight.networks.lenet5 import lenet5
from thinning import with_slow


def wrapped(net: nn.Module, size: int | tuple[int, ...] = 32, channels: int = 3, source: str = "net") -> Classifier:
    return Classifier(net, Preprocess(size, (0.5,) * channels, (0.25,) * channels), ("a", "b"), source)  # type: ignore[arg-type]


def rows(net: nn.Module, size: int | tuple[int, ...] = 32, channels: int = 3) -> dict[str, Row]:
    return {r.name: r for r in layer_table(wrapped(net, size, channels)).rows}


def blocks(net: nn.Module, size: int) -> dict[str, Row]:
    table = layer_table(wrapped(net, size))
    return {r.name: r for r in (*table.rows, *table.blocks)}


def saw(row: Row) -> tuple[int | None, int | None]:
    """Size and step along the last axis, which must be those along the first."""
    assert row.field is not None
    assert len(set(row.field.size)) == len(set(row.field.step)) == 1
    return row.field.size[-1], row.field.step[-1]


# What each layer holds, by hand --------------------------------------------------------


def test_sizes_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, (3, 5), stride=2, padding=1),  # 32 -> 16 x 15
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),  # -> 14 x 13
        nn.Flatten(),
        nn.Linear(8 * 14 * 13, 2),
    )
    found = list(rows(net).values())
    conv, relu, deep, flat, head = found
    assert conv == Row("0", "Conv2d 3x5, stride 2", (8, 16, 15), 8 * 3 * 15 + 8, 8 * 240 * 45, 4 * 8 * 240,
                       Field((3, 5), (2, 2), False), 1)  # fmt: skip
    assert (relu.shape, relu.kept, relu.macs) == ((8, 16, 15), 0, 0)  # in place: no new memory
    assert (deep.kind, deep.parameters, deep.macs) == ("Conv2d 3x3, depthwise", 72, 8 * 14 * 13 * 9)
    assert (flat.kept, flat.shape) == (0, (1456,))
    assert (head.parameters, head.macs, head.kept) == (1456 * 2 + 2, 1456 * 2, 8)
    assert head.field == Field((None, None), (None, None), True)
    table = layer_table(wrapped(net))
    assert table.total_macs == 8 * 240 * 45 + 8 * 14 * 13 * 9 + 2912
    assert table.total_parameters == sum(p.numel() for p in net.parameters())
    assert table.total_kept == 4 * (8 * 240 + 8 * 14 * 13 + 2)
    assert json.loads(json.dumps(table.as_dict()))["total_macs"] == table.total_macs


def test_a_layer_that_runs_three_times_is_counted_three_times_but_held_once() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.other.weight = self.conv.weight
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.other(self.conv(self.conv(self.conv(x))))
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    table = layer_table(wrapped(Again(), 8))
    conv, other, _ = table.rows
    assert (conv.repeats, conv.macs, conv.parameters, conv.kept) == (3, 3 * 3 * 64 * 27, 84, 3 * 4 * 192)
    assert (other.parameters, other.macs) == (3, 3 * 64 * 27)  # its weight is the first one's
    assert saw(conv) == (7, 1)
    assert saw(other) == (9, 1)
    assert table.total_parameters == 84 + 3 + 8
    assert any("several times" in n and "conv" in n for n in table.notes)
    assert "ran 3 times" in "\n".join(table.lines())


def test_what_no_module_computes_stands_with_the_module_around_or_outside() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.rand(4, 3, 3, 3))
            self.unused = nn.Linear(5, 7)
            self.read = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            maps = F.conv2d(x, self.kernel)
            return F.linear(torch.relu(maps).amax((2, 3)), self.read.weight, self.read.bias)

    table = layer_table(wrapped(Own(), 8))
    outside, unused = table.rows
    assert outside.name == "outside modules"
    assert outside.macs == 4 * 36 * 27 + 8
    assert outside.parameters == 108 + 10  # read.weight and read.bias are read here, without a call of the module
    assert (unused.name, unused.parameters, unused.repeats, unused.shape) == ("unused", 42, 0, ())
    assert any("unused" in n and "not used" in n for n in table.notes)
    net = nn.MultiheadAttention(8, 2, batch_first=True)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = net, nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0])  # type: ignore[no-any-return]

    table = layer_table(Classifier(Attends(), Preprocess((3, 4), (0.5,) * 8, (0.5,) * 8), ("a", "b")))
    attention, _ = table.rows
    assert attention.parameters == sum(p.numel() for p in net.parameters())  # its out_proj is never called
    assert attention.macs == 12 * 8 * 24 + 2 * 12 * 12 * 8 + 12 * 64  # queries, keys, values; both products; out
    assert attention.field == Field((None, None), (None, None), True)
    assert torch.backends.mha.get_fastpath_enabled()


def test_operations_that_may_compute_anything_are_named() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft2(x).abs()

    net = nn.Sequential(nn.Conv2d(3, 2, 3), Spectrum(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    table = layer_table(wrapped(net, 8))
    assert table.unknown == ("1",)
    assert table.total_macs == 2 * 36 * 27
    text = "\n".join(table.lines())
    assert "not known" in text
    assert table.rows[1].field is None
    assert "receptive fields are not followed through" in text


@pytest.mark.parametrize("layer", [nn.Hardswish, nn.Mish, nn.ReLU6, nn.SiLU, nn.LeakyReLU])
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_see_what_they_are_given(layer: type[nn.Module], inplace: bool) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), layer(inplace=inplace), nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    table = layer_table(wrapped(net, 9))
    assert [r.field for r in table.rows if r.name in ("0", "2")] == [
        Field((3, 3), (1, 1), False),
        Field((5, 5), (1, 1), False),
    ]


# How much it sees, in closed form --------------------------------------------------------


@pytest.mark.parametrize(("layers", "size"), [(1, 3), (2, 5), (3, 7)])
def test_stacked_small_kernels_see_as_much_as_a_large_one(layers: int, size: int) -> None:
    net = nn.Sequential(*[nn.Conv2d(3, 3, 3) for _ in range(layers)])
    assert saw(rows(net)[str(layers - 1)]) == (size, 1)


def test_lenet_and_alexnet() -> None:
    found = rows(lenet5(), channels=1)
    assert [saw(found[n]) for n in ("c1", "s2.sum", "c3.maps.0", "s4.sum", "c5")] == [
        (5, 1), (6, 2), (14, 2), (16, 4), (32, 4),
    ]  # fmt: skip
    found = rows(alexnet(), 227)
    assert saw(found["features.conv5"]) == (163, 16)
    assert saw(found["features.pool5"]) == (195, 32)


# The table of Araujo, Norris & Sim 2019, doi:10.23915/distill.00021
@pytest.mark.slow
def test_the_article_s_table() -> None:
    vgg = blocks(torchvision.models.vgg16(weights=None), 32)
    assert saw(vgg["features.28"]) == (196, 16)
    assert saw(vgg["features.30"]) == (212, 32)
    assert saw(blocks(timm.create_model("mobilenetv1_100"), 32)["blocks.4.1"]) == (315, 32)
    assert saw(blocks(timm.create_model("inception_v3"), 96)["Mixed_7c"]) == (1311, 32)


@pytest.mark.parametrize(("name", "first", "now"), [("resnet50", 483, 427), ("resnet101", 1027, 971)])
@pytest.mark.slow
def test_where_a_resnet_strides_changes_what_it_sees(name: str, first: int, now: int) -> None:
    """The article's ResNets stride in another layer than torchvision's, whose 3x3 does: by hand 8 + 16 + 32 less."""
    net = torchvision.models.get_model(name, weights=None)
    assert saw(blocks(net, 32)["layer4"]) == (now, 32)
    for m in net.modules():
        if isinstance(m, torchvision.models.resnet.Bottleneck):
            m.conv1.stride, m.conv2.stride = m.conv2.stride, m.conv1.stride
    assert saw(blocks(net, 32)["layer4"]) == (first, 32)


def test_gates_normalisation_and_attention_see_the_whole_picture() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.mean((2, 3), keepdim=True).sigmoid()

    found = list(rows(nn.Sequential(nn.Conv2d(3, 4, 3), Gate(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4))).values())
    assert [r.field for r in found] == [
        Field((3, 3), (1, 1), False), Field((3, 3), (1, 1), True), Field((5, 5), (1, 1), True),
        Field((5, 5), (1, 1), True),
    ]  # fmt: skip

    class Past(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Gate()(x) + x  # type: ignore[no-any-return]

    assert rows(nn.Sequential(nn.Conv2d(3, 4, 3), Past()))["1"].field == Field((3, 3), (1, 1), True)
    norm = rows(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)))
    assert [r.field.whole for r in norm.values() if r.field] == [False, True, True]
    assert norm["2"].field is not None
    vit = rows(timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32), 32)
    assert vit["patch_embed.proj"].field == vit["blocks.0.norm1"].field == Field((16, 16), (16, 16), False)
    assert vit["blocks.0.norm2"].field == Field((16, 16), (16, 16), True)


class Fork(nn.Module):
    """Branches that begin at different places and strides, met again; channels picked; every second pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.right = nn.Sequential(nn.Conv2d(2, 4, (1, 7), padding=(0, 3)), nn.AvgPool2d(3, 2, 1))
        self.last = nn.Conv2d(8, 4, 3, dilation=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :, ::2, ::2], F.pad(x, (1, 0, 1, 0))[:, :1, :-1:2, :-1:2]], 1)
        return self.last(torch.cat([self.left(x), self.right(x[:, [0, 3]])], 1))  # type: ignore[no-any-return]


class Rows(nn.Module):
    """A dense layer for each pixel, as of channels-last networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.dense = nn.Conv2d(3, 6, 5, 2), nn.LayerNorm(6), nn.Linear(6, 4)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.after = nn.Conv2d(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.pool(self.dense(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1))
        self.b = nn.Conv2d(3, 4, 1, 2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.a(x))
        out += self.b(x)
        return F.avg_pool2d(out, 2)


@pytest.mark.parametrize(
    ("enlarging", "factor"),
    [
        (lambda: nn.Upsample(scale_factor=2), 2),
        (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 2),
        (lambda: nn.Upsample(scale_factor=4, mode="bilinear"), 4),
        (lambda: nn.ConvTranspose2d(4, 4, 4, 2, 1), 2),
        (lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, dilation=2), 2),
        (lambda: nn.ConvTranspose2d(4, 4, 8, 4, 2), 4),
    ],
)
def test_enlarged_maps_see_the_box_around_what_neighbouring_places_see(
    enlarging: Callable[[], nn.Module], factor: int
) -> None:
    """Places of another remainder by the factor see other windows; moved to one place, their box is the field."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 4, padding=1), enlarging(), nn.Conv2d(4, 4, 3, padding=1)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(0.5, 1)
    field = layer_table(wrapped(net, (64, 64))).rows[-1].field
    assert field is not None
    assert field.step == (4 // factor,) * 2
    assert not field.whole
    z = torch.rand(1, 3, 64, 64, requires_grad=True)
    out = net(z)[0].sum(0)
    lows, highs = [], []
    middle = out.shape[0] // 2 // factor * factor
    for place in range(middle, middle + factor):
        (g,) = torch.autograd.grad(out[place, place], z, retain_graph=True)
        seen = g[0].sum((0, 1)).nonzero()[:, 0]
        lows.append(int(seen.min()) - place * field.step[0])
        highs.append(int(seen.max()) - place * field.step[0])
    assert max(highs) - min(lows) + 1 == field.size[0] == field.size[1]


def test_maps_that_are_not_enlarged_by_a_whole_factor_are_not_followed() -> None:
    for enlarging in (nn.Upsample((13, 13)), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, 4, padding=1), enlarging, nn.Conv2d(4, 4, 1))
        assert layer_table(wrapped(net, (32, 32))).rows[-1].field is None


@pytest.mark.parametrize(
    "net",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, dilation=2)),
        lambda: nn.Sequential(nn.ZeroPad2d((3, 0, 1, 0)), nn.Conv2d(3, 4, (5, 2), 3), nn.Conv2d(4, 4, 2, 2)),
        Fork,
        Rows,
        Residual,
    ],
)
def test_gradients_are_there_exactly_inside_the_field(net: Callable[[], nn.Module]) -> None:
    """With positive weights nothing cancels: the box of all pixels with a gradient to the middle place is the field."""
    torch.manual_seed(0)
    made = net().eval()
    with torch.no_grad():
        for p in made.parameters():
            p.uniform_(0.5, 1)
    table = layer_table(wrapped(made, (64, 72)))
    outside = [b.field for b in table.blocks if b.name == ""]
    last = next((r for r in table.rows if r.name in ("last", "after", "2")), None)
    field = outside[0] if outside else last.field if last else table.rows[-1].field
    assert field is not None
    size, step = field.size, field.step
    assert not field.whole

    def box(move: int) -> list[tuple[int, int]]:
        found = [set(), set()]  # type: list[set[int]]
        for seed in range(4):  # a maximum passes its gradient to one pixel alone
            x = torch.rand(1, 3, 64, 72, generator=torch.Generator().manual_seed(seed)).requires_grad_()
            out = made(x)
            h, w = out.shape[2:]
            (g,) = torch.autograd.grad(out[:, :, h // 2 + move, w // 2 + move].sum(), x)
            ys, xs = (g[0].abs().sum(0) > 0).nonzero().unbind(1)
            found[0] |= set(ys.tolist())
            found[1] |= set(xs.tolist())
        return [(min(f), max(f)) for f in found]

    here, there = box(0), box(1)
    assert tuple(b - a + 1 for a, b in here) == size
    assert tuple(c - a for (a, _), (c, _) in zip(here, there, strict=True)) == step


# How much it computes, beside torch's own count --------------------------------------------------------


def torch_says(model: Classifier) -> int:
    x = torch.rand(1, model.preprocess.channels, *model.preprocess.size)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with model.undisturbed(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model.net(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


class Upwards(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.ConvTranspose2d(3, 4, 3, 2, groups=1), nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bd", self.up(x), torch.ones(4, 2))


COUNTED = [
    "torchvision:densenet121", "torchvision:swin_t", "torchvision:vit_b_16", "torchvision:shufflenet_v2_x1_0",
    "torchvision:googlenet", "timm:convnext_atto", "timm:efficientnet_b0", "timm:vit_tiny_patch16_224",
    "timm:mixer_s32_224", "timm:coat_lite_tiny", "upwards",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", with_slow(COUNTED, "torchvision:vit_b_16", "torchvision:swin_t", "timm:coat_lite_tiny")
)
def test_multiply_adds_are_those_that_torch_counts(name: str) -> None:
    library, _, word = name.partition(":")
    given = {"init_weights": False} if word == "googlenet" else {}
    net = Upwards() if not word else (
        timm.create_model(word) if library == "timm" else torchvision.models.get_model(word, weights=None, **given)
    )  # fmt: skip
    model = wrapped(net.eval(), 224 if word in ("vit_b_16", "swin_t") or library == "timm" else 64)
    table = layer_table(model)
    assert not table.unknown
    assert table.total_macs == torch_says(model) > 0
    assert table.total_parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "giga"), [("resnet18", 1.81), ("resnet34", 3.66), ("resnet50", 4.09)])
def test_the_literature_s_numbers(name: str, giga: float) -> None:
    """1.8, 3.6 (He et al. 2016, arXiv:1512.03385, table 1) and 4.1 (their 3.8 with the stride in the 3x3)."""
    net = torchvision.models.get_model(name, weights=None)
    assert round(layer_table(wrapped(net, 224)).total_macs / 1e9, 2) == giga


def test_a_recurrent_layer_counts_both_its_matrices_at_every_step() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm, self.head = nn.Conv1d(5, 6, 3), nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(self.conv(x).transpose(1, 2))[0][:, -1])  # type: ignore[no-any-return]

    found = rows(Reads(), (20,), 5)
    assert saw(found["conv"]) == (3, 1)
    assert found["conv"].kind == "Conv1d 3"
    assert found["lstm"].macs == 18 * 28 * (6 + 7)
    assert found["lstm"].shape == (18, 7)


# Manners --------------------------------------------------------


def test_the_model_comes_back_as_it_was_and_a_refusal_says_why(small: Classifier) -> None:
    before = small.fingerprint(), [m.training for m in small.net.modules()]
    state = torch.get_rng_state()
    layer_table(small)
    assert (small.fingerprint(), [m.training for m in small.net.modules()]) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small.net.modules())
    with pytest.raises(Refused, match=r"0\.weight has no shape yet"):
        layer_table(wrapped(nn.Sequential(nn.LazyConv2d(4, 3))))
    with pytest.raises(Refused, match=r"cannot run on an input of \(3, 32, 32\)"):
        layer_table(wrapped(nn.Sequential(nn.Conv2d(1, 4, 3))))

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = self.conv(x)
            return {"maps": maps, "scores": maps.mean((2, 3))}

    assert layer_table(wrapped(Two())).total_macs == 2 * 900 * 27  # no matter which output holds the scores


def test_long_networks_are_folded_and_nothing_is_lost_in_the_sums() -> None:
    table = layer_table(wrapped(torchvision.models.resnet152(weights=None), 32))
    for most in (10, 25, 60):
        for alike in (True, False):
            found = folded(table, most, alike=alike)
            assert len(found) <= most
            assert sum(r.parameters for r in found) == table.total_parameters
            assert sum(r.macs or 0 for r in found) == table.total_macs
            assert sum(r.kept for r in found) == table.total_kept
    assert "layer3.17" in {r.name for r in folded(table, 60, alike=False)}
    row = next(r for r in folded(table, 40) if r.name == "layer3.1 to 35")
    assert row.kind == "35 x Bottleneck"
    assert row.field == next(b for b in table.blocks if b.name == "layer3").field
    assert len(table.lines()) < 45 < len(table.lines(all=True))
    assert f"{table.total_parameters:,}" in table.lines()[-2]
    widths = {len(line) for line in table.lines(all=True)[2:-3] if line.endswith("/ 16")}
    assert len(widths) == 1  # columns stand under one another


def test_parallel_layers_that_are_alike_become_one_row() -> None:
    found = {r.name: r for r in folded(layer_table(wrapped(lenet5(), channels=1)), 40)}
    assert found["c3.maps.0 to 5"].kind == "6 x Conv2d 5x5"
    assert found["c3.maps.0 to 5"].macs == 6 * 75 * 100
    same = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)])
    assert len(folded(layer_table(wrapped(same)), 40)) == 4  # one after another they see ever more


def test_the_drawing_says_every_row_and_is_the_same_twice() -> None:
    table = layer_table(wrapped(torchvision.models.resnet18(weights=None), 64))
    svg = layer_drawing(table)
    assert svg == layer_drawing(table)
    said = ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]
    for row in folded(table, 32, alike=False):
        assert row.name in said
    assert "multiply-adds: 149 M" in said
    assert any(re.fullmatch(r"parameters: 11\.7 M", s) for s in said)
    named = ElementTree.fromstring(layer_drawing(table, title="runs/a/rather/long/place/to/keep/model-7"))
    assert "runs/a/rathe…g/place/to/keep/model-7" in ["".join(e.itertext()) for e in named.iter()]
    few = layer_drawing(table, most=3)
    assert len(few) < len(svg)
    with pytest.raises(Refused, match="at least one row"):
        layer_drawing(table, most=0)


# Side by side --------------------------------------------------------


class Bright(nn.Module):
    """Says "light" (1) for bright pictures; says the opposite where turned."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0 if turned else 1.0))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight * x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def shades(folder: Path, labels: tuple[str, ...]) -> Pictures:
    """Ten grey pictures; the last has no label and the one before is labelled wrongly."""
    made = []
    for i in range(10):
        value, light = (220, 1) if i % 2 else (30, 0)
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(folder / f"{i}.png")
        word = () if i == 9 else (labels[1 - light if i == 8 else light],)
        made.append(Picture(folder / f"{i}.png", f"{i}.png", word))
    return Pictures(folder, tuple(made))


def test_models_side_by_side(tmp_path: Path) -> None:
    pre = Preprocess(16, (0.5,) * 3, (0.5,) * 3)
    good = Classifier(Bright(), pre, ("dark", "light"), "good")
    turned = Classifier(Bright(True), pre, ("dark", "light"), "turned")
    swapped = Classifier(Bright(True), pre, ("light", "dark"), "swapped")  # right by its own labels
    strange = Classifier(Bright(), pre, ("cat", "dog"), "strange")
    lazy = Classifier(nn.Sequential(nn.LazyConv2d(2, 3)), pre, ("dark", "light"), "lazy")
    told: list[str] = []
    found = compare_models(
        [good, turned, swapped, strange, lazy], shades(tmp_path, ("dark", "light")), seconds=0.01,
        progress=lambda what, done, total: told.append(what),
    )  # fmt: skip
    a, b, c, d, e = found.models
    assert (a.accuracy, a.interval, a.labelled, a.pictures) == (8 / 9, wilson(8, 9), 9, 10)
    assert (b.accuracy, c.accuracy) == (1 / 9, 8 / 9)
    assert d.accuracy is None
    assert "dark" in d.trouble[0]
    assert len(d.speeds) == 2  # what it cannot be judged by does not keep it from being timed
    assert e.macs is None
    assert not e.speeds
    assert "no shape yet" in e.trouble[0]
    assert a.size == 4
    assert told
    assert [s.batch for s in a.speeds] == [1, 16]
    assert all(s.runs >= 3 and s.quartiles[0] <= s.median <= s.quartiles[1] for s in a.speeds)
    text = "\n".join(found.lines())
    assert "88.9 %" in text
    assert "strange: " in text
    assert json.loads(json.dumps(found.as_dict()))["models"][0]["labelled"] == 9
    with pytest.raises(Refused, match="no models"):
        compare_models([], None)
    with pytest.raises(Refused, match="seconds"):
        compare_models([good], None, seconds=0)


def test_runs_are_taken_in_turn_and_divided_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []
    spent = iter([9.0] * 4 + [0.016, 0.032, 0.160, 0.320] * 3 + [0.016] * 1000)

    def once(model: Classifier, x: Tensor) -> float:
        ran.append((model.source, len(x)))
        return next(spent)

    monkeypatch.setattr(comparing, "time_once", once)
    pre = Preprocess(4, (0.5,) * 3, (0.5,) * 3)
    pair = [Classifier(Bright(), pre, ("a", "b"), s) for s in ("one", "two")]
    first, second = compare_models(pair, None, seconds=1e-9).models
    assert ran == [("one", 1), ("one", 16), ("two", 1), ("two", 16)] * 4  # a round to warm up, three that count
    assert [round(s.median, 6) for s in first.speeds] == [16, 2]
    assert [round(s.median, 6) for s in second.speeds] == [160, 20]
    assert first.speeds[0].runs == 3


def test_the_size_of_a_file_counts_a_shared_weight_once_and_buffers_too() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)).half()
    net[1].weight = net[0].weight
    model = Classifier(nn.Sequential(nn.Flatten(), net), Preprocess((1,), (0.5,) * 3, (0.5,) * 3), ("a", "b", "c"))
    assert comparing.size_on_disk(model) == 4 * 9 + 4 * 12 + 8  # num_batches_tracked is one int64
