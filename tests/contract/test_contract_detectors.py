"""Manners of every detector: what it takes, gives and leaves alone, and what its documentation says."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from detectornets import as_if_trained
from examples import check_examples

EVERY = list(catalogue("detectors"))
every = pytest.mark.parametrize("name", EVERY)
# the smallest of each; networks of torchvision are as they are
SMALL = {
    "fcos": "fcos(backbone=tiny, width=16)",
    "yolo-v1": "yolo-v1(backbone=tiny, grid=3, dense=16)",
    "faster-rcnn": "faster-rcnn(backbone=mobilenet-320, proposals=20)",
}
CLASSES, SHAPE = 2, (3, 64, 96)
BOXES = [torch.tensor([[4.0, 6.0, 40.0, 50.0], [50.0, 10.0, 90.0, 60.0]]), torch.zeros(0, 4)]
LABELS = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)]


@functools.cache
def made(name: str) -> Any:
    """The network in eval mode; nobody changes it."""
    call = parse(SMALL.get(name, name), "detectors")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        net = call.method(CLASSES, SHAPE, **call.options).eval()
    return as_if_trained(net, SHAPE)


def pictures(n: int = 2) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(2))


def scores(found: Tensor) -> Tensor:
    return found[..., 4:5].sigmoid() * found[..., 5:].sigmoid()


@every
def test_candidates_are_boxes_in_the_picture_and_logits(name: str) -> None:
    z = pictures()
    with torch.no_grad():
        found = made(name)(z)
        other = made(name)(torch.zeros(1, *SHAPE))
    assert found.shape[::2] == (2, 5 + CLASSES)
    assert other.shape[1:] == found.shape[1:]
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    x1, y1, x2, y2 = found[..., :4].unbind(-1)
    assert bool((x1 <= x2).all() & (y1 <= y2).all())
    assert float(torch.stack([x1, y1]).min()) >= 0
    assert float(x2.max()) <= SHAPE[2]
    assert float(y2.max()) <= SHAPE[1]
    assert float(scores(found).max()) > 1e-4
    assert torch.equal(z, pictures())


@every
def test_a_picture_is_read_without_its_neighbours(name: str) -> None:
    """In double precision, in which nearly equal proposals keep their order."""
    net, z = copy.deepcopy(made(name)).double(), pictures().double()
    with torch.no_grad():
        both, second = net(z), net(z[1:])
    assert both.dtype == torch.float64
    assert torch.allclose(both[1:], second, atol=1e-7)


@every
def test_scores_lead_back_to_the_pixels(name: str) -> None:
    z = pictures(1).requires_grad_()
    found = made(name)(z)
    best = scores(found).flatten().argmax()
    (g,) = torch.autograd.grad(scores(found).flatten()[best], z)
    assert bool(g.isfinite().all())
    assert float(g.abs().sum()) > 0


@every
def test_losses_are_scalars_that_lead_to_the_weights(name: str) -> None:
    net = made(name).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    z, boxes = pictures(), [b.clone() for b in BOXES]
    with torch.random.fork_rng():
        losses = net.loss(z, boxes, LABELS)
    assert net.training
    net.eval()
    assert all(loss.shape == () and bool(loss.isfinite()) and float(loss.detach()) >= 0 for loss in losses.values())
    gradients = torch.autograd.grad(sum(losses.values()), list(net.parameters()), allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)
    # SSD learns from the hardest anchors alone, so not from all maps
    moved = sum(g is not None and float(g.abs().sum()) > 0 for g in gradients)
    assert moved > 0.7 * len(gradients)
    assert torch.equal(z, pictures())
    assert all(torch.equal(a, b) for a, b in zip(boxes, BOXES, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "BatchNorm learnt from a small batch"


@every
def test_losses_in_eval_mode_are_the_same_at_every_call(name: str) -> None:
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first, second = (made(name).loss(pictures(), BOXES, LABELS) for _ in range(2))
    assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in second.items()}
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(m.training for m in made(name).modules())


@every
def test_pictures_without_objects_are_background(name: str) -> None:
    losses = made(name).loss(pictures(1), BOXES[1:], LABELS[1:])
    assert all(bool(loss.isfinite()) for loss in losses.values())
    sum(losses.values()).backward()
    made(name).zero_grad()


@every
def test_batch_norm_learns_where_it_is_asked_to(name: str) -> None:
    """Options freeze=false and freeze=true differ in nothing else.  The tiny backbone and YOLO's have no BatchNorm."""
    call = parse({"yolo-v1": "yolo-v1(backbone=lite0)"}.get(name, name), "detectors")
    with torch.device("meta"):
        nets = [call.method(CLASSES, SHAPE, **call.options, freeze=freeze).train() for freeze in (True, False)]
    norms = [[m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in nets]
    others = [[m.training for m in net.modules() if isinstance(m, nn.Conv2d | nn.Dropout)] for net in nets]
    assert norms[0]
    assert not any(norms[0])
    assert all(norms[1])
    assert all(others[0])
    assert all(others[1])


@pytest.mark.parametrize(
    ("boxes", "labels", "told"),
    [
        ([torch.tensor([[1.0, 2.0, 3.0, 4.0]])], [torch.tensor([2])], "from 2 to 2: with 2 classes they are 0 to 1"),
        ([torch.tensor([[1.0, 2.0, 3.0, 4.0]])], [torch.tensor([-1])], "labels from -1"),
        ([torch.tensor([[3.0, 2.0, 3.0, 4.0]])], [torch.tensor([0])], "has no area"),
        ([torch.tensor([[1.0, 2.0, torch.nan, 4.0]])], [torch.tensor([0])], "has no area"),
        ([torch.tensor([[1.0, 2.0, 3.0, 4.0]])], [torch.tensor([0, 1])], r"labels of shape \(2,\)"),
        ([torch.tensor([1.0, 2.0, 3.0, 4.0])], [torch.tensor([0])], r"boxes of shape \(4,\)"),
        ([], [], "1 pictures, 0 tensors of boxes"),
    ],
)  # fmt: skip
@every
def test_truth_that_is_none_is_refused(name: str, boxes: list[Tensor], labels: list[Tensor], told: str) -> None:
    with pytest.raises(Refused, match=told):
        made(name).loss(pictures(1), boxes, labels)


@every
def test_what_it_cannot_be_is_refused(name: str) -> None:
    build = catalogue("detectors")[name]
    for classes, shape, told in (
        (0, SHAPE, "0 classes: it needs at least 1"),
        (2, (3, 64), "takes pictures"),
        (2, (3, 20, 64), "needs inputs of at least"),
    ):
        with pytest.raises(Refused, match=f"{name} .*{told}"):
            build(classes, shape)


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("detectors")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    positional = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["classes", "shape"]
    assert all(p.default is not p.empty for p in positional)
    assert not m.injected
    assert m.doc.count("(B, *shape) -> candidates (B, ") == 1
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "Source: " in m.doc
    assert "Refused: " in m.doc
    check_args_block(m)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", m.paper)
    assert m.paper in m.module_doc
    assert "one of the detectors (what can be trained to find objects)" in one(name)


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("detectors")[name])


@every
def test_spelling(name: str) -> None:
    m = catalogue("detectors")[name]
    call = parse(SMALL.get(name, name), "detectors")
    assert call.method is m
    assert parse(str(call), "detectors").options == call.options
    with pytest.raises(Refused, match=f"{name} has no option"):
        parse(f"{name}(quite=3)", "detectors")
