"""clearsight tune: what may be tried and how it is spelled, and a real search with Ray, stopped and gone on with."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clearsight.errors import Refused
from clearsight.sharding import ray_cluster
from clearsight.training import tune as tuning
from clearsight.training.history import Epoch
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.search_space import DEFAULT, Dimension, Space, drawn, grid, read_space
from clearsight.training.tune import Trial, Tuned, tune
from quickruns import BASE, OWN, photos

SPACE = "lr=log(1e-3, 1e-1); batch=6|9"

# Ray gives a trial as many threads as it gives it processors, which need not be as many as this process has
pytestmark = pytest.mark.filterwarnings("ignore:the run in .* was computed with:clearsight.errors.Notice")

ray_needed = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`): no search is run"
)

# The space ------------------------------------------------------------------------------------------------------------


def test_a_space_is_read_and_spelled_again() -> None:
    words = (
        "lr=log(1e-4, 1e-1); batch = 16|32|64; optimiser=sgd|adamw; decay=uniform(0, 0.1); epochs=int(2, 5);"
        "augment='crop, flip'|none|mixup(alpha=0.4); grey=true|false; dropout=none|0.5; weights=none; ema=99/100"
    )
    space = read_space(words)
    by = {d.name: d for d in space.dimensions}
    assert by["lr"] == Dimension("lr", "log", (1e-4, 1e-1))
    assert by["batch"].values == (16, 32, 64)
    assert by["decay"] == Dimension("decay", "uniform", (0.0, 0.1))
    assert by["epochs"] == Dimension("epochs", "int", (2, 5))
    assert by["augment"].values == ("crop, flip", "none", "mixup(alpha=0.4)")
    assert by["grey"].values == (True, False)
    assert by["dropout"].values == (None, 0.5)
    assert by["weights"].values == ("none",)  # random weights, which is a word
    assert by["ema"].values == (0.99,)
    assert read_space(str(space)) == space
    assert read_space(space) is space


@pytest.mark.parametrize("value", ["a|b", "a;b", "'quoted'", "int(1, 2)", 'a "b" | c', "end(", "it's"])
def test_whatever_a_choice_is_it_comes_back(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(value).touch()
    space = Space((Dimension("weights", "choice", (value, "none")),))
    assert read_space(str(space)) == space


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("btach=16|32", "did you mean batch"),
        ("batch=16|many", "batch in the space cannot be 'many': it is a whole number"),
        ("batch=0|16", "batch in the space: batch 0: a number from 1"),
        ("schedule=cosin|step", "did you mean cosine"),
        ("augment=flipp|none", "did you mean flip"),
        ("decay=uniform(0, 100)", "decay in the space: decay 100"),
        ("lr=log(0, 1)", "lr in the space: lr '0'"),
        ("lr=logg(1e-4, 1e-2)", "neither a value nor a range: lr=uniform(low, high) or lr=log(low, high)"),
        ("optimiser=adam|sdg", "did you mean sgd or sgdw"),
        ("arch=timm:resnet1888", "resnet18"),
        ("decay=log(0, 1)", "above 0"),
        ("lr=log(0.1, 0.01)", "the first number must be the lower"),
        ("lr=log(0.1, 0.2, 0.3)", "a range has two numbers"),
        ("lr=log(auto, 0.2)", "a range has two numbers"),
        ("batch=log(8, 64)", "batch is a whole number: batch=int"),
        ("lr=int(1, 2)", "lr=uniform"),
        ("arch=int(1, 2)", "name its values"),
        ("grey=maybe", "true or false"),
        ("shares=0.6,0.2,0.2|0.7,0.2,0.1", "it decides the pictures or labels of val"),
        ("seed=1|2", "it decides the pictures or labels of val"),
        ("lr", "write name=a|b"),
        ("lr=0.1; lr=0.2", "twice"),
        (" ; ", "the space is empty"),
        ("augment='crop", "not closed"),
    ],
)
def test_what_no_recipe_takes_is_refused_by_name(words: str, says: str) -> None:
    with pytest.raises(Refused, match=None) as e:
        read_space(words)
    assert says in str(e.value)


def test_the_default_space_is_one() -> None:
    space = read_space(DEFAULT)
    assert read_space(str(space)) == space
    for one in drawn(space, 20, 0):
        replace(Recipe(), **one)


# The settings ---------------------------------------------------------------------------------------------------------


def test_values_lie_where_they_should() -> None:
    """At the share u of the way: low + u (high - low), and low (high / low)^u; the log-uniform median is the root."""
    assert Dimension("decay", "uniform", (0.0, 0.2)).at(0.25) == 0.05
    assert Dimension("lr", "log", (1e-4, 1e-2)).at(0.75) == "0.00316"  # 1e-4 * 100^0.75 = 0.0031623
    assert [Dimension("epochs", "int", (2, 4)).at(u) for u in (0, 0.33, 0.34, 0.66, 0.67, 1)] == [2, 2, 3, 3, 4, 4]
    assert Dimension("decay", "uniform", (0.12345, 0.12346)).at(0.0) == 0.12345  # never rounded out of the range
    lots = [float(str(s["lr"])) for s in drawn(read_space("lr=log(1e-4, 1e-2)"), 300, 0)]
    assert min(lots) >= 1e-4
    assert max(lots) <= 1e-2
    below = sum(v < 1e-3 for v in lots) / len(lots)
    assert abs(below - 0.5) < 4 * math.sqrt(0.25 / len(lots))  # four standard deviations of a fair coin


def test_the_same_seed_draws_the_same_settings_however_many_follow() -> None:
    space = read_space("lr=log(1e-4, 1e-2); batch=8|16|32; smoothing=uniform(0, 0.2)")
    assert drawn(space, 3, 7) == drawn(space, 10, 7)[:3]
    assert drawn(space, 3, 7) != drawn(space, 3, 8)
    other_way = read_space("smoothing=uniform(0, 0.2); batch=8|16|32; lr=log(1e-4, 1e-2)")
    assert drawn(other_way, 3, 7) == drawn(space, 3, 7)


def test_no_settings_are_drawn_twice_and_a_small_space_is_drawn_whole() -> None:
    space = read_space("batch=8|16|8; epochs=int(1, 3)")
    found = drawn(space, 100, 0)
    assert sorted((s["batch"], s["epochs"]) for s in found) == [(b, e) for b in (8, 16) for e in (1, 2, 3)]
    narrow = drawn(read_space("lr=uniform(0.1, 0.105)"), 50, 0)  # of three digits each
    assert sorted(s["lr"] for s in narrow) == ["0.1", "0.101", "0.102", "0.103", "0.104", "0.105"]


def test_a_grid_is_every_combination_with_ranges_at_their_ends_and_middle() -> None:
    found = grid(read_space("optimiser=sgd|adamw; lr=log(1e-4, 1e-2)"))
    assert [(s["optimiser"], s["lr"]) for s in found] == [
        (o, lr) for o in ("sgd", "adamw") for lr in ("0.0001", "0.001", "0.01")
    ]


# Without a search -----------------------------------------------------------------------------------------------------


def test_a_recipe_that_no_trial_could_train_is_refused_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it changes nothing"):
        tune(photos(tmp_path / "photos"), replace(BASE, perturb="pgd(eps=0)"), "lr=0.01|0.02", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"search": "asah"}, "did you mean asha"),
        ({"trials": 0}, "--trials 0"),
        ({"at_once": 0}, "--at-once 0"),
        ({"search": "grid", "trials": 5}, "6 trials, more than 5: give --trials 6"),
        ({"space": "batch=6|9", "resume": True}, "no search to resume"),
        ({"space": "epochs=2|3"}, "epochs is given as a setting and in the space as well"),
    ],
)
@ray_needed
def test_what_cannot_be_searched_is_refused_before_anything(tmp_path: Path, how: dict, says: str) -> None:
    how = {"space": SPACE, **how}
    with pytest.raises(Refused) as e:
        tune(photos(tmp_path), BASE, how.pop("space"), tmp_path / "out", **how)
    assert says in str(e.value)
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"pip install 'clearsight\[ray\]'"):
        tune(tmp_path, BASE, SPACE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_grid_tries_every_pair_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def noted(recipe: Recipe, settings: dict) -> Recipe:
        tried.append((settings["lr"], settings["batch"]))
        return recipe

    monkeypatch.setattr(tuning, "apply_settings", noted)
    monkeypatch.setitem(sys.modules, "ray", None)  # it ends where Ray is asked for
    with pytest.raises(Refused, match="pip install"):
        tune(tmp_path, BASE, "lr=0.02|0.05; batch=6|9", tmp_path / "out", search="grid", trials=9)
    assert tried == [("0.02", 6), ("0.02", 9), ("0.05", 6), ("0.05", 9)]


def test_trials_are_ranked_by_their_least_loss_and_those_that_failed_come_last() -> None:
    def trial(number: int, *losses: float, failed: bool = False) -> Trial:
        told = [Epoch(k + 1, 2, 1.0, v, 1, 2, 0.1, 9, 0.0, True) for k, v in enumerate(losses)]
        return Trial(number, {}, tuple(told), failed=failed)

    trials = [trial(1, 0.5, 0.9), trial(2, 0.7, 0.4), trial(3), trial(4, 0.1, failed=True), trial(5, 0.4)]
    assert [t.number for t in sorted(trials, key=tuning.trial_rank)] == [2, 5, 1, 4, 3]


# A search -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rayed() -> Iterator[None]:
    """Ray begun once for several searches, as tune itself begins it; tune leaves alone what it did not begin.

    Its workers compute with one thread, as these tests do: sums in another order come out differently.
    """
    ray_cluster.require_ray("this test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with ray_cluster.ray_cluster(1):
            yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def random(data: Path, rayed: None) -> Tuned:
    """Four random trials, the first of which has diverged: sgd at a rate of 1e30."""
    out, said = data.parent / "random", []
    found = tune(data, BASE, "lr=1e30|0.02|0.05|0.001; optimiser=sgd", out, search="random", trials=4, say=said.append)
    assert sum("epoch 1 of 2" in line for line in said) == 3
    return found


def table(found: Tuned) -> list[dict[str, str]]:
    return list(csv.DictReader((found.folder / "tune.csv").read_text().splitlines()))


@ray_needed
@pytest.mark.slow
def test_the_best_has_the_least_val_loss_in_the_table(random: Tuned) -> None:
    rows = table(random)
    losses = {row["trial"]: float(row["val loss"]) for row in rows if row["val loss"]}
    told = json.loads((random.folder / "best.json").read_text())
    assert str(told["best"]["trial"]) == min(losses, key=losses.__getitem__)
    assert random.best == random.folder / told["best"]["folder"]
    kept = json.loads((random.best / "metrics.json").read_text())
    assert kept["val"]["loss"] == told["best"]["val loss"] == min(losses.values())
    assert kept["val"]["accuracy"] == told["best"]["val accuracy"]
    assert told["best"]["n"] == kept["val"]["n"] == 6
    assert told["best"]["from (95 %)"] < told["best"]["val accuracy"] <= told["best"]["to (95 %)"]
    assert told["recipe"] == read_recipe(random.best / "recipe.json")[0].as_dict()


@ray_needed
def test_a_trial_that_diverges_is_in_the_table_and_ends_nothing(random: Tuned) -> None:
    rows = {row["lr"]: row for row in table(random)}
    assert set(rows) == {"1e30", "0.02", "0.05", "0.001"}
    assert rows["1e30"]["failed"] == "True"
    assert "not finite" in rows["1e30"]["ended"]
    assert [row["ended"] for lr, row in rows.items() if lr != "1e30"] == ["its last epoch"] * 3
    assert "1e30" in random.lines()[3]  # the last of the trials
    assert "failed: " in random.lines()[3]
    assert "best of 3 on val, so optimistic" in random.warning()
    assert f"clearsight audit {random.best}" in random.warning()


@ray_needed
def test_only_the_best_is_judged_on_test(random: Tuned) -> None:
    judged = [t.number for t in random.trials if (random.folder / f"trial-{t.number:03d}" / "metrics.json").exists()]
    assert judged == [random.winner.number]
    assert json.loads((random.best / "metrics.json").read_text())["judged_on"] == "test"


@ray_needed
def test_a_search_that_is_over_is_not_run_again(random: Tuned, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "train", None)
    monkeypatch.setattr(tuning, "ray_cluster", None)
    how = {"search": "random", "trials": 4, "resume": True}
    again = tune(data, BASE, "lr=1e30|0.02|0.05|0.001; optimiser=sgd", random.folder, **how)
    assert again == random
    plan = json.loads((random.folder / "search.json").read_text())  # as an earlier version wrote it
    plan["recipe"]["patience"] = 0
    del plan["recipe"]["first_head"]
    (random.folder / "search.json").write_text(json.dumps(plan))
    assert tune(data, BASE, "lr=1e30|0.02|0.05|0.001; optimiser=sgd", random.folder, **how) == random
    with pytest.raises(Refused, match="started with another space"):
        tune(data, BASE, "lr=0.02|0.05", random.folder, **how)
    with pytest.raises(Refused, match="started with another data"):
        tune(photos(random.folder.parent / "more", 11), BASE, random.space, random.folder, **how)
    with pytest.raises(Refused, match="--resume goes on with it"):
        tune(data, BASE, random.space, random.folder)


@ray_needed
@pytest.mark.slow
def test_trials_begin_from_a_first_model_that_counts_as_no_epoch(data: Path, rayed: None) -> None:
    """Only the best is judged on test, and ASHA lets it come to its last epoch."""
    before = data.parent / "before"
    list(tuning.train(data, replace(BASE, epochs=1, lr="0.001"), before))
    pretrained = replace(BASE, weights=str(before / "model.safetensors"), strategy="full")
    found = tune(data, pretrained, "lr=0.02|0.05", data.parent / "first", trials=2)
    assert [e.number for e in found.winner.epochs] == [0, 1, 2]
    assert found.winner.ended == "its last epoch"
    assert found.winner.row()["epochs"] == 2
    judged = [t.number for t in found.trials if (found.folder / f"trial-{t.number:03d}" / "metrics.json").exists()]
    assert judged == [found.winner.number]


@ray_needed
@pytest.mark.slow
def test_a_grid_is_run_whole_and_equals_training_by_hand(data: Path, rayed: None) -> None:
    found = tune(data, BASE, "lr=0.02|0.05; batch=6|9", data.parent / "grid", search="grid", trials=4)
    assert [(t.settings["lr"], t.settings["batch"]) for t in found.trials] == [
        ("0.02", 6), ("0.02", 9), ("0.05", 6), ("0.05", 9)
    ]  # fmt: skip
    assert [len(t.epochs) for t in found.trials] == [2] * 4
    alone = list(tuning.train(data, replace(BASE, lr="0.05", batch=9), data.parent / "alone"))
    assert [e.val_loss for e in alone] == pytest.approx([e.val_loss for e in found.trials[3].epochs], rel=1e-4)


CUT = """
import os, signal, sys
from dataclasses import replace
from clearsight.training.tune import tune
from quickruns import BASE

