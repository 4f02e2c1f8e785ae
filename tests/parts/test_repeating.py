"""The same recipe many times, labels drawn at random, and what equal accuracy hides."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from importlib import resources
from itertools import combinations
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

import clearsight as cs
from clearsight.comparing.compare import compare
from clearsight.comparing.map_agreement import mean_correlation, ranks
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.similarity import spearman
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures, open_data
from clearsight.data.duplicates import likenesses
from clearsight.drawing.charts import Cross, plane
from clearsight.models.model_folder import AT_RANDOM, labels_at_random
from clearsight.reporting.findings import Finding
from clearsight.reporting.html_report import tight
from clearsight.reporting.report import Report
from clearsight.reporting.spread import between, deviation, homogeneity, median_interval
from clearsight.reporting.terminal import print_sheet
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.repeats import repeat
from clearsight.training.training_data import at_random, portions
from workshop import lay_out

TINY = 'clearsight:plain-cnn(widths="6,8", padding=1, pools=2, norm=batch, head=average, dense="")'
QUICK = Recipe(arch=TINY, size=16, epochs=2, batch=8, augment="flip", lr="0.02", shares="0.5,0.2,0.3")
WORDS = ("--arch", TINY, "--size", "16", "--epochs", "2", "--batch", "8", "--augment", "flip", "--lr", "0.02")
WORDS += ("--shares", "0.5,0.2,0.3")
SIDE = 16


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def split_of(folder: Path) -> str:
    return (folder / "split.csv").read_text()


def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    )


def by_name(report: Report) -> dict[str, Finding]:
    return {f.name: f for f in report.findings}


# The spread -----------------------------------------------------------------------------------------------------------


def test_the_chi_square_worked_out_by_hand() -> None:
    """9, 6 and 3 of 10: 6 and 4 are expected, so 18/6 + 18/4 = 7.5; of two degrees of freedom p is exp(-7.5 / 2)."""
    h = homogeneity([9, 6, 3], [10, 10, 10])
    assert (h.statistic, h.freedom, h.expected) == (pytest.approx(7.5), 2, pytest.approx(4.0))
    assert h.p == pytest.approx(math.exp(-3.75))
    uneven = homogeneity([6, 3], [8, 10])  # 9 of 18: 4, 4, 5, 5 expected
    assert uneven.statistic == pytest.approx(4 / 4 * 2 + 4 / 5 * 2)
    of_the_docs = homogeneity([9, 6], [10, 10])
    assert (of_the_docs.statistic, round(of_the_docs.p, 2)) == (pytest.approx(2.4), 0.12)
    for right in ([10, 10], [0, 0]):
        assert (homogeneity(right, [10, 10]).statistic, homogeneity(right, [10, 10]).p) == (0.0, 1.0)


@pytest.mark.parametrize("k", range(6, 30))
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(k: int) -> None:
    """The j-th value from below is above the median where fewer than j of k coins fall."""
    low, high = median_interval(range(k, 0, -1)) or (0, 0)
    j = int(low)
    assert high == k + 1 - j
    missed = [2 * sum(math.comb(k, i) for i in range(m)) / 2**k for m in (j, j + 1)]
    assert missed[0] <= 0.05 < missed[1]


def test_the_spread_in_words() -> None:
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert deviation([0.0, 0.0, 3.0]) == pytest.approx(math.sqrt(3))
    assert deviation([5.0]) == 0.0
    assert between([0.978, 0.989, 0.98], "share") == "97.8 to 98.9 %"
    assert between([0.5, 0.5], "share") == "50.0 %"


def test_the_mean_over_all_pairs_from_the_sum_alone() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 3, 4, 6)).round(1)  # runs, pictures, with ties
    maps[2, 1] = 7.0  # constant: 0 with all others
    found = np.array([[ranks(m.ravel()) for m in run] for run in maps])
    ours = mean_correlation(found.sum(0), (found * found).sum((0, 2)), 5)
    for i in range(3):
        pairs = [spearman(a[i], b[i]) for a, b in combinations(maps, 2)]
        assert ours[i] == pytest.approx(np.mean(pairs))


# Reasons that are known -----------------------------------------------------------------------------------------------


class Looks(nn.Module):
    """Bright or dark by the mean of one half of the picture."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0))
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., : SIDE // 2] = 1
        self.register_buffer("mask", mask if side == "object" else mask.flip(3))

    def forward(self, x: Tensor) -> Tensor:
        z = self.gain * ((x - 0.5) * self.mask).mean((1, 2, 3))
        return torch.stack([z, -z], 1)


