"""The networks of the lectures: layer by layer as many parameters as the papers and the lectures count, the sizes of
their maps, what their parts compute, and torchvision's and timm's own networks as peers.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.models.architectures import build, default_labels, default_preprocess, names
from clearsight.models.loading import load, save
from clearsight.networks.common.blocks import count
from clearsight.networks.lenet5 import C3
from clearsight.runner.run import explain
from thinning import with_slow

EVERY = list(catalogue("networks"))
TINY = {  # small enough to train a few steps, and the input that it is built for
    "perceptron": ("perceptron", (2, 4, 4)),
    "mlp": ("mlp(hidden=8, activation=tanh)", (2, 4, 4)),
    "lenet5": ("lenet5", (2, 32, 32)),
    "alexnet": ("alexnet(dense=16, dropout=0)", (2, 67, 67)),
    "zfnet": ("zfnet(dense=16, dropout=0)", (2, 53, 53)),
    "vgg": ("vgg(depth=11, dense=16, dropout=0)", (2, 32, 32)),
    "googlenet": ("googlenet(dropout=0)", (2, 65, 65)),
    "resnet": ("resnet(depth=20, stem=cifar)", (2, 12, 12)),
    "se-resnet": ("se-resnet(depth=20, stem=cifar, ratio=4)", (2, 12, 12)),
    "densenet": ("densenet(growth=4)", (2, 33, 33)),
    "pilotnet": ("pilotnet", (2, 66, 100)),
    "character-cnn": ("character-cnn(width=8)", (5, 40)),
    "plain-cnn": ("plain-cnn", (2, 16, 16)),
}
FLAT = {"perceptron", "mlp"}  # without feature maps
every = pytest.mark.parametrize("name", EVERY)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(spelling: str, classes: int | None = None, shape: tuple[int, ...] | None = None) -> nn.Module:
    """The network of that spelling, its weights always the same; by default for the paper's classes and shape."""
    call = parse(spelling, "networks")
    given = {k: v for k, v in (("classes", classes), ("shape", shape)) if v is not None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = call.method(**given, **call.options)
    assert isinstance(net, nn.Module)
    return net


def planned(spelling: str, **given: Any) -> nn.Module:
    """The same without any numbers: for counting only."""
    with torch.device("meta"):
        return made(spelling, **given)


def walked(net: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """What each part gives for one input (C, *S), without the first axis; of a network without numbers."""
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _m, _i, out: seen.__setitem__(name, tuple(out.shape[1:]))

    handles = [m.register_forward_hook(note(n)) for n, m in net.named_modules() if n]
    net.eval()(torch.empty(1, *shape, device="meta"))
    for h in handles:
        h.remove()
    return seen


def multiply_adds(net: nn.Module, shape: tuple[int, ...]) -> int:
    seen = walked(net, shape)
    parts = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    return sum(m.weight.numel() * math.prod(seen[n][1:]) for n, m in parts.items() if n in seen)


def pictures(shape: tuple[int, ...], n: int = 6) -> Tensor:
    return torch.rand(n, *shape, generator=seeded(1))


# -- all of them ------------------------------------------------------------------------------------------------------


@every
def test_example_in_the_docstring(name: str) -> None:
    m = catalogue("networks")[name]
    module = importlib.import_module(m.fn.__module__)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(m.fn, name, globs=vars(module) | {m.fn.__name__: m}):
        runner.run(test)
    assert runner.tries
    assert not runner.failures


@every
def test_manners_of_its_file(name: str) -> None:
    m = catalogue("networks")[name]
    assert list(inspect.signature(m.fn).parameters)[:2] == ["classes", "shape"]
    assert not m.injected
    assert m.paper
    assert "Refused" in (inspect.getdoc(m.fn) or "") or name in FLAT | {"se-resnet"}
    check_args_block(m)
    assert name in TINY, "a new network: say in TINY how small it can be"


@pytest.mark.parametrize("name", with_slow([*TINY], "googlenet", "vgg"))
def test_learns_a_tiny_batch(name: str) -> None:
    spelling, shape = TINY[name]
    net, y = made(spelling, 3, shape).train(), torch.tensor([0, 1, 2, 0, 1, 2])
    x = pictures(shape) * 0.5 + y.view(-1, *[1] * len(shape)) * 0.25  # the classes differ in how bright they are
    assert not any(getattr(m, "inplace", False) for m in net.modules())
    adam = torch.optim.Adam(net.parameters(), 0.01 if count(net) < 1e6 else 0.001)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        while len(losses) < 20 and not (losses and losses[-1] < 0.9 * losses[0]):
            out = net(x * 2 - 1)
            scores, *others = out if isinstance(out, tuple) else (out,)
            loss = F.cross_entropy(scores, y)
            losses.append(loss.item())
            adam.zero_grad()
            sum((0.3 * F.cross_entropy(o, y) for o in others), loss).backward()
            adam.step()
    assert scores.shape == (6, 3)
    assert all(p.grad is not None for p in net.parameters())
    assert losses[-1] < 0.9 * losses[0]


@every
def test_a_batch_is_its_pictures(name: str) -> None:
    spelling, shape = TINY[name]
    net, x = made(spelling, 3, shape).eval(), pictures(shape, 3)
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] != together[1]).any()


