"""Groups, trust in reasons, and which explanation to believe, where the answer is known."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.tournament import Tournament, mean, run_tournament
from clearsight.checks.explainer_ranking import chosen_explainers, is_hopeless, is_voter, judge_explainers
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import apart
from clearsight.core.targets import ClassScore
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from clearsight.runner.run import explain, measure

SIDE = 16


def found(case: Case, check: str) -> Finding:
    (finding,) = run_checks(case, parse_checks(check))
    return finding


def rows(finding: Finding, caption: str) -> tuple[dict[str, object], ...]:
    return next(t.rows for t in finding.tables if t.caption.startswith(caption))


# Groups ---------------------------------------------------------------------------------------------------------------

# Two-year recidivism of defendants in Broward County (Angwin, Larson, Mattu & Kirchner 2016, ProPublica):
# (re-offended, flagged as a risk): how many
COMPAS = {
    "black": {(False, False): 990, (False, True): 805, (True, False): 532, (True, True): 1369},
    "white": {(False, False): 1139, (False, True): 349, (True, False): 461, (True, True): 505},
}


class Bright(nn.Module):
    """Says class 1 where the picture is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: Tensor) -> Tensor:
        z = self.gain * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-z, z], 1)


def test_the_published_rates_of_compas(tmp_path: Path) -> None:
    """23.5 and 44.9 % of those who did not re-offend were flagged, 47.7 and 28.0 % of those who did were not."""
    for flagged in (False, True):
        Image.new("L", (2, 2), 255 * flagged).save(tmp_path / f"{flagged}.png")
    pictures = []
    for race, counts in COMPAS.items():
        for (again, flagged), n in counts.items():
            for i in range(n):
                name = f"{race}-{again}-{flagged}-{i}.png"
                pictures.append(
                    Picture(tmp_path / f"{flagged}.png", name, ("high" if again else "low",), None, {"race": race})
                )
    model = Classifier(Bright(), Preprocess((2, 2), (0.0,), (1.0,)), ("low", "high"), "demo")
    f = found(Case(model, Pictures(tmp_path, tuple(pictures)), method="saliency"), "groups")
    rates = {(r["rate"], r["group"]): r["share"] for r in rows(f, "Rates")}
    published = {
        ("false high", "white"): 23.5, ("false high", "black"): 44.9,
        ("missed high", "white"): 47.7, ("missed high", "black"): 28.0,
    }  # fmt: skip
    for key, value in published.items():
        assert 100 * float(rates[key]) == pytest.approx(value, abs=0.06), key  # type: ignore[arg-type]
    assert f.verdict == "fail"
    assert f.mend == "clearsight train DATA --arch demo --groups race --rebalance group-dro"
    assert f.value == pytest.approx(805 / 1795 - 349 / 1488)
    assert "False high in race black" in f.headline
    assert f.interval == apart((805, 1795), (349, 1488))


def test_groups_that_are_alike_pass_and_few_pictures_are_not_enough(tmp_path: Path) -> None:
    for flagged in (False, True):
        Image.new("L", (2, 2), 255 * flagged).save(tmp_path / f"{flagged}.png")
    model = Classifier(Bright(), Preprocess((2, 2), (0.0,), (1.0,)), ("low", "high"), "bright")

    def case(n: int, wrong: int) -> Case:
        pictures = [
            Picture(
                tmp_path / "True.png",
                f"{g}{i}",
                ("low",) if i < wrong else ("high",),
                None,
                {"site": g, "id": f"{g}{i}"},
            )
            for g in "AB"
            for i in range(n)
        ]
        return Case(model, Pictures(tmp_path, tuple(pictures)), method="saliency")

    alike = found(case(400, 20), "groups")
    assert (alike.verdict, alike.value) == ("pass", 0.0)
    assert {r["column"] for r in rows(alike, "Rates")} == {"site"}  # an id is no group
    assert found(case(12, 1), "groups").verdict == "warn"
    with pytest.raises(Refused, match="no column 'town'"):
        found(case(12, 1), "groups(column=town)")


