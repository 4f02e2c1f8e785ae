"""The numbers of Score-CAM and Ablation-CAM, and the rest of a network that the latter runs by itself."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.core.preprocess import Preprocess
from clearsight.core.similarity import spearman
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.internals.forward_from_layer import forward_from, forward_whole
from clearsight.internals.graph import Unrecordable
from clearsight.runner.run import explain

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classifier(net: nn.Module, size: tuple[int, ...] = (8, 12)) -> Classifier:
    return Classifier(net.eval(), Preprocess(size, MEAN, STD), tuple("abc"))


@pytest.fixture
def model() -> Classifier:
    """A network whose layer 1 (4 × 6) has channels that are the same everywhere: above 0, below 0, and 0."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 4 * 6, 3),
        )
    with torch.no_grad():
        net[5].weight *= 4
        net[0].weight[[1, 3, 4]] = 0.0
        net[0].bias[[1, 3, 4]] = torch.tensor([0.8, -1.0, 0.0])
    return classifier(net)


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(3, 3, 8, 12, generator=seeded(1))


# --- score_cam --------------------------------------------------------------------------------------------------------


def slow_score_cam(model: Classifier, x: Tensor, k: int, mode: str, scores: str) -> Tensor:
    """One picture, one channel at a time, everything in normalised space as the paper's algorithm has it."""

    def score(z: Tensor) -> float:
        out = model.net(z[None])[0].double()
        return float(out.softmax(0)[k] if scores == "probability" else out[k])

    with torch.no_grad():
        z = model.normalised(x[None])[0]
        a = model.net[:2](z[None])[0]
        found, used = [], []
        for c in range(len(a)):
            large = F.interpolate(a[None, [c]], (8, 12), mode="bilinear", align_corners=False)[0, 0]
            low, high = float(large.min()), float(large.max())
            constant = high - low < 1e-6
            mask = torch.zeros(8, 12) if constant else (large - low) / (high - low)
            if mode == "paper" or not constant:
                baseline = score(torch.zeros_like(z)) if mode == "paper" else 0.0
                found.append(score(z * mask) - baseline)
                used.append(c)
        if mode == "paper":
            total = sum(math.exp(s) for s in found)
            found = [math.exp(s) / total for s in found]
        cam = sum(w * a[c] for w, c in zip(found, used, strict=True)).clamp_min(0)
        return F.interpolate(cam[None, None], (8, 12), mode="bilinear", align_corners=False)[0, 0]


@pytest.mark.parametrize("k", [0, 1, 2])
@pytest.mark.parametrize("scores", ["probability", "target"])
@pytest.mark.parametrize("mode", ["paper", "reference"])
def test_score_cam_replica(model, pictures, mode, scores, k):
    found = explain(model, pictures, f"score-cam(mode={mode}, scores={scores}, layer=1)", ClassScore(k)).maps
    for i, x in enumerate(pictures):
        torch.testing.assert_close(found[i], slow_score_cam(model, x, k, mode, scores), rtol=1e-4, atol=1e-5)


def test_score_cam_takes_the_probability_also_where_the_logit_is_asked_for(model, pictures):
    call = "score-cam(mode=reference, layer=1)"
    logit, prob = (explain(model, pictures, call, ClassScore([0, 1, 2], of=of)).maps for of in ("logit", "prob"))
    torch.testing.assert_close(logit, prob)
    as_asked = explain(model, pictures, "score-cam(mode=reference, scores=target, layer=1)", ClassScore([0, 1, 2])).maps
    assert not torch.allclose(logit, as_asked)
    by_two = explain(model, pictures, "score-cam(scores=target, layer=1)", Margin(0, 2)).maps
    assert not torch.allclose(by_two, explain(model, pictures, call, ClassScore(0)).maps)


def test_score_cam_costs_a_forward_for_each_channel_that_is_not_the_same_everywhere(model, pictures):
    for mode, passes in (("paper", 1 + 3 + 1 / 3), ("reference", 1 + 3)):  # the mean colour is run once for all
        e = explain(model, pictures, f"score-cam(mode={mode}, layer=1)", ClassScore(0))
        assert e.forwards == pytest.approx(passes)
        assert e.backwards == 0


