"""Manners of every way of rebalancing: what it takes, gives and leaves alone, and what its documentation says."""

from __future__ import annotations

import inspect
import re
from typing import get_args, get_origin

import pytest
import torch
from torch import Tensor

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.testing import linear, training_step
from clearsight.training.rebalance import stage
from clearsight.training.recipe import Recipe
from examples import check_examples

EVERY = list(catalogue("rebalancing"))
every = pytest.mark.parametrize("name", EVERY)
TAKES = {
    "step": ["step", "x", "y", "group", "groups"],
    "wrong": ["wrong"],
    "features": ["features", "y", "group", "seed"],
}


def given(name: str) -> tuple[object, ...]:
    """What the runner gives to a method, without its options: the same at every call."""
    random = torch.Generator().manual_seed(0)
    n, group = 24, torch.arange(24) % 4
    y = torch.eye(2)[group // 2]
    x = torch.rand(n, 1, 1, 3, generator=random)
    step = training_step(linear([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0]]))
    return {
        "step": (step, x, y, group, 4),
        "wrong": (torch.rand(n, generator=random) < 0.3,),
        "features": (x.flatten(1), y, group, 0),
    }[str(stage(Recipe(rebalance=name)))]


def tensors(found: object) -> list[Tensor]:
    return [t.detach() for t in (found if isinstance(found, tuple) else (found,)) if isinstance(t, Tensor)]


@every
def test_it_gives_what_its_place_asks_for(name: str) -> None:
    """Losses that lead back to the weights of the network, counts of pictures, or a last layer; all finite."""
    when, words = stage(Recipe(rebalance=name)), given(name)
    found = catalogue("rebalancing")[name](*words)
    assert all(bool(t.isfinite().all()) for t in tensors(found))
    if when == "step":
        assert found.shape == (24,)
        found.mean().backward()
        assert words[0].model.net[1].weight.grad.abs().sum() > 0  # type: ignore[attr-defined]
    elif when == "wrong":
        assert found.shape == (24,)
        assert bool((found >= 1).all())
        assert not found.is_floating_point()
    else:
        assert [t.shape for t in tensors(found)] == [(2, 3), (2,)]


@every
def test_it_is_repeatable_and_changes_nothing(name: str) -> None:
    first, second = given(name), given(name)
    before = [t.clone() for t in tensors(first)]
    state = torch.random.get_rng_state()
    one_run, other = (tensors(catalogue("rebalancing")[name](*words)) for words in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(one_run, other, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(first), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("rebalancing")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == TAKES[str(stage(Recipe(rebalance=name)))]
    assert not m.injected
    kinds = [
        get_args(p.annotation)[0].__class__ if get_origin(p.annotation) else p.annotation for p in m.options.values()
    ]
    assert {*kinds} <= {int, float, bool, str}
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "Source: " in m.doc
    assert "(N," in m.doc or "(B," in m.doc
    check_args_block(m)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}", m.paper)
    assert m.paper in m.module_doc
    assert "one of the rebalancing (how training leaves no group of pictures behind)" in one(name)


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("rebalancing")[name])


@every
def test_spelling(name: str) -> None:
    m = catalogue("rebalancing")[name]
    spelled = f"{name}({', '.join(f'{n}={p.default}' for n, p in m.options.items())})"
    call = parse(spelled, "rebalancing")
    assert call.options == {n: p.default for n, p in m.options.items()}
    assert str(call) == spelled
    with pytest.raises(Refused, match=f"{name} has no option"):
        parse(f"{name}(quite=3)", "rebalancing")
