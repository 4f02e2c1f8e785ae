"""The checks of detectors and segmenters on pictures whose answer can be written down."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_origin

import jsonschema
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from argsblock import check_args_block
from checkmanners import check_manners
from clearsight.auditing.audit import case_of, parse_checks, run_audit, run_checks
from clearsight.auditing.backgrounds import found as found_by
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.place_case import class_numbers
from clearsight.core.catalogue import catalogue
from clearsight.core.check_kinds import checks_of
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import Pictures
from clearsight.data.truth_records import PixelMap, PixelTruth
from clearsight.errors import Refused
from clearsight.evaluation.average_precision import average_precision
from clearsight.kinds.detections import Detections
from clearsight.kinds.detector import Detector
from clearsight.reporting.findings import Finding
from clearsight.testing import pixel_segmenter, template_detector, tiny_detector, tiny_segmenter
from placepictures import BLACK, BLUE, CORNERS, GREEN, RED, SIDE, box_truth, painted, with_boxes, with_maps

OF_DETECTORS = tuple(checks_of("detector"))
OF_SEGMENTERS = tuple(checks_of("segmenter"))


def finding(model: Model, data: Pictures, check: str, seed: int = 0) -> Finding:
    (found,) = run_checks(case_of(model, data, seed=seed), parse_checks(check, model.kind))
    return found


def squares(folder: Path, n: int = 8, ground: tuple[int, int, int] = BLACK) -> Pictures:
    """Two squares in each picture, a red and a blue one, both with their boxes."""
    arrays, truths = [], []
    for i in range(n):
        a, b = CORNERS[i % 8], CORNERS[(i + 3) % 8]
        arrays.append(painted([(*a, RED), (*b, BLUE)], ground))
        truths.append(box_truth([a, b], [0, 1]))
    return with_boxes(folder, arrays, truths)


def patches(folder: Path, n: int = 8) -> Pictures:
    """Left half red, right half green, the boundary a pixel further right from picture to picture; blue nowhere."""
    arrays, maps = [], []
    for i in range(n):
        a, m = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.int64)
        a[:, :16], a[:, 16:] = RED, GREEN
        m[:, 16 + i :] = 1
        arrays.append(a)
        maps.append(m)
    return with_maps(folder, arrays, maps, ("class 0", "class 1", "class 2"))


class Scattered(nn.Module):
    """The same number of boxes in each picture, anywhere: where, how sure and what is drawn from its pixels' sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for picture in x:
            draw = torch.Generator().manual_seed(int(picture.double().sum() * 1000) % 2**31)
            corner = torch.rand(12, 2, generator=draw) * 28
            logits = torch.randn(12, 2, generator=draw)
            rows.append(torch.cat([corner, corner + 4, torch.full((12, 1), 50.0), logits], 1))
        return torch.stack(rows) + 0 * self.weight


class OfTheGround(nn.Module):
    """Red squares on a green ground alone, and blue ones anywhere but there: it reads the corner below on the right.

    where: the place of a box that it reports instead of looking for squares, wherever the ground is green.
    """

    def __init__(self, where: Sequence[float] = ()) -> None:
        super().__init__()
        self.plain, self.where = tiny_detector().net, where

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.plain(x).clone()
        green = x[:, 1, -4:, :].mean((1, 2)) > 0.5
        if self.where:
            out[:, :, 5:] = -50.0
            out[:, 0, :4] = out.new_tensor(self.where)
            out[:, 0, 5] = torch.where(green, 5.0, -5.0)
            return out
        out[:, :, 5] -= torch.where(green, 0.0, 40.0)[:, None]
        out[:, :, 6] -= torch.where(green, 40.0, 0.0)[:, None]
        return out


def of_the_ground(where: Sequence[float] = ()) -> Detector:
    return Detector(OfTheGround(where), Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("class 0", "class 1"))


