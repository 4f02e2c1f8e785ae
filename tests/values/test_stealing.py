"""The numbers of thefts: closed forms, counts by hand, and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.blackbox import OutOfQueries
from clearsight.core.catalogue import parse
from clearsight.core.statistics import clopper_pearson
from clearsight.errors import Refused
from clearsight.runner.answer import answer_defences
from clearsight.stealing.clone import Lesson, new_clone, train_clone
from clearsight.stealing.honest import honest_cost
from clearsight.stealing.maps import defended_maps, map_leak
from clearsight.stealing.membership import area, at_rate, confidence, lira_scores, loss_scores, roc
from clearsight.stealing.oracle import Oracle
from clearsight.stealing.shadows import halves
from clearsight.stealing.theft import Exam, adapted, judged, rounds_to, steal
from clearsight.stealing.victim import Victim, of_classifier

WEIGHT = [[3.0, -2.0, 1.0], [-1.0, 2.0, 0.5], [0.0, 0.5, -3.0]]
LINEAR = "clearsight:perceptron"


def linear(weight: list[list[float]], bias: list[float]) -> cs.Classifier:
    layer = nn.Linear(3, 3)
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return cs.wrap(nn.Sequential(nn.Flatten(), layer), cs.Preprocess((1, 3), (0.0,), (1.0,)), ["a", "b", "c"])


def pictures(n: int, seed: int = 0) -> Tensor:
    return (torch.rand(n, 1, 1, 3, generator=torch.Generator().manual_seed(seed)) * 255).round() / 255


def exam(victim: Victim, n: int = 300) -> Exam:
    x = pictures(n, seed=9)
    return Exam(x, victim.probabilities(x, 0).argmax(1), torch.zeros(n, 3, dtype=torch.bool))


@pytest.fixture(scope="module")
def victim() -> Victim:
    return of_classifier(linear(WEIGHT, [0.5, 0.0, -0.5]))


def test_a_linear_softmax_is_stolen_exactly_with_one_more_query_than_pixels(victim: Victim) -> None:
    """log p_k - log p_0 is linear in the pixels: with four pictures in general position it is solved for."""
    x, p = Oracle(victim, 4).ask(pictures(4))
    logs = p.double().log()
    design = torch.cat([x.flatten(1).double(), torch.ones(4, 1, dtype=torch.float64)], 1)
    found = torch.linalg.solve(design, logs - logs[:, :1])
    weight, bias = torch.tensor(WEIGHT, dtype=torch.float64), torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    torch.testing.assert_close(found[:3].T, weight - weight[:1], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[3], bias - bias[0], rtol=0, atol=1e-4)


def test_a_thief_gets_the_linear_victim_by_training(victim: Victim) -> None:
    """Soft labels of a linear victim teach a linear clone its very weights, but for what softmax does not show."""
    lesson = Lesson(arch=LINEAR, steps=700, rate=0.1)
    thief = parse("knockoff", "thieves")
    stolen = steal(Oracle(victim, 200), thief, pictures(400), exam(victim), lesson=lesson, rounds=2)
    assert [p.queries for p in stolen.points] == [100, 200]
    assert stolen.last.agreement > 0.99
    x = pictures(50, seed=4)
    torch.testing.assert_close(stolen.clone(x).softmax(1), victim.probabilities(x, 0), rtol=0, atol=0.01)


def test_agreement_is_counted_by_hand() -> None:
    x = torch.tensor([[0.9, 0, 0], [0, 0.9, 0], [0, 0, 0.9], [0.8, 0, 0]]).reshape(4, 1, 1, 3)
    clone = linear(torch.eye(3).tolist(), [0.0, 0.0, 0.0])  # says 0, 1, 2, 0
    truth = torch.zeros(4, 3, dtype=torch.bool)
    truth[0, 0] = truth[1, 2] = truth[3, 0] = truth[3, 1] = True
    point = judged(clone, Exam(x, torch.tensor([0, 1, 2, 1]), truth), 7)
    assert (point.queries, point.agree, point.n, point.right, point.labelled) == (7, 3, 4, 2, 3)
    assert point.agreement == 0.75


def test_rounds() -> None:
    assert rounds_to(1000, 4) == [125, 250, 500, 1000]
    assert rounds_to(10, 3) == [3, 5, 10]
    assert rounds_to(1, 3) == [1]


def test_the_ledger_stops_hard(victim: Victim) -> None:
    oracle = Oracle(victim, 25)
    assert [len(oracle.ask(pictures(12))[0]) for _ in range(3)] == [12, 12, 1]
    assert (oracle.used, oracle.left) == (25, 0)
    with pytest.raises(OutOfQueries):
        oracle.ask(pictures(1))


def test_what_is_told(victim: Victim) -> None:
    x = pictures(30)
    p = victim.probabilities(x, 0)
    assert torch.equal(Oracle(victim, 99).ask(x)[1], p)
    labels = Oracle(victim, 99, access="labels").ask(x)[1]
    assert torch.equal(labels.argmax(1), p.argmax(1))
    assert {*labels.flatten().tolist()} == {0.0, 1.0}
    two = Oracle(victim, 99, access="top-2").ask(x)[1]
    torch.testing.assert_close(two, p)  # the third is what is missing to 1
    one = Oracle(victim, 99, access="top-1").ask(x)[1]
    best = p.amax(1)
    torch.testing.assert_close(one.amax(1), best)
    torch.testing.assert_close(one.amin(1), torch.minimum((1 - best) / 2, best))
    torch.testing.assert_close(Oracle(victim, 99, digits=1).ask(x)[1], p.round(decimals=1))
    sent, _ = Oracle(victim, 99).ask(x + 0.001)
    torch.testing.assert_close(sent, x)  # pictures are sent in 8 bits
    for wrong in ({"access": "logits"}, {"access": "all"}, {"access": "labels", "digits": 2}, {"accounts": 0}):
        with pytest.raises(Refused):
            Oracle(victim, 5, **wrong)


def test_a_query_budget_stops_one_account_and_four_accounts_have_four(victim: Victim) -> None:
    defences = answer_defences(["query-budget(queries=13)"])
    one = Oracle(victim, 100, defences=defences)
    assert len(one.ask(pictures(40))[0]) == 13
    assert one.is_closed
    assert "may ask about 13 pictures" in one.refused[0]
    four = adapted(one, "accounts")
    assert len(four.ask(pictures(100))[0]) == 52
    with pytest.raises(OutOfQueries):
        four.ask(pictures(1))


def test_a_thief_who_gets_no_answer_has_a_network_of_random_weights(victim: Victim) -> None:
    oracle = Oracle(victim, 100, defences=answer_defences(["query-budget(queries=1)"]))
    oracle.ask(pictures(1))
    stolen = steal(oracle, parse("knockoff", "thieves"), pictures(50), exam(victim), lesson=Lesson(arch=LINEAR))
    assert stolen.last.queries == 0


def test_an_averaging_thief_pays_for_every_copy_and_learns_the_mean(victim: Victim) -> None:
    oracle = Oracle(victim, 100)
    lesson = Lesson(arch=LINEAR, steps=1)
    asked = []
    whole = oracle.ask
    oracle.ask = lambda x: asked.append(whole(x)) or asked[-1]  # type: ignore[method-assign,func-returns-value]
    steal(
        oracle,
        parse("knockoff", "thieves"),
        pictures(99),
        exam(victim),
        lesson=lesson,
        rounds=1,
        adaptation="averaging",
    )
    (told,) = asked
    assert len(told[0]) == 100
    assert oracle.used == 100
    spread = told[0].reshape(25, 4, 3).std(1).mean()
    assert float(spread) == pytest.approx(4 / 255, rel=0.2)


def test_argmax_thieves_learn_from_labels_alone() -> None:
    """Reverse sigmoid hides how sure the victim is; who takes the top class alone learns as from labels."""
    sure = of_classifier(linear([[30.0, -20.0, 10.0], [-10.0, 20.0, 5.0], [0.0, 5.0, -30.0]], [5.0, 0.0, -5.0]))
    lesson = Lesson(arch=LINEAR, steps=300, rate=0.05)
    thief, pool = parse("knockoff", "thieves"), pictures(400)
    behind = Oracle(sure, 200, defences=answer_defences(["reverse-sigmoid"]))
    naive, argmax = (
        steal(adapted(behind, a), thief, pool, exam(sure), lesson=lesson, rounds=1, adaptation=a, seed=1)
        for a in ("plain", "argmax")
    )
    labels = steal(Oracle(sure, 200, "labels"), thief, pool, exam(sure), lesson=lesson, rounds=1, seed=1)
    assert argmax.last.agreement > 0.9
    assert abs(argmax.last.agreement - labels.last.agreement) < 0.05
    sure_of = [float(t.clone(pool).detach().softmax(1).amax(1).mean()) for t in (naive, argmax)]
    assert sure_of[0] < 0.8 < sure_of[1]


def test_the_clone_learns_nothing_from_no_answers() -> None:
    clone = new_clone(Lesson(arch=LINEAR), cs.Preprocess((1, 3), (0.0,), (1.0,)), ("a", "b", "c"), 0)
    with pytest.raises(Refused, match="no answer to learn from"):
        train_clone(clone, pictures(3), torch.zeros(3, 3), Lesson(arch=LINEAR))


def test_maps_teach_what_answers_do_not() -> None:
    """Of one picture the answer is one number; its gradient is the victim's weights, up to a factor."""
    teacher = of_classifier(linear(WEIGHT, [0.5, 0.0, -0.5]))
    leak = map_leak("saliency(absolute=false)")
    x = pictures(40)
    k = teacher.probabilities(x, 0).argmax(1)
    maps = teacher.maps(leak.call, x, 0)
    torch.testing.assert_close(maps.flatten(1), torch.tensor(WEIGHT)[k])
    lesson = Lesson(arch=LINEAR, steps=300, rate=0.1, batch=40)
    thief = parse("knockoff", "thieves")
    with_maps = steal(Oracle(teacher, 12), thief, x, exam(teacher), lesson=lesson, rounds=1, leak=leak)
    (own,) = (p.detach() for p in with_maps.clone.net.parameters() if p.dim() == 2)
    cosine = torch.cosine_similarity(own, torch.tensor(WEIGHT), dim=1)
    assert len({*k.tolist()}) > 1
    assert all(float(cosine[j]) > 0.95 for j in {*k.tolist()})
    with pytest.raises(Refused, match="no gradient in the network's weights"):
        map_leak("rise")


