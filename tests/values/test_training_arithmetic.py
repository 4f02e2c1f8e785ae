"""The arithmetic of training: optimisers, schedules, losses, temperature, against closed forms and torch's own."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import clearsight as cs
from clearsight.core.preprocess import Preprocess
from clearsight.training import losses
from clearsight.training.batches import Store, order
from clearsight.training.fine_tuning import TrainableNetwork, preprocessed
from clearsight.training.optimisers import optimiser, pace, range_test
from clearsight.training.recipe import ABOUT, Recipe, options
from clearsight.training.recipe_fields import differs, non_default
from clearsight.training.temperature_scaling import divide, nll, temperature


def stepped(name: str, grads: list[float], *, lr: float = 0.1, decay: float = 0.0, momentum: float = 0.9) -> float:
    """Where a weight that began at 1 stands after steps with these gradients."""
    w = nn.Parameter(torch.ones(1, 1))
    opt = optimiser(name, [{"params": [w], "lr": lr, "weight_decay": decay}], lr=lr, momentum=momentum)
    for g in grads:
        w.grad = torch.full_like(w, g)
        opt.step()
    return float(w.detach())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sgd", 1 - 0.1 * 2 - 0.1 * 1),
        ("momentum", 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 1)),
        ("nesterov", 1 - 0.1 * (2 + 0.9 * 2) - 0.1 * (1 + 0.9 * (0.9 * 2 + 1))),
        ("adagrad", 1 - 0.1 * 2 / 2 - 0.1 * 1 / math.sqrt(5)),
        (
            "adam",
            1 - 0.1 - 0.1 * ((0.9 * 0.2 + 0.1) / (1 - 0.81)) / math.sqrt((0.999 * 0.004 + 0.001) / (1 - 0.999**2)),
        ),
    ],
)
def test_optimisers_take_the_steps_of_their_papers(name: str, wanted: float) -> None:
    assert stepped(name, [2.0, 1.0]) == pytest.approx(wanted, rel=1e-5)


def test_adamw_decays_the_weight_and_not_the_gradient() -> None:
    assert stepped("adamw", [2.0], decay=0.5) == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1, rel=1e-5)
    assert stepped("sgd", [2.0], decay=0.5) == pytest.approx(1 - 0.1 * (2 + 0.5), rel=1e-5)


@pytest.mark.parametrize("name", ["rmsprop", "adadelta", "lamb", "nadam"])
def test_other_optimisers_of_timm_go_downhill(name: str) -> None:
    assert stepped(name, [2.0, 2.0], lr=0.01) < 1


def test_optimisers_that_are_none_are_refused() -> None:
    with pytest.raises(cs.Refused, match="did you mean adamw"):
        stepped("adamww", [])
    with pytest.raises(cs.Refused, match="momentum above 0"):
        stepped("nesterov", [], momentum=0.0)


def rates(name: str, steps: int = 40, per_epoch: int = 10, warmup: float = 0.0, losses: tuple = ()) -> list[float]:
    opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    found, own = [], pace(name, opt, steps=steps, per_epoch=per_epoch, warmup=warmup)
    for n in range(steps):
        own.step(n)
        found.append(opt.param_groups[0]["lr"])
        if losses and n % per_epoch == per_epoch - 1:
            own.epoch(losses[n // per_epoch])
    return found


def test_cosine_is_half_a_wave_from_the_rate_to_nothing() -> None:
    wanted = [0.5 * (1 + math.cos(math.pi * (n + 0.5) / 40)) for n in range(40)]
    assert rates("cosine") == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["cosine", "step", "exponential", "constant", "plateau"])
def test_warm_up_rises_in_a_straight_line_and_then_stands_at_the_rate(name: str) -> None:
    found = rates(name, warmup=0.25)
    rise = np.diff(found[:10])
    assert rise == pytest.approx([0.1] * 9)
    assert found[0] > 0
    assert max(found) <= 1
    assert found[10] == pytest.approx(1.0, abs=0.06)


def test_one_cycle_rises_for_a_quarter_from_a_25th() -> None:
    found = rates("one-cycle")
    assert found[0] == pytest.approx(1 / 25 + 0.5 * (1 - 1 / 25) / 10)
    assert int(np.argmax(found)) in (9, 10)
    assert found[-1] < 0.01


def test_step_and_exponential() -> None:
    assert rates("step", 30) == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
    assert rates("exponential") == pytest.approx([0.95 ** (n // 10) for n in range(40)])


def test_plateau_falls_only_where_val_does_not() -> None:
    assert rates("plateau", losses=(4.0, 3.0, 2.0, 1.0)) == [1.0] * 40
    found = rates("plateau", steps=80, losses=(1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0))
    assert found[49] == 1.0
    assert found[50] == pytest.approx(0.3)


def test_the_range_test_finds_a_rate_at_which_a_parabola_is_descended() -> None:
    """Descent of w^2 goes wrong from a rate of 1 on; the net itself is left alone."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)

    def make(net: nn.Module, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr)

    rate, curve = range_test(net, lambda net, n: net.weight.square().sum(), make, low=1e-4, high=100, steps=60)
    assert 0.01 < rate < 0.5
    assert curve[0][0] == pytest.approx(1e-4)
    assert curve[-1][0] < 10  # it stopped when the loss rose
    assert net.weight.item() == 1
    with pytest.raises(cs.Refused, match="not finite in its first step"):
        range_test(net, lambda net, n: net.weight.sum() * math.nan, make)


