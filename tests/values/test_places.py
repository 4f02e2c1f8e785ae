"""Class-activation methods on transformers: the grid is found, the class token left out, and the way back is right."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Notice, Refused
from clearsight.internals.forward_from_layer import forward_from, forward_whole
from clearsight.internals.layers import activations, activations_and_gradients
from clearsight.internals.places import Layout, Response, as_maps, entering, layouts
from clearsight.internals.probe import probed
from clearsight.internals.target_layer import target_layer
from clearsight.runner.run import explain
from tokennets import Laid, laid, made


@pytest.fixture(scope="module")
def vit() -> Classifier:
    return made("timm:vit_tiny_patch16_224", (32, 64))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))


def test_maps_are_put_back_as_they_were():
    out = torch.rand(2, 10, 5)
    maps, back = as_maps(out, Layout((2, 4), before=1, after=1, row=True))
    assert maps.shape == (2, 5, 2, 4)
    assert torch.equal(maps[1, 3, 1, 2], out[1, 1 + 6, 3])
    assert torch.equal(back(maps), out)
    assert torch.equal(back(maps * 0)[:, [0, 9]], out[:, [0, 9]])


@pytest.mark.parametrize("size", [(32, 32), (20, 28), (33, 30)])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (0, 1), (1, 4), (0, 7)])
def test_extra_tokens_are_found_by_what_the_network_does(size, before, after):
    model = laid(size, before, after)
    with model.undisturbed():
        found = {s.name: s.layout for s in probed(model, torch.rand(1, 3, *size)).runs}
    sides = (size[0] // 4, size[1] // 4)
    assert found["mixed"] == found["last"] == Layout(sides, before=before, after=after, row=True)
    assert found["cut"] == Layout(sides, first=True)


def test_a_last_patch_that_is_filled_up_is_a_place_too():
    class Padded(Laid):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)))

    model = Classifier(Padded(1, 0).eval(), Preprocess((33, 30), (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "padded")
    with model.undisturbed():
        found = {s.name: s.layout for s in probed(model, torch.rand(1, 3, 33, 30)).runs}
    assert found["last"] == Layout((9, 8), before=1, row=True)


def test_tokens_in_no_order_of_places_are_refused_and_an_earlier_layer_is_not_read_in_silence():
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(
        Refused, match=r"after its last convolution \(cut\) laid continues with attention: name a layer"
    ):
        explain(laid((32, 32), 1, 0, order=order), x, "grad-cam")
    model = laid((32, 32), 1, 0, order=order, attends=False)
    with pytest.raises(Refused, match=r"layer last gives \(1, 65, 12\), not feature maps"):
        explain(model, x, "grad-cam(layer=last)")
    with pytest.warns(Notice, match=r"read is cut: last, which comes later \(LayerNorm, 65 x 12\), gives no places"):
        found = explain(model, x, "grad-cam")
    assert found.method == "grad-cam(layer=cut)"


@pytest.mark.slow
def test_a_layout_that_no_grid_divides_gives_the_map_of_the_paper():
    """Swin at 260 pixels: 9 x 9 places of 768 channels, channels last."""
    model = made("swin_t", (260, 260))
    x = torch.rand(1, 3, 260, 260, generator=torch.Generator().manual_seed(1))
    h = model.net.norm(model.net.features((x - 0.5) / 0.5)).detach().requires_grad_()
    model.net.head(model.net.flatten(model.net.avgpool(model.net.permute(h))))[:, 2].sum().backward()
    low = (h * h.grad.mean((1, 2), keepdim=True)).sum(-1).relu()[:, None]
    wanted = F.interpolate(low, (260, 260), mode="bilinear")[:, 0].detach()
    model.net.zero_grad()
    for layer in ("norm", "auto"):
        found = explain(model, x, f"grad-cam(layer={layer})", ClassScore(2))
        assert found.method == "grad-cam(layer=norm)"
        torch.testing.assert_close(found.maps, wanted, rtol=1e-3, atol=1e-7)


def test_register_tokens_without_a_class_token_give_the_map_of_the_paper():
    model = made("timm:vit_little_patch16_reg4_gap_256", (96, 64))
    x = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    net = model.net
    h = net.patch_embed((x - 0.5) / 0.5)
    h = net.norm_pre(net.pos_drop(net._pos_embed(h)))
    h = net.blocks(h).detach().requires_grad_()
    net.forward_head(net.norm(h))[:, 1].sum().backward()
    low = (h[:, 4:] * h.grad[:, 4:].mean(1, keepdim=True)).sum(2).relu().view(1, 1, 6, 4)
    wanted = F.interpolate(low, (96, 64), mode="bilinear")[:, 0].detach()
    net.zero_grad()
    found = explain(model, x, "grad-cam(layer=blocks)", ClassScore(1))
    torch.testing.assert_close(found.maps, wanted, rtol=1e-3, atol=1e-7)
    with model.undisturbed():
        assert target_layer(model, x) == "blocks"  # the last: with nothing behind but the mean over the places


class Line(nn.Module):
    """A transformer on a sequence: tokens are its places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.mixed = nn.Conv1d(2, 8, 4, stride=4), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mixed(self.cut(x).mT).mean(1))