def test_defended_maps_by_hand() -> None:
    maps = torch.arange(16.0).reshape(1, 4, 4)
    coarse = defended_maps(maps, 2, None)
    assert coarse[0, :2, :2].unique().tolist() == [2.5]
    assert coarse[0, 2:, 2:].unique().tolist() == [12.5]
    assert defended_maps(torch.tensor([[[-4.0, 1.1], [2.0, 0.0]]]), None, 2).tolist() == [[[-1.0, 0.5], [0.5, 0.0]]]


def test_the_honest_pay_what_is_counted_by_hand(victim: Victim) -> None:
    e = exam(victim, 40)
    truth = torch.zeros(40, 3, dtype=torch.bool).scatter(1, e.said[:, None], True)
    e = Exam(e.x, e.said, truth)
    free = honest_cost(victim, (), e)
    assert (free.withheld, free.right, free.moved, free.changed) == (0, 40, 0.0, 0)
    p = victim.probabilities(e.x, 0)
    top = honest_cost(victim, answer_defences(["top-1"]), e)
    assert top.moved == pytest.approx(float((1 - p.amax(1)).mean()))  # half of (1 - p) twice
    assert top.error == pytest.approx(0)
    limited = honest_cost(victim, answer_defences(["query-budget(queries=30)"]), e)
    assert (limited.withheld, limited.right) == (10, 30)
    assert limited.moved == pytest.approx(0.25)
    assert limited.accuracy == 0.75


