"""Two detectors and two segmenters on the same pictures, of which it is known by hand what was mended and broken."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from clearsight.auditing.audit import audit, case_of
from clearsight.auditing.detector_case import DetectorCase
from clearsight.comparing.compare import Comparison, compare
from clearsight.comparing.place_pictures import open_places
from clearsight.comparing.sources import RunToCompare
from clearsight.core.model import Model
from clearsight.data.datasets import Pictures
from clearsight.errors import Refused
from clearsight.evaluation.average_precision import average_precision
from clearsight.kinds.detector import Detector
from clearsight.reporting.findings import Cell, Finding
from clearsight.reporting.report import Report
from clearsight.testing import pixel_segmenter, template_detector, tiny_segmenter
from placepictures import BLUE, CORNERS, RED, SIDE, box_truth, painted, with_boxes, with_maps

DIM = (160, 0, 0)  # a red whose logit is 8 x 160 / 255 = 5.02 above the bias
MENDED, BROKEN, ALARMED, N = {0, 1, 2, 3, 4}, {4, 5}, {5, 6, 7}, 8


def detector(red: float, blue: float, source: str) -> Model:
    """Finds red and blue squares of 4 x 4 pixels; a bias for each colour."""
    weight = torch.full((2, 3, 4, 4), -8 / 16)
    weight[0, 0], weight[1, 2] = 8 / 16, 8 / 16
    return replace(template_detector(weight, torch.tensor([red, blue]), 4, (32, 32)), source=source)


def cells(folder: Path) -> Pictures:
    """A red object in each picture; a dim one in those of MENDED; a blue one in those of BROKEN; dim paint that is no
    object in those of ALARMED."""
    arrays, truths = [], []
    for i in range(N):
        places, colours, labels = [CORNERS[i]], [RED], [0]
        for which, corner, colour, label in ((MENDED, 2, DIM, 0), (BROKEN, 4, BLUE, 1)):
            if i in which:
                places.append(CORNERS[(i + corner) % 8])
                colours.append(colour)
                labels.append(label)
        paint = [(*CORNERS[(i + 6) % 8], DIM)] if i in ALARMED else []
        arrays.append(painted([*((*p, c) for p, c in zip(places, colours, strict=True)), *paint]))
        truths.append(box_truth(places, labels))
    return with_boxes(folder, arrays, truths)


# dim red scores 0.27 before and 0.73 after; blue 0.98 before, and after less than what is reported
BEFORE, AFTER = (-6.0, -4.0), (-4.0, -12.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def report(data: Pictures) -> Comparison:
    return compare([detector(*BEFORE, "before"), detector(*AFTER, "after")], data, command="clearsight compare")


@pytest.fixture(autouse=True)
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts take most of the time; those of `report`, which is made before, are real."""
    monkeypatch.setattr("clearsight.drawing.charts.svg", lambda *args, **options: b"<svg/>")


def names(which: set[int]) -> list[str]:
    return [f"p{i:02}.png" for i in sorted(which)]


def table_rows(f: Finding, caption: str) -> list[dict[str, Cell]]:
    return next([*t.rows] for t in f.tables if t.caption.startswith(caption))


def repair_of(report: Report) -> Finding:
    (finding,) = (f for f in report.findings if f.name == "repair")
    return finding


def test_what_became_of_every_object(report: Comparison) -> None:
    """Of 15 objects 8 are red, 5 dim and 2 blue: AP50 of blue falls from 1 to 0, red keeps its order of boxes."""
    f = repair_of(report)
    assert report.verdict == f.headline
    assert f.headline.startswith("From before to after: mended 5, broke 2 of 15 objects in 8 pictures; AP50 "), (
        f.headline
    )
    assert f.headline.endswith("false alarms a picture 0 before, 0.375 after.")
    assert b"<path" in f.figures[0].data
    assert f.value == pytest.approx(-0.5)
    assert (f.n, f.quantity) == (8, "AP50 gained")
    assert [r["n"] for r in table_rows(f, "What became")] == [8, 5, 2, 0]
    by_class = table_rows(f, "By class")
    assert [(r["class"], r["objects"], r["mended"], r["broken"]) for r in by_class] == [
        ("class 1", 2, 0, 2),
        ("class 0", 13, 5, 0),
    ]
    assert [r["AP50 difference"] for r in by_class] == [pytest.approx(-1), pytest.approx(0)]
    measures = {str(r["measure"]).partition(",")[0]: r for r in table_rows(f, "Before and after")}
    assert measures["objects found"]["difference"] == pytest.approx(3 / 15)
    assert (measures["false alarms a picture"]["before"], measures["false alarms a picture"]["after"]) == (0, 3 / 8)
    errors = {r["type"]: (r["errors before"], r["errors after"]) for r in table_rows(f, "Kinds of error")}
    assert errors == {"background": (3, 3), "missed": (0, 2)} | dict.fromkeys(
        ("class", "place", "both", "duplicate"), (0, 0)
    )


