"""Manners of every thief.  A new file is tested by being there."""

from __future__ import annotations

import inspect
import re
from typing import Literal, get_origin

import pytest
import torch
from torch import Tensor

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.theft import Theft
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.testing import theft
from examples import check_examples

EVERY = list(catalogue("thieves"))
every = pytest.mark.parametrize("name", EVERY)


def begun(asked: int = 6, seed: int = 0) -> Theft:
    """A theft with a linear clone, 20 pictures in its pool and so many asked about."""
    random = torch.Generator().manual_seed(1)
    x = torch.rand(20 + asked, 1, 2, 3, generator=random)
    answers = torch.rand(asked, 3, generator=random).softmax(1).tolist()
    weight = torch.randn(3, 6, generator=random).tolist()
    return theft(x[asked:], weight=weight, asked=x[:asked], answers=answers if asked else None, seed=seed)


@every
@pytest.mark.parametrize("asked", [0, 6])
def test_it_gives_pictures_and_takes_what_it_gives_out_of_the_pool(name: str, asked: int) -> None:
    state = begun(asked)
    before, weights = state.pool.clone(), state.clone.net[1].weight.clone()  # type: ignore[index]
    x = catalogue("thieves")[name](state, 5)
    assert x.shape == (5, 1, 2, 3)
    assert not x.requires_grad
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    rows = {tuple(row.flatten().tolist()) for row in before}
    left = {tuple(row.flatten().tolist()) for row in state.pool}
    given = {tuple(row.flatten().tolist()) for row in x}
    made = "makes-pictures" in catalogue("thieves")[name].claims and asked
    assert left <= rows
    assert (left == rows) if made else (left == rows - given and given <= rows)
    assert len(given) == 5
    assert torch.equal(weights, state.clone.net[1].weight)  # type: ignore[index]
    assert not state.asked.requires_grad


@every
def test_it_is_repeatable_by_its_own_generator_and_stops_where_there_is_no_more(name: str) -> None:
    fn = catalogue("thieves")[name]
    first, second = begun(), begun()
    state = torch.random.get_rng_state()
    assert torch.equal(fn(first, 5), fn(second, 5))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(fn(begun(0), 5), fn(begun(0, seed=1), 5))
    assert len(fn(begun(), 100)) == (6 if "makes-pictures" in fn.claims else 20)


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("thieves")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    assert [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["theft", "n"]
    assert signature.return_annotation is Tensor
    assert not m.injected
    assert m.claims <= {"one-round", "asks-the-clone", "makes-pictures"}
    kinds = [p.annotation for p in m.options.values()]
    assert all(kind in (int, float, bool, str) or get_origin(kind) is Literal for kind in kinds)
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "(n, C, *S)" in m.doc
    check_args_block(m)
    assert re.search(r"(?m)^Source: \w", m.doc)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+", m.paper)
    assert m.paper in m.module_doc
    assert "one of the thieves (what pictures a thief asks about who clones it)" in one(name)
    assert str(parse(name, "thieves")) == name


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("thieves")[name])


def test_a_step_outside_its_range_is_refused() -> None:
    jbda = catalogue("thieves")["jbda"]
    assert jbda.validate is not None
    with pytest.raises(Refused, match=r"jbda\(step=0\).*give"):
        jbda.validate(step=0.0, towards="answer")
