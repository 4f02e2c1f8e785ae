"""The manners of every defence.  A new file is tested by being there; whether its loss is right, in tests/values."""

import functools
import importlib
import inspect
import re
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from argsblock import check_args_block
from clearsight.core.catalogue import FOLDERS, catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.testing import training_step
from clearsight.training.losses import defended_losses
from clearsight.training.objective import objective
from clearsight.training.recipe import Recipe
from clearsight.training.validate_recipe import validate
from examples import check_examples

CLAIMS = {"adds-to-pixels", "attack-free", "remembers"}
ATTACK = "pgd(eps=0.1, steps=3)"
every = pytest.mark.parametrize("name", catalogue("defences"))


def a_step(model: Classifier, attack: str = ATTACK, seed: int = 0) -> TrainingStep:
    return training_step(model, attack, eps=0.1, seed=seed)


def labels(x: Tensor) -> Tensor:
    """Shares of five classes (B, 5): each picture has one."""
    return nn.functional.one_hot(torch.arange(len(x)) % 5, 5).float()


def losses(name: str, step: TrainingStep, x: Tensor, y: Tensor | None = None) -> Tensor:
    return defended_losses(parse(name, "defences"), step, x, labels(x) if y is None else y)


def resting(model: Classifier) -> Classifier:
    """The model without what differs between pictures together and alone: running averages are used."""
    model.net.eval()
    return model


@every
def test_one_finite_loss_for_each_picture_and_a_slope_for_every_weight(name, small, x):
    found = losses(name, a_step(small), x)
    assert found.shape == (4,)
    assert found.isfinite().all()
    assert (found > 0).all()
    found.mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in small.net.parameters())


@every
def test_the_slope_is_that_of_the_loss(name, small, x):
    """Down its gradient the loss falls, by as much as the gradient says.

    The loss where awp has moved the weights to is the same at every weight but for its second order.
    """
    model = resting(small)
    step = a_step(model)
    step = replace(step, attack=_kept(step.attack))
    before = losses(name, step, x).mean()
    before.backward()
    square = sum(p.grad.square().sum() for p in model.net.parameters())
    step.memory.clear()
    with torch.no_grad():
        for p in model.net.parameters():
            p -= 1e-3 / square.sqrt() * p.grad
    fall = float(before.detach() - losses(name, replace(step), x).mean().detach()) / (1e-3 * float(square.sqrt()))
    assert 0.8 < fall < 1.2


def _kept(attack):
    """The attack, which gives the same picture when it is asked again."""
    made = []

    def once(x, goal):
        made[:] = made or [attack(x, goal)]
        return made[0]

    return once


@every
def test_a_batch_is_its_pictures(name, small, x):
    model = resting(small)
    whole = losses(name, a_step(model), x)
    if "remembers" in catalogue("defences")[name].claims or name == "awp":  # whose step is that of the batch
        return
    y = labels(x)
    for rows in ([0], [2, 0, 3]):
        part = losses(name, a_step(model), x[rows], y[rows])
        torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-5)


@every
def test_the_seed_alone_decides(name, small, x):
    model = resting(small)
    first = losses(name, a_step(model), x)
    torch.rand(3)  # what is drawn in between cannot show
    assert torch.equal(losses(name, a_step(model), x), first)
    if name in ("trades", "gaussian-augmentation"):  # which draw
        assert not torch.equal(losses(name, a_step(model, seed=1), x), first)


@every
@pytest.mark.parametrize("training", [True, False])
def test_pictures_network_and_chance_are_left_alone(name, training, small, x):
    y, small.net[4].weight.grad = labels(x), torch.ones_like(small.net[4].weight)
    small.net.train(training)
    small.net[1].eval()
    small.net[0].weight.requires_grad_(False)
    x0, y0, weights = x.clone(), y.clone(), [p.detach().clone() for p in small.net.parameters()]
    modes, wants = [m.training for m in small.net.modules()], [p.requires_grad for p in small.net.parameters()]
    chance = torch.get_rng_state()
    losses(name, a_step(small), x, y)
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.equal(x, x0)
    assert torch.equal(y, y0)
    assert not x.requires_grad
    assert all(map(torch.equal, small.net.parameters(), weights))
    assert [m.training for m in small.net.modules()] == modes
    assert [p.requires_grad for p in small.net.parameters()] == wants
    assert torch.equal(small.net[4].weight.grad, torch.ones_like(small.net[4].weight))
    assert [p.grad is None for p in small.net.parameters()].count(False) == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in small.net.modules())


@every
def test_labels_may_be_shared_between_classes(name, small, x):
    y = 0.7 * labels(x) + 0.3 * labels(x).roll(1, 1)
    assert losses(name, a_step(small), x, y).isfinite().all()
    assert losses(name, a_step(small), x, torch.full_like(y, 0.2)).isfinite().all()


@every
def test_extreme_scores_have_a_finite_loss_and_slope(name, small, x):
    with torch.no_grad():
        small.net[-1].weight *= 1e4
    found = losses(name, a_step(small), x)
    found.mean().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in small.net.parameters())


@every
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_trained_on_keeps_the_budget(name, norm, small, x):
    """Also where a defence starts somewhere else than at the picture, and in the second step of one that remembers."""
    if "attack-free" in catalogue("defences")[name].claims:
        return
    seen: list[Tensor] = []
    step = training_step(small, f"pgd(eps=0.1, steps=3, norm={norm})", eps=0.1)
    small.net.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()) if m.training else None)
    for _ in range(2):
        losses(name, replace(step), x).mean().backward()
    assert seen
    for z in seen:
        move = z * 0.25 + 0.5 - x  # as pixels
        size = move.flatten(1).norm(dim=1) if norm == "l2" else move.abs().amax()
        assert (size < 0.1 + 1e-5).all()
        assert (z * 0.25 + 0.5 > -1e-5).all()
        assert (z * 0.25 + 0.5 < 1 + 1e-5).all()