def test_false_and_missed_of_three_classes_by_hand(tmp_path: Path) -> None:
    """What is said is the brightness; ward A is all right, of ward B two of three a are called b."""
    table = [("a", "a", "A"), ("b", "b", "A"), ("c", "c", "A"), ("a", "b", "B"), ("a", "b", "B"), ("a", "a", "B"),
             ("b", "b", "B"), ("c", "c", ""), ("", "a", "B")]  # fmt: skip
    pictures = []
    for i, (truth, said, ward) in enumerate(table):
        Image.new("L", (2, 2), 100 * "abc".index(said)).save(tmp_path / f"{i}.png")
        pictures.append(
            Picture(tmp_path / f"{i}.png", f"{i}.png", (truth,) if truth else (), None, {"ward": ward} if ward else {})
        )

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(9.0))

        def forward(self, x: Tensor) -> Tensor:
            levels = torch.tensor([0.0, 100.0, 200.0]) / 255
            return -self.gain * (x.mean((1, 2, 3))[:, None] - levels).abs()

    model = Classifier(Three(), Preprocess((2, 2), (0.0,), (1.0,)), ("a", "b", "c"), "three")
    case = Case(model, Pictures(tmp_path, tuple(pictures)), method="saliency")
    f = found(case, "groups(fewest=1)")
    rates = {(r["rate"], r["group"]): (r["share"], r["n"], r["all others"]) for r in rows(f, "Rates")}
    assert rates == {
        ("errors", "A"): (0, 3, 0.5), ("errors", "B"): (0.5, 4, 0),
        ("false a", "A"): (0, 2, 0), ("false a", "B"): (0, 1, 0),
        ("missed a", "A"): (0, 1, pytest.approx(2 / 3)), ("missed a", "B"): (pytest.approx(2 / 3), 3, 0),
        ("false b", "A"): (0, 2, pytest.approx(2 / 3)), ("false b", "B"): (pytest.approx(2 / 3), 3, 0),
        ("missed b", "A"): (0, 1, 0), ("missed b", "B"): (0, 1, 0),
        ("false c", "A"): (0, 2, 0), ("false c", "B"): (0, 4, 0),
    }  # fmt: skip
    assert f.value == pytest.approx(2 / 3)
    assert found(case, "groups(fewest=3)").value == 0.5  # of the rates with three pictures on both sides: the errors
    few = found(case, "groups(fewest=4)")
    assert few.verdict == "note"
    assert few.headline.startswith("No group can be judged: each group in the column")
    assert few.headline.endswith(
        " has fewer than 4 labelled pictures, or leaves fewer than 4 outside it (option fewest)."
    )


def test_the_difference_of_two_shares_by_newcombe() -> None:
    """The examples of his table II, method 10."""
    for one, other, low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ):  # fmt: skip
        assert apart(one, other) == pytest.approx((low, high), abs=1e-4)
        assert apart(other, one) == pytest.approx((-high, -low), abs=1e-4)
    low, high = apart((0, 0), (5, 10))  # of nothing nothing is known
    assert -high == pytest.approx(low)
    assert high > 0.5


# Trust ----------------------------------------------------------------------------------------------------------------


class Looks(nn.Module):
    """Bright or dark by the mean of one half of the picture, through a convolution that maps can be made of."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1)
        self.features.weight.data = torch.tensor([[[[1.0]]], [[[-1.0]]]])
        self.features.bias.data = torch.tensor([-0.5, 0.5])
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., : SIDE // 2] = 1
        self.register_buffer("mask", mask if side == "left" else mask.flip(3))

    def forward(self, x: Tensor) -> Tensor:
        return 40 * (self.features(x) * self.mask).mean((2, 3))


def scenes(folder: Path, n: int = 24) -> Pictures:
    """Both halves are bright, or both dark, so that either says the class; the left one is annotated."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        a = rng.integers(170, 240, (SIDE, SIDE)) if i % 2 else rng.integers(10, 80, (SIDE, SIDE))
        path = folder / f"{i:02d}.png"
        Image.fromarray(a.astype(np.uint8)).save(path)
        box = (0.0, 0.0, SIDE / 2, float(SIDE))
        out.append(Picture(path, path.name, ("bright" if i % 2 else "dark",), (Region(boxes=(box,)),)))
    return Pictures(folder, tuple(out))


