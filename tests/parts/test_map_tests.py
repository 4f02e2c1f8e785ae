"""Maps as evidence: tests whose outcome is known, and maps that fail them shown in grey wherever they are drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing import map_tests
from clearsight.auditing.map_tests import CEILING, NETWORKS, MapTest, examine
from clearsight.drawing import heatmaps
from clearsight.explaining import sheet as explaining_sheet
from clearsight.perturbation.map_thresholds import chances
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report
from clearsight.runner.results import Explanation
from conftest import Ran

METRICS = ("road(steps=1)", "insertion(steps=6)", "deletion(steps=6)")
LOW = {"deletion(steps=6)"}
CONTROLS = ("centre", "edge", "random")
SIDE = 16

Pixels = npt.NDArray[np.int64]


class Corner(nn.Module):
    """All hangs on the sixteen pixels of one corner."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(SIDE * SIDE, 2)
        weight = torch.zeros(SIDE, SIDE)
        weight[:4, :4] = 0.5
        self.head.weight.data = torch.stack([weight.flatten(), -weight.flatten()])
        self.head.bias.data = torch.tensor([-4.0, 4.0])

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(x.flatten(1))
        return scores


def corner(scores: str = "logits") -> cs.Classifier:
    return cs.wrap(Corner(), cs.Preprocess(SIDE, (0.0,), (1.0,)), ["on", "off"], scores=scores)  # type: ignore[arg-type]


def lit(n: int = 1) -> Tensor:
    """Noise, and light in the corner."""
    x = 0.3 * torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x[..., :4, :4] = 1
    return x


def far() -> Tensor:
    """A map (SIDE, SIDE) for which the corner comes last."""
    along = torch.arange(float(SIDE))
    return along[:, None] + along


def hues(image: Image.Image) -> Pixels:
    """How far each pixel is from grey."""
    return np.ptp(np.asarray(image.convert("RGB")).astype(np.int64), axis=2)


# The tests ------------------------------------------------------------------------------------------------------------


def test_what_marks_the_corner_passes_and_what_marks_elsewhere_fails() -> None:
    model, x = corner(), lit(3)
    good = cs.explain(model, x, "saliency", cs.ClassScore(0))
    bad = replace(good, maps=far().expand(3, -1, -1))
    passed, failed = examine(model, [good, bad])
    for told in passed:
        assert told.pairwise_wins == dict.fromkeys(CONTROLS, 3.0)
        assert told.kept is not None
        assert told.kept < 0.2
        assert told.failed == ()
        assert told.passed[0] == "wins 3 of 3 against centre, edge and random"
        assert told.lines()[0] == "passes: wins 3 of 3 against centre, edge and random"
    for told in failed:
        assert all(won < 1.5 for won in told.pairwise_wins.values())
        assert told.pairwise_wins["random"] == 0
        assert told.failed[0].startswith("wins only 0 of 3 against ")
        assert told.lines()[0].startswith("fails: wins only 0 of 3")


@pytest.mark.parametrize(
    "question",
    [cs.ClassScore([0, 1, 2, 3]), pytest.param(cs.Margin(2, 4), marks=pytest.mark.slow)],
    ids=["class", "margin"],
)
def test_the_numbers_are_those_of_the_metrics_one_by_one(
    small: cs.Classifier, x: Tensor, question: cs.ClassScore | cs.Margin
) -> None:
    """Duels counted by hand: of a class by its probability, of a margin by itself; likeness over five networks."""
    found = [cs.explain(small, x, m, question, seed=5) for m in ("saliency", "gradient-x-input", "grad-cam")]
    asked = cs.ClassScore(question.index, of="prob") if isinstance(question, cs.ClassScore) else question
    with torch.no_grad():
        small.net.eval()
        if isinstance(question, cs.ClassScore):
            torch.testing.assert_close(asked(small(x)), chances(small, question, small(x)))
    for e, rows in zip(found, examine(small, found), strict=True):
        kept = [
            cs.measure(small, x, e.maps, "parameter-randomisation(stages=1)", question, method=e.method, seed=5 + k)
            for k in range(NETWORKS)
        ]
        for i, told in enumerate(rows):
            for c in CONTROLS:
                control = cs.explain(small, x, c, question, seed=5).maps
                won = 0.0
                for m in METRICS:
                    a, b = (float(cs.measure(small, x, maps, m, asked, seed=5)[i]) for maps in (e.maps, control))
                    won += 0.5 if a == b else float((a < b) if m in LOW else (a > b))
                assert told.pairwise_wins[c] == won, (e.method, i, c)
            assert told.networks == NETWORKS == 5
            assert told.kept == pytest.approx(float(torch.stack(kept)[:, i].mean()))
            others = [spearmanr(e.maps[i].flatten(), o.maps[i].flatten()).statistic for o in found if o is not e]
            assert told.agreement == pytest.approx(np.mean(others), abs=1e-6)
    alone = examine(small, [cs.explain(small, x[1:2], "grad-cam", question[torch.tensor([1])], seed=5)])[0][0]
    among = examine(small, found)[2][1]
    assert (alone.pairwise_wins, alone.networks) == (among.pairwise_wins, among.networks)
    assert alone.kept == pytest.approx(among.kept, abs=1e-5)


