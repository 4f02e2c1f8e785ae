"""The report of an attack on a detector and on a segmenter, on pictures whose figures are known."""

from __future__ import annotations

import json

import pytest
import torch

import clearsight as cs
from clearsight.attacking.scene_report import attack_scenes
from clearsight.attacking.scene_sweep import sweep_scenes
from clearsight.attacking.scenes import Scenes, goal_of_scenes, truth_of
from clearsight.core.catalogue import parse
from clearsight.drawing.box_picture import BLUE, ORANGE, BoxGroup, box_picture
from clearsight.kinds.box_goals import Objects
from clearsight.testing import tiny_detector, tiny_segmenter

NAMES = tuple(f"{i}.png" for i in range(8))


def squares() -> Scenes:
    """A red square in each of eight pictures, ever brighter, and a blue one at another place."""
    x = torch.full((8, 3, 32, 32), 0.2)
    for i in range(8):
        x[i, 0, 4:8, 8:12] = 0.92 + 0.01 * i
        x[i, 2, 16:20, 20:24] = 0.99
    boxes = torch.tensor([[8.0, 4, 12, 8], [20, 16, 24, 20]]).expand(8, 2, 4)
    return Scenes(x, NAMES, Objects(boxes, torch.tensor([[0, 1]] * 8)), "squares/")


def test_a_detector_over_budgets():
    """The logit of a red square is 8 (r - 0.4) - 4; a budget of eps takes 24 eps off it."""
    scenes, model = squares(), tiny_detector()
    truth = truth_of(model, scenes, 0.5)
    goal = goal_of_scenes(model, truth, None, None, 0.5)
    outcomes = sweep_scenes(model, scenes, truth, goal, parse("pgd", "attacks"), [0.02, 0.001, 0.0101])
    assert [o.eps for o in outcomes] == [0.0, 0.001, 0.0101, 0.02]
    kept = [o.fates.counts()["kept"] for o in outcomes]
    reds = [sum(8 * (0.92 + 0.01 * i - 0.4) - 4 > 24 * o.eps for i in range(8)) for o in outcomes]
    blues = [8 * (24 * o.eps < 8 * (0.99 - 0.4) - 4) for o in outcomes]
    assert kept == [r + b for r, b in zip(reds, blues, strict=True)] == [16, 16, 14, 12]
    assert [o.fates.fabricated.sum().item() for o in outcomes] == [0] * 4
    assert outcomes[0].score == pytest.approx(1)
    assert outcomes[0].interval is not None
    assert all(float((o.x - scenes.x).abs().max()) <= o.eps + 1e-6 for o in outcomes)


def test_its_report_names_the_worst_first(tmp_path):
    report = attack_scenes(tiny_detector(), squares(), eps=0.0101, curve=[0.005])
    finding = report.findings[0]
    assert "Under pgd at eps 0.0101, AP50 is" in report.verdict
    assert "of 100.0 % without an attack: 14 of 16 objects stay found." in report.verdict
    by_budget, by_picture = finding.tables
    assert [row["kept"] for row in by_budget.rows] == [16, 16, 14]
    assert [row["picture"] for row in by_picture.rows][:3] == ["0.png", "1.png", "2.png"]
    assert [row["vanished"] for row in by_picture.rows] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert [e.picture for e in finding.evidence] == ["0.png", "1.png"]
    assert "before: 2 boxes found; attacked at 0.0101: 1 box found" in finding.evidence[0].figure.caption
    assert not any("No annotations" in note for note in finding.notes)
    report.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["findings"][0]["check"] == "pgd(early_stop=false)"
    page = (tmp_path / "report.html").read_text()
    assert "0.png" in page
    assert "vanished" in page


def test_without_annotations_what_it_finds_is_the_truth_and_is_said_to_be():
    scenes = Scenes(squares().x, NAMES)
    report = attack_scenes(tiny_detector(), scenes, aim="appear", target="class 1", eps=0.05, curve=[])
    assert any(
        "No annotations: the objects that the model finds in the clean pictures" in n for n in report.findings[0].notes
    )
    # above 0.6 are the blue squares and the four reds whose logit, 0.16 + 0.08 i, is above 0.405
    assert int(truth_of(tiny_detector(), scenes, 0.6).present.sum()) == 12
    empty = Scenes(torch.full((2, 3, 32, 32), 0.2), NAMES[:2])
    report = attack_scenes(tiny_detector(), empty, aim="appear", target="class 1", eps=0.3)
    assert report.verdict == "None of 2 pictures has an object: there is nothing to find."
    assert "no box has a score above the floor: lower it" in report.findings[0].notes[0]