@every
def test_explained(name: str) -> None:
    spelling, (channels, *size) = TINY[name]
    net = made(spelling, 3, (channels, *size))
    model = Classifier(net, Preprocess(tuple(size), (0.5,) * channels, (0.5,) * channels), tuple("abc"), name)
    x = pictures((channels, *size), 2)
    assert explain(model, x, "saliency", ClassScore([0, 1])).maps.any()
    if name in FLAT:
        with pytest.raises(Refused, match="no convolution"):
            explain(model, x, "grad-cam", ClassScore([0, 1]))
        return
    found = [explain(model, x, "grad-cam", ClassScore([k, k])).maps for k in range(3)]
    assert found[0].shape == (2, *size)
    assert any(m.any() for m in found)


@every
def test_refuses_what_it_cannot_be(name: str) -> None:
    spelling, shape = TINY[name]
    with pytest.raises(Refused, match=rf"{name} with 0 classes: it needs at least 1"):
        made(spelling, 0, shape)
    if name in FLAT:
        with pytest.raises(Refused, match=r"takes inputs \(channels, sides"):
            made(spelling, 3, (7,))
        return
    with pytest.raises(Refused, match=rf"{name} takes (pictures|sequences) \(channels, "):
        made(spelling, 3, (2, 64, 64, 64))


@pytest.mark.parametrize(
    ("spelling", "least", "axes"),
    [
        ("lenet5", 32, 2), ("alexnet(dense=8)", 67, 2), ("zfnet(dense=8)", 53, 2), ("vgg(depth=11, dense=8)", 32, 2),
        ("googlenet", 65, 2), ("googlenet(aux=false)", 17, 2), ("resnet(depth=18)", 17, 2),
        ("resnet(depth=18, stem=cifar)", 5, 2), ("resnet(depth=20, stem=cifar)", 3, 2), ("se-resnet(depth=18)", 17, 2),
        ("densenet(growth=4)", 29, 2), ("pilotnet", 61, 2), ("character-cnn(width=4)", 3, 1),
        ("character-cnn(width=4, depth=4)", 9, 1), ("character-cnn(width=4, depth=8)", 27, 1), ("plain-cnn", 16, 2),
    ],
)  # fmt: skip
def test_the_least_size_runs_and_one_less_is_refused_with_it(spelling: str, least: int, axes: int) -> None:
    net = planned(spelling, classes=3, shape=(2, *[least] * axes)).train()
    out = net(torch.empty(2, 2, *[least] * axes, device="meta"))
    assert all(o.shape == (2, 3) for o in (out if isinstance(out, tuple) else (out,)))
    words = " x ".join([str(least)] * axes)
    with pytest.raises(Refused, match=f"at least {words}, not .*{least - 1}"):
        planned(spelling, classes=3, shape=(2, *[least] * (axes - 1), least - 1))
    doc = inspect.getdoc(parse(spelling, "networks").method.fn) or ""
    assert re.search(rf"\b{least}\b", doc) or spelling in ("se-resnet(depth=18)", "plain-cnn")


# -- parameters and sizes ---------------------------------------------------------------------------------------------

TOTALS = [  # what torchvision, timm or the paper counts; see each file for its paper
    ("perceptron", 7_850),
    ("lenet5", 60_000),
    ("alexnet", 62_378_344),
    ("alexnet(groups=2)", 60_965_224),
    ("zfnet", 62_357_608),
    ("vgg(depth=11)", 132_863_336),
    ("vgg(depth=13)", 133_047_848),
    ("vgg(depth=16C)", 133_638_952),
    ("vgg", 138_357_544),
    ("vgg(depth=19)", 143_667_240),
    ("vgg(norm=batch)", 138_365_992),
    ("googlenet(aux=false)", 6_998_552),
    ("googlenet", 13_378_280),
    ("resnet(depth=18)", 11_689_512),
    ("resnet(depth=34)", 21_797_672),
    ("resnet", 25_557_032),
    ("resnet(version=1.5)", 25_557_032),
    ("resnet(depth=101)", 44_549_160),
    ("resnet(depth=152)", 60_192_808),
    ("densenet", 7_978_856),
    ("densenet(depth=161, growth=48)", 28_681_000),
    ("densenet(depth=169)", 14_149_480),
    ("densenet(depth=201)", 20_013_928),
    ("se-resnet", 28_088_024),
    ("pilotnet", 252_219),
]


