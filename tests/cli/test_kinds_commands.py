"""Every verb given a detector or a segmenter: it takes it, or says in one line that it does not, and exits with 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.core import TyperGroup as Group

import clearsight as cs
from clearsight.cli.app import app

FACTORY = """
from clearsight.testing import tiny_detector, tiny_segmenter

def detector():
    return tiny_detector()

def segmenter():
    return tiny_segmenter()
"""
MODELS = ("./mine.py:detector", "./mine.py:segmenter")
REFUSES = {  # the words after clearsight; MODEL stands for one
    "features": ("features", "MODEL", "photos"),
    "serve": ("serve", "MODEL", "--port", "0"),
    "steal": ("steal", "MODEL", "--pool", "photos", "--budget", "10"),
    "data check": ("data", "check", "photos", "--model", "MODEL"),
}
TAKES = {"inspect": ("inspect", "MODEL"), "explain": ("explain", "MODEL"), "attack": ("attack", "MODEL")}
EXPORTS = {"export"}  # see tests/parts/test_export_places.py
BY_TRUTH = {"audit", "compare"}  # which need boxes or class maps, see below
WITHOUT_MODEL = {"methods", "demo", "train", "tune", "data augment", "data collect"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(FACTORY)
    for label in ("red", "blue"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (32, 32), (40 * i, 20, 90)).save(tmp_path / "photos" / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verbs() -> set[str]:
    root = typer.main.get_command(app)
    assert isinstance(root, Group)
    names = set()
    for name, command in root.commands.items():
        names |= {f"{name} {inner}" for inner in command.commands} if isinstance(command, Group) else {name}
    return names


def test_no_verb_is_forgotten() -> None:
    assert verbs() == {*REFUSES, *TAKES, *EXPORTS, *BY_TRUTH, *WITHOUT_MODEL}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("verb", REFUSES)
def test_a_verb_that_takes_a_classifier_says_so_in_one_line(
    verb: str, model: str, bench: Path, run: Callable[..., Any]
) -> None:
    before = {p for p in bench.rglob("*") if "__pycache__" not in str(p)}
    got = run(*[model if word == "MODEL" else word for word in REFUSES[verb]])
    assert got.status == 2, got
    kind = model.partition(":")[2]
    assert f"{verb} takes a classifier, and {model} is a {kind}" in got.err.replace("\n", " ")
    assert len(got.err.strip().splitlines()) == 1, got.err
    assert got.out == ""
    assert {p for p in bench.rglob("*") if "__pycache__" not in str(p)} == before


def test_train_and_tune_and_a_thief_take_networks_that_classify(bench: Path, run: Callable[..., Any]) -> None:
    for words, says in (
        (("train", "photos", "--arch", "clearsight:fcos"), "networks that classify, and clearsight:fcos is a detector"),
        (("train", "photos", "--arch", "torchvision:lraspp_mobilenet_v3_large"), "is a segmenter"),
        (("tune", "photos", "--arch", "clearsight:unet", "--trials", "1"), "clearsight:unet is a segmenter"),
    ):
        got = run(*words, "-o", "out")
        assert got.status == 2, got
        assert says in got.err
        assert len(got.err.strip().splitlines()) == 1, got.err


@pytest.mark.parametrize("model", MODELS)
def test_inspect_takes_every_kind(model: str, bench: Path, run: Callable[..., Any]) -> None:
    got = run("inspect", model, "--json")
    assert got.status == 0, got
    told = json.loads(got.out)
    assert told["kind"] == model.partition(":")[2]
    assert told["problems"] == []
    assert len(told["layers"][0]["rows"]) >= 1
    got = run("inspect", model, "photos")
    assert got.status == 0
    assert "pictures     6" in got.out
    got = run("inspect", model, model)
    assert got.status == 0
    assert got.out.count(model) == 2
    got = run("inspect", model, "demo", "clearsight:lenet5", "--weights", "none")
    assert got.status == 2
    assert "have nothing to compare" in got.err
    got = run("inspect", model, model, "photos")
    assert got.status == 0
    assert "accuracy takes a classifier" in got.out


def test_a_detector_of_the_catalogue_by_words(bench: Path, run: Callable[..., Any]) -> None:
    (bench / "names.txt").write_text("cell\n")
    words = ("inspect", "clearsight:fcos(backbone=tiny, width=16)", "--weights", "none", "--labels", "names.txt")
    got = run(*words)
    assert got.status == 0, got
    assert "2,000 candidates a picture: 1,600 at stride 8 (40 x 40 places); 400 at stride 16" in got.out
    assert "classes      1: cell" in got.out
    folder = cs.save(cs.load(words[1], weights="none", labels=["cell"]), bench / "m")
    assert "kind         detector" in run("inspect", str(folder)).out


def test_detectors_are_audited_and_compared_by_boxes_and_segmenters_by_masks(
    bench: Path, run: Callable[..., Any]
) -> None:
    from placepictures import CORNERS, RED, painted

    for folder in ("shots", "masks", "labels"):
        (bench / folder).mkdir()
    for i, (left, top) in enumerate(CORNERS):
        Image.fromarray(painted([(left, top, RED)])).save(bench / "shots" / f"{i}.png")
        mask = painted([(left, top, (0, 0, 0))], (1, 1, 1))[..., 0]
        Image.fromarray(mask).save(bench / "masks" / f"{i}.png")
        centre = f"{(left + 2) / 32} {(top + 2) / 32} 0.125 0.125"
        (bench / "labels" / f"{i}.txt").write_text(f"0 {centre}\n")
    (bench / "labels" / "classes.txt").write_text("class 0\nclass 1\n")
    (bench / "masks" / "classes.txt").write_text("class 0\nclass 1\n")
    (bench / "bars.toml").write_text("[segmentation-accuracy]\nat_least = 0.99\n")
    boxes = run("audit", MODELS[0], "shots", "--boxes", "labels", "-o", "a", "--only", "detection-accuracy")
    assert boxes.status == 0, boxes.err
    report = json.loads((bench / "a" / "report.json").read_text())
    assert report["findings"][0]["value"] == pytest.approx(1)
    assert report["findings"][0]["command"].endswith("--only detection-accuracy --boxes labels")
    maps = run("audit", MODELS[1], "shots", "--masks", "masks", "-o", "b", "--gate", "bars.toml")
    assert maps.status == 1, maps.err  # black, which is class 0 to it, is class 1 in the masks
    twice = run("compare", MODELS[0], MODELS[0], "--data", "shots", "--boxes", "labels", "-o", "c")
    assert twice.status == 0, twice.err
    paired = json.loads((bench / "c" / "report.json").read_text())["findings"][0]
    assert (paired["check"], paired["value"], paired["interval"]) == ("repair", 0, [0, 0])
    assert paired["headline"].startswith(
        "From ./mine.py:detector (1) to ./mine.py:detector (2): mended 0, broke 0 of 8"
    )
    mixed = run("compare", MODELS[0], MODELS[1], "--data", "shots", "--boxes", "labels", "-o", "d")
    assert mixed.status == 2
    assert "./mine.py:detector is a detector and ./mine.py:segmenter is a segmenter" in mixed.err
    assert len(mixed.err.strip().splitlines()) == 1, mixed.err
    assert not (bench / "d").exists()
    for words, told in (
        (("--only", "robustness", "--boxes", "labels"), "robustness was not asked: it judges one class"),
        (("--masks", "masks"), "--masks says nothing of what a detector is to find: give --boxes"),
        (("--boxes", "labels", "--classes", "c.json"), "--classes says nothing of what a detector is to find"),
        (("--boxes", "labels", "-m", "grad-cam"), "no check of a detector uses an explainer"),
    ):
        got = run("audit", MODELS[0], "shots", *words)
        assert got.status == 2
        assert told in got.err.replace("\n", " ")


def write_boxes(bench: Path) -> None:
    (bench / "boxes").mkdir()
    for label in ("red", "blue"):
        for i in range(3):
            (bench / "boxes" / f"{label}-{i}.txt").write_text("0 0.5 0.5 0.5 0.25\n")
            (bench / "photos" / label / f"{i}.png").rename(bench / "photos" / label / f"{label}-{i}.png")


@pytest.mark.parametrize("model", MODELS)
def test_explain_asks_about_boxes_and_regions(model: str, bench: Path, run: Callable[..., Any]) -> None:
    words = ("explain", model, "photos/red/1.png", "-m", "hires-cam", "--no-tests")
    name = cs.load(model).name(1)
    got = run(*words, "--target", name, "--json", "-o", "out")
    assert got.status == 0, got
    (picture,) = json.loads(got.out)["pictures"]
    (saved,) = picture["maps"]
    assert all(name in question for question in saved["target"])
    assert Path(picture["sheet"]).exists()
    got = run(*words, "--target", f"{name} rather than any other", "--json", "-o", "margin")
    assert got.status == 0, got
    assert "rather than" in json.loads(got.out)["pictures"][0]["maps"][0]["target"][0]


@pytest.mark.parametrize("model", MODELS)
def test_attack_without_truth_says_what_counts_as_right(model: str, bench: Path, run: Callable[..., Any]) -> None:
    got = run("attack", model, "photos", "-a", "fgsm", "--pictures", "2", "-o", "out")
    assert got.status in (0, 1), got
    assert "what the model finds in the clean pictures counts as right" in got.err
    report = json.loads((bench / "out" / "report.json").read_text())
    assert report["data"]["pictures"] == 2
    assert (bench / "out" / "report.html").exists()


def test_attack_on_a_detector_with_boxes(bench: Path, run: Callable[..., Any]) -> None:
    write_boxes(bench)
    model, x = cs.load(MODELS[0]), Path("photos")
    words = ("attack", MODELS[0], str(x), "--boxes", "boxes", "-a", "fgsm", "--eps", "2/255")
    got = run(*words, "--goal", "appear", "--target", model.name(0), "-o", "out")
    assert got.status in (0, 1), got
    assert "counts as right" not in got.err
    rows = json.loads((bench / "out" / "report.json").read_text())["findings"][0]["tables"][0]["rows"]
    assert "6" in str(rows[0])  # an object in each of six pictures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("attack", "DETECTOR", "photos", "--access", "label"), "pgd is not a black-box attack"),
        (("attack", "DETECTOR", "photos", "-a", "square", "--access", "probs"), "access 'probs' is for classifiers"),
        (("attack", "DETECTOR", "photos", "--score-floor", "0.01"), "the detector reports scores above 0.05 alone"),
        (("attack", "demo", "demo:coffee", "--score-floor", "0.4"), "--score-floor is for detectors and segmenters"),
        (("attack", "DETECTOR", "photos", "-m", "saliency"), "--method is for classifiers, and"),
        (("attack", "DETECTOR", "photos", "--digits", "2"), "--digits is for classifiers"),
        (("attack", "DETECTOR", "photos", "--masks", "m"), "--masks is for a segmenter, and the model is a detector"),
        (("attack", "SEGMENTER", "photos", "--boxes", "b"), "--boxes and --voc-base are for a detector"),
        (("attack", "DETECTOR", "photos", "--goal", "misread"), "goal 'misread', which is not of a detector"),
        (("attack", "DETECTOR", "photos", "--goal", "appear"), "goal appear needs a class"),
        (("attack", "DETECTOR", "photos", "--goal", "appear", "--target", "zebra"), "zebra"),
        (("attack", "demo", "demo:coffee", "--goal", "vanish"), "--goal is for detectors and segmenters, and demo is"),
        (("attack", "demo", "demo:coffee", "--boxes", "b"), "--boxes is for detectors and segmenters"),
        (("attack", "DETECTOR", "DETECTOR", "photos"), "attack with several models takes a classifier"),
        (("explain", "DETECTOR", "photos", "--target", "zebra"), "zebra"),
        (("explain", "DETECTOR", "photos", "--boxes", "b"), "--boxes is for a classifier, and the model is a detector"),
        (("explain", "SEGMENTER", "photos", "-m", "d-rise"), "d-rise"),
    ],
)
def test_options_of_another_kind_are_refused_by_name(
    words: tuple[str, ...], message: str, bench: Path, run: Callable[..., Any]
) -> None:
    models = {"DETECTOR": MODELS[0], "SEGMENTER": MODELS[1]}
    got = run(*[models.get(word, word) for word in words], "-o", "out")
    assert got.status == 2, got
    assert message in got.err.replace("\n", " ")
    assert not (bench / "out").exists()


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_the_card_of_a_trained_one_quotes_the_audit_of_what_it_has_not_learned(
    kind: str, bench: Path, run: Callable[..., Any]
) -> None:
    import shlex

    from drawnobjects import drawn

    masks = kind == "segmenter"
    drawn(bench / "cells", 10, masks=masks)
    where = ("--masks", "cells/masks") if masks else ("--boxes", "cells/annotations/instances.json")
    arch = "fcn(backbone=tiny)" if masks else "fcos(backbone=tiny, width=16)"
    got = run("train", "cells", *where, "--arch", arch, "--epochs", "1", "--weights", "none", "-o", "r")
    assert got.status == 0, got.err
    quoted = (bench / "r" / "card.md").read_text().partition("```console\n")[2].partition("\n```")[0]
    words = shlex.split(quoted)
    assert words[:6] == ["clearsight", "audit", "r", "r/split.csv", "--split", "test"]
    only = f"{'segmentation' if masks else 'detection'}-accuracy"
    got = run(*words[1:], "--only", only, "-o", "a")
    assert got.status == 0, got.err
    report = json.loads((bench / "a" / "report.json").read_text())
    assert report["findings"][0]["command"].startswith("clearsight audit r r/split.csv --only")
    tested = (bench / "r" / "split.csv").read_text().count(",test")
    assert 1 <= tested == report["data"]["pictures"] < 10