def looking(side: str, name: str = "") -> Classifier:
    net = Looks(side).eval()
    return Classifier(net, Preprocess((SIDE, SIDE), (0.0,), (1.0,)), ("bright", "dark"), name or side)


def scenes(folder: Path, n: int = 24, *, annotated: bool = True, wrong: int = 0) -> Pictures:
    """Both halves are bright, or both dark, so that either says the class; the object is the left one."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    out = []
    for i in range(n):
        a = rng.integers(170, 240, (SIDE, SIDE)) if i % 2 else rng.integers(10, 80, (SIDE, SIDE))
        Image.fromarray(a.astype(np.uint8)).save(folder / f"{i:02d}.png")
        box = Region(boxes=((0.0, 0.0, SIDE / 2, float(SIDE)),))
        label = ("bright", "dark")[(i % 2 == 0) != (i < wrong)]
        out.append(Picture(folder / f"{i:02d}.png", f"{i:02d}.png", (label,), (box,) if annotated else None))
    return Pictures(folder, tuple(out))


def test_equal_answers_unequal_reasons(tmp_path: Path) -> None:
    """One looks at the object and one beside it: trust 1 against 0, and maps that are each other's contrary."""
    pictures = scenes(tmp_path, wrong=2)
    report = compare([looking("object"), looking("beside")], pictures, method="saliency")
    by = by_name(report)
    assert by["runs"].headline == (
        "2 runs are right on 91.7 % of 24 pictures, and 0.0 to 100.0 % of their right answers have an acceptable "
        "reason."
    )
    assert list(by) == ["repair", "runs", "accuracy", "trustworthiness", "likeness"]
    trusted = by["trustworthiness"]
    assert [(r["run"], r["acceptable reasons"], r["n"]) for r in trusted.tables[0].rows] == [
        ("beside", 0.0, 22),
        ("object", 1.0, 22),
    ]
    assert "more than chance allows for 22 pictures each (chi-square 44 at 1 degree of freedom" in trusted.headline
    assert "standard deviation 70.7 %" in trusted.headline
    assert trusted.value == 0.5
    assert "no more than chance allows" in by["accuracy"].headline
    assert "chi-square 0 at" in by["accuracy"].headline
    alike = by["likeness"]
    assert (alike.value, alike.n) == (pytest.approx(-1.0), 22)  # not the two that both get wrong
    assert "22 pictures that all 2 runs answer alike and right" in alike.headline
    assert alike.evidence[0].command.startswith("clearsight explain beside ")
    assert "beside, object" in alike.evidence[0].figure.caption
    width = Image.open(io.BytesIO(alike.evidence[0].figure.data)).width
    assert width == 3 * 13 * SIDE + 2 * 8  # the photo and two maps, each place 13 pixels wide


@pytest.mark.slow
def test_runs_that_are_one_have_maps_that_are_one(tmp_path: Path) -> None:
    pictures = scenes(tmp_path, 12)
    same = compare([looking("object", name) for name in "abc"], pictures, method="saliency")
    by = by_name(same)
    assert by["likeness"].value == pytest.approx(1.0)
    assert by["likeness"].interval == pytest.approx((1.0, 1.0))
    assert "no more than chance" in by["trustworthiness"].headline
    assert {str(r["what"]): r["in the runs"] for r in by["runs"].tables[0].rows}["classes"] == "2"
    mixed = compare(
        [looking("object", "a"), looking("object", "b"), looking("beside", "c")], pictures, method="saliency"
    )
    assert by_name(mixed)["likeness"].value == pytest.approx((1 - 1 - 1) / 3)


