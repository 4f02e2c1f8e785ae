"""`explain` of boxes and regions: the words of a target, what is told, and the sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.auditing.map_tests import examine
from clearsight.data.datasets import open_data
from clearsight.drawing.heatmaps import boxed
from clearsight.explaining.ask_kinds import ask_kind, marks_of, told
from clearsight.explaining.explain_pictures import explain_pictures
from clearsight.kinds.box_targets import box_scores
from clearsight.testing import tiny_detector, tiny_segmenter
from kindnets import shapes, taught_shapes


def squares() -> torch.Tensor:
    """Two red squares, the left one brighter, and a blue one."""
    x = torch.full((1, 3, 32, 32), 0.2)
    x[0, 0, 4:8, 8:12], x[0, 0, 4:8, 20:24], x[0, 2, 20:24, 20:24] = 1.0, 0.95, 0.9
    return x


def test_boxes_in_words():
    model, x = tiny_detector(), squares()
    outputs = model(x).detach()
    target, scores = ask_kind(model, "top3", outputs)
    assert target.boxes[:, :2].tolist() == [[8, 4], [20, 4], [20, 20]]
    assert target.classes.tolist() == [0, 0, 1]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.4, 0.0]).sigmoid(), atol=1e-4, rtol=0)
    assert len(ask_kind(model, "top2", outputs)[0].boxes) == 2
    target, _ = ask_kind(model, "class 1", outputs)
    assert target.boxes.tolist() == [[20, 20, 24, 24]]
    target, _ = ask_kind(model, "class 0 rather than class 1", outputs)
    assert target(outputs.expand(2, -1, -1)).tolist() == pytest.approx([0.8 + 12, 0.4 + 11.6], abs=3)
    assert target.words(model.labels)[0] == "class 0 rather than class 1 at (8, 4, 12, 8)"
    assert ask_kind(model, "class 0 rather than any other", outputs)[0].against is None
    nothing = torch.full((1, 3, 32, 32), 0.2)
    nothing[0, 2, 8:12, 0:4] = 0.4  # the bluest window, but no box
    target, scores = ask_kind(model, "class 1", model(nothing).detach())
    assert target.boxes.tolist() == [[0, 8, 4, 12]]
    assert float(scores) < 0.05
    assert told(model, model(nothing).detach()) == []
    first = told(model, outputs)[0]
    assert first["probability"] == pytest.approx(0.689974, abs=1e-5)
    assert (first["class"], first["label"], first["box"]) == (0, "class 0", [8, 4, 12, 8])
    for words in ("top0", "cow", "class 0 rather than class 0"):
        with pytest.raises(cs.Refused):
            ask_kind(model, words, outputs)


def test_regions_in_words():
    model, x = tiny_segmenter(), torch.zeros(1, 3, 32, 32)
    x[0, 0, :8], x[0, 2, 8:] = 0.9, 0.9
    outputs = model(x).detach()
    target, means = ask_kind(model, "top3", outputs)
    assert target.classes.tolist() == [2, 0]
    assert target.regions.flatten(1).sum(1).tolist() == [24 * 32, 8 * 32]
    chance = 1 / (1 + 2 * np.exp(-4.5))
    assert means.tolist() == pytest.approx([chance, chance], abs=1e-5)
    x[0, 1, 30:, 30:] = 0.5
    target, _ = ask_kind(model, "class 1", model(x).detach())  # no pixel is green: those that come nearest
    assert int(target.regions.sum()) == 10
    assert bool(target.regions[0, 30:, 30:].all())
    assert ask_kind(model, "class 2 rather than any other", outputs)[0].of == "margin"
    with pytest.raises(cs.Refused, match="compared with its best other class"):
        ask_kind(model, "class 2 rather than class 0", outputs)
    named = cs.Segmenter(model.net, model.preprocess, ("red", "green", "background"))
    assert ask_kind(named, "top1", outputs)[0].classes.tolist() == [0]
    assert [entry["share"] for entry in told(model, outputs)] == [0.75, 0.25]


def test_what_is_drawn():
    model, x = tiny_detector(), squares()
    x[0, 0, 28:32, 0:4] = 0.75  # its score is 0.23, less than half of the surest
    outputs = model(x).detach()
    assert len(model.detections(outputs)[0]) == 4
    marks = marks_of(model, ask_kind(model, "top3", outputs)[0], outputs)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(marks.outlines[0], expected)
    assert marks.boxes[:, :2].tolist() == [[8, 4], [20, 4], [20, 20]]
    nothing = model(torch.full((1, 3, 32, 32), 0.2)).detach()
    assert marks_of(model, ask_kind(model, "top1", nothing)[0], nothing).boxes.shape == (0, 4)
    image = Image.fromarray(np.full((96, 64, 3), 128, np.uint8))
    drawn = np.asarray(boxed(image, torch.tensor([[8.0, 4, 24, 28]]), (32, 32)))  # 2 and 3 pixels for one
    changed = (drawn != 128).any(2)
    rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    assert (columns.min(), columns.max()) == (16, 48)
    assert (rows.min(), rows.max()) == (12, 84)
    assert not changed[40:60, 24:40].any()
    assert (np.asarray(image) == 128).all()


def test_a_sheet_and_tested_maps_of_every_box(tmp_path: Path):
    model, (x, _, _) = taught_shapes(), shapes(1, 5)
    Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "p.png")
    out = tmp_path / "out"

    def folder() -> Path:
        out.mkdir()
        return out

    methods = ["integrated-gradients(steps=10)", "box-gaussian"]
    found = explain_pictures(model, [open_data(str(tmp_path))], methods, "top2", folder, progress=lambda *_: None)
    (picture,) = found.pictures
    assert [len(saved.target) for saved in picture.maps] == [2, 2]
    assert all(test.metrics == 3 for saved in picture.maps for test in saved.tests)
    assert {"box-gaussian", "centre", "edge", "random"} == set(picture.maps[0].tests[0].pairwise_wins)
    assert picture.maps[1].tests[0].pairwise_wins["box-gaussian"] == 1.5  # a tie with itself
    assert picture.answers[0]["label"] in model.labels
    assert "%" in found.lines()[0]
    with Image.open(picture.sheet) as sheet:
        assert min(sheet.size) > 400


def test_maps_of_a_box_are_tested_by_what_is_left_of_its_score(monkeypatch: pytest.MonkeyPatch):
    model, x = tiny_detector(), squares()
    target = box_scores(model.detect(x)[0][:1], match="raw")
    asked: list[object] = []
    was = cs.auditing.map_tests.measure

    def watched(model: object, x: object, maps: object, metric: object, target: object, **more: object) -> object:
        asked.append(target)
        return was(model, x, maps, metric, target, **more)

    monkeypatch.setattr(cs.auditing.map_tests, "measure", watched)
    ((test,),) = examine(model, [cs.explain(model, x, "gradient-x-input", target)])
    assert test.pairwise_wins["random"] > 1.5
    assert {(t.of, t.match) for t in asked[:3]} == {("score", "matched")}
