"""What a repair changed: two runs on the same pictures, whose answers are known by hand."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
from clearsight.comparing.compare import compare
from clearsight.comparing.paired_measures import paired_measures
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import bootstrap, mcnemar, paired_gap
from clearsight.data.datasets import Pictures
from clearsight.drawing.charts import Group, quadrants
from clearsight.reporting.findings import Finding, Table
from clearsight.reporting.html_report import interval_bar
from clearsight.reporting.report import Report
from twohalves import HEIGHT, WIDTH, Halves, model, rows, written

GAIN = 4.0
RIGHT, MENDED, BROKEN, WRONG = range(4)
KINDS = [*[RIGHT] * 8, *[MENDED] * 6, *[BROKEN] * 2, *[WRONG] * 4]
LEFT = (0.0, 0.0, WIDTH / 2, float(HEIGHT))


def sees(side: str) -> Classifier:
    """A network of one half: bright where its brightness is above 0.5, with margin tanh(gain (brightness - 0.5))."""
    return replace(model(Halves(side, gain=GAIN)), source=side)


def brightness(kind: int, i: int) -> tuple[int, int]:
    """Of the left and right half, in 255ths: all pictures are called bright, and no two have the same margins."""
    bright, dark = 200 + i, 60 - i
    return {RIGHT: (bright, bright), MENDED: (bright, dark), BROKEN: (dark, bright), WRONG: (dark, dark)}[kind]


def scenes(folder: Path, kinds: Sequence[int] = KINDS, *, region: str = "left") -> Pictures:
    """Pictures labelled bright: who sees the right half is before, who sees the left one is after."""
    folder.mkdir(exist_ok=True)
    arrays = []
    for i, kind in enumerate(kinds):
        a = np.zeros((HEIGHT, WIDTH))
        a[:, : WIDTH // 2], a[:, WIDTH // 2 :] = brightness(kind, i)
        arrays.append(a)
    return written(folder, arrays, [("bright",)] * len(kinds), region)


def margin(value: int) -> float:
    return math.tanh(GAIN * (value / 255 - 0.5))


def names(kind: int) -> list[str]:
    return [f"{i:02d}.png" for i, k in enumerate(KINDS) if k == kind]


def repair_of(report: Report) -> Finding:
    (finding,) = (f for f in report.findings if f.name == "repair")
    return finding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repair")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    return compare([sees("right"), sees("left")], scenes(folder / "scenes"), method="saliency")


def test_what_was_mended_and_what_was_broken(report: Report) -> None:
    """6 mended, 2 broken of 20: 10 right before, 14 after; of 8 changes 2 (1 + 8 + 28) / 2^8 is McNemar's p."""
    f = repair_of(report)
    assert (f.value, f.n, f.interval) == (pytest.approx(0.2), 20, paired_gap(8, 6, 2, 4))
    assert mcnemar(6, 2) == pytest.approx(2 * 37 / 2**8)
    assert f.headline.startswith(
        "From right to left: mended 6, broke 2 of 20 pictures; accuracy 50.0 % before, 70.0 % after, +20.0 points "
        "(95 % −8.0 to +44.0, McNemar p = 0.29)."
    )
    assert report.verdict == f.headline
    assert [r["n"] for r in rows(f, "What became")] == [6, 2, 8, 4]
    assert f.notes[0].startswith("Cost in accuracy: not decided. Between a loss of 8.0 and a gain of 44.0 points")
    for caption, kind in (("Mended", MENDED), ("Broken", BROKEN), ("Wrong in both", WRONG)):
        table = rows(f, caption)
        assert sorted(str(r["picture"]) for r in table) == names(kind)
        for r in table:
            left, right = brightness(kind, int(str(r["picture"])[:2]))
            before, after = margin(right), margin(left)
            assert r["before, margin"] == pytest.approx(before, abs=1e-5)
            assert r["after, margin"] == pytest.approx(after, abs=1e-5)
            assert (r["acceptable"], r["before"]) == ("bright", "bright" if before > 0 else "dark")
            assert r["before, probability"] == pytest.approx((1 + abs(before)) / 2, abs=1e-5)