def test_pictures_that_changed_and_how_they_are_drawn(report: Comparison) -> None:
    f = repair_of(report)
    rows = table_rows(f, "Pictures that changed")
    assert {r["picture"] for r in rows} == {*names(MENDED | BROKEN | ALARMED)}
    assert [r["picture"] for r in rows[:2]] == ["p05.png", "p04.png"]  # broken, the first with a false alarm too
    drawn = [(e.facts["outcome"], e.picture) for e in f.evidence]
    assert drawn == [*(("mended", n) for n in names({0, 1, 2, 3})), *(("broken", n) for n in names({5, 4})[::-1])]  # type: ignore[comparison-overlap]
    five = f.evidence[-2]
    assert (five.facts["false alarms before"], five.facts["false alarms after"]) == (0, 1)
    assert five.figure.data.startswith(b"\x89PNG")
    assert "Drawn: 4 of 5 pictures with mended objects and 2 of 2 pictures with broken objects." in f.notes


def test_a_report_of_two_detectors_keeps_its_schema(report: Comparison, tmp_path: Path) -> None:
    report.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    schema = json.loads((resources.files("clearsight") / "reporting" / "report.schema.json").read_text())
    jsonschema.validate(saved, schema)
    assert saved["model"]["kind"] == "detector"
    html = (tmp_path / "out" / "report.html").read_text()
    assert "5 objects mended" not in html
    assert "1 object mended, 0 broken; above: before, below: after; dashed: not found" in html


def test_the_difference_is_that_of_the_two_detectors_by_themselves(report: Comparison, data: Pictures) -> None:
    scores = []
    for biases in (BEFORE, AFTER):
        case = case_of(detector(*biases, ""), data)
        assert isinstance(case, DetectorCase)
        scores.append(average_precision(case.boxes).mean)
    for name, words in (("ap50", "AP50"), ("ap75", "AP75"), ("ap", "AP, mean of IoU 0.5 to 0.95")):
        row = next(r for r in table_rows(repair_of(report), "Before and after") if r["measure"] == words)
        assert (row["before"], row["after"]) == tuple(pytest.approx(getattr(s, name)) for s in scores)


def test_a_detector_beside_itself(data: Pictures) -> None:
    f = repair_of(compare([detector(*AFTER, "a"), detector(*AFTER, "b")], data, only="detection-accuracy"))
    assert (f.value, f.interval, f.evidence) == (0.0, (0.0, 0.0), ())
    assert f.notes[0] == "Cost in AP50: none. It did not change."
    assert [r["n"] for r in table_rows(f, "What became")] == [13, 0, 0, 2]


def test_the_score_of_the_check_says_what_counts(data: Pictures) -> None:
    """From 0.2 on the first finds the dim ones as well, and what is no object."""
    runs = [detector(*BEFORE, "before"), detector(*AFTER, "after")]
    f = repair_of(compare(runs, data, only="detection-accuracy(score=0.2)"))
    assert [r["n"] for r in table_rows(f, "What became")] == [13, 0, 2, 0]


def test_three_detectors_stand_beside_the_first(data: Pictures) -> None:
    runs = [detector(*BEFORE, "a"), detector(*AFTER, "b"), detector(*BEFORE, "c")]
    report = compare(runs, data, only="detection-accuracy")
    assert [f.name for f in report.findings] == ["runs", "detection-accuracy"]
    assert report.verdict == "AP50 of 3 detectors: 50.0 to 100.0 % on 8 pictures."
    rows = table_rows(report.findings[0], "Beside a")
    assert [(r["run"], r["mended"], r["broken"]) for r in rows] == [("b", 5, 2), ("c", 0, 0)]
    assert rows[0]["AP50 difference"] == pytest.approx(-0.5)