def test_the_report_is_one_like_every_other(tmp_path: Path) -> None:
    pictures = scenes(tmp_path / "scenes", 12)
    report = compare([looking("object"), looking("beside")], pictures, method="saliency", command="clearsight compare")
    schema().validate(report.as_dict())
    folder = report.save(tmp_path / "out")
    page = (folder / "report.html").read_text()
    assert len(report.opening) == 2
    assert all(tight(sentence) in page for sentence in report.opening)
    assert json.loads((folder / "report.json").read_text())["verdict"] == report.verdict
    read = Report.read(folder)
    assert read.findings == report.findings
    chart = (folder / "figures" / "runs.svg").read_text()
    assert ">of these, for an acceptable reason<" in chart
    shown = Console(file=io.StringIO(), width=400)
    print_sheet(report, shown, folder)
    assert report.verdict in shown.file.getvalue()  # type: ignore[attr-defined]


def test_a_dot_for_each_run_at_its_own_shares() -> None:
    """Half as much trust more is as far up as half as much accuracy more is to the right."""
    dots = [Cross(x, y, (x - 0.1, x + 0.1), (y - 0.1, y + 0.1)) for x, y in ((0.2, 0.2), (0.2, 0.7), (0.9, 0.2))]
    chart = plane(dots, xlabel="right", ylabel="trusted").decode().partition('id="PathCollection_1"')[2]
    places = [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', chart)][:3]
    (x, y), (above, up), (right, beside) = places
    assert (above, beside) == (x, y)
    assert right - x == pytest.approx((y - up) * 0.7 / 0.5, abs=1e-4)
    assert y > up


def test_those_that_are_least_alike_come_first(tmp_path: Path) -> None:
    """Half of the second network's pictures are explained from elsewhere: by where the picture is lighter."""
    models = [looking("object"), replace(looking("object", "other"), net=Sometimes())]
    alike = by_name(compare(models, scenes(tmp_path, 12), method="saliency"))["likeness"]
    values = [r["rank correlation"] for r in alike.tables[0].rows]
    assert values == sorted(values)
    assert values == pytest.approx([-1.0] * 6 + [1.0] * 6)
    assert alike.value == pytest.approx(0.0, abs=1e-9)
    assert [e.picture for e in alike.evidence] == [f"{i:02d}.png" for i in range(1, 12, 2)]


class Sometimes(nn.Module):
    """Looks at the object where the picture is dark, and beside it where it is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.dark, self.bright = Looks("object"), Looks("beside")

    def forward(self, x: Tensor) -> Tensor:
        return torch.where((x.mean((1, 2, 3)) > 0.5)[:, None], self.bright(x), self.dark(x))


def test_without_annotations_the_likeness_still_stands(tmp_path: Path) -> None:
    report = compare([looking("object"), looking("beside")], scenes(tmp_path, 12, annotated=False), method="saliency")
    by = by_name(report)
    assert by["trustworthiness"].value is None
    assert "give --boxes FILE or --masks FOLDER" in by["trustworthiness"].headline
    assert by["runs"].headline == (
        "2 runs are right on 100.0 % of 12 pictures, and the maps of two of them have a rank correlation of −1 on "
        "average."
    )
    assert not by["runs"].figures
    schema().validate(report.as_dict())


def test_without_labels_answers_that_are_alike_are_compared(tmp_path: Path) -> None:
    bare = scenes(tmp_path, 12)
    bare = replace(bare, pictures=tuple(replace(p, labels=()) for p in bare.pictures))
    report = compare([looking("object"), looking("beside")], bare, method="saliency")
    assert "12 pictures that all 2 runs answer alike, the maps" in by_name(report)["likeness"].headline
    assert "runs is not known" in report.verdict


def test_runs_whose_maps_do_not_fit_or_that_never_agree(tmp_path: Path) -> None:
    pictures = scenes(tmp_path, 12)
    large = replace(looking("object"), preprocess=Preprocess((SIDE, SIDE), (0.1,), (1.0,)))
    report = compare([looking("object"), replace(large, source="other")], pictures, method="saliency")
    assert "differ in their classes or in their preprocessing" in by_name(report)["likeness"].headline
    with pytest.raises(cs.Refused, match="data is a Pictures object"):
        compare([looking("object"), looking("beside")], pictures, split="test")
    contrary = replace(looking("object", "contrary"), net=nn.Sequential(Looks("object"), Turned()))
    report = compare([looking("object"), contrary], pictures, method="saliency")
    assert "no picture that all 2 runs answer" in by_name(report)["likeness"].headline
    assert "0.0 to 100.0 % of 12" in by_name(report)["runs"].headline


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def test_values_that_are_no_shares_of_pictures_are_not_tested(tmp_path: Path) -> None:
    pictures = scenes(tmp_path, 12)
    models = [looking("object"), looking("beside")]
    by = by_name(compare(models, pictures, only="accuracy(floor=0.5), calibration", method="saliency"))
    assert list(by) == ["repair", "runs", "accuracy", "calibration", "likeness"]
    assert "not tested" in by["calibration"].headline
    beside = {t.caption: t.rows for t in by["runs"].tables}["By run"]
    assert [r["calibration error (ECE)"] for r in beside] == [r[2] for r in _calibrated(models, pictures)]


def _calibrated(models: list[Classifier], pictures: Pictures) -> list[tuple[str, str, float | None]]:
    return [(m.source, "", cs.audit(m, pictures, only="calibration").findings[0].value) for m in models]


def test_audits_are_compared_as_they_are(tmp_path: Path, run) -> None:
    pictures = scenes(tmp_path / "scenes", 12)
    for side in ("object", "beside"):
        cs.audit(looking(side), pictures, only="accuracy, trustworthiness", method="saliency").save(tmp_path / side)
    words = ("compare", str(tmp_path / "object"), str(tmp_path / "beside"), "-o", str(tmp_path / "c"))
    ran = run(*words)
    assert ran.status == 0, ran.err
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    schema().validate(report)
    by = {f["name"]: f for f in report["findings"]}
    assert "0.0 to 100.0 % of their right answers" in by["runs"]["headline"]
    assert "do not keep the maps" in by["likeness"]["headline"]
    assert by["trustworthiness"]["command"].startswith("clearsight compare ")
    only = run(*words[:-1], str(tmp_path / "d"), "--only", "accuracy", "--json")
    assert [f["name"] for f in json.loads(only.out)["findings"]] == ["repair", "runs", "accuracy", "likeness"]
    other = cs.audit(looking("beside"), scenes(tmp_path / "more", 14), only="accuracy", method="saliency")
    other.save(tmp_path / "other")
    refused = run("compare", str(tmp_path / "object"), str(tmp_path / "other"), "-o", str(tmp_path / "e"))
    assert refused.status == 2
    assert "other used other pictures" in refused.err
    assert not (tmp_path / "e").exists()
    assert "leave data" in run(*words[:-1], str(tmp_path / "f"), "--data", "demo").err
    assert "none of the checks robustness" in run(*words[:-1], str(tmp_path / "f"), "--only", "robustness").err


def test_what_could_not_be_judged_is_an_error_and_said(tmp_path: Path) -> None:
    pictures = scenes(tmp_path, 12)
    whole = cs.audit(looking("object"), pictures, only="accuracy", method="saliency")
    broken = replace(whole.findings[0], verdict="error", headline="out of memory", value=None)
    half = replace(whole, findings=(broken,), facts=replace(whole.facts, complete=False))
    report = compare([whole, half])
    assert report.status == 2
    assert any("out of memory" in note for note in by_name(report)["accuracy"].notes)
    assert any("was stopped before it was complete" in note for note in by_name(report)["runs"].notes)
    assert report.facts.complete is False


# Training -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a recipe in runs/, beside their photos/ and boxes.json."""
    root = tmp_path_factory.mktemp("made")
    lay_out(root, 10, mislabelled=False)
    list(repeat(open_data(root / "photos", split="all"), QUICK, 2, root / "runs"))
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_runs_share_the_split_and_nothing_else(made: Path) -> None:
    runs = made / "runs"
    assert split_of(runs / "run-1") == split_of(runs / "run-2")
    assert weights(runs / "run-1") != weights(runs / "run-2")
    asked = [read_recipe(runs / f"run-{i}" / "recipe.json")[2] for i in (1, 2)]
    assert asked == [replace(QUICK, seed=i, split_seed=0) for i in (0, 1)]
    told = json.loads((runs / "repeat.json").read_text())
    values = [json.loads((runs / f"run-{i}" / "metrics.json").read_text())["accuracy"] for i in (1, 2)]
    assert [(r["folder"], r["seed"], r["accuracy"], r["interval"], r["n"]) for r in told["runs"]] == [
        (f"run-{i}", i - 1, v["value"], v["interval"], 9) for i, v in enumerate(values, 1)
    ]
    assert told["accuracy"]["median"] == pytest.approx((values[0]["value"] + values[1]["value"]) / 2)
    assert told["spread"] == pytest.approx(abs(values[0]["value"] - values[1]["value"]) / math.sqrt(2))
    called = json.loads((runs / "run-2" / "recipe.json").read_text())["command"]
    assert called.endswith("--repeat 2")


def test_a_run_is_what_its_own_recipe_trains(made: Path, tmp_path: Path) -> None:
    data = open_data(made / "photos", split="all")
    list(train(data, replace(QUICK, seed=1, split_seed=0), tmp_path / "one"))
    assert weights(tmp_path / "one") == weights(made / "runs" / "run-2")
    alike = likenesses(data.pictures)
    parts = [portions(data, alike, QUICK.parts(), replace(QUICK, seed=s, split_seed=t).divides()).parts
             for s, t in ((0, None), (5, 0), (5, None))]  # fmt: skip
    assert parts[0] == parts[1] != parts[2]


def test_the_same_call_goes_on_where_a_stopped_one_ended(copy: Path, run) -> None:
    runs = copy / "runs"
    before, first = weights(runs / "run-2"), (runs / "run-1" / "metrics.json").stat().st_mtime_ns
    (runs / "repeat.json").unlink()
    shutil.rmtree(runs / "run-2")
    going = repeat(open_data(copy / "photos", split="all"), QUICK, 2, runs)
    assert next(going)[0] == 2  # stopped within the second
    going.close()
    words = ("train", str(copy / "photos"), "--repeat", "2", "-o", str(runs), *WORDS)
    ran = run(*words)
    assert ran.status == 0, ran.err
    assert "run 2 of 2" in ran.err
    assert "run 1 of 2" not in ran.err
    assert weights(runs / "run-2") == before
    assert (runs / "run-1" / "metrics.json").stat().st_mtime_ns == first
    assert "2 runs are right on" in ran.out
    assert ran.out.splitlines()[-1] == str(runs / "repeat.json")
    again = json.loads(run(*words, "--json").out)
    assert again == json.loads((runs / "repeat.json").read_text())


def test_a_larger_number_adds_runs(copy: Path) -> None:
    data = open_data(copy / "photos", split="all")
    assert {i for i, _ in repeat(data, QUICK, 3, copy / "runs")} == {3}
    assert len(json.loads((copy / "runs" / "repeat.json").read_text())["runs"]) == 3
    with pytest.raises(cs.Refused, match="holds 3 runs: give --repeat 3 or more"):
        next(repeat(data, QUICK, 2, copy / "runs"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--repeat", "1"), "--repeat"),
        (("--repeat", "2", "--folds", "2"), "repeats do not; leave one of them out"),
        (("--repeat", "2", "--resume"), "continues by itself"),
        (("--repeat", "2", "--lr", "0.5"), "was started with other settings"),
        (("--repeat", "2", "--seed", "1"), "was started with other settings"),
    ],
)
def test_what_repeating_refuses(made: Path, run, words, told) -> None:
    ran = run("train", str(made / "photos"), "-o", str(made / "runs"), *WORDS, *words)
    assert ran.status == 2
    assert told in ran.err
    assert len([*(made / "runs").iterdir()]) == 3


def test_other_pictures_are_refused(copy: Path) -> None:
    (copy / "photos" / "red" / "red0.png").unlink()
    with pytest.raises(cs.Refused, match=r"not those that the run in .* was started with"):
        next(repeat(open_data(copy / "photos", split="all"), QUICK, 3, copy / "runs"))
    with pytest.raises(cs.Refused, match="give at least 2"):
        next(repeat(open_data(copy / "photos", split="all"), QUICK, 1, copy / "runs"))


def test_the_runs_of_a_recipe_are_compared_on_what_was_kept_from_them(made: Path, run, tmp_path: Path) -> None:
    ran = run("compare", str(made / "runs"), "--boxes", str(made / "boxes.json"), "-o", str(tmp_path / "c"), "--json")
    assert ran.status == 0, ran.err
    report = json.loads(ran.out)
    schema().validate(report)
    by = {f["name"]: f for f in report["findings"]}
    told = json.loads((made / "runs" / "repeat.json").read_text())
    rows = {t["caption"]: t["rows"] for t in by["runs"]["tables"]}
    assert [r["top-1 accuracy"] for r in rows["By run"]] == [r["accuracy"] for r in told["runs"]]
    assert report["data"]["annotated"] == report["data"]["read"] == 9
    common = {r["what"]: r["in the runs"] for r in rows["What the runs have in common"]}
    assert common["recipe"] == "the same but for seed"
    assert common["split of the pictures"] == "the same"
    assert common["weights"] == "all 2 differ"
    assert "trained on" not in ran.out
    assert by["trustworthiness"]["value"] is not None
    names = {e["picture"] for e in by["likeness"]["evidence"]}
    assert all(name.split("/")[0] in ("red", "green", "blue") for name in names)


def test_pictures_that_trained_the_runs_are_named(made: Path, run, tmp_path: Path) -> None:
    places = [str(made / "runs" / f"run-{i}") for i in (1, 2)]
    ran = run("compare", *places, "--data", str(made / "photos"), "--only", "accuracy", "-o", str(tmp_path / "c"))
    assert ran.status == 0, ran.err
    trained = sum(row["split"] == "train" for row in csv.DictReader(split_of(made / "runs" / "run-1").splitlines()))
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    first = next(f for f in report["findings"] if f["name"] == "runs")
    assert sum(f"trained on {trained} of these 30 pictures" in note for note in first["notes"]) == 2
    assert any(note.startswith("run-2: The model was trained") for note in first["notes"])


def test_runs_that_were_judged_on_other_pictures_are_refused(copy: Path, run) -> None:
    runs = copy / "runs"
    text = split_of(runs / "run-2")
    (runs / "run-2" / "split.csv").write_text(text.replace(",test", ",train", 1))
    refused = run("compare", str(runs), "-o", str(copy / "c"))
    assert refused.status == 2
    assert "the test pictures of run-2 are not those of run-1" in refused.err
    assert "--data DATA" in refused.err
    for run_ in ("run-1", "run-2"):
        (runs / run_ / "split.csv").write_text(text.replace(",test", ",val"))
    report = compare([runs], only="accuracy")
    assert any("val chose the epoch" in note for note in by_name(report)["runs"].notes)
    (runs / "run-1" / "split.csv").unlink()
    assert "run-1 has no split.csv" in run("compare", str(runs), "-o", str(copy / "c")).err


def test_what_cannot_be_compared_is_refused(made: Path, run, tmp_path: Path) -> None:
    one = str(made / "runs" / "run-1")
    for words, told in (
        ((one,), "alone: name two runs or more"),
        ((one, one), "is named twice"),
        ((one, str(tmp_path / "nowhere")), "no run at"),
        ((one, str(made / "photos")), "holds no run: name the folder of a model"),
        ((one, str(made / "runs" / "run-2"), "--label-column", "x"), "--label-column is for"),
        ((one, str(made / "runs" / "run-2"), "--split", "odd"), "is in odd"),
    ):
        ran = run("compare", *words, "-o", str(tmp_path / "c"))
        assert ran.status == 2
        assert told in ran.err
        assert not (tmp_path / "c").exists()


def test_runs_that_have_not_ended_are_left_out_and_named(copy: Path) -> None:
    (copy / "runs" / "run-2" / "metrics.json").unlink()
    with pytest.raises(cs.Refused, match="alone"):
        compare([copy / "runs"])
    shutil.copytree(copy / "runs" / "run-1", copy / "runs" / "run-3")
    report = compare([copy / "runs"], only="accuracy")
    assert any("run-2 of" in note and "not complete" in note for note in by_name(report)["runs"].notes)
    assert by_name(report)["accuracy"].n == 2


# Labels drawn at random -----------------------------------------------------------------------------------------------


def test_labels_are_drawn_among_the_pictures_of_a_part(made: Path) -> None:
    data = open_data(made / "photos", split="all")
    true = portions(data, likenesses(data.pictures), QUICK.parts(), 0)
    drawn = at_random(true, 0)
    for part in ("train", "val"):
        rows = true.rows(part)
        assert drawn.y[rows].sum(0).tolist() == true.y[rows].sum(0).tolist()
    train_rows = true.rows("train")
    assert not torch.equal(drawn.y[train_rows], true.y[train_rows])
    assert torch.equal(drawn.y[true.rows("test")], true.y[true.rows("test")])
    assert drawn.pictures == true.pictures
    assert torch.equal(drawn.y, at_random(true, 0).y)
    assert not torch.equal(drawn.y, at_random(true, 1).y)
    assert drawn.notes[0] == AT_RANDOM


def test_a_network_of_random_labels_says_so_everywhere(made: Path, run, tmp_path: Path) -> None:
    """It keeps its last epoch, for val knows nothing; and it learns other weights than from the true labels."""
    words = ("train", str(made / "photos"), "-o", str(tmp_path / "r"), *WORDS, "--random-labels")
    assert run(*words).status == 0
    assert f"**This model was {AT_RANDOM}.**" in (tmp_path / "r" / "card.md").read_text()
    assert labels_at_random(tmp_path / "r")
    assert not labels_at_random(made / "runs" / "run-1")
    assert weights(tmp_path / "r") != weights(made / "runs" / "run-1")
    assert split_of(tmp_path / "r").count(",test") == split_of(made / "runs" / "run-1").count(",test")
    training = by_name(Report.read(tmp_path / "r"))["training"]
    assert "the last one, because val's labels are random too" in training.headline
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["epoch"] == 2
    split = str(tmp_path / "r" / "split.csv")
    audit = ("audit", str(tmp_path / "r"), split, "--split", "test", "--only", "accuracy", "--json")
    assert AT_RANDOM in run(*audit, "-o", str(tmp_path / "a")).out
    assert "--random-labels" in json.loads((tmp_path / "r" / "recipe.json").read_text())["command"]


def test_random_labels_are_learnt_by_heart(made: Path, tmp_path: Path) -> None:
    """Val's loss is least before anything is learnt, and yet the last epoch is kept."""
    recipe = replace(QUICK, epochs=30, augment="none", random_labels=True, patience=1, lr="0.05", seed=2)
    epochs = list(train(made / "photos", recipe, tmp_path / "r"))
    assert min(epochs, key=lambda e: e.val_loss).number < 5
    assert (len(epochs), json.loads((tmp_path / "r" / "metrics.json").read_text())["epoch"]) == (30, 30)
    assert epochs[-1].loss < epochs[0].loss / 2