@pytest.mark.parametrize(("spelling", "total"), TOTALS)
def test_parameters_in_all(spelling: str, total: int) -> None:
    assert count(planned(spelling)) == total


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_resnet_for_cifar_has_the_paper_s_table_6(depth: int, millions: float) -> None:
    net = planned(f"resnet(depth={depth}, stem=cifar)", classes=10, shape=(3, 32, 32))
    assert count(net) / 1e6 == pytest.approx(millions, abs=0.008)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) + 1 == depth
    assert [walked(net, (3, 32, 32))[f"stage{i}"] for i in (1, 2, 3)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize(("depth", "billions"), [(18, 1.8), (34, 3.6), (50, 3.8), (101, 7.6), (152, 11.3)])
def test_resnet_costs_what_the_paper_s_table_1_says(depth: int, billions: float) -> None:
    net = planned(f"resnet(depth={depth})")
    assert multiply_adds(net, (3, 224, 224)) / 1e9 == pytest.approx(billions, abs=0.08)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(m.kernel_size != (1, 1) if depth < 50 and isinstance(m, nn.Conv2d) else True for m in layers) == (
        depth if depth < 50 else depth + 4  # a projection at the head of each stage is not counted in the name
    )


def test_resnet_halves_in_the_first_or_in_the_middle_convolution() -> None:
    for version, strides in (("1", [2, 1, 1]), ("1.5", [1, 2, 1])):
        block = planned(f"resnet(version={version})").get_submodule("stage2.0.branch")
        assert [m.stride[0] for m in block if isinstance(m, nn.Conv2d)] == strides


def test_resnet_shortcuts_without_weights_keep_every_second_place_and_add_zeros() -> None:
    net = made("resnet(depth=20, stem=cifar)", 10, (3, 32, 32))
    x = torch.rand(1, 16, 6, 6, generator=seeded(0))
    out = net.get_submodule("stage2.0.shortcut")(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out.shape == (1, 32, 3, 3)
    assert not out[:, 16:].any()
    block = net.get_submodule("stage2.0").eval()
    torch.testing.assert_close(block(x), (block.branch(x) + out).relu())


def test_resnet_and_vgg_begin_as_he_et_al_say() -> None:
    """arXiv:1502.01852, equation 10: a standard deviation of sqrt(2 / inputs of a unit), biases zero."""
    net = made("resnet(depth=18)", 10)
    for name, inputs in (("stem.conv", 147), ("stage2.1.branch.conv1", 1152), ("stage4.1.branch.conv2", 4608)):
        weight = net.get_submodule(name).weight.detach()
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / inputs), rel=0.03)
    assert not net.get_submodule("head").bias.any()
    vgg = made("vgg(depth=11, dense=8)", 10, (3, 32, 32))
    assert float(vgg.get_submodule("features.conv5_1.conv").weight.detach().std()) == pytest.approx(
        math.sqrt(2 / 4608), rel=0.03
    )


def test_se_resnet_weighs_its_maps_by_their_averages() -> None:
    gate = made("se-resnet(depth=20, stem=cifar, ratio=4)", 10, (3, 32, 32)).get_submodule("stage1.0.branch.gate")
    x = torch.rand(2, 16, 5, 5, generator=seeded(0))
    w1, w2 = (m.weight.flatten(1) for m in (gate.weigh.dense1, gate.weigh.dense2))
    assert w1.shape == (4, 16)
    by_hand = torch.stack([torch.sigmoid(w2 @ (w1 @ p.mean((1, 2))).relu()) for p in x])
    torch.testing.assert_close(gate(x), x * by_hand[:, :, None, None])
    with pytest.raises(Refused, match=r"ratio must be from 1 to 64, .*, not 128"):
        planned("se-resnet(depth=18, ratio=128)")


def test_lenet5_layer_by_layer() -> None:
    """LeCun et al. 1998, II.B: trained parameters, connections and sizes of each layer."""
    net = planned("lenet5")
    seen = walked(net, (1, 32, 32))
    trained = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert {n: count(net.get_submodule(n)) for n in trained} == trained
    sides = {"c1": 28, "s2": 14, "c3": 10, "s4": 5, "c5": 1}
    assert {n: seen[n][1] for n in sides} == sides
    assert seen["f6"] == (84,)
    joined = {n: trained[n] * seen[n][1] ** 2 for n in ("c1", "c3", "c5")}
    joined |= {n: 5 * math.prod(seen[n]) for n in ("s2", "s4")}  # four places and a bias
    assert joined == {"c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120}
    assert sum(joined.values()) + 10_164 + 84 * 10 == 340_908
    full = planned("lenet5(c3=full, form=modern)")
    assert [count(m) for m in full if count(m)] == [156, 2_416, 48_120, 10_164, 850]


def test_lenet5_s_third_layer_reads_the_maps_of_its_table() -> None:
    net = made("lenet5")
    x = torch.rand(1, 6, 14, 14, generator=seeded(0), requires_grad=True)
    out = net.get_submodule("c3")(x)
    dense = torch.zeros(16, 6, 5, 5)
    for k, (row, layer) in enumerate(zip(C3, net.get_submodule("c3").maps, strict=True)):
        dense[k, list(row)] = layer.weight[0].detach()
        (g,) = torch.autograd.grad(out[0, k].sum(), x, retain_graph=True)
        assert tuple(g[0].abs().sum((1, 2)).nonzero().flatten().tolist()) == row
    bias = torch.cat([m.bias for m in net.get_submodule("c3").maps])
    torch.testing.assert_close(out, F.conv2d(x, dense, bias))
    assert [len(r) for r in C3] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3)) == 16
    assert [sum(j in r for r in C3) for j in range(6)] == [10] * 6