def test_an_edge_detector_keeps_its_map_and_ties_with_itself(small: cs.Classifier, x: Tensor) -> None:
    for told in examine(small, [cs.explain(small, x, "edge", cs.ClassScore(0))])[0]:
        assert told.kept == pytest.approx(1)
        assert told.pairwise_wins["edge"] == 1.5
        assert f"rank correlation 1.00 with 5 random networks, at most {CEILING:g} asked for" in told.failed
        assert told.agreement is None


def test_what_costs_much_meets_more_random_networks_only_if_the_first_is_alike(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "def lazy(model, x, target):\n"
        '    """Twelve passes, and of all networks the same map, (B, C, *S) -> (B, *S)."""\n'
        "    for _ in range(12):\n"
        "        model(x)\n"
        "    return x.mean(1)\n"
    )
    model, pictures = corner(), lit(2)
    lazy = examine(model, [cs.explain(model, pictures, f"{tmp_path}/slow.py:lazy", cs.ClassScore(0))])[0]
    assert [told.networks for told in lazy] == [NETWORKS] * 2
    assert all("fails: rank correlation 1.00 with 5 random networks" in " ".join(told.lines()) for told in lazy)
    slow = cs.explain(model, pictures, "occlusion(window=4, stride=4)", cs.ClassScore(0))
    assert slow.forwards > map_tests.FEW
    for told in examine(model, [slow])[0]:
        assert told.networks == 1
        assert "passes: rank correlation " in " ".join(told.lines())
        assert " with a random network" in " ".join(told.lines())


def test_a_map_far_from_complete_fails_and_one_close_to_it_passes() -> None:
    model, x = corner(), lit()
    e = cs.explain(model, x, "integrated-gradients", cs.ClassScore(0))
    for residual, word in ((-0.25, "fails: 25 % from complete, at most 10 % asked for"), (0.05, "5 % from complete")):
        told = examine(model, [replace(e, diagnostics={map_tests.SHARE: torch.tensor([residual])})])[0][0]
        assert told.residual == pytest.approx(abs(residual))
        assert any(line.endswith(word) for line in told.lines())
        assert bool(told.failed) is (residual < 0)
    assert examine(model, [replace(e, diagnostics={})])[0][0].residual is None


def test_an_empty_map_fails_whatever_chance_says() -> None:
    model, x = corner(), lit(2)
    e = cs.explain(model, x, "saliency", cs.ClassScore(0))
    blank = replace(e, maps=e.maps * torch.tensor([0.0, 1.0])[:, None, None])
    empty, whole = examine(model, [blank, e])[0]
    assert empty.failed == ("the same everywhere, so it says nothing",)
    assert (empty.pairwise_wins, empty.kept, empty.networks, empty.agreement) == ({}, None, 0, None)
    assert whole.failed == ()
    assert whole.agreement == pytest.approx(1)
    assert examine(model, [blank, e])[1][0].agreement is None  # with nothing there is no agreement


