"""The tournament's fine print: thresholds, a network of random labels, equal maps, paired differences."""

from __future__ import annotations

import dataclasses
import importlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.auditing import tournament
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.map_tests import NETWORKS, RANDOMISED
from clearsight.auditing.tournament import Standing, measure_players, run_tournament, still_able
from clearsight.checks import explainer_ranking
from clearsight.core.catalogue import parse, split_calls
from clearsight.core.statistics import bootstrap
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import Refused
from clearsight.explaining.explain_pictures import explain_pictures
from clearsight.internals import randomisation
from clearsight.perturbation.map_thresholds import LEVELS, chances, rises_through, stretched
from clearsight.reporting.findings import Finding
from clearsight.runner.run import explain, measure
from poolednet import SIDE, classifier


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    rng = np.random.default_rng(0)
    found = []
    for i in range(16):
        a = rng.integers(0, 60, (SIDE, SIDE, 3))
        top, left = rng.integers(0, 8, 2)
        a[top : top + 8, left : left + 8] += rng.integers(60, 190, 3)
        path = tmp_path / f"{i:02}.png"
        Image.fromarray(a.astype(np.uint8)).save(path)
        found.append(Picture(path, path.name))
    return Pictures(tmp_path, tuple(found))


def believe(case: Case, options: str) -> Finding:
    (found,) = run_checks(case, parse_checks(f"explainer-ranking({options})"))
    assert found.verdict != "error", found.headline
    return found


def rows(finding: Finding, caption: str) -> tuple[dict[str, object], ...]:
    return next(t.rows for t in finding.tables if t.caption.startswith(caption))


SEEN = "average-probability-increase, insertion(steps=4)"


def test_every_explainer_gets_the_threshold_that_is_best_for_it_on_other_pictures(pictures: Pictures) -> None:
    case = Case(classifier(), pictures)
    order = case.sample(range(16), 16)
    calls = [parse(m, "explainers") for m in ("saliency", "gradient-x-input")]
    played = run_tournament(
        case, calls, [parse(m, "metrics") for m in SEEN.split(", ")], order[6:], calibrate=order[:6]
    )
    x, top = case.pixels(order[:6]), ClassScore(case.predicted[order[:6]])
    for i, call in enumerate(calls):
        maps = explain(case.model, x, call, top).maps
        rises = rises_through(case.model, x, top, stretched(maps)).clamp_min(0).mean(0)
        best = LEVELS[int((rises >= rises.max() * (1 - 1e-4)).int().argmax())]
        assert played.thresholds[str(call)] == best
        judged, on = case.pixels(order[6:]), ClassScore(case.predicted[order[6:]], of="prob")
        due = measure(case.model, judged, played.players[i].maps, f"average-probability-increase(threshold={best})", on)
        torch.testing.assert_close(torch.from_numpy(played.values[i, 0]).float(), due)
    assert chances(case.model, top, case.logits[order[:6]]).shape == (6,)


def test_thresholds_say_whether_they_have_seen_what_judges_them(pictures: Pictures) -> None:
    options = f"methods='saliency, gradient-x-input', metrics='{SEEN}', calibrate=6"
    apart = believe(Case(classifier(), pictures), options)
    (note,) = [n for n in apart.notes if n.startswith("Thresholds")]
    assert "calibrated on 6 pictures, on other pictures" in note
    assert apart.n == 8
    few = Pictures(pictures.root, pictures.pictures[:6])
    (note,) = [n for n in believe(Case(classifier(), few), options).notes if n.startswith("Thresholds")]
    assert "these numbers are optimistic" in note
    assert "on the pictures that are judged" in note


def test_a_threshold_for_nothing_is_refused(pictures: Pictures) -> None:
    for words, why in (("calibrate=4, metrics='insertion'", "has a threshold"), ("calibrate=-1", "0 for none")):
        with pytest.raises(cs.Refused, match=why):
            believe(Case(classifier(), pictures), words)


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("explainer-ranking(methods=grad-kam)", "grad-cam"),
        ("explainer-ranking(other=nowhere)", "nowhere"),
        ("explainer-ranking(metrics=complexity)", "none of them says"),
        ("accuracy, explainer-ranking(pictures=0)", "at least 1"),
        ("shortcuts(pictures=-1)", "at least 1"),
        ("sanity(stages=0)", "at least one stage"),
    ],
)
def test_values_that_cannot_be_are_refused_before_a_picture_is_read(pictures: Pictures, check: str, why: str) -> None:
    case = Case(classifier(), pictures)
    with pytest.raises(cs.Refused, match=why):
        list(run_checks(case, parse_checks(check)))
    assert "_read" not in vars(case)