def looking(side: str) -> Classifier:
    return Classifier(Looks(side).eval(), Preprocess((SIDE, SIDE), (0.0,), (1.0,)), ("bright", "dark"), side)


@pytest.mark.parametrize(("side", "verdict", "word"), [("left", "pass", "acceptable"), ("right", "fail", "rejectable")])
def test_equal_accuracy_unequal_reasons(tmp_path: Path, side: str, verdict: str, word: str) -> None:
    case = Case(looking(side), scenes(tmp_path), method="saliency")
    assert found(case, "accuracy").value == 1.0
    f = found(case, "trustworthiness(fill=mean)")
    assert f.verdict == verdict
    assert f.value == float(side == "left")
    counts = {r["reason"]: r["pictures"] for r in rows(f, "Reasons")}
    assert counts == {"acceptable": 0, "suspicious": 0, "rejectable": 0} | {word: 24}
    did = {r["what"]: r["share"] for r in rows(f, "What the model does")}
    erased = (0.5, 1.0, 1.0) if side == "left" else (0.0, 0.5, 0.0)  # erased is black, which says dark
    assert tuple(did.values()) == erased
    assert not any(
        "depend more on what is not annotated" in note for note in f.notes
    )  # of the right half one half stays
    assert f.evidence[0].facts["reason"] == word


def test_thresholds_of_trust_are_options(tmp_path: Path) -> None:
    case = Case(looking("left"), scenes(tmp_path), method="centre")  # half of its map lies on the left half
    f = found(case, "trustworthiness(acceptable=0.6, rejectable=0.4)")
    assert {r["reason"]: r["pictures"] for r in rows(f, "Reasons")}["suspicious"] == 24
    assert found(case, "trustworthiness(acceptable=0.4)").value == 1.0
    with pytest.raises(Refused, match="the second not above the first"):
        found(case, "trustworthiness(acceptable=0.2, rejectable=0.4)")


def test_the_thresholds_of_trust_themselves(tmp_path: Path) -> None:
    """Of a map of one value exactly half lies on half of the picture; of a map without anything positive, nothing."""
    (tmp_path / "mine.py").write_text(
        "def flat(model, x, target):\n    return x[:, 0] * 0 + 1\n\n\n"
        "def bare(model, x, target):\n    return -x[:, 0]\n"
    )
    case = Case(looking("left"), scenes(tmp_path), method=f"{tmp_path}/mine.py:flat")
    for options, word, value, chance in (
        ("acceptable=0.5", "acceptable", 1.0, 1.0), ("acceptable=0.6, rejectable=0.5", "suspicious", 0.0, 0.0),
        ("acceptable=0.6, rejectable=0.51", "rejectable", 0.0, 0.0),
    ):  # fmt: skip
        f = found(case, f"trustworthiness({options})")
        counts = {r["reason"]: r["pictures"] for r in rows(f, "Reasons")}
        assert counts == {"acceptable": 0, "suspicious": 0, "rejectable": 0} | {word: 24}
        assert (f.value, f.chance) == (value, chance)
    f = found(Case(looking("left"), scenes(tmp_path), method=f"{tmp_path}/mine.py:bare"), "trustworthiness")
    assert (f.value, f.n) == (0.0, 24)
    assert {r["focus"] for r in rows(f, "By picture")} == {0.0}
    f = found(Case(looking("left"), scenes(tmp_path), method="edge"), "trustworthiness")
    focus = [float(r["focus"]) for r in rows(f, "By picture")]  # type: ignore[arg-type]
    assert focus == sorted(focus)
    assert focus[0] < focus[-1]


