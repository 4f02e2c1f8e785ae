"""Networks whose gradient is not that of their scores, or that do not repeat themselves: refused, or said."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.diagnosis import inspect
from clearsight.core.classifier import Classifier
from clearsight.core.passes import counted
from clearsight.errors import Notice, Refused
from clearsight.internals.finite_differences import Slopes, look_closer
from clearsight.internals.probe import probed
from clearsight.internals.scores import scores_of
from unsoundnets import SIZE, Detached, Doubled, Dropped, Frozen, Numpied, Together, body, wrapped

PARTIAL = "the gradient at the pixels is not that of the scores"


def pictures(n: int = 3) -> Tensor:
    return torch.rand((n, 3, *SIZE), generator=torch.Generator().manual_seed(2))


class Rounded(nn.Module):
    """Rounds its input to 8 bits and hands the gradient straight through, as training for such inputs does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + ((x * 63.75).round() / 63.75 - x).detach())  # 8 bits of a pixel, behind a std of 1/4


UNSOUND = {
    "frozen": Frozen,
    "smooth": lambda: Frozen(act=nn.SiLU),
    "detached": Detached,
    "own": Doubled,
    "numpy": Numpied,
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_gradient_that_is_not_whole_is_refused_said_and_named(name: str) -> None:
    model, x = wrapped(UNSOUND[name]()), pictures()
    for method in ("saliency", "integrated-gradients(steps=3)", "smooth-grad(samples=3)", "gradient-x-input"):
        with pytest.raises(Refused, match=PARTIAL):
            cs.explain(model, x, method, cs.ClassScore(0))
    assert any(PARTIAL in p.what for p in inspect(model).problems)
    with pytest.warns(Notice, match=f"{PARTIAL}.*a gradient-based attack that fails proves little"):
        cs.attack(model, x, torch.tensor([0, 1, 2]), "pgd(steps=2)")
    assert cs.explain(model, x, "occlusion(window=4, stride=4)", cs.ClassScore(0)).maps.any()
    cs.attack(model, x, torch.tensor([0, 1, 2]), "square(queries=5)")  # asks for none


def test_what_is_refused_is_far_from_the_slopes_and_what_is_not_is_theirs() -> None:
    x, way = pictures(1), torch.randn(20, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    score = cs.ClassScore(0)
    for honest in (False, True):
        net = Frozen(honest, nn.SiLU).double().eval()
        z = x.double().requires_grad_()
        out = score(net(z))
        (g,) = torch.autograd.grad(out.sum(), z)
        with torch.no_grad():
            rise = torch.stack([(score(net(x + 1e-6 * w)) - score(net(x - 1e-6 * w)))[0] / 2e-6 for w in way.double()])
        said = torch.stack([(g[0] * w).sum() for w in way.double()])
        off = float((said - rise).norm() / rise.norm())
        assert (off < 1e-6) if honest else (off > 0.5)
        found = probed(wrapped(net.float()), x).slopes
        assert found.flows == ("right" if honest else "wrong")


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Tanh, nn.LeakyReLU])
@pytest.mark.parametrize("seed", range(4))
def test_honest_networks_smooth_or_with_kinks_pass(act: type[nn.Module], seed: int) -> None:
    model = wrapped(body(act, seed))
    with model.undisturbed():
        found = probed(model, pictures())
    assert (found.repeats, found.slopes.flows) == ("yes", "right")
    assert cs.explain(model, pictures(), "saliency").maps.any()


def test_a_gradient_handed_straight_through_rounding_passes_by_steps_that_the_rounding_lets_through() -> None:
    model = wrapped(Rounded())
    assert cs.explain(model, pictures(), "saliency").maps.any()
    with model.undisturbed():
        assert probed(model, pictures()).slopes.flows == "right"


def test_a_few_pixels_in_the_middle_of_their_steps_are_looked_at_by_steps_of_pixel_values() -> None:
    """No small step, of whatever precision, changes anything."""
    weights = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)

    def score(z: Tensor) -> Tensor:
        return (z + ((z * 255).round() / 255 - z).detach()).double() @ weights

    start = torch.tensor([[10.0, 100.0, 200.0]]) / 255
    assert look_closer(score, start, score, torch.float32).flows == "right"