def test_the_largest_change_comes_first(report: Report) -> None:
    """A later picture has a larger i, which makes bright halves brighter and dark ones darker."""
    f = repair_of(report)
    assert [r["picture"] for r in rows(f, "Mended")] == names(MENDED)[::-1]
    assert [r["picture"] for r in rows(f, "Broken")] == names(BROKEN)[::-1]
    assert [r["picture"] for r in rows(f, "Wrong in both")] == names(WRONG)[::-1]
    assert [e.picture for e in f.evidence] == [*names(MENDED)[::-1], *names(BROKEN)[::-1]]
    assert [e.facts["outcome"] for e in f.evidence] == ["mended"] * 6 + ["broken"] * 2


def test_maps_of_both_runs_side_by_side(report: Report, folder: Path) -> None:
    """The photo, then ink on the right half alone, then on the left half alone, and a command for each of the two."""
    e = repair_of(report).evidence[0]
    path = folder / "scenes" / e.picture
    assert e.command == f"clearsight explain right {path} -m saliency && clearsight explain left {path} -m saliency"
    assert "what spoke for dark before, and for bright after" in e.figure.caption
    a = np.asarray(Image.open(io.BytesIO(e.figure.data)).convert("RGB")).astype(int)
    wide = (a.shape[1] - 2 * 8) // 3
    before, after = a[:, wide + 8 : 2 * wide + 8], a[:, 2 * (wide + 8) :]
    inked = [
        [int(np.ptp(half[40:-40, 40:-40], axis=2).max()) > 60 for half in np.hsplit(m, 2)] for m in (before, after)
    ]
    assert inked == [[False, True], [True, False]]


def test_reasons_are_paired_on_pictures_that_were_not_chosen_for_their_change(report: Report) -> None:
    """All relevance lies beside the object before, and on it after; trust is judged where both are right."""
    f = repair_of(report)
    table = rows(f, "Before and after")
    assert [(r["share"], r["before"], r["after"], r["difference"], r["n"]) for r in table] == [
        ("right answers", 0.5, 0.7, pytest.approx(0.2), 20),
        ("relevance on the object", 0.0, pytest.approx(1.0), pytest.approx(1.0), 20),
        ("acceptable reasons", 0.0, 1.0, 1.0, 8),
        ("relevance on the object, right answers", 0.0, pytest.approx(1.0), pytest.approx(1.0), 8),
    ]
    assert "Relevance on the object: 0.0 % before, 100.0 % after, +100.0 points (95 % +100.0" in f.headline
    assert len(rows(f, "Relevance on the object")) == 20


