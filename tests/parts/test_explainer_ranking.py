"""The tournament's fine print: thresholds, a network of random labels, equal maps, paired differences."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.map_tests import RANDOMISED
from clearsight.auditing.tournament import measure_players, run_tournament
from clearsight.checks import explainer_ranking
from clearsight.core.catalogue import parse
from clearsight.core.statistics import bootstrap
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import Picture, Pictures
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
    order = case.sample(range(16), 8)
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
    assert len(set(done)) >= 4  # an explainer and three controls


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
    # of two curves four ends, of which two are the picture itself
    assert passes[1] - passes[0] >= 8 * (4 * players - 2)


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
        for a, b in zip(rows(fast, caption), rows(whole, caption), strict=True):
            unknown = {k for k, v in a.items() if v is None}
            assert {k: v for k, v in a.items() if k not in unknown} == {k: v for k, v in b.items() if k not in unknown}
            assert (unknown == set()) == (str(a["explainer"]) in runs)
    (note,) = [n for n in fast.notes if n.startswith("parameter-randomisation and max-sensitivity")]
    assert "for the 2 of 5 explainers that win against each control" in note
    assert not [n for n in whole.notes if "max-sensitivity" in n]


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