def say(line):
    if "trial 2: epoch" in line:
        os.kill(os.getpid(), signal.SIGKILL)

recipe = replace(BASE, epochs=3, optimiser="sgd")
tune(sys.argv[1], recipe, "lr=log(1e-6, 0.3)", sys.argv[2], search="asha", trials=4, say=say)
"""


@ray_needed
@pytest.mark.slow
def test_asha_ends_bad_trials_early_and_killed_it_goes_on_to_the_same_end(data: Path, rayed: None) -> None:
    """Rungs at 1 and 3 of 3 epochs: whoever is worse there than two thirds of those before ends there."""
    how = {"search": "asha", "trials": 4}
    recipe = replace(BASE, epochs=3, optimiser="sgd")
    space = "lr=log(1e-6, 0.3)"
    whole = tune(data, recipe, space, data.parent / "asha", **how)
    seen: list[float] = []
    for t in whole.trials:  # ASHA once more, by hand
        first = -t.epochs[0].val_loss
        lower = sorted(seen)
        at = (1 - 1 / 3) * (len(lower) - 1) if lower else 0
        cutoff = lower[int(at)] + (at % 1) * (lower[min(int(at) + 1, len(lower) - 1)] - lower[int(at)]) if lower else 0
        early = bool(lower) and first < cutoff
        assert ("stopped early by ASHA after epoch 1 of 3" in t.ended) == early
        assert len(t.epochs) == (3 if not early or t == whole.winner else 1)
        seen.append(first)
    assert {len(t.epochs) for t in whole.trials} == {1, 3}
    path = os.pathsep.join([OWN["PYTHONPATH"], str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", CUT, str(data), str(data.parent / "cut")]
    went = subprocess.run(command, env=OWN | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=170)
    assert went.returncode == -signal.SIGKILL, went.stderr
    said: list[str] = []
    first = (data.parent / "cut" / "trial-001" / "trial.json").stat().st_mtime_ns
    found = tune(data, recipe, space, data.parent / "cut", **how, resume=True, say=said.append)
    assert not any("trial 1: epoch" in line for line in said)
    assert (data.parent / "cut" / "trial-001" / "trial.json").stat().st_mtime_ns >= first
    assert [(t.ended, [e.val_loss for e in t.epochs]) for t in found.trials] == [
        (t.ended, [e.val_loss for e in t.epochs]) for t in whole.trials
    ]
    assert found.winner.number == whole.winner.number


ALONE = """
import sys
from dataclasses import replace
from pathlib import Path
from clearsight.training.tune import tune
from quickruns import BASE

