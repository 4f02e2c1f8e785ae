"""The check gradient-masking: an honest model passes, masked twins are flagged, and a black box still breaks them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.attacking.eight_bit import as_png, from_png
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.clock import Clock
from clearsight.auditing.gradient_masking import comparisons, outputs, trials
from clearsight.auditing.gradient_masking.checklist import AttackTrials, Point
from clearsight.checks.gradient_masking import reproducing_command
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from thinning import with_slow

# the attacks' own word on what the check is about, which says it itself
pytestmark = [
    pytest.mark.filterwarnings("ignore:the gradient at the pixels is not that of the scores:clearsight.errors.Notice"),
    pytest.mark.filterwarnings("ignore:two passes over the same pictures give scores:clearsight.errors.Notice"),
]

SIDE = 8
EPS = "24/255"


class Quantised(nn.Module):
    """What goes in is rounded to a few levels, through which no gradient comes."""

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * self.levels).round() / self.levels)
        return out


class Scaled(nn.Module):
    """Logits so large that the probability rounds to 1."""

    def __init__(self, net: nn.Module, by: float) -> None:
        super().__init__()
        self.net, self.by = net, by

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x) * self.by
        return out


class Hidden(nn.Module):
    """What goes in is rounded behind detach(), or all runs under no_grad, as behind a JPEG: no gradient at all."""

    def __init__(self, net: nn.Module, levels: int, *, whole: bool = False) -> None:
        super().__init__()
        self.net, self.levels, self.whole = net, levels, whole

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad() if self.whole else nullcontext():
            out: Tensor = self.net(((x * self.levels).round() / self.levels).detach())
        return out


class Noisy(nn.Module):
    """Another answer every time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out + 0.3 * torch.randn_like(out)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Pictures]:
    """A small network that says which half is brighter, and 12 pictures that it is right about."""
    root = tmp_path_factory.mktemp("halves")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = torch.rand(200, 3, SIDE, SIDE) * 0.3 + 0.3, torch.arange(200) % 2
        for k in range(2):
            x[y == k, :, :, 4 * k : 4 * k + 4] += 0.15
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIDE * SIDE, 2))
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(15):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            adam.step()
    pictures = []
    for i in range(12):
        (root / f"{i:02}.png").write_bytes(as_png(x[i]))
        pictures.append(Picture(root / f"{i:02}.png", f"{i:02}.png", (("left", "right")[int(y[i])],)))
    return net.eval(), Pictures(root, tuple(pictures))


def found(net: nn.Module, pictures: Pictures, options: str = f"eps={EPS}") -> Finding:
    model = Classifier(net, Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("left", "right"), "taught")
    (finding,) = run_checks(Case(model, pictures, method="saliency"), parse_checks(f"gradient-masking({options})"))
    assert finding.verdict != "error", finding.headline
    return finding


def points(finding: Finding) -> dict[int, dict[str, object]]:
    (rows,) = [t.rows for t in finding.tables if t.caption == "The checklist"]
    return {int(r["point"]): dict(r) for r in rows}  # type: ignore[arg-type]


def reads_as_sentences(finding: Finding) -> bool:
    return "?" not in finding.headline and ".." not in finding.headline and finding.headline.endswith((".", ")"))


