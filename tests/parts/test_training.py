"""clearsight train: a folder of pictures in, a model folder out; stopped anywhere, it ends as if it never had been."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clearsight as cs
from clearsight.data.datasets import open_data
from clearsight.models.model_folder import RECIPE
from clearsight.training import loop, losses
from clearsight.training.auto_settings import resolve_auto
from clearsight.training.checkpoints import STATE
from clearsight.training.fine_tuning import adopt, blocks, build_for_training, groups, trained, unfreeze
from clearsight.training.loop import train
from clearsight.training.recipe import ABOUT, Recipe, read_recipe
from quickruns import OWN, QUICK, TINY, photos, weights
from workshop import COLOURS, square


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, beside its photos."""
    root = tmp_path_factory.mktemp("made")
    list(train(photos(root), QUICK, root / "run"))
    return root / "run"


# What it leaves -------------------------------------------------------------------------------------------------------


def test_the_folder_is_a_model_that_every_command_takes(made: Path, run) -> None:
    model = cs.load(made)
    assert model.labels == tuple(sorted(COLOURS))
    assert model.preprocess.size == (16, 16)
    report = cs.audit(model, open_data(made / "split.csv", split="test"), only="accuracy")
    metrics = json.loads((made / "metrics.json").read_text())
    assert report.findings[0].value == metrics["accuracy"]["value"]
    assert report.findings[0].n == metrics["accuracy"]["n"] == metrics["pictures"]["test"] == 6
    told = run("explain", str(made), str(made.parent / "photos" / "red" / "0.png"), "-m", "grad-cam", "--json")
    assert json.loads(told.out)["pictures"][0]["picture"] == "0.png"


def test_an_audit_of_its_own_training_pictures_says_so(made: Path, run, tmp_path: Path) -> None:
    own = made.parent / "photos"
    told = run("audit", str(made), str(own), "--only", "accuracy", "-o", str(tmp_path / "a"), "--json").out
    rows = list(csv.DictReader((made / "split.csv").read_text().splitlines()))
    n = sum(r["split"] == "train" for r in rows)
    assert f"trained on {n} of these {len(rows)} pictures" in told
    assert f"trained on {n} of these" in (tmp_path / "a" / "report.html").read_text()
    assert f"trained on {n} of these" in run("inspect", str(made), str(made), str(own)).out
    words = ("audit", str(made), str(made / "split.csv"), "--split", "test", "--only", "accuracy", "--json")
    assert "trained on" not in run(*words, "-o", str(tmp_path / "b")).out


def test_a_model_folder_is_no_set_of_pictures(made: Path, run) -> None:
    assert "is a model folder" in run("explain", str(made.parent / "photos" / "red" / "1.png"), str(made)).err


def test_it_learns_what_there_is_to_learn(made: Path) -> None:
    longer = made.parent / "longer"
    history = list(train(made.parent / "photos", replace(QUICK, epochs=20), longer))
    assert json.loads((longer / "metrics.json").read_text())["accuracy"]["value"] == 1.0
    assert history[-1].loss < history[0].loss / 2


def test_the_split_is_by_class_and_written_down(made: Path) -> None:
    rows = list(csv.DictReader((made / "split.csv").read_text().splitlines()))
    for colour in COLOURS:
        own = [r["split"] for r in rows if r["label"] == colour]
        assert sorted(own) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    assert all((made / r["file"]).is_file() for r in rows)


def test_the_report_holds_curves_confusion_wrong_pictures_and_calibration(made: Path) -> None:
    report = cs.Report.read(made)
    by = {f.name: f for f in report.findings}
    assert list(by) == ["training", "accuracy", "calibration"]
    assert [f.name for f in by["training"].figures] == ["training-loss.svg", "training-accuracy.svg"]
    assert len(by["training"].tables[0].rows) == 3
    assert any("confusion" in f.name for f in by["accuracy"].figures)
    assert "clearsight train" in by["training"].command
    page = (made / "report.html").read_text()
    assert "is kept" in by["training"].headline
    assert by["training"].headline.partition(":")[0] in page


