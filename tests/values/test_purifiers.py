"""What each purifier is, by hand and by replicas; and attacks through them, which find what hidden gradients hide."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from clearsight.auditing.audit import parse_checks
from clearsight.auditing.case import Case
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier, wrap
from clearsight.core.preprocess import Preprocess
from clearsight.core.statistics import wilson
from clearsight.core.taking import takes_kind
from clearsight.data.datasets import Pictures
from clearsight.errors import Notice, Refused
from clearsight.runner.purify import purified, purify
from clearsight.runner.run import attack, explain
from clearsight.testing import linear
from twohalves import HEIGHT, WIDTH, Halves, found, model, written

quiet = pytest.mark.filterwarnings("ignore::clearsight.errors.Notice")


def photo(side: int) -> Tensor:
    """(1, 3, side, side), by taking every so many pixels."""
    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    step = 512 // side
    return x[None, :, : step * side : step, : step * side : step]


# What they do ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [20, 75])
def test_jpeg_is_the_file_that_pillow_writes(quality: int) -> None:
    x = 0.9 * photo(32) + 0.03  # between the 255ths
    file = io.BytesIO()
    Image.fromarray((x[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert torch.equal((purify(x, f"jpeg(quality={quality})")[0] * 255).round().byte(), wanted)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_reduction_rounds_to_the_nearest_of_its_shades(bits: int) -> None:
    x = torch.linspace(0, 1, 1001).view(1, 1, 1, -1)
    z = purify(x, f"bit-depth-reduction(bits={bits})")
    shades = torch.linspace(0, 1, 2**bits)
    nearest = (x.flatten()[:, None] - shades).abs().amin(1)
    torch.testing.assert_close((z - x).abs().flatten(), nearest, rtol=0, atol=1e-6)
    assert len(z.unique()) == 2**bits
    torch.testing.assert_close(purify(z, f"bit-depth-reduction(bits={bits})"), z)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_median_is_the_middle_of_the_sorted_square(size: int) -> None:
    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    before, after = size // 2, (size - 1) // 2
    around = np.pad(x.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode="symmetric")
    squares = np.lib.stride_tricks.sliding_window_view(around, (size, size), axis=(2, 3)).reshape(2, 3, 9, 7, -1)
    wanted = np.sort(squares, axis=-1)[..., size * size // 2]
    torch.testing.assert_close(purify(x, f"median(size={size})"), torch.from_numpy(wanted))


def energy(z: np.ndarray, x: np.ndarray, weight: float) -> float:
    """Half the squared distance, and the weight times the lengths of the forward differences; of one channel."""
    down, along = np.zeros_like(z), np.zeros_like(z)
    down[:-1], along[:, :-1] = np.diff(z, axis=0), np.diff(z, axis=1)
    return float(0.5 * ((z - x) ** 2).sum() + weight * np.sqrt(down**2 + along**2).sum())


def least_variation(x: np.ndarray, weight: float, steps: int = 4000) -> np.ndarray:
    """The minimum of `energy`, by projected gradients of the dual (Chambolle 2005), (H, W)."""
    p = np.zeros((2, *x.shape))

    def primal() -> np.ndarray:
        out = p.sum(0)
        out[1:] -= p[0, :-1]
        out[:, 1:] -= p[1, :, :-1]
        return x + weight * out

    for _ in range(steps):
        z = primal()
        p[0, :-1] += np.diff(z, axis=0) / (8 * weight)
        p[1, :, :-1] += np.diff(z, axis=1) / (8 * weight)
        p /= np.maximum(1, np.sqrt((p**2).sum(0)))
    return primal()


@pytest.mark.parametrize("weight", [0.02, 0.05, 0.2])
def test_total_variation_is_near_the_least_energy(weight: float) -> None:
    x = photo(16)[:, :1]
    z = purify(x, f"total-variation(weight={weight})")[0, 0].double().numpy()
    given = x[0, 0].double().numpy()
    wanted = least_variation(given, weight)
    least = energy(wanted, given, weight)
    assert least <= energy(z, given, weight) <= least + 0.02 * (energy(given, given, weight) - least)
    assert np.abs(z - wanted).max() < 0.05
    assert z.mean() == pytest.approx(given.mean(), abs=1e-3)
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(purify(flat, "total-variation"), flat)


# A purifier before a classifier ---------------------------------------------------------------------------------------


def bent(channels: int = 1) -> Classifier:
    """A small network whose gradient is different at every picture."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return Classifier(net, Preprocess((8, 8), (0.4,) * channels, (0.2,) * channels), ("a", "b", "c"), "bent")