def on_two_grounds(folder: Path, n: int = 16) -> Pictures:
    """Red squares on green and blue ones on black, in turn, all at one place or another of the upper half."""
    arrays, truths = [], []
    for i in range(n):
        corner = [(4, 4), (20, 8)][i // 2 % 2]
        arrays.append(painted([(*corner, (RED, BLUE)[i % 2])], (GREEN, BLACK)[i % 2]))
        truths.append(box_truth([corner], [i % 2]))
    return with_boxes(folder, arrays, truths)


# Manners -------------------------------------------------------------------------------------------------------------


def place_model(check: str, folder: Path, n: int = 8) -> tuple[Model, Pictures]:
    """A model that the check judges, with mistakes of each kind, and pictures for it."""
    if check in OF_SEGMENTERS:
        return tiny_segmenter(), patches(folder, n)
    data = squares(folder, n)
    extra = painted([(*CORNERS[0], RED), (*CORNERS[3], BLUE), (*CORNERS[6], BLUE)])
    first = with_boxes(folder / "more", [extra], [box_truth([CORNERS[0], CORNERS[5]], [1, 0])]).pictures[0]
    return tiny_detector(), dataclasses.replace(data, pictures=(first, *data.pictures[1:]))


@pytest.mark.parametrize("check", [*OF_DETECTORS, *OF_SEGMENTERS])
def test_contract(check: str, tmp_path: Path) -> None:
    model, data = place_model(check, tmp_path)
    before = model.fingerprint()
    model.net.train()
    found = finding(model, data, check)
    check_manners(found, 8)
    assert model.fingerprint() == before
    assert model.net.training
    assert all(p.requires_grad and p.grad is None for p in model.net.parameters())
    again = finding(model, data, check)
    assert dataclasses.replace(found, seconds=0) == dataclasses.replace(again, seconds=0)


@pytest.mark.parametrize("check", [*OF_DETECTORS, *OF_SEGMENTERS])
def test_options_are_typed_and_documented_and_their_ranges_are_kept(check: str, tmp_path: Path) -> None:
    m = catalogue("checks")[check]
    assert m.paper
    assert m.advice
    kinds = [p.annotation for p in m.options.values()]
    assert all(kind in (int, float, str, bool) or get_origin(kind) is Literal for kind in kinds)
    check_args_block(m)
    model, data = place_model(check, tmp_path)
    bar = "floor" if "floor" in m.options else "ceiling"
    with pytest.raises(Refused, match=rf"{check}\("):
        finding(model, data, f"{check}({bar}=-0.1)")


@pytest.mark.parametrize("check", [*OF_DETECTORS, *OF_SEGMENTERS])
def test_two_pictures_are_too_few(check: str, tmp_path: Path) -> None:
    found = finding(*place_model(check, tmp_path, 2), check)
    assert (found.verdict, found.interval, found.n) == ("warn", None, 2)


# Detectors -----------------------------------------------------------------------------------------------------------


def test_every_square_is_found_and_the_worst_picture_comes_first(tmp_path: Path) -> None:
    found = finding(tiny_detector(), squares(tmp_path / "a"), "detection-accuracy")
    assert (found.verdict, found.n) == ("pass", 8)
    assert found.value == pytest.approx(1)
    assert found.chance is not None
    assert found.chance < 0.3
    assert not found.evidence
    flawed = finding(*place_model("detection-accuracy", tmp_path / "b"), "detection-accuracy")
    rows = flawed.tables[2].rows
    # red at 0 is annotated as blue, blue at 3 and 6 not at all, and the red square at 5 is not there
    assert rows[0] == {"picture": "p00.png", "objects": 2, "found": 0, "missed": 2, "false alarms": 3}
    assert all((r["missed"], r["false alarms"]) == (0, 0) for r in rows[1:])
    assert [e.picture for e in flawed.evidence] == ["p00.png"]
    assert "2 of 2 objects missed, 3 false alarms" in flawed.evidence[0].figure.caption
    assert flawed.value == pytest.approx(average_precision(case_of(*place_model("", tmp_path / "c")).boxes).mean.ap50)


def test_boxes_scattered_at_random_are_at_chance_and_fail(tmp_path: Path) -> None:
    data = squares(tmp_path, 24)
    scattered = Detector(Scattered(), Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("class 0", "class 1"))
    found = finding(scattered, data, "detection-accuracy")
    assert found.verdict == "fail"
    assert found.value is not None
    assert found.chance is not None
    assert found.value < 0.05
    assert abs(found.value - found.chance) < 0.05


def test_crowds_and_difficult_objects_are_not_judged(tmp_path: Path) -> None:
    truth = box_truth([CORNERS[0], CORNERS[1]], [0, 0], [False, True])
    difficult = dataclasses.replace(truth, crowd=truth.difficult, difficult=truth.crowd)
    for n, one in enumerate((truth, difficult)):
        data = with_boxes(tmp_path / str(n), [painted([(*CORNERS[0], RED)])] * 8, [one] * 8)
        found = finding(tiny_detector(), data, "detection-accuracy")
        assert found.value == pytest.approx(1)
        assert any("8 objects are a crowd or difficult" in note for note in found.notes)


def test_classes_that_are_called_by_numbers_on_both_sides_need_no_word(recwarn: pytest.WarningsRecorder) -> None:
    numbers = ("0", "7", "1")  # "1" is class 2 of the model, whose class 1 is "7"
    data = Pictures("here", (), objects=("1", "7"))
    assert class_numbers(data, numbers, dataclasses.replace(tiny_segmenter(), labels=numbers).index) == [2, 1]
    assert not recwarn.list


def test_classes_go_by_their_names_and_boxes_by_the_picture_not_the_input(tmp_path: Path) -> None:
    large = [np.kron(painted([(*c, RED)]), np.ones((4, 2, 1), np.uint8)) for c in CORNERS]  # 64 wide, 128 high
    truths = []
    for x, y in CORNERS:
        truth = box_truth([(x, y)], [1])
        truths.append(dataclasses.replace(truth, boxes=truth.boxes * torch.tensor([2.0, 4, 2, 4]), size=(64, 128)))
    data = with_boxes(tmp_path, large, truths, ("class 1", "class 0"))  # the data count the other way
    model = dataclasses.replace(tiny_detector(), preprocess=Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, "nearest"))
    case = case_of(model, data)
    assert isinstance(case, DetectorCase)
    assert case.found[1].truth_boxes.tolist() == [[24, 32, 32, 48]]
    assert case.found[1].boxes.tolist() == [[24, 32, 32, 48]]
    assert finding(model, data, "detection-accuracy").value == pytest.approx(1)
    strange = dataclasses.replace(data, objects=("class 1", "ship"))
    with pytest.raises(Refused, match=r"the data have the class 'ship'"):
        case_of(model, strange)