def test_of_values_only_maps_with_a_sign_meet_the_controls() -> None:
    model, x = corner("values"), lit()
    question = cs.ClassScore(0, of="value")
    (unsigned,), (signed,) = examine(
        model, [cs.explain(model, x, m, question) for m in ("saliency", "gradient-x-input")]
    )
    assert unsigned.pairwise_wins == {}
    assert unsigned.left_out == (
        "against controls: a map without a sign does not say whether a place raises or lowers a value",
    )
    assert unsigned.lines()[-1] == f"not tested: {unsigned.left_out[0]}"
    assert unsigned.kept is not None
    assert unsigned.failed == ()
    assert signed.pairwise_wins == dict.fromkeys(CONTROLS, 3.0)
    assert signed.left_out == ()


def test_labels_that_stand_by_themselves_are_asked_by_their_own_probability() -> None:
    model, x = corner("multi-label"), lit()
    e = cs.explain(model, x, "saliency", cs.ClassScore(0))
    assert map_tests.metric_target(model, e.target)(torch.tensor([[0.0, 3.0]])).item() == 0.5
    assert examine(model, [e])[0][0].pairwise_wins == dict.fromkeys(CONTROLS, 3.0)


def test_what_cannot_be_asked_is_left_out_with_the_reason(tmp_path: Path) -> None:
    class Still(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            light = x[..., :4, :4].mean((1, 2, 3))
            return torch.stack([light, -light], 1)

    model, x = cs.wrap(Still(), cs.Preprocess(SIDE, (0.0,), (1.0,)), ["on", "off"]), lit()
    told = examine(model, [cs.explain(model, x, "saliency", cs.ClassScore(0))])[0][0]
    assert (told.kept, told.networks) == (None, 0)
    assert told.left_out == ("with a random network: this one has no parameters",)
    e = cs.explain(corner(), x, "saliency", cs.ClassScore(0))
    told = examine(corner(), [replace(e, method="libra-cam(references=photos)")])[0][0]
    assert told.left_out == ("with a random network: all references would have to be run through that one too",)
    (tmp_path / "shy.py").write_text(
        "from clearsight.errors import Refused\n\n\n"
        "def shy(model, x, target):\n"
        '    """A map of networks that it knows, (B, C, *S) -> (B, *S)."""\n'
        "    if model.net.head.bias[1] != 4:\n"
        "        raise Refused('I do not know this one')\n"
        "    return x.mean(1)\n"
    )
    told = examine(corner(), [cs.explain(corner(), x, f"{tmp_path}/shy.py:shy", cs.ClassScore(0))])[0][0]
    assert told.left_out == ("with a random network: I do not know this one",)
    assert told.pairwise_wins


def test_scores_that_are_not_finite_are_no_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = corner(), lit()
    e = cs.explain(model, x, "saliency", cs.ClassScore(0))
    real = cs.measure

    def measured(model: cs.Classifier, x: Tensor, maps: Tensor, metric: str, *a: object, **k: object) -> Tensor:
        found = real(model, x, maps, metric, *a, **k)  # type: ignore[arg-type]
        return found if k.get("method") else found * torch.nan

    monkeypatch.setattr(map_tests, "measure", measured)
    told = examine(model, [e])[0][0]
    assert told.left_out == ("against controls: the network's scores of altered pictures are not finite",)
    assert (told.pairwise_wins, told.failed) == ({}, ())


def test_what_does_not_belong_together_is_refused(small: cs.Classifier) -> None:
    model, x = corner(), lit()
    e = cs.explain(model, x, "saliency", cs.ClassScore(0))
    for found, word in (
        ([], "no explanation"),
        ([e, cs.explain(model, x, "saliency", cs.ClassScore(1))], "different questions"),
        ([e, replace(e, seed=1)], "different seeds|questions"),
        ([e, replace(e, x=1 - e.x)], "different pictures"),
    ):
        with pytest.raises(cs.Refused, match=word):
            examine(model, found)
    with pytest.raises(cs.Refused, match="other weights"):
        examine(small, [e])


def test_words_and_plain_values() -> None:
    told = MapTest({"centre": 0.5, "edge": 3.0, "random": 0.5}, 3, 0.75, 1, 0.2, -0.001, left_out=("so",))
    assert told.lines() == [
        "fails: wins only 0.5 of 3 against centre and random, 3 against edge",
        "fails: rank correlation 0.75 with a random network, at most 0.5 asked for",
        "fails: 20 % from complete, at most 10 % asked for",
        "rank correlation 0.00 with the other maps",
        "not tested: so",
    ]
    plain = json.loads(json.dumps(told.as_dict()))
    assert plain["pairwise_wins"] == {"centre": 0.5, "edge": 3.0, "random": 0.5}
    assert (plain["kept"], plain["networks"], plain["residual"], plain["agreement"]) == (0.75, 1, 0.2, -0.001)
    assert (len(plain["failed"]), plain["passed"], plain["left_out"]) == (3, [], ["so"])
    for won, fails in ((1.0, True), (1.5, True), (2.0, False)):  # half is what chance gives
        assert bool(replace(told, pairwise_wins={"edge": won}, kept=None, residual=None).failed) is fails
    fine = MapTest({"centre": 2.0, "random": 3.0}, 3, 0.5, 5, 0.1, -0.5)
    assert fine.failed == ()
    assert fine.lines() == [
        "passes: wins 3 of 3 against random, 2 against centre",
        "passes: rank correlation 0.50 with 5 random networks",
        "passes: 10 % from complete",
        "rank correlation −0.50 with the other maps",
    ]


# How they are drawn ---------------------------------------------------------------------------------------------------


def test_grey_ink_has_no_hue_and_is_the_darker_the_stronger() -> None:
    x, heat = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0)), torch.randn(30, 40)
    for signed in (True, False):
        assert hues(heatmaps.overlay(x, heat, signed=signed)).max() > 60
        assert hues(heatmaps.overlay(x, heat, signed=signed, grey=True)).max() == 0
        assert hues(heatmaps.scale_bar(signed)).max() > 60
        assert hues(heatmaps.scale_bar(signed, grey=True)).max() == 0
    assert hues(heatmaps.overlay(torch.rand(1, 40), heat[0], signed=True, grey=True)).max() == 0
    for grey, palest in ((True, heatmaps.PALER), (False, heatmaps.PALEST)):
        dark = heatmaps.overlay(torch.zeros(1, 224, 224), torch.zeros(224, 224), signed=False, grey=grey)
        assert np.unique(np.asarray(dark)).tolist() == [round(255 * palest)]
    strength = np.linspace(0, 1, 65)
    for paper in np.linspace(heatmaps.PALER, 1, 5):
        for sign in (1, -1):
            assert (np.diff(heatmaps.ink(np.full(65, paper), sign * strength, grey=True)[:, 0]) < 0).all()
    darkest = heatmaps.ink(np.full(1, heatmaps.PALER), np.zeros(1), grey=True)
    assert (
        heatmaps.ink(np.ones(1), np.ones(1), grey=True).max() < darkest.min() - 0.4
    )  # told from the photo's own black