def test_the_card_says_what_it_was_trained_on_and_what_was_not_looked_at(made: Path) -> None:
    card = (made / "card.md").read_text()
    assert "3 classes" in card
    assert "| red | 6 | 2 | 2 |" in card
    assert f"clearsight audit {made}" in card
    assert "not known" in card


def test_the_recipe_is_written_settled_with_its_reasons(made: Path) -> None:
    recipe, why, asked = read_recipe(made / RECIPE)
    assert recipe == replace(QUICK, strategy="full", grey=False, first_head=False, patience=0)
    assert asked == QUICK
    assert any("random" in w for w in why)
    assert "no first head: the weights are random, so the features say little" in why
    assert set(ABOUT) == set(recipe.as_dict())


def test_the_kept_epoch_is_the_one_with_the_least_loss_on_val(tmp_path: Path) -> None:
    """With so large a rate the second epoch does worse than the first."""
    made = tmp_path / "run"
    first, second = train(photos(tmp_path), replace(QUICK, lr="1", schedule="constant", epochs=2, seed=2), made)
    assert second.val_loss > 2 * first.val_loss
    metrics = json.loads((made / "metrics.json").read_text())
    least = min(metrics["epochs"], key=lambda e: e["val_loss"])
    assert metrics["epoch"] == least["number"]
    model, t = cs.load(made), metrics["temperature"]["temperature"]
    val = open_data(made / "split.csv", split="val")
    logits = loop.scores(model, cs.pixels(model, val)) * t  # what it said before it was divided
    y = torch.tensor([model.labels.index(p.labels[0]) for p in val.pictures])
    assert float(nn.functional.cross_entropy(logits, y)) == pytest.approx(least["val_loss"], rel=1e-4)


# Stops and starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "schedule": "plateau", "augment": "crop, mixup", "dropout": 0.3}])
def test_stopped_between_epochs_it_ends_bit_for_bit_the_same(tmp_path: Path, more: dict) -> None:
    data, recipe = photos(tmp_path), replace(QUICK, **more)
    whole = list(train(data, recipe, tmp_path / "whole"))
    going = train(data, recipe, tmp_path / "cut")
    next(going)
    going.close()
    assert (tmp_path / "cut" / STATE).is_file()
    torch.manual_seed(99)  # what happened in between
    rest = list(train(data, Recipe(), tmp_path / "cut", resume=True))
    assert [e.number for e in rest] == [2, 3]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert [replace(e, seconds=0) for e in rest] == [replace(e, seconds=0) for e in whole[1:]]
    assert not (tmp_path / "cut" / STATE).exists()


def test_the_rate_of_plateau_falls_as_if_it_had_never_been_stopped(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    still = replace(QUICK, arch=TINY.replace("batch", "none"), epochs=7, lr="1e-6", schedule="plateau", warmup=0.0)
    whole = [e.rate for e in train(data, still, tmp_path / "whole")]
    going = train(data, still, tmp_path / "cut")
    cut = [next(going).rate for _ in range(3)]
    going.close()
    cut += [e.rate for e in train(data, None, tmp_path / "cut", resume=True)]
    assert whole == pytest.approx([1e-6] * 5 + [3e-7] * 2, rel=1e-6, abs=0)
    assert cut == whole


def test_stopped_within_an_epoch_it_ends_bit_for_bit_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos(tmp_path)
    list(train(data, QUICK, tmp_path / "whole"))
    monkeypatch.setattr(loop, "KEEP", 0.0)
    steps = iter(range(100))
    honest = losses.normalised

    def fails_at_the_fifth_step(*args):
        if torch.is_grad_enabled() and next(steps) == 4:
            raise KeyboardInterrupt
        return honest(*args)

    monkeypatch.setattr(losses, "normalised", fails_at_the_fifth_step)
    with pytest.raises(KeyboardInterrupt):
        list(train(data, QUICK, tmp_path / "cut"))
    state = torch.load(tmp_path / "cut" / STATE, weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 1)
    monkeypatch.setattr(losses, "normalised", honest)
    list(train(data, None, tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """SIGKILL to a process, wherever it is, again and again until it comes to its end."""
    data = photos(tmp_path)
    recipe = replace(QUICK, epochs=6)
    list(train(data, recipe, tmp_path / "whole"))
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from clearsight.training import loop; from clearsight.training.recipe import Recipe\n"
        "loop.KEEP = 0.0\n"
        f"recipe = Recipe(**{recipe.as_dict()!r})\n"
        f"out = Path({str(tmp_path / 'cut')!r})\n"
        "going = (out / 'state.pt').exists()\n"
        f"list(loop.train({str(data)!r}, None if going else recipe, out, resume=going))\n"
    )
    out = tmp_path / "cut"
    deaths = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], env=OWN)
        before = (out / STATE).stat().st_mtime_ns if (out / STATE).exists() else 0
        while child.poll() is None and not ((out / STATE).exists() and (out / STATE).stat().st_mtime_ns > before):
            time.sleep(0.01)
        if child.poll() is None and deaths < 2:
            time.sleep(0.03 * deaths)
            child.kill()
            deaths += 1
        child.wait()
        if not (out / STATE).exists():
            break
    assert deaths
    assert child.returncode == 0
    assert weights(out) == weights(tmp_path / "whole")


