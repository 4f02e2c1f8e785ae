"""The first model of a training run: a head on the features of the frozen body, before anything else is trained."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import open_data
from clearsight.models.model_folder import RECIPE
from clearsight.training import first_head
from clearsight.training.checkpoints import STATE
from clearsight.training.cross_validation import cross_validate
from clearsight.training.fine_tuning import build_for_training
from clearsight.training.first_head import PENALTIES, fit_head, linear_head, penalised
from clearsight.training.history import Epoch, since_best
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe, as_begun, read_recipe
from clearsight.training.repeats import repeat
from clearsight.training.temperature_scaling import nll
from quickruns import QUICK, photos, weights

EVERY = ("config.json", "model.safetensors", "report.html", "report.json", "card.md", "metrics.json", "split.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Recipe:
    """A recipe that begins from weights which were trained for one epoch, so that there is something to learn."""
    list(train(data, replace(QUICK, epochs=1, lr="0.002"), data.parent / "before"))
    return replace(QUICK, weights=str(data.parent / "before" / "model.safetensors"), strategy="full")


@pytest.fixture(scope="module")
def whole(data: Path, pretrained: Recipe) -> tuple[Path, list[Epoch]]:
    """A run that was never stopped, and its epochs."""
    return data.parent / "whole", list(train(data, pretrained, data.parent / "whole"))


def numbers(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


# What is there after the first step -----------------------------------------------------------------------------------


def test_the_first_model_is_whole_while_training_goes_on(tmp_path: Path, data: Path, pretrained, whole) -> None:
    run = tmp_path / "run"
    going = train(data, pretrained, run)
    epoch = next(going)
    assert (epoch.number, epoch.best, epoch.trained) == (0, True, 8 * 3 + 3)
    assert epoch.line().startswith("first model, the head alone: loss ")
    assert all((run / name).is_file() for name in (*EVERY, STATE))
    metrics, model = numbers(run), cs.load(run)
    assert (metrics["finished"], metrics["epoch"], metrics["pictures"]["test"]) == (False, 0, 6)
    val = open_data(run / "split.csv", split="val")
    z = model(cs.pixels(model, val)).detach() * metrics["temperature"]["temperature"]
    y = torch.tensor([model.labels.index(p.labels[0]) for p in val.pictures])
    assert float(cross_entropy(z, y)) == pytest.approx(epoch.val_loss, rel=1e-4)
    assert int((z.argmax(1) == y).sum()) == epoch.val_right == round(metrics["val"]["accuracy"] * 6)
    audited = cs.audit(model, open_data(run / "split.csv", split="test"), only="accuracy")
    assert audited.findings[0].value == metrics["accuracy"]["value"]
    assert "training is not finished" in (run / "card.md").read_text()
    assert "training is not finished" in cs.Report.read(run).findings[0].headline
    with pytest.raises(cs.Refused, match="--resume goes on with it"):
        next(train(data, pretrained, run))
    list(going)
    assert weights(run) == weights(whole[0])
    assert numbers(run)["finished"]
    assert "not finished" not in (run / "card.md").read_text() + cs.Report.read(run).findings[0].headline
    assert [e["number"] for e in numbers(run)["epochs"]] == [0, 1, 2, 3]
    assert not (run / STATE).exists()


def test_the_command_line_says_it_in_one_line(tmp_path: Path, data: Path, pretrained: Recipe, run) -> None:
    words = ["--arch", pretrained.arch, "--weights", str(pretrained.weights), "--size", "16", "--epochs", "1"]
    out = str(tmp_path / "run")
    said = run("train", str(data), *words, "-o", out)
    (line,) = [s for s in (said.out + said.err).splitlines() if s.startswith("first model")]
    assert line.endswith(f"saved in {out}")
    assert "% of 5 right" in line or "% of 6 right" in line
    assert not read_recipe(tmp_path / "run" / RECIPE)[0].random_labels
    said = run("train", str(data), *words, "--no-first-head", "-o", f"{out}2")
    assert "first model" not in said.out + said.err
    assert read_recipe(tmp_path / "run2" / RECIPE)[0].first_head is False
    assert "--no-first-head" in json.loads((tmp_path / "run2" / RECIPE).read_text())["command"]


def test_each_picture_passes_the_body_once_for_the_head(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    passed: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            passed.extend(x.clone() for x in args[0])

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    going = train(data, pretrained, tmp_path / "run", save_first=False)
    try:
        next(going)
    finally:
        handle.remove()
    probes = sum(bool((x == x.flatten()[0]).all()) for x in passed)  # one blank picture, which finds the last layer
    times = Counter(x.numpy().tobytes() for x in passed if not bool((x == x.flatten()[0]).all()))
    assert set(times.values()) == {1}
    assert len(times) == 18 + 6  # of train and val
    assert probes <= 2
    assert not (tmp_path / "run" / "metrics.json").exists()  # and test was not looked at
    assert read_recipe(tmp_path / "run" / RECIPE)[0].first_head


# The fit --------------------------------------------------------------------------------------------------------------


def drawn(n: int, d: int = 7, k: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and one-hot classes that overlap."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, k, (n,), generator=g)
    centres = torch.randn(k, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = centres[y] + torch.randn(n, d, generator=g, dtype=torch.float64)
    return 5 * x + 3, nn.functional.one_hot(y, k).double()


def test_the_fit_is_that_of_a_logistic_regression() -> None:
    """scikit-learn minimises sum of losses + |w|^2 / (2 C), so C = 1 / (n penalty)."""
    from sklearn.linear_model import LogisticRegression

    x, y = drawn(60)
    x = (x - x.mean(0)) / x.std()
    for penalty in (0.1, 0.003):
        w, b = penalised(x, y, torch.ones(3).double(), 0.0, penalty, x.new_zeros(3, 7), x.new_zeros(3))
        peer = LogisticRegression(C=1 / (60 * penalty), tol=1e-10, max_iter=10000).fit(x, y.argmax(1))
        theirs = torch.from_numpy(peer.predict_proba(x))
        assert torch.allclose(linear(x, w, b).softmax(1), theirs, atol=1e-5)


def test_the_penalty_is_the_best_on_val_and_the_weights_are_those_of_raw_features() -> None:
    (x, y), (val_x, val_y) = drawn(40), drawn(30, seed=1)
    weights_ = torch.tensor([1.0, 2.0, 0.5]).double()
    fitted = fit_head(x, y, val_x, val_y, weights_, 0.1)
    z, val_z = ((v - x.mean(0)) / (x - x.mean(0)).square().sum(1).mean().sqrt() for v in (x, val_x))
    each = {}
    for penalty in PENALTIES:
        w, b = penalised(z, y, weights_, 0.1, penalty, x.new_zeros(3, 7), x.new_zeros(3))
        each[penalty] = nll(linear(val_z, w, b), val_y)
    assert PENALTIES[0] > fitted.penalty > PENALTIES[-1]
    assert fitted.penalty == min(each, key=lambda p: each[p])
    assert nll(fitted.val_logits, val_y) == pytest.approx(min(each.values()), rel=1e-4)
    logits = linear(val_x, fitted.weight, fitted.bias)
    assert torch.allclose(logits.float(), fitted.val_logits, atol=1e-4)
    loss = cross_entropy(linear(x, fitted.weight, fitted.bias), y, weights_, label_smoothing=0.1)
    assert fitted.loss == pytest.approx(float(loss), rel=1e-5)


def test_features_that_are_all_the_same_give_a_head_without_weights() -> None:
    x, y = torch.ones(9, 4), nn.functional.one_hot(torch.arange(9) % 3, 3).float()
    fitted = fit_head(x, y, x, y, torch.ones(3), 0.0)
    assert fitted.loss == pytest.approx(float(torch.tensor(3.0).log()))
    assert float(fitted.weight.abs().max()) == 0


# Stops and starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [{}, {"ema": 0.9, "schedule": "plateau", "augment": "crop, mixup", "class_weights": True}]
)
@pytest.mark.parametrize("kept", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_stopped_behind_the_first_model_it_ends_bit_for_bit_the_same(
    tmp_path: Path, data: Path, pretrained: Recipe, more: dict, kept: bool
) -> None:
    recipe = replace(pretrained, epochs=2, **more)
    history = list(train(data, recipe, tmp_path / "whole"))
    going = train(data, recipe, tmp_path / "cut")
    next(going)
    going.close()
    if not kept:  # as if it was killed before the state was written
        (tmp_path / "cut" / STATE).unlink()
        (tmp_path / "cut" / "metrics.json").unlink()
    rest = list(train(data, None, tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert [replace(e, seconds=0) for e in rest] == [replace(e, seconds=0) for e in history[kept:]]


def test_saving_the_first_model_changes_nothing_behind_it(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    """Its head is divided by a temperature, and the average over steps must go on from the undivided one."""
    recipe = replace(pretrained, epochs=2, ema=0.9)
    saved, not_saved = (list(train(data, recipe, tmp_path / str(s), save_first=s)) for s in (True, False))
    assert [replace(e, seconds=0) for e in saved] == [replace(e, seconds=0) for e in not_saved]
    assert weights(tmp_path / "True") == weights(tmp_path / "False")


def test_a_run_of_an_earlier_version_goes_on_as_it_began(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    """Its record knows no first head, and its patience was a number."""
    before = replace(pretrained, first_head=False, patience=0)
    list(train(data, before, tmp_path / "whole"))
    going = train(data, before, tmp_path / "run")
    assert next(going).number == 1
    going.close()
    earlier(tmp_path / "run")
    recipe, _, asked = read_recipe(tmp_path / "run" / RECIPE)
    assert (recipe.first_head, asked.first_head, recipe.patience, asked.patience) == (False, False, 0, 0)
    assert [e.number for e in train(data, Recipe(), tmp_path / "run", resume=True)] == [2, 3]
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def earlier(run: Path) -> None:
    """Make a record what earlier versions wrote."""
    record = json.loads((run / RECIPE).read_text())
    for part in ("recipe", "asked"):
        del record[part]["first_head"]
        record[part]["patience"] = 0
    (run / RECIPE).write_text(json.dumps(record))


def test_runs_beside_those_of_an_earlier_version_are_trained_as_those(tmp_path: Path, data: Path, pretrained) -> None:
    quick, pictures = replace(pretrained, epochs=1, shares="0.5,0.25,0.25"), open_data(data)
    then = replace(quick, first_head=False, patience=0)
    next(repeat(pictures, then, 2, tmp_path / "r"))
    next(cross_validate(pictures, then, 2, tmp_path / "f"))
    for number in (1, 2):
        for kind, more in (("r/run", repeat), ("f/fold", cross_validate)):
            if number == 1:
                earlier(tmp_path / f"{kind}-1")
            list(more(pictures, quick, 2, (tmp_path / kind).parent))
            assert read_recipe(tmp_path / f"{kind}-{number}" / RECIPE)[0].first_head is False
    assert as_begun(quick, tmp_path / "nothing") == quick
    assert as_begun(replace(quick, patience=3), tmp_path / "r" / "run-1" / RECIPE) == replace(then, patience=3)
    list(train(data, quick, tmp_path / "now"))
    assert as_begun(quick, tmp_path / "now" / RECIPE) == quick


# Which one is kept ----------------------------------------------------------------------------------------------------


def test_the_first_model_is_kept_where_no_epoch_is_better(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    wild = replace(pretrained, lr="300", schedule="constant", warmup=0.0, optimiser="sgd", epochs=9, patience=2)
    history = list(train(data, wild, tmp_path / "run"))
    assert [e.number for e in history] == [0, 1, 2]
    assert [e.best for e in history] == [True, False, False]
    metrics = numbers(tmp_path / "run")
    assert (metrics["epoch"], metrics["val"]["loss"]) == (0, history[0].val_loss)
    report = cs.Report.read(tmp_path / "run")
    assert "first model, the head alone, is kept: none of 2 epochs" in report.findings[0].headline
    assert "first model, the head alone, is kept" in (tmp_path / "run" / "card.md").read_text()
    model, val = cs.load(tmp_path / "run"), open_data(tmp_path / "run" / "split.csv", split="val")
    z = model(cs.pixels(model, val)).detach() * metrics["temperature"]["temperature"]
    y = torch.tensor([model.labels.index(p.labels[0]) for p in val.pictures])
    assert float(cross_entropy(z, y)) == pytest.approx(history[0].val_loss, rel=1e-4)
    start = build_for_training(wild.arch, wild.weights, 3, size=16).net.state_dict()
    assert all(torch.equal(v, start[k]) for k, v in model.net.state_dict().items() if not k.startswith("scores"))


def test_the_report_of_the_first_model_leaves_no_figure_behind(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    going = train(data, replace(pretrained, epochs=1), tmp_path / "run")
    next(going)
    gone = cs.Report.read(tmp_path / "run")
    other = replace(next(gone.figures()), name="wrong-of-the-first.svg")
    first_ = replace(gone.findings[1], figures=(*gone.findings[1].figures, other))
    replace(gone, findings=(gone.findings[0], first_, *gone.findings[2:])).save(tmp_path / "run")
    list(going)
    figures = {f.name for f in cs.Report.read(tmp_path / "run").figures()}
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == figures
    assert "training-loss.svg" in figures


def test_epochs_behind_the_best_are_counted_from_the_first_model() -> None:
    def of(*best: bool) -> list[Epoch]:
        return [Epoch(i, 9, 0, 0, 0, 1, 0, 0, 0, b) for i, b in enumerate(best)]

    assert [since_best(of(*b)) for b in ((), (True,), (True, False, False), (True, False, True, False))] == [0, 0, 2, 1]


# Where there is none --------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    """A head that is a convolution, in front of the mean; or a linear layer that runs twice, once for nothing."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.head, self.other, self.twice = nn.Conv2d(3, 2, 1), nn.Linear(3, 2), twice

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        return self.other(means) + 0 * self.other(2 * means) if self.twice else self.head(x).mean((2, 3))


