"""Manners of every defence of answers, alone and through `answer`.  A new file is tested by being there."""

from __future__ import annotations

import inspect
import re
from typing import Literal, get_origin

import pytest
import torch
from torch import Tensor

from argsblock import check_args_block
from clearsight.core.answering import Account
from clearsight.core.catalogue import catalogue, parse
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.runner.answer import answer, answer_defences
from examples import check_examples

EVERY = list(catalogue("answer_defences"))
every = pytest.mark.parametrize("name", EVERY)


def given(n: int = 40, k: int = 5) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Pictures, probabilities whose top class is above a half, and those of another network."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, 6, 6, generator=random)
    p = (3 * torch.randn(n, k, generator=random)).softmax(1)
    sure = 0.45 * p + 0.55 * torch.eye(k)[p.argmax(1)]
    return x, sure, (p.roll(1, 1),)


@every
def test_answers_are_probabilities_and_what_is_given_stays(name: str) -> None:
    x, p, others = given()
    before = [t.clone() for t in (x, p, *others)]
    found = answer(answer_defences([name]), Account(), x, p, others)
    assert (found.shape, found.dtype) == (p.shape, p.dtype)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    claims = catalogue("answer_defences")[name].claims
    if "sums-to-one" in claims:
        torch.testing.assert_close(found.sum(1), torch.ones(len(p)), rtol=0, atol=2e-6)
    if "keeps-top" in claims:
        assert torch.equal(found.argmax(1), p.argmax(1))
    assert all(torch.equal(a, b) for a, b in zip(before, (x, p, *others), strict=True))


@every
def test_one_request_is_many_requests(name: str) -> None:
    """The same answers, and the same memory, however the pictures are divided into requests."""
    x, p, others = given()
    calls = answer_defences([name])
    whole, parts = Account(), Account()
    together = answer(calls, whole, x, p, others)
    rows = torch.arange(len(x)).split(7)
    apart = torch.cat([answer(calls, parts, x[r], p[r], [o[r] for o in others]) for r in rows])
    torch.testing.assert_close(together, apart, rtol=0, atol=0)
    remembers = "remembers" in catalogue("answer_defences")[name].claims
    assert bool(whole.of(str(calls[0]))) == remembers
    assert str(whole.of(str(calls[0]))) == str(parts.of(str(calls[0])))


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("answer_defences")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    assert [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["request", "p"]
    assert signature.return_annotation is Tensor
    assert not m.injected
    assert m.claims <= {"keeps-top", "sums-to-one", "remembers", "needs-others"}
    assert all(
        p.annotation in (int, float, bool, str) or get_origin(p.annotation) is Literal for p in m.options.values()
    )
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "p (B, K) -> (B, K)" in m.doc
    check_args_block(m)
    assert m.options == {} or re.search(r"(?m)^Refused: \w", m.doc)
    assert re.search(r"(?m)^Source: \w", m.doc)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|openreview:\w+", m.paper)
    assert m.paper in m.module_doc
    assert "one of the answer defences (how answers are given so that nobody clones it)" in one(name)
    assert str(parse(name, "answer_defences")) == name


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("answer_defences")[name])


@pytest.mark.parametrize(
    "call",
    ["rounding(digits=0)", "reverse-sigmoid(beta=-1)", "reverse-sigmoid(gamma=0)", "prediction-poisoning(l1=3)",
     "query-budget(queries=0)", "query-detection(delta=1)", "query-detection(every=0)",
     "query-detection(remembered=0)"],
)  # fmt: skip
def test_options_outside_their_ranges_are_refused_by_name(call: str) -> None:
    with pytest.raises(Refused, match=rf"^{call.partition('(')[0]}\(.*give"):
        answer_defences([call])


MINE = '''
"""Defences of one's own, good and bad."""

def halved(request, p, *, by: float = 0.5):
    return p * by

def misshapen(request, p):
    return p[:, 1:]

def endless(request, p):
    return p / 0

def beyond(request, p):
    return p + 1
'''


def test_a_defence_of_ones_own_is_taken_and_not_trusted(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    x, p, _ = given()
    calls = answer_defences(["./mine.py:halved(by=0.25)", "rounding(digits=1)"])
    torch.testing.assert_close(answer(calls, Account(), x, p), (p / 4).round(decimals=1))
    for name, told in (("misshapen", r"\(40, 4\), not prob"), ("endless", "not finite"), ("beyond", "outside")):
        with pytest.raises(Refused, match=rf"mine.py:{name}.*{told}"):
            answer(answer_defences([f"./mine.py:{name}"]), Account(), x, p)
    with pytest.raises(Refused, match="rounding is given twice"):
        answer_defences(["rounding", "rounding(digits=3)"])