def test_only_the_drawn_sample_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are drawn because they changed are no fair sample of all pictures."""
    monkeypatch.setattr("clearsight.comparing.paired_maps.MOST", 3)
    f = repair_of(compare([sees("right"), sees("left")], scenes(tmp_path / "s"), only="accuracy", method="saliency"))
    assert len(f.evidence) == 8
    assert [r["n"] for r in rows(f, "Before and after")] == [20, 3]


def finding_with(values: dict[str, float], check: str = "localisation") -> Report:
    table = Table("By picture", tuple({"picture": name, "on the object": v} for name, v in values.items()))
    whole = object.__new__(Report)
    object.__setattr__(whole, "findings", (Finding("note", "", tables=(table,), check=check),))
    return whole


def test_a_bootstrap_over_the_pictures_that_both_measured() -> None:
    """The differences by hand: 0.1 to 0.8 of eight pictures; the ninth stands in one report alone."""
    before = finding_with({f"{i}.png": 0.1 for i in range(9)})
    after = finding_with({f"{i}.png": 0.2 + 0.1 * i for i in range(8)})
    (m,) = paired_measures(before, after, 3)
    assert (m.n, m.before, m.after, m.gain) == (8, pytest.approx(0.1), pytest.approx(0.55), pytest.approx(0.45))
    assert m.interval == pytest.approx(bootstrap([0.1 + 0.1 * i for i in range(8)], 3))
    assert paired_measures(before, finding_with({"x.png": 1.0}), 0) == []
    assert paired_measures(before, finding_with({"1.png": 1.0}, "localisation(floor=0.9)"), 0) == []
    assert len(paired_measures(*[finding_with({"1.png": 1.0}, "localisation(floor=0.9)")] * 2, 0)) == 1
    (few,) = paired_measures(before, finding_with({"1.png": 1.0}), 0)
    assert (few.n, few.interval) == (1, None)


def test_damages_and_attacks_are_paired_too(folder: Path) -> None:
    """Of ten damages each picture loses 4 before and 1 after; one of eight is never fooled before, and all after.

    They need no maps, so that another explainer does not keep them from being paired.
    """
    audits = []
    for side, lost, never, method in (("right", 4, 1, "saliency"), ("left", 1, 8, "edge")):
        audited = cs.audit(sees(side), scenes(folder / "scenes"), only="accuracy, trustworthiness", method=method)
        cells = [{"picture": f"{i:02d}.png", "lost": lost, "of": 10} for i in range(8)]
        fooled = [{"picture": f"{i:02d}.png", "fooled at eps": "never" if i < never else "1/255"} for i in range(8)]
        findings = [
            Finding("note", "", tables=(Table("By picture", tuple(table)),), check=check)
            for check, table in (("corruptions", cells), ("robustness", fooled))
        ]
        audits.append(replace(audited, findings=(*audited.findings, *findings)))
    f = repair_of(compare(audits))
    assert [(r["share"], r["before"], r["after"], r["n"]) for r in rows(f, "Before and after")][1:] == [
        ("damages that leave right answers right", pytest.approx(0.6), pytest.approx(0.9), 8),
        ("right answers that no attack changed", 1 / 8, 1.0, 8),
    ]
    assert "Reasons were not paired: the maps are by edge and saliency." in f.notes


def test_dots_are_thinned_where_they_are_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearsight.comparing.repair_tables.DOTS", 3)
    (figure,) = repair_of(compare([sees("right"), sees("left")], scenes(folder / "scenes"), only="accuracy")).figures
    assert "Of a kind with 3 pictures or more only some are drawn." in figure.caption
    assert [dots(figure.data.decode(), k) for k in (1, 2, 3, 4)] == [2, 2, 3, 2]  # of 6, 2, 8 and 4
    assert ">6 mended<" in figure.data.decode()


def dots(chart: str, k: int) -> int:
    """How many dots the k-th kind has."""
    return len(re.findall("<use ", chart.partition(f'id="PathCollection_{k}"')[2].partition("</g>\n   </g>")[0]))


def test_each_group_before_and_after(report: Report) -> None:
    """The hospitals A and B take turns, two pictures each: A has 0 1 4 5 8 9 12 13 16 17."""
    f = repair_of(report)
    by_group = {r["group"]: r for r in rows(f, "By group")}
    for group, remainder in (("A", (0, 1)), ("B", (2, 3))):
        kinds = [k for i, k in enumerate(KINDS) if i % 4 in remainder]
        counts = [kinds.count(k) for k in (RIGHT, MENDED, BROKEN, WRONG)]
        r = by_group[group]
        assert (r["n"], r["mended"], r["broken"]) == (10, counts[1], counts[2])
        assert (r["right before"], r["right after"]) == ((counts[0] + counts[2]) / 10, (counts[0] + counts[1]) / 10)
        assert (r["from (95 %)"], r["to (95 %)"]) == paired_gap(*counts)
    assert [r["right after"] for r in rows(f, "By group")] == sorted(r["right after"] for r in by_group.values())
    assert "Worst group by hospital: before, A with 40.0 % of 10 right; after, B with 60.0 % of 10." in f.notes


def test_the_order_of_the_runs_says_what_is_before(report: Report, folder: Path) -> None:
    back = repair_of(compare([sees("left"), sees("right")], scenes(folder / "scenes"), only="accuracy"))
    low, high = repair_of(report).interval or (0.0, 0.0)
    assert back.headline.startswith("From left to right: mended 2, broke 6 of 20 pictures; accuracy 70.0 % before")
    assert (back.value, back.interval) == (pytest.approx(-0.2), pytest.approx((-high, -low)))
    assert "on a line from −100.0 % to 100.0 %" in interval_bar(back)  # and not at 0, where a line of shares begins


def test_a_sure_gain_and_a_sure_loss_are_said(tmp_path: Path) -> None:
    pictures = scenes(tmp_path / "s", [*[RIGHT] * 10, *[MENDED] * 14], region="")
    gained = repair_of(compare([sees("right"), sees("left")], pictures, only="accuracy"))
    low, high = paired_gap(10, 14, 0, 0)
    assert gained.notes[0] == f"Cost in accuracy: none. It gained {100 * low:.1f} to {100 * high:.1f} points."
    assert "McNemar p = 0.00012" in gained.headline
    lost = repair_of(compare([sees("left"), sees("right")], pictures, only="accuracy"))
    assert lost.notes[0] == f"Cost in accuracy: {100 * low:.1f} to {100 * high:.1f} points."
    assert "right answers" in [r["share"] for r in rows(lost, "Before and after")]
    assert len(rows(lost, "Before and after")) == 1  # nothing is annotated


def test_a_dot_for_each_picture_at_its_margins() -> None:
    groups = [Group(f"{len(points)} {word}", points) for word, points in (
        ("mended", [(-0.5, 0.5)]), ("broken", [(0.5, -0.5), (1.0, -1.0)]), ("right", [(0.5, 0.5)]), ("wrong", []),
    )]  # fmt: skip
    chart = quadrants(groups[0], groups[1], (groups[2], groups[3]), xlabel="before", ylabel="after").decode()
    places = {}
    for k in (1, 2, 3):
        part = chart.partition(f'id="PathCollection_{k}"')[2].partition("</g>\n   </g>")[0]
        places[k] = [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.-]+)" y="([\d.-]+)"', part)]
    ((left, top),), ((right, low), (far, lowest)), ((x, y),) = places[1], places[2][:2], places[3][:1]
    assert (left < right < far, top < low < lowest) == (True, True)
    assert (x, y) == (right, top)
    for word in ("1 mended", "2 broken", "1 right", "0 wrong", "before", "after"):
        assert f">{word}<" in chart


def test_the_chart_shows_every_picture(report: Report) -> None:
    (figure,) = repair_of(report).figures
    assert figure.alt == "20 pictures by margin before and after: 6 mended, 2 broken, 8 right in both, 4 wrong in both."
    assert [dots(figure.data.decode(), k) for k in (1, 2, 3, 4)] == [6, 2, 8, 4]


# Without models, labels, changes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audits(folder: Path) -> Path:
    for side in ("right", "left"):
        audited = cs.audit(sees(side), scenes(folder / "scenes"), only="accuracy, trustworthiness", method="saliency")
        audited.save(folder / side)
    return folder


def test_audits_name_the_wrong_pictures_and_so_the_rest(audits: Path, report: Report, run, tmp_path: Path) -> None:
    ran = run("compare", str(audits / "right"), str(audits / "left"), "-o", str(tmp_path / "c"), "--json")
    assert ran.status == 0, ran.err
    fields = json.loads(ran.out)
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(fields)
    found, known = Report.read(tmp_path / "c"), repair_of(report)
    f = repair_of(found)
    assert (f.value, f.interval, f.n) == (known.value, known.interval, 20)
    assert fields["verdict"] == f.headline
    assert "mended 6, broke 2 of 20" in f.headline
    assert "Acceptable reasons: 0.0 % before, 100.0 % after, +100.0 points" in f.headline
    for caption in ("Mended", "Broken", "Wrong in both"):
        ours = rows(f, caption)
        assert [r["picture"] for r in ours] == [r["picture"] for r in rows(known, caption)]
    mended, broken = rows(f, "Mended")[0], rows(f, "Broken")[0]
    assert mended["before, margin"] == pytest.approx(rows(known, "Mended")[0]["before, margin"])
    assert (mended["after"], mended["after, probability"], mended["after, margin"]) == ("bright", None, None)
    assert (broken["before"], broken["after"], broken["before, margin"]) == ("bright", "dark", None)
    assert any("margins and maps need the models" in note for note in f.notes)
    assert not any("at most 100 annotated pictures" in note for note in f.notes)  # which only models are asked
    assert (f.evidence, f.figures) == ((), ())


def test_a_model_beside_an_audit(audits: Path) -> None:
    f = repair_of(compare([audits / "right", sees("left")], scenes(audits / "scenes"), method="saliency"))
    assert "mended 6, broke 2 of 20" in f.headline
    assert len(rows(f, "By group")) == 2  # the model knows all pictures
    assert any("need the models" in note for note in f.notes)
    assert rows(f, "Mended")[0]["after, margin"] == pytest.approx(margin(brightness(MENDED, 13)[0]), abs=1e-5)


def test_audits_that_keep_no_answers_are_not_paired(audits: Path) -> None:
    right, left = Report.read(audits / "right"), Report.read(audits / "left")
    (accuracy,) = (f for f in left.findings if f.name == "accuracy")
    reasons = replace(left, findings=tuple(f for f in left.findings if f is not accuracy))
    unnamed = replace(accuracy, tables=tuple(t for t in accuracy.tables if not t.caption.startswith("Wrong")))
    for other in (
        reasons,
        replace(left, findings=(unnamed,)),
        replace(left, findings=(replace(accuracy, verdict="error"),)),
    ):
        found = compare([right, other])
        assert [f.name for f in found.findings][:2] == ["runs", "repair"]
        assert repair_of(found).value is None
        assert "left does not say picture by picture what is right" in repair_of(found).headline
        assert found.opening == (found.findings[0].headline,)
    fewer = replace(left, findings=(replace(accuracy, value=None, n=0, tables=()),))
    assert "right was judged on 20 pictures and left on 0" in repair_of(compare([right, fewer])).headline


def test_without_labels_only_the_answers_that_changed_are_told(folder: Path) -> None:
    bare = scenes(folder / "scenes")
    bare = replace(bare, pictures=tuple(replace(p, labels=()) for p in bare.pictures))
    found = compare([sees("right"), sees("left")], bare, only="accuracy", method="saliency")
    f = repair_of(found)
    assert f.value is None
    assert f.headline.endswith("mended or broken; the answers for 8 of 20 pictures changed.")
    assert {str(r["picture"]) for r in rows(f, "Answers that changed")} == {*names(MENDED), *names(BROKEN)}
    assert found.verdict == found.findings[0].headline != f.headline


def test_runs_that_answer_alike_change_nothing(tmp_path: Path) -> None:
    pictures = scenes(tmp_path / "s", region="")
    f = repair_of(compare([sees("left"), replace(sees("left"), source="again")], pictures, only="accuracy"))
    assert "mended 0, broke 0 of 20 pictures" in f.headline
    assert "0.0 points" in f.headline
    assert "McNemar p = 1)" in f.headline
    assert f.evidence == ()


class Flat(nn.Module):
    """The same answers without feature maps, so that "auto" takes another explainer for it."""

    def __init__(self, net: Halves) -> None:
        super().__init__()
        self.net = nn.Linear(HEIGHT * WIDTH, 2)
        weight = net.gain * 2 * net.mask.flatten() / (HEIGHT * WIDTH)
        self.net.weight.data.copy_(weight * weight.new_tensor([[1.0], [-1.0]]))
        self.net.bias.data.copy_(weight.new_tensor([0.0, net.gain]))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))


def test_maps_by_different_explainers_are_not_laid_side_by_side(folder: Path) -> None:
    flat = replace(model(Flat(Halves("left", gain=GAIN))), source="flat")
    f = repair_of(compare([sees("right"), flat], scenes(folder / "scenes")))
    assert "mended 6, broke 2 of 20" in f.headline
    assert [r["share"] for r in rows(f, "Before and after")] == ["right answers"]
    assert not any(t.caption.startswith("Relevance") for t in f.tables)
    assert any("need different explainers: name one for both" in note for note in f.notes)
    assert any(note.startswith("Reasons were not paired: the maps are by grad-cam and") for note in f.notes)
    assert f.evidence[0].maps == "none"
    assert Image.open(io.BytesIO(f.evidence[0].figure.data)).width < 500  # the photo alone


def test_three_runs_are_no_repair(folder: Path) -> None:
    three = [sees("right"), sees("left"), replace(sees("left"), source="again")]
    found = compare(three, scenes(folder / "scenes"), only="accuracy", method="saliency")
    assert [f.name for f in found.findings] == ["runs", "accuracy", "likeness"]
    assert found.verdict.startswith("3 runs are right on 50.0 to 70.0 %")
