"""The numbers of rebalancing: weights of groups in closed form, that of a shortcut, how often pictures are seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clearsight.data.records import Picture, Pictures
from clearsight.errors import Refused
from clearsight.rebalancing.common.sparse_logistic import sparse_logistic
from clearsight.rebalancing.group_dro import group_dro
from clearsight.rebalancing.just_train_twice import just_train_twice
from clearsight.rebalancing.last_layer import equal_groups, last_layer
from clearsight.testing import linear, training_step
from clearsight.training.group_accuracy import group_accuracies
from clearsight.training.grouping import Grouping, check_members, group_pictures
from clearsight.training.training_data import TrainingData

# Group DRO ------------------------------------------------------------------------------------------------------------


def steps_by_hand(losses: Tensor, group: Tensor, groups: int, q: list[float], size: float) -> tuple[float, list[float]]:
    """Algorithm 1 of Sagawa et al. with batches, picture by picture: the loss of a step, and the weights after it."""
    means = []
    for g in range(groups):
        own = [float(v) for v, k in zip(losses, group.tolist(), strict=True) if k == g]
        means.append(sum(own) / len(own) if own else 0.0)
    grown = [w * 2.718281828459045 ** (size * m) for w, m in zip(q, means, strict=True)]
    q = [w / sum(grown) for w in grown]
    return sum(w * m for w, m in zip(q, means, strict=True)), q


def test_the_weights_of_group_dro_grow_as_algorithm_1_says() -> None:
    """Several steps, groups of other sizes, and one group that is in no batch."""
    random = torch.Generator().manual_seed(0)
    step = training_step(linear([[2.0, -1.0], [0.0, 1.0]]))
    q = [0.25] * 4
    for _ in range(5):
        x = torch.rand(7, 1, 1, 2, generator=random)
        y = torch.eye(2)[torch.randint(2, (7,), generator=random)]
        group = torch.tensor([0, 0, 1, 3, 3, 3, 1])
        losses = group_dro(step, x, y, group, 4, step_size=0.5)
        plain = step.cross_entropy(step.model(x), y).detach()
        expected, q = steps_by_hand(plain, group, 4, q, 0.5)
        assert losses.mean().item() == pytest.approx(expected, rel=1e-5)
        assert step.memory["q"].tolist() == pytest.approx(q, rel=1e-5)


def test_weights_of_group_dro_after_equal_steps_are_a_softmax_of_the_losses() -> None:
    """The closed form: q is in proportion to exp(n * step_size * loss)."""
    step = training_step(linear([[1.0], [0.0]]))
    x, y = torch.tensor([[[[0.0]]], [[[1.0]]]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    losses = step.cross_entropy(step.model(x), y).detach()
    for _ in range(20):
        group_dro(step, x, y, torch.tensor([0, 1]), 2, step_size=0.1)
    torch.testing.assert_close(step.memory["q"], (20 * 0.1 * losses).softmax(0))


# Just train twice -----------------------------------------------------------------------------------------------------


def test_just_train_twice_shows_exactly_the_errors_more_often() -> None:
    wrong = torch.tensor([True, False, False, True])
    assert just_train_twice(wrong, times=7).tolist() == [7, 1, 1, 7]
    assert just_train_twice(wrong).tolist() == [20, 1, 1, 20]


def data_of(times: list[float], parts: list[str]) -> TrainingData:
    n = len(parts)
    return TrainingData(
        Pictures("x", ()), (), (), ("a", "b"), torch.zeros(n, 2), tuple(parts), (), times=torch.tensor(times).double()
    )


def test_an_epoch_shows_each_picture_as_often_as_is_asked() -> None:
    data = data_of([3, 1, 9, 1, 5], ["train", "train", "val", "train", "train"])
    for seed in range(5):
        assert Counter(data.epoch_rows(seed)) == {0: 3, 1: 1, 3: 1, 4: 5}
    assert data.epoch_rows(0) != data.epoch_rows(1)


def test_fractions_are_right_on_average_and_every_epoch_is_as_long() -> None:
    times = [0.5] * 12 + [2.25] * 8
    data = data_of(times, ["train"] * 20)
    epochs = [Counter(data.epoch_rows(seed)) for seed in range(400)]
    assert {e.total() for e in epochs} == {24}
    assert all(e[i] in (0, 1) for e in epochs for i in range(12))
    assert all(e[i] in (2, 3) for e in epochs for i in range(12, 20))
    for i, t in enumerate(times):
        assert sum(e[i] for e in epochs) / len(epochs) == pytest.approx(t, abs=0.1)


# The last layer -------------------------------------------------------------------------------------------------------


def problem(n: int, rare: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two features: the core one tells the class, noisily; the shortcut without noise, but not of rare pictures."""
    random = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (n,), generator=random)
    place = label.clone()
    place[:rare] = 1 - place[:rare]
    core = 2.0 * label - 1 + 0.4 * torch.randn(n, generator=random)
    shortcut = 2.0 * place - 1 + 0.05 * torch.randn(n, generator=random)
    return torch.stack([3 * core + 5, shortcut], 1), torch.eye(2)[label], 2 * label + place


