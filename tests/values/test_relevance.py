"""The numbers of contrastive LRP, RAP and Relevance-CAM: by slow replicas of their formulas and by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin, Rows
from clearsight.errors import Refused
from clearsight.explainers.common import lrp_rules, lrp_walk
from clearsight.internals.recording import graph_of, known_graph
from clearsight.runner.run import explain
from clearsight.testing import linear, pooled
from relevancenets import NETS, Run, bent, built, made, rule, seeded, stages, way_back


def one_hot(k: int, n: int = 3) -> np.ndarray:
    return (np.arange(n) == k).astype(float)


def close(found: np.ndarray | Tensor, wanted: np.ndarray) -> None:
    scale = np.abs(wanted).max()
    assert scale > 0
    np.testing.assert_allclose(np.asarray(found) / scale, wanted / scale, rtol=1e-3, atol=2e-4)


# --- contrastive LRP --------------------------------------------------------------------------------------------------


def contrast(model: Classifier, picture: Tensor, k: int, kind: str) -> np.ndarray:
    """Two ways back, as in the paper: for the class, and for its opposite; then what is left above zero."""
    at = stages(model, picture)
    size = abs(at["logits"][k])
    mine, _ = way_back(at, size * one_hot(k), rule("box"), rule("plus"), rule("plus"), by_sign=True)
    if kind == "clrp1":
        start = size * (1 - one_hot(k)) / 2
    else:
        x, w, there, b = at["last"]
        sign = 1 - 2 * one_hot(k)
        at["last"], start = (x, w * sign[:, None], there, b * sign), size * one_hot(k)
    dual, _ = way_back(at, start, rule("box"), rule("plus"), rule("plus"), by_sign=True)
    return np.maximum(mine - dual, 0)


@pytest.mark.parametrize("kind", ["clrp1", "clrp2"])
def test_contrastive_lrp_is_one_way_back_less_another(kind):
    model, x = made(bent, (5, 6))
    for k in range(3):
        found = explain(model, x, f"contrastive-lrp(kind={kind})", ClassScore(k)).maps
        close(found, np.stack([contrast(model, picture, k, kind) for picture in x]))


def test_contrastive_lrp_by_hand():
    """Parts of class 0 are 1, 1, 0 and -1 (half of it each to two); of class 1 0, 1, 2, 0; of class 2 0, 0, 1, 0."""
    model = linear([[1.0, 1.0, 0.0, -1.0], [0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    x = torch.ones(1, 1, 1, 4)

    def maps(kind: str, k: int) -> list[float]:
        return explain(model, x, f"contrastive-lrp(kind={kind})", ClassScore(k)).maps.flatten().tolist()

    # between 0 and 1 the first layer counts x w - w-: 1, 1, 0, 0 for class 0, for its negative 0, 0, 0, 1
    assert maps("clrp1", 0) == pytest.approx([0.5, 0.5 - 1 / 6, 0, 0], abs=1e-5)
    assert maps("clrp2", 0) == pytest.approx([0.5, 0.5, 0, 0], abs=1e-5)
    assert maps("clrp1", 1) == pytest.approx([0, 0.25, 0.5, 0], abs=1e-5)  # of 3: 1 and 2, less half 3/2 each


def test_contrastive_lrp_starts_with_the_size_of_the_logit():
    """A class of negative logit is explained as well: what is for it is what would be were its bias larger."""
    weights = [[2.0, -1.0, 0.5], [-1.0, 2.0, 0.5]]
    x = torch.tensor([[0.9, 0.2, 0.4], [0.8, 0.1, 0.6]]).view(2, 1, 1, 3)
    low, high = (linear(weights, bias=[b, 0.0]) for b in (-5.0, 5.0))
    for kind in ("clrp1", "clrp2"):
        a, b = (explain(m, x, f"contrastive-lrp(kind={kind})", ClassScore(0)).maps for m in (low, high))
        assert (a[:, 0, 0] > 0).all()
        torch.testing.assert_close(a / a.sum((1, 2), keepdim=True), b / b.sum((1, 2), keepdim=True))


@pytest.mark.parametrize("method", ["contrastive-lrp", "contrastive-lrp(kind=clrp2)", "relevance-cam(layer=a)"])
def test_the_class_in_question_is_the_one_that_raises_the_target(method):
    model, x = made(bent, (5, 6))
    wanted = explain(model, x, method, ClassScore(2)).maps
    sure = Classifier(Run(lambda s, z: s.inner(z) * 1e3, inner=model.net), model.preprocess, model.labels)
    for target in (Margin(2, 0), Margin(2), ClassScore(2, of="prob")):
        torch.testing.assert_close(explain(model, x, method, target).maps, wanted)
    if "layer" not in method:  # a probability of 1, or of 0, has no gradient left
        found = explain(sure, x, method, ClassScore(2, of="prob")).maps
        torch.testing.assert_close(found / 1e3, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["contrastive-lrp", "relevance-cam(layer=a)"])
def test_a_score_of_ones_own_is_asked_and_a_class_that_is_none_refused(method):
    class Other(ClassScore):
        def __call__(self, outputs: Tensor) -> Tensor:
            return outputs[:, 0]

        def __getitem__(self, rows: Rows) -> ClassScore:
            return self

    model, x = made(bent, (5, 6))
    wanted = explain(model, x, method, ClassScore(0)).maps
    torch.testing.assert_close(explain(model, x, method, Other(2)).maps, wanted)
    with pytest.raises(Refused, match="class 3: this model has classes 0 to 2"):
        explain(model, x, method, ClassScore(3))


def test_contrastive_lrp_negates_a_last_layer_that_is_a_convolution():
    """As in nets that end with a convolution and an average over its places."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, dense = nn.Conv2d(4, 3, 1), nn.Linear(4, 3)
        first = nn.Conv2d(2, 4, 3)
    dense.weight.data, dense.bias.data = conv.weight.data[:, :, 0, 0], conv.bias.data
    nets = (
        nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()),
        nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense),
        nn.Sequential(first, nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    x = torch.rand(2, 2, 6, 7, generator=seeded(3))
    found = []
    for net in nets:
        model = Classifier(net, Preprocess((6, 7), (0.5,) * 2, (0.25,) * 2), tuple("abc"))
        found += [explain(model, x, "contrastive-lrp(kind=clrp2)", ClassScore(1)).maps]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert found[2].max() > 0  # without the negation nothing would be left
    assert (found[2] == 0).float().mean() < 0.9


# --- RAP --------------------------------------------------------------------------------------------------------------


def by_influence(x, w, there, b, r):
    """The last layer: each output's relevance, by the size of each input's part in it."""
    found = np.zeros_like(x)
    for j in range(len(w)):
        sizes = [abs(x[i] * w[j, i]) for i in range(len(x))]
        for i in range(len(x)):
            found[i] += r[j] * sizes[i] / sum(sizes)
    return found


def relative(x, w, there, b, r):
    """All along what helps, and a part along what hinders; then the same taken off all that have any."""
    found = np.zeros_like(x)
    for j in range(len(w)):
        parts = [x[i] * w[j, i] for i in range(len(x))]
        helps, hinders = sum(p for p in parts if p > 0), -sum(p for p in parts if p < 0)
        for i, p in enumerate(parts):
            if p > 0:
                found[i] += p * r[j] / helps
            elif p < 0:
                found[i] += -p * (r[j] * hinders / (helps + hinders)) / hinders
    there = found != 0
    return np.where(there, found - (found.sum() - r.sum()) / there.sum(), 0)


def test_rap_is_what_its_formulas_say():
    model, x = made(bent, (5, 6))
    for k in range(3):
        wanted = []
        for picture in x:
            at = stages(model, picture)
            start = at["logits"] * one_hot(k)
            wanted.append(way_back(at, start, rule("box"), relative, by_influence, by_sign=True)[0])
        close(explain(model, x, "rap", ClassScore(k)).maps, np.stack(wanted))


def test_rap_takes_the_surplus_off_the_units_that_have_any():
    """Parts of the inner unit: 1, -1 (half of the relevance too) and 0 (dead): 1.5 in all, 1/4 off each of two."""
    first, inner, last = nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 1, 1), nn.Linear(1, 2, bias=False)
    first.weight.data[:] = torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1, 1)
    inner.weight.data[:] = torch.tensor([1.0, -1.0, 5.0]).view(1, 3, 1, 1)
    inner.bias.data[:] = 3.0
    last.weight.data[:] = torch.tensor([[1.0], [0.5]])
    net = nn.Sequential(first, nn.ReLU(), inner, nn.Flatten(), last)
    model = Classifier(net, Preprocess((1, 1), (0.0,), (1.0,)), ("a", "b"))
    found = explain(model, torch.ones(1, 1, 1, 1), "rap", ClassScore(0))
    assert found.maps.item() == pytest.approx(3.0, rel=1e-4)  # the logit: 0 + the bias 3
    cam = explain(model, torch.ones(1, 1, 1, 1), "relevance-cam(layer=0)", ClassScore(0))
    assert cam.maps.item() == pytest.approx((1 - 1 / 2) / 4, rel=1e-4)  # a bias of 3 keeps 3/4 by z+