def test_a_sheet_says_what_the_tests_came_to_and_greys_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = corner(), lit(2)
    good = cs.explain(model, x, "gradient-x-input", cs.ClassScore(0))
    other = replace(good, method="other", signed=False)
    fine = MapTest(dict.fromkeys(CONTROLS, 3.0), 3, 0.1, 5, None, None)
    poor = replace(fine, pairwise_wins=dict.fromkeys(CONTROLS, 0.0))
    told: list[tuple[Sequence[Sequence[heatmaps.Tile]], dict[str, object]]] = []
    monkeypatch.setattr(explaining_sheet, "sheet", lambda rows, **how: told.append((rows, how)))
    explaining_sheet.explanation_sheet([good, other], tests=[(fine, poor), (poor, poor)])
    explaining_sheet.explanation_sheet([good, other], tests=[(fine, fine), (poor, fine)])
    explaining_sheet.explanation_sheet([good, other], tests=[(poor, poor), (fine, fine)])
    explaining_sheet.explanation_sheet([good, other])
    bars = [(how["signed"], how["grey"]) for _, how in told]
    assert bars == [(True, True), (True, False), (False, True), (True, None)]
    tiles = [tile for row in told[0][0] for tile in row[1:]]
    assert [hues(image).max() > 0 for image, _ in tiles if image] == [True, False, False, False]
    for (_, caption), t in zip(tiles, (fine, poor, poor, poor), strict=True):
        assert caption.splitlines()[-2:] == t.lines()[-2:]
    assert "Tests are of one picture" in str(told[0][1]["note"])
    assert "Tests" not in str(told[3][1]["note"])
    assert [hues(image).max() > 0 for row in told[3][0] for image, _ in row[1:] if image] == [True] * 4