@pytest.mark.parametrize("name", catalogue("purifiers"))
def test_purified_scores_are_of_the_purified_picture_and_gradients_pass_through(name: str) -> None:
    inner = bent(3)
    both = purified(inner, name)
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    clean = purify(x, name).requires_grad_()
    given = x.clone().requires_grad_()
    torch.testing.assert_close(both(given), inner(clean), rtol=0, atol=1e-6)
    mine, wanted = (
        torch.autograd.grad(out.square().sum(), z)[0] for out, z in ((both(given), given), (inner(clean), clean))
    )
    torch.testing.assert_close(mine, wanted)
    assert not torch.equal(mine, torch.autograd.grad(inner(given).square().sum(), given)[0])
    assert torch.equal(both(1.4 * x - 0.2), both((1.4 * x - 0.2).clamp(0, 1))), "only pictures are purified"
    assert both.net.net is inner.net
    assert both.labels == inner.labels
    for other in (copy.deepcopy(both.net), pickle.loads(pickle.dumps(both.net))):  # for twins and for workers
        assert other.net is other.model.net is not inner.net
        assert torch.equal(dataclasses.replace(both, net=other)(x), both(x))


def test_purified_keeps_the_kind_of_scores() -> None:
    half = "bit-depth-reduction(bits=1)"
    x = torch.tensor([[[[0.4, 0.9]]]])
    one = wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(2, 1)),
        Preprocess((1, 2), (0.0,), (1.0,)),
        ["no", "yes"],
        scores="one-logit",
    )
    several = wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), Preprocess((1, 2), (0.0,), (1.0,)), ["on"], scores="multi-label"
    )
    sure = wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1)),
        Preprocess((1, 2), (0.0,), (1.0,)),
        ["a", "b"],
        scores="probabilities",
    )
    for inner, kind in ((one, "logits"), (several, "multi-label"), (sure, "logits")):
        both = purified(inner, half)
        assert both.scores == kind
        torch.testing.assert_close(both(x), inner(x.round()))


def test_a_network_that_cannot_be_purified_is_refused() -> None:
    with pytest.raises(Refused, match="too coarse to purify"):
        purified(dataclasses.replace(bent(), net=bent().net.bfloat16()), "jpeg")
    sequence = Classifier(nn.Linear(4, 2), Preprocess((4,), (0.0,), (1.0,)), ("a", "b"))
    with pytest.raises(Refused, match="pictures with 1 or 3 channels"):
        purified(sequence, "jpeg")


def test_the_gradient_of_a_purified_network_is_not_called_its_own() -> None:
    both, x = purified(bent(), "bit-depth-reduction"), torch.rand(2, 1, 8, 8)
    with pytest.raises(Refused, match="gradient at the pixels is not that of the scores"):
        explain(both, x, "saliency")
    assert explain(both, x, "occlusion(window=4, stride=4)").maps.shape == (2, 8, 8)
    with pytest.warns(Notice, match="gradient at the pixels is not that of the scores"):
        attack(both, x, both(x).argmax(1), "fgsm", eps=0.1)


@quiet
@pytest.mark.parametrize(
    "name",
    [n for n, m in catalogue("attacks").items() if "texts-only" not in m.claims and takes_kind(m, "classifier")],
)
def test_every_attack_runs_through_a_purifier(name: str) -> None:
    """And what is counted as fooled is so, behind the purifier."""
    inner = bent()
    both = purified(inner, "bit-depth-reduction(bits=4)")
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        y = both(x).argmax(1)
    few = {"square": "square(queries=30)", "simba": "simba(queries=30)", "boundary": "boundary(queries=60)"}
    few |= {"hop-skip-jump": "hop-skip-jump(queries=60)", "auto-attack": "auto-attack(steps=5, queries=30)"}
    few |= {"patch": "patch(steps=5)", "transfer": "transfer(inner=fgsm)"}
    other = inner if "other" in catalogue("attacks")[name].injected else None
    a = attack(both, x, y, few.get(name, name), other=other)
    assert not a.already.any()
    assert a.fooled.any() or name not in ("pgd", "apgd-ce", "carlini-wagner", "deepfool", "bim")
    with torch.no_grad():
        assert torch.equal(both(a.x).argmax(1) != y, a.fooled)
        assert torch.equal(inner(purify(a.x, "bit-depth-reduction(bits=4)")).argmax(1) != y, a.fooled)


