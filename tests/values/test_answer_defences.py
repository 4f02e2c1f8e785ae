"""The numbers of the defences of answers: by hand, by brute force, and against SciPy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from scipy import stats

from clearsight.answer_defences.ensemble import ensemble
from clearsight.answer_defences.prediction_poisoning import prediction_poisoning
from clearsight.answer_defences.query_detection import normality, query_detection
from clearsight.answer_defences.reverse_sigmoid import reverse_sigmoid
from clearsight.answer_defences.rounding import rounding
from clearsight.answer_defences.top_one import top_one
from clearsight.core.answering import Account, Request, Withheld
from clearsight.errors import Refused
from clearsight.runner.answer import answer, answer_defences

ASKED = Request(torch.zeros(1, 1, 1, 1))


def test_reverse_sigmoid_by_hand() -> None:
    """p = 0.8: its logit is ln 4, a fifth of which has the sigmoid 4^0.2 / (1 + 4^0.2)."""
    s = 4**0.2 / (1 + 4**0.2)
    high, low = 0.8 - (s - 0.5), 0.2 - ((1 - s) - 0.5)
    assert high + low == pytest.approx(1)
    found = reverse_sigmoid(ASKED, torch.tensor([[0.8, 0.2]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[high, low]], dtype=torch.float64))
    three = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)  # 0.1: the logit is -ln 9
    low = 0.1 - (9**-0.2 / (1 + 9**-0.2) - 0.5)
    expected = torch.tensor([high, low, low], dtype=torch.float64) / (high + 2 * low)
    torch.testing.assert_close(reverse_sigmoid(ASKED, three[None])[0], expected)


def test_reverse_sigmoid_is_many_to_one_and_keeps_a_top_class_above_a_half() -> None:
    p = torch.linspace(0.501, 1, 400, dtype=torch.float64)
    told = reverse_sigmoid(ASKED, torch.stack([p, 1 - p], 1))[:, 0]
    assert bool((told > 0.5).all())
    top = int(told.argmax())
    assert 0 < top < 399, "it rises and falls: two probabilities have one answer"
    unsure = torch.tensor([[0.4, 0.35, 0.25 - 1e-9, 1e-9]], dtype=torch.float64)
    assert int(unsure.argmax()) == 0
    assert int(reverse_sigmoid(ASKED, unsure).argmax()) == 3, "below a half the least likely class may take the top"


def test_rounding_and_top_one() -> None:
    p = torch.tensor([[0.126, 0.4449, 0.4291]])
    torch.testing.assert_close(rounding(ASKED, p, digits=1), torch.tensor([[0.1, 0.4, 0.4]]))
    assert top_one(ASKED, p).tolist() == [[0, 1, 0]]


def _turned(y: torch.Tensor, told: torch.Tensor) -> float:
    """The angular deviation that MAD maximises: half the squared distance is 1 - cos, of a surrogate's whole gradients.

    The surrogate is a softmax layer of zero weights over 4 features; its Jacobian is taken by autograd.
    """
    x = torch.tensor([0.3, -1.2, 0.7, 0.1], dtype=torch.float64)
    w = torch.zeros(len(y), 4, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda v: (v @ x).log_softmax(0), w).flatten(1)
    a, b = jacobian.T @ y, jacobian.T @ told
    return float((a / a.norm() - b / b.norm()).square().sum())


@pytest.mark.parametrize("l1", [0.2, 0.5, 1.0, 2.0])
def test_prediction_poisoning_turns_the_gradient_as_far_as_any_extreme_point_can(l1: float) -> None:
    y = torch.tensor([0.55, 0.3, 0.15], dtype=torch.float64)
    told = prediction_poisoning(ASKED, y[None], l1=l1)[0]
    distance = float((told - y).abs().sum())
    assert distance == pytest.approx(min(l1, 2 * (1 - 0.15)))
    ways = []
    for k in range(3):
        pole = torch.eye(3, dtype=torch.float64)[k]
        a = min(1.0, l1 / float((pole - y).abs().sum()))
        ways.append(_turned(y, (1 - a) * y + a * pole))
    assert _turned(y, told) == pytest.approx(max(ways))
    grid = [torch.tensor([i, j, 30 - i - j], dtype=torch.float64) / 30 for i in range(31) for j in range(31 - i)]
    allowed = [g for g in grid if float((g - y).abs().sum()) <= l1 + 1e-9 and g.var() > 1e-9]
    assert _turned(y, told) <= max(_turned(y, g) for g in allowed) + 0.02, "no answer beats the best of all"


def test_prediction_poisoning_of_two_classes_is_the_optimum() -> None:
    """With two classes the answers lie on a line: past its middle the gradient points the other way, before it not."""
    y = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    assert _turned(y[0], prediction_poisoning(ASKED, y, l1=0.49)[0]) == pytest.approx(0)
    assert _turned(y[0], prediction_poisoning(ASKED, y, l1=0.51)[0]) == pytest.approx(4)


def test_prediction_poisoning_keeps_the_top_class_where_it_must() -> None:
    p = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
    lost = prediction_poisoning(ASKED, p, l1=1.5)
    kept = prediction_poisoning(ASKED, p, l1=1.5, keep_top=True)
    assert float((lost.argmax(1) == p.argmax(1)).float().mean()) < 0.5
    assert torch.equal(kept.argmax(1), p.argmax(1))
    assert float((kept - p).abs().sum(1).min()) > 0
    even = torch.full((1, 4), 0.25)
    torch.testing.assert_close(prediction_poisoning(ASKED, even), even)


def test_ensemble_answers_by_the_picture_and_the_key() -> None:
    x = torch.rand(400, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    own, other = torch.tensor([[1.0, 0.0]]).expand(400, 2), torch.tensor([[0.0, 1.0]]).expand(400, 2)
    request = Request(x, (other,))
    first = ensemble(request, own)
    assert torch.equal(first, ensemble(request, own)), "the same picture, the same answer"
    assert 150 < int(first[:, 0].sum()) < 250
    assert not torch.equal(first, ensemble(request, own, key="another"))
    with pytest.raises(Refused, match="--member"):
        ensemble(Request(x), own)


def test_query_budget_is_exact_with_many_threads() -> None:
    calls, account, answered = answer_defences(["query-budget(queries=50)"]), Account(), []
    withheld: list[str] = []

    def ask() -> None:
        for _ in range(10):
            try:
                answered.append(answer(calls, account, torch.zeros(3, 1, 1, 1), torch.ones(3, 1)))
            except Withheld as e:
                withheld.append(e.defence)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*withheld} == {"query-budget"}
    assert len(answered) == 16, "48 of 50: the next request of three is withheld whole"
    with pytest.raises(Withheld, match=r"50 pictures and has 2 left, the request has 3: ask about fewer"):
        answer(calls, account, torch.zeros(3, 1, 1, 1), torch.ones(3, 1))


def test_query_detection_has_the_w_that_is_scipys_without_outliers() -> None:
    d = np.random.default_rng(0).normal(10, 1, 300)
    assert normality([*d, 90.0]) == pytest.approx(
        stats.shapiro(d[np.abs(d - np.mean([*d, 90])) <= 3 * np.std([*d, 90])])[0]
    )
    assert normality([*d[:100]]) == 1.0, "too few"
    assert normality([2.0] * 200) == 0.0


def _streams() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures that vary in many directions, and a stream that goes on from 20 of them by signed steps, like JBDA."""
    random = torch.Generator().manual_seed(0)
    natural = (0.5 + 0.15 * torch.randn(400, 1, 8, 8, generator=random)).clamp(0, 1)
    made = natural[:20]
    while len(made) < 400:
        steps = torch.randn(made.shape, generator=random).sign()
        made = torch.cat([made, (made + 0.1 * steps).clamp(0, 1)])
    return natural, made[:400]


