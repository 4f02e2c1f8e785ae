"""What Ablation-CAM takes of a network without one channel of a layer: as by whole passes, by few products."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.explainers.ablation_cam import falls_without
from clearsight.internals import forward_without_channel
from clearsight.internals.forward_from_layer import Recorded, forward_from, forward_whole, logits_of
from clearsight.internals.forward_without_channel import parts_of_outputs, without_channels
from clearsight.runner.run import explain

PICTURES, CHANNELS, NUMBERS = 3, 5, 4 * 6  # of the layer, and at the places of each channel

flat = partial(nn.Flatten)
pooled = partial(nn.AdaptiveAvgPool2d, 1)


class TwoWays(nn.Module):
    """The mean and the largest of each channel, side by side: no one node holds the channels apart."""

    def forward(self, a: Tensor) -> Tensor:
        return torch.cat([a.mean((2, 3)), a.amax((2, 3))], 1)


class Overall(nn.Module):
    """The mean of all channels at each place."""

    def forward(self, a: Tensor) -> Tensor:
        return a.mean(1).flatten(1)


class AmongTokens(nn.Module):
    """Channels come last, behind places."""

    def forward(self, a: Tensor) -> Tensor:
        return a.permute(0, 2, 3, 1).flatten(1)


class Beside(nn.Module):
    """Something that is there once for each picture, whatever the picture is, is added before the pooling."""

    def forward(self, a: Tensor) -> Tensor:
        return a + torch.linspace(0, 1, 5)[None, :, None, None].repeat(len(a), 1, 1, 1)


# what follows the layer, and the products of the pass and the removals: of each picture, or of each of its channels
HEADS = {
    "pooled": (lambda: [pooled(), flat(), nn.Linear(5, 3)], 5 * 3, 0),
    "rectified": (
        lambda: [nn.BatchNorm2d(5), nn.ReLU6(), nn.Dropout(), pooled(), flat(), nn.Linear(5, 3, bias=False)],
        5 * 3,
        0,
    ),
    "in places": (
        lambda: [nn.MaxPool2d(2), nn.SiLU(), flat(), nn.Linear(30, 7), nn.ReLU(), nn.Linear(7, 3)],
        2 * 30 * 7,
        7 * 3,
    ),
    "convolution": (
        lambda: [pooled(), nn.Conv2d(5, 7, 1), nn.Hardswish(), flat(), nn.Linear(7, 3)],
        5 * 7,
        7 * 3,
    ),
    "normalised": (lambda: [nn.BatchNorm2d(5), pooled(), flat(), nn.LayerNorm(5), nn.Linear(5, 3)], 0, 5 * 3),
    "no dense": (lambda: [nn.Conv2d(5, 3, 1), nn.AvgPool2d((4, 6)), flat()], 0, 5 * 3 * NUMBERS),
    "two ways": (lambda: [TwoWays(), nn.Linear(10, 3)], 0, 10 * 3),
    "beside": (lambda: [Beside(), nn.Sigmoid(), pooled(), flat(), nn.Linear(5, 3)], 0, 5 * 3),
    "overall": (lambda: [Overall(), nn.Linear(NUMBERS, 3)], 0, NUMBERS * 3),
    "last": (lambda: [AmongTokens(), nn.Linear(5 * NUMBERS, 3)], 0, 5 * NUMBERS * 3),
}


def made(head: list[nn.Module]) -> Classifier:
    """A network whose layer has one channel that is 0 for all pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), *head)
        for p in net.parameters():
            p.data = torch.randn(p.shape)
        net.train()(torch.randn(8, 3, 8, 12))  # BatchNorm sees something
    net[0].weight.data[2], net[0].bias.data[2] = 0.0, -1.0
    return Classifier(net.eval(), Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), tuple("abc"))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(PICTURES, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("few", [False, True], ids=["whole", "in portions"])
@pytest.mark.parametrize("name", HEADS)
def test_ablation_cam_without_a_channel_is_the_network_without_it(name, few, pictures, monkeypatch):
    if few:
        monkeypatch.setattr(forward_without_channel, "BYTES", 80)
        monkeypatch.setattr(forward_without_channel, "IN_CACHE", 150)
    head, once, by_channel = HEADS[name]
    model = made(head())
    with model.undisturbed(), torch.no_grad():
        a, rest = forward_from(model, pictures, "1")
        whole = forward_whole(model, pictures, "1")
        assert isinstance(rest, Recorded)
        with FlopCounterMode(display=False) as counter:
            found = [*without_channels(replace(rest, unchanged=None), a)]
        rows, k, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        without = a[rows]
        without[torch.arange(len(rows)), k] = 0
        torch.testing.assert_close(logits, whole(rows, without), rtol=1e-5, atol=2e-5)
        left_out = {(row, c) for row in range(PICTURES) for c in range(CHANNELS)} - {
            *zip(rows.tolist(), k.tolist(), strict=True)
        }
        assert len(rows) + len(left_out) == PICTURES * CHANNELS
        for row, c in left_out:
            same = a[[row]].index_fill(1, torch.tensor([c]), 0.0)
            torch.testing.assert_close(rest(torch.tensor([row]), same), rest(torch.tensor([row]), a[[row]]))
    assert (2 in k) is (by_channel == 0)  # the channel that is 0 costs nothing more, or is left out
    assert counter.get_total_flops() == 2 * (PICTURES * once + len(rows) * by_channel)


@pytest.mark.parametrize("name", HEADS)
def test_one_output_loses_what_the_network_without_the_channel_gives_less(name, pictures):
    """Where it is a sum over the channels; of any other it is not told."""
    model, index = made(HEADS[name][0]()), torch.tensor([2, 0, 1])
    with model.undisturbed(), torch.no_grad():
        a, rest = forward_from(model, pictures, "1")
        whole = forward_whole(model, pictures, "1")
        found = parts_of_outputs(rest, a, index)
        assert parts_of_outputs(whole, a, index) is None
        assert (found is not None) is (name in ("pooled", "rectified"))
        for channel in range(CHANNELS) if found is not None else ():
            rows = torch.arange(PICTURES)
            without = whole(rows, a.index_fill(1, torch.tensor([channel]), 0.0))
            losses = (whole(rows, a) - without)[rows, index]
            torch.testing.assert_close(found[:, channel], losses, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["pooled", "in places"])
def test_a_margin_loses_what_its_two_classes_lose(name, pictures):
    """Classes are told by their own part of the dense layer, a margin by the scores without each channel."""
    model = made(HEADS[name][0]())
    with model.undisturbed(), torch.no_grad():
        a, rest = forward_from(model, pictures, "1")
        falls = [falls_without(rest, a, target) for target in (Margin(2, 0), ClassScore(2), ClassScore(0))]
    torch.testing.assert_close(falls[0], falls[1] - falls[2], rtol=1e-5, atol=2e-5)
    assert bool(falls[0].any())
    with pytest.raises(Refused, match="class 3"):
        explain(model, pictures, "ablation-cam", ClassScore(3))


def test_the_logits_of_what_the_layer_gave_are_worked_out_once(pictures):
    model = made(HEADS["pooled"][0]())
    with model.undisturbed(), torch.no_grad():
        forward_from(model, pictures, "1")
        a, rest = forward_from(model, pictures, "1")  # which holds the recording against the network
        assert isinstance(rest, Recorded)
        assert torch.equal(logits_of(rest, a), logits_of(replace(rest, unchanged=None), a))
        with FlopCounterMode(display=False) as counter:
            found = [*without_channels(rest, a)]
            assert logits_of(rest, a) is rest.unchanged
        assert counter.get_total_flops() == 0
        again = [*without_channels(replace(rest, unchanged=None), a)]
    for some, others in zip(found, again, strict=True):
        assert all(map(torch.equal, some, others))


@pytest.mark.parametrize("of", ["logit", "prob"])
def test_ablation_cam_by_parts_is_ablation_cam_by_whole_passes(of, pictures, monkeypatch):
    for head, _, _ in HEADS.values():
        model = made(head())
        fast = explain(model, pictures, "ablation-cam(layer=1)", ClassScore([0, 1, 2], of)).maps
        with monkeypatch.context() as patched:
            patched.setattr("clearsight.explainers.ablation_cam.forward_from", by_whole_passes)
            slow = explain(model, pictures, "ablation-cam(layer=1)", ClassScore([0, 1, 2], of)).maps
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5 * float(slow.max()))
        assert (fast > 0).any()