class Scaled(nn.Module):
    """A linear layer that is not the end."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.head(x.mean((2, 3)))


class Auxiliary(nn.Module):
    """Two outputs in training, one else."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.aux = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        means = x.mean((2, 3))
        return (self.head(means), self.aux(means)) if self.training else self.head(means)


def test_only_one_linear_layer_at_the_very_end_is_a_head_to_fit() -> None:
    def found(net: nn.Module, *names: str) -> str:
        model = Classifier(net, Preprocess((4, 4), (0.5,) * 3, (0.5,) * 3), ("a", "b"))
        layer = linear_head(model, frozenset(f"{n}.{p}" for n in names for p in ("weight", "bias")))
        assert not any(m._forward_hooks for m in net.modules())
        return layer[0] if layer else ""

    assert found(Auxiliary().train(), "head", "aux") == "head"
    assert found(Convolution(False), "head") == found(Convolution(True), "other") == found(Scaled(), "head") == ""
    no_bias = Auxiliary()
    no_bias.head = nn.Linear(3, 2, bias=False)
    assert found(no_bias, "head") == ""


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"random_labels": True}, "the labels are random"),
        ({"weights": "none"}, "the weights are random"),
        ({"bytes": 4 * 24 * 8 - 1}, "the features of 24 pictures take more than"),
        ({"bytes": 4 * 24 * 8}, ""),
    ],
)
def test_where_it_makes_no_sense_training_does_without_and_says_why(
    tmp_path: Path, data: Path, pretrained: Recipe, more: dict, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_head, "FEATURE_BYTES", more.pop("bytes", 1000000))
    said: list[str] = []
    going = train(data, replace(pretrained, epochs=1, **more), tmp_path / "run", say=said.append)
    first = next(going).number
    recipe, reasons, asked = read_recipe(tmp_path / "run" / RECIPE)
    assert (first, recipe.first_head, recipe.patience) == ((1, False, 0) if why else (0, True, 5))
    assert asked.first_head
    assert any(f"no first head: {why}" in s for s in said) == bool(why)
    assert [s for s in reasons if "first head" in s] == [s for s in said if "first head" in s]