class Louder(torch.autograd.Function):
    """Hands on what it is given, and a gradient half as large again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 1.5 * g


def test_a_gradient_that_is_half_as_large_again_is_told_in_double_precision() -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(Louder.apply(x))

    model = wrapped(Loud())
    with model.undisturbed():
        assert probed(model, pictures(1)).slopes.flows == "wrong"


class Late(nn.Module):
    """Its first layers run under no_grad beside a branch; what comes behind `whole` is differentiated."""

    def __init__(self, honest: bool = False) -> None:
        super().__init__()
        self.frozen, self.whole, self.rest, self.honest = (
            Frozen(honest).backbone[:4],
            nn.Conv2d(8, 8, 1),
            body()[2:],
            honest,
        )
        self.side = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.honest and torch.is_grad_enabled()):
            h = self.frozen(x)
        return self.rest(self.whole(h + 0.1 * self.side(x)))


def test_at_a_layer_behind_which_all_is_differentiated_maps_are_right() -> None:
    x = pictures()
    right = cs.explain(wrapped(Late(honest=True)), x, "grad-cam(layer=whole)", cs.ClassScore([0, 1, 2])).maps
    late = wrapped(Late())
    assert right.any()
    torch.testing.assert_close(cs.explain(late, x, "grad-cam(layer=whole)", cs.ClassScore([0, 1, 2])).maps, right)
    with pytest.raises(Refused, match=PARTIAL):
        cs.explain(late, x, "saliency")


class Torn(nn.Module):
    """The layer's output goes on twice, once without its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        h = self.body[:2](x)
        return self.body[2:](h) + self.body[2:](h.detach().flip(3))


def test_at_a_layer_whose_gradient_is_not_whole_maps_are_refused_too() -> None:
    with pytest.raises(Refused, match=r"the gradient at layer body\.1 is not that of the scores"):
        cs.explain(wrapped(Torn()), pictures(), "grad-cam(layer=body.1)")


def test_randomness_in_eval_mode_is_refused_by_explain_and_measure_and_said_by_attack() -> None:
    model, x = wrapped(Dropped()), pictures()
    with pytest.raises(
        Refused, match=r"two passes over the same pictures give scores that differ .*F\.dropout\(x, training="
    ):
        cs.explain(model, x, "saliency")
    with pytest.raises(Refused, match="two passes over the same pictures"):
        cs.measure(model, x, torch.rand(3, *SIZE), "deletion(steps=2)")
    y = scores_of(model, x).argmax(1)  # what each is taken for, asked alone
    with pytest.warns(Notice, match="each picture is run alone, from the same seed"):
        together = cs.attack(model, x, y, "pgd(steps=3)", eps=0.1)
    with pytest.warns(Notice, match="two passes over the same pictures"):
        single = cs.attack(model, x[1:2], y[1:2], "pgd(steps=3)", eps=0.1)
    assert torch.equal(together.x[1:2], single.x)
    assert torch.equal(together.fooled[1:2], single.fooled)
    torch.manual_seed(5)  # what others draw does not show
    with pytest.warns(Notice):
        again = cs.attack(model, x.flip(0), y.flip(0), "pgd(steps=3)", eps=0.1, batch=2)
    assert torch.equal(again.x.flip(0), together.x)


def test_scores_of_a_network_that_draws_are_those_of_each_picture_alone() -> None:
    model, x = wrapped(Dropped()), pictures()
    with model.undisturbed():
        assert probed(model, x).repeats == "never"
    single = torch.cat([scores_of(model, one) for one in x.split(1)])
    assert torch.equal(scores_of(model, x), single)
    assert torch.equal(scores_of(model, x.flip(0)), single.flip(0))


def test_neighbours_that_matter_are_refused_everywhere() -> None:
    model, x = wrapped(Together()), pictures()
    for work in (
        lambda: cs.explain(model, x, "saliency"),
        lambda: cs.attack(model, x, torch.tensor([0, 1, 2]), "pgd(steps=2)"),
        lambda: cs.measure(model, x, torch.rand(3, *SIZE), "deletion(steps=2)"),
    ):
        with pytest.raises(Refused, match=r"depend on its neighbours in the batch.*norm normalises by the batch"):
            work()
    assert cs.explain(model, x, "edge").maps.any()  # knows nothing of the model


@pytest.fixture
def spied() -> Iterator[tuple[Classifier, list[tuple[int, bool]]]]:
    """A model, and for each of its runs how many pictures, and whether with a graph."""
    model = wrapped(body())
    runs: list[tuple[int, bool]] = []
    handle = model.net.register_forward_hook(lambda _m, args, out: runs.append((len(args[0]), out.requires_grad)))
    yield model, runs
    handle.remove()