@pytest.mark.parametrize("mode", ["paper", "reference"])
def test_score_cam_of_few_channels_scores_the_strongest_and_takes_their_mean_or_nothing_for_the_others(
    model, pictures, mode
):
    """Written out one channel at a time."""
    for few in (1, 2):
        found = explain(model, pictures, f"score-cam(mode={mode}, channels={few}, layer=1)", ClassScore(1))
        assert found.forwards == pytest.approx(1 + few + (1 / 3 if mode == "paper" else 0))
        for i, x in enumerate(pictures):
            with torch.no_grad():
                a = model.net[:2](model.normalised(x[None]))[0]
                large = F.interpolate(a[None], (8, 12), mode="bilinear", align_corners=False)[0]
                low, high = large.amin((1, 2)), large.amax((1, 2))
                seen = [c for c in range(len(a)) if float(high[c] - low[c]) > 1e-6]
                masks = (large[seen] - low[seen, None, None]) / (high - low)[seen, None, None]
                scores = model.net(masks[:, None] * model.normalised(x[None])).softmax(1)[:, 1]
                blank = model.net(torch.zeros_like(x)[None]).softmax(1)[0, 1]
            strongest = sorted(range(len(seen)), key=lambda j: -float(a[seen[j]].square().sum()))[:few]
            weights = torch.zeros(len(a)) + (blank if mode == "paper" else 0)
            weights[seen] = scores[strongest].mean() if mode == "paper" else 0.0
            weights[[seen[j] for j in strongest]] = scores[strongest]
            weights = weights.softmax(0) if mode == "paper" else weights
            cam = (weights[:, None, None] * a).sum(0).relu()
            wanted = F.interpolate(cam[None, None], (8, 12), mode="bilinear", align_corners=False)[0, 0]
            torch.testing.assert_close(found.maps[i], wanted, rtol=1e-4, atol=1e-5)


def test_score_cam_of_as_many_channels_as_there_are_is_that_of_all(model, pictures):
    wanted = explain(model, pictures, "score-cam(layer=1)", ClassScore(0))
    found = explain(model, pictures, "score-cam(channels=99, layer=1)", ClassScore(0))
    assert torch.equal(found.maps, wanted.maps)
    assert found.forwards == wanted.forwards
    with pytest.raises(Refused, match=r"score-cam\(channels=0\): channels must be at least 1"):
        explain(model, pictures, "score-cam(channels=0, layer=1)")


@pytest.mark.slow
def test_score_cam_of_fifty_channels_ranks_the_demo_networks_places_like_the_whole_map():
    net = cs.load("demo")
    x = cs.pixels(net, "demo:coffee")
    whole, few = (explain(net, x, f"score-cam(channels={n})").maps[0].double().numpy() for n in ("none", 50))
    assert spearman(whole, few) > 0.95


# --- ablation_cam -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 2])
def test_ablation_cam_replica(model, pictures, k):
    """The paper's weights are ours over the target of the whole picture."""
    e = explain(model, pictures, "ablation-cam(layer=1)", ClassScore(k))
    with torch.no_grad():
        for found, z in zip(e.maps, model.normalised(pictures), strict=True):
            a = model.net[:2](z[None])
            y = float(model.net[2:](a)[0, k])
            cam = torch.zeros(4, 6)
            for c in range(6):
                without = a.clone()
                without[0, c] = 0
                weight = (y - float(model.net[2:](without)[0, k])) / y
                cam += weight * a[0, c]
            cam = (cam * y).clamp_min(0)
            wanted = F.interpolate(cam[None, None], (8, 12), mode="bilinear", align_corners=False)[0, 0]
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_ablation_cam_behind_a_gap_head_is_grad_cam_by_the_channels_means(pictures):
    """Without channel k the logit falls by its weight times its mean."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net.append(nn.Linear(7, 3))
    found = explain(classifier(net), pictures, "ablation-cam", ClassScore(2)).maps
    with torch.no_grad():
        a = net[:2](classifier(net).normalised(pictures))
        weights = net[4].weight[2] * a.mean((2, 3))
        torch.testing.assert_close(found, (weights[:, :, None, None] * a).sum(1).relu(), rtol=1e-4, atol=1e-5)


# --- what ablation_cam runs again -------------------------------------------------------------------------------------


class Skips(nn.Module):
    """What is around the layer reaches the logits past it: an addition, a product, and a number of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layer = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.late = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.stem(x))
        z = self.norm(self.layer(h))
        z += h
        z = self.late(self.relu(z)) * h.mean((2, 3), keepdim=True).sigmoid()
        token = torch.zeros(len(x), 1, 6) + self.head.weight[0]
        tokens = torch.cat([token, z.flatten(2).mT], 1)
        return self.head(tokens.mean(1))