def test_objects_of_the_class_already_are_left_alone():
    model, scenes = tiny_detector(), squares()
    goal = goal_of_scenes(model, scenes.truth, "become", "class 1", 0.5)
    assert goal.classes.tolist() == [[0, -1]] * 8
    report = attack_scenes(model, scenes, aim="become", target="class 1", eps=0.65, curve=[])
    assert report.findings[0].tables[0].rows[-1]["mislabelled"] == 8


def test_a_segmenter_over_budgets():
    """Each pixel falls where its strongest colour leads by less than twice the budget."""
    x = 0.2 + 0.6 * torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = cs.Segmenter(tiny_segmenter().net, cs.Preprocess((16, 16), (0.0,) * 3, (1.0,) * 3), ("r", "g", "b"))
    top = x.topk(2, 1).values
    lead = top[:, 0] - top[:, 1]
    report = attack_scenes(model, Scenes(x, NAMES), "seg-pgd", eps=0.05, curve=[0.01])
    rows = report.findings[0].tables[0].rows
    for row, eps in zip(rows, (0.0, 0.01, 0.05), strict=True):
        most = float((lead < 2 * eps).float().mean())
        assert 0.9 * most <= row["pixels misread"] <= most + 1e-6
    assert rows[0]["mean IoU"] == 1.0
    assert rows[2]["mean IoU"] < rows[1]["mean IoU"] < 1
    shares = [row["pixels misread"] for row in report.findings[0].tables[1].rows]
    assert shares == sorted(shares, reverse=True)


def with_a_dark_one() -> Scenes:
    """The same with a third object that nothing shows, which is found in no picture."""
    scenes = squares()
    dark = torch.tensor([24.0, 24, 28, 28]).expand(8, 1, 4)
    return Scenes(scenes.x, NAMES, Objects(torch.cat([scenes.truth.boxes, dark], 1), torch.tensor([[0, 1, 0]] * 8)))


def test_an_object_without_a_box_in_the_clean_picture_is_missed_and_did_not_vanish():
    finding = attack_scenes(tiny_detector(), with_a_dark_one(), "fgsm", eps=0.0101, curve=[]).findings[0]
    rows = [[row[key] for key in ("objects", "kept", "missed", "vanished")] for row in finding.tables[0].rows]
    assert rows == [[24, 16, 8, 0], [24, 14, 8, 2]]
    assert not any(note.startswith("Only") for note in finding.notes)


def test_few_objects_above_the_score_floor_are_said_to_be_few():
    """Logits are 0.72 of the blue ones and 0.16 to 0.72 of the reds: 12 of 24 have scores above 0.6, 9 above 0.66."""
    model, scenes = tiny_detector(), with_a_dark_one()
    for floor, kept in ((0.5, 16), (0.6, 12), (0.66, 9)):
        finding = attack_scenes(model, scenes, "fgsm", eps=0.001, curve=[], score_floor=floor).findings[0]
        assert finding.tables[0].rows[0]["kept"] == kept
        few = [note for note in finding.notes if note.startswith("Only")]
        assert len(few) == (kept < 12)
    assert "Only 9 of 24 objects are found in the clean pictures, by boxes with scores above 0.66" in few[0]
    assert "A lower score floor (--score-floor)" in few[0]
    for floor in (0.04, 1.0):
        with pytest.raises(cs.Refused, match=f"score_floor {floor:g} .* the detector reports scores above 0.05 alone"):
            attack_scenes(model, scenes, eps=0.001, score_floor=floor)


def test_a_black_box_by_the_label_alone():
    finding = attack_scenes(
        tiny_detector(), squares()[:2], "hop-skip-jump(queries=60)", eps=0.5, access="label"
    ).findings[0]
    assert any("of a black box that tells only whether the goal is met" in note for note in finding.notes)
    assert 0 < finding.tables[0].rows[1]["vanished"] <= 4
    with pytest.raises(cs.Refused, match="the model answers with labels alone"):
        attack_scenes(tiny_detector(), squares(), "square(queries=9)", access="label")
    with pytest.raises(cs.Refused, match="pgd is not a black-box attack"):
        attack_scenes(tiny_detector(), squares(), "pgd", access="label")