def test_lenet5_s_parts() -> None:
    net = made("lenet5")
    assert float(net.get_submodule("act1")(torch.tensor(1.0))) == pytest.approx(1, abs=1e-4)
    assert float(net.get_submodule("act1")(torch.tensor(9.0))) == pytest.approx(1.7159, abs=1e-4)
    s2 = net.get_submodule("s2")
    s2.scale.weight.data.fill_(0.25)
    s2.scale.bias.data.fill_(0.5)
    block = torch.tensor([[1.0, 2], [3, 4]]).repeat(1, 6, 1, 1)
    assert s2(block).flatten().tolist() == pytest.approx([1.7159 * math.tanh(2 / 3 * 3.0)] * 6)
    output = net.get_submodule("output")
    assert set(output.codes.unique().tolist()) == {-1, 1}
    assert len(output.codes.unique(dim=0)) == 10
    assert output(output.codes).diagonal().tolist() == [0] * 10
    flipped = output.codes[3:4] * torch.tensor([-1.0] * 5 + [1.0] * 79)
    assert float(output(flipped)[0, 3]) == -20
    assert made("lenet5").state_dict()["output.codes"].equal(output.codes)


def test_alexnet_layer_by_layer() -> None:
    net = planned("alexnet")
    seen = walked(net, (3, 227, 227))
    assert net.get_submodule("features.conv1").weight.numel() == 34_848
    kept = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [seen[f"features.{n}"] for n in kept] == [
        (96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13), (256, 13, 13),
        (256, 6, 6),
    ]  # fmt: skip
    counts = [count(m) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert counts == [34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000]
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    paired = [m.groups for m in planned("alexnet(groups=2)").modules() if isinstance(m, nn.Conv2d)]
    assert paired == [1, 2, 1, 2, 2]


def test_alexnet_normalises_responses_as_in_3_3() -> None:
    norm = planned("alexnet").get_submodule("features.norm1")
    a = torch.tensor([100.0, 50, 20, 10, 5, 2]).view(1, 6, 1, 1)
    squares = (a**2).flatten().tolist()
    sums = [sum(squares[max(i - 2, 0) : i + 3]) for i in range(6)]
    by_hand = [v / (2 + 1e-4 * s) ** 0.75 for v, s in zip(a.flatten().tolist(), sums, strict=True)]
    assert norm(a).flatten().tolist() == pytest.approx(by_hand, rel=1e-5)


def test_zfnet_sizes() -> None:
    seen = walked(planned("zfnet"), (3, 224, 224))
    kept = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [seen[f"features.{n}"][1] for n in kept] == [110, 55, 26, 13, 13, 13, 13, 6]
    assert [seen[f"features.{n}"][0] for n in kept] == [96, 96, 256, 256, 384, 384, 256, 256]
    wide = walked(planned("zfnet(wide=true)"), (3, 224, 224))
    assert [wide[f"features.conv{i}"][0] for i in (3, 4, 5)] == [512, 1024, 512]


def test_vgg_sizes_and_activations() -> None:
    net = planned("vgg")
    seen = walked(net, (3, 224, 224))
    assert [seen[f"features.pool{i}"] for i in range(1, 6)] == [
        (64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)
    ]  # fmt: skip
    columns = {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), "16C": (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
    for depth, stages in columns.items():
        features = planned(f"vgg(depth={depth})").get_submodule("features")
        found = [n for n, _ in features.named_children()]
        assert tuple(sum(n.startswith(f"conv{i}_") for n in found) for i in range(1, 6)) == stages
        ones = [n for n, m in features.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        assert ones == ([f"conv{i}_3.conv" for i in (3, 4, 5)] if depth == "16C" else [])
    kept = [
        m for n, m in seen.items() if n.endswith((".conv", "pool1", "pool2", "pool3", "pool4", "pool5")) or "fc" in n
    ]
    numbers = sum(map(math.prod, kept)) + 3 * 224 * 224
    assert numbers == 15_237_608  # 61 MB; the 24 M and 96 MB that are often told are not the sum of their own table


@pytest.mark.slow
def test_googlenet_layer_by_layer() -> None:
    """Table 1: sizes, and parameters of each block."""
    net = planned("googlenet")
    seen = walked(net, (3, 224, 224))
    assert [seen[f"stem.{n}"] for n in ("conv1", "pool1", "conv2", "pool2")] == [
        (64, 112, 112), (64, 56, 56), (192, 56, 56), (192, 28, 28)
    ]  # fmt: skip
    blocks = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    maps = [(256, 28), (480, 28), (512, 14), (512, 14), (512, 14), (528, 14), (832, 14), (832, 7), (1024, 7)]
    assert [seen[f"inception{b}"] for b in blocks] == [(c, s, s) for c, s in maps]
    assert seen["pool3"] == (480, 14, 14)
    told = [159, 380, 364, 437, 463, 580, 840, 1072, 1388]  # the table's thousands
    weights = [sum(p.numel() for p in net.get_submodule(f"inception{b}").parameters() if p.dim() > 1) for b in blocks]
    assert weights == [163_328, 388_096, 375_552, 448_512, 509_440, 604_672, 867_328, 1_042_432, 1_442_816]
    near = [abs(n - 1024 * t) < 0.02 * n for n, t in zip(weights, told, strict=True)]
    assert near == [True] * 4 + [False] + [True] * 2 + [False, True]  # 4c and 5a do not follow from their own widths
    assert seen["pool5"] == (1024, 1, 1)
    assert count(net.get_submodule("pool5")) == 0
    assert planned("mlp(hidden=1024)", shape=(1024, 7, 7)).get_submodule("dense1").weight.numel() == 51_380_224
    assert 5e6 < count(planned("googlenet(aux=false)")) < 7e6


def test_googlenet_s_inception_lays_four_paths_one_after_the_other() -> None:
    block = made("googlenet(aux=false)", 3, (3, 32, 32)).get_submodule("inception3a")
    x = torch.randn(1, 192, 6, 6, generator=seeded(0))

    def path(x: Tensor, *layers: nn.Module) -> Tensor:
        for m in layers:
            x = F.conv2d(x, m.weight, m.bias, padding=m.weight.shape[2] // 2).relu()
        return x

    one, before3, three, before5, five, pooled = (m for m in block.modules() if isinstance(m, nn.Conv2d))
    paths = [path(x, one), path(x, before3, three), path(x, before5, five), path(F.max_pool2d(x, 3, 1, 1), pooled)]
    assert [p.shape[1] for p in paths] == [64, 128, 32, 32]
    torch.testing.assert_close(block(x), torch.cat(paths, 1))


def test_googlenet_s_auxiliary_heads_speak_in_training_only() -> None:
    net = made("googlenet", 3, (2, 65, 65))
    x = pictures((2, 65, 65), 2)
    assert isinstance(net.eval()(x), Tensor)
    net.train()
    for m in net.modules():
        if isinstance(m, nn.Dropout):
            assert m.p == (0.4 if m is net.drop else 0.7)
            m.eval()
    scores, aux1, aux2 = net(x)
    a = net.inception4a(net.pool3(net.inception3b(net.inception3a(net.stem(x)))))
    torch.testing.assert_close(aux1, net.aux1(a))
    torch.testing.assert_close(aux2, net.aux2(net.inception4d(net.inception4c(net.inception4b(a)))))
    torch.testing.assert_close(scores, net.eval()(x))
    assert walked(planned("googlenet").get_submodule("aux1"), (512, 14, 14))["pool"] == (512, 4, 4)
    assert isinstance(made("googlenet(aux=false)", 3, (2, 65, 65)).train()(x), Tensor)


def test_pilotnet_layer_by_layer() -> None:
    net = planned("pilotnet")
    seen = walked(net, (3, 66, 200))
    assert [seen[f"features.conv{i}"] for i in range(1, 6)] == [
        (24, 31, 98), (36, 14, 47), (48, 5, 22), (64, 3, 20), (64, 1, 18)
    ]  # fmt: skip
    counts = [count(m) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert counts == [1_824, 21_636, 43_248, 27_712, 36_928, 115_300, 5_050, 510, 11]


def test_densenet_keeps_what_came_before() -> None:
    net = made("densenet(growth=4)", 3, (2, 33, 33))
    x = torch.rand(1, 8, 5, 5, generator=seeded(0))
    out = net.get_submodule("block1.0").eval()(x)
    assert torch.equal(out[:, :8], x)
    assert out.shape[1] == 12
    seen = walked(planned("densenet"), (3, 224, 224))
    assert [seen[f"block{i}"] for i in (1, 2, 3, 4)] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (1024, 7, 7)]
    assert [seen[f"transition{i}"] for i in (1, 2, 3)] == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]


@pytest.mark.parametrize(("depth", "places"), [(2, 324), (4, 108), (8, 36)])
def test_character_cnn_by_depth(depth: int, places: int) -> None:
    net = planned(f"character-cnn(depth={depth})")
    kernels = [m.kernel_size[0] for m in net.modules() if isinstance(m, nn.Conv1d)]
    assert kernels == [7, 7, *[3] * (depth - 2)]
    assert walked(net, (95, 974))[f"relu{depth}"] == (256, places)
    assert count(net) == 95 * 7 * 256 + 256 + 256 * 7 * 256 + 256 + (depth - 2) * (256 * 3 * 256 + 256) + 514


@pytest.mark.parametrize("pool", ["average", "max"])
def test_character_cnn_embeds_letters_and_pools(pool: str) -> None:
    """An embedding is a matrix product at every place, of nothing for padding; a piece counts wherever it stands."""
    net = made(f"character-cnn(width=8, embedding=3, pool={pool})", 2, (5, 90)).eval()
    letters = torch.tensor([1, 0, 4, 2])
    piece = F.one_hot(letters, 5).T.float()
    x = torch.zeros(2, 5, 90)
    x[0, :, 36:40], x[1, :, 48:52] = piece, piece
    embedded = net.embedding(x)
    torch.testing.assert_close(embedded[0, :, 36:40], net.embedding.weight[:, letters, 0])
    assert not embedded[0, :, 40:].any()
    maps = net[:-3](x)
    pooled = maps.amax(2) if pool == "max" else maps.mean(2)
    torch.testing.assert_close(net(x), pooled @ net.head.weight.T + net.head.bias)
    torch.testing.assert_close(net(x)[0], net(x)[1])
    with pytest.raises(Refused, match="embedding=-1"):
        made("character-cnn(embedding=-1)", 2, (5, 45))


@pytest.mark.parametrize("depth", [2, 4])
def test_character_cnn_normalises_before_each_relu(depth: int) -> None:
    """In training each map has mean 0 and variance 1 over texts and places before it is rectified: as by hand."""
    net = made(f"character-cnn(width=4, depth={depth}, norm=batch)", 2, (5, 30)).train()
    texts = x = F.one_hot(torch.randint(0, 5, (3, 30), generator=seeded(0)), 5).transpose(1, 2).float()
    for i in range(1, depth + 1):
        z = net.get_submodule(f"conv{i}")(x)
        mean, variance = z.mean((0, 2), keepdim=True), z.var((0, 2), unbiased=False, keepdim=True)
        x = ((z - mean) / (variance + 1e-5).sqrt()).relu()
        if i < min(depth, 3):
            x = F.max_pool1d(x, 3)
    names = [name for name, _ in net.named_children()]
    rectified = net[: names.index(f"relu{depth}") + 1](texts)
    torch.testing.assert_close(rectified, x)
    assert [name.rstrip("12345678") for name in names].count("norm") == depth


def test_character_cnn_sees_letters_and_where_they_are() -> None:
    """Its class activation map of a text is the weighted maps, enlarged: the head is linear behind averages."""
    net = made("character-cnn(width=8)", 2, (5, 30)).eval()
    x = F.one_hot(torch.arange(30) % 5, 5).T[None].float()
    maps = net[:-3](x)
    assert maps.shape == (1, 8, 10)
    torch.testing.assert_close(net(x), maps.mean(2) @ net.head.weight.T + net.head.bias)
    model = Classifier(net, Preprocess((30,), (0.0,) * 5, (1.0,) * 5), ("normal", "anomalous"), "texts")
    found = explain(model, x, "cam", ClassScore([1])).maps
    low = (maps * net.head.weight[1].view(1, -1, 1)).sum(1, keepdim=True)
    wanted = F.interpolate(low, 30, mode="linear", align_corners=False)[0, 0]
    assert torch.corrcoef(torch.stack([found[0], wanted]))[0, 1] > 0.9999


# -- the lectures' small networks -------------------------------------------------------------------------------------


def layers_of(net: nn.Module) -> list[int]:
    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d
    return [sum(p.numel() for p in m.parameters()) for m in net.modules() if isinstance(m, kinds)]


def test_plain_cnn_is_the_small_cnn() -> None:
    """28 × 28 × 1: conv 8 same, pool, conv 16, pool, conv 16, dense 64, dense 10."""
    net = planned("plain-cnn")
    assert layers_of(net) == [80, 1_168, 2_320, 16_448, 650]
    assert [walked(net, (1, 28, 28))[n][1] for n in ("conv1", "pool1", "conv2", "pool2", "conv3")] == [28, 14, 12, 6, 4]


def test_plain_cnn_is_the_flower_cnn() -> None:
    """180 × 180 × 3: 16, 32 and 64 maps, each pooled; flatten, dense 128, dense 5."""
    net = planned("plain-cnn(widths='16,32,64', padding=1, pools=2, dense=128)", classes=5, shape=(3, 180, 180))
    assert layers_of(net) == [448, 4_640, 18_496, 3_965_056, 645]
    assert count(net) == 3_989_285
    assert walked(net, (3, 180, 180))["flatten"] == (30_976,)


def test_plain_cnn_is_the_six_convolutions_with_batchnorm() -> None:
    """Keras counts the moving averages as parameters that are not trained: 896 of them."""
    widths = "'32,64,128,32,64,128', kernel=2, strides='1,1,2,1,1,2', padding=0, pools=1, dense=128"
    net = planned(f"plain-cnn(widths={widths}, norm=batch)")
    moving = sum(b.numel() for n, b in net.named_buffers() if "running" in n)
    assert count(net) == 510_794
    assert count(net) + moving == 511_690
    assert count(planned(f"plain-cnn(widths={widths})")) == 510_794 - 896
    kinds = [type(m).__name__ for m in planned(f"plain-cnn(widths={widths}, norm=layer)").modules()]
    assert kinds.count("GroupNorm") == 6
    sides = [walked(net, (1, 28, 28))[f"conv{i}"][1] for i in range(1, 7)]
    assert sides == [27, 26, 13, 12, 11, 5]


def test_plain_cnn_s_options() -> None:
    net = made("plain-cnn(widths=4, padding=1, pools=1, head=average, dense='', norm=layer)", 3, (2, 9, 7)).eval()
    x = pictures((2, 9, 7), 2)
    maps = F.conv2d(x, net.conv1.conv.weight, net.conv1.conv.bias, padding=1)
    mean, var = maps.mean((1, 2, 3), keepdim=True), maps.var((1, 2, 3), unbiased=False, keepdim=True)
    by_hand = ((maps - mean) / (var + 1e-5).sqrt()).relu().mean((2, 3))
    torch.testing.assert_close(net(x), by_hand @ net.scores.weight.T + net.scores.bias)
    assert planned("plain-cnn(dropout=0.5)").get_submodule("drop").p == 0.5
    for words, says in (
        ("widths=''", "at least one convolution"), ("widths='8,x'", "whole numbers such as"), ("strides='1,2'", "or 3"),
        ("widths='8,0'", "each must be at least 1"), ("kernel=0", "at least 1"), ("dropout=1", "below 1"),
        ("padding='-1'", "at least 0"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=says):
            planned(f"plain-cnn({words})")


# -- dense networks ---------------------------------------------------------------------------------------------------

XOR = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).view(4, 1, 1, 2), torch.tensor([0, 1, 1, 0])


def test_mlp_tells_xor_by_hand() -> None:
    """relu(a + b) - 2 relu(a + b - 1) is 0, 1, 1, 0."""
    net = made("mlp(hidden=2, activation=relu)", 1, (1, 1, 2))
    net.dense1.weight.data = torch.ones(2, 2)
    net.dense1.bias.data = torch.tensor([0.0, -1])
    net.scores.weight.data, net.scores.bias.data = torch.tensor([[1.0, -2]]), torch.zeros(1)
    assert net(XOR[0])[:, 0].tolist() == [0, 1, 1, 0]


def trained(net: nn.Module, steps: int = 400) -> float:
    """How many of XOR's four it then tells."""
    adam = torch.optim.Adam(net.parameters(), 0.05)
    for _ in range(steps):
        adam.zero_grad()
        F.cross_entropy(net(XOR[0]), XOR[1]).backward()
        adam.step()
    return float((net(XOR[0]).argmax(1) == XOR[1]).float().mean())


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky-relu", "elu", "maxout"])
def test_mlp_learns_xor_by_a_hidden_layer(activation: str) -> None:
    assert trained(made(f"mlp(hidden=8, activation={activation})", 2, (1, 1, 2))) == 1


def test_perceptron_cannot_learn_xor() -> None:
    assert trained(made("perceptron", 2, (1, 1, 2))) <= 0.75
    assert trained(made("mlp(hidden='')", 2, (1, 1, 2))) <= 0.75


def test_perceptron_is_a_weighted_sum() -> None:
    net, x = made("perceptron", 3, (2, 4, 4)), pictures((2, 4, 4))
    torch.testing.assert_close(net(x), x.flatten(1) @ net.dense.weight.T + net.dense.bias)


def test_mlp_s_activations_and_options() -> None:
    a = torch.tensor([[-2.0, 0.5, 3, 1]])
    for name, wanted in (
        ("sigmoid", a.sigmoid()), ("tanh", a.tanh()), ("relu", a.relu()), ("elu", F.elu(a)),
        ("leaky-relu", torch.tensor([[-0.2, 0.5, 3, 1]])), ("maxout", torch.tensor([[0.5, 3]])),
    ):  # fmt: skip
        net = made(f"mlp(hidden=2, activation={name})", 3, (1, 2, 2))
        torch.testing.assert_close(net.get_submodule(name.replace("-", "_") + "1")(a), wanted)
    assert [count(m) for m in made("mlp(hidden='5,7', dropout=0.25)", 3, (4,) * 3) if count(m)] == [325, 42, 24]
    assert [m.p for m in made("mlp(hidden='5,7', dropout=0.25)").modules() if isinstance(m, nn.Dropout)] == [0.25] * 2
    assert count(made("mlp(hidden=5, activation=maxout)", 3, (1, 2, 2))) == 10 * 5 + 3 * 6
    with pytest.raises(Refused, match="dropout=1"):
        made("mlp(dropout=1)")


# -- peers ------------------------------------------------------------------------------------------------------------


def peer(library: str, name: str) -> nn.Module:
    """The library's own network without numbers, in eval mode."""
    with torch.device("meta"):
        if library == "timm":
            import timm

            made = timm.create_model(name)
        else:
            made = torchvision.models.get_model(name, weights=None)
    assert isinstance(made, nn.Module)
    return made.eval()


@pytest.mark.parametrize(
    ("spelling", "library", "name", "size"),
    [
        ("resnet(depth=18)", "torchvision", "resnet18", 64),
        ("resnet(depth=50, version=1.5)", "torchvision", "resnet50", 64),
        pytest.param("vgg(depth=16)", "torchvision", "vgg16", 224, marks=pytest.mark.slow),
        ("densenet(depth=121)", "torchvision", "densenet121", 64),
        ("se-resnet(depth=50, version=1.5)", "timm", "seresnet50", 64),
    ],
)
def test_gives_what_the_peer_gives(spelling: str, library: str, name: str, size: int) -> None:
    """With the same numbers, laid over in the order of the state dict."""
    ours, theirs = made(spelling, 1000, (3, size, size)).eval(), peer(library, name)
    with torch.no_grad():
        for m in ours.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1, generator=seeded(2))
                m.running_var.uniform_(0.8, 1.2, generator=seeded(3))
                m.weight.uniform_(0.3, 0.7, generator=seeded(4))
                m.bias.normal_(0, 0.1, generator=seeded(5))
    state = ours.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)), assign=True)
    x = torch.randn(1, 3, size, size, generator=seeded(0))
    with torch.no_grad():
        mine, other = ours(x), theirs(x)
    assert mine.std() > 1e-3
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


