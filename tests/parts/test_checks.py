"""The checks of the audit on cases whose answer can be written down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_origin
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from argsblock import check_args_block
from checkmanners import check_manners
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.clock import OF_THE_FIRST, Clock
from clearsight.checks.faithfulness import verdict_of as faithful
from clearsight.checks.sanity import alike
from clearsight.core.calibration_error import ece
from clearsight.core.catalogue import catalogue
from clearsight.core.check_kinds import checks_of
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import bootstrap, tails, wilson
from clearsight.core.targets import ClassScore
from clearsight.data.annotations import Region
from clearsight.data.datasets import Pictures
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.internals.randomisation import reinitialise
from clearsight.reporting.findings import Finding
from clearsight.runner.run import explain, measure
from thinning import with_slow
from twohalves import HEIGHT, WIDTH, Halves, found, model, rows, written

CHECKS = tuple(checks_of("classifier"))  # those of detectors and segmenters: test_place_checks
# what divides the pictures, or reads those of a run folder, is held to the same manners in tests/parts/test_steal.py
ON_ALL_PICTURES = tuple(name for name in CHECKS if name not in ("model-stealing", "membership-inference"))


class Given(nn.Module):
    """Says what the picture's first pixels hold: a table of logits, looked up by the brightness of the first pixel."""

    def __init__(self, logits: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.table[(x[:, 0, 0, 0] * 255).round().long()] + 0 * x.mean((1, 2, 3))[:, None]


def halves(folder: Path, n: int = 8, region: str = "", left: tuple[int, int] = (200, 90)) -> Pictures:
    """Pictures whose left half is bright (even) or dark (odd), with noise all over, and named so."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(n):
        a = rng.integers(100, 140, (HEIGHT, WIDTH))
        a[:, : WIDTH // 2] = left[i % 2] + rng.integers(-9, 10, (HEIGHT, WIDTH // 2))
        pictures.append(a)
    return written(folder, pictures, [("bright", "dark")[i % 2 : i % 2 + 1] for i in range(n)], region)


def table_case(
    folder: Path, logits: Sequence[Sequence[float]], truth: Sequence[tuple[str, ...]], labels: Sequence[str]
) -> Case:
    """A case whose logits are these, picture by picture."""
    pictures = [np.full((HEIGHT, WIDTH), i) for i in range(len(logits))]
    return Case(model(Given(logits), labels), written(folder, pictures, truth), method="saliency")


# Manners -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", with_slow(ON_ALL_PICTURES, "explainer-ranking"))
def test_contract(check: str, tmp_path: Path) -> None:
    net = Halves(classes=7)
    labels = ("bright", "dark", *"cdefg")
    case = Case(model(net.train(), labels), halves(tmp_path, region="left"))
    before = case.model.fingerprint()
    f = found(case, check)
    check_manners(f, 8)
    assert case.model.fingerprint() == before
    assert case.model.net.training
    assert all(p.requires_grad and p.grad is None for p in case.model.net.parameters())
    assert not any(m._forward_hooks for m in case.model.net.modules())


@pytest.mark.parametrize("check", CHECKS)
def test_options_are_typed_and_documented(check: str) -> None:
    m = catalogue("checks")[check]
    assert m.paper
    assert not m.injected
    kinds = [p.annotation for p in m.options.values()]
    assert all(kind in (int, float, str, bool) or get_origin(kind) is Literal for kind in kinds)
    check_args_block(m)


@pytest.mark.parametrize(
    "check", with_slow(CHECKS, "explainer-ranking", "faithfulness", "gradient-masking", "purification")
)
def test_same_seed_same_finding(check: str, tmp_path: Path) -> None:
    data = halves(tmp_path, region="left")
    findings = [found(Case(model(Halves()), data, seed=3), check) for _ in range(2)]
    a, b = (dataclasses.replace(f, seconds=0) for f in findings)
    assert a == b


@pytest.mark.parametrize("check", ON_ALL_PICTURES)
def test_a_single_picture_is_never_enough(check: str, tmp_path: Path) -> None:
    f = found(Case(model(Halves()), halves(tmp_path, 1, region="left")), check)
    if check in ("groups", "shortcuts"):
        assert (f.verdict, f.n) == ("note", 0)
        return
    assert f.verdict in ("warn", "fail"), f.headline  # a Wilson interval of one may lie below a floor, never above
    assert f.n == 1


@pytest.mark.parametrize("check", with_slow(ON_ALL_PICTURES, "explainer-ranking"))
def test_without_labels_and_boxes(check: str, tmp_path: Path) -> None:
    data = halves(tmp_path)
    bare = dataclasses.replace(data, pictures=tuple(dataclasses.replace(p, labels=()) for p in data.pictures))
    f = found(Case(model(Halves()), bare), check)
    if check in ("accuracy", "calibration", "robustness", "corruptions", "groups"):
        assert (f.verdict, f.n) == ("note", 0)
        assert "label" in f.headline
    elif check in ("localisation", "trustworthiness"):
        assert (f.verdict, f.n) == ("note", 0)
        assert "--boxes" in f.headline
        assert "--masks" in f.headline
    elif check == "shortcuts":  # four of each answer, in grey
        assert (f.verdict, f.n) == ("note", 0)
        assert "too few" in f.headline
    else:
        assert f.n == 8


@pytest.mark.parametrize("check", with_slow(ON_ALL_PICTURES, "explainer-ranking"))
def test_a_broken_picture_is_left_out(check: str, tmp_path: Path) -> None:
    data = halves(tmp_path, region="left")
    data.pictures[3].path.write_bytes(b"\xff\xd8\xff nothing more")
    case = Case(model(Halves()), data)
    assert found(case, check).n == 7
    assert [name for name, _ in case.broken] == ["03.png"]


@pytest.mark.parametrize("check", ["faithfulness", "sanity", "robustness", "corruptions", "localisation"])
def test_a_tiny_budget_does_some_and_says_so(check: str, tmp_path: Path) -> None:
    case = Case(model(Halves()), halves(tmp_path, 20, region="left"), budget=1e-3)
    f = found(case, check)
    assert 1 <= f.n < 20
    assert f.n < len(case.pictures)
    assert any("budget" in note for note in f.notes)


def test_a_check_that_the_budget_leaves_no_time_for_is_undecided_and_says_so(tmp_path: Path) -> None:
    case = Case(model(Halves()), halves(tmp_path, 20, region="left"), budget=1e-3)
    first, second, third = run_checks(case, parse_checks("sanity, accuracy, robustness(steps=2)"))
    assert first.n == 1  # the first one always gets its picture
    for f in (second, third):
        assert (f.verdict, f.value, f.seconds) == ("warn", None, 0)
        assert f.headline == "It was not run: the checks before it used up the budget of 0.001 s."
    assert third.check == "robustness(steps=2)"
    assert "--only 'robustness(steps=2)'" in third.command
    assert second.summary == catalogue("checks")["accuracy"].summary


def test_a_check_is_given_up_soon_after_the_budget_whatever_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(60)
    assert clock.last_moment() is None
    clock.start()
    assert clock.last_moment() - clock.now() == pytest.approx(63, abs=0.5)
    assert clock.last_moment(OF_THE_FIRST) - clock.now() == pytest.approx(68, abs=0.5)
    assert Clock().last_moment() is None
    for took, moment in ((2, 61), (9, 60)):  # what a command took until now
        monkeypatch.setattr("clearsight.auditing.clock.since_command", lambda took=took: took)
        clock.start()
        assert clock.last_moment() - clock.now() == pytest.approx(moment, abs=0.5)
    (tmp_path / "mine.py").write_text(
        "import time\ndef long(case):\n    end = time.monotonic() + 2\n    while time.monotonic() < end:\n"
        "        try: case.model(case.pixels([0]))\n        except Exception: pass\n"
    )
    monkeypatch.setattr(Clock, "last_moment", lambda self, grace=3: self.now() + (60 if grace > 3 else 0.05))
    case = Case(model(Halves()), halves(tmp_path), budget=60)
    first, long, last = run_checks(case, parse_checks(f"sanity, {tmp_path}/mine.py:long, accuracy"))
    assert first.n == last.n == 8
    monkeypatch.setattr(Clock, "last_moment", lambda self, grace=3: self.now() + 0.05)
    (alone,) = run_checks(Case(model(Halves()), halves(tmp_path), budget=60), parse_checks(f"{tmp_path}/mine.py:long"))
    for stopped in (long, alone):
        assert (stopped.verdict, stopped.value) == ("warn", None)
        assert stopped.headline == "It was stopped: the budget of 60 s was used up before it was done."


def test_a_check_that_raises_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def broken(case): raise RuntimeError('the disk is full')")
    f = found(Case(model(Halves()), halves(tmp_path)), f"{tmp_path}/mine.py:broken")
    assert f.verdict == "error"
    assert "the disk is full" in f.headline


# Accuracy ------------------------------------------------------------------------------------------------------------


def test_accuracy_by_hand(tmp_path: Path) -> None:
    logits = [[3.0, 0, 0], [0, 3.0, 0], [0, 1.0, 0], [0, 0, 2.0], [1.0, 0.5, 0]]
    truth = [("a",), ("a", "b"), ("a",), ("b", "a"), ()]
    f = found(table_case(tmp_path, logits, truth, "abc"), "accuracy")
    assert (f.value, f.n, f.interval) == (0.5, 4, wilson(2, 4))
    assert f.verdict == "warn"
    assert f.chance == pytest.approx((1 + 2 + 1 + 2) / 4 / 3)
    wrong = rows(f, "Wrong pictures")
    assert [(r["picture"], r["said"], r["acceptable"], r["its rank"]) for r in wrong] == [
        ("03.png", "c", "a or b", 2),
        ("02.png", "b", "a", 2),
    ]
    assert wrong[0]["probability"] == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-6)
    assert [e.picture for e in f.evidence] == ["03.png", "02.png"]
    assert [(r["class"], r["right"], r["n"]) for r in rows(f, "By class")] == [("a", 1, 2), ("a or b", 1, 2)]
    assert [tuple(r.values()) for r in rows(f, "Confusions")] == [("a", "b", 1), ("a or b", "c", 1)]
    assert "1 picture has no label" in " ".join(f.notes)
    assert "top-5" not in str(f.tables)


def test_accuracy_top_five_and_verdicts(tmp_path: Path) -> None:
    case = table_case(tmp_path, [[6.0, 5, 4, 3, 2, 1, 0]] * 30, [("e",)] * 15 + [("g",)] * 15, "abcdefg")
    f = found(case, "accuracy")
    assert (f.value, f.verdict) == (0.0, "fail")
    assert [r["right"] for r in rows(f, "How often")] == [0, 15]
    assert len(f.evidence) == 12
    assert found(case, "accuracy(floor=0)").verdict == "pass"


def test_accuracy_passes_only_where_the_whole_interval_does(tmp_path: Path) -> None:
    """30 of 30 right: the interval begins at 88.6 %."""
    case = table_case(tmp_path, [[1.0, 0]] * 30, [("a",)] * 30, "ab")
    assert [found(case, f"accuracy(floor={floor})").verdict for floor in (0.88, 0.89)] == ["pass", "warn"]


def test_accuracy_says_what_a_constant_answer_reaches(tmp_path: Path) -> None:
    f = found(table_case(tmp_path, [[1.0, 0]] * 4, [("a",), ("a",), ("a",), ("b",)], "ab"), "accuracy")
    assert any("Always answering a would be right on 75.0 %, which the model does not exceed" in n for n in f.notes)


# Calibration ---------------------------------------------------------------------------------------------------------


def logit(p: float) -> list[float]:
    return [float(np.log(p / (1 - p))), 0.0]


def test_ece_by_hand(tmp_path: Path) -> None:
    """Ten answers with 0.9, six of them right, and ten with 0.65, eight right: (0.3 + 0.15) / 2."""
    truth = [("a",)] * 6 + [("b",)] * 4 + [("a",)] * 8 + [("b",)] * 2
    f = found(table_case(tmp_path, [logit(0.9)] * 10 + [logit(0.65)] * 10, truth, "ab"), "calibration(bins=10)")
    assert f.value == pytest.approx(0.225, abs=1e-5)
    bins = rows(f, "The 10 bins")
    assert [(r["n"], r["accuracy"]) for r in bins] == [(10, 0.8), (10, 0.6)]
    measures = {str(r["measure"]): r["value"] for r in rows(f, "Measures")}
    assert measures["mean confidence"] == pytest.approx(0.775, abs=1e-5)
    assert measures["Brier score of the top class"] == pytest.approx(
        (6 * 0.01 + 4 * 0.81 + 8 * 0.35**2 + 2 * 0.65**2) / 20, abs=1e-5
    )
    likelihood = 6 * np.log(0.9) + 4 * np.log(0.1) + 8 * np.log(0.65) + 2 * np.log(0.35)
    assert measures["negative log-likelihood of the acceptable classes (nats)"] == pytest.approx(
        -likelihood / 20, abs=1e-5
    )


def test_ece_edges() -> None:
    assert ece(np.array([0.9, 0.5]), np.array([0.0, 1.0]), 2) == pytest.approx(0.7)  # 0.5 is in the lower bin
    assert ece(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 2) == pytest.approx(0)
    assert ece(np.array([0.6, 0.9]), np.array([1.0, 0.0]), 1) == pytest.approx(0.25)  # gaps cancel inside a bin


def test_calibration_is_undecided_within_chance_and_fails_beyond(tmp_path: Path) -> None:
    """Three pictures cannot convict a model that is 60 % sure and right once; two hundred can."""
    few = found(table_case(tmp_path, [logit(0.6)] * 3, [("a",), ("b",), ("b",)], "ab"), "calibration")
    assert few.verdict == "warn"
    assert few.chance is not None
    assert few.chance > 0.1
    sure = [logit(0.5 + 0.02 * k) for k in range(1, 13)]
    apart = found(table_case(tmp_path, sure, [("a",), ("b",)] * 6, "ab"), "calibration(bins=1000)")
    assert apart.interval is not None
    assert apart.interval[0] > 0.1  # every picture has a bin of its own, which looks bad for any model
    assert apart.verdict == "warn"
    many = found(table_case(tmp_path, [logit(0.9)] * 200, [("a",)] * 100 + [("b",)] * 100, "ab"), "calibration")
    assert many.verdict == "fail"
    assert many.chance is not None
    assert many.chance < 0.05
    good = found(table_case(tmp_path, [logit(0.9)] * 200, [("a",)] * 180 + [("b",)] * 20, "ab"), "calibration")
    assert good.verdict == "pass"
    assert "over-confident" in many.headline
    assert "neither over- nor under-confident" in good.headline


# Looks at the object ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["integrated-gradients(steps=4)", "saliency"])
def test_localisation(method: str, tmp_path: Path) -> None:
    """The network sees the left half alone; with the boxes on the right it is right for the wrong reason."""
    good = found(
        Case(model(Halves()), halves(tmp_path, 16, region="left", left=(200, 120)), method=method),
        "localisation",
    )
    assert good.verdict == "pass"
    assert good.value == pytest.approx(1.0)
    assert good.chance == pytest.approx(0.5)
    ious = [r["mean"] for r in rows(good, "On the object") if str(r["measure"]).startswith("box IoU")]
    assert ious == pytest.approx([1.0, 0.5, 0.5])  # the left half, the whole picture, their difference
    assert top_1(good) == (good.n / 16, 16)  # of which some maps have nothing positive, and no box
    net, right_boxes = model(Halves()), halves(tmp_path, 16, region="right", left=(200, 120))
    bad = found(Case(net, right_boxes, method=method), "localisation")
    assert bad.verdict == "fail"
    assert bad.value == pytest.approx(0.0)
    ious = [r["mean"] for r in rows(bad, "On the object") if str(r["measure"]).startswith("box IoU")]
    assert ious == pytest.approx([0.0, 0.5, -0.5])
    assert top_1(bad) == (0.0, 16)
    assert found(Case(net, right_boxes, method=method), "localisation(floor=0)").verdict == "fail"
    assert "right for the wrong reason" in bad.headline
    right = [r for r in rows(bad, "By picture") if r["answer"] == "right" and r["on the object"] is not None]
    assert len(right) == bad.n
    assert all(r["remark"] == "right for the wrong reason" for r in right)


def top_1(finding: Finding) -> tuple[object, object]:
    [row] = [r for r in rows(finding, "On the object") if "top-1" in str(r["measure"])]
    return row["mean"], row["n"]


def test_localisation_counts_only_right_answers(tmp_path: Path) -> None:
    data = halves(tmp_path, region="left")
    swapped = (dataclasses.replace(data.pictures[0], labels=("dark",)), *data.pictures[1:])
    f = found(Case(model(Halves()), dataclasses.replace(data, pictures=swapped), method="saliency"), "localisation")
    assert f.n == 7
    assert rows(f, "By picture")[-1]["answer"] == "wrong"
    assert top_1(f) == (pytest.approx(7 / 8), 8)
    assert any("1 picture is answered wrong" in n for n in f.notes)


def test_localisation_leaves_out_what_cannot_tell(tmp_path: Path) -> None:
    """An object that is cut away, one that fills the view, and a mask that cannot be read."""
    data = halves(tmp_path, region="left")
    broken = tmp_path / "mask.txt"
    broken.write_text("no picture")
    odd = (
        Region(boxes=((-9.0, 0.0, -1.0, 5.0),)),
        Region(boxes=((0.0, 0.0, float(WIDTH), float(HEIGHT)),)),
        Region(mask=broken),
    )
    pictures = [dataclasses.replace(p, regions=(r,)) for p, r in zip(data.pictures, odd, strict=False)]
    data = dataclasses.replace(data, pictures=(*pictures, *data.pictures[3:]))
    f = found(Case(model(Halves()), data, method="saliency"), "localisation")
    assert f.n == 5
    notes = " ".join(f.notes)
    assert "00.png is left out: its object lies outside" in notes
    assert "01.png is left out: its object fills all" in notes
    assert "02.png is left out" in notes


def test_localisation_measures_each_map_with_its_own_picture(tmp_path: Path) -> None:
    """The map is the picture: of a left half of 60 k beside 60 it holds k / (k + 1).  Every other one is left out."""
    (tmp_path / "mine.py").write_text("def bright(model, x, target):\n    return x[:, 0]\n")
    pictures = [np.full((HEIGHT, WIDTH), 60) for _ in range(8)]
    for i, a in enumerate(pictures):
        a[:, : WIDTH // 2] *= 1 + i // 2
    labels = [("dark",) if i < 4 else ("bright",) for i in range(8)]
    data = written(tmp_path, pictures, labels, "left")
    outside = (Region(boxes=((-9.0, 0.0, -1.0, 5.0),)),)
    there = [dataclasses.replace(p, regions=outside) if i % 2 else p for i, p in enumerate(data.pictures)]
    data = dataclasses.replace(data, pictures=tuple(there))
    f = found(Case(model(Halves()), data, method=f"{tmp_path}/mine.py:bright"), "localisation")
    measured = {r["picture"]: r["on the object"] for r in rows(f, "By picture")}
    assert measured == pytest.approx({f"{2 * k - 2:02}.png": k / (k + 1) for k in (1, 2, 3, 4)})


def test_localisation_counts_empty_maps(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def nothing(model, x, target):\n    return -x[:, 0] * 0\n")
    case = Case(model(Halves()), halves(tmp_path, region="left"), method=f"{tmp_path}/mine.py:nothing")
    f = found(case, "localisation")
    assert (f.verdict, f.n) == ("note", 0)
    assert any("8 maps have no positive relevance" in n for n in f.notes)


# Faithfulness -------------------------------------------------------------------------------------------------------

MINE = """
import torch

def left(model, x, target):
    # brightness of the half that counts, towards the class asked for
    sign = 1 - 2 * target.index.to(x.device).float().view(-1, 1, 1)
    return sign * x[:, 0] * (torch.arange(x.shape[3]) < x.shape[3] // 2)

def wrong(model, x, target):
    return -left(model, x, target)

def flat(model, x, target):
    return torch.ones_like(x[:, 0])

def edges(model, x, target):
    return (x[:, 0] - x[:, 0].roll(1, 2)).abs()
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


def test_faithfulness_of_a_right_an_inverted_and_a_flat_map(mine: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # the left half bright in places: those places are what speaks for "bright"
    bright = [rng.integers(0, 2, (HEIGHT, WIDTH)) * 255 for _ in range(10)]
    data = written(tmp_path, bright, [("bright",)] * 10)
    net = model(Halves(gain=12.0))
    right, wrong, flat = (
        found(Case(net, data, method=f"{mine}:{m}"), "faithfulness") for m in ("left", "wrong", "flat")
    )
    assert (right.verdict, wrong.verdict) == ("pass", "fail")
    assert flat.verdict != "pass"
    assert right.value is not None
    assert wrong.value is not None
    assert flat.value is not None
    assert right.value > 0.1
    assert wrong.value < -0.1
    assert abs(flat.value) < 0.05
    assert right.unit == ""


def test_faithfulness_is_what_the_metrics_measure(mine: str, tmp_path: Path) -> None:
    case = Case(model(Halves()), halves(tmp_path), method=f"{mine}:edges")
    f = found(case, "faithfulness(steps=7)")
    row = {str(r["picture"]): r for r in rows(f, "By picture")}
    x, maps = case.pixels(range(8)), case.maps(list(range(8)), case.pixels(range(8)))
    target = ClassScore(case.predicted, of="prob")
    for metric in ("deletion", "insertion"):
        want = measure(case.model, x, maps, f"{metric}(steps=7)", target, seed=case.seed)
        assert [row[f"{i:02d}.png"][metric] for i in range(8)] == pytest.approx(want.tolist(), abs=1e-6)
        control = explain(case.model, x, "random", target, seed=case.seed).maps
        want = measure(case.model, x, control, f"{metric}(steps=7)", target, seed=case.seed)
        assert [row[f"{i:02d}.png"][f"{metric}, random"] for i in range(8)] == pytest.approx(want.tolist(), abs=1e-6)


def test_what_a_random_order_gives_is_not_enough_for_faithfulness() -> None:
    assert [faithful(i) for i in ((0.0, 0.1), (0.01, 0.1), (-0.1, 0.0), None)] == ["warn", "pass", "fail", "warn"]


# Sanity --------------------------------------------------------------------------------------------------------------


def trained(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8 * HEIGHT * WIDTH, 2),
    )
    return model(net)


def test_sanity_fails_for_a_method_that_ignores_the_model(mine: str, tmp_path: Path) -> None:
    f = found(Case(trained(), halves(tmp_path), method=f"{mine}:edges"), "sanity")
    assert f.verdict == "fail"
    assert f.value == pytest.approx(1.0)
    stages = rows(f, "Likeness")
    assert len(stages) == 5
    assert all(r["SSIM"] == pytest.approx(1.0) for r in stages)


def test_sanity_passes_for_the_gradient(tmp_path: Path) -> None:
    f = found(Case(trained(), halves(tmp_path), method="saliency"), "sanity(stages=2)")
    assert f.verdict == "pass"
    assert f.value is not None
    assert f.value < 0.2
    assert [r["random layers"] for r in rows(f, "Likeness")] == ["1 of 4", "4 of 4"]


def test_sanity_counts_empty_maps(mine: str, tmp_path: Path) -> None:
    path = tmp_path / "fickle.py"
    path.write_text(
        "import torch\ndef fickle(model, x, target):\n"
        "    known = float(model.net.features.weight.flatten()[0]) == 1.0\n"
        "    return x[:, 0] if known else torch.zeros_like(x[:, 0])\n"
    )
    f = found(Case(model(Halves()), halves(tmp_path), method=f"{path}:fickle"), "sanity(stages=1)")
    assert f.value == 0.0
    assert any("8 of 8 maps are empty or constant" in n for n in f.notes)
    flat = found(Case(model(Halves()), halves(tmp_path), method=f"{mine}:flat"), "sanity")
    assert (flat.verdict, flat.n) == ("note", 0)


def test_alike_by_hand() -> None:
    a = np.arange(81.0).reshape(9, 9) - 40
    assert alike(a, 3 * a) == pytest.approx((1, 1, 1))  # neither rank nor SSIM minds the scale
    rank, magnitude, ssim = alike(a, -a)
    assert (rank, magnitude) == pytest.approx((1, 1))
    assert ssim < 0.7
    assert alike(a, np.zeros((9, 9))) == (0, 0, 0)
    rank, _, _ = alike(np.array([[1.0, 2, 3]]), np.array([[1.0, 3, 2]]))
    assert rank == pytest.approx(0.5)


def test_reinitialise_batch_norm_and_bare_parameters() -> None:
    norm = nn.BatchNorm2d(3)
    for p in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert p is not None
        p.data.fill_(7.0)
    reinitialise(norm)
    assert norm.weight.tolist() == [1, 1, 1]
    assert norm.bias.tolist() == [0, 0, 0]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.tolist() == [0, 0, 0]
    assert norm.running_var.tolist() == [1, 1, 1]

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.full((10_000,), 5.0))

    bare = Bare()
    torch.manual_seed(0)
    reinitialise(bare)
    assert float(bare.token.detach().mean()) == pytest.approx(0, abs=0.2)
    assert float(bare.token.detach().std()) == pytest.approx(5, rel=0.05)


# Robustness ---------------------------------------------------------------------------------------------------------


def test_robustness_of_a_linear_model_has_its_known_threshold(tmp_path: Path) -> None:
    """The margin of the left half's mean over 1/2 is the eps at which each picture turns, exactly."""
    above = [0.5, 1.5, 3.0, 6.0, 20.0]  # in 255ths above 127.5, half the scale
    pictures = [np.full((HEIGHT, WIDTH), 127.5 + a) for a in above[:1]] + [
        np.full((HEIGHT, WIDTH), 127.5 + a) for a in above[1:]
    ]
    pictures = [np.where(np.indices((HEIGHT, WIDTH)).sum(0) % 2, np.floor(a), np.ceil(a)) for a in pictures]
    case = Case(model(Halves()), written(tmp_path, pictures, [("bright",)] * 5))
    f = found(case, "robustness(eps=4/255, pictures=5)")
    assert (f.value, f.n, f.interval) == (2 / 5, 5, wilson(2, 5))
    levels = {(r["eps"], str(r["attack"]).partition(",")[2] != ""): r["right"] for r in rows(f, "Right answers")}
    assert [levels[e, True] for e in ("1/255", "2/255", "4/255", "8/255")] == [4, 3, 2, 1]
    assert [levels[e, False] for e in ("0", "1/255", "2/255", "4/255", "8/255")] == [5, 4, 3, 2, 1]
    assert [e.facts["eps"] for e in f.evidence] == ["1/255", "2/255", "4/255", "8/255"]
    assert f.evidence[0].picture == "00.png"
    assert f.evidence[0].command.endswith("00.png -a fgsm --eps 1/255")
    assert [r["fooled at eps"] for r in rows(f, "By picture")] == ["1/255", "2/255", "4/255", "8/255", "never"]


def test_robustness_counts_wrong_answers_and_all_acceptable_classes(tmp_path: Path) -> None:
    """A picture that is wrong is not robust; one for which both classes are right cannot be fooled."""
    data = halves(tmp_path, 4)
    labels = [("bright",), ("bright",), ("bright", "dark"), ("dark", "bright")]
    pictures = tuple(dataclasses.replace(p, labels=w) for p, w in zip(data.pictures, labels, strict=True))
    case = Case(model(Halves()), dataclasses.replace(data, pictures=pictures))
    f = found(case, "robustness(eps=0.5)")
    assert (f.value, f.n) == (0.5, 4)
    assert "75.0 % that are right without an attack" in f.headline
    (wrong,) = (case.pictures[i].name for i in range(4) if not case.right[i])
    assert wrong not in {r["picture"] for r in rows(f, "By picture")} | {e.picture for e in f.evidence}


def test_robustness_refuses_a_budget_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="above 0"):
        found(Case(model(Halves()), halves(tmp_path)), "robustness(eps=0)")