# Membership -----------------------------------------------------------------------------------------------------------


def test_lira_is_the_likelihood_ratio_of_two_normal_distributions() -> None:
    """Ratio by SciPy, with means of each picture and standard deviations pooled over pictures, as in the paper."""
    rng = np.random.default_rng(0)
    inside = halves(8, 200, 0)
    assert (inside.sum(0) == 4).all()
    shadows = np.where(inside, rng.normal(3, 1.5, (8, 200)), rng.normal(0, 1, (8, 200)))
    target = rng.normal(1, 2, 200)
    means = [np.array([shadows[m[:, i], i].mean() for i in range(200)]) for m in (inside, ~inside)]
    stds = [
        np.sqrt(sum(((shadows[m[:, i], i] - mu[i]) ** 2).sum() for i in range(200)) / (200 * 3))
        for m, mu in zip((inside, ~inside), means, strict=True)
    ]
    online = stats.norm.logpdf(target, means[0], stds[0]) - stats.norm.logpdf(target, means[1], stds[1])
    np.testing.assert_allclose(lira_scores(target, shadows, inside, online=True), online)
    offline = lira_scores(target, shadows, inside, online=False)
    np.testing.assert_allclose(stats.norm.cdf(offline), stats.norm.cdf(target, means[1], stds[1]))