def test_maps_that_are_those_of_a_network_of_random_labels_are_not_believed(pictures: Pictures, tmp_path: Path) -> None:
    """The same network in the place of the one that learned nothing: every map keeps all of itself."""
    (tmp_path / "nets.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from poolednet import classifier\n"
        "def same(): return classifier(0)\n"
        "def other(): return classifier(0, ('x', 'y', 'z'))\n"
    )
    metrics = "insertion(steps=4), deletion(steps=4), parameter-randomisation"
    options = f"methods='grad-cam, saliency', metrics='{metrics}'"
    alone = believe(Case(classifier(), pictures), options)
    found = believe(Case(classifier(), pictures), f"{options}, other='{tmp_path}/nets.py:same'")
    told = rows(found, "Explainers")
    assert {r["kept"] for r in told} == {1.0}
    assert {r["label-randomisation"] for r in rows(found, "Means by metric")[:2]} == {1.0}
    assert all("alike on a random network" in str(r["believed"]) for r in told)
    assert found.verdict == "fail"
    assert alone.value == found.value
    (said,) = [n for n in found.notes if n.startswith("Label randomisation")]
    assert "keep a rank correlation of 1 to 1 with those of" in said
    assert "2 of 2 explainers more than" in said
    assert not any(n.startswith("Label randomisation") for n in alone.notes)
    with pytest.raises(cs.Refused, match="the same classes"):
        believe(Case(classifier(), pictures), f"other='{tmp_path}/nets.py:other'")


def test_equal_maps_are_measured_once_and_it_is_said(pictures: Pictures) -> None:
    case = Case(classifier(), pictures)
    calls = [parse(m, "explainers") for m in ("hires-cam", "saliency", "grad-cam(layer=features)")]
    played = run_tournament(case, calls, [parse("insertion(steps=4)", "metrics")], case.sample(range(16), 8))
    names = [str(p.call) for p in played.players]
    cam, grad = (next(i for i, n in enumerate(names) if n.startswith(w)) for w in ("hires-cam", "grad-cam"))
    assert (names[grad], names[cam]) in played.same_maps
    assert len(played.same_maps) == 1
    np.testing.assert_array_equal(played.values[cam], played.values[grad])
    found = believe(case, "methods='hires-cam, saliency, grad-cam(layer=features)', metrics='insertion(steps=4)'")
    assert any("gives the same maps as" in n for n in found.notes)


def test_the_difference_to_the_winner_is_paired(pictures: Pictures) -> None:
    case = Case(classifier(), pictures)
    found = believe(case, "methods='saliency, gradient-x-input', metrics='insertion(steps=4), complexity'")
    told = rows(found, "By metric")
    assert [r["metric"] for r in told[:5]] == ["insertion(steps=4)"] * 5
    winner, second = told[0], told[1]
    assert winner["the winner is better by"] is None
    case = Case(classifier(), pictures)
    order = explainer_ranking.least_sure_first(case, case.sample(range(16), 8))
    x, target = case.pixels(order), ClassScore(case.predicted[order], of="prob")
    values = {}
    for r in (winner, second):
        maps = cs.explain(case.model, x, str(r["explainer"]), ClassScore(case.predicted[order])).maps
        values[r["explainer"]] = measure(case.model, x, maps, "insertion(steps=4)", target).double()
    by = values[winner["explainer"]] - values[second["explainer"]]
    assert second["the winner is better by"] == pytest.approx(float(by.mean()), abs=1e-5)
    low, high = bootstrap(by.tolist()) or (0.0, 0.0)
    assert second["at least"] == pytest.approx(low, abs=1e-5)
    assert second["at most"] == pytest.approx(high, abs=1e-5)
    complexity = [r for r in told if r["metric"] == "complexity"]
    assert complexity[1]["the winner is better by"] == pytest.approx(
        float(complexity[1]["mean"]) - float(complexity[0]["mean"]),
        abs=1e-6,  # type: ignore[arg-type]
    ), "lower is better"


