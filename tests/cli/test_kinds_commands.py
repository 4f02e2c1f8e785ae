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
    "audit": ("audit", "MODEL", "photos"),
    "features": ("features", "MODEL", "photos"),
    "export": ("export", "MODEL", "--to", "torch-export", "-o", "out"),
    "serve": ("serve", "MODEL", "--port", "0"),
    "steal": ("steal", "MODEL", "--pool", "photos", "--budget", "10"),
    "compare": ("compare", "MODEL", "demo", "--data", "photos"),
    "data check": ("data", "check", "photos", "--model", "MODEL"),
}
TAKES = {"inspect": ("inspect", "MODEL"), "explain": ("explain", "MODEL"), "attack": ("attack", "MODEL")}
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
    assert verbs() == {*REFUSES, *TAKES, *WITHOUT_MODEL}


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
