"""The top class is what the explainer's own first pass says, so that asking for it costs no pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.first_pass import awaiting, note, same
from clearsight.core.remembered import remembering
from clearsight.internals.scores import scores

OWN_PASS = [
    "grad-cam",
    "grad-cam++",
    "hires-cam",
    "eigen-cam",
    "saliency",
    "gradient-x-input",
    "occlusion(window=4, stride=4)",
    "guided-backprop",
    "deconvnet",
]
BY_GRAPH = ["lrp", "contrastive-lrp", "rap", "deep-lift"]


class Counting(nn.Module):
    """A network that notes the pictures of every pass; poisoned, its scores are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(5, 4)
        self.sizes: list[int] = []
        self.poison = False

    def forward(self, x: Tensor) -> Tensor:
        self.sizes += [len(x)]
        out = self.head(self.features(x).mean((2, 3)))
        return out * torch.nan if self.poison and len(x) > 3 else out


def test_logits_in_doubt_are_not_taken_for_known() -> None:
    x, logits = torch.rand(2, 3, 8, 8), torch.rand(2, 4)
    net = nn.Identity()
    with awaiting(net, x) as first:
        note(net, x.clone(), logits, torch.tensor([True, False]))
        assert (first.logits, first.complete, first.known.tolist()) == (None, False, [True, False])
        note(net, x.clone(), logits)
        assert first.logits is not None
        assert torch.equal(first.logits, logits)
    with awaiting(net, x) as first:  # all of them at once are kept as they were then
        note(net, x.clone(), logits)
        wanted = logits.clone()
        logits.zero_()
        assert first.complete
        assert torch.equal(first.logits, wanted)


@pytest.fixture
def counting() -> cs.Classifier:
    torch.manual_seed(0)
    net = Counting()
    return cs.wrap(net, preprocess=cs.Preprocess((8, 8), (0.5,) * 3, (0.2,) * 3), labels=list("abcd"))