def test_it_costs_a_pass_and_back_and_one_of_three_once(
    spied: tuple[Classifier, list[tuple[int, bool]]],
) -> None:
    model, runs = spied
    x = pictures()
    with model.undisturbed():
        first = probed(model, x)
        assert sorted(runs) == [(1, True), (3, False)]
        assert probed(model, x + 0) is first
        runs.clear()
        with counted(model.net) as passes:
            probed(model, x[:, :, :8])  # of another size
        assert len(runs) == 2
        assert (passes.forwards, passes.backwards) == (0, 0)
    runs.clear()
    with torch.no_grad():
        model.net[0].weight.mul_(1.5)
    with model.undisturbed():
        assert probed(model, x) is first  # it runs as it did
        assert runs == [(1, True)]
        runs.clear()
        model.net[0].padding_mode = "zeros"
        model.net[1].inplace = True
        probed(model, x)
        assert len(runs) == 2


def test_the_second_explanation_pays_nothing_for_it(spied: tuple[Classifier, list[tuple[int, bool]]]) -> None:
    model, runs = spied
    x = pictures()
    for method in ("saliency", "grad-cam"):
        cs.explain(model, x, method)
        runs.clear()
        found = cs.explain(model, x, method)
        assert runs == [(3, True)], method  # the map, and the top class of the same pass
        assert (found.forwards, found.backwards) == (1, 1)


def test_it_leaves_random_numbers_as_they_were() -> None:
    model = wrapped(body())
    torch.manual_seed(1)
    was = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    with model.undisturbed():
        probed(model, pictures())
    assert torch.equal(was[0], torch.get_rng_state())
    assert was[1] == random.getstate()
    assert (was[2] == np.random.get_state()[1]).all()


def test_maps_do_not_depend_on_whether_the_model_was_known() -> None:
    x = pictures()
    for method in ("smooth-grad(samples=4)", "rise(masks=8)", "lime(samples=12)"):
        new = cs.explain(wrapped(body()), x, method, seed=3).maps
        model = wrapped(body())
        with model.undisturbed():
            probed(model, x)
        assert torch.equal(cs.explain(model, x, method, seed=3).maps, new)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_in_other_types_the_same_is_found(dtype: torch.dtype) -> None:
    for net, flows in ((body(), "right"), (Frozen(), "wrong")):
        model = wrapped(net.to(dtype))
        with model.undisturbed():
            assert probed(model, pictures()).slopes.flows == flows


class Cast(nn.Module):
    """Honest, but no copy of it computes in double precision: one of its parts casts to float32, as norms often do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(seed=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body[1:](self.body[0](x).float().to(x))


class Faint(nn.Module):
    """Honest, but hardly anything of its scores depends on the picture: less than what their arithmetic rounds."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.body, self.share = body(seed=4), share

    def forward(self, x: Tensor) -> Tensor:
        return self.share * self.body(x) + 1


@pytest.mark.parametrize(
    "net", [Cast(), Faint(1e-3), Faint(1e-5), Faint(1e-7), Faint(1e-9), Faint(1e-12), Faint(1e-15)], ids=str
)
def test_what_arithmetic_rounds_is_no_wrong_gradient(net: nn.Module) -> None:
    model = wrapped(net)
    for double in (False, True):
        twin = wrapped(copy.deepcopy(net).double()) if double else model
        with twin.undisturbed():
            x = pictures(1).double() if double else pictures(1)
            assert probed(twin, x).slopes.flows in ("right", "unknown")
    with model.undisturbed():  # the longer look, at its own
        start, mix = pictures(1), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        twin = wrapped(copy.deepcopy(net).double())
        found = look_closer(lambda z: model(z).double() @ mix, start, lambda z: twin(z).double() @ mix, torch.float32)
        assert found.flows in ("right", "unknown"), found


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
def test_kinks_alone_cost_no_longer_look(act: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep network with a ReLU behind every layer: a step short enough to pass few kinks."""
    looks: list[None] = []
    monkeypatch.setattr("clearsight.internals.probe.look_closer", lambda *_: looks.append(None) or Slopes("right"))
    for seed in range(6):
        torch.manual_seed(seed)
        norms = [nn.BatchNorm2d(8, momentum=None) for _ in range(12)]
        convs = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), norm, act()) for norm in norms]
        net = nn.Sequential(nn.Conv2d(3, 8, 3), *convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
        net(torch.rand(16, 3, *SIZE))  # statistics that keep the signal at its size
        model = wrapped(net)
        with model.undisturbed():
            assert probed(model, pictures(1)).slopes.flows == "right"
    assert not looks