def test_the_costliest_error_is_the_one_that_was_made(tmp_path: Path) -> None:
    arrays = [painted([(*c, RED)]) for c in CORNERS]
    swapped = with_boxes(tmp_path / "a", arrays, [box_truth([c], [1]) for c in CORNERS])
    found = finding(tiny_detector(), swapped, "detection-errors")
    assert (found.verdict, found.quantity) == ("fail", "AP50 lost to class")
    assert found.value == pytest.approx(1)
    assert found.interval == pytest.approx((1, 1))
    assert found.tables[0].rows[0]["errors"] == 8
    assert {e.facts["type"] for e in found.evidence} == {"class"}
    assert found.evidence[0].facts["object"] == "class 1"
    shifted = with_boxes(tmp_path / "b", arrays, [box_truth([(x + 2, y)], [0]) for x, y in CORNERS])
    assert finding(tiny_detector(), shifted, "detection-errors").quantity == "AP50 lost to place"
    unseen = with_boxes(tmp_path / "c", [painted([])] * 8, [box_truth([c], [0]) for c in CORNERS])
    missed = finding(tiny_detector(), unseen, "detection-errors")
    assert [r["errors"] for r in missed.tables[0].rows if r["type"] == "missed"] == [8]
    assert [e.facts["type"] for e in missed.evidence] == ["missed"] * 3


