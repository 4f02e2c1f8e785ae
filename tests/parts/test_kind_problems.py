"""Networks of detectors and segmenters that return another form are named, and the line that is given mends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.diagnosis import inspect
from clearsight.auditing.kind_facts import Level, levels_of
from clearsight.core.classifier import Classifier
from clearsight.inspecting.compare_models import compare_models
from clearsight.internals.probe import ModuleRun, probed
from clearsight.models.dry_run import probes
from clearsight.testing import linear, tiny_detector, tiny_segmenter
from detectornets import as_if_trained

PRE = tiny_detector().preprocess
FINDER, NAMER = tiny_detector().net, tiny_segmenter().net


class Bent(nn.Module):
    """A sound network whose output is changed."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, z: Tensor) -> Any:
        return self.change(self.net(z))


def shares(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4] / 32, out[..., 4:]], 2)


def centres(out: Tensor) -> Tensor:
    corner, far = out[..., :2], out[..., 2:4]
    return torch.cat([(corner + far) / 2, far - corner, out[..., 4:]], 2)


def as_probabilities(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4], out[..., 4:].sigmoid()], 2)


def with_background(out: Tensor) -> Tensor:
    return torch.cat([out[..., :5], out[..., :1] * 0 - 1, out[..., 5:]], 2)


def without_objectness(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4], out[..., 5:]], 2)


def pixels(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4] * out.new_tensor([32, 32] * 2), out[..., 4:]], 2)


def objectness(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4], torch.full_like(out[..., :1], 50.0), out[..., 4:]], 2)


def corners(out: Tensor) -> Tensor:
    from torchvision.ops import box_convert

    return torch.cat([box_convert(out[..., :4], "cxcywh", "xyxy"), out[..., 4:]], 2)


def logits(out: Tensor) -> Tensor:
    return torch.cat([out[..., :4], torch.logit(out[..., 4:], eps=1e-6)], 2)


@pytest.mark.parametrize(
    ("bend", "code", "says", "mend"),
    [
        (shares, "boxes-not-pixels", "out[..., :4] * out.new_tensor([32, 32] * 2)", pixels),
        (centres, "boxes-not-corners", "box_convert(boxes, 'cxcywh', 'xyxy')", corners),
        (as_probabilities, "probabilities-as-logits", "torch.logit(p, eps=1e-6)", logits),
        (
            with_background,
            "labels-miscounted",
            "torch.cat([out[..., :5], out[..., 6:]], 2)",
            lambda out: torch.cat([out[..., :5], out[..., 6:]], 2),
        ),
        (without_objectness, "labels-miscounted", "torch.full_like(out[..., :1], 50.0)", objectness),
        (lambda out: out.transpose(1, 2), "output-axes", "out.transpose(1, 2)", lambda out: out.transpose(1, 2)),
        (lambda out: out.unflatten(1, (8, 8)), "output-axes", "out.flatten(1, -2)", lambda out: out.flatten(1, -2)),
        (lambda out: out[0], "output-shape", "four sides, an objectness and a logit per class", None),
        (lambda out: out.mean(1), "output-shape", "four sides", None),
        (lambda out: out * torch.inf, "scores-not-finite", "division by zero", None),
        (lambda out: out[:1].expand_as(out), "same-scores", "check that it is trained", None),
        (lambda out: [{"boxes": o[:, :4], "scores": o[:, 5], "labels": o[:, 5].long()} for o in out],
         "scores-not-found", 'cs.load("torchvision:fasterrcnn_resnet50_fpn"', None),
        (lambda out: {"a": out.sum(1), "found": out}, "scores-not-found", "output='found'", lambda out: out["found"]),
        (lambda out: "boxes", "scores-not-found", "let forward return one tensor", None),
    ],
)  # fmt: skip
def test_a_detector_of_another_form(
    bend: Callable[[Tensor], Any], code: str, says: str, mend: Callable[[Any], Tensor] | None
) -> None:
    found = inspect(cs.Detector(Bent(FINDER, bend), PRE, ("red", "blue")), apart=False)
    by_code = {p.code: p for p in found.problems}
    assert code in by_code, found.problems
    assert says in by_code[code].mend
    if mend is not None:
        mended = inspect(cs.Detector(Bent(Bent(FINDER, bend), mend), PRE, ("red", "blue")), apart=False)
        assert mended.problems == ()