def test_a_sequence_of_tokens_is_not_read_as_channels():
    model = Classifier(Line().eval(), Preprocess((40,), (0.5,) * 2, (0.5,) * 2), tuple("abcd"), "line")
    x = torch.rand(2, 2, 40)
    with model.undisturbed():
        assert target_layer(model, x) == "mixed"
        a, _ = activations_and_gradients(model, x, ClassScore(0), "mixed")
    assert a.shape == (2, 8, 10)
    h = model.net.mixed(model.net.cut((x - 0.5) / 0.5).mT)
    torch.testing.assert_close(a, h.mT.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layer", "sides"),
    [
        pytest.param("vit_b_16", "encoder.layers.encoder_layer_10", (4, 4), marks=pytest.mark.slow),
        pytest.param("swin_t", "norm", (2, 2), marks=pytest.mark.slow),
        ("timm:vit_tiny_patch16_224", "blocks.1", (4, 4)),  # of three: the last one's places matter no more
        ("timm:mixer_s16_224", "norm", (4, 4)),
    ],
)
def test_the_layer_of_a_transformer(name, layer, sides):
    if name == "timm:mixer_s16_224":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = timm.create_model("mixer_s16_224", img_size=64, num_classes=4)
            nn.init.normal_(net.head.weight)
        model = Classifier(net.eval(), Preprocess(64, (0.5,) * 3, (0.5,) * 3), tuple("abcd"))
    else:
        model = made(name)
    z = torch.rand(1, 3, 64, 64)
    with model.undisturbed():
        assert target_layer(model, z) == layer
        a, g = activations_and_gradients(model, z, ClassScore(0), "auto")
    assert tuple(a.shape[2:]) == sides == tuple(g.shape[2:])
    assert g.any()