class _Quantised(nn.Module):
    """The real quantiser inside the network, whose gradient is zero almost everywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 3).round() / 3)


@quiet
def test_bpda_finds_what_the_zero_gradient_of_a_quantiser_hides() -> None:
    """Shades of two bits: 0.45 becomes 1/3, and 0.55 becomes 2/3, which changes the answer."""
    inner = linear([[0.0] * 4, [1.0] * 4], [2.0, 0.0])
    hidden = dataclasses.replace(inner, net=_Quantised(inner.net))
    behind = purified(inner, "bit-depth-reduction(bits=2)")
    x, y = torch.full((2, 1, 1, 4), 0.45), torch.tensor([0, 0])
    z = x.clone().requires_grad_()
    torch.testing.assert_close(hidden(z), behind(z))
    assert not torch.autograd.grad(hidden(z)[:, 1].sum(), z)[0].any(), "the plain gradient is zero"
    assert torch.equal(torch.autograd.grad(behind(z)[:, 1].sum(), z)[0], torch.ones_like(x))
    for words in ("fgsm", "pgd", "apgd-ce(steps=10)"):
        plain, through = (attack(m, x, y, words, eps=0.1) for m in (hidden, behind))
        assert not plain.fooled.any(), words
        assert through.fooled.all(), words
        with torch.no_grad():
            assert (hidden(through.x).argmax(1) == 1).all(), "it is the real network that is fooled"
    assert attack(hidden, x, y, "square(queries=100)", eps=0.1).fooled.all()


# The check ------------------------------------------------------------------------------------------------------------

MINE = "def darker(x, *, by: float = 0.1):\n    return (x - by).clamp(min=0)\n"
LEVELS, WORDS = (122, 122, 77, 133), ("dark", "dark", "dark", "bright")


def flat_case(folder: Path, **more: float) -> Case:
    (folder / "mine.py").write_text(MINE)
    pictures = [np.full((HEIGHT, WIDTH), level) for level in LEVELS]
    return Case(model(Halves()), written(folder, pictures, [(w,) for w in WORDS]), **more)


def check(folder: Path, more: str = "") -> str:
    """The attack stops just above one half; what the purifier takes off is more than that."""
    return f'purification(purifiers="{folder}/mine.py:darker", attack="pgd(early_stop=true)", eps=0.15{more})'


def test_check_of_purification_by_hand(tmp_path: Path) -> None:
    """Of two dark pictures the attack falls short behind the purifier, until it knows of it."""
    case = flat_case(tmp_path)
    case.commands = replace(case.commands, model="demo")
    f = found(case, check(tmp_path))
    assert (f.value, f.n, f.verdict) == (0.5, 4, "fail")
    assert f.mend.endswith("--arch demo --perturb 'pgd(eps=0.15, steps=7, random_start=true)'")
    assert f.interval == pytest.approx(wilson(2, 4))
    assert "75.0 % of the answers stay right under pgd at 0.15 that does not know the purifier" in f.headline
    assert "25.0 % under the same attack through it: 2 of 4 answers are undone, 50.0 %" in f.headline
    behind, alone = f.tables
    assert "prone to gradient masking" in behind.caption
    assert [(r["attack"], r["right"], r["n"]) for r in behind.rows] == [
        ("none", 3, 4),
        ("pgd that does not know it (grey box)", 3, 4),
        ("pgd through it (BPDA)", 1, 4),
        ("the worse of the two", 1, 4),
    ]
    assert [behind.rows[2][k] for k in ("from (95 %)", "to (95 %)")] == pytest.approx(wilson(1, 4))
    assert [(r["attack"], r["right"]) for r in alone.rows] == [("none", 4), ("pgd", 1)]
    notes = " ".join(f.notes)
    assert "no sign of robustness" in notes
    assert "Without a purifier 4 of 4 answers are right, 1 attacked." in notes
    assert [found(flat_case(tmp_path), check(tmp_path, f", ceiling={c}")).verdict for c in (0.5, 0.9)] == [
        "warn",
        "pass",
    ]
    assert {e.picture for e in f.evidence} == {"00.png", "01.png"}
    assert all(e.facts["says now"] == "bright" for e in f.evidence)


def test_check_of_purification_says_how_to_see_a_picture_again(tmp_path: Path) -> None:
    case = flat_case(tmp_path)
    first = found(case, check(tmp_path)).evidence[0]
    again = re.search(r"audit small (\S+) --only '(.*?)'$", first.command)
    assert again is not None
    (one,) = (p for p in case.data.pictures if str(p.path) == again[1])
    f = found(Case(case.model, Pictures(tmp_path, (one,))), again[2])
    assert (f.value, f.n) == (1.0, 1)
    assert f.evidence[0].facts == first.facts


def test_purification_asks_the_attack_to_go_on_and_comes_only_when_named(tmp_path: Path) -> None:
    """An attack that goes on breaks the pictures behind the purifier without knowing of it."""
    f = found(flat_case(tmp_path), f'purification(purifiers="median, {tmp_path}/mine.py:darker", eps=0.15)')
    assert f.value == 0
    assert "early_stop=false" in " ".join(f.notes)
    assert all("prone to gradient masking" in t.caption for t in f.tables[:2])
    assert len(f.tables) == 3
    assert not f.evidence
    assert "purification" not in {c.method.name for c in parse_checks(None)}
    late = found(flat_case(tmp_path, budget=1e-3), check(tmp_path))
    assert late.n == 1
    assert any("budget was used up after 1 of 4" in note for note in late.notes)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("purifiers=jpg", "did you mean.*jpeg"),
        ('purifiers="jpeg, jpeg"', "each once"),
        ('purifiers=""', "each once"),
        ("attack=transfer", "needs other"),
        ("attack=universal", "learns from other pictures"),
        ("attack=pgdd", "did you mean.*pgd"),
        ("eps=2", "budget from 0 to 1"),
        ("ceiling=2", "a share from 0 to 1"),
    ],
)
def test_check_of_purification_refuses_before_it_reads(options: str, told: str, tmp_path: Path) -> None:
    case = flat_case(tmp_path)
    case.data.pictures[0].path.unlink()
    with pytest.raises(Refused, match=told):
        found(case, f"purification({options})")