@pytest.mark.parametrize(("bias", "verdict"), [(-8.0, "pass"), (-6.0, "fail")])
def test_scores_are_held_against_precision(bias: float, verdict: str, tmp_path: Path) -> None:
    """Every red square scores sigmoid(8 + bias), and every other one is annotated: precision is 1/2."""
    weight = tiny_detector().net.match.weight.detach()
    model = template_detector(weight, torch.tensor([bias, -50.0]), 4, (SIDE, SIDE))
    a, b, c = CORNERS[:3]
    dim = (round(255 * (-2.2 - bias) / 8), 0, 0)  # a score of 0.1, which does not count
    data = with_boxes(tmp_path, [painted([(*a, RED), (*b, RED), (*c, dim)])] * 8, [box_truth([a], [0])] * 8)
    found = finding(model, data, "detection-calibration")
    score = 1 / (1 + math.exp(-(8 + bias)))
    assert found.verdict == verdict
    assert found.value == pytest.approx(abs(score - 0.5), abs=1e-5)
    assert found.interval == pytest.approx((found.value, found.value))  # every picture is like the others
    assert f"mean score of {100 * score:.1f} % at a precision of 50.0 %" in found.headline
    assert {r["measure"]: r["value"] for r in found.tables[0].rows}["recall"] == 1
    low = finding(model, data, "detection-calibration(score=0.99)")
    assert (low.verdict, low.n) == ("note", 0)


def test_false_alarms_are_counted_on_background_alone(tmp_path: Path) -> None:
    """Two unannotated squares in each picture; in every other one an annotated square beside them."""
    a, b, c = CORNERS[:3]
    arrays = [painted([(*a, RED), (*b, BLUE)] + [(*c, RED)] * (i % 2)) for i in range(8)]
    data = with_boxes(tmp_path, arrays, [box_truth([c] * (i % 2), [0] * (i % 2)) for i in range(8)])
    found = finding(tiny_detector(), data, "false-alarms")
    assert (found.verdict, found.value, found.interval) == ("fail", 2.0, (2.0, 2.0))
    assert "4 pictures show no object" in found.notes[1]
    assert {r["class"]: r["false alarms"] for r in found.tables[1].rows} == {"class 0": 8, "class 1": 8}
    assert len(found.evidence) == 12
    clean = finding(tiny_detector(), squares(tmp_path / "clean"), "false-alarms")
    assert (clean.verdict, clean.value) == ("pass", 0.0)


def test_a_detector_that_reads_the_background_fails_and_one_that_does_not_passes(tmp_path: Path) -> None:
    data = on_two_grounds(tmp_path)
    fair = finding(tiny_detector(), data, "background-shortcuts")
    assert (fair.verdict, fair.value) == ("pass", 0.0)
    assert [r["share found"] for r in fair.tables[0].rows] == [1, 1, 1, 0]
    assert not fair.evidence
    caught = finding(of_the_ground(), data, "background-shortcuts")
    assert (caught.verdict, caught.value, caught.n) == ("fail", 1.0, 16)
    assert [r["share found"] for r in caught.tables[0].rows] == [1, 1, 0, 0]
    assert len(caught.evidence) == 8
    assert (
        "1 of 1 object found on their own background, mirrored (above), 0 on that of"
        in caught.evidence[0].figure.caption
    )
    assert finding(of_the_ground(), data, "detection-accuracy").verdict == "pass"  # which no accuracy shows


def test_objects_that_are_reported_once_they_are_gone_fail(tmp_path: Path) -> None:
    """It reports a box at one place wherever the ground is green; there is always a red square there."""
    corner = (8, 8)
    arrays = [painted([(*corner, RED)], GREEN)] * 8
    data = with_boxes(tmp_path, arrays, [box_truth([corner], [0])] * 8)
    found = finding(of_the_ground((8, 8, 12, 12)), data, "background-shortcuts")
    assert (found.verdict, found.value) == ("fail", 0.0)
    assert [r["share found"] for r in found.tables[0].rows] == [1, 1, 1, 1]
    beside = finding(of_the_ground((8, 8, 12, 12)), data, "false-alarms")
    assert beside.value == 0
    assert "8 further boxes lie on places that were painted over." in beside.notes


def test_without_a_second_background_there_is_nothing_to_swap(tmp_path: Path) -> None:
    one = squares(tmp_path, 1)
    assert finding(tiny_detector(), one, "background-shortcuts").verdict == "note"
    full = dataclasses.replace(box_truth([(0, 0)], [0]), boxes=torch.tensor([[0.0, 0, 32, 32]]))
    covered = with_boxes(tmp_path / "full", [painted([])] * 8, [full] * 8)
    assert finding(tiny_detector(), covered, "background-shortcuts").verdict == "note"
    assert finding(tiny_detector(), covered, "false-alarms").verdict == "note"