def test_grad_cam_of_a_transformer_replica(vit, x):
    """The tokens of the block before the last, without the class token, weighted by their mean gradients."""
    net = vit.net
    h = net.patch_embed((x - 0.5) / 0.5)
    h = net.norm_pre(net.pos_drop(net._pos_embed(h)))
    h = net.blocks[1](net.blocks[0](h)).detach().requires_grad_()
    net.forward_head(net.norm(net.blocks[2](h)))[:, 2].sum().backward()
    weight = h.grad[:, 1:].mean(1, keepdim=True)
    low = (h[:, 1:] * weight).sum(2).relu().view(2, 1, 2, 4)
    wanted = F.interpolate(low, (32, 64), mode="bilinear")[:, 0].detach()
    assert wanted.any()
    net.zero_grad()
    torch.testing.assert_close(explain(vit, x, "grad-cam", ClassScore(2)).maps, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_the_rest_of_a_transformer_is_run_from_its_maps(vit, x):
    with vit.undisturbed():
        a, rest = forward_from(vit, x, "blocks.1")
        torch.testing.assert_close(rest(torch.tensor([1, 0]), a[[1, 0]]), vit(x)[[1, 0]].detach(), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(rest(torch.tensor([0]), a[[0]] * 0), vit(x)[[0]].detach())


def test_forward_from_layer_by_whole_passes_puts_the_maps_back_among_the_tokens():
    model, x = laid((20, 28), 2, 1), torch.rand(3, 3, 20, 28, generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([2, 0])
    with model.undisturbed():
        a, _ = activations(model, x, "mixed")
        rest = forward_whole(model, x, "mixed")
        torch.testing.assert_close(rest(rows, a[rows]), model(x)[rows].detach())
        assert not torch.allclose(rest(rows, a[rows] * 0), model(x)[rows].detach())


def test_ablation_cam_of_a_transformer_by_hooks(vit, x):
    """One channel at a time is set to zero in the patches' tokens, the class token left as it is."""
    with vit.undisturbed(), torch.no_grad():
        whole = vit(x)[:, 1]
        falls = []
        for k in range(5):

            def hook(_m, _i, out, k=k):
                out = out.clone()
                out[:, 1:, k] = 0
                return out

            handle = vit.net.blocks[1].register_forward_hook(hook)
            falls.append(whole - vit(x)[:, 1])
            handle.remove()
        a, rest = forward_from(vit, x, "blocks.1")
        for k, fall in enumerate(falls):
            changed = a.clone()
            changed[:, k] = 0
            torch.testing.assert_close(whole - rest(torch.arange(2), changed)[:, 1], fall, rtol=1e-3, atol=1e-6)


def test_every_class_activation_method_takes_a_transformer(vit, x):
    done = 0
    for name, method in catalogue("explainers").items():
        if "layer" in method.options and not {"needs-relu", "needs-a-linear-head"} & method.claims:
            if method.options.get("references") is not None or name == "relevance-cam":
                continue  # their own tests; relevance has no rule for attention
            maps = explain(vit, x, name, ClassScore([0, 3])).maps
            assert maps.shape == (2, 32, 64)
            assert maps.isfinite().all()
            done += 1
    assert done >= 8


class Added(nn.Sequential):
    """What its layers give is added to what they take: everything passes through it, and through none of them."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Elsewhere(nn.Module):
    """Tokens are mixed by a block of several layers, and then only averaged: nothing that learns comes after it.

    order: of the tokens.  first: the tokens' axis, or windows that go into the axis of the pictures.
    """

    def __init__(self, first: str = "", order: Tensor | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, 12, 4, stride=4)
        self.mixed = Added(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 12))
        self.first, self.order, self.head = first, order, nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.cut(x).flatten(2).mT
        if self.order is not None:
            tokens = tokens[:, self.order]
        if self.first == "tokens":
            return self.head(self.mixed(tokens.transpose(0, 1)).mean(0))
        if self.first == "windows":
            return self.head(self.mixed(tokens.reshape(4 * len(x), -1, 12)).reshape(len(x), -1, 12).mean(1))
        return self.head(self.mixed(tokens).mean(1))


@pytest.mark.parametrize(
    ("more", "size", "shape"),
    [
        ({"order": torch.randperm(64, generator=torch.Generator().manual_seed(0))}, (32, 32), "64 x 12"),
        ({"first": "tokens"}, (32, 32), "64 x 3 x 12 for three pictures"),
        ({"first": "tokens"}, (24, 32), "48 x 3 x 12 for three pictures"),
        ({"first": "windows"}, (32, 32), "12 x 16 x 12 for three pictures"),
    ],
)
def test_a_later_layer_whose_places_cannot_be_told_is_named_whatever_it_is(more, size, shape):
    model = Classifier(Elsewhere(**more).eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    with pytest.warns(Notice, match=rf"read is cut: mixed, which comes later \(Added, {shape}\), gives no places"):
        explain(model, torch.rand(1, 3, *size), "grad-cam")


class Turned(nn.Module):
    """Maps of a picture that lies another way inside: mirrored or turned."""

    def __init__(self, way: str, tokens: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.way, self.tokens = nn.Conv2d(3, 12, 4, stride=4), way, tokens
        self.mixed = nn.Sequential(nn.Linear(12, 12), nn.Tanh()) if tokens else nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.cut(x)
        if self.way == "mirrored":
            maps = maps.flip(-1)
        elif self.way == "turned":
            maps = maps.mT.flip(-1)
        elif self.way == "upside down":
            maps = maps.flip(-1, -2)
        return self.head(self.mixed(maps.flatten(2).mT).mean(1) if self.tokens else self.mixed(maps).mean((2, 3)))


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
@pytest.mark.parametrize(
    ("way", "tokens"), [(way, tokens) for way in ("mirrored", "turned", "upside down") for tokens in (False, True)]
)
def test_maps_that_do_not_lie_as_the_picture_does_are_not_read(way, tokens, size):
    def laid_out(way: str) -> Classifier:
        return Classifier(Turned(way, tokens).eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")

    x = torch.rand(1, 3, *size)
    assert explain(laid_out("as it was"), x, "grad-cam").method == "grad-cam(layer=mixed)"
    with pytest.raises(Refused, match=r"layer mixed gives .*, not feature maps whose places can be located"):
        explain(laid_out(way), x, "grad-cam(layer=mixed)")
    with pytest.warns(Notice, match=r"read is cut: mixed, which comes later \(.*\), gives no places"):
        assert explain(laid_out(way), x, "grad-cam").method == "grad-cam(layer=cut)"


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
def test_a_picture_that_is_turned_before_all_else_is_not_read_with_channels_for_rows(size):
    class Before(Turned):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mT)

    model = Classifier(Before("as it was").eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    with model.undisturbed():
        assert not any(s.layout for s in probed(model, torch.rand(1, 3, *size)).runs)
    with pytest.raises(Refused, match="net has no convolution with more than one place"):
        explain(model, torch.rand(1, 3, *size), "grad-cam")


class Paired(Elsewhere):
    """Neighbouring tokens of a row become one: places twice as wide as they are high."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mixed(self.cut(x).flatten(2).mT)
        return self.head(self.merged(tokens.unflatten(1, (-1, 2)).mean(2)).mean(1))

    def __init__(self) -> None:
        super().__init__()
        self.merged = nn.Linear(12, 12)


def test_places_need_not_be_square():
    model = Classifier(Paired().eval(), Preprocess((24, 32), (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    with model.undisturbed():
        found = {s.name: s.layout for s in probed(model, torch.rand(1, 3, 24, 32)).runs}
    assert found["mixed"] == Layout((6, 8), row=True)
    assert found["merged"] == Layout((6, 4), row=True)


def test_tokens_that_fit_are_all_places():
    """EdgeNeXt's 4 x 6 tokens of 24 are mixed before they are seen: a part of them is no better a reading."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("edgenext_xx_small", num_classes=10).eval()
    generator = torch.Generator().manual_seed(5)
    for p in net.parameters():
        if p.numel() < 5000 and 0 < float(p.detach().abs().max()) < 2e-3:
            nn.init.uniform_(p, 0.2, 0.8, generator=generator)
    model = Classifier(net, Preprocess((64, 96), (0.5,) * 3, (0.5,) * 3), tuple("abcdefghij"), "net")
    with model.undisturbed():
        seen = probed(model, torch.rand(1, 3, 64, 96)).runs
    rows = [s for s in seen if s.layout and s.layout.row]
    assert {s.layout.sides for s in rows if s.shape[1] == 24} == {(4, 6)}
    assert {s.layout.sides for s in rows if s.shape[1] == 6} <= {(2, 3)}


class InWindows(nn.Module):
    """Windows and the places in them are axes of their own, as in NesT: (B, windows, places, C)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.mixed = nn.Conv2d(3, 12, 4, stride=4), nn.Sequential(nn.Linear(12, 12), nn.Tanh())
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.cut(x).unflatten(2, (2, -1)).unflatten(4, (2, -1))
        return self.head(self.mixed(maps.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)).mean((1, 2)))


def test_windows_and_the_places_in_them_are_no_rows_and_columns():
    model = Classifier(InWindows().eval(), Preprocess((64, 64), (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    x = torch.rand(1, 3, 64, 64)
    with pytest.raises(Refused, match=r"layer mixed gives \(1, 4, 64, 12\), not feature maps"):
        explain(model, x, "grad-cam(layer=mixed)")
    with pytest.warns(Notice, match=r"read is cut: mixed, which comes later"):
        explain(model, x, "grad-cam")


def test_a_layer_that_runs_twice_is_not_read_and_named():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.cut, self.again, self.head = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.again(self.cut(x)).relu()).relu().mean((2, 3)))

    model = Classifier(Twice().eval(), Preprocess((32, 24), (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    with pytest.warns(Notice, match=r"read is cut: again, which comes later \(Conv2d, 6 x 8 x 6\), runs several times"):
        assert explain(model, torch.rand(1, 3, 32, 24), "grad-cam").method == "grad-cam(layer=cut)"


def test_a_norm_that_turns_the_axes_inside_is_read_as_its_maps_lie():
    """ConvNeXt's LayerNorm2d is a LayerNorm, whose channels come last, and takes and gives maps with channels first."""
    net = torchvision.models.get_model("convnext_tiny", weights=None, num_classes=4).eval()
    model = Classifier(net, Preprocess((64, 64), (0.5,) * 3, (0.5,) * 3), tuple("abcd"), "net")
    with model.undisturbed():
        seen = {s.name: s for s in probed(model, torch.rand(1, 3, 64, 64)).runs}
    for name in ("features.0.1", "features.2.0", "features.6.0"):
        assert seen[name].kind == "LayerNorm2d"
        assert seen[name].layout == Layout(seen[name].shape[2:], first=True)


def test_the_type_of_a_module_decides_where_others_of_its_shape_say_otherwise():
    shape = (1, 8, 8, 8)
    said = [Response(shape, None, None, channels_first=first, channels_last=not first) for first in (True, False)]
    assert layouts(said, [], (8, 8)) == [Layout((8, 8), first=True), Layout((8, 8))]
    assert layouts([*said, Response(shape, None, None, False, False)], [], (8, 8))[2] is None


@pytest.mark.parametrize(("shape", "last"), [((1, 4, 4, 8), True), ((1, 8, 4, 4), False), ((1, 8, 4, 8), False)])
def test_a_layer_norm_says_where_channels_are_only_where_its_size_does(shape, last):
    assert entering(nn.LayerNorm(8), torch.zeros(shape)).channels_last is last


def test_few_places_do_not_contradict_the_type_of_a_module():
    """Three numbers may lie along a ramp by chance."""
    row = torch.tensor([[1.0, 2.0, 4.0], [4.0, 2.0, 1.0]])[:, :, None]  # as if 3 channels were rows, seen by the ramps
    flat = torch.ones(2, 1, 2)
    assert layouts([Response((1, 3, 1, 2), flat, row, True, False)], [], (1, 2)) == [Layout((1, 2), first=True)]
    assert layouts([Response((1, 3, 1, 2), flat, row, False, False)], [], (1, 2)) == [Layout((3, 1))]