def test_agreement_is_drawn_and_told(pictures: Pictures) -> None:
    found = believe(Case(classifier(), pictures), "methods='saliency', metrics='insertion(steps=4), complexity'")
    assert [g.name for g in found.figures] == ["explainer-ranking-wins.svg", "explainer-ranking-agreement.svg"]
    assert rows(found, "Do the metrics agree")[0]["insertion"] == 1.0


def test_a_tournament_tells_how_far_it_is_within_a_batch(pictures: Pictures) -> None:
    told: list[tuple[str, int, int]] = []
    case = Case(classifier(), pictures, progress=lambda *words: told.append(words))
    case.doing = "explainer-ranking"
    run_tournament(
        case, [parse("grad-cam", "explainers")], [parse("insertion(steps=4)", "metrics")], case.sample(range(16), 8)
    )
    done = [n for what, n, total in told if what == "explainer-ranking" and total == 8]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 8
    assert len(set(done)) >= 3  # an explainer and three controls, of which two are measured side by side


def test_a_tiny_budget_tries_one_explainer_beside_the_controls(pictures: Pictures) -> None:
    case = Case(classifier(), pictures, budget=1e-3)
    _ = case.pictures
    found = believe(case, "methods='saliency, grad-cam, gradient-x-input', metrics='insertion(steps=2)'")
    table = rows(found, "Means by metric")
    assert [str(r["explainer"]).partition("(")[0] for r in table] == ["grad-cam", "centre", "edge", "random"]
    assert found.n == 1
    assert "Left out: saliency, gradient-x-input: the budget left no time for it." in found.notes
    assert found.headline.startswith("1 picture is too few")


def test_what_is_the_same_for_every_player_is_worked_out_once(pictures: Pictures, monkeypatch) -> None:
    """The ends of the curves and the random network; the values are those of a tournament that remembers nothing."""
    case = Case(classifier(), pictures)
    calls = [parse(m, "explainers") for m in ("saliency", "gradient-x-input", "occlusion(window=4, stride=4)")]
    metrics = [parse(m, "metrics") for m in ("deletion(steps=3)", "insertion(steps=3)", RANDOMISED)]
    order = case.sample(range(16), 8)
    passes = [0, 0]
    drawn: list[int] = []
    draw = randomisation.Unlearnt.draw
    monkeypatch.setattr(randomisation.Unlearnt, "draw", lambda *a: drawn.append(1) or draw(*a))
    played = []
    for i in range(2):
        case.model.net.register_forward_pre_hook(lambda _, x, i=i: passes.__setitem__(i, passes[i] + len(x[0])))
        played.append(run_tournament(case, calls, metrics, order))
        monkeypatch.setattr("clearsight.auditing.tournament.remembering", nullcontext)
        case.model.net._forward_pre_hooks.clear()
    np.testing.assert_allclose(played[0].values, played[1].values, rtol=1e-5, atol=1e-6)
    players = len(played[0].players)
    assert players == len(calls) + 3
    assert len(drawn) == 1 + players
    # the ends of two curves are the picture twice, its blur, and one mean for all; two players are measured together
    assert passes[1] - passes[0] >= players // 2 * (3 * 8 + 1) - (2 * 8 + 1)