@every
def test_sequences_and_one_picture(name):
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(8, 5))
    model = Classifier(net, Preprocess((9,), (0.5,) * 2, (0.5,) * 2), tuple("abcde"))
    assert losses(name, a_step(model), torch.rand(1, 2, 9)).shape == (1,)


@every
def test_signature_and_words(name):
    m = catalogue("defences")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    assert [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["step", "x", "y"]
    assert signature.return_annotation is Tensor
    assert not m.injected
    for option in m.options.values():
        kinds = get_args(option.annotation) or (option.annotation,)
        assert get_origin(option.annotation) is Literal or set(kinds) <= {int, float, bool, str, types.NoneType}
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    doc = inspect.getdoc(m.fn)
    assert "x (B, C, *S) in [0, 1], y (B, K)" in doc
    assert "-> (B,)" in doc
    assert "\nSource: " in doc
    assert not m.options or "\nRefused: " in doc
    check_args_block(m)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|openreview:\w+", m.paper)
    assert m.paper in importlib.import_module(m.module).__doc__
    assert m.claims <= CLAIMS


@every
def test_examples_are_true(name):
    check_examples(catalogue("defences")[name])


OUTSIDE: dict[str, list[str]] = {
    "adversarial-training": ["clean=-0.1", "clean=1.5"],
    "trades": ["beta=-1"],
    "mart": ["beta=-1"],
    "free": ["replays=0"],
    "awp": ["gamma=-0.1", "inner=free", "inner=awp", "inner=trades(beta=-1)", "inner=nonsense"],
    "gaussian-augmentation": ["sigma=-0.5"],
}


@every
def test_options_outside_their_range_are_refused_before_anything_is_read(name):
    assert OUTSIDE.get(name) or not catalogue("defences")[name].options
    for option in OUTSIDE.get(name, []):
        with pytest.raises(Refused):
            validate(Recipe(perturb=ATTACK, defence=f"{name}({option})"), "cpu")
    with pytest.raises(Refused, match="has no option"):
        validate(Recipe(perturb=ATTACK, defence=f"{name}(nonsense=1)"), "cpu")
    validate(Recipe(perturb=ATTACK, defence=name), "cpu")


@every
def test_only_one_that_needs_no_attack_goes_without(name):
    recipe = Recipe(defence=name)
    if "attack-free" in catalogue("defences")[name].claims:
        assert objective(recipe).attack is None
        assert not objective(recipe).plain
        validate(recipe, "cpu")
        return
    with pytest.raises(Refused, match="without an attack"):
        objective(recipe)


@every
def test_one_that_needs_no_attack_makes_none_and_one_that_remembers_nothing_leaves_nothing(name, small, x):
    claims = catalogue("defences")[name].claims
    step = a_step(small)
    attacks: list[int] = []

    def attack(x: Tensor, goal: Any) -> Tensor:
        attacks.append(1)
        return step.attack(x, goal)

    watched = replace(step, attack=attack)
    losses(name, watched, x).mean().backward()
    assert bool(watched.memory) == ("remembers" in claims)
    assert len(attacks) == (0 if claims & {"attack-free", "remembers"} else 1)


MINE = """
from clearsight import Refused

def half(step, x, y, *, share: float = 0.5):
    if share > 1:
        raise Refused(f"half(share={share})")
    return share * step.cross_entropy(step.model(x), y)

def mean(step, x, y):
    return step.cross_entropy(step.model(x), y).mean()
"""


def test_a_users_own_file(small, x, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    plain = small.net.eval() and nn.functional.cross_entropy(small(x), labels(x), reduction="none")
    torch.testing.assert_close(losses(f"{file}:half(share=0.25)", a_step(small), x), plain / 4)
    with pytest.raises(Refused, match=r"mean gave \(\), not one loss for each picture: \(4,\)"):
        losses(f"{file}:mean", a_step(small), x)
    for wrong in ("half(share=2)", "mean", "none"):
        with pytest.raises(Refused):
            validate(Recipe(perturb=ATTACK, defence=f"{file}:{wrong}"), "cpu")
    torch.testing.assert_close(losses(f'awp(inner="{file}:half", gamma=0)', a_step(small), x), plain / 2)


def test_batch_norm_counts_the_passes_that_train_and_no_others(new_small, x):
    """The attack is made in evaluation mode, and of awp's two passes the second alone is seen."""
    counted = {}
    for name in catalogue("defences"):
        model = new_small()
        losses(name, a_step(model), x)
        counted[name] = int(model.net[1].num_batches_tracked)
    assert counted == {
        **dict.fromkeys(("adversarial-training", "awp", "free", "gaussian-augmentation"), 1), "trades": 2, "mart": 2,
    }  # fmt: skip


def test_awp_sees_the_same_noise_and_the_same_attack_in_both_passes(small, x):
    seen: list[Tensor] = []
    model = resting(small)
    model.net.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    noisy = functools.partial(losses, "awp(inner=gaussian-augmentation)")
    noisy(a_step(model), x)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], model.normalised(x))


@every
def test_it_is_listed_in_full_also_beside_another_kind_of_that_name(name):
    page = one(name)
    assert f"{name}, one of the defences (how training resists attacks)" in page
    assert "paper: https://" in page
    assert page.count(", one of the ") == sum(name in catalogue(folder) for folder in FOLDERS)
    assert page.count("paper: ") == page.count(", one of the ")