# What they stand on -------------------------------------------------------------------------------------------------


def test_small_samples_have_wide_intervals() -> None:
    assert bootstrap([0.0, 1.0] * 3) is None
    assert tails(10_000) == pytest.approx([2.5, 97.5], abs=0.01)
    rng = np.random.default_rng(0)
    for n in (7, 10, 20):
        inside = 0
        for k in range(300):
            interval = bootstrap(rng.normal(size=n).tolist(), seed=k, draws=400)
            assert interval is not None
            inside += interval[0] <= 0 <= interval[1]
        assert inside / 300 > 0.9


def test_panels_name_each_line_once() -> None:
    lines = [charts.Line("one", [0.1, 0.9]), charts.Line("other", [0.5, math.nan])]
    svg = charts.panels([1.0, 2.0], [("left", lines), ("right", lines[::-1])], xlabel="epoch", ylabel="share")
    words = ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]
    assert [words.count(word) for word in ("one", "other", "left", "right", "share", "epoch")] == [1, 1, 1, 1, 1, 2]


def test_charts_are_the_same_bytes_and_touch_nothing_global() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    dots = [charts.Dot("a $picture$ of <much>.png", 0.5, 0.2), charts.Dot("b", 0.1, 0.3, hollow=True)]

    def draw() -> list[bytes]:
        line = charts.Line("map", [0.1, 0.9], [0.0, 0.8], [0.2, 1.0])
        return [
            charts.curves([0, 1], [line], xlabel="x", ylabel="y", floor=0.5),
            charts.reliability([0, 0.5, 1], [0, 3], [0, 0.8], [0, 0.6], [(0, 1), (0.3, 0.9)]),
            charts.dots(dots, xlabel="x", value="v", chance="c", hollow="h"),
            charts.confusion(["a", "b"], [[3, 1], [0, 2]]),
        ]

    first, second = draw(), draw()
    assert first == second
    for svg in first:
        assert b"system-ui" in svg
        assert b"DejaVu" not in svg
        assert b"<dc:date" not in svg
    assert b"a $picture$ of &lt;much&gt;.png" in first[2]
    assert dict(mpl.rcParams) == before


def test_a_mask_of_refusals() -> None:
    with pytest.raises(Refused, match="did you mean robustness"):
        parse_checks("robustnes")