def test_classes_in_another_order_are_matched_by_name(data: Pictures, tmp_path: Path) -> None:
    """A detector and a segmenter beside themselves with their classes turned round: what is drawn stays the same."""
    weight = torch.full((2, 3, 4, 4), -8 / 16)
    weight[0, 2], weight[1, 0] = 8 / 16, 8 / 16  # blue, red
    turned = template_detector(weight, torch.tensor([*BEFORE[::-1]]), 4, (32, 32))
    turned = replace(turned, labels=("class 1", "class 0"), source="turned")
    found = compare([detector(*AFTER, "after"), turned], data)
    plain = compare([detector(*AFTER, "after"), detector(*BEFORE, "turned")], data)
    f, wanted = repair_of(found), repair_of(plain)
    assert (f.headline, f.tables, f.interval) == (wanted.headline, wanted.tables, wanted.interval)
    assert [e.figure.data for e in f.evidence] == [e.figure.data for e in wanted.evidence]
    words = "turned has the classes of after in another order: they were matched by their names."
    assert words in found.findings[1].notes
    audits = [audit(m, data, only="detection-accuracy") for m in (detector(*AFTER, "a"), turned)]
    assert repair_of(compare(audits)).value == pytest.approx(-3 / 15)

    maps = stripes(tmp_path)
    first = replace(tiny_segmenter(), source="first")
    second = pixel_segmenter([[0.0, 5.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    second = replace(second, labels=("class 1", "class 0", "class 2"), source="second")
    f = repair_of(compare([first, second], maps, only="segmentation-accuracy"))
    assert (f.value, f.interval) == (0, (0, 0))
    assert "mean IoU 80.1 % before, 80.1 % after" in f.headline
    assert repair_of(compare([audit(m, maps, only="segmentation-accuracy") for m in (first, second)])).value == 0


def test_a_model_is_loaded_once_for_its_kind_and_its_classes(tmp_path: Path) -> None:
    """And not at all where its folder says both."""
    model = detector(*BEFORE, "ours")
    loads: list[str] = []

    def load() -> Model:
        loads.append("ours")
        return model

    run = RunToCompare("ours", "./mine.py:ours", load)
    assert (run.kind, run.labels, loads) == ("detector", ("class 0", "class 1"), ["ours"])


def test_audits_are_paired_by_what_they_keep(data: Pictures) -> None:
    runs = [audit(detector(*b, n), data, only="detection-accuracy") for b, n in ((BEFORE, "one"), (AFTER, "two"))]
    f = repair_of(compare(runs))
    assert (f.quantity, f.n, f.evidence) == ("objects found gained", 8, ())
    assert f.value == pytest.approx(3 / 15)
    assert "AP50 100.0 % before, 50.0 % after; objects found 66.7 % before, 86.7 % after" in f.headline
    assert table_rows(f, "Pictures")[0]["picture"] == "p05.png"
    assert "AP50 orders the boxes of all pictures by their scores" in f.notes[1]
    other = audit(detector(*AFTER, "two"), data, only="detection-accuracy(score=0.2)")
    assert repair_of(compare([runs[0], other])).value is None


STRIPES = 16


def stripes(folder: Path) -> Pictures:
    """Left half red, right half green; the true boundary lies i pixels further right in picture i."""
    arrays, maps = [], []
    for i in range(N):
        a, m = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.int64)
        a[:, :STRIPES, 0], a[:, STRIPES:, 1] = 255, 255
        m[:, STRIPES + i :] = 1
        arrays.append(a)
        maps.append(m)
    return with_maps(folder, arrays, maps, ("class 0", "class 1", "class 2"))


def test_two_segmenters_by_hand(tmp_path: Path) -> None:
    """The first says class 0 everywhere. Of 8 pictures of 32 columns, 156 are of class 0 and 100 of class 1."""
    first = replace(pixel_segmenter([[5.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 5.0]]), source="first")
    second = replace(tiny_segmenter(), source="second")
    data = stripes(tmp_path)
    report = compare([first, second], data)
    f = repair_of(report)
    before, after = (156 / 256 + 0) / 2, (128 / 156 + 100 / 128) / 2
    assert f.value == pytest.approx(after - before)
    assert "IoU rose in 8 and fell in 0 of 8 pictures." in f.headline
    measures = {r["measure"]: r for r in table_rows(f, "Before and after")}
    assert measures["pixel accuracy"]["before"] == pytest.approx(156 / 256)
    assert measures["pixel accuracy"]["after"] == pytest.approx(228 / 256)
    by_class = [(r["class"], r["IoU difference"]) for r in table_rows(f, "By class")]
    assert by_class == [
        ("class 0", pytest.approx(128 / 156 - 156 / 256)),
        ("class 1", pytest.approx(100 / 128)),
    ]
    assert [e.picture for e in f.evidence] == names({0, 1, 2, 3, 4, 5})  # the first gains most
    assert table_rows(f, "Pictures")[-1]["picture"] == "p00.png"
    small = replace(first, preprocess=replace(first.preprocess, size=(16, 16)), source="small")
    resized = repair_of(compare([small, second], data))
    assert any("frame of its own input, 16 x 16 and 32 x 32 pixels" in note for note in resized.notes)
    audits = [audit(m, data, only="segmentation-accuracy") for m in (first, second)]
    own = np.mean([(16 / (16 + i) + (16 - i) / 16) / 2 - (16 + i) / 32 / 2 for i in range(N)])
    assert repair_of(compare(audits)).value == pytest.approx(own)


class Mine(Detector):
    """A detector of one's own, which may read its network's outputs in its own way."""


def test_what_cannot_be_compared_is_refused_by_name(data: Pictures, tmp_path: Path) -> None:
    data = replace(data, pictures=data.pictures[4:6])
    ours, segmenter = detector(*BEFORE, "ours"), replace(tiny_segmenter(), source="maps")
    with pytest.raises(Refused, match="ours is a detector and maps is a segmenter"):
        compare([ours, segmenter], data)
    other = replace(template_detector(torch.ones(3, 3, 4, 4), torch.zeros(3), 4, (32, 32)), source="other")
    with pytest.raises(Refused, match="other has other classes than ours: class 0, class 1, class 2 beside class 0"):
        compare([ours, other], data)
    mine = Mine(ours.net, ours.preprocess, ("class 1", "class 0"), "mine")
    with pytest.raises(Refused, match="mine is a Mine whose classes stand in another order"):
        compare([ours, mine], data)
    twice = [replace(other, labels=labels, source=n) for n, labels in (("x", ("a", "a", "b")), ("y", ("a", "b", "a")))]
    with pytest.raises(Refused, match="y has the classes of x in another order, and several have one name: a, a, b"):
        compare(twice, data)
    with pytest.raises(Refused, match="no check of a detector uses an explainer, such as saliency"):
        compare([ours, replace(ours, source="b")], data, method="saliency")
    with pytest.raises(Refused, match="accuracy was not asked: it judges one class"):
        compare([ours, replace(ours, source="b")], data, only="accuracy")
    bare = replace(data, pictures=tuple(replace(p, boxes=None) for p in data.pictures))
    with pytest.raises(Refused, match="a detector is judged by boxes, and 2 pictures have none"):
        compare([ours, replace(ours, source="b")], bare)
    fewer = replace(data, pictures=data.pictures[:1])
    audits = [audit(ours, d, only="detection-accuracy") for d in (data, fewer)]
    with pytest.raises(Refused, match="used other pictures or annotations than"):
        compare(audits)
    with pytest.raises(Refused, match="the demo has no truth for a detector"):
        compare([ours, replace(ours, source="b")], "demo")
    with pytest.raises(Refused, match="--masks says nothing of what a detector is to find: give --boxes"):
        compare([ours, replace(ours, source="b")], tmp_path, masks=tmp_path)
    with pytest.raises(Refused, match=r"ours has no split\.csv"):
        compare([ours, replace(ours, source="b")])


def test_pictures_that_training_runs_kept_from_themselves(data: Pictures, tmp_path: Path) -> None:
    """The test part of their own split.csv, with the boxes beside the pictures."""
    (tmp_path / "all" / "images").mkdir(parents=True)
    (tmp_path / "all" / "labels").mkdir()
    (tmp_path / "all" / "labels" / "classes.txt").write_text("class 0\nclass 1\n")
    runs, rows = [], ["file,label,split"]
    for i, p in enumerate(data.pictures):
        (tmp_path / "all" / "images" / p.name).write_bytes(p.path.read_bytes())
        (tmp_path / "all" / "labels" / f"{p.path.stem}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
        rows.append(f"../all/images/{p.name},class 0,{'test' if i % 2 else 'train'}")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "split.csv").write_text("\n".join(rows) + "\n")
        runs.append(RunToCompare(name, str(tmp_path / name)))
    options = dict.fromkeys(("boxes", "masks", "split", "voc_base", "classes"), None)
    kept = open_places("detector", runs, None, options)
    assert [p.path.name for p in kept.pictures] == names({1, 3, 5, 7})
    assert all(p.boxes is not None and len(p.boxes) == 1 for p in kept.pictures)
    assert any("the test pictures of the runs' own split.csv" in note for note in kept.notes)
    (tmp_path / "all" / "images" / "p01.png").unlink()
    with pytest.raises(Refused, match=r"1 of the 4 pictures that .* has in test are not among the annotated pictures"):
        open_places("detector", runs, None, options)