def test_on_the_command_line_a_stop_says_how_to_go_on(tmp_path: Path, monkeypatch, run) -> None:
    data = photos(tmp_path)
    words = ("train", str(data), "-o", str(tmp_path / "run"), "--arch", TINY, "--size", "16", "--epochs", "2")
    honest = loop.evaluate_epoch
    monkeypatch.setattr(loop, "evaluate_epoch", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    stopped = run(*words)
    assert stopped.status == 2
    assert f"-o {tmp_path / 'run'} --resume continues the training" in stopped.err
    monkeypatch.setattr(loop, "evaluate_epoch", honest)
    assert "holds a training run: --resume goes on with it" in run(*words).err
    assert "started with other settings: leave --epochs out" in run(*words[:-1], "5", "--resume").err
    assert "leave --batch out" in run(*words, "--resume", "--batch", "16").err
    assert run(*words, "--resume", "--batch", "32", "--quiet").status == 0
    assert "training run that is complete" in run(*words).err
    assert "training run that is complete" in run(*words, "--resume").err


def test_what_the_range_test_found_goes_on_with_the_words_that_asked_for_it(tmp_path: Path) -> None:
    data, asked = photos(tmp_path), replace(QUICK, lr="find")
    going = train(data, asked, tmp_path / "run")
    next(going)
    going.close()
    assert [e.number for e in train(data, asked, tmp_path / "run", resume=True)] == [2, 3]


def test_stopped_before_anything_was_kept_it_begins_again(tmp_path: Path, made: Path) -> None:
    data = photos(tmp_path)
    going = train(data, QUICK, tmp_path / "run")
    next(going)
    going.close()
    (tmp_path / "run" / STATE).unlink()
    assert len(list(train(data, None, tmp_path / "run", resume=True))) == 3
    assert weights(tmp_path / "run") == weights(made)


@pytest.mark.parametrize(
    ("mode", "asked", "channels"), [("RGB", None, 3), ("L", None, 1), ("L", False, 3), ("RGB", True, 1)]
)
def test_a_network_from_random_weights_takes_colours_where_there_are_some(
    tmp_path: Path, mode: str, asked: bool | None, channels: int
) -> None:
    data = photos(tmp_path, 4)
    for path in data.rglob("*.png"):
        Image.open(path).convert(mode).save(path)
    if mode == "L":  # colours alone told them apart, and made them differ
        for i, path in enumerate(sorted(data.rglob("*.png"))):
            Image.effect_noise((24, 24), 20 + i).save(path)
    list(train(data, replace(QUICK, epochs=1, grey=asked), tmp_path / "run"))
    model = cs.load(tmp_path / "run")
    assert model.preprocess.channels == channels
    assert next(model.net.parameters()).shape[1] == channels


def test_it_does_not_go_on_with_other_pictures_or_another_recipe(tmp_path: Path) -> None:
    data = photos(tmp_path)
    going = train(data, QUICK, tmp_path / "run")
    next(going)
    going.close()
    with pytest.raises(cs.Refused, match="started with other settings: leave --batch, --lr out"):
        next(train(data, replace(QUICK, batch=5, lr="1"), tmp_path / "run", resume=True))
    (data / "red" / "0.png").unlink()
    with pytest.raises(cs.Refused, match="not those that the run"):
        next(train(data, QUICK, tmp_path / "run", resume=True))
    with pytest.raises(cs.Refused, match="no training run to resume"):
        next(train(data, QUICK, tmp_path / "nothing", resume=True))
    with pytest.raises(cs.Refused, match="holds a training run"):
        next(train(data, QUICK, tmp_path / "run"))


def test_a_full_disk_has_a_clear_word_and_leaves_what_was_before(tmp_path: Path) -> None:
    """The system refuses to write larger files, as a full disk does."""
    data = photos(tmp_path)
    code = (
        "import resource, signal, sys, torch; torch.set_num_threads(1)\n"
        "from clearsight.training import loop; from clearsight.training.recipe import Recipe\n"
        "from clearsight.errors import Refused\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"going = loop.train({str(data)!r}, Recipe(**{QUICK.as_dict()!r}), {str(tmp_path / 'run')!r})\n"
        "next(going)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "try: next(going)\n"
        "except Refused as e: print('REFUSED', e)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=OWN)
    assert "REFUSED cannot write" in told.stdout, told.stderr
    assert STATE in told.stdout
    list(train(data, None, tmp_path / "run", resume=True))
    list(train(data, QUICK, tmp_path / "whole"))
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000
    assert signal.getsignal(signal.SIGINT)


def test_a_loss_that_is_not_finite_is_refused_with_what_to_do(tmp_path: Path) -> None:
    wild = replace(QUICK, lr="1e30", clip=0.0, optimiser="sgd", schedule="constant", warmup=0.0)
    with pytest.raises(cs.Refused, match=r"loss is not finite in epoch 1, step \d.*--lr 1e\+29, or --lr find"):
        list(train(photos(tmp_path), wild, tmp_path / "run"))


@pytest.mark.parametrize("perturb", ["", "pgd(eps=0.1, steps=2)"])
def test_scores_that_are_not_finite_behind_the_last_step_are_refused_likewise(tmp_path: Path, perturb: str) -> None:
    """One step an epoch: it is val that shows it, by itself or under attack."""
    wild = replace(QUICK, lr="1e30", clip=0.0, optimiser="sgd", schedule="constant", warmup=0.0, batch=512)
    with pytest.raises(cs.Refused, match=r"not finite.* after step 1 of epoch \d, at a .*: start .*--lr 1e\+29, or"):
        list(train(photos(tmp_path), replace(wild, perturb=perturb), tmp_path / "run"))


def test_an_attack_of_training_that_gives_no_numbers_is_refused_likewise(tmp_path: Path) -> None:
    """As a network does that diverges; here the attack breaks down by itself, on batches of six."""
    (tmp_path / "mine.py").write_text(
        "from clearsight import method\n\n\n"
        "@method(paper='arXiv:1706.06083')\n"
        "def fragile(model, x, goal, *, eps: float):\n"
        '    """Nothing."""\n'
        "    return x * float('nan') if len(x) == 6 else x\n"
    )
    against = replace(QUICK, perturb=f"{tmp_path / 'mine.py'}:fragile(eps=0.1)")
    with pytest.raises(cs.Refused, match=r"fragile gave values .* after step 0 of epoch 1, .*start in a new folder"):
        list(train(photos(tmp_path), against, tmp_path / "run"))


def test_a_learning_rate_beyond_what_optimisers_can_count_is_refused() -> None:
    with pytest.raises(cs.Refused, match="at most 1e30"):
        Recipe(lr="1e31")


# Data that is not as it should be -------------------------------------------------------------------------------------


def test_broken_pictures_and_a_class_of_one_are_named(tmp_path: Path) -> None:
    data = photos(tmp_path)
    (data / "red" / "broken.png").write_bytes(b"\x89PNG not really")
    (data / "rare").mkdir()
    square("green", 5)[0].rotate(90).resize((40, 40)).save(data / "rare" / "only.png")
    said: list[str] = []
    list(train(data, QUICK, tmp_path / "run", say=said.append))
    assert any("rare" in s and "train alone" in s for s in said)
    assert sum("1 broken file is left out: red/broken.png" in s for s in said) == 1
    for page in ("card.md", "report.html"):
        assert "red/broken.png" in (tmp_path / "run" / page).read_text(), page
    assert cs.load(tmp_path / "run").labels == ("blue", "green", "rare", "red")


def test_near_duplicates_never_stand_on_both_sides(tmp_path: Path) -> None:
    data = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for colour in ("red", "green"):
        for i in range(9):
            (data / colour).mkdir(parents=True, exist_ok=True)
            a = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
            image = Image.fromarray(a).resize((96, 96), Image.Resampling.BICUBIC)
            image.save(data / colour / f"{i}.png")
            image.save(data / colour / f"{i}-again.jpg", quality=60)
    list(train(data, QUICK, tmp_path / "run"))
    rows = csv.DictReader((tmp_path / "run" / "split.csv").read_text().splitlines())
    parts = {r["file"].split("photos/")[1]: r["split"] for r in rows}
    for colour in ("red", "green"):
        for i in range(9):
            assert parts[f"{colour}/{i}.png"] == parts[f"{colour}/{i}-again.jpg"]
    assert set(parts.values()) == {"train", "val", "test"}


def test_splits_of_the_data_are_kept(tmp_path: Path) -> None:
    data = photos(tmp_path)
    for part, numbers in (("train", range(7)), ("test", range(7, 10))):
        for colour in COLOURS:
            (data / part / colour).mkdir(parents=True)
            for i in numbers:
                (data / colour / f"{i}.png").rename(data / part / colour / f"{i}.png")
    for colour in COLOURS:
        (data / colour).rmdir()
    (data / "more").mkdir()
    square("red", 77)[0].save(data / "more" / "extra.png")
    said: list[str] = []
    list(train(data, QUICK, tmp_path / "run", say=said.append))
    rows = list(csv.DictReader((tmp_path / "run" / "split.csv").read_text().splitlines()))
    assert all(("/test/" in r["file"]) == (r["split"] == "test") for r in rows)
    assert {r["split"] for r in rows} == {"train", "val", "test"}
    assert any("no val among the splits" in s for s in said)
    assert any("1 pictures in no split are left out" in s for s in said)
    assert cs.load(tmp_path / "run").labels == tuple(sorted(COLOURS))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "photos/red"), "two or more"),
        (("train", "photos", "--arch", "resnet18"), "a network is named"),
        (("train", "photos", "--arch", "clearsight:lenet6"), "lenet5"),
        (("train", "photos", "--lr", "-1"), "above 0"),
        (("train", "photos", "--optimiser", "adamwww"), "adamw"),
        (("train", "photos", "--strategy", "linar"), "linear"),
        (("train", "photos", "--shares", "0.5,0.5"), "three numbers"),
        (("train", "photos", "--augment", "flop"), "flip"),
        (("train", "photos", "--augment", "crop(scale=5)"), "crop: scale must be from 0.001 to 1, not 5"),
        (("train", "photos", "--arch", "timm:resnet1888"), "resnet18"),
        (("train", "photos", "--device", "gpu"), "cpu"),
        (("train", "photos", "--weights", "no.pth", "--arch", "timm:resnet18"), "no.pth"),
        (("train", "photos", "--folds", "50", "-o", "fifty"), "fold"),
        (("train", "photos", "--weights", "x.pth", "--arch", "demo"), "brings its own weights"),
        (("train", "photos", "--resume"), "needs the folder of a training run"),
        (("train", "nowhere"), "no pictures at nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    words, told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:
    photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = run(*words)
    assert ran.status == 2
    assert told in ran.err
    assert not [*tmp_path.glob("clearsight-runs/*"), *tmp_path.glob("fifty")]
    if {"--augment", "--arch", "--device", "--optimiser"} & set(words):
        assert "reading" not in ran.err


def test_a_folder_that_was_made_before_anything_was_refused_is_removed(tmp_path: Path) -> None:
    data = photos(tmp_path, 4) / "red"
    with pytest.raises(cs.Refused, match="two or more"):
        next(train(data, QUICK, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "refused"), [("0 0.37 0.74 1.11", True), ("0 0 1 1", False), ("0.5 0.5 1 1", False), ("0 1 2 2", False)]
)
def test_measurements_are_no_classes(tmp_path: Path, labels: str, refused: bool) -> None:
    """Angles of steering, hardly any of them twice: no classes; whole numbers may be."""
    folder = photos(tmp_path, 4) / "red"
    rows = [f"{i}.png,{label}" for i, label in enumerate(labels.split())]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    going = train(folder, replace(QUICK, shares="0.5,0.5,0"), tmp_path / "run")
    if refused:
        with pytest.raises(cs.Refused, match=r"4 numbers such as .* classes, not values"):
            next(going)
    else:
        assert next(going).of == 3


def test_folds_judge_every_picture_once(tmp_path: Path, run) -> None:
    data = photos(tmp_path, 6)
    words = ("train", str(data), "--folds", "3", "-o", str(tmp_path / "folds"), "--arch", TINY, "--size", "16")
    words += ("--epochs", "2", "--batch", "4", "--augment", "none", "--lr", "0.02")
    told = json.loads(run(*words, "--json").out)
    judged = []
    for i in (1, 2, 3):
        rows = list(csv.DictReader((tmp_path / "folds" / f"fold-{i}" / "split.csv").read_text().splitlines()))
        assert {r["split"] for r in rows} == {"train", "val", "test"}
        judged += [Path(r["file"]).parts[-2:] for r in rows if r["split"] == "test"]
    assert len(judged) == len(set(judged)) == 18 == told["accuracy"]["n"]
    right = sum(f["accuracy"] * f["n"] for f in told["folds"])
    assert told["accuracy"]["value"] == pytest.approx(right / 18)
    (tmp_path / "folds" / "fold-2" / "metrics.json").rename(tmp_path / "gone")  # as if stopped behind the first
    shutil.rmtree(tmp_path / "folds" / "fold-2")
    before = (tmp_path / "folds" / "fold-1" / "metrics.json").stat().st_mtime_ns
    again = json.loads(run(*words, "--json").out)
    assert again["accuracy"] == told["accuracy"]
    assert (tmp_path / "folds" / "fold-1" / "metrics.json").stat().st_mtime_ns == before
    assert "over all" in run(*words).out
    called = json.loads((tmp_path / "folds" / "fold-2" / "recipe.json").read_text())["command"]
    assert called.endswith("--folds 3")
    assert f"-o {tmp_path / 'folds'} " in called
    assert "fold 2 of 3" in (tmp_path / "folds" / "fold-2" / "card.md").read_text()
    assert "needs one" in run("train", str(data), "--folds", "7").err


# Choices --------------------------------------------------------------------------------------------------------------


def test_workers_do_not_show(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    recipe = replace(QUICK, epochs=1, augment="crop, flip, mixup")
    for n in (0, 2):
        list(train(data, recipe, tmp_path / f"run{n}", workers=n))
    assert weights(tmp_path / "run0") == weights(tmp_path / "run2")


@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [False, True])
def test_two_processes_train_what_one_would(tmp_path: Path, pretrained: bool) -> None:
    """Each takes every second picture of a batch; without BatchNorm their mean gradient is that of the batch."""
    data = photos(tmp_path)
    plain = replace(QUICK, arch=TINY.replace("batch", "none"), batch=6, augment="none", optimiser="sgd", clip=0.0)
    if pretrained:  # there is a first model then, which both begin from
        list(train(data, plain, tmp_path / "before"))
        plain = replace(plain, weights=str(tmp_path / "before" / "model.safetensors"), strategy="full")
    list(train(data, plain, tmp_path / "one"))
    words = ["train", str(data), "-o", str(tmp_path / "two"), "--device", "cpu", "--quiet"]
    for name, value in plain.as_dict().items():
        if value != getattr(Recipe(), name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "clearsight"]
    ran = subprocess.run([*launch, *words], capture_output=True, text=True, check=False, env=OWN, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines() == [str(tmp_path / "two")]
    one, two = (cs.load(tmp_path / name).net.state_dict() for name in ("one", "two"))
    for k, v in one.items():
        torch.testing.assert_close(two[k], v, rtol=1e-3, atol=1e-4)
    epochs = [json.loads((tmp_path / n / "metrics.json").read_text())["epochs"] for n in ("one", "two")]
    assert [e["number"] for e in epochs[1]] == [e["number"] for e in epochs[0]] == [0, 1, 2, 3][not pretrained :]
    assert epochs[1][-1]["loss"] == pytest.approx(epochs[0][-1]["loss"], rel=1e-3)


@pytest.mark.parametrize("capable", [True, False])
def test_a_processor_without_bfloat16_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capable: bool
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: capable)
    said: list[str] = []
    epochs = train(photos(tmp_path, 6), replace(QUICK, precision="bf16"), tmp_path / "run", say=said.append)
    next(epochs)
    epochs.close()
    assert any("does not compute in bfloat16" in line for line in said) is not capable


@pytest.mark.slow
def test_bf16_is_another_computation_of_the_same(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    losses = [
        [e.loss for e in train(data, replace(QUICK, precision=p, augment="none"), tmp_path / p)]
        for p in ("fp32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
    assert cs.load(tmp_path / "bf16").dtype == torch.float32


def test_another_seed_is_another_network_and_nobody_elses_numbers_change(tmp_path: Path) -> None:
    data = photos(tmp_path, 6)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    for seed in (0, 1):
        list(train(data, replace(QUICK, epochs=1, seed=seed), tmp_path / f"run{seed}"))
    assert weights(tmp_path / "run0") != weights(tmp_path / "run1")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("strategy", "progress", "open_"),
    [
        ("linear", 0.0, ["classifier"]),
        ("last-blocks", 0.0, None),
        ("full", 0.0, ["conv_stem", "classifier", "blocks.0.0"]),
        ("gradual", 0.0, ["classifier"]),
        ("gradual", 0.99, ["conv_stem", "classifier"]),
    ],
)
def test_strategies_train_what_they_say(strategy, progress, open_) -> None:
    start = build_for_training("demo", None, 4)
    names = trained(start.net, start.head, strategy, progress)
    assert start.head == {"classifier.weight", "classifier.bias"}
    unfreeze(start.net, names, pretrained=False)
    grads = {n.rpartition(".")[0] for n, p in start.net.named_parameters() if p.requires_grad}
    if strategy == "last-blocks":
        assert "blocks.6.0.conv_pw" in grads
        assert "blocks.3.0.conv_pw" not in grads
    else:
        assert all(any(g.startswith(o) for g in grads) for o in open_)
    frozen = strategy == "linear" or (strategy == "gradual" and progress == 0)
    assert ("conv_stem" in grads) == (strategy == "full" or progress > 0.9)
    assert start.net.bn1.training != (frozen or strategy == "last-blocks")
    unfreeze(start.net, names, pretrained=True)
    assert not any(m.training for m in start.net.modules() if isinstance(m, nn.BatchNorm2d))
    assert start.net.training


def test_pretrained_weights_are_the_embedded_ones_but_for_the_head() -> None:
    start, demo = build_for_training("demo", None, 4), cs.load("demo")
    own, theirs = start.net.state_dict(), demo.net.state_dict()
    assert all(torch.equal(own[k], theirs[k]) for k in own.keys() - start.head)
    assert own["classifier.weight"].shape == (4, 1280)
    assert float(own["classifier.weight"].std()) == pytest.approx(0.01, rel=0.1)
    assert float(own["classifier.bias"].abs().max()) == 0
    again, other = build_for_training("demo", None, 4), build_for_training("demo", None, 4, seed=1)
    assert torch.equal(again.net.classifier.weight, own["classifier.weight"])
    assert not torch.equal(other.net.classifier.weight, own["classifier.weight"])
    with pytest.raises(cs.Refused, match="do not fit the network"):
        adopt(start.net, {}, start.head, "nothing")


def test_blocks_go_from_the_input_to_the_output() -> None:
    names = [n for n, _ in blocks(build_for_training("timm:resnet18", "none", 3).net)]
    assert names[0] == "conv1"
    assert names[-1] == "fc"
    assert names.index("layer1.0") < names.index("layer4.1")
    wrapped = nn.Sequential(nn.ModuleDict({"inner": nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))}))
    assert [n for n, _ in blocks(wrapped)] == ["0.inner.0", "0.inner.2"]
    assert [n for n, _ in blocks(Outer())] == ["inner.first", "inner.last"]


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)