# -- by name ----------------------------------------------------------------------------------------------------------


@every
def test_by_name_for_the_paper_s_input(name: str) -> None:
    spelling = f"clearsight:{name}"
    assert spelling in names()
    fn = catalogue("networks")[name].fn
    classes, shape = (inspect.signature(fn).parameters[p].default for p in ("classes", "shape"))
    pre = default_preprocess(spelling)
    assert (pre.channels, *pre.size) == shape
    assert (set(pre.mean), set(pre.std), pre.resize) == ({0.5}, {0.5}, None)
    labels = default_labels(spelling)
    assert len(labels) == classes
    assert labels[0] == ("tench, Tinca tinca" if classes == 1000 else "0")


def test_loaded_by_name_and_written_and_read_back(tmp_path: Path) -> None:
    model = load("clearsight:lenet5(c3=full, form=modern)", weights="none", labels=["a", "b"])
    with torch.no_grad():
        model.net.get_submodule("output").bias.add_(1)
    run = save(model, tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["architecture"] == "clearsight:lenet5(c3=full, form=modern)"
    again = load(run)
    x = pictures((1, 32, 32), 2)
    assert torch.equal(model(x), again(x))
    assert again.labels == ("a", "b")
    third = load(save(again, tmp_path / "third"))
    assert third.fingerprint() == model.fingerprint()


def test_options_beside_the_spelling_are_checked_as_words(tmp_path: Path) -> None:
    pre = Preprocess((16, 16), (0.5,) * 2, (0.5,) * 2)
    net = build("clearsight:plain_cnn(dense='', widths=8)", 3, pre, {"widths": "4,5", "padding": "1", "pools": "1"})
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [4, 5]
    assert net.get_submodule("scores").in_features == 5 * 16 * 16
    assert not net.training
    assert net(pictures((2, 16, 16), 2)).shape == (2, 3)
    model = Classifier(net, pre, tuple("abc"))
    options = {"widths": "4,5", "padding": "1", "pools": "1", "dense": ""}
    run = save(model, tmp_path / "run", architecture="clearsight:plain-cnn", architecture_options=options)
    assert load(run).fingerprint() == model.fingerprint()
    for given, says in (
        ({"depht": 3}, "no option 'depht': did you mean depth"), ({"depth": 17}, "cannot be '17'"),
        ({"depth": "deep"}, "cannot be 'deep'"), ({"dropout": None}, "it is a number"),
        ({"classes": 3}, "no option 'classes'"), ({"pretrained": True}, "cannot be set by a run folder"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=says):
            build("clearsight:vgg", 3, Preprocess(32, (0.5,) * 3, (0.5,) * 3), given)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("clearsight:lenet", "clearsight has no network 'lenet': did you mean lenet5"),
        ("clearsight:lenet5(c4=full)", "lenet5 has no option 'c4': did you mean c3"),
        ("clearsight:lenet5(c3=ful)", "did you mean full"),
        ("clearsight:lenet5(c3=full", "a bracket is not closed"),
        ("clearsight:./evil.py:net", "clearsight has no network './evil.py:net'"),
        ("clearsight:resnet(depth=20)", "give stem=cifar too"),
        ("clearsight:", "clearsight has no network ''"),
    ],
)
def test_other_names_are_refused(words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('ran', 'w')\n\ndef net(classes, shape):\n    pass\n")
    with pytest.raises(Refused, match=re.escape(says)):
        load(words, weights="none")
    assert not Path("ran").exists()


def test_there_are_no_pretrained_weights() -> None:
    with pytest.raises(Refused, match=r"clearsight:lenet5 has no pretrained weights: train it, or give weights=FILE"):
        load("clearsight:lenet5", say=pytest.fail)


def test_one_output_is_a_value() -> None:
    model = load("clearsight:pilotnet", weights="none", labels=["angle"], scores="values")
    assert model(pictures((3, 66, 200), 2)).shape == (2, 1)


@pytest.mark.slow
def test_inspected_on_the_command_line(run: Callable[..., Any]) -> None:
    told = run("inspect", "clearsight:lenet5", "--weights", "none")
    assert told.status == 0
    assert "60,000 parameters" in told.out
    assert "Nothing stands in the way" in told.out
    assert run("inspect", "clearsight:lenet", "--weights", "none").status == 2