def test_query_detection_passes_natural_pictures_and_stops_a_thief_who_makes_them() -> None:
    natural, made = _streams()
    p = torch.ones(400, 1)
    calls = answer_defences(["query-detection"])
    honest, thief = Account(), Account()
    answer(calls, honest, natural, p)
    memory = honest.of("query-detection")
    assert memory["flagged"] == 0
    assert memory["w"] > 0.95
    assert len(memory["distances"]) == 399
    with pytest.raises(Withheld, match="too regular"):
        answer(calls, thief, made, p)
    assert 100 < thief.of("query-detection")["flagged"] <= 300
    with pytest.raises(Withheld):
        answer(calls, thief, natural[:1], p[:1])
    noted = Request(made, memory={})
    assert torch.equal(query_detection(noted, p, then="note"), p)
    assert noted.memory["flagged"] == thief.of("query-detection")["flagged"]


def test_query_detection_keeps_no_more_than_it_tests() -> None:
    """The memory of an account does not grow with its queries."""
    request = Request(torch.rand(5200, 1, 1, 2, generator=torch.Generator().manual_seed(0)))
    query_detection(request, torch.ones(5200, 1), every=1000, remembered=50, then="note")
    memory = request.memory
    assert (memory["asked"], memory["measured"], len(memory["distances"])) == (5200, 5199, 5000)
    assert len(memory["near"][0]["pictures"]) == 50


def test_query_detection_has_a_growing_set_by_hand() -> None:
    """Pictures of one pixel at 0, 0.5, 0.6, 0.05 are 0.5, 0.1, 0.05 apart; the threshold is mean - std of the set."""
    x = torch.tensor([0.0, 0.5, 0.6, 0.05]).reshape(4, 1, 1, 1)
    request = Request(x)
    query_detection(request, torch.ones(4, 1))
    assert request.memory["distances"] == pytest.approx([0.5, 0.1, 0.05])
    near = request.memory["near"][0]
    # after 0 and 0.5 the set's distances are 0 and 0.5: mean 0.25, std 0.25, threshold 0.  0.6 joins: 0, 0.5, 0.1
    assert near["threshold"] == pytest.approx(max(0, 0.2 - float(np.std([0, 0.5, 0.1, 0.05]))), abs=0.2)
    assert near["pictures"].flatten().tolist() == pytest.approx([0, 0.5, 0.6, 0.05])
    x = torch.tensor([0.0, 0.5, 1.0, 0.98]).reshape(4, 1, 1, 1)  # 0, 0.5, 0.5: mean 1/3, std 0.2357, threshold 0.0976
    request = Request(x)
    query_detection(request, torch.ones(4, 1))
    near = request.memory["near"][0]
    assert near["threshold"] == pytest.approx(1 / 3 - float(np.std([0, 0.5, 0.5])))
    assert len(near["pictures"]) == 3, "0.98 is nearer than the threshold: it does not join"