class Outer(nn.Module):
    """A network whose one child is the network."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()


def test_groups_have_their_rates_and_only_weights_decay() -> None:
    start = build_for_training("timm:resnet18", "none", 3)
    found = groups(start.net, start.head, lr=0.1, body=0.2, decay=0.3, pretrained=True)
    of = {id(p): g for g in found for p in g["params"]}
    assert of[id(start.net.fc.weight)]["lr"] == 0.1
    assert of[id(start.net.conv1.weight)]["lr"] == pytest.approx(0.02)
    assert of[id(start.net.conv1.weight)]["weight_decay"] == 0.3
    assert of[id(start.net.bn1.weight)]["weight_decay"] == 0
    assert len(of) == len(list(start.net.parameters()))
    assert not any(
        p is start.net.conv1.weight
        for g in groups(start.net, start.head, lr=0.1, body=0.0, decay=0.0, pretrained=True)
        for p in g["params"]
    )


def test_early_stopping_stops(tmp_path: Path) -> None:
    """Where nothing is learned, the first epoch stays the best."""
    still = replace(QUICK, arch=TINY.replace("batch", "none"), epochs=30, patience=2, lr="1e-30", decay=0.0)
    assert [e.best for e in train(photos(tmp_path, 6), still, tmp_path / "run")] == [True, False, False]


def test_settled_says_why() -> None:
    from clearsight.data.duplicates import Seen

    small, large = Seen((28, 28), "L", True, (), ""), Seen((640, 480), "RGB", False, (), "")
    recipe, why = resolve_auto(Recipe(), [small] * 50, {"a": 25, "b": 25})
    assert recipe.arch.startswith("clearsight:plain-cnn")
    assert (recipe.size, recipe.grey, recipe.strategy) == (28, True, "full")
    assert (recipe.epochs, recipe.lr) == (20, "0.003")
    coloured = Seen((28, 28), "RGB", False, (), "")
    assert resolve_auto(Recipe(), [small, coloured], {"a": 25, "b": 25})[0].grey is False
    assert resolve_auto(Recipe(grey=False), [small] * 50, {"a": 25, "b": 25})[0].grey is False
    assert resolve_auto(Recipe(), [small] * 9 + [large] * 20, {"a": 25, "b": 25})[0].grey is False
    recipe, why = resolve_auto(Recipe(), [large] * 50, {"a": 9, "b": 9})
    assert (recipe.arch, recipe.strategy, recipe.lr) == ("demo", "linear", "0.003")
    recipe, _ = resolve_auto(Recipe(), [large] * 50, {"a": 10, "b": 10})
    assert (recipe.strategy, recipe.lr, recipe.body) == ("full", "0.001", 0.1)
    assert resolve_auto(Recipe(), [large], {"a": 5000, "b": 5000})[0].epochs == 5
    assert all(any(w.startswith(f) for w in why) for f in ("arch", "strategy", "epochs", "augment", "lr"))
    asked = Recipe(arch="timm:resnet18", strategy="full", epochs=2, augment="none", lr="0.1")
    assert resolve_auto(asked, [large], {"a": 5, "b": 5}) == (replace(asked, grey=False), [])
