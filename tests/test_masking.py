"""The check masking: an honest model passes, masked twins are flagged, and a black box still breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clearsight.auditing import chosen, run_checks
from clearsight.case import Case
from clearsight.classifier import Classifier, Preprocess
from clearsight.data import Picture, Pictures
from clearsight.eightbits import as_png
from clearsight.errors import Refused
from clearsight.findings import Finding

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
    (finding,) = run_checks(Case(model, pictures, method="saliency"), chosen(f"masking({options})"))
    assert finding.verdict != "error", finding.headline
    return finding


def points(finding: Finding) -> dict[int, dict[str, object]]:
    (rows,) = [t.rows for t in finding.tables if t.caption == "The checklist"]
    return {int(r["point"]): dict(r) for r in rows}  # type: ignore[arg-type]


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


def test_logits_times_ten_thousand_are_flagged(taught: tuple[nn.Module, Pictures]) -> None:
    """Cross-entropy has no gradient there; our PGD's loss is the log-odds, which has, and breaks it all the same."""
    net, pictures = taught
    f = found(Scaled(net, 1e4), pictures)
    told = points(f)
    assert told[11]["result"] == "flag"
    assert told[9]["result"] == "flag"
    assert f.verdict == "warn"
    honest = points(found(net, pictures))
    assert told[15]["found"] == honest[15]["found"]


def test_another_answer_every_time_is_flagged(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    assert points(found(Noisy(net), pictures))[12]["result"] == "flag"


def test_the_twin_is_broken_where_it_can_be_and_nowhere_else(taught: tuple[nn.Module, Pictures]) -> None:
    net, pictures = taught
    for eps, some in (("1/255", False), ("60/255", True), ("150/255", True)):  # at the last the box binds
        point = points(found(net, pictures, f"eps={eps}"))[15]
        assert point["result"] == "pass"
        assert ("0 of 12" not in str(point["found"])) == some, point


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