def test_trust_is_asked_of_right_answers_with_a_region_in_view(tmp_path: Path) -> None:
    """The first picture's region is all of it, the second's is nothing, the third is answered wrong."""
    data = scenes(tmp_path)
    p = list(data.pictures)
    p[0] = dataclasses.replace(p[0], regions=(Region(boxes=((0.0, 0.0, float(SIDE), float(SIDE)),)),))
    p[1] = dataclasses.replace(p[1], regions=(Region(boxes=((-9.0, 0.0, -1.0, 5.0),)),))
    p[2] = dataclasses.replace(p[2], labels=("bright",))
    case = Case(looking("left"), Pictures(tmp_path, tuple(p)), method="saliency")
    f = found(case, "trustworthiness(fill=black)")
    assert f.n == 21
    left_out = [note.partition(" ")[0] for note in f.notes if "is left out" in note]
    assert sorted(left_out) == ["00.png", "01.png"]
    by = {r["picture"]: r for r in rows(f, "By picture")}
    assert len(by) == 21
    for name, r in by.items():
        word = "bright" if int(name[:2]) % 2 else "dark"
        assert (r["said"], r["without the region"], r["without all else"]) == (word, "dark", word)


def test_behaviour_that_hangs_on_what_is_not_annotated_is_said(tmp_path: Path) -> None:
    """Most pictures are bright: black in the half that counts changes them, black on the region changes none."""
    data = scenes(tmp_path)
    mostly = tuple(p for i, p in enumerate(data.pictures) if i % 2 or i < 8)
    f = found(Case(looking("right"), Pictures(tmp_path, mostly), method="saliency"), "trustworthiness(fill=black)")
    did = [r["share"] for r in rows(f, "What the model does")]
    assert did == [0.0, 0.25, 0.0]
    assert any("depend more on what is not annotated" in note for note in f.notes)
    bright = tuple(p for i, p in enumerate(data.pictures) if i % 2)
    f = found(Case(looking("left"), Pictures(tmp_path, bright), method="saliency"), "trustworthiness(fill=black)")
    assert [r["share"] for r in rows(f, "What the model does")] == [1.0, 1.0]  # there is no picture of another class
    both = looking("left")
    both.net.mask.fill_(1.0)  # it needs both halves: without either it says dark
    f = found(Case(both, Pictures(tmp_path, bright), method="saliency"), "trustworthiness(fill=black)")
    assert [r["share"] for r in rows(f, "What the model does")] == [1.0, 0.0]
    assert not any("depend more on what is not annotated" in note for note in f.notes)