def by_whole_passes(model: Classifier, x: Tensor, layer: str) -> tuple[Tensor, object]:
    a, _ = forward_from(model, x, layer)
    return a, forward_whole(model, x, layer)


class Turning(nn.Module):
    """What follows the layer is another thing by now."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head, self.turned = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 3), []

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x[..., ::2] if "places" in self.turned else x)
        out: Tensor = self.head(a.flatten(2).mean(2))
        return out.tanh() if "scores" in self.turned else out


@pytest.mark.parametrize("how", ["scores", "places"])
def test_ablation_cam_of_a_network_that_runs_in_another_way_by_now(how, pictures):
    model = Classifier(Turning().eval(), Preprocess((8, 12), (0.5,) * 3, (0.25,) * 3), tuple("abc"))
    before = explain(model, pictures, "ablation-cam(layer=layer)", ClassScore(1)).maps
    model.net.turned.append(how)
    after = explain(model, pictures, "ablation-cam(layer=layer)", ClassScore(1)).maps
    other = Classifier(Turning().eval(), model.preprocess, model.labels)
    other.net.load_state_dict(model.net.state_dict())
    other.net.turned.append(how)
    torch.testing.assert_close(after, explain(other, pictures, "ablation-cam(layer=layer)", ClassScore(1)).maps)
    assert not torch.allclose(after, before, rtol=1e-2)


def test_ablation_cam_runs_one_pass_and_parts_of_the_head(pictures):
    """Of a network that is known: no pass to see that the recording is right, which the head's own scores show."""
    model = made(HEADS["pooled"][0]())
    explain(model, pictures, "ablation-cam(layer=1)", ClassScore(1))
    with FlopCounterMode(display=False) as counter:
        e = explain(model, pictures, "ablation-cam(layer=1)", ClassScore(1))
    assert e.forwards == 1
    counted = {packet.__name__: n for packet, n in counter.get_flop_counts()["Global"].items()}
    assert counted["convolution"] == 2 * PICTURES * 5 * NUMBERS * 27
    assert counted["addmm"] <= 4 * 2 * PICTURES * 5 * 3
