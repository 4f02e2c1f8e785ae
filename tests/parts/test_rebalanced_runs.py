"""Training that leaves no group of pictures behind: what it takes from a run, keeps, reports and refuses."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.auditing.commands import Commands
from clearsight.auditing.mending import mending_command
from clearsight.core.catalogue import parse
from clearsight.data.datasets import ALL, Pictures, open_data
from clearsight.errors import Refused
from clearsight.training import loop
from clearsight.training.checkpoints import load_state
from clearsight.training.continued import origin
from clearsight.training.cross_validation import cross_validate
from clearsight.training.fine_tuning import build_for_training
from clearsight.training.history import Epoch, is_best
from clearsight.training.loop import train
from clearsight.training.rebalance import inherited_by
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.validate_recipe import validate
from quickruns import QUICK, weights
from workshop import square

PLAIN = replace(QUICK, augment="none", epochs=2, batch=8)
DRO = replace(PLAIN, rebalance="group-dro(step_size=0.5)", groups="place")
SIZES = {"train": (9, 3), "val": (4, 4), "test": (3, 3)}  # of common groups and of rare ones
GROUPS = {f"{label}, place {place}" for label, place in product(("green", "red"), ("dim", "lit"))}


def ground(folder: Path, sizes: dict[str, tuple[int, int]] = SIZES) -> Path:
    """Red squares on lit ground and green ones on dim ground, rarely the other way round: a table with the place."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, number = ["file,label,place,split,note"], 0
    for split, (common, rare) in sizes.items():
        for label, place in product(("red", "green"), ("lit", "dim")):
            for _ in range(common if (label == "red") == (place == "lit") else rare):
                a = np.asarray(square(label, number)[0].resize((24, 24)), dtype=np.float64)
                Image.fromarray((a if place == "lit" else a / 2).astype(np.uint8)).save(folder / f"{number}.png")
                rows.append(f"{number}.png,{label},{place},{split},{'seen' if number else ''}")
                number += 1
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def opened(table: Path) -> Pictures:
    return open_data(table, split=ALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def before(data: Path) -> Path:
    """A run that has learnt too little to be right on all."""
    list(train(opened(data), replace(PLAIN, epochs=1, lr="0.0005"), data.parent / "before"))
    return data.parent / "before"


def wrong_of(run: Path, table: Path, split: str) -> list[str]:
    """The names of pictures of a split that the model of a run is wrong on, one by one."""
    model = cs.load(run)
    rows = [r for r in csv.DictReader(table.read_text().splitlines()) if r["split"] == split]
    pictures = cs.pixels(model, *(table.parent / r["file"] for r in rows))
    answers = [model.labels[int(k)] for k in model(pictures).argmax(1)]
    return [r["file"] for r, answer in zip(rows, answers, strict=True) if answer != r["label"]]


def how_trained(folder: Path) -> cs.Finding:
    return next(f for f in cs.Report.read(folder).findings if f.name == "training")


# Group DRO ------------------------------------------------------------------------------------------------------------


def test_group_dro_keeps_its_weights_and_goes_on_bit_for_bit(tmp_path: Path, data: Path) -> None:
    whole = list(train(opened(data), DRO, tmp_path / "whole"))
    going = train(opened(data), DRO, tmp_path / "cut")
    next(going)
    going.close()
    q = load_state(tmp_path / "cut")["memory"]["q"]
    assert q.shape == (4,)
    assert float(q.sum()) == pytest.approx(1.0)
    assert float(q.max() - q.min()) > 0.01
    rest = list(train(opened(data), Recipe(), tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (rest[0].worst_right, rest[0].worst_group) == (whole[1].worst_right, whole[1].worst_group)


def test_an_epoch_shows_all_groups_equally_often(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = loop.rebalanced_loss

    def noted(run, call, x, y, group, groups, weights):
        seen.extend(group.tolist())
        return plain(run, call, x, y, group, groups, weights)

    monkeypatch.setattr(loop, "rebalanced_loss", noted)
    list(train(opened(data), replace(DRO, epochs=6), tmp_path / "run"))
    counts = Counter(seen)
    assert counts.total() == 6 * 24
    assert all(abs(counts[g] - 36) < 10 for g in range(4))  # in proportion to the groups it would be 54 and 18


def test_a_run_goes_on_with_the_same_groups_only(tmp_path: Path) -> None:
    table = ground(tmp_path / "ground")
    going = train(opened(table), replace(PLAIN, groups="place"), tmp_path / "run")
    next(going)
    going.close()
    table.write_text(table.read_text().replace("0.png,red,lit", "0.png,red,dim"))
    with pytest.raises(Refused, match=r"not those that the run in .* was started with"):
        list(train(opened(table), Recipe(), tmp_path / "run", resume=True))


def test_the_epoch_is_kept_that_is_best_in_the_worst_group() -> None:
    first = Epoch(1, 3, 1.0, 0.4, 9, 12, 0.1, 3, 1.0, True, worst_right=1, worst_n=4)
    better = replace(first, number=2, val_loss=0.9, val_right=6, worst_right=2)
    assert is_best(better, [first])
    assert not is_best(replace(first, number=3, val_loss=0.1, worst_right=1), [better])
    assert is_best(replace(better, number=3, val_loss=0.8), [first, better])


def test_the_kept_epoch_and_the_groups_are_in_the_report(tmp_path: Path, data: Path) -> None:
    """The table is what the model does, counted again; the worst group comes first, each with n and interval."""
    epochs = list(train(opened(data), DRO, tmp_path / "run"))
    best = max((e for e in epochs if e.best), key=lambda e: e.number)
    finding = how_trained(tmp_path / "run")
    assert f"Epoch {best.number} of 2 is kept, the one that is right most often in the worst group" in finding.headline
    table = next(t for t in finding.tables if t.caption == "Right in each group of test, the worst first")
    shares = [row["right"] for row in table.rows]
    assert {row["group"] for row in table.rows} == GROUPS
    assert shares == sorted(shares)
    assert all(row["n"] == 3 and row["from (95 %)"] < row["to (95 %)"] for row in table.rows)
    wrong = wrong_of(tmp_path / "run", data, "test")
    assert sum(3 - round(3 * s) for s in shares) == len(wrong)
    groups = json.loads((tmp_path / "run" / "metrics.json").read_text())["groups"]
    assert {g: v["value"] for g, v in groups.items()} == {row["group"]: row["right"] for row in table.rows}
    assert f"in the worst group of test ({table.rows[0]['group']})" in finding.headline


def test_groups_alone_choose_the_epoch_and_are_reported(tmp_path: Path, data: Path) -> None:
    (epoch,) = train(opened(data), replace(PLAIN, epochs=1, groups="place"), tmp_path / "run")
    assert epoch.worst_n == 4
    assert f"of 4 in ({epoch.worst_group})" in epoch.line()
    assert how_trained(tmp_path / "run").tables[0].caption == "Right in each group of test, the worst first"


def test_no_fold_is_trained_where_a_later_one_has_no_member_of_a_group(tmp_path: Path) -> None:
    """The second of these folds leaves none of the rare green pictures for val."""
    pictures = opened(ground(tmp_path / "data", {"one": (10, 10), "other": (10, 4)}))
    recipe = replace(PLAIN, epochs=1, groups="place", seed=2)
    with pytest.raises(Refused, match=r"1 group with no picture in val: \(green, place lit\)"):
        list(cross_validate(pictures, recipe, 2, tmp_path / "folds"))
    assert not (tmp_path / "folds").exists()


def test_a_report_on_groups_quotes_the_training_that_mends_them() -> None:
    begin = "clearsight train DATA --arch demo --groups"
    commands = Commands("demo", "photos")
    assert mending_command(commands, parse("groups", "checks")) == f"{begin} COLUMN --rebalance group-dro"
    named = parse('groups(column="place, sex")', "checks")
    assert mending_command(commands, named) == f"{begin} 'place, sex' --rebalance group-dro"


# Just train twice -----------------------------------------------------------------------------------------------------


def test_exactly_the_errors_of_the_run_are_seen_more_often(
    tmp_path: Path, data: Path, before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    batches = loop.Batches

    def noted(store, y, rows, *others):
        seen.extend(store.pictures[i].name for part in rows for i in part)
        return batches(store, y, rows, *others)

    monkeypatch.setattr(loop, "Batches", noted)
    wrong = wrong_of(before, data, "train")
    assert 0 < len(wrong) < 24
    recipe = Recipe(from_run=str(before), rebalance="just-train-twice(times=5)", epochs=1)
    list(train(opened(data), recipe, tmp_path / "run"))
    times = Counter(seen)
    assert len(times) == 24
    assert {name for name, n in times.items() if n == 5} == {*wrong}
    assert {name for name, n in times.items() if n == 1} == {*times} - {*wrong}
    note = next(n for n in how_trained(tmp_path / "run").notes if "is wrong on" in n)
    assert f"is wrong on {len(wrong)} of 24 training pictures" in note
    assert "these 5 times each" in note


def test_the_second_network_begins_anew(tmp_path: Path, data: Path, before: Path) -> None:
    """At no rate it stays what the run's network was before training, with the seed of this recipe."""
    recipe = Recipe(from_run=str(before), rebalance="just-train-twice", epochs=1, lr="1e-12", decay=0.0, seed=5)
    list(train(opened(data), recipe, tmp_path / "run"))
    settled, why, _ = read_recipe(tmp_path / "run" / "recipe.json")
    assert (settled.arch, settled.size, settled.augment) == (QUICK.arch, 16, "none")
    assert any("its errors; the network begins anew" in w for w in why)
    fresh = dict(build_for_training(QUICK.arch, None, 2, size=16, seed=5).net.named_parameters())
    for name, p in cs.load(tmp_path / "run").net.named_parameters():
        if p.dim() == 4:
            torch.testing.assert_close(p, fresh[name])


def rewritten(run: Path, to: Path, **recipe: object) -> Path:
    """A copy of a run whose recipe.json says that it was trained otherwise."""
    shutil.copytree(run, to)
    record = json.loads((to / "recipe.json").read_text())
    record["recipe"] |= recipe
    (to / "recipe.json").write_text(json.dumps(record))
    return to


def test_the_second_network_takes_over_how_the_first_one_began(tmp_path: Path, before: Path) -> None:
    first: dict[str, object] = {"weights": "none", "dropout": 0.25, "strategy": "linear", "first_head": False}
    run = rewritten(before, tmp_path / "first", **first)
    second = Recipe(from_run=str(run), rebalance="just-train-twice")
    taken = inherited_by(second, origin(str(run)))
    assert {name: getattr(taken, name) for name in first} == first
    own = inherited_by(replace(second, strategy="full", augment="crop"), origin(str(run)))
    assert (own.strategy, own.augment) == ("full", "crop")
    again = rewritten(before, tmp_path / "second", first_head=True)
    assert inherited_by(replace(second, first_head=True), origin(str(again))).first_head
    assert not inherited_by(replace(second, first_head=False), origin(str(again))).first_head


def test_a_second_network_may_teach_a_third_one(tmp_path: Path, before: Path) -> None:
    """It began anew itself, unlike a run that continued from another one."""
    run = rewritten(before, tmp_path / "second", from_run=str(before), rebalance="just-train-twice")
    assert inherited_by(Recipe(from_run=str(run), rebalance="just-train-twice"), origin(str(run))).arch == QUICK.arch


def test_a_run_that_does_not_say_what_it_began_from_is_refused(tmp_path: Path, data: Path, before: Path) -> None:
    shutil.copytree(before, tmp_path / "bare")
    (tmp_path / "bare" / "recipe.json").unlink()
    second = Recipe(from_run=str(tmp_path / "bare"), rebalance="just-train-twice", epochs=1)
    with pytest.raises(Refused, match=r"it holds no recipe.json, so that it is not known what it began from"):
        list(train(opened(data), second, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# The last layer -------------------------------------------------------------------------------------------------------


def test_the_seed_draws_the_pictures_that_the_last_layer_is_fitted_to(tmp_path: Path, data: Path, before: Path) -> None:
    """Of the three pictures that the rare groups of train have, and as many of the nine of the others."""
    recipe = Recipe(from_run=str(before), rebalance="last-layer(on=train, draws=1, penalty=0.01)", groups="place")
    for seed in (0, 1):
        list(train(opened(data), replace(recipe, seed=seed), tmp_path / str(seed)))
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_the_last_layer_sees_pictures_as_they_are(tmp_path: Path, data: Path) -> None:
    """However the run varied them."""
    list(train(opened(data), replace(PLAIN, epochs=1, augment="flip"), tmp_path / "flipped"))
    again = Recipe(from_run=str(tmp_path / "flipped"), rebalance="last-layer(draws=1)", groups="place")
    list(train(opened(data), again, tmp_path / "run"))
    assert read_recipe(tmp_path / "run" / "recipe.json")[0].augment == "none"


@pytest.mark.parametrize(("on", "val", "fits"), [("val", 1, False), ("train", 1, True), ("val", 2, True)])
def test_the_last_layer_needs_two_pictures_of_each_group_where_it_is_fitted(
    tmp_path: Path, before: Path, on: str, val: int, fits: bool
) -> None:
    table = ground(tmp_path / "ground", {**SIZES, "val": (4, val)})
    recipe = Recipe(from_run=str(before), rebalance=f"last-layer(on={on}, draws=1, penalty=0.01)", groups="place")
    if fits:
        assert list(train(opened(table), recipe, tmp_path / "run"))
        return
    with pytest.raises(Refused, match="2 groups with fewer than 2 pictures in val"):
        list(train(opened(table), recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_network_without_one_last_layer_is_refused(tmp_path: Path, data: Path) -> None:
    """SqueezeNet ends in a convolution, whose places are averaged."""
    convolution = replace(PLAIN, arch="torchvision:squeezenet1_1", weights="none", size=32, epochs=1)
    list(train(opened(data), convolution, tmp_path / "squeezed", save_first=False))
    again = Recipe(from_run=str(tmp_path / "squeezed"), rebalance="last-layer", groups="place")
    with pytest.raises(Refused, match="last-layer: the network does not end in one linear layer"):
        list(train(opened(data), again, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("on", ["val", "train"])
def test_the_last_layer_is_fitted_and_the_others_stay(tmp_path: Path, data: Path, before: Path, on: str) -> None:
    spelled = f"last-layer(on={on}, draws=3)"
    recipe = Recipe(from_run=str(before), rebalance=spelled, groups="place")
    (epoch,) = train(opened(data), recipe, tmp_path / "run")
    assert epoch.number == 0
    assert epoch.line().startswith("the last layer, fitted anew")
    old, new = (cs.load(folder).net.state_dict() for folder in (before, tmp_path / "run"))
    moved = [name for name in old if not torch.equal(old[name], new[name])]
    assert len(moved) == 2
    assert all(len(old[name]) == 2 for name in moved)
    finding = how_trained(tmp_path / "run")
    assert f"is fitted anew by {spelled}, the others are as they were" in finding.headline
    assert any("optimistic; the checks below use test, which it has not seen" in note for note in finding.notes)
    assert any("Not calibrated: the last layer was fitted to val" in note for note in finding.notes) == (on == "val")
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_last_layer_that_was_stopped_is_written_all_the_same(tmp_path: Path, data: Path, before: Path) -> None:
    recipe = Recipe(from_run=str(before), rebalance="last-layer(draws=2)", groups="place")
    list(train(opened(data), recipe, tmp_path / "whole"))
    going = train(opened(data), recipe, tmp_path / "cut")
    next(going)
    going.close()
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert list(train(opened(data), Recipe(), tmp_path / "cut", resume=True)) == []
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rebalance": "group-dor", "groups": "place"}, "did you mean group-dro"),
        ({"rebalance": "group-dro"}, "group-dro without groups.*--groups place"),
        ({"rebalance": "group-dro(step_size=0)", "groups": "place"}, "a number above 0"),
        ({"rebalance": "group-dro", "groups": "plaice"}, "no column 'plaice': did you mean place"),
        ({"rebalance": "group-dro", "groups": "note"}, "only note seen"),
        ({"rebalance": "group-dro", "groups": "place", "augment": "mixup"}, "with mixup: a mixed picture"),
        ({"rebalance": "group-dro", "groups": "place", "perturb": "fgsm"}, "group-dro with --perturb"),
        ({"rebalance": "group-dro", "groups": "place", "random_labels": True}, "--groups with --random-labels"),
        ({"rebalance": "just-train-twice"}, "without a run to begin from.*--from RUN"),
        ({"rebalance": "last-layer", "groups": "place"}, "without a run to begin from"),
        ({"rebalance": "last-layer(draws=0)", "groups": "place"}, "at least one draw"),
    ],
)
def test_what_cannot_be_rebalanced_is_refused(tmp_path: Path, data: Path, more: dict[str, object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        list(train(opened(data), replace(PLAIN, **more), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    validate(DRO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refused, match=r"group-dro in several processes: .*: start one process"):
        validate(DRO)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rebalance": "last-layer"}, "last-layer without groups"),
        ({"rebalance": "last-layer", "groups": "place", "epochs": 2}, "last-layer with --epochs"),
        ({"rebalance": "just-train-twice(times=1)"}, "a whole number from 2"),
    ],
)
def test_what_does_not_go_with_a_run_is_refused(
    tmp_path: Path, data: Path, before: Path, more: dict[str, object], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        list(train(opened(data), Recipe(from_run=str(before), **more), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rebalance", ["group-dro", "last-layer(on=train)", ""])
def test_groups_without_members_are_named(tmp_path: Path, before: Path, rebalance: str) -> None:
    """Without rebalancing the groups of train need no member, those of val do."""
    table = ground(tmp_path / "ground", {**SIZES, "train": (9, 0)} if rebalance else {**SIZES, "val": (4, 0)})
    run = str(before) if "last" in rebalance else None
    recipe = Recipe(from_run=run, rebalance=rebalance, groups="place", arch="auto" if run else PLAIN.arch)
    words = r"2 groups with .* in (train|val): \(green, place lit\), \(red, place dim\)"
    with pytest.raises(Refused, match=words):
        list(train(opened(table), recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_without_errors_has_nothing_to_teach(
    tmp_path: Path, data: Path, before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(train(opened(data), replace(PLAIN, epochs=12), tmp_path / "good"))
    assert not wrong_of(tmp_path / "good", data, "train")
    with pytest.raises(Refused, match=r"is right on all 24 training pictures.*fewer --epochs"):
        list(train(opened(data), Recipe(from_run=str(tmp_path / "good"), rebalance="just-train-twice"), tmp_path / "r"))
    assert not (tmp_path / "r").exists()
    list(train(opened(data), Recipe(from_run=str(before), epochs=1), tmp_path / "on"))
    with pytest.raises(Refused, match=r"continued from .*, and the second network begins anew"):
        list(train(opened(data), Recipe(from_run=str(tmp_path / "on"), rebalance="just-train-twice"), tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_the_command_line_says_it_in_one_line_and_writes_nothing(tmp_path: Path, data: Path, run) -> None:
    words = ("train", str(data), "--rebalance", "group-dro", "--arch", QUICK.arch, "-o", str(tmp_path / "run"))
    told = run(*words)
    assert told.status == 2
    assert "group-dro without groups" in told.err
    told = run(*words, "--groups", "plaec")
    assert told.status == 2
    assert "did you mean place" in told.err
    assert "Traceback" not in told.err
    assert not (tmp_path / "run").exists()


def test_a_function_of_another_form_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "mine.py").write_text("def mine(pictures):\n    return pictures\n")
    recipe = replace(PLAIN, rebalance=f"{tmp_path}/mine.py:mine", groups="place")
    with pytest.raises(Refused, match="its first parameter is pictures: it is one of step, wrong, features"):
        list(train(opened(data), recipe, tmp_path / "run"))