def pictures(n: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def passes(model: cs.Classifier, *args, **options) -> tuple[list[int], object]:
    model.net.sizes.clear()
    found = cs.explain(model, *args, **options)
    return list(model.net.sizes), found


@pytest.mark.parametrize("method", [*OWN_PASS, *BY_GRAPH, "edge"])
def test_it_is_the_top_class_and_the_maps_are_those_of_that_target(counting, method):
    x = pictures(5)
    top = counting(x).argmax(1)
    cs.explain(counting, x, method)
    sizes, found = passes(counting, x, method, batch=2)
    assert type(found.target) is cs.ClassScore
    assert found.target.index.tolist() == top.tolist()
    told, wanted = passes(counting, x, method, cs.ClassScore(top), batch=2)
    torch.testing.assert_close(found.maps, wanted.maps)
    assert found.forwards == wanted.forwards
    assert sum(sizes) - sum(told) == (5 if method == "edge" else 0)


@pytest.mark.parametrize("method", BY_GRAPH)
def test_where_a_recording_leaves_doubt_about_it_the_network_is_asked(counting, method):
    x, head = pictures(4), counting.net.head
    with torch.no_grad():
        head.weight[1] = head.weight[0]
        head.bias[1] = head.bias[0] + 1e-4  # less than a recording may be off by
        head.bias[2:] -= 9
    cs.explain(counting, x, method)
    told, wanted = passes(counting, x, method, cs.ClassScore(1))
    sizes, found = passes(counting, x, method)
    assert found.target.index.tolist() == [1] * 4
    assert sum(sizes) - sum(told) == 4  # nothing is computed to check the recording, so nothing has told of the first
    torch.testing.assert_close(found.maps, wanted.maps)


@pytest.mark.parametrize("in_parts", [False, True])
def test_the_network_is_asked_about_no_other_pictures_than_those_in_doubt(counting, monkeypatch, in_parts):
    x = pictures(4)
    if in_parts:
        monkeypatch.setattr("clearsight.internals.graph.BYTES", 0)  # one at a time
    with torch.no_grad():
        counting.net.head.weight.zero_()
        counting.net.head.bias[:] = torch.tensor([1.0, 1.0, 0.0, 0.0])
        counting.net.head.weight[0, 0] = 1.0
        counting.net.features[0].weight[0] = 1.0
        counting.net.features[0].bias[0] = 0.0
        x[2] = 0.499  # nothing but a trace comes through the ReLU there, and the first class has no lead
    cs.explain(counting, x, "lrp")
    told, _ = passes(counting, x, "lrp", cs.ClassScore(0))
    sizes, found = passes(counting, x, "lrp")
    assert found.target.index.tolist() == counting(x).argmax(1).tolist()
    assert sum(sizes) - sum(told) == 1


@pytest.mark.parametrize("method", ["lrp", "deep-lift"])
def test_parts_of_the_pictures_tell_theirs(counting, monkeypatch, method):
    x = pictures(5)
    cs.explain(counting, x, method)
    monkeypatch.setattr("clearsight.internals.graph.BYTES", 0)  # one at a time
    told, wanted = passes(counting, x, method, cs.ClassScore(counting(x).argmax(1)))
    sizes, found = passes(counting, x, method)
    assert sizes == told
    torch.testing.assert_close(found.maps, wanted.maps)


@pytest.mark.parametrize(
    "method",
    ["rise(masks=40)", "lime(samples=40)", "partition-shap(samples=40)", "smooth-grad(samples=9)", "xrai(steps=3)"],
)
def test_versions_of_a_picture_ask_for_it_once_at_most(counting, method):
    x = pictures(5)
    cs.explain(counting, x, method)
    told, wanted = passes(counting, x, method, cs.ClassScore(counting(x).argmax(1)))
    sizes, found = passes(counting, x, method)
    assert sum(sizes) - sum(told) <= 5
    assert len(sizes) - len(told) <= 1
    torch.testing.assert_close(found.maps, wanted.maps)


def test_of_one_picture_it_is_known_from_the_pass_that_checks_the_recording(counting):
    x = pictures(1)
    cs.explain(counting, x, "lrp")
    told, _ = passes(counting, x, "lrp", cs.ClassScore(0))
    assert passes(counting, x, "lrp")[0] == told


def test_scores_that_are_not_finite_are_refused(counting):
    cs.explain(counting, pictures(4), "grad-cam")
    counting.net.poison = True
    for method in ("grad-cam", "edge"):
        with pytest.raises(cs.Refused, match="scores that are not finite"):
            cs.explain(counting, pictures(4), method)


def test_only_a_pass_of_these_pictures_by_this_network_counts(counting):
    x = pictures(2)
    other = Counting()
    with awaiting(counting.net, x) as first, torch.no_grad():
        counting(x * 0.5)
        counting(x[:1])
        cs.wrap(other, preprocess=counting.preprocess, labels=list("abcd"))(x)
        assert first.logits is None
        wanted = counting(x)
        counting.net.head.weight.mul_(2)
        counting(x)
        torch.testing.assert_close(first.logits, wanted)
    with torch.no_grad():
        counting(x)
    torch.testing.assert_close(first.logits, wanted)


@pytest.mark.parametrize("size", [(8, 8), (3, 5)])
@pytest.mark.parametrize("at", [0, 1])
def test_pictures_that_differ_in_one_value_are_others(size: tuple[int, int], at: int) -> None:
    """Of an even number of values or an odd one, from the first picture on or from a later one."""
    torch.manual_seed(0)
    net, x = nn.Identity(), torch.rand(3, 3, *size)
    for other in (x[at:], x[at:].flatten(1)[:, :-1], x[at:] + 0.0, x[at:].mT.contiguous().mT):
        assert same(other, x[at:]) == (other.shape == x[at:].shape)
    for i in (0, -1):
        changed = x[at:].clone()
        changed.view(-1)[i] += 0.1
        assert not same(changed, x[at:])
    with awaiting(net, x) as first:
        note(net, x[:at], x[:at, 0, 0])
        note(net, x[at:] + 0.1, x[at:, 0, 0])
        assert first.logits is None
        note(net, x[at:], x[at:, 0, 0])
        assert torch.equal(first.logits, x[:, 0, 0])


def test_scores_of_the_same_pictures_are_asked_once_while_a_task_goes_on(counting: cs.Classifier) -> None:
    """Others are asked for, and the same ones again where the weights changed, or where no task goes on."""
    x, net = pictures(3), counting.net
    with counting.undisturbed():
        wanted = scores(counting, x)
        net.sizes.clear()
        with remembering():
            assert torch.equal(scores(counting, x), wanted)
            assert torch.equal(scores(counting, x.clone()), wanted)
            assert net.sizes == [3]
            assert not torch.equal(scores(counting, 1 - x), wanted)
            assert net.sizes == [3, 3]
        scores(counting, x)
        scores(counting, x)
        assert net.sizes == [3, 3, 3, 3]
    with remembering(), torch.no_grad():
        scores(counting, x)
        net.head.bias.add_(1.0)
        torch.testing.assert_close(scores(counting, x), wanted + 1.0)
