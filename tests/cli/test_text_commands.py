"""Texts through the commands: train, audit, explain, attack; one small model for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import clearsight as cs
from textshop import lay_out_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """requests.jsonl and a model m trained on them (see textshop.py)."""
    return lay_out_shop(tmp_path_factory.mktemp("shop"))


def test_explain_prints_the_text_and_writes_a_page(run: Callable[..., object], shop: Path, tmp_path: Path) -> None:
    text = "GET /home?id=10&q=' OR 1"
    words = (text, "--target", "attack", "-m", "integrated-gradients", "-o", tmp_path / "e")
    ran = run("explain", shop / "m", *words)
    lines = ran.out.split("\n")
    assert ran.status == 0
    assert lines[0].startswith("text 1: attack")
    assert lines[1] == "integrated-gradients, logit of attack"
    assert lines[2] == text
    assert "#" in lines[3][16:24]  # at the quote, or what stands around it
    page = (tmp_path / "e" / "text_1.html").read_text()
    assert "&#x27;" in page
    assert page.count('<pre class="text">') == page.count('class="scale"') == 1
    rows = (shop / "requests.jsonl").read_text().split("\n")
    (tmp_path / "few.jsonl").write_text("\n".join([*rows[:3], rows[122]]))
    data = json.loads(run("explain", shop / "m", tmp_path / "few.jsonl", "--json", "-o", tmp_path / "j").out)
    assert [e["text"] for e in data["texts"]] == ["line 1", "line 2", "line 3"]
    assert {"text": "line 4", "reason": "60 characters, and the model reads 48"} in data["broken"]
    assert {m["method"].partition("(")[0] for m in data["texts"][0]["maps"]} == {"integrated-gradients", "grad-cam"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", "m", " "), "an empty text is given"),
        (("explain", "m", "nowhere.csv"), "nowhere.csv: there is no such table"),
        (("explain", "m", "nowhere.jsonl:3"), "nowhere.jsonl:3: there is no such table"),
        (("explain", "m", "demo:coffee"), "demo:coffee holds pictures, and the model takes texts"),
        (("explain", "m", "x" * 60), "60 characters, and the model reads 48"),
        (("explain", "m", "x", "-m", "none"), "no method 'none'"),
        (("explain", "m", "x", "--boxes", "b.json", "--voc-base", "1"), "--boxes, --voc-base: the model takes texts"),
        (("attack", "m", "requests.jsonl", "-a", "pgd"), "pgd changes pixels, and these are texts"),
        (("attack", "m", "requests.jsonl", "--eps", "8/255"), "give the number of characters"),
        (("attack", "m", "requests.jsonl", "--access", "label"), "--access is of pictures, and the model takes texts"),
        (("attack", "m", "requests.jsonl", "-m", "saliency"), "--method is of pictures"),
        (("train", "requests.jsonl", "--arch", "demo", "-o", "n"), "takes pictures, and the inputs are texts"),
        (("train", "requests.jsonl", "--augment", "flip", "-o", "n"), "changes pictures, and the inputs are texts"),
        (("train", "requests.jsonl", "--size", "8", "-o", "n"), "every text of"),
        (("audit", "m", "requests.jsonl", "--boxes", "b.json"), "have no boxes or masks"),
        (("audit", "demo", "requests.jsonl"), "the model takes pictures, not texts"),
        (("features", "m", "requests.jsonl"), "holds texts, and features takes pictures"),
        (("data", "check", "requests.jsonl"), "holds texts, and data check takes pictures"),
        (("data", "augment", "requests.jsonl"), "holds texts, and data augment takes pictures"),
        (("compare", "m", "demo", "--data", "requests.jsonl"), "the model takes pictures, not texts"),
        (("compare", "m", "demo", "--text-column", "text"), "--text-column is for data that --data names"),
        (("tune", "requests.jsonl", "--text-column", "none"), "and no none"),
        (("train", "requests.jsonl", "--alphabet", "aba", "-o", "n"), "the alphabet names 'a' twice"),
        (("train", "requests.jsonl", "--from", "m", "--alphabet", "ab", "-o", "n"), "--alphabet with --from"),
        (("train", "demo", "--alphabet", "ab", "-o", "n"), "the inputs are pictures, which have none"),
        (("explain", "demo", "requests.jsonl"), "holds texts, and a model of pictures takes pictures"),
        (("attack", "demo", "requests.jsonl"), "takes pictures, not texts"),
        (("audit", "m", "demo"), "demo holds pictures, and the model takes texts"),
    ],
)
def test_what_cannot_be_done_with_texts_is_said(
    run: Callable[..., object], shop: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(shop)
    ran = run(*words)
    assert ran.status == 2
    assert message in ran.err.replace("\n", " ")
    assert not (shop / "n").exists()


def test_attack_replaces_characters_and_writes_the_texts_that_fool(
    run: Callable[..., object], shop: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    ran = run("attack", shop / "m", shop / "requests.jsonl", "--eps", "2", "--pictures", "30", "-o", out, "--quiet")
    assert ran.status in (0, 1)
    rows = [json.loads(line) for line in (out / "attacked.jsonl").read_text().splitlines()]
    assert rows
    model = cs.load(str(shop / "m"))
    with model.undisturbed():
        for row in rows:
            answer = model.labels[int(model(cs.one_hot(model, row["text"])).argmax())]
            assert answer != row["label"]
            changed = sum(a != b for a, b in zip(row["text"], row["before"], strict=True))
            assert 1 <= changed == row["replaced"] <= 2
    report = json.loads((out / "report.json").read_text())
    assert report["findings"][0]["n"] == 30


def test_a_typed_text_is_attacked_for_the_answer_of_the_model(
    run: Callable[..., object], shop: Path, tmp_path: Path
) -> None:
    out = tmp_path / "typed"
    ran = run("attack", shop / "m", "GET /home?id=10&q=' OR 1", "--eps", "3", "-o", out, "--json")
    report = json.loads(ran.out)
    assert report["findings"][0]["n"] == 1
    assert "No text has a label: each is attacked for the model's own answer." in report["data"]["notes"]
    (row,) = [json.loads(line) for line in (out / "attacked.jsonl").read_text().splitlines()]
    assert (row["label"], row["before"]) == ("attack", "GET /home?id=10&q=' OR 1")


def test_explain_tests_the_maps_of_texts(run: Callable[..., object], shop: Path, tmp_path: Path) -> None:
    """The words of the tests stand under each map; what fails is grey, in the page and for the terminal."""
    words = ("GET /home?id=10&q=' OR 1", "-m", "gradient-x-input", "-m", "edge")
    ran = run("explain", shop / "m", *words, "-o", tmp_path / "e")
    assert "  passes: wins " in ran.out
    assert "  fails: " in ran.out
    assert "rank correlation 1.00 with 5 random networks, at most 0.5 asked for" in ran.out
    page = (tmp_path / "e" / "text_1.html").read_text()
    assert page.count('<p class="test">') == 3
    assert "Tests are of one text and say nothing of others" in page
    assert page.count("of a map that fails a test") == 1
    found = json.loads(run("explain", shop / "m", *words, "-o", tmp_path / "j", "--json").out)
    assert (found["seed"], found["folder"]) == (0, str(tmp_path / "j"))
    tests = {m["method"]: m["test"] for m in found["texts"][0]["maps"]}
    assert tests["edge"]["failed"]
    assert tests["edge"]["kept"] == pytest.approx(1)
    assert tests["gradient-x-input"]["passed"]
    untested = run("explain", shop / "m", *words, "-o", tmp_path / "u", "--no-tests")
    assert "passes: " not in untested.out + untested.err
    assert 'class="test"' not in (tmp_path / "u" / "text_1.html").read_text()


def test_workers_share_the_texts(run: Callable[..., object], shop: Path, tmp_path: Path) -> None:
    rows = (shop / "requests.jsonl").read_text().split("\n")
    (tmp_path / "few.jsonl").write_text("\n".join(rows[:3]))
    words = (shop / "m", tmp_path / "few.jsonl", "-m", "saliency", "--json")
    alone = json.loads(run("explain", *words, "-o", tmp_path / "a").out)["texts"]
    shared = json.loads(run("explain", *words, "-o", tmp_path / "b", "--workers", "1").out)["texts"]
    assert [[m["test"] for m in e["maps"]] for e in shared] == [[m["test"] for m in e["maps"]] for e in alone]
    assert [e["answers"] for e in shared] == [e["answers"] for e in alone]