def test_last_layer_drops_a_shortcut_and_keeps_the_core() -> None:
    """With all pictures the shortcut is what counts; with equal groups it is nothing."""
    x, y, group = problem(600, 60, 0)
    scale = x.std(0)
    plain, _ = sparse_logistic(((x - x.mean(0)) / scale).double(), y.double(), 0.01)
    by_place = (plain[1] - plain[0]).abs()
    assert by_place[1] > 0.5
    weight, bias = last_layer(x, y, group, 0)
    core, shortcut = ((weight[1] - weight[0]) * scale).tolist()
    assert core > 1
    assert abs(shortcut) < 0.05 * core
    test_x, test_y, test_group = problem(600, 300, 1)
    right = ((test_x @ weight.T + bias).argmax(1) == test_y.argmax(1)).double()
    assert min(float(right[test_group == g].mean()) for g in range(4)) > 0.97


def test_last_layer_draws_equal_groups_and_others_each_time() -> None:
    group = torch.tensor([0] * 30 + [1] * 4 + [2] * 9)
    random = torch.Generator().manual_seed(0)
    first, second = equal_groups(group, random), equal_groups(group, random)
    for rows in (first, second):
        assert group[rows].bincount().tolist() == [4, 4, 4]
        assert len({*rows.tolist()}) == 12
    assert {*first.tolist()} != {*second.tolist()}