@pytest.mark.parametrize("name", NETS)
def test_rap_sums_to_the_logit(name):
    model, x = built(name)
    e = explain(model, x, "rap", ClassScore([0, 1, 2]))
    with torch.no_grad():
        logit = model(x).diagonal().float()
    mass = e.maps.flatten(1).abs().sum(1)
    assert ((e.maps.flatten(1).sum(1) - logit) / mass).abs().max() < 1e-4
    assert e.diagnostics["conservation residual"].abs().max() < 1e-4
    assert e.diagnostics["kept by biases"].abs().max() < 1e-3


def test_rap_keeps_what_dead_units_cannot_take():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    net[0].bias.data[:] = -100.0
    net[2].bias.data[:] = 1.0
    net[5].weight.data.abs_().mul_(100)
    model = Classifier(net, Preprocess((1, 2), (0.0,), (1.0,)), ("a", "b"))
    for method in ("rap", "lrp", "contrastive-lrp"):
        assert (explain(model, torch.rand(2, 1, 1, 2), method, ClassScore(0)).maps == 0).all()
    e = explain(model, torch.rand(2, 1, 1, 2), "rap", ClassScore(0))
    assert e.diagnostics["kept by biases"].tolist() == pytest.approx([1, 1], abs=1e-4)


# --- Relevance-CAM ----------------------------------------------------------------------------------------------------