@pytest.mark.parametrize(
    ("bend", "code", "says", "mend"),
    [
        (lambda out: out.argmax(1), "output-chosen", "no gradient goes back", None),
        (lambda out: out.argmax(1, keepdim=True), "output-chosen", "no gradient goes back", None),
        (lambda out: out.argmax(1).float(), "output-chosen", "no gradient goes back", None),
        (lambda out: out.permute(0, 2, 3, 1), "output-axes", "permute(0, 3, 1, 2)",
         lambda out: out.permute(0, 3, 1, 2)),
        (lambda out: out.softmax(1), "probabilities-as-logits", "before the softmax", lambda out: out.log()),
        (lambda out: {"out": out, "aux": out * 2}, "scores-not-found", "output='out'", lambda out: out["out"]),
        (lambda out: out[:, :2], "labels-miscounted", "with 2 names", None),
        (lambda out: torch.cat([out, out[:, :1]], 1), "labels-miscounted", "the background has a label too", None),
        (lambda out: out.mean((2, 3)), "output-shape", "a logit per class for every pixel", None),
        (lambda out: out * torch.nan, "scores-not-finite", "division by zero", None),
    ],
)  # fmt: skip
def test_a_segmenter_of_another_form(
    bend: Callable[[Tensor], Any], code: str, says: str, mend: Callable[[Any], Tensor] | None
) -> None:
    found = inspect(cs.Segmenter(Bent(NAMER, bend), PRE, ("r", "g", "b")), apart=False)
    by_code = {p.code: p for p in found.problems}
    assert code in by_code, found.problems
    assert says in by_code[code].mend
    if mend is not None:
        mended = inspect(cs.Segmenter(Bent(Bent(NAMER, bend), mend), PRE, ("r", "g", "b")), apart=False)
        assert mended.problems == ()


@pytest.mark.parametrize("keep", [True, False])
def test_one_logit_for_every_pixel_becomes_two(keep: bool) -> None:
    def one(out: Tensor) -> Tensor:
        return out[:, :1] - out[:, 1:2] if keep else out[:, 0] - out[:, 1]

    def two(out: Tensor) -> Tensor:
        z = out if keep else out.unsqueeze(1)
        return torch.cat([-z / 2, z / 2], 1)

    found = inspect(cs.Segmenter(Bent(NAMER, one), PRE, ("rest", "red")), apart=False)
    assert [p.code for p in found.problems] == ["output-of-one-logit"]
    assert "torch.cat([-z / 2, z / 2], 1)" in found.problems[0].mend
    assert (".unsqueeze(1)" in found.problems[0].mend) != keep
    model = cs.Segmenter(Bent(Bent(NAMER, one), two), PRE, ("rest", "red"))
    assert inspect(model, apart=False).problems == ()
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(model(x).softmax(1)[:, 1:], one(NAMER(x)).reshape(1, 1, 32, 32).sigmoid())


def test_what_a_detector_of_torchvision_itself_returns_is_named_for_every_kind() -> None:
    from torchvision.models import get_model

    net = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3).eval()
    pre = cs.Preprocess(32, (0.0,) * 3, (1.0,) * 3)
    for model in (Classifier(net, pre, ("a", "b")), cs.Detector(net, pre, ("a", "b"))):
        (problem,) = inspect(model, apart=False).problems
        assert problem.code == "scores-not-found"
        assert "boxes are those left after suppression" in problem.mend
    with pytest.raises(cs.Refused, match="boxes are those left after suppression"):
        cs.explain(cs.Detector(net, pre, ("a", "b")), torch.rand(1, 3, 32, 32), "saliency")


def test_the_same_is_said_without_inspect() -> None:
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(cs.Refused, match=r"end forward with out\.transpose\(1, 2\)"):
        cs.Detector(Bent(FINDER, lambda out: out.transpose(1, 2)), PRE, ("red", "blue"))(x)
    with pytest.raises(cs.Refused, match="no gradient goes back through the argmax"):
        cs.Segmenter(Bent(NAMER, lambda out: out.argmax(1)), PRE, ("r", "g", "b"))(x)


def test_a_classifier_that_is_none_is_told_what_to_make() -> None:
    found = inspect(Classifier(NAMER, PRE, ("r", "g", "b")), apart=False)
    assert [p.code for p in found.problems] == ["scores-not-rows"]
    assert "cs.Detector or cs.Segmenter" in found.problems[0].mend


def test_names_of_nothing_are_no_names_twice() -> None:
    model = cs.Detector(FINDER, PRE, ("N/A", "N/A"))
    assert inspect(model, apart=False).problems == ()
    assert [p.code for p in inspect(cs.Detector(FINDER, PRE, ("a", "a")), apart=False).problems] == ["labels-twice"]