def test_last_layer_keeps_the_mean_of_its_draws() -> None:
    x, y, group = problem(200, 20, 2)
    fitted = [last_layer(x, y, group, 0, draws=k, penalty=0.02) for k in (1, 2)]
    one = [weight for weight, _ in fitted]
    random = torch.Generator().manual_seed(0)
    z = (x - x.mean(0)).double() / x.double().std(0, correction=0)
    both = [sparse_logistic(z[r], y[r].double(), 0.02) for r in (equal_groups(group, random) for _ in range(2))]
    drawn = [weight for weight, _ in both]
    scale = x.double().std(0, correction=0)
    torch.testing.assert_close(one[0].double(), drawn[0] / scale, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(one[1].double(), (drawn[0] + drawn[1]) / 2 / scale, rtol=1e-3, atol=1e-5)
    bias = (both[0][1] + both[1][1]) / 2 - one[1].double() @ x.double().mean(0)
    torch.testing.assert_close(fitted[1][1].double(), bias, rtol=1e-3, atol=1e-4)


def test_last_layer_takes_the_penalty_that_is_best_in_the_worst_group_of_what_was_not_fitted() -> None:
    """Each one fitted to half of three draws, written out; here the mean over groups, or the fitted half, take others.

    So does the last draw alone; and of equal ones the strongest is taken.
    """
    x, y, group = problem(200, 60, 10)
    random = torch.Generator().manual_seed(109)
    noisy, others = x[:, :1] + 3 * torch.randn(200, 1, generator=random), torch.randn(200, 3, generator=random)
    x = torch.cat([noisy, x[:, 1:], others], 1).double()
    z, shares = (x - x.mean(0)) / x.std(0, correction=0), y.double()
    draws = torch.Generator().manual_seed(0)
    worst: dict[float, float] = dict.fromkeys((0.1, 0.03, 0.01, 0.003, 0.001), 0.0)
    for _ in range(3):
        by_group = equal_groups(group, draws).reshape(4, -1)
        fit, rest = by_group[:, : by_group.shape[1] // 2].flatten(), by_group[:, by_group.shape[1] // 2 :]
        for penalty in worst:
            w, b = sparse_logistic(z[fit], shares[fit], penalty)
            worst[penalty] += min(
                sum(int((z[i] @ w.T + b).argmax()) == int(y[i].argmax()) for i in rows) / len(rows) for rows in rest
            )
    best = max(worst, key=lambda penalty: (worst[penalty], penalty))
    assert best == 0.03
    rows = equal_groups(group, draws)
    w, _ = sparse_logistic(z[rows], shares[rows], best)
    torch.testing.assert_close(last_layer(x, y, group, 0, draws=1)[0], w / x.std(0, correction=0), rtol=1e-3, atol=1e-5)


def test_last_layer_does_without_a_feature_that_is_the_same_everywhere() -> None:
    x, y, group = problem(200, 20, 2)
    alone = last_layer(x, y, group, 0, draws=1, penalty=0.02)
    weight, bias = last_layer(torch.cat([x, torch.full((200, 1), 7.0)], 1), y, group, 0, draws=1, penalty=0.02)
    assert weight[:, 2].tolist() == [0, 0]
    torch.testing.assert_close(weight[:, :2], alone[0], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(bias, alone[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty", [0.1, 0.01, 0.001])
def test_the_solution_of_logistic_regression_is_one(penalty: float) -> None:
    """No slope beyond the penalty where a weight is 0, and the penalty against it where it is not (KKT conditions)."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 90, generator=random).double()
    y = torch.eye(3)[torch.randint(3, (60,), generator=random)].double()
    w, b = sparse_logistic(x, y, penalty)
    miss = (x @ w.T + b).softmax(1) - y
    slope = miss.T @ x / len(x)
    zero = w == 0
    assert bool(zero.any())
    assert bool((slope[zero].abs() <= penalty * 1.001).all())
    torch.testing.assert_close(slope[~zero], -penalty * w[~zero].sign(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(miss.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-5)


def test_it_agrees_with_scikit_learn() -> None:
    """There the sum of losses has the weight C, and saga does not penalise the bias."""
    x, y, _ = problem(200, 20, 3)
    z = ((x - x.mean(0)) / x.std(0)).double()
    w, b = sparse_logistic(z, y.double(), 0.02)
    peer = LogisticRegression(l1_ratio=1.0, C=1 / (0.02 * len(z)), solver="saga", tol=1e-8, max_iter=20000)
    if "penalty" in peer.get_params() and peer.get_params()["penalty"] == "l2":  # before scikit-learn 1.8
        peer.set_params(penalty="l1", l1_ratio=None)
    peer.fit(z.numpy(), y.argmax(1).numpy())
    assert (w[1] - w[0]).tolist() == pytest.approx(peer.coef_[0].tolist(), abs=1e-3)
    assert float(b[1] - b[0]) == pytest.approx(float(peer.intercept_[0]), abs=1e-3)


def test_last_layer_refuses_too_small_groups() -> None:
    x, y, group = problem(40, 4, 0)
    keep = (group != 1) | ((group == 1).cumsum(0) == 1)
    with pytest.raises(Refused, match="fewer than two pictures"):
        last_layer(x[keep], y[keep], group[keep], 0)


# Groups ---------------------------------------------------------------------------------------------------------------


def picture(name: str, label: str, **columns: str) -> Picture:
    return Picture(Path(name), name, (label,), None, columns)


PICTURES = [
    picture("1", "cat", place="in", sex="f"),
    picture("2", "cat", place="out", sex="m"),
    picture("3", "dog", place="in", sex="m"),
    picture("4", "dog", place="", sex="m"),
]


def test_spaces_around_a_word_make_no_group_of_their_own() -> None:
    pictures = [*PICTURES, picture("5", "cat", place=" in ", sex="f")]
    grouping = group_pictures(pictures, "place")
    assert grouping.names == group_pictures(PICTURES, "place").names
    assert int(grouping.of[4]) == int(grouping.of[0])


def test_a_group_is_a_class_with_what_the_columns_say() -> None:
    groups = group_pictures(PICTURES, "place")
    assert groups.names == ("cat, place in", "cat, place out", "dog, place in", "dog, place out")
    assert groups.of.tolist() == [0, 1, 2, -1]
    assert groups.sizes([0, 1, 2, 3]) == [1, 1, 1, 0]
    both = group_pictures([*PICTURES, picture("5", "dog", place="out", sex="m")], "place, sex")
    assert both.names[0] == "cat, place in, sex f"
    assert both.of.tolist() == [0, 2, 4, -1, 5]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("plaec", "no column 'plaec': did you mean place"),
        (",", "no column ','"),
    ],
)
def test_a_column_that_is_not_there_is_refused(columns: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        group_pictures(PICTURES, columns)


def test_columns_without_groups_in_them_are_refused() -> None:
    with pytest.raises(Refused, match="it has none; give a CSV"):
        group_pictures([Picture(Path("a"), "a", ("cat",))], "place")
    with pytest.raises(Refused, match="says only place in"):
        group_pictures([picture("1", "cat", place="in"), picture("2", "dog", place="in")], "place")
    with pytest.raises(Refused, match="occurs in one class only, such as 'in' in 'cat'"):
        group_pictures([picture("1", "cat", place="in"), picture("2", "dog", place="out")], "place")


def test_groups_without_members_are_named() -> None:
    groups = group_pictures(PICTURES, "place")
    with pytest.raises(Refused, match=r"1 group with no picture in val: \(dog, place out\)"):
        check_members(groups, PICTURES, [0, 1, 2], "val")
    with pytest.raises(Refused, match=r"1 picture of train with an empty cell in place: 4"):
        check_members(groups, PICTURES, [0, 1, 2, 3], "train")
    with pytest.raises(Refused, match="4 groups with fewer than 2 pictures"):
        check_members(groups, PICTURES, [0, 1, 2], "val", 2)


def test_the_worst_group_comes_first_with_its_interval() -> None:
    grouping = Grouping(("place",), ("a", "none", "b"), torch.tensor([0, 0, 0, 0, 2, 2, -1]))
    found = group_accuracies(grouping, range(7), [True, True, True, False, True, False, True])
    assert [(g.group, g.right, g.n) for g in found] == [("b", 1, 2), ("a", 3, 4)]
    row = found[1].row()
    assert row["n"] == 4
    assert row["from (95 %)"] == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3 of 4
    assert row["to (95 %)"] == pytest.approx(0.9544, abs=1e-4)