def test_a_sheet_has_room_for_both_scales() -> None:
    tile = Image.new("RGB", (448, 448), "black")
    row: list[heatmaps.Tile] = [(tile, "a"), (tile, "b"), (tile, "c")]
    one, both, none = (
        heatmaps.sheet([row], signed=s, grey=g, note="n") for s, g in ((True, None), (True, True), (None, None))
    )
    assert both.height == one.height + 64
    assert none.height < one.height
    below = np.asarray(both)[-64 - 40 :]
    assert (below < 200).any(axis=2).sum() > 500  # the second bar is whole, above the margin
    assert (np.asarray(both)[-30:] == 255).all()


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cornered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, a picture and an explainer that marks what is far from the corner."""
    Image.fromarray((lit()[0, 0].numpy() * 255).round().astype(np.uint8)).save(tmp_path / "lit.png")
    (tmp_path / "net.py").write_text("from test_map_tests import corner as factory\n")
    (tmp_path / "mine.py").write_text(
        "from test_map_tests import far\n\n\n"
        "def elsewhere(model, x, target):\n"
        '    """What is far from the corner, (B, C, *S) -> (B, *S)."""\n'
        "    return far().expand(len(x), -1, -1)\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_explain_shows_the_tests_and_greys_what_fails(cornered: Path, run: Callable[..., Ran]) -> None:
    words = ("explain", "net.py:factory", "lit.png", "--target", "on", "-m", "saliency", "-m", "./mine.py:elsewhere")
    told = json.loads(run(*words, "-o", "a", "--json").out)["pictures"][0]
    good, bad = (m["tests"] for m in told["maps"])
    assert len(good) == len(bad) == 1
    assert good[0]["failed"] == []
    assert good[0]["pairwise_wins"] == dict.fromkeys(CONTROLS, 3.0)
    assert len(bad[0]["failed"]) == 2
    with Image.open("a/lit.png") as sheet:
        columns = [hues(sheet.crop((40 + 476 * k, 0, 488 + 476 * k, 488))).max() for k in range(3)]
        foot = hues(sheet.crop((40, sheet.height - 200, 560, sheet.height)))
    assert columns[1] > 60  # saliency, in colour
    assert columns[2] == 0  # elsewhere
    assert foot.max() > 60
    plain = run(*words, "-o", "b").out.splitlines()
    assert "  saliency: passes: wins 3 of 3 against centre, edge and random; passes: rank correlation 0.0" in "\n".join(
        plain
    )
    assert any(line.startswith("  ./mine.py:elsewhere: fails: wins only 0 of 3 against ") for line in plain)
    ran = run(*words, "-o", "c", "--no-tests")
    assert "passes" not in ran.out + ran.err
    assert "fails" not in ran.out
    assert all(m["tests"] is None for m in json.loads(run(*words, "--no-tests", "--json").out)["pictures"][0]["maps"])
    with Image.open("c/lit.png") as sheet:
        assert hues(sheet.crop((992, 0, 1440, 488))).max() > 60


def test_explain_tests_each_of_several_questions(cornered: Path, run: Callable[..., Ran]) -> None:
    ran = run("explain", "net.py:factory", "lit.png", "--target", "top2", "-m", "saliency")
    assert ran.status == 0, ran.err
    assert "  saliency, logit of on: passes: wins 3 of 3" in ran.out
    assert "  saliency, logit of off: " in ran.out
    versus = json.loads(
        run("explain", "net.py:factory", "lit.png", "--target", "on rather than off", "-m", "saliency", "--json").out
    )
    assert versus["pictures"][0]["maps"][0]["tests"][0]["pairwise_wins"] == dict.fromkeys(CONTROLS, 3.0)


# The audit ------------------------------------------------------------------------------------------------------------

RANKING = (
    "explainer-ranking(methods=saliency, metrics='deletion(steps=6), parameter-randomisation(stages=1)', pictures=12, "
    "ceiling={})"
)


def test_where_no_explainer_is_believed_later_maps_are_grey(workshop: Path, run: Callable[..., Ran]) -> None:
    checks = f"accuracy, {RANKING.format(-1)}, faithfulness(pictures=3), robustness(eps=0.5, steps=2, pictures=3)"
    words = ("audit", "net.py:factory", "photos", "--quiet", "--only", checks)
    assert run(*words, "-o", "whole").status == 0
    report = Report.read("whole")
    accuracy, believe, faithfulness, robustness = report.findings
    assert believe.verdict == "fail"

    def grey(f: Finding) -> list[bool]:
        with_words = [heatmaps.GREY_WORDS in e.figure.caption for e in f.evidence]
        without = []
        for e in f.evidence:
            (Path("evidence.png")).write_bytes(e.figure.data)
            with Image.open("evidence.png") as image:
                without.append(not hues(image).any())
        assert with_words == without
        assert f.evidence
        return without

    assert not any(grey(accuracy))  # came before
    assert believe.evidence
    assert robustness.evidence
    assert not any(heatmaps.GREY_WORDS in e.figure.caption for e in (*believe.evidence, *robustness.evidence))
    assert all(grey(faithfulness))
    assert "no explainer can be believed" in faithfulness.evidence[0].figure.caption
    page = (workshop / "whole" / "report.html").read_text()
    assert page.count('class="scale doubted"') == 1
    assert "failed its tests" in page
    assert 'class="scale doubted"' not in replace(report, findings=(accuracy,)).html()
    # stopped after believe, and gone on with; a report of before does not say what a ranking means for later checks
    for before in (False, True):
        shutil.copytree("whole", "part")
        facts = json.loads(Path("part/report.json").read_text())
        facts |= {"complete": False, "findings": facts["findings"][:2]}
        assert "maps_unreliable" not in facts["findings"][0]
        assert facts["findings"][1]["maps_unreliable"] is True
        if before:
            del facts["findings"][1]["maps_unreliable"]
        facts["findings"][1]["headline"] = "as it was"
        Path("part/report.json").write_text(json.dumps(facts))
        assert run(*words, "-o", "part").status == 0
        _, ranking, again, _ = Report.read("part").findings
        assert ranking.headline == (believe.headline if before else "as it was")
        assert [e.figure for e in again.evidence] == [e.figure for e in faithfulness.evidence]
        shutil.rmtree("part")


def test_the_explainer_that_was_chosen_stands_in_the_commands_of_what_used_it(
    workshop: Path, run: Callable[..., Ran]
) -> None:
    checks = f"accuracy, {RANKING.format(1.01)}, faithfulness(pictures=3), calibration"
    assert run("audit", "net.py:factory", "photos", "--quiet", "--only", checks, "-o", "a").status == 0
    accuracy, believe, faithfulness, calibration = Report.read("a").findings
    assert believe.verdict == "pass"
    assert faithfulness.command.endswith(" --only 'faithfulness(pictures=3)' -m saliency")
    for f in (accuracy, believe, calibration):
        assert " -m " not in f.command
    assert all("-m saliency" in e.command for e in faithfulness.evidence)
    assert not any(heatmaps.GREY_WORDS in e.figure.caption for e in faithfulness.evidence)
    words = faithfulness.command.replace("'", "").split()[1:]
    assert run(*words, "-o", "b", "--quiet").status == 0
    assert Report.read("b").findings[0].value == faithfulness.value


def test_an_explanation_is_what_it_was(small: cs.Classifier, x: Tensor) -> None:
    """From Python maps come as they did, and tests where they are asked for."""
    e = cs.explain(small, x, "saliency")
    assert isinstance(e, Explanation)
    assert cs.examine is examine
    with torch.random.fork_rng():
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        ((a, *_),) = cs.examine(small, [e])
        assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(a, cs.MapTest)
    assert small.net.training