def test_when_the_time_is_up_the_pictures_before_are_reported(monkeypatch: pytest.MonkeyPatch):
    """At least one portion is attacked, and with the same result as without a limit."""
    monkeypatch.setattr("clearsight.attacking.scene_sweep.LOT", 3)
    x, boxes = squares().x, squares().truth.boxes
    scenes = Scenes(x, NAMES, Objects(boxes, torch.tensor([[0, 1], [0, -1]] * 4)))  # every other blue one is no object
    whole = attack_scenes(tiny_detector(), scenes, "fgsm", eps=0.0101, curve=[], budget=600.0)
    cut = attack_scenes(tiny_detector(), scenes, "fgsm", eps=0.0101, curve=[], budget=1e-9, seed=1)
    rows = {row["picture"]: row for row in whole.findings[0].tables[1].rows}
    assert len(rows) == 8
    assert whole.findings[0].tables[0].rows[1]["kept"] == 10
    some = cut.findings[0].tables[1].rows
    assert len(some) == 3
    assert [row["picture"] for row in some] != list(NAMES[:3])
    assert all(row == rows[row["picture"]] for row in some)
    assert any("The time was up after 3 of 8 pictures, in an order drawn by seed." in n for n in cut.findings[0].notes)
    assert (cut.facts.data.pictures, cut.facts.data.tried) == (8, 3)
    patch = attack_scenes(tiny_detector(), squares(), "patch(steps=1)", budget=1e-9).findings[0]
    assert len(patch.tables[1].rows) == 8  # it learns from all pictures, so they are not parted


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"aim": "misread"}, "goal 'misread', which is not of a detector: "),
        ({"aim": "vanihs"}, "vanish"),
        ({"aim": "become"}, "goal become needs a class"),
        ({"target": "class 0"}, "goal vanish has no class"),
        ({"method": "deepfool"}, "deepfool takes a classifier"),
        ({"eps": 0.0}, "eps must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(given, says):
    with pytest.raises(cs.Refused, match=says):
        attack_scenes(tiny_detector(), squares(), **{"eps": 0.01, **given})


def test_truth_that_does_not_fit_is_refused():
    scenes = squares()
    with pytest.raises(cs.Refused, match="the truth is boxes, and the model is a segmenter"):
        attack_scenes(tiny_segmenter(), scenes)
    with pytest.raises(cs.Refused, match="8 pictures, 2 names and 8 truths"):
        Scenes(scenes.x, NAMES[:2], scenes.truth)
    with pytest.raises(cs.Refused, match="0 pictures, 0 names"):
        Scenes(scenes.x[:0], ())
    y = torch.zeros(8, 32, 32, dtype=torch.long)
    with pytest.raises(cs.Refused, match="is class 0 already"):
        attack_scenes(tiny_segmenter(), Scenes(scenes.x, NAMES, y), aim="become", target="class 0")


def test_boxes_are_drawn_where_they_are():
    """A box of 6 of 10 pixels is 48 times as large, its dashes and gaps are 9 pixels long."""
    x, ground = torch.full((3, 10, 10), 0.5), (128, 128, 128)
    found, lost = torch.tensor([[2.0, 2, 8, 8]]), torch.tensor([[1.0, 1, 9, 9]])
    words = ["red 90 %"]
    image = box_picture(x, [BoxGroup("found", found, BLUE), BoxGroup("lost", lost, ORANGE, dashed=True, words=words)])
    assert image.width == 480
    assert image.height > 480  # the legend
    assert image.getpixel((96, 240)) == image.getpixel((384, 240)) == (43, 131, 181)
    assert image.getpixel((93, 240)) == image.getpixel((240, 240)) == ground
    edge = [image.getpixel((48, y)) for y in range(60, 420)]
    assert {*edge} == {(208, 117, 12), (255, 255, 255)}
    assert 0.4 < edge.count((208, 117, 12)) / len(edge) < 0.6
    worded = [image.getpixel((px, 38)) for px in range(52, 110)]
    assert ground not in worded
    many = box_picture(x, [BoxGroup("lost", lost.expand(13, 4), ORANGE, words=words * 13)])
    assert {many.getpixel((px, 38)) for px in range(52, 110)} == {ground}  # 13 labels would hide the picture
