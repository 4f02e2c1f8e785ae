"""The pictures of a place with their boxes or class maps, and the options of `clearsight attack` for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.attacking.scene_pictures import open_scenes
from clearsight.kinds.box_goals import Objects
from clearsight.testing import tiny_detector, tiny_segmenter

FACTORY = """
from clearsight.testing import tiny_detector, tiny_segmenter

def detector():
    return tiny_detector()

def segmenter():
    return tiny_segmenter()
"""
DETECTOR, SEGMENTER = "./mine.py:detector", "./mine.py:segmenter"
NUMBER = 6


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures twice as large as the model takes them, with a red window at 8, 16; one box more in each; and masks."""
    for folder in ("photos", "labels", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(NUMBER):
        image = Image.new("RGB", (64, 64), (51, 51, 51))
        image.paste((230 + 4 * i, 51, 51), (4, 12, 20, 28))  # so that resizing leaves the window at 8, 16 as it is
        image.save(tmp_path / "photos" / f"{i}.png")
        boxes = ["0 0.1875 0.3125 0.125 0.125", *["1 0.75 0.75 0.125 0.125"] * i]
        (tmp_path / "labels" / f"{i}.txt").write_text("\n".join(boxes))
        mask = Image.new("L", (64, 64), 1)
        mask.paste(0, (8, 16, 16, 24))
        mask.save(tmp_path / "masks" / f"{i}.png")
    for folder, names in (("labels", "class 0\nclass 1\n"), ("masks", "class 0\nclass 1\nclass 2\n")):
        (tmp_path / folder / "classes.txt").write_text(names)
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_boxes_and_maps_come_in_the_frame_of_the_input(bench: Path) -> None:
    scenes, notes = open_scenes(tiny_detector(), ["photos"], boxes=Path("labels"))
    assert isinstance(scenes.truth, Objects)
    assert scenes.truth.boxes.shape == (NUMBER, NUMBER, 4)
    assert scenes.truth.boxes[:, 0].tolist() == [[4.0, 8, 8, 12]] * NUMBER
    assert scenes.truth.present.sum(1).tolist() == [1, 2, 3, 4, 5, 6]
    assert scenes.truth.classes[2].tolist() == [0, 1, 1, -1, -1, -1]
    assert scenes.x.shape == (NUMBER, 3, 32, 32)
    assert float(scenes.x[3, 0, 10, 6]) == pytest.approx(242 / 255, abs=0.01)
    assert not any(note.startswith("left out") for note in notes)
    scenes, _ = open_scenes(tiny_segmenter(), ["photos"], masks=Path("masks"))
    assert isinstance(scenes.truth, torch.Tensor)
    assert (scenes.truth == 0).flatten(1).sum(1).tolist() == [16] * NUMBER
    assert bool((scenes.truth[:, 8:12, 4:8] == 0).all())
    scenes, _ = open_scenes(tiny_segmenter(), ["photos/1.png", "photos/2.png"])
    assert (scenes.truth, scenes.source) == (None, "photos/1.png photos/2.png")


def test_a_crowd_is_no_object(bench: Path) -> None:
    box = {"image_id": 0, "category_id": 1, "area": 64.0}
    one, crowd = ({"id": k + 1, "bbox": [8 + 16 * k, 16, 8, 8], "iscrowd": k, **box} for k in (0, 1))
    coco = {
        "images": [{"id": 0, "file_name": "0.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "class 0"}],
        "annotations": [one, crowd],
    }
    Path("boxes.json").write_text(json.dumps(coco))
    scenes, _ = open_scenes(tiny_detector(), ["photos"], boxes=Path("boxes.json"))
    assert isinstance(scenes.truth, Objects)
    assert scenes.truth.boxes[0].tolist() == [[4.0, 8, 8, 12]]


def test_some_pictures_are_drawn_by_seed_and_broken_ones_are_named(bench: Path) -> None:
    names = [open_scenes(tiny_detector(), ["photos"], pictures=3, seed=k)[0].names for k in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert all(list(one) == sorted(one) for one in names)
    whole = (bench / "photos" / "2.png").read_bytes()
    (bench / "photos" / "2.png").write_bytes(whole[: len(whole) // 2])  # its size can be read, its pixels cannot
    scenes, notes = open_scenes(tiny_detector(), ["photos"], boxes=Path("labels"))
    assert len(scenes.names) == len(scenes.truth.boxes) == NUMBER - 1  # type: ignore[union-attr]
    assert scenes.truth.present.sum(1).tolist() == [1, 2, 4, 5, 6]  # type: ignore[union-attr]
    assert sum(note.startswith("left out") and "2.png" in note for note in notes) == 1
    with pytest.raises(cs.Refused, match="none of the pictures can be read"):
        open_scenes(tiny_detector(), ["photos/2.png"])
    with pytest.raises(cs.Refused, match="2 places with one truth"):
        open_scenes(tiny_detector(), ["photos", "photos"], boxes=Path("labels"))


def test_the_options_of_the_command(bench: Path, run: Callable[..., Any]) -> None:
    """The reds' scores rise from 0.504 to 0.655, two of them above 0.6: with a higher floor fewer are found."""

    def report(*words: str) -> Any:
        got = run("attack", DETECTOR, "photos", *words, "--json")
        assert got.status in (0, 1), got
        found = json.loads(got.out)
        return found, found["findings"][0]["tables"][0]["rows"][0], found["findings"][0]["notes"]

    fgsm = ("--boxes", "labels", "-a", "fgsm", "--eps", "2/255", "--curve", "2/255")
    _, clean, _ = report(*fgsm, "-o", "a")
    assert (clean["kept"], clean["missed"]) == (6, 15)
    _, clean, notes = report(*fgsm, "--score-floor", "0.6", "-o", "b")
    assert (clean["kept"], clean["missed"]) == (2, 19)
    assert any("scores above 0.6" in note for note in notes)
    words = ("-a", "hop-skip-jump(queries=30)", "--eps", "0.5", "--access", "label", "--pictures", "2")
    found, _, notes = report(*words, "--goal", "appear", "--target", "class 1", "--budget", "1m", "-o", "c")
    assert any("only whether the goal is met" in note for note in notes)
    assert (found["data"]["pictures"], found["budget"]) == (2, 60.0)
    got = run("attack", SEGMENTER, "photos", "--score-floor", "0.4", "-o", "d")
    assert got.status == 2
    assert "--score-floor is for a detector, and the model is a segmenter" in got.err.replace("\n", " ")
    got = run("attack", DETECTOR, "photos", "--budget", "soon", "-o", "d")
    assert got.status == 2
    assert "--budget 'soon' is not a time" in got.err
    assert not Path("d").exists()