def test_an_honest_network_passes_every_point_that_is_asked(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    f = found(net, pictures)
    told = points(f)
    assert sorted(told) == list(range(1, 18))
    assert [(k, r["found"]) for k, r in told.items() if k != 6 and r["result"] != "pass"] == []
    assert told[6]["result"] == "not asked"
    assert f.verdict == "pass"
    assert f.value == 0
    assert f.n == 12
    assert f.headline.startswith("No sign of masked gradients. Other attacks break 0 of 12")


def test_an_honest_network_that_is_sure_passes(taught: tuple[nn.Module, Pictures]) -> None:
    """Its probabilities round to 1, but the cross-entropy has a gradient, and the loss falls along it."""
    net, pictures = taught
    f = found(Scaled(net, 4), pictures)
    told = points(f)
    assert "on 12 of 12 pictures the probability rounds to 1, and on 0 that costs" in str(told[11]["found"])
    assert told[11]["result"] == "pass"
    assert told[9]["result"] == "pass"
    assert f.verdict == "pass"


def test_damage_that_no_attack_does_says_nothing_of_gradients(
    taught: tuple[nn.Module, Pictures], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, pictures = taught
    monkeypatch.setattr(outputs, "corrupt", lambda x, words, seed: x.flip(3) if "noise" in words else x)
    f = found(net, pictures, "eps=0.5/255")
    told = points(f)
    assert told[16]["result"] == "flag"
    assert [k for k, r in told.items() if r["result"] not in ("pass", "not asked")] == [16]
    assert f.verdict == "pass"
    assert f.headline.startswith("No sign of masked gradients. ")
    assert " Besides, mild natural damage breaks 12 of 12 that PGD leaves standing (point 16)." in f.headline
    assert any(n.startswith("Point 16: ") for n in f.notes)
    assert " at 0.5/255 that PGD" in f.headline  # as people write it
    assert any(n.startswith("At eps 0.5/255 (") for n in f.notes)


def test_a_quantised_input_is_flagged_and_broken_by_a_black_box(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    f = found(Quantised(net, 6), pictures, f"eps={EPS}, queries=400")
    told = points(f)
    assert told[9]["result"] == "flag"
    assert told[13]["result"] == "flag"
    assert told[7]["result"] == "fail"
    assert told[5]["result"] == "fail"
    assert f.verdict == "fail"
    assert f.value is not None
    assert f.value > 0.5
    assert {e.facts["broken by"] for e in f.evidence} & {"square", "hop-skip-jump", "random noise"}
    assert any("BPDA" in n for n in f.notes)
    assert reads_as_sentences(f)
    assert "under a budget without limit right answers stay" in f.headline


def test_what_was_attacked_in_time_is_looked_at_whole(
    taught: tuple[nn.Module, Pictures], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, pictures = taught
    model = Classifier(Quantised(net, 6), Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("left", "right"), "taught")
    case = Case(model, pictures, method="saliency", budget=1000)
    assert len(case.pictures) == 12
    late = iter([False])  # time for a second batch, and for no more
    monkeypatch.setattr(Clock, "is_late", lambda self, last: next(late, True))
    (f,) = run_checks(case, parse_checks(f"gradient-masking(eps={EPS}, queries=20, noise=5)"))
    assert f.n == 5
    assert str(points(f)[9]["found"]).startswith("of 5 pictures 5 have a gradient of zero")


@pytest.mark.parametrize("whole", with_slow([False, True], True), ids=["a detached input", "all under no_grad"])
def test_where_no_gradient_flows_black_boxes_go_on(taught: tuple[nn.Module, Pictures], whole: bool) -> None:
    """The same as where it is zero: it is the very thing that is looked for, and no error."""
    net, pictures = taught
    options = f"eps={EPS}, queries=400"
    f, zero = found(Hidden(net, 6, whole=whole), pictures, options), found(Quantised(net, 6), pictures, options)
    told = points(f)
    assert [told[k]["result"] for k in (9, 13)] == ["flag", "flag"]
    assert [told[k]["result"] for k in (5, 7)] == ["fail", "fail"]
    for k in (1, 2, 3, 4, 10, 14):
        assert told[k]["result"] == "not asked"
    assert (
        "Not asked: points 1, 2, 3, 4, 10, 14: this attack needs a gradient, and none flows back to the pixels"
        in " ".join(f.notes)
    )
    assert f.verdict == "fail"
    assert f.value == zero.value
    assert {r: told[r]["found"] for r in (5, 7, 8, 9, 13)} == {r: points(zero)[r]["found"] for r in (5, 7, 8, 9, 13)}
    assert reads_as_sentences(f)


def test_logits_times_ten_thousand_are_flagged(taught: tuple[nn.Module, Pictures]) -> None:
    """Cross-entropy has no gradient there; our PGD's loss is the log-odds, which has, and breaks it all the same."""
    net, pictures = taught
    f = found(Scaled(net, 1e4), pictures)
    told = points(f)
    assert told[11]["result"] == "flag"
    assert told[9]["result"] == "flag"
    assert f.verdict == "warn"
    assert f.headline.startswith("Gradients may be masked: the cross-entropy has no gradient on ")
    assert reads_as_sentences(f)
    honest = points(found(net, pictures))
    assert told[15]["found"] == honest[15]["found"]


def test_probabilities_in_place_of_logits_are_flagged(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    f = found(nn.Sequential(net, nn.Softmax(1)), pictures)
    assert points(f)[11]["result"] == "flag"
    assert "the outputs are probabilities already" in f.headline


def test_another_answer_every_time_is_flagged(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    assert points(found(Noisy(net), pictures))[12]["result"] == "flag"


def test_the_twin_is_broken_where_it_can_be_and_nowhere_else(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    for eps, some in (("1/255", False), ("60/255", True), ("150/255", True)):  # at the last the box binds
        point = points(found(net, pictures, f"eps={eps}"))[15]
        assert point["result"] == "pass"
        assert ("0 of 12" not in str(point["found"])) == some, point


def test_the_twin_is_broken_as_far_as_the_border_lets_it(taught: tuple[nn.Module, Pictures], tmp_path: Path) -> None:
    """Dark pictures, many of whose pixels can go down by less than eps: up alone they could not be moved enough."""
    net, pictures = taught
    for p in pictures.pictures:
        (tmp_path / p.name).write_bytes(as_png((from_png(p.path) - 0.3).clamp(0)))
    dark = Pictures(tmp_path, tuple(Picture(tmp_path / p.name, p.name, p.labels) for p in pictures.pictures))
    point = points(found(net, dark, "eps=21.5/255, noise=1, queries=20"))[15]
    assert point["result"] == "pass"
    assert "12 of 12 pictures can be broken, and PGD breaks 12" in str(point["found"])


def test_another_model_is_asked_where_one_is_named(taught: tuple[nn.Module, Pictures], tmp_path: Path) -> None:
    net, pictures = taught
    torch.save(net.state_dict(), tmp_path / "w.pth")
    (tmp_path / "nets.py").write_text(
        "import torch, clearsight as cs\nfrom torch import nn\nfrom pathlib import Path\n"
        "def same():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2))\n"
        "    net.load_state_dict(torch.load(Path(__file__).parent / 'w.pth', weights_only=True))\n"
        "    return cs.wrap(net.eval(), cs.Preprocess(8, (0.,) * 3, (1.,) * 3), labels=['left', 'right'])\n"
        "def others():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
        "    return cs.wrap(net.eval(), cs.Preprocess(8, (0.,) * 3, (1.,) * 3), labels=['a', 'b', 'c'])\n"
    )
    masked = found(Quantised(net, 6), pictures, f"eps={EPS}, other='{tmp_path}/nets.py:same'")
    assert points(masked)[6]["result"] == "fail"
    with pytest.raises(Refused, match="the same classes"):
        found(net, pictures, f"other='{tmp_path}/nets.py:others'")


def test_options_that_cannot_be_are_refused(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    for options in ("eps=0", "steps=0", "queries=0", "noise=0"):
        with pytest.raises(Refused, match="at least one of each"):
            found(net, pictures, options)


# What is too few, and the commands ------------------------------------------------------------------------------------


def compare(case: Case, n: int, **broke: int) -> dict[int, Point]:
    """The points where PGD breaks nothing of n right answers, and others so many (twice_the_steps=2)."""
    z = torch.zeros(3, SIDE, SIDE)
    names = {name: dict.fromkeys(range(broke.get(name.replace(" ", "_"), 0)), z) for name in trials.SPELLED}
    whole = AttackTrials(0.1, list(range(n)), names, {name: set(range(n)) for name in names})
    whole.by_budget = {1.0: set(range(n))}
    return {p.number: p for p in comparisons.points(case, whole, 100, True)}


@pytest.fixture
def case(taught: tuple[nn.Module, Pictures]) -> Case:
    net, pictures = taught
    model = Classifier(net, Preprocess((SIDE, SIDE), (0.0,) * 3, (1.0,) * 3), ("left", "right"), "taught")
    return Case(model, pictures)


@pytest.mark.parametrize(("name", "number"), [("twice_the_steps", 2), ("three_restarts", 3), ("another_loss", 10),
                                              ("a_target", 14)])  # fmt: skip
def test_a_stronger_attack_may_find_a_percentage_point_more(case: Case, name: str, number: int) -> None:
    for n, free in ((20, 1), (150, 1), (300, 3)):
        few, many = compare(case, n, **{name: free}), compare(case, n, **{name: free + 1})
        assert few[number].status == "pass"
        assert f"{free} of {n} may be chance" in few[number].result
        assert len(few[number].rows) == free
        assert many[number].status == "flag"
        assert {k for k, p in many.items() if p.status == "fail"} == set()


def test_what_all_find_together_may_be_a_percentage_point_more() -> None:
    z = torch.zeros(3, SIDE, SIDE)
    for n, besides, status in ((20, 1, "pass"), (20, 2, "flag"), (300, 3, "pass"), (300, 4, "flag")):
        broke = {"pgd": dict.fromkeys(range(5), z), "square": dict.fromkeys(range(5, 5 + besides), z)}
        point = comparisons.union_of_attacks(AttackTrials(0.1, list(range(n)), broke))
        assert point.status == status
        assert f"together break {5 + besides} of {n}, the best one alone (pgd) 5" in point.result
        assert len(point.rows) == besides


@pytest.mark.parametrize(("name", "number"), [("fgsm", 1), ("transfer", 6), ("square", 7)])
def test_a_weaker_one_may_find_nothing_more(case: Case, name: str, number: int) -> None:
    assert compare(case, 300)[number].status == "pass"
    assert compare(case, 300, **{name: 1})[number].status == "fail"


def test_what_only_stronger_attacks_find_is_not_called_masked(
    taught: tuple[nn.Module, Pictures], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGD of one step of a hundredth of what it may: more steps find more, and nothing is wrong with the gradients."""
    net, pictures = taught
    monkeypatch.setitem(trials.SPELLED, "fgsm", "pgd(steps=1, step=0.0001)")
    monkeypatch.setitem(trials.SPELLED, "pgd", "pgd(steps=1, step=0.0001)")
    monkeypatch.setattr(trials, "MORE", {k: trials.MORE[k] for k in ("twice the steps", "another loss")})
    monkeypatch.setattr(comparisons, "without_limit", lambda *_: Point(5, "", "pass", ""))
    f = found(net, pictures, f"eps={EPS}, steps=4, noise=1")
    assert f.verdict == "warn"
    assert f.headline.startswith("PGD alone is too weak here: twice the steps find more, another loss finds more, and ")


NETS = """
import torch, clearsight as cs
from torch import nn
from pathlib import Path

def taught():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2))
    net.load_state_dict(torch.load(Path(__file__).parent / 'w.pth', weights_only=True))
    return net.eval()

class Rounds(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.net, self.hidden = taught(), hidden
    def forward(self, x):
        with torch.set_grad_enabled(not self.hidden and torch.is_grad_enabled()):
            return self.net((x * 6).round() / 6)

class Frays(nn.Module):  # no gradient, and another answer where few pixels are whole 255ths, as noise makes them
    def __init__(self):
        super().__init__()
        self.net = taught()
    def forward(self, x):
        off = (255 * x - (255 * x).round()).abs() > 0.05
        odd = off.float().mean((1, 2, 3)) > 0.5
        return self.net((x * 6).round() / 6) * torch.where(odd, -1.0, 1.0)[:, None]

class Walled(nn.Module):  # the way to the likeliest other class ends at a wall, that to the third is flat at first
    def forward(self, x):
        a = x.mean((1, 2, 3)) - 0.525
        wall = torch.where(a < 0.03, 40 * a, 1.2 - 40 * (a - 0.03)) - 1.3
        third = torch.where(a < -0.03, -40 * (a + 0.03), -0.2 * a) - 0.8
        return torch.stack([torch.zeros_like(a), wall, third], 1)

def wrapped(net, labels=('left', 'right')):
    return cs.wrap(net.eval(), cs.Preprocess(8, (0.,) * 3, (1.,) * 3), labels=list(labels))

def honest(): return wrapped(taught())
def rounds(): return wrapped(Rounds(False))
def frays(): return wrapped(Frays())
def hidden(): return wrapped(Rounds(True))
def walled(): return wrapped(Walled(), ('left', 'right', 'up'))
"""


@pytest.fixture
def nets(taught: tuple[nn.Module, Pictures], tmp_path: Path) -> str:
    torch.save(taught[0].state_dict(), tmp_path / "w.pth")
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path}/nets.py"


# what is tried, which network, options, what must be among what broke
AGAIN = {
    "black boxes": (["square"], "rounds", "queries=400, noise=1", {"square"}),
    "no gradient": (["square"], "hidden", "queries=400, noise=1", {"square"}),
    "noise": ([], "frays", "noise=2", {"random noise"}),
    "a stranger": ([], "hidden", "noise=1, other='{nets}:honest'", {"transfer"}),
    "a target": ([], "walled", "noise=1, steps=10", {"a target"}),
}


@pytest.mark.parametrize("what", with_slow([*AGAIN], "noise"))
def test_the_command_shows_the_break_again(
    taught: tuple[nn.Module, Pictures], nets: str, run: Callable[..., Any], tmp_path: Path, what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    more, name, options, by = AGAIN[what]
    monkeypatch.setattr(trials, "MORE", {k: trials.MORE[k] for k in more})
    model, options = cs.load(f"{nets}:{name}"), f"eps={EPS}, {options.format(nets=nets)}"
    pictures = taught[1]
    if name == "walled":
        pictures = Pictures(pictures.root, tuple(Picture(p.path, p.name, ("left",)) for p in pictures.pictures))
    (f,) = run_checks(Case(model, pictures, method="saliency"), parse_checks(f"gradient-masking({options})"))
    assert by <= {e.facts["broken by"] for e in f.evidence}, f.headline
    for k, e in enumerate([e for e in f.evidence if e.facts["broken by"] in by][:2]):
        out = tmp_path / f"again{k}"
        told = run(*shlex.split(e.command)[1:], "-o", out, "--quiet")
        assert told.status == 0, (e.command, told.err)
        (again,) = json.loads((out / "report.json").read_text())["findings"]
        tables = {t["caption"]: t["rows"] for t in again["tables"]}
        if "What broke" in tables:
            assert e.facts["broken by"] in by & {r["attack"] for r in tables["What broke"] if r["broke"]}
            assert again["value"] == 1
        else:
            (row,) = tables["By picture, the easiest first"]
            assert row["state"] == "fooled"
            assert row["says now"] == e.facts["says now"]


def test_who_missed_his_aim_is_shown_by_the_check(nets: str, taught: tuple[nn.Module, Pictures]) -> None:
    case = Case(cs.load(f"{nets}:walled"), Pictures(taught[1].root, taught[1].pictures[:1]), method="saliency")
    given = {"eps": 0.1, "steps": 20, "queries": 300, "noise": 100, "other": ""}
    aimed, missed = AttackTrials(0.1, [0], aimed={0: 2}), AttackTrials(0.1, [0])
    assert "--target up" in reproducing_command(case, 0, "a target", aimed, given)
    assert "--only 'gradient-masking(eps=0.1)'" in reproducing_command(case, 0, "a target", missed, given)