def test_inspect_says_what_a_detector_finds_and_where() -> None:
    found = inspect(tiny_detector(), apart=False)
    assert (found.kind, found.scores, found.classes) == ("detector", "", 2)
    assert found.gives is not None
    assert found.gives.outputs == (64, 7)
    text = "\n".join(found.lines())
    assert "kind         detector" in text
    assert "64 candidates a picture: 64 at stride 4 (8 x 8 places)" in text
    assert "at most 100 boxes that score above 0.05; those of one class overlap by an IoU of at most 0.5" in text
    assert "scores" not in text.partition("reports")[0]
    assert found.as_dict()["gives"]["levels"] == (
        {"stride": (4.0, 4.0), "places": (8, 8), "candidates": 64},
    )  # fmt: skip


def test_inspect_says_how_fine_a_segmenter_is() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4, padding=1))
    model = cs.Segmenter(net, cs.Preprocess((32, 48), (0.5,) * 3, (0.5,) * 3), ("a", "b"))
    found = inspect(model, apart=False)
    assert "a class for every pixel, from logits 8 x 12, stride 4" in "\n".join(found.lines())
    assert found.kind == "segmenter"


@pytest.mark.parametrize(
    ("words", "levels"),
    [
        ("clearsight:fcos(backbone=tiny, width=16)", [(8.0, 64), (16.0, 16)]),
        ("clearsight:yolo-v1(backbone=tiny, grid=3, dense=16)", []),
        ("clearsight:ssdlite", [(16.0, 96), (32.0, 24), (64.0, 6), (64.0, 6), (64.0, 6), (64.0, 6)]),
    ],
)
def test_levels_of_the_catalogue_s_detectors(words: str, levels: list[tuple[float, int]]) -> None:
    pre = cs.Preprocess(64, (0.5,) * 3, (0.5,) * 3)
    model = cs.load(words, weights="none", preprocess=pre, labels=["a", "b"])
    x = probes(model)
    with model.undisturbed():
        count = model(x[:1]).shape[1]
        found = levels_of(probed(model, x).runs, count, x)
    assert [(level.stride[0], level.candidates) for level in found] == levels
    assert not levels or sum(level.candidates for level in found) == count


def test_levels_are_those_of_the_last_maps_that_fit() -> None:
    """An early layer of few places and many channels could give as many numbers."""
    early = ModuleRun("early", "Conv2d", (1, 16, 2, 2), True, False)
    head = ModuleRun("head", "Conv2d", (1, 7, 8, 8), True, False)
    x = torch.zeros(1, 3, 32, 32)
    assert levels_of([early, head], 64, x) == (Level((4.0, 4.0), (8, 8), 64),)
    assert levels_of([early], 64, x) == (Level((16.0, 16.0), (2, 2), 64),)
    assert levels_of([head], 65, x) == ()


def test_the_background_is_no_label_of_a_detector() -> None:
    found = inspect(cs.Detector(FINDER, PRE, ("__background__", "red")), apart=False)
    assert [p.code for p in found.problems] == ["label-of-background"]
    assert "'__background__'" in found.problems[0].what
    assert inspect(cs.Segmenter(NAMER, PRE, ("background", "g", "b")), apart=False).problems == ()


def test_models_of_one_kind_stand_side_by_side() -> None:
    found = compare_models([tiny_detector(), tiny_detector()], None, seconds=0.01)
    assert [m.parameters for m in found.models] == [98, 98]
    assert all(m.accuracy is None for m in found.models)
    with pytest.raises(cs.Refused, match="a classifier and a detector have nothing to compare"):
        compare_models([tiny_detector(), linear([[1.0], [2.0]])], None, seconds=0.01)


@pytest.mark.slow
def test_a_network_that_proposes_regions_is_explained_with_those_of_one_picture() -> None:
    words, pre = (
        "clearsight:faster-rcnn(backbone=mobilenet-320, proposals=10)",
        cs.Preprocess(64, (0.5,) * 3, (0.5,) * 3),
    )
    model = cs.load(words, weights="none", preprocess=pre, labels=["a", "b"])
    as_if_trained(model.net, (3, 64, 64))
    by_code = {p.code: p for p in inspect(model, apart=False).problems}
    assert "model.net.proposals_of(model.normalised(x))" in by_code["gradient-of-other-scores"].mend
    other = cs.load(words, weights="none", preprocess=pre, labels=["a", "b"])
    as_if_trained(other.net, (3, 64, 64))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with other.net.proposals_of(other.normalised(x)):
        assert float(cs.explain(other, x, "saliency").maps.abs().sum()) > 0


def test_rows_that_fill_up_the_number_are_not_looked_at() -> None:
    def filled(out: Tensor) -> Tensor:
        empty = torch.cat([out[..., :2] + 9, out[..., :2], torch.full_like(out[..., 4:], -50.0)], 2)
        return torch.cat([out, empty], 1)

    assert inspect(cs.Detector(Bent(FINDER, filled), PRE, ("red", "blue")), apart=False).problems == ()
