"""Manners of every segmenter: what it takes, gives and leaves alone, and what its documentation says."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.segmenters.common.landmarks import heatmap_loss
from clearsight.segmenters.common.losses import cross_entropy
from examples import check_examples

EVERY = list(catalogue("segmenters"))
every = pytest.mark.parametrize("name", EVERY)
# the smallest of each, and the pixels of the picture for each place of what it gives
SMALL = {
    "deeplabv3": ("deeplabv3", 16),
    "fcn": ("fcn(backbone=tiny)", 8),
    "heatmaps": ("heatmaps(backbone=tiny, width=8)", 4),
    "lraspp": ("lraspp", 8),
    "unet": ("unet(width=4, depth=2)", 1),
}
CLASSES, SHAPE = 3, (3, 64, 96)


def made(name: str, classes: int = CLASSES, shape: tuple[int, ...] = SHAPE) -> Any:
    """The network in eval mode, its weights always the same."""
    call = parse(SMALL[name][0], "segmenters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return call.method(classes, shape, **call.options).eval()


def pictures(n: int = 2) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


@functools.cache
def settled(name: str) -> Any:
    """The same, its normalisation fitted to pictures, without which many untrained layers let no signal through."""
    net = made(name)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = None  # the statistics of all that is seen
    with torch.no_grad(), torch.random.fork_rng():
        net.train()(pictures(4))
    return net.eval()


def loss(name: str, out: Tensor) -> Tensor:
    """How far the network is from the truth, in the way in which its kind is trained."""
    if "landmarks" in catalogue("segmenters")[name].claims:
        points = torch.tensor([[[10.0, 20.0], [80.0, 40.0], [50.0, 50.0]]]).expand(len(out), -1, -1)
        return heatmap_loss(out, points, torch.ones(len(out), 3, dtype=torch.bool), stride=4)
    truth = (torch.arange(SHAPE[2]) // 32).expand(len(out), *SHAPE[1:])
    return cross_entropy(interpolate(out, size=SHAPE[1:], mode="bilinear"), truth)


@every
def test_each_place_has_a_score_for_each_class(name: str) -> None:
    assert name in SMALL, "a new segmenter: say in SMALL how small it can be"
    z = pictures()
    before = z.clone()
    with torch.no_grad():
        out = settled(name)(z)
    stride = SMALL[name][1]
    assert out.shape == (2, CLASSES, SHAPE[1] // stride, SHAPE[2] // stride)
    assert out.isfinite().all()
    assert (out[0] != out[1]).any()
    assert torch.equal(z, before)


@every
def test_a_batch_is_its_pictures(name: str) -> None:
    net, z = settled(name), pictures(3)
    with torch.no_grad():
        torch.testing.assert_close(net(z), torch.cat([net(z[i : i + 1]) for i in range(3)]), rtol=1e-4, atol=1e-5)


@every
def test_the_seed_makes_the_weights(name: str) -> None:
    first, second = made(name).state_dict(), made(name).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)


@every
def test_a_tiny_batch_is_learned_and_every_parameter_has_a_part_in_it(name: str) -> None:
    net, z = made(name).train(), pictures()
    z[:] += torch.linspace(-2, 2, SHAPE[2])
    adam = torch.optim.Adam(net.parameters(), 0.01)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses: list[float] = []
        while len(losses) < 20 and not (losses and losses[-1] < 0.9 * losses[0]):
            found = loss(name, net(z))
            losses.append(found.item())
            adam.zero_grad()
            found.backward()
            adam.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert losses[-1] < 0.9 * losses[0]


@every
def test_a_place_answers_for_the_pixels_around_it(name: str) -> None:
    """The gradient of the scores at one place reaches the pixels under that place, and those of the picture alone."""
    z = pictures().requires_grad_()
    out = settled(name)(z)
    h, w = (side // 2 for side in out.shape[2:])
    (g,) = torch.autograd.grad(out[0, :, h, w].sum(), z)
    stride = SMALL[name][1]
    assert g[0, :, h * stride : (h + 1) * stride, w * stride : (w + 1) * stride].any()
    assert not g[1].any()


@every
def test_refuses_what_it_cannot_be(name: str) -> None:
    with pytest.raises(Refused, match=rf"{name}.* with 0 classes: it needs at least 1"):
        made(name, 0)
    for shape in ((3, 64), (3, 8, 64, 64), (0, 64, 64)):
        with pytest.raises(Refused, match=rf"{name}.* takes pictures \(channels, height, width\)"):
            made(name, shape=shape)
    least = 4 if name == "unet" else 32
    made(name, shape=(3, least, 2 * least))
    with pytest.raises(Refused, match=rf"{name}.* needs pictures of at least {least} x {least}, not {least - 1} x 64"):
        made(name, shape=(3, least - 1, 64))


@every
def test_any_side_from_the_least_on_is_taken(name: str) -> None:
    if name == "heatmaps":
        with pytest.raises(Refused, match="multiples of 32, not 64 x 97"):
            made(name, shape=(3, 64, 97))
        return
    net, stride = settled(name), SMALL[name][1]
    for h, w in ((33, 47), (64, 95), (61, 32)):
        with torch.no_grad():
            out = net(torch.rand(1, 3, h, w))
        assert out.shape == (1, CLASSES, -(-h // stride), -(-w // stride))


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("segmenters")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["classes", "shape"]
    assert not m.injected
    kinds = [
        get_args(p.annotation)[0].__class__ if get_origin(p.annotation) else p.annotation for p in m.options.values()
    ]
    assert {*kinds} <= {int, float, bool, str}
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "(B, *shape) -> " in m.doc
    assert "Refused: " in m.doc
    check_args_block(m)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", m.paper)
    assert m.paper in m.module_doc
    assert m.claims == ({"landmarks"} if "number of landmarks" in m.doc else set())
    assert f"{name}, one of the segmenters (what says which class each pixel is of)" in one(name)


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("segmenters")[name])


@every
def test_spelling(name: str) -> None:
    m = catalogue("segmenters")[name]
    spelled = f"{name}({', '.join(f'{n}={p.default}' for n, p in m.options.items())})"
    call = parse(spelled, "segmenters")
    assert call.options == {n: p.default for n, p in m.options.items()}
    with pytest.raises(Refused, match=f"{name} has no option"):
        parse(f"{name}(quite=3)", "segmenters")
