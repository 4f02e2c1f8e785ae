"""Class-activation methods on transformers: the grid is found, the class token left out, and the way back is right."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.classifier import Classifier, Preprocess
from clearsight.layers import activations_and_gradients, target_layer
from clearsight.methods import catalogue
from clearsight.runner import explain
from clearsight.tail import tail
from clearsight.targets import ClassScore
from clearsight.tokens import as_maps, layout


def made(name: str, size: tuple[int, int] = (64, 64)) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name.startswith("timm:"):
            net = timm.create_model(name[5:], img_size=size, num_classes=4, depth=3)
        else:
            extra = {"image_size": size[0]} if name == "vit_b_16" else {}
            net = torchvision.models.get_model(name, weights=None, num_classes=4, **extra)
        for m in net.modules():
            if isinstance(m, nn.Linear) and not m.weight.any():
                nn.init.normal_(m.weight, std=0.05)
    return Classifier(net.eval(), Preprocess(size, (0.5,) * 3, (0.5,) * 3), tuple("abcd"), name)


@pytest.fixture(scope="module")
def vit() -> Classifier:
    return made("timm:vit_tiny_patch16_224", (32, 64))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [
        ((1, 196, 8), (224, 224), (0, (14, 14))),
        ((1, 198, 8), (224, 224), (2, (14, 14))),
        ((1, 201, 8), (224, 224), (5, (14, 14))),
        ((1, 33, 8), (64, 128), (1, (4, 8))),
        ((1, 4, 8, 96), (64, 128), (0, (4, 8))),
        ((1, 96, 4, 8), (64, 128), None),
        ((1, 8, 8, 8), (64, 64), None),  # channels first is what convolutions give
        ((1, 197, 8), (224, 200), None),
        ((1, 2, 8), (224, 224), None),
        ((1, 5, 8), (5, 5), None),  # five tokens of which all stand for no place
        ((1, 196, 8), (196,), None),
    ],
)
def test_layouts(shape, size, found):
    at = layout(shape, size)
    assert (None if at is None else (at.extra, at.sides)) == found


def test_maps_are_put_back_as_they_were():
    out = torch.rand(2, 9, 5)
    maps, back = as_maps(out, (32, 64))
    assert maps.shape == (2, 5, 2, 4)
    assert torch.equal(maps[1, 3, 1, 2], out[1, 1 + 6, 3])
    assert torch.equal(back(maps), out)
    assert torch.equal(back(maps * 0)[:, 0], out[:, 0])


@pytest.mark.parametrize(
    ("name", "layer", "sides"),
    [
        ("vit_b_16", "encoder.layers.encoder_layer_10", (4, 4)),
        ("swin_t", "norm", (2, 2)),
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


def test_the_rest_of_a_transformer_is_run_from_its_maps(vit, x):
    with vit.undisturbed():
        a, rest = tail(vit, x, "blocks.1")
        torch.testing.assert_close(rest(torch.tensor([1, 0]), a[[1, 0]]), vit(x)[[1, 0]].detach(), rtol=1e-3, atol=1e-5)
        assert not torch.allclose(rest(torch.tensor([0]), a[[0]] * 0), vit(x)[[0]].detach())


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
        a, rest = tail(vit, x, "blocks.1")
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