def test_temperature_finds_what_logits_were_multiplied_by() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=g)
    drawn = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    y = nn.functional.one_hot(drawn, 5).float()
    assert temperature(3 * logits, y) == pytest.approx(3, rel=0.05)
    assert temperature(0.5 * logits, y) == pytest.approx(0.5, rel=0.05)
    assert nll(logits, y) == pytest.approx(float(nn.functional.cross_entropy(logits, drawn)), rel=1e-5)


def test_a_network_is_divided_only_where_its_end_is_linear() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    before = plain(x)
    assert divide(plain, frozenset({"2.weight", "2.bias"}), x, 2.0)
    torch.testing.assert_close(plain(x), before / 2)
    bent = nn.Sequential(nn.Linear(3, 2), nn.Softmax(1))
    kept = bent[0].weight.clone()
    assert not divide(bent, frozenset({"0.weight", "0.bias"}), x, 2.0)
    assert torch.equal(bent[0].weight, kept)
    assert not divide(plain, frozenset({"0.weight", "2.weight"}), x, 2.0)


class Heads(nn.Module):
    """Scores and one auxiliary head, in training."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), -x.flatten(1)


def test_losses_weigh_classes_smooth_labels_and_add_auxiliary_heads() -> None:
    x = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    pre = Preprocess((1, 1), (0.0, 0.0), (1.0, 1.0))
    y, even = torch.tensor([[0.0, 1.0]]), torch.ones(2)
    p = 1 / (1 + math.e)  # of the first class

    def loss(net: nn.Module, weights: torch.Tensor = even, smoothing: float = 0.0) -> float:
        return float(
            losses.training_loss(net, TrainableNetwork(net, "", {}, pre, frozenset(), ""), x, y, weights, smoothing)
        )

    flat = nn.Flatten()
    assert loss(flat) == pytest.approx(-math.log(1 - p))
    assert loss(flat, smoothing=0.2) == pytest.approx(-0.9 * math.log(1 - p) - 0.1 * math.log(p))
    assert loss(flat, weights=torch.tensor([1.0, 3.0])) == pytest.approx(-3 * math.log(1 - p))
    assert loss(Heads()) == pytest.approx(-math.log(1 - p) - 0.3 * math.log(p))


def test_the_embedded_network_is_trained_in_the_faster_order_of_memory() -> None:
    seen: list[bool] = []
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[0].register_forward_pre_hook(lambda m, a: seen.append(a[0].is_contiguous(memory_format=torch.channels_last)))
    pre, x, y = Preprocess((4, 4), (0.5,) * 3, (0.5,) * 3), torch.rand(2, 3, 4, 4), torch.eye(2)
    both = [
        losses.training_loss(net, TrainableNetwork(net, "", {}, pre, frozenset(), "", last), x, y, torch.ones(2), 0)
        for last in (False, True)
    ]
    assert seen == [False, True]
    assert both[0].item() == pytest.approx(both[1].item(), abs=1e-6)


def test_class_weights_are_the_inverse_of_how_often_and_one_on_average() -> None:
    y = nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 2, 2]), 3).float()
    data = SimpleNamespace(y=y, rows=lambda part: range(6))
    found = losses.class_weights_of(data, Recipe(class_weights=True))
    assert found.tolist() == pytest.approx([6 / 9, 6 / 3, 6 / 6])
    assert float((y @ found).mean()) == pytest.approx(1)
    assert losses.class_weights_of(data, Recipe()).tolist() == [1, 1, 1]


def test_batches_hold_every_picture_once_and_none_is_tiny() -> None:
    found = order(range(100, 165), 32, seed=3)
    assert sorted(i for b in found for i in b) == list(range(100, 165))
    assert min(map(len, found)) == 21
    assert order(range(65), 32, seed=3) != order(range(65), 32, seed=4)


def test_the_store_keeps_large_pictures_for_crops_and_the_input_for_judging(tmp_path) -> None:
    from PIL import Image

    from clearsight.data.datasets import Picture
    from clearsight.data.images import open_picture, to_pixels

    noise = np.random.default_rng(0).integers(0, 255, (300, 2000, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    picture = Picture(tmp_path / "a.png", "a.png")
    pre = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, resize=36)
    exact = Store([picture], pre, whole=False).pixels([0])[0]
    assert torch.equal(exact, to_pixels(open_picture(tmp_path / "a.png"), pre))
    assert tuple(Store([picture], pre, whole=True)[0].shape) == (3, 40, 160)


def test_preprocessing_follows_size_and_grey() -> None:
    own = Preprocess((224, 224), (0.4, 0.5, 0.6), (0.2,) * 3, "bicubic", 256)
    small = preprocessed(own, 112, False, whole=False)
    assert (small.size, small.resize, small.mean) == ((112, 112), 128, own.mean)
    assert preprocessed(own, None, True, whole=False).channels == 1
    squeezed = Preprocess((32, 32), (0.5,), (0.5,))
    assert preprocessed(squeezed, 28, False, whole=True).resize == 28
    assert [
        preprocessed(Preprocess((28, 28), (0.5,), (0.5,)), None, g, whole=True).channels for g in (True, False)
    ] == [1, 3]
    assert preprocessed(Preprocess((66, 200), (0.5,), (0.5,)), None, False, whole=True).resize is None


def test_recipes_refuse_nonsense_and_are_options_of_the_command_line() -> None:
    for wrong in (
        {"epochs": 0}, {"batch": 0}, {"lr": "fast"}, {"lr": "inf"}, {"shares": "1,0,0"}, {"shares": "0.5,0.4,0.4"},
        {"ema": 1.0}, {"schedule": "cosin"}, {"precision": "fp8"}, {"strategy": ""}, {"dropout": 1.0}, {"seed": -1},
    ):  # fmt: skip
        with pytest.raises(cs.Refused, match=next(iter(wrong))):
            Recipe(**wrong)
    assert options().keys() == Recipe().as_dict().keys() == ABOUT.keys()
    assert options()["strategy"][0] is str
    asked, made = Recipe(batch=4, lr="find"), Recipe(batch=4, lr="0.01", epochs=3)
    assert non_default(asked) == {"batch": 4, "lr": "find"}
    assert differs({"batch": 4, "epochs": 2, "lr": "find"}, asked, made) == ["epochs"]
    assert differs({"batch": 32, "epochs": 3, "lr": "0.01"}, asked, made) == ["batch"]
    assert differs({}, asked, made) == []