class Dense(nn.Module):
    """As in a DenseNet, every layer reads all that were before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.layer, self.three = (nn.Conv2d(4 + 3 * i, 3, 3, padding=1) for i in range(3))
        self.norm = nn.BatchNorm2d(13)
        self.head = nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for block in self.one, self.layer, self.three:
            seen.append(block(torch.cat(seen, 1).relu()))
        return self.head(self.norm(torch.cat(seen, 1)).relu().mean((2, 3)))


class Undecided(nn.Module):
    """Does other things for other pictures, so that it cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        a = a.relu() if bool(a.mean() > 100) else a.tanh()
        return self.head(a.mean((2, 3)))


def trained(net: nn.Module) -> nn.Module:
    """With BatchNorms that have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for p in net.parameters():
            p.data = torch.randn(p.shape) / 3
        net.train()(torch.randn(8, 3, 8, 12) * 2 + 1)
    return net.eval()


@pytest.mark.parametrize("net", [Skips, Dense, Undecided], ids=lambda n: n.__name__)
def test_ablation_cams_tail_is_the_whole_with_the_layers_output_replaced(net, pictures):
    model = classifier(trained(net()))
    with model.undisturbed(), counted(model.net) as passes:
        a, rest = forward_from(model, pictures, "layer")
        before = passes.forwards
        rows = torch.tensor([2, 0, 0, 1, 2])
        values = a[rows] * torch.rand(a[rows].shape, generator=seeded(2))
        found = rest(rows, values)
        runs = passes.forwards - before
        wanted = forward_whole(model, pictures, "layer")(rows, values)
        with torch.no_grad():
            torch.testing.assert_close(rest(torch.arange(3), a), model(pictures), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - wanted.roll(1, 0)).abs().max() > 0.02
    assert before == {Skips: 6, Dense: 6, Undecided: 3}[net]  # what reaches the logits past the layer takes a pass
    assert runs == {Skips: 0, Dense: 0, Undecided: 5}[net]


@pytest.mark.parametrize("net", [Skips, Dense], ids=lambda n: n.__name__)
def test_ablation_cam_is_the_same_by_tail_and_by_whole_passes(net, pictures, monkeypatch):
    model = classifier(trained(net()))
    fast = explain(model, pictures, "ablation-cam(layer=layer)", ClassScore([0, 1, 2]))

    def refuse(*_: object) -> None:
        raise Unrecordable("not today")

    monkeypatch.setattr("clearsight.internals.forward_from_layer.with_graph", refuse)
    slow = explain(model, pictures, "ablation-cam(layer=layer)", ClassScore([0, 1, 2]))
    torch.testing.assert_close(fast.maps, slow.maps, rtol=1e-3, atol=1e-4)
    assert (fast.maps > 0).any()
    channels = {Skips: 6, Dense: 3}[net]
    assert fast.forwards == 2
    assert slow.forwards == 1 + 1 + channels


def test_ablation_cam_runs_no_more_than_what_comes_behind_the_layer(model, pictures):
    """Neither the part before the layer nor channels that are 0 already."""
    before = explain(model, pictures, "ablation-cam(layer=1)", ClassScore(0)).maps
    seen: list[str] = []
    handles = [m.register_forward_hook(lambda *_, n=n: seen.append(n)) for n, m in model.net.named_modules() if n]
    e = explain(model, pictures, "ablation-cam(layer=1)", ClassScore(0))
    for h in handles:
        h.remove()
    torch.testing.assert_close(e.maps, before)
    assert e.forwards == 1
    assert seen.count("5") == seen.count("0")  # only as often as all of it, to record and to see that it is right


def test_ablation_cam_of_a_layer_that_is_not_run(pictures):
    net = Undecided()
    net.spare = nn.Conv2d(3, 3, 1)
    for name in "ablation-cam", "score-cam":
        with pytest.raises(Refused, match="is not run in a forward pass"):
            explain(classifier(net), pictures, f"{name}(layer=spare)")
        with pytest.raises(Refused, match="not feature maps"):
            explain(classifier(net), pictures, f"{name}(layer=head)")