def test_lira_reaches_the_power_that_neyman_and_pearson_allow() -> None:
    """Members at N(2, 1), others at N(0, 1): at a rate of 1 % no test finds more than 1 - Phi(2.326 - 2) = 37.2 %."""
    rng = np.random.default_rng(0)
    n = 20000
    member = np.arange(2 * n) < n
    inside = halves(64, 2 * n, 1)
    shadows = rng.normal(0, 1, (64, 2 * n)) + 2 * inside
    target = rng.normal(0, 1, 2 * n) + 2 * member
    found = at_rate(lira_scores(target, shadows, inside, online=True), member, 0.01)
    best = 1 - stats.norm.cdf(stats.norm.ppf(0.99) - 2)
    assert found.value == pytest.approx(best, abs=0.03)
    assert found.resolved


def test_confidence_is_the_log_odds_in_stable_form() -> None:
    z, y = torch.randn(50, 5, dtype=torch.float64), torch.randint(5, (50,))
    p = z.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(confidence(z, y), (p / (1 - p)).log())
    assert confidence(torch.tensor([[500.0, 0.0]]), torch.tensor([0])).item() == 500
    np.testing.assert_allclose(loss_scores(z, y), -nn.functional.cross_entropy(z, y, reduction="none").numpy())


def test_roc_and_its_area_are_sklearns() -> None:
    rng = np.random.default_rng(0)
    scores, member = rng.normal(0, 1, 500).round(1), rng.random(500) < 0.4  # with many ties
    f, t = roc(scores, member)
    other_f, other_t, _ = metrics.roc_curve(member, scores, drop_intermediate=False)
    np.testing.assert_allclose(f, other_f)
    np.testing.assert_allclose(t, other_t)
    value, (low, high) = area(scores, member)
    assert value == pytest.approx(metrics.roc_auc_score(member, scores))
    assert low < value < high


def test_the_rate_is_kept_and_told_where_it_cannot_be_resolved() -> None:
    scores = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    member = np.array([True, True, False, True, False, True])
    at = at_rate(scores, member, 0.5)
    assert (at.hits, at.members, at.alarms, at.others, at.resolved) == (3, 4, 1, 2, True)
    at = at_rate(scores, member, 0.01)
    assert (at.hits, at.alarms, at.resolved) == (2, 0, False)
    assert at.interval == clopper_pearson(2, 4)
    found = stats.binomtest(2, 4).proportion_ci(0.95, "exact")
    assert at.interval == pytest.approx((found.low, found.high))
    tied = at_rate(np.zeros(6), member, 0.01)
    assert (tied.hits, tied.alarms) == (0, 0), "of equal scores all or none"
