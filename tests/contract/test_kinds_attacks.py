"""The contract: every attack on every other kind of model than the classifier has manners, or is refused by name."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import clearsight as cs
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.norms import norm_of, perturbation_norm
from clearsight.core.targets import Goal
from clearsight.kinds.box_goals import objects
from clearsight.testing import tiny_detector, tiny_segmenter
from kindnets import conv_detector, conv_segmenter

MODELS = {
    "template": tiny_detector,
    "anchor-free": conv_detector,
    "pixels": tiny_segmenter,
    "convolutions": conv_segmenter,
}
OPTIONS = {"queries": 12, "steps": 3, "evaluations": 4, "tries": 2, "share": 0.3, "restarts": 2, "random_start": True}
NAMES = list(catalogue("attacks"))


@functools.cache
def scene(which: str) -> tuple[cs.Detector | cs.Segmenter, Tensor, dict[str, Goal]]:
    """A model, three pictures, and its goals, named; none is met before the attack."""
    model = MODELS[which]()
    generator = torch.Generator().manual_seed(1)
    x = 0.2 + 0.6 * torch.rand(3, 3, *model.preprocess.size, generator=generator)
    if isinstance(model, cs.Segmenter):
        y = model.segment(x)
        y[:, :2] = 255
        wanted = torch.where(y == 255, y, (y + 1) % 3)
        return model, x, {"misread": cs.PixelsMisread(y, share=0.3), "become": cs.PixelsBecome(wanted, share=0.3)}
    if which == "template":
        x = x / 4
        x[:, 0, 4:8, 8:12] = 0.9
        x[1, 2, 20:24, 0:4] = 0.9
    floor = 0.4
    there = objects([one[one.scores > floor][:2] for one in model.detect(x)])
    boxes, classes = there.boxes, there.classes
    every = objects([one[one.scores > floor] for one in model.detect(x)])
    return (
        model,
        x,
        {
            "vanish": cs.Vanish(boxes, classes, floor),
            "become": cs.BoxesBecome(boxes, classes, 1 - classes, floor),
            "appear": cs.Appear(torch.tensor([0, 1, 0]), boxes, classes, floor=0.9),
            "anything": cs.Misdetect(every.boxes, every.classes, floor),
        },
    )


def asked(name: str) -> str:
    has = catalogue("attacks")[name].options
    return f"{name}({', '.join(f'{k}={v}' for k, v in OPTIONS.items() if k in has)})"


def run(which: str, name: str, goal: str, rows: Any = slice(None), eps: float = 0.05, **more: Any) -> cs.Attacked:
    model, x, goals = scene(which)
    extra = {"other": model} if name == "transfer" else {}
    if "lessons" in catalogue("attacks")[name].injected:
        extra["lessons"] = (x, goals[goal])
    return cs.attack(model, x[rows], goals[goal][rows], asked(name), eps=eps, **extra, **more)


def refused_for(which: str, name: str, goal: str) -> str:
    """What the refusal says where an attack has no use for a goal or a kind; "" where it must work."""
    model, method = scene(which)[0], catalogue("attacks")[name]
    taken = {part.strip() for part in method.takes.split("|")}
    if "texts-only" in method.claims:
        return f"{name} replaces characters"
    if not taken & {"Model", "BlackBox", type(model).__name__}:
        return f"{name} takes a .*, and the model is a {model.kind}"
    return "dag moves what is there" if name == "dag" and goal == "appear" else ""


@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_has_manners_or_is_refused_by_name(name, which):
    _, x, goals = scene(which)
    norm = norm_of(parse(name, "attacks"))
    whole = {}
    for goal in goals:
        if says := refused_for(which, name, goal):
            with pytest.raises(cs.Refused, match=says):
                run(which, name, goal, eps=1.0)
            continue
        whole[goal] = found = run(which, name, goal)
        assert found.x.isfinite().all(), goal
        assert not found.already.any(), goal
        assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1, goal
        if "unbounded" not in catalogue("attacks")[name].claims:
            assert float(perturbation_norm(found.x - x, norm).max()) <= 0.05 * (1 + 1e-5), goal
    if whole:
        goal, found = next(iter(whole.items()))
        if "unbounded" not in catalogue("attacks")[name].claims:
            still = run(which, name, goal, eps=0.0)
            assert torch.equal(still.x, x)
            assert not still.fooled.any()
        torch.testing.assert_close(run(which, name, goal).x, found.x, rtol=0, atol=0)  # the same seed
        torch.testing.assert_close(run(which, name, goal, [1]).x, found.x[[1]], rtol=1e-4, atol=1e-5)
        order = torch.tensor([2, 0, 1])
        torch.testing.assert_close(run(which, name, goal, order, batch=2).x, found.x[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", MODELS)
def test_the_model_is_left_as_it_was(which):
    model, _, goals = scene(which)
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    for name in ("pgd", "square"):
        run(which, name, next(iter(goals)))
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    assert not any(p.grad is not None for p in model.net.parameters())


@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("name", [n for n in NAMES if "black-box" in catalogue("attacks")[n].claims])
def test_a_black_box_pays_for_what_it_asks_and_gives_no_probabilities(name, which):
    _, _, goals = scene(which)
    goal = next(iter(goals))
    found = run(which, name, goal)
    assert 1 <= int(found.spent.max()) <= OPTIONS["queries"]
    assert float(found.queries) > 0
    with pytest.raises(cs.Refused, match="needs probabilities, but the model's outputs are those of a"):
        run(which, name, goal, access="probs")
    if name in ("boundary", "hop-skip-jump"):
        assert torch.equal(run(which, name, goal, access="label").x, found.x)


@pytest.mark.parametrize("which", MODELS)
def test_a_search_by_labels_ends_where_the_goal_is_still_met(which):
    """The nearest version lies at the border: it is one that rounding in another batch does not take back."""
    model, x, goals = scene(which)
    goal = goals["anything" if model.kind == "detector" else "misread"]
    found = cs.attack(model, x, goal, "hop-skip-jump(queries=150, evaluations=10)", eps=float("inf"))
    assert found.fooled.any()
    for i in found.fooled.nonzero()[:, 0].tolist():
        assert goal[i : i + 1].met(model(found.x[i : i + 1]))
        assert goal[i : i + 1].surely(model(found.x[i : i + 1]), 1e-7)