# Segmenters ----------------------------------------------------------------------------------------------------------


def test_iou_is_that_of_one_matrix_and_the_worst_picture_comes_first(tmp_path: Path) -> None:
    found = finding(tiny_segmenter(), patches(tmp_path), "segmentation-accuracy(floor=0.6)")
    wrong = 32 * sum(range(8))  # pixels of class 0 that are said to be of class 1
    left, right = 8 * 16 * 32 + wrong, 8 * 16 * 32 - wrong
    iou = ((left - wrong) / left, right / (right + wrong))
    assert found.value == pytest.approx(np.mean(iou))
    assert found.verdict == "pass"
    assert found.chance == pytest.approx(left / (left + right) / 2)
    by_class = {r["class"]: r for r in found.tables[1].rows}
    assert [by_class[f"class {k}"]["IoU"] for k in (0, 1)] == pytest.approx(iou)
    assert by_class["class 2"]["IoU"] is None
    assert by_class["class 0"]["Dice"] == pytest.approx(2 * (left - wrong) / (2 * left - wrong))
    measures = {r["measure"]: r["value"] for r in found.tables[0].rows}
    assert measures["pixel accuracy"] == pytest.approx(1 - wrong / (left + right))
    assert [r["picture"] for r in found.tables[2].rows] == [f"p{i:02}.png" for i in range(7, -1, -1)]
    assert [e.picture for e in found.evidence] == [f"p{i:02}.png" for i in range(7, 0, -1)]
    assert "where it says class 1 for class 0: 1 x 1 pixels" in found.evidence[0].figure.caption


def test_pixels_that_are_not_judged_and_a_constant_answer(tmp_path: Path) -> None:
    data = patches(tmp_path)
    arrays = [np.zeros((SIDE, SIDE, 3), np.uint8)] * 8
    maps = [np.where(np.arange(SIDE)[None] < 24, i % 2, 255) * np.ones((SIDE, 1), np.int64) for i in range(8)]
    half = with_maps(tmp_path / "half", arrays, maps, data.objects)
    constant = pixel_segmenter([[0.0] * 3, [-1.0] * 3, [-1.0] * 3])
    found = finding(constant, half, "segmentation-accuracy")  # all of class 0, of which half of the judged pixels are
    assert found.value == pytest.approx(0.25)
    assert found.chance == pytest.approx(0.25)
    assert found.verdict == "fail"
    assert "the cross (column 11, row 11), where it says class 0 for class 1" in found.evidence[0].figure.caption
    nothing = with_maps(tmp_path / "none", arrays, [np.full((SIDE, SIDE), 255)] * 8, data.objects)
    assert finding(constant, nothing, "segmentation-accuracy").verdict == "note"


# The audit -----------------------------------------------------------------------------------------------------------


def test_an_audit_of_a_detector_names_what_it_cannot_judge(tmp_path: Path) -> None:
    data = squares(tmp_path / "photos")
    (tmp_path / "bars.toml").write_text("[detection-accuracy]\nat_least = 0.9\n[false-alarms]\nat_most = 0.1\n")
    report = cs.audit(tiny_detector(), data, gate=tmp_path / "bars.toml", folder=tmp_path / "run")
    assert [f.check for f in report.findings] == list(OF_DETECTORS)
    assert not [f.headline for f in report.findings if f.verdict == "error"]
    assert [bar.held for bar in report.facts.gate or ()] == [True, True]
    refused = {one.check: one.reason for one in report.facts.not_judged}
    assert set(refused) == set(catalogue("checks")) - set(OF_DETECTORS)
    assert refused["robustness"] == "it judges one class for a whole picture, and a detector gives boxes"
    fields = json.loads((tmp_path / "run" / "report.json").read_text())
    schema = Path(cs.__file__).parent / "reporting" / "report.schema.json"
    jsonschema.validate(fields, json.loads(schema.read_text()))
    assert fields["model"]["kind"] == "detector"
    assert (fields["data"]["annotated"], fields["asked"], fields["method"]) == (8, "", "")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "robustness" in page[page.index("Not judged") : page.index("Where this comes from")]
    assert cs.Report.read(tmp_path / "run").facts == report.facts
    assert report.opening[1] == "Every check that judges a detector was asked."