def test_a_region_stays_whole_where_all_else_is_solved(tmp_path: Path) -> None:
    """Inpainting continues what is left: the dark half goes on where the bright one is erased, and the reverse."""
    out = []
    for i in range(8):
        a = np.full((SIDE, SIDE), 40 if i % 2 else 215, np.uint8)
        a[:, : SIDE // 2] = 215 if i % 2 else 40
        Image.fromarray(a).save(tmp_path / f"{i}.png")
        box = Region(boxes=((0.0, 0.0, SIDE / 2, float(SIDE)),))
        out.append(Picture(tmp_path / f"{i}.png", f"{i}.png", ("bright" if i % 2 else "dark",), (box,)))
    f = found(Case(looking("left"), Pictures(tmp_path, tuple(out)), method="saliency"), "trustworthiness")
    for r in rows(f, "By picture"):
        said = "bright" if int(str(r["picture"])[0]) % 2 else "dark"
        other = "dark" if said == "bright" else "bright"
        assert (r["said"], r["without the region"], r["without all else"]) == (said, other, said)


# Which explanation ----------------------------------------------------------------------------------------------------


JUDGES = (
    "deletion(steps=6), sensitivity-n, parameter-randomisation(stages=1)"  # a blur shows such small pictures' light
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Pictures]:
    """A network that has learnt in which third of a noisy picture the light is, and pictures for it."""
    folder = tmp_path_factory.mktemp("lights")
    rng = np.random.default_rng(0)
    pictures, arrays = [], []
    for i in range(36):
        a = rng.integers(0, 110, (12, 18))
        a[3:9, 6 * (i % 3) + 1 : 6 * (i % 3) + 5] += 120
        arrays.append(a)
        Image.fromarray(a.astype(np.uint8)).save(folder / f"{i:02d}.png")
        pictures.append(Picture(folder / f"{i:02d}.png", f"{i:02d}.png", (("left", "middle", "right")[i % 3],)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(72, 3),
        )
        model = Classifier(net, Preprocess((12, 18), (0.4,), (0.25,)), ("left", "middle", "right"), "taught")
        x, y = torch.tensor(np.array(arrays))[:, None] / 255, torch.arange(36) % 3
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(80):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y, label_smoothing=0.3).backward()
            adam.step()
    net.eval()
    return model, Pictures(folder, tuple(pictures))


def test_the_tournament_believes_what_looks_at_the_network(taught: tuple[Classifier, Pictures], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\ndef lazy(model, x, target):\n"
        '    """Brighter than half (B, C, *S) -> (B, *S), whatever the network."""\n'
        "    return (x.mean(1) - 0.5).relu() + 0 * model(x).sum()\n"
    )
    case = Case(*taught)
    f = found(
        case,
        f"explainer-ranking(methods='occlusion(window=4, stride=2), {tmp_path}/mine.py:lazy', metrics='{JUDGES}', "
        "pictures=24)",
    )
    by = {str(r["explainer"]).partition("(")[0]: r for r in rows(f, "Explainers")}
    assert f.verdict == "pass", f.headline
    assert by["occlusion"]["believed"] == "yes"
    assert "alike on a random network" in str(next(v["believed"] for k, v in by.items() if k != "occlusion"))
    assert {r["explainer"] for r in rows(f, "Means by metric")[-3:]} == {"random", "centre", "edge"}
    agreement = rows(f, "Do the metrics agree")
    assert [r["metric"] for r in agreement] == list(agreement[0])[1:]
    assert all(r[str(r["metric"])] == 1.0 for r in agreement)
    assert str(case.method) == "occlusion(window=4, stride=2)"  # what later checks use


def test_where_nothing_can_be_believed_it_says_so(taught: tuple[Classifier, Pictures]) -> None:
    case = Case(*taught)
    f = found(
        case, f"explainer-ranking(methods='occlusion(window=4, stride=2)', metrics='{JUDGES}', ceiling=-1, pictures=24)"
    )
    assert f.verdict == "fail"
    assert "No explainer can be believed" in f.headline
    assert str(case.method).startswith("grad-cam")  # as before


def test_a_method_that_was_asked_for_is_kept(taught: tuple[Classifier, Pictures]) -> None:
    case = Case(*taught, method="saliency")
    f = found(case, f"explainer-ranking(methods='occlusion(window=4, stride=2)', metrics='{JUDGES}', pictures=24)")
    assert f.verdict == "pass", f.headline
    assert str(case.method) == "saliency"
    assert not any("checks below use" in note for note in f.notes)


def test_which_explainers_play() -> None:
    few = {c.method.name for c in chosen_explainers("few-passes")}
    assert few == {n for n, m in catalogue("explainers").items() if "few-passes" in m.claims}
    assert {c.method.name for c in chosen_explainers("all")} == {
        n for n, m in catalogue("explainers").items() if m.takes in ("Classifier", "Model")
    }
    assert [str(c) for c in chosen_explainers("occlusion(window=4), saliency")] == ["occlusion(window=4)", "saliency"]


@pytest.fixture(scope="module")
def played(taught: tuple[Classifier, Pictures]) -> Tournament:
    """Two explainers and the three controls by three metrics on eight pictures, whose values the tests write."""
    case = Case(*taught)
    methods = [parse(m, "explainers") for m in ("saliency", "gradient-x-input")]
    metrics = [
        parse(m, "metrics") for m in ("insertion(steps=1)", "deletion(steps=1)", "parameter-randomisation(stages=1)")
    ]
    return run_tournament(case, methods, metrics, range(8))


def of_eight(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.repeat(np.array(rows)[:, :, None], 8, axis=2)


def test_what_a_tournament_measures(taught: tuple[Classifier, Pictures], played: Tournament) -> None:
    """The maps are of the top class's logit, the metrics of its probability, but for those of the explainer itself."""
    case = Case(*taught)
    x, top = case.pixels(range(8)), case.predicted[:8]
    assert [p.call.method.name for p in played.players] == ["saliency", "gradient-x-input", "centre", "edge", "random"]
    assert [p.control for p in played.players] == [False, False, True, True, True]
    assert [p.passes for p in played.players] == [2, 2, 0, 0, 0]
    for i, name in enumerate(("saliency", "gradient-x-input")):
        maps = explain(case.model, x, name, ClassScore(top)).maps
        torch.testing.assert_close(played.players[i].maps, maps)
        for k, (metric, of) in enumerate(
            (
                ("insertion(steps=1)", "prob"),
                ("deletion(steps=1)", "prob"),
                ("parameter-randomisation(stages=1)", "logit"),
            )
        ):
            told = measure(case.model, x, maps, metric, ClassScore(top, of=of), method=name)  # type: ignore[arg-type]
            np.testing.assert_allclose(played.values[i, k], told.numpy(), atol=1e-6)


def test_wins_places_and_agreement_by_hand(played: Tournament) -> None:
    """Insertion is high, deletion low where a map is good; a tie is half, and what is nan is left out."""
    nan = float("nan")
    insertion = [[0.9, 0.5], [0.4, 0.5], [0.1, 0.6], [0.2, nan], [0.3, 0.3]]
    deletion = [[0.1, 0.2], [0.2, 0.1], [0.5, 0.2], [0.6, 0.3], [0.7, 0.4]]
    values = np.stack([insertion, deletion, np.full((5, 2), nan)], axis=1)
    t = dataclasses.replace(played, rows=(0, 1), values=values)
    assert t.pairwise_wins([0, 1], 0, 1).tolist() == [1.0, 0.25]
    assert t.pairwise_wins([0, 1], 1, 0).tolist() == [0.0, 0.75]
    assert t.pairwise_wins([0, 1], 0, 3).tolist() == [1.0, 1.0]
    assert t.places([0, 1], range(5)).tolist() == pytest.approx([1.75, 1.875, 2.875, 4, 4.25])
    assert t.places([0, 1], [0, 3]).tolist() == pytest.approx([1, 1.625, 1.875, 2, 2.5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the third metric says nothing of anybody
        agreement = t.agreement()
    by_mean = [0.7, 0.45, 0.35, 0.2, 0.3], [-0.15, -0.15, -0.35, -0.45, -0.55]
    assert agreement[0, 1] == agreement[1, 0] == pytest.approx(spearmanr(*by_mean).statistic)
    assert np.diag(agreement).tolist() == [1, 1, 1]
    assert np.isnan(agreement[2, :2]).all()
    assert mean(np.array([1.0, nan, 3.0]), 0) == (2.0, None)


def test_disputed_is_the_mean_likeness_of_all_pairs(played: Tournament) -> None:
    up = torch.arange(6.0).view(1, 2, 3)
    maps = [torch.cat(pair) for pair in ((up, up), (up, -up), (up, up), (up, up), (up, up))]
    players = tuple(dataclasses.replace(p, maps=m) for p, m in zip(played.players, maps, strict=True))
    t = dataclasses.replace(played, rows=(0, 1), players=players)
    np.testing.assert_allclose(t.disputed([0, 1]), [1, -1])
    np.testing.assert_allclose(t.disputed([0, 1, 2]), [1, -1 / 3])
    np.testing.assert_allclose(t.disputed([1]), [1, 1])


def test_an_explainer_is_judged_by_the_control_that_does_best(played: Tournament) -> None:
    """The first loses insertion to the random map and wins deletion: half; the second wins all, but stays the same."""
    values = of_eight((0.6, 0.3, 0.2), (0.8, 0.1, 0.6), (0.1, 0.9, 0.9), (0.2, 0.8, 0.9), (0.7, 0.5, 0.9))
    t = dataclasses.replace(played, values=values)
    assert [is_voter(m) for m in t.metrics] == [True, True, False]
    assert not any(is_voter(parse(m, "metrics")) for m in ("complexity", "relevance-mass", "max-sensitivity", "iou"))
    first, second = judge_explainers(t, [0, 1], 0)
    assert (first.player, first.won, first.interval, first.control) == (0, 0.5, (0.5, 0.5), "random")
    assert (second.player, second.won, second.interval) == (1, 1.0, (1.0, 1.0))
    assert (first.likeness, second.likeness) == pytest.approx((0.2, 0.6))
    assert (first.rank, second.rank) == (2.5, 1.0)
    assert (first.faithful, second.faithful) == (False, True)  # a half is chance
    assert [is_hopeless(first, 0.5), is_hopeless(second, 0.5), is_hopeless(second, 0.7)] == [True, True, False]
    few = judge_explainers(dataclasses.replace(t, rows=(0, 1), values=values[:, :, :2]), [0, 1], 0)[1]
    assert (few.faithful, is_hopeless(few, 0.7)) == (False, False)  # two pictures are too few to say


def judged_as(monkeypatch: pytest.MonkeyPatch, case: Case, played: Tournament, values: np.ndarray) -> Finding:
    """What the check makes of a tournament with these values."""
    told = dataclasses.replace(played, values=values)
    check = importlib.import_module("clearsight.checks.explainer_ranking")
    monkeypatch.setattr(check, "run_tournament", lambda *_, **__: told)
    monkeypatch.setattr(check, "measure_players", lambda _case, tournament, *_, **__: tournament)  # all is measured
    return found(case, "explainer-ranking")


CONTROLS = ((0.1, 0.9, 0.9), (0.2, 0.8, 0.9), (0.3, 0.7, 0.9))


def test_the_best_that_changes_with_the_network_is_used(
    monkeypatch: pytest.MonkeyPatch, taught: tuple[Classifier, Pictures], played: Tournament
) -> None:
    """The second explainer is better by both metrics, but keeps 0.6 of its maps; with a higher ceiling it is taken."""
    case = Case(*taught)
    values = of_eight((0.6, 0.3, 0.2), (0.8, 0.1, 0.6), *CONTROLS)
    f = judged_as(monkeypatch, case, played, values)
    assert (f.verdict, f.value, f.quantity) == ("pass", 1.0, "comparisons won by saliency")
    assert [(r["explainer"], r["mean place"]) for r in rows(f, "Explainers")] == [
        ("gradient-x-input", 1),
        ("saliency", 2),
    ]
    assert str(case.method) == "saliency"
    assert f.headline.startswith("Use saliency: it wins 100.0 %")
    assert (f.chosen_explainer, f.maps_unreliable) == ("saliency", False)
    assert case.maps_unreliable_by == ""
    values[1, 2] = 0.5  # at the ceiling
    case = Case(*taught)
    assert judged_as(monkeypatch, case, played, values).verdict == "pass"
    assert str(case.method) == "gradient-x-input"


def test_who_is_no_better_than_a_control_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, taught: tuple[Classifier, Pictures], played: Tournament
) -> None:
    """Half of the comparisons with one control is chance: fail.  Five of eight may be luck: warn."""
    case = Case(*taught)
    values = of_eight((0.6, 0.3, 0.2), (0.6, 0.3, 0.2), *CONTROLS[:2], (0.7, 0.5, 0.9))
    f = judged_as(monkeypatch, case, played, values)
    assert (f.verdict, f.value, f.interval) == ("fail", 0.5, (0.5, 0.5))
    assert str(case.method).startswith("grad-cam")
    assert (f.chosen_explainer, f.maps_unreliable) == ("", True)
    assert case.maps_unreliable_by == "explainer-ranking"
    values[0, 0, :5] = 0.8
    values[0, 1, 5:] = 0.6
    case = Case(*taught)
    f = judged_as(monkeypatch, case, played, values)
    assert (f.verdict, f.value) == ("warn", 5 / 8)
    assert str(case.method).startswith("grad-cam")
    assert (f.chosen_explainer, f.maps_unreliable) == ("", False)
    assert case.maps_unreliable_by == ""


def test_only_what_was_judged_is_doubted(
    monkeypatch: pytest.MonkeyPatch, taught: tuple[Classifier, Pictures], played: Tournament
) -> None:
    """None of the explainers is better than chance: an explainer that was asked for may not be among them."""
    values = of_eight((0.6, 0.3, 0.2), (0.6, 0.3, 0.2), *CONTROLS[:2], (0.7, 0.5, 0.9))
    for method, unreliable in (("auto", True), ("saliency", True), ("integrated-gradients", False)):
        case = Case(*taught, method=method)
        f = judged_as(monkeypatch, case, played, values)
        assert (f.verdict, f.maps_unreliable) == ("fail", unreliable), method
        assert bool(case.maps_unreliable_by) is unreliable, method