def test_maps_measured_side_by_side_have_the_values_of_each_measured_alone(pictures: Pictures, monkeypatch) -> None:
    """Metrics with and without chance, of regions, with thresholds of their own, and one that runs the explainer."""
    case = Case(classifier(), pictures)
    calls = [parse(m, "explainers") for m in ("saliency", "gradient-x-input", "occlusion(window=4, stride=4)")]
    metrics = [
        parse(m, "metrics")
        for m in (
            "road(steps=2)",
            "insertion(steps=3)",
            "average-probability-increase",
            "complexity",
            "max-sensitivity(samples=1)",
        )
    ]
    order = case.sample(range(16), 4)
    runs = []
    together: list[int] = []
    measured = tournament.measure
    monkeypatch.setattr(tournament, "measure", lambda *a, **k: together.append(len(a[1])) or measured(*a, **k))
    for players in (None, 1):
        if players:
            monkeypatch.setattr(tournament, "players_together", lambda _: 1)
        runs.append(run_tournament(case, calls, metrics, order, calibrate=case.sample(range(16), 12)[4:]))
        together.append(0)
    assert max(together[: together.index(0)]) == 16
    assert max(together[together.index(0) :]) == 4
    np.testing.assert_allclose(runs[0].values, runs[1].values, rtol=1e-5, atol=1e-6)
    assert [len(p.maps) for p in runs[0].players] == [4] * 6
    assert runs[0].thresholds == runs[1].thresholds
    one = runs[0].players[1]
    target = ClassScore(case.predicted[order], of="prob")
    alone = measure(case.model, case.pixels(order), one.maps, metrics[1], target)
    np.testing.assert_allclose(runs[0].values[1, 1], alone.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("players", [1, 4])
def test_a_player_that_cannot_be_measured_is_left_out_alone(pictures: Pictures, monkeypatch, players: int) -> None:
    """And who has the same maps: of the two others that are measured with it each has its values."""
    monkeypatch.setattr(tournament, "players_together", lambda _: players)
    case = Case(classifier(), pictures)
    order = case.sample(range(16), 4)
    calls = [
        parse(m, "explainers") for m in ("saliency", "gradient-x-input", "gradient-x-input(reference=0)", "grad-cam")
    ]
    bad = explain(case.model, case.pixels(order), "gradient-x-input", ClassScore(case.predicted[order])).maps
    measured = tournament.measure

    def refuse_bad(model, x, maps, *args, **more):
        if any(torch.equal(m, b) for m in maps for b in bad):
            raise Refused("these maps cannot be measured")
        return measured(model, x, maps, *args, **more)

    monkeypatch.setattr(tournament, "measure", refuse_bad)
    found = run_tournament(case, calls, [parse("insertion(steps=3)", "metrics")], order)
    assert dict(found.left_out) == dict.fromkeys(map(str, calls[1:3]), "these maps cannot be measured")
    assert [p.call.method.name for p in found.players] == ["saliency", "grad-cam", "centre", "edge", "random"]
    assert np.isfinite(found.values).all()


AGAIN = "insertion(steps=3), deletion(steps=3), parameter-randomisation(stages=1), max-sensitivity(samples=1)"
FIVE = "saliency, gradient-x-input, occlusion(window=4, stride=4), grad-cam, deconvnet"


def test_losers_are_not_run_again_and_nothing_else_changes(pictures: Pictures, monkeypatch) -> None:
    runs: list[str] = []
    run = explainer_ranking.measure_players
    monkeypatch.setattr(
        explainer_ranking,
        "measure_players",
        lambda case, t, which, *a, **k: (
            runs.extend(str(t.players[i].call) for i in which) or run(case, t, which, *a, **k)
        ),
    )
    options = f"methods='{FIVE}', metrics='{AGAIN}', pictures=16"
    fast, whole = (believe(Case(classifier(), pictures), f"{options}, everything={v}") for v in ("false", "true"))
    assert sorted(runs) == ["centre", "edge", "gradient-x-input", "occlusion(window=4, stride=4)", "random"]
    assert (fast.headline, fast.verdict, fast.value, fast.interval) == (
        whole.headline, whole.verdict, whole.value, whole.interval,
    )  # fmt: skip
    for caption in ("Explainers", "Means by metric"):
        of_whole = {r["explainer"]: r for r in rows(whole, caption)}
        for row in rows(fast, caption):
            unknown = {k for k, v in row.items() if v is None}
            known = {k: v for k, v in row.items() if k not in unknown}
            due = of_whole[row["explainer"]]
            assert row["n"] == 16 or str(row["explainer"]) not in runs
            assert row["n"] < 16 or known == pytest.approx({k: due[k] for k in known})
            assert (unknown == set()) == (str(row["explainer"]) in runs)
    assert [r["n"] for r in rows(whole, "Explainers")] == [16] * 5
    (note,) = [n for n in fast.notes if n.startswith("parameter-randomisation and max-sensitivity")]
    assert "for the 2 of 5 explainers that win against each control" in note
    assert not [n for n in whole.notes if "max-sensitivity" in n]


def rounded(row: dict[str, object]) -> dict[str, object]:
    """A row of a table, whose numbers are rounded to what two sizes of batch agree on."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


class Counted:
    """A case that counts the pictures that go through its network."""

    def __init__(self, pictures: Pictures) -> None:
        self.case, self.forwards = Case(classifier(), pictures), 0
        self.case.model.net.register_forward_pre_hook(lambda _, x: setattr(self, "forwards", self.forwards + len(x[0])))


def test_who_can_no_longer_win_is_dropped_and_it_is_said(pictures: Pictures) -> None:
    options = f"methods='{FIVE}', metrics='insertion(steps=6), deletion(steps=6)', pictures=16"
    race, whole = Counted(pictures), Counted(pictures)
    fast, full = believe(race.case, options), believe(whole.case, f"{options}, everything=true")
    n = {r["explainer"]: r["n"] for r in rows(fast, "Explainers")}
    dropped = [name for name, seen in n.items() if seen < 16]
    assert dropped
    assert race.forwards < whole.forwards - 8 * len(dropped)
    (note,) = [words for words in fast.notes if "dropped" in words]
    assert note.startswith(f"{len(dropped)} of 5 explainers were dropped")
    assert not [words for words in full.notes if "dropped" in words]
    winners = [[r for r in rows(f, "Explainers") if r["believed"] == "yes"] for f in (fast, full)]
    assert winners[0]
    for a, b in zip(*winners, strict=True):
        assert a == pytest.approx(b)
    first = min(n.values())
    assert f", on the first {first} pictures, before any was dropped" in str([t.caption for t in fast.tables])
    case = Case(classifier(), pictures)  # what the table says of one is that of the pictures before it was dropped
    calls, metrics = [parse(m, "explainers") for m in split_calls(FIVE)], ("insertion(steps=6)", "deletion(steps=6)")
    order = explainer_ranking.least_sure_first(case, case.sample(range(16), 16))
    played = run_tournament(case, calls, [parse(m, "metrics") for m in metrics], order)
    (on_first, _) = dataclasses.replace(played, values=played.values[:, :, :first]).agreement()
    assert rows(fast, "Do the metrics agree")[0]["deletion"] == pytest.approx(on_first[1])
    for row in rows(fast, "Explainers"):
        one = next(i for i, p in enumerate(played.players) if str(p.call) == row["explainer"])
        controls = range(len(calls), len(calls) + 3)
        won = [float(played.pairwise_wins([0, 1], one, c)[: row["n"]].mean()) for c in controls]
        assert row["comparisons won"] in [pytest.approx(w) for w in won]


def test_a_race_begins_with_what_the_model_is_least_sure_of(pictures: Pictures, monkeypatch) -> None:
    """The answer is that of the pictures as drawn; under a budget, which may end at any of them, they come so."""
    options = "methods='saliency, gradient-x-input', metrics='insertion(steps=2)', pictures=8"
    asked: list[list[int]] = []
    run = explainer_ranking.run_tournament
    monkeypatch.setattr(explainer_ranking, "run_tournament", lambda *a, **k: asked.append(a[3]) or run(*a, **k))
    case = Case(classifier(), pictures)
    found = believe(case, options)
    believe(Case(classifier(), pictures, budget=1e-3), options)
    sure = [float(case.logits[i].softmax(0).max()) for i in asked[0]]
    assert sure == sorted(sure)
    assert asked[1] == case.sample(range(16), 8) != asked[0]
    with monkeypatch.context() as patch:
        patch.setattr(explainer_ranking, "least_sure_first", lambda _, rows: rows)
        drawn = believe(Case(classifier(), pictures), options)
    assert (found.verdict, found.value) == (drawn.verdict, pytest.approx(drawn.value))


def test_nobody_is_dropped_who_could_still_win() -> None:
    """All courses of the last two of eight pictures, by two metrics, against one control: whether any is won surely."""
    drawn = np.random.default_rng(0)
    answers = []
    metrics = [parse(m, "metrics") for m in ("complexity", "insertion", "deletion")]
    calls = [parse(m, "explainers") for m in ("saliency", "centre")]
    for _ in range(40):
        ours = drawn.choice([0.0, 1.0], (2, 6), p=[0.25, 0.75])
        standing = Standing.of(calls, metrics)
        low = np.stack([np.full(6, 9.0), ours[0], -ours[1]])  # of deletion low is good, and complexity does not count
        standing.values |= {
            "saliency": [low[:, :4], low[:, 4:]],
            "centre": [np.array([[0.0], [0.5], [-0.5]]).repeat(6, 1)],
        }
        able = standing.can_win("saliency", "centre", [1, 2], (8,), 3)
        courses = ([*ours.mean(0), a, b] for a in (0.0, 0.5, 1.0) for b in (0.0, 0.5, 1.0))
        assert able == any((bootstrap(shares, 3) or (0, 0))[0] > 0.5 for shares in courses)
        assert standing.can_win("saliency", "centre", [1, 2], (7, 8), 3) >= able
        answers.append(able)
    assert 5 < sum(answers) < 35


def test_who_loses_to_one_control_is_dropped_and_controls_are_not() -> None:
    calls = [parse(m, "explainers") for m in ("saliency", "lrp", "centre", "random")]
    standing = Standing.of(calls, [parse("insertion", "metrics")])
    for call, value in zip(calls, (0.5, 0.9, 0.1, 0.7), strict=True):
        standing.values[str(call)] = [np.full((1, 4), value)]
    assert [str(c) for c in still_able(standing, calls, [0], (8,), 0)] == ["lrp", "centre", "random"]


def test_those_that_were_dropped_are_measured_where_nobody_is_believed(pictures: Pictures) -> None:
    """The numbers of all are those of a tournament in which nobody is dropped."""
    options = f"methods='{FIVE}', metrics='{AGAIN}', pictures=16, ceiling=0.05"
    fast, whole = (believe(Case(classifier(), pictures), f"{options}, everything={v}") for v in ("false", "true"))
    assert (fast.verdict, whole.verdict) == ("fail", "fail")
    assert not [words for words in fast.notes if "dropped" in words]
    for caption in ("Explainers", "Means by metric", "By metric"):
        for a, b in zip(rows(fast, caption), rows(whole, caption), strict=True):
            assert rounded(a) == rounded(b)


def test_all_are_run_again_where_no_winner_is_believed(pictures: Pictures) -> None:
    found = believe(Case(classifier(), pictures), f"methods='{FIVE}', metrics='{AGAIN}', pictures=16, ceiling=0.05")
    assert found.verdict == "fail"
    assert all(row["kept"] is not None for row in rows(found, "Explainers"))
    assert not [n for n in found.notes if "option everything" in n]


def test_equal_maps_are_run_again_once_for_both(pictures: Pictures) -> None:
    case = Case(classifier(), pictures)
    calls = [parse(m, "explainers") for m in ("grad-cam", "hires-cam")]
    metrics = [parse("insertion(steps=3)", "metrics"), parse("parameter-randomisation(stages=1)", "metrics")]
    later = explainer_ranking.reruns_explainer
    order = case.sample(range(16), 8)
    played = run_tournament(case, calls, metrics, order, later=later)
    assert dict(played.same_maps) == {"hires-cam(layer=features)": "grad-cam(layer=features)"}
    assert np.isnan(played.values[:, 1]).all()
    whole = run_tournament(case, calls, metrics, order)
    both = measure_players(case, played, [1], later)
    np.testing.assert_allclose(both.values[[0, 1], 1], whole.values[[0, 1], 1])
    assert np.isnan(both.values[2:, 1]).all()


def test_random_networks_are_drawn_once_for_all_pictures_that_are_explained(
    pictures: Pictures, tmp_path: Path, monkeypatch
) -> None:
    drawn: list[int] = []
    model, sheets = classifier(), tmp_path / "sheets"  # the pictures themselves lie in tmp_path
    sheets.mkdir()
    draw = randomisation.Unlearnt.draw
    monkeypatch.setattr(randomisation.Unlearnt, "draw", lambda *a: drawn.append(1) or draw(*a))

    def kept(shown: Pictures) -> list[float | None]:
        found = explain_pictures(model, [shown], ["saliency"], "top1", lambda: sheets, progress=lambda *_: None)
        return [test.kept for p in found.pictures for saved in p.maps for test in saved.tests or ()]

    both = kept(Pictures(pictures.root, pictures.pictures[:2]))
    assert len(both) == 2
    assert len(drawn) == NETWORKS
    each = [kept(Pictures(pictures.root, (p,)))[0] for p in pictures.pictures[:2]]
    assert len(drawn) == 3 * NETWORKS
    assert both == pytest.approx(each)


def test_the_layer_of_an_explainer_that_is_not_run_again_is_not_looked_for(monkeypatch) -> None:
    runner, model, x = importlib.import_module("clearsight.runner.run"), classifier(), torch.rand(1, 3, SIDE, SIDE)
    maps = explain(model, x, "grad-cam").maps
    asked: list[int] = []
    find = runner.find_layer
    monkeypatch.setattr(runner, "find_layer", lambda *args: asked.append(1) or find(*args))
    measure(model, x, maps, "insertion(steps=2)", method="grad-cam")
    assert not asked
    measure(model, x, maps, "max-sensitivity(samples=1)", method="grad-cam")
    assert asked