def test_checks_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    data = squares(tmp_path)
    with pytest.raises(Refused, match=r"robustness was not asked: it judges one class for a whole picture"):
        cs.audit(tiny_detector(), data, only="robustness")
    with pytest.raises(Refused, match=r"detection-errors was not asked: it judges boxes, and a segmenter gives"):
        cs.audit(tiny_segmenter(), patches(tmp_path / "maps"), only="segmentation-accuracy, detection-errors")
    (tmp_path / "bars.toml").write_text("[robustness]\nat_least = 0.5\n")
    with pytest.raises(Refused, match=r"a bar for robustness, which cannot be asked: it judges one class"):
        cs.audit(tiny_detector(), data, gate=tmp_path / "bars.toml")
    with pytest.raises(Refused, match=r"no check of a detector uses an explainer"):
        cs.audit(tiny_detector(), data, method="grad-cam")
    with pytest.raises(Refused, match=r"judged by boxes, and 8 pictures have none"):
        cs.audit(tiny_detector(), patches(tmp_path / "maps"))
    with pytest.raises(Refused, match=r"judged by class maps, and 8 pictures have none"):
        cs.audit(tiny_segmenter(), data)
    with pytest.raises(Refused, match=r"the demo has no truth for a detector"):
        cs.audit(tiny_detector())


def test_a_stopped_audit_goes_on_if_the_truth_is_the_same(tmp_path: Path) -> None:
    model, data = tiny_detector(), squares(tmp_path / "photos")
    folder = tmp_path / "run"
    folder.mkdir()
    calls = parse_checks("detection-accuracy, detection-errors", "detector")

    def stop(done: Sequence[object]) -> None:
        raise KeyboardInterrupt

    report = run_audit(model, data, calls[:1], folder=folder)
    facts = dataclasses.replace(report.facts, complete=False)
    dataclasses.replace(report, facts=facts).save(folder)
    other = dataclasses.replace(data.pictures[0], boxes=box_truth([(4, 4)], [0]))
    changed = dataclasses.replace(data, pictures=(other, *data.pictures[1:]))
    with pytest.raises(Refused, match="another data"):
        run_audit(model, changed, calls, folder=folder)
    assert run_audit(model, data, calls, folder=folder).findings[0].seconds == report.findings[0].seconds


def test_a_picture_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    data = squares(tmp_path, 9)
    data.pictures[4].path.write_bytes(b"no picture")
    report = cs.audit(tiny_detector(), data, only="detection-accuracy")
    assert report.findings[0].n == 8
    assert [b.file for b in report.facts.data.broken] == ["p04.png"]


def test_a_picture_whose_truth_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    data = patches(tmp_path, 9)

    def unreadable() -> PixelMap:
        raise Refused("its mask is torn")

    torn = dataclasses.replace(data.pictures[2], pixels=PixelTruth((SIDE, SIDE), unreadable))
    report = cs.audit(
        tiny_segmenter(), dataclasses.replace(data, pictures=(*data.pictures[:2], torn, *data.pictures[3:]))
    )
    assert report.findings[0].n == 8
    assert [(b.file, b.reason) for b in report.facts.data.broken] == [("p02.png", "its mask is torn")]


def test_an_object_is_found_by_its_class_its_place_and_its_score() -> None:
    box, none = torch.tensor([[0.0, 0, 4, 4]]), torch.zeros(1)
    said = Detections(box, torch.tensor([0.5]), torch.tensor([1]), none.long(), none[None])
    for classes, place, score, right in ((1, 0, 0.5, True), (0, 0, 0.5, False), (2, 0, 0.5, False), (1, 3, 0.5, False)):
        assert found_by(box + place, torch.tensor([classes]), said, score) == [right]
    assert found_by(box, torch.tensor([1]), said, 0.51) == [False]


def test_memory_holds_boxes_and_not_outputs(tmp_path: Path) -> None:
    case = case_of(tiny_detector(), squares(tmp_path, 40))
    assert isinstance(case, DetectorCase)
    held = [v for one in case.found for v in vars(one).values()]
    assert all(isinstance(v, np.ndarray) and v.size <= 16 for v in held)