def test_relevance_cam_is_what_its_formula_says():
    """In the middle of the network, where nothing is constant over the places; here before it is enlarged."""
    model, x = made(bent, (5, 6))
    for k in range(3):
        maps = []
        for picture in x:
            at = stages(model, picture)
            start = one_hot(k) - (1 - one_hot(k)) / 3
            _, r = way_back(at, start, rule("plus"), rule("plus"), rule("plus"), by_sign=False)
            cam = np.zeros(at["drive"].shape[1:])
            for channel in range(len(r)):
                cam += at["drive"][channel] * r[channel].mean()
            maps.append(cam)
        small = torch.tensor(np.stack(maps))[:, None]
        wanted = F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        close(explain(model, x, "relevance-cam(layer=a)", ClassScore(k)).maps, wanted.numpy())


def test_relevance_cam_by_hand():
    """Three classes: the start is 1, -1/3 and -1/3; each class's relevance goes to the channels it weighs above 0."""
    model = pooled([[4.0, 0.0, -9.0], [0.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    x = torch.tensor([[[[0.25, 0.75]], [[1.0, 0.0]], [[0.5, 0.5]]]])
    found = explain(model, x, "relevance-cam", ClassScore(0)).maps.flatten()
    r = torch.tensor([1.0, -1 / 3 - 1 / 6, -1 / 6]) / 2  # half at each of two places, on average
    torch.testing.assert_close(found, (r.view(3, 1) * x[0, :, 0]).sum(0), rtol=1e-4, atol=1e-6)


def test_relevance_cam_needs_maps():
    model, x = built("biases")
    with pytest.raises(Refused, match="not feature maps"):
        explain(model, x, "relevance-cam(layer=4)", ClassScore(0))
    twice, y = made(lambda: Run(lambda s, z: s.b(s.b(s.a(z))).mean((2, 3)), a=nn.Conv2d(2, 3, 1), b=nn.Conv2d(3, 3, 1)))
    with pytest.raises(Refused, match="runs more than once"):
        explain(twice, y, "relevance-cam(layer=b)", ClassScore(0))


# --- what the rules run -----------------------------------------------------------------------------------------------


def branchless() -> nn.Module:
    """Its second convolution reads values of both signs, and only a ReLU reads what it gives."""
    return Run(
        lambda s, x: s.d(s.c(s.b(s.a(x)).relu()).relu().mean((2, 3))),
        a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 6, 3), c=nn.Conv2d(6, 5, 3), d=nn.Linear(5, 3),
    )  # fmt: skip


def products(model: Classifier, x: Tensor, call: str) -> tuple[float, float]:
    """What a later call runs of convolutions, forward and back, in multiply-adds of the network's own for x."""
    counts = []
    for run in (lambda: model(x), lambda: explain(model, x, call, ClassScore(0)), lambda: explain(model, x, call)):
        with FlopCounterMode(display=False) as counter:
            run()
        counts.append({packet.__name__: n for packet, n in counter.get_flop_counts()["Global"].items()})
    whole, _, found = counts
    return tuple(found.get(name, 0) / whole["convolution"] for name in ("convolution", "convolution_backward"))


@pytest.mark.parametrize(
    ("call", "forwards", "backwards"),
    [  # as shares of a pass: a has 0.29, b 0.47 and c 0.24.  The pass, and one picture of three to see that it holds
        ("lrp", (1 / 8, 1, 1), (1 / 8, 2, 1)),  # flat one channel of 2 x 4; z+ of both signs one sum, two ways back
        ("contrastive-lrp", (2 / 3, 1, 1), (2, 2, 1)),  # zB black and white once for all
        ("rap", (2 / 3, 1, 1), (2, 4, 2)),  # P gives N too
        ("relevance-cam", (0, 0, 0), (0, 0, 0)),  # nothing before the layer; what checks the recording is the pass
        ("deep-lift", (1 / 3, 1 / 3, 1 / 3), (1, 1, 1)),  # the flat picture once for all
    ],
)
def test_no_more_is_run_than_the_formula_needs(call, forwards, backwards):
    model, x = made(branchless, (12, 12))
    sizes = np.array([72 * 100, 216 * 64, 270 * 36]) / (72 * 100 + 216 * 64 + 270 * 36)
    forward, back = products(model, x, call)
    check = 0 if call == "relevance-cam" else 1 / 3
    assert 1 + check + sizes @ forwards == pytest.approx(forward, abs=1e-6)
    assert sizes @ backwards == pytest.approx(back, abs=1e-6)


@pytest.mark.parametrize("call", ["lrp", "rap", "lrp(composite=alpha-beta)", "contrastive-lrp(kind=clrp2)"])
def test_a_sum_of_one_sign_is_the_same_with_one_product_less(call, monkeypatch):
    model, x = made(branchless, (12, 12))
    found = explain(model, x, call, ClassScore(1)).maps
    monkeypatch.setattr(lrp_walk, "signs_of", lambda *_: {})
    torch.testing.assert_close(found, explain(model, x, call, ClassScore(1)).maps, rtol=1e-6, atol=1e-8)


def test_changed_weights_are_kept_up_to_a_size_and_no_longer_than_the_weights_stay(monkeypatch):
    model, x = made(branchless, (12, 12), seed=1)
    found = explain(model, x, "rap", ClassScore(1)).maps
    graph = known_graph(model, x)
    assert graph is not None
    kept = {key: t.clone() for key, t in graph.kept.items()}
    assert kept
    monkeypatch.setattr(lrp_rules, "positive_part", lambda w: w.clamp(min=0))  # another function: nothing is known
    assert torch.equal(found, explain(model, x, "rap", ClassScore(1)).maps)
    assert all(torch.equal(graph.kept[key], t) for key, t in kept.items())
    graph.kept.clear()
    monkeypatch.setattr(lrp_walk, "KEPT", 4 * 6 * 9)  # one layer's
    assert torch.equal(found, explain(model, x, "rap", ClassScore(1)).maps)
    assert 0 < sum(t.numel() for t in graph.kept.values()) <= 4 * 6 * 9
    with torch.no_grad():
        model.net.b.weight.neg_()
    changed = explain(model, x, "rap", ClassScore(1)).maps
    twin = Classifier(copy.deepcopy(model.net), model.preprocess, model.labels)
    assert torch.equal(changed, explain(twin, x, "rap", ClassScore(1)).maps)
    assert not torch.allclose(found, changed)


@pytest.mark.parametrize("call", ["lrp", "relevance-cam(layer=b)", "deep-lift"])
def test_a_network_that_runs_in_another_way_by_now_is_recorded_again(call):
    """Nothing but its results says so: neither its weights nor its attributes."""
    how = [torch.relu]
    net = Run(lambda s, x: s.c(how[0](s.b(s.a(x).relu())).mean((2, 3))),
              a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 4, 3), c=nn.Linear(4, 3))  # fmt: skip
    model, x = made(lambda: net)
    first = explain(model, x, call, ClassScore(1)).maps
    how[0] = torch.nn.functional.softplus
    found = explain(model, x, call, ClassScore(1)).maps
    fresh = Classifier(copy.deepcopy(net), model.preprocess, model.labels)
    assert torch.equal(found, explain(fresh, x, call, ClassScore(1)).maps)
    assert not torch.allclose(first, found)


def test_relevance_cam_of_a_layer_that_others_go_past():
    """The scores come from elsewhere too, so the recording runs from the pixels: as where it always does."""
    model, x = made(bent, (5, 6))
    with model.undisturbed():
        assert lrp_walk.nodes_behind(graph_of(model, x[:1], "a")) is not None
        assert lrp_walk.nodes_behind(graph_of(model, x[:1], "b")) is None
    e = explain(model, x, "relevance-cam(layer=b)", ClassScore(1))
    assert (e.forwards, e.backwards) == (1, 1)
    assert e.maps.abs().max() > 0


@pytest.mark.parametrize("layer", ["a", "b"])
def test_relevance_cam_is_the_same_where_the_recording_runs_all(layer, monkeypatch):
    model, x = made(branchless, (12, 12))
    found = explain(model, x, f"relevance-cam(layer={layer})", ClassScore(1))
    monkeypatch.setattr(lrp_walk, "nodes_behind", lambda _: None)
    wanted = explain(model, x, f"relevance-cam(layer={layer})", ClassScore(1))
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-6, atol=1e-8)
    assert found.forwards == wanted.forwards == 1