def test_with_a_range_test_the_rate_is_that_of_the_fitted_head(tmp_path: Path, data: Path, pretrained: Recipe) -> None:
    runs = [tmp_path / name for name in ("run", "without", "cut")]
    recipe = replace(pretrained, epochs=1, lr="find")
    steps: list[tuple[str, bool]] = []
    going = train(data, recipe, runs[0], progress=lambda what, done, total: steps.append((what, done == total)))
    assert [e.number for e in going] == [0, 1]
    assert steps.count(("features for the first model", True)) == 2  # train and val pass once, for both
    list(train(data, replace(recipe, first_head=False), runs[1]))
    curves = [(r / "figures" / "rates.svg").read_text() for r in runs[:2]]
    assert curves[0] != curves[1]
    going = train(data, recipe, runs[2])
    next(going)
    going.close()
    (runs[2] / STATE).unlink()
    (runs[2] / "metrics.json").unlink()
    list(train(data, recipe, runs[2], resume=True))
    assert weights(runs[2]) == weights(runs[0])


def test_the_embedded_network_has_a_first_model(tmp_path: Path) -> None:
    """By default, on photographs: noise here, as large as a photograph is."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 180)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(4):
            noise = draw.integers(0, 70, (9, 9, 3)) + level
            Image.fromarray(noise.astype(np.uint8)).resize((120, 120), Image.Resampling.BICUBIC).save(
                tmp_path / "data" / label / f"{i}.png"
            )
    said: list[str] = []
    recipe = Recipe(shares="0.5,0.25,0.25")
    epoch = next(train(tmp_path / "data", recipe, tmp_path / "run", say=said.append))
    assert (epoch.number, epoch.val_right, epoch.trained) == (0, 2, 1280 * 2 + 2)
    assert numbers(tmp_path / "run")["accuracy"]["value"] == 1.0
    assert any(s.startswith("patience 5: ") for s in said)