def say(line):
    import ray
    if "epoch" in line:
        print(*{n["NodeManagerAddress"] for n in ray.nodes()})

tune(sys.argv[1], replace(BASE, epochs=1), "lr=0.02|0.05", "out", search="random", trials=2, at_once=2, say=say)
"""


@ray_needed
@pytest.mark.slow
def test_alone_it_begins_ray_on_this_machine_only_and_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    """Two trials at once in a process of its own, whose children are known by a word in their environment."""
    mark = f"CLEARSIGHT_TEST={tmp_path}"
    path = os.pathsep.join([OWN["PYTHONPATH"], str(Path(__file__).parents[1])])
    env = OWN | {"HOME": str(tmp_path), "PYTHONPATH": path, "CLEARSIGHT_TEST": str(tmp_path)}
    command = [sys.executable, "-c", ALONE, str(data)]
    went = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170)
    assert went.returncode == 0, went.stderr
    assert went.stdout.split() == ["127.0.0.1"] * 2  # and nothing of Ray's own
    end = time.monotonic() + 20  # the last of them may still be going
    while left := [p for p in Path("/proc").glob("[0-9]*") if mark in _environment(p)]:
        assert time.monotonic() < end, left
        time.sleep(0.2)
    assert not (tmp_path / ".ray").exists()
    assert not (tmp_path / "ray_results").exists()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "best.json", "search.json", "trial-001", "trial-002", "tune.csv", "tune.json"
    ]  # fmt: skip


def _environment(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
