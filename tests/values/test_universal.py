"""What is learned from some pictures and used on others: universal and patch, where the answer can be written down."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from clearsight.attacks.common.lessons import CLIP, lesson_weight, sorted_lessons
from clearsight.attacks.common.pasting import cut, pasted
from clearsight.attacks.patch import learned_patch, printable
from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Become, Misclassify
from clearsight.errors import Refused
from clearsight.runner.run import attack
from clearsight.testing import linear, rectified


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def line() -> tuple[Classifier, Tensor, Tensor, Tensor]:
    """A linear model of two classes, its weight w (class 0 less class 1), lessons and pictures, all of class 0."""
    weight = torch.randn(2, 20, generator=chance(0)) / 4
    model = linear(weight.tolist(), [1.0, 0.0])
    x = torch.rand(40, 1, 1, 20, generator=chance(1)) * 0.2 + 0.4
    with torch.no_grad():
        x = x[model(x).argmax(1) == 0]
    assert len(x) > 30
    return model, weight[0] - weight[1], x[:20], x[20:]


class Bright(nn.Module):
    """Class 0 by the mean brightness, 1 by darkness; four-sided pictures of any size."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean - 0.5, 0.5 - mean], 1) * 20


def bright() -> Classifier:
    return Classifier(Bright(), Preprocess((40, 60), (0.0,), (1.0,)), ("bright", "dark"))


# --- universal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_universal_on_a_linear_model_is_its_weight(line, norm, steps):
    """Class 0 is left fastest by -eps sign(w), and by -eps w / |w|: one change, whoever it is added to."""
    model, w, lessons, x = line
    eps = 0.05 if norm == "linf" else 0.3
    wanted = -eps * (w.sign() if norm == "linf" else w / w.norm())
    for goal in Misclassify(torch.zeros(20, dtype=torch.long)), Become(torch.ones(20, dtype=torch.long)):
        taught = (lessons, goal)
        call = f"universal(norm={norm}, steps={steps})"
        a = attack(model, x, torch.zeros(len(x), dtype=torch.long), call, eps=eps, lessons=taught)
        torch.testing.assert_close(a.x - x, wanted.view(1, 1, 1, 20).expand_as(x), rtol=1e-4, atol=1e-6)
        assert a.overstep < 1e-6


def test_universal_learns_nothing_of_the_pictures_it_is_added_to(line):
    """Whoever is attacked, the change is the lessons'; lessons of the other class give the opposite one."""
    model, w, lessons, x = line
    y = torch.zeros(len(x), dtype=torch.long)
    whole = attack(model, x, y, "universal", eps=0.05, lessons=(lessons, Misclassify(torch.zeros(20).long())))
    one = attack(model, x[3:4], y[:1], "universal", eps=0.05, lessons=(lessons, Misclassify(torch.zeros(20).long())))
    torch.testing.assert_close(one.x[0], whole.x[3])
    other = attack(model, x, y, "universal", eps=0.05, lessons=(lessons, Become(torch.zeros(20, dtype=torch.long))))
    torch.testing.assert_close(other.x - x, 0.05 * w.sign().view(1, 1, 1, 20).expand_as(x))


def test_the_order_of_the_lessons_does_not_matter(small, x):
    """Of five and twenty lessons, more than one change is made of: each walk through them has an order of its own."""
    lessons = torch.rand(25, 3, 16, 24, generator=chance(2))
    y, order = torch.arange(25) % 5, torch.randperm(25, generator=chance(3))
    for call in "universal(steps=3)", "patch(steps=3)":
        a, b = (
            attack(small, x, torch.arange(4), call, eps=0.2, lessons=(lessons[k], Misclassify(y[k])))
            for k in (torch.arange(25), order)
        )
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=0)
        assert not torch.equal(a.x, x)
    with small.undisturbed():
        first, goal = sorted_lessons(small, (lessons, Misclassify(y)), x, "universal")
    where = [int((lessons == z).flatten(1).all(1).nonzero()) for z in first]
    assert sorted(where) == list(range(25))
    assert where != sorted(where)
    assert torch.equal(goal.y, y[where])


def test_what_wins_is_kept_of_all_that_was_reached():
    """Two classes pull apart: the side that is ahead wins, and half of the lessons are fooled, not none."""
    model = linear([[4.0, 0.0], [0.0, 4.0]])
    x = torch.tensor([[0.6, 0.5], [0.5, 0.6]] * 6).view(12, 1, 1, 2) + 0.01 * torch.rand(
        12, 1, 1, 2, generator=chance(4)
    )
    y = torch.arange(12) % 2
    a = attack(model, x, y, "universal", eps=0.3)
    assert a.fooled.sum() == 6
    assert len(a.fooled[y == 0].unique()) == len(a.fooled[y == 1].unique()) == 1


def test_a_later_change_that_fools_fewer_is_not_kept():
    """Class 1 from 0.55 to 0.6375 only: from 0.52 the first step is there, the second goes back."""
    model = rectified([[1.0], [1.0], [0.0]], [[0.0, 0.0, 1.0], [10.0, -30.0, 0.0]], [-0.5, -0.6, 0.5])
    x, y = torch.full((3, 1, 1, 1), 0.52), torch.zeros(3, dtype=torch.long)
    for steps in 1, 2, 3, 4:
        a = attack(model, x, y, f"universal(steps={steps}, step=0.1)", eps=0.3)
        assert a.fooled.all()
        torch.testing.assert_close(a.x, x + 0.1)


def test_how_much_a_lesson_counts():
    counts = lesson_weight(torch.tensor([-CLIP - 0.1, -CLIP + 0.1, 0.0, CLIP, 3 * CLIP])).exp()
    torch.testing.assert_close(counts, torch.tensor([0.0, 1.0, 1.0, 0.5, 0.25]))


def test_passes_of_what_is_learned(line):
    """Each lesson twice forward and once back a step, and once more before."""
    model, _, lessons, x = line
    taught = (lessons, Misclassify(torch.zeros(20, dtype=torch.long)))
    a = attack(model, x, torch.zeros(len(x), dtype=torch.long), "universal(steps=4)", eps=1e-6, lessons=taught)
    assert a.queries * len(x) == pytest.approx(20 * (2 * 4 + 1))
    assert a.backwards * len(x) == pytest.approx(20 * 4)


def test_lessons_that_cannot_be(small, x):
    y = torch.arange(4)
    for lessons, goal, words in (
        (torch.rand(4, 3, 16, 20), Misclassify(y), "lessons have shape"),
        (torch.rand(5, 3, 16, 24), Misclassify(y), "5 lessons, but the goal is for 4"),
        (torch.rand(4, 3, 16, 24) * 2, Misclassify(y), "not in"),
    ):
        with pytest.raises(Refused, match=words):
            attack(small, x, y, "universal", eps=0.1, lessons=(lessons, goal))
    for call in "universal(steps=0)", "patch(steps=0)", "patch(step=0)", "patch(share=0)", "patch(rotation=200)":
        with pytest.raises(Refused, match=call[: call.index("=")].replace("(", "\\(")):
            attack(small, x, y, call)
    with pytest.raises(Refused, match="scale"):
        attack(small, x, y, "patch(scale=1)")


# --- patch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["disc", "square"])
@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_patch_covers_its_share_and_nothing_else_changes(shape, rotation, share):
    x = torch.rand(64, 3, 40, 60, generator=chance(5)) * 0.5
    of = cut(share, shape, (40, 60))
    full = torch.ones(3, of.pixels, of.pixels)
    z = pasted(x, full, of, torch.rand(64, 4, generator=chance(6)), rotation=rotation, scale=0.0)
    changed = z != x
    assert torch.equal(changed, (z > 0.9))  # what is covered is all of the patch, the rest is exactly as it was
    covered = changed[:, 0].flatten(1).float().mean(1)
    assert covered.mean() == pytest.approx(share, rel=0.01)
    assert covered.max() < share * 1.1
    half = pasted(x, full, of, torch.rand(64, 4, generator=chance(6)), rotation=rotation, scale=0.5) != x
    sides = (half[:, 0].flatten(1).float().mean(1) / share).sqrt()
    assert 0.45 < sides.min() < 0.6
    assert 0.9 < sides.max() < 1.05


def test_a_patch_lies_anywhere_and_inside():
    x, of = torch.zeros(400, 1, 40, 60), cut(0.02, "disc", (40, 60))
    z = pasted(x, torch.ones(1, of.pixels, of.pixels), of, torch.rand(400, 4, generator=chance(7)), rotation=0, scale=0)
    area = z.sum((1, 2, 3))
    assert area.min() > 0.85 * 0.02 * 2400  # none is cut off by the border
    down = (z.sum((1, 3)) * (torch.arange(40) + 0.5)).sum(1) / area
    right = (z.sum((1, 2)) * (torch.arange(60) + 0.5)).sum(1) / area
    for place, side in (down, 40), (right, 60):
        assert place.min() < of.half + 1.5
        assert place.max() > side - of.half - 1.5
        assert place.mean() == pytest.approx(side / 2, abs=2)


def test_a_patch_is_turned_and_shrunk_as_it_says():
    """A square whose right half is white, turned by a quarter: the lower half is."""
    of = cut(0.25, "square", (40, 40))
    patch = torch.zeros(1, 20, 20)
    patch[:, :, 10:] = 1
    x = torch.full((2, 1, 40, 40), 0.5)
    z = pasted(x, patch, of, torch.tensor([[0.5, 0, 0.5, 0.5], [1.0, 0, 0.5, 0.5]]), rotation=90, scale=0)
    upright, turned = z[:, 0, 10:30, 10:30]
    assert upright[:, 11:].min() == 1
    assert upright[:, :9].max() == 0
    torch.testing.assert_close(turned, upright.T, rtol=0, atol=1e-4)


def test_the_gradient_of_a_patch_is_what_it_covers():
    """Every pixel of the picture that is covered hands its gradient on; together as many as are covered."""
    of = cut(0.1, "disc", (40, 60))
    patch = torch.full((1, of.pixels, of.pixels), 0.3, requires_grad=True)
    z = pasted(torch.zeros(8, 1, 40, 60), patch, of, torch.rand(8, 4, generator=chance(8)), rotation=45, scale=0.3)
    z.sum().backward()
    assert float(patch.grad.sum()) == pytest.approx(float((z > 0).sum()), rel=1e-4)


def test_a_patch_on_a_model_of_brightness_is_black_or_white():
    """Against bright it is black, for bright it is white, at all that is ever seen of it; and it fools by its share."""
    model, lessons = bright(), torch.rand(12, 1, 40, 60, generator=chance(9)) * 0.1 + 0.5
    for goal, value in (Misclassify(torch.zeros(12).long()), 0.0), (Become(torch.zeros(12).long()), 1.0):
        found = learned_patch(model, lessons, goal, steps=12)
        away = (torch.arange(found.shape[1]) + 0.5) / found.shape[1] * 2 - 1
        inside = away[:, None] ** 2 + away**2 < 0.9
        torch.testing.assert_close(found[0, inside], torch.full((int(inside.sum()),), value))
    x = torch.rand(6, 1, 40, 60, generator=chance(10)) * 0.02 + 0.545
    y = torch.zeros(6, dtype=torch.long)
    taught = (lessons, Misclassify(torch.zeros(12).long()))
    for share, fooled in (0.05, 0), (0.15, 6):  # 0.555 (1 - share) < 0.5 from a share of 9.9 % on
        call = f"patch(share={share}, scale=0, steps=12)"
        assert int(attack(model, x, y, call, eps=1.0, lessons=taught).fooled.sum()) == fooled


def test_a_patch_is_learned_at_more_places_than_one():
    """Only the last of eight columns speaks for the class: a square of four columns learns where it covers that one."""
    weight = torch.zeros(2, 8, 8)
    weight[0, :, 7] = 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    net[1].weight.data = weight.flatten(1)
    model = Classifier(net, Preprocess((8, 8), (0.0,), (1.0,)), ("a", "b"))
    options = {"share": 0.25, "shape": "square", "rotation": 0.0, "scale": 0.0, "steps": 3}
    found = learned_patch(model, torch.rand(16, 1, 8, 8, generator=chance(15)), torch.zeros(16).long(), **options)
    assert (found[..., 3] < 0.5).all()  # its own last column is the one that comes to lie there


def test_the_attack_pastes_the_patch_that_is_learned():
    model, lessons = bright(), torch.rand(6, 1, 40, 60, generator=chance(11)) * 0.2 + 0.5
    x, goal = torch.rand(3, 1, 40, 60, generator=chance(12)) * 0.2 + 0.6, Misclassify(torch.zeros(6).long())
    options = {"share": 0.1, "steps": 2, "step": 0.05}
    words = ", ".join(f"{k}={v}" for k, v in options.items())
    a = attack(model, x, torch.zeros(3).long(), f"patch({words})", eps=1.0, lessons=(lessons, goal), seed=4)
    patch = learned_patch(model, lessons, goal, **options, seed=4)
    with rng.seeded(4, x, "patch"):
        where = rng.uniform(x.flatten(1)[:, :4])
    torch.testing.assert_close(a.x, pasted(x, patch, cut(0.1, "disc", (40, 60)), where, rotation=45.0, scale=0.2))
    again = attack(model, x, torch.zeros(3).long(), f"patch({words})", eps=1.0, lessons=(lessons, goal), seed=5)
    assert not torch.equal(a.x, again.x)


def test_a_patch_larger_than_the_picture_is_refused():
    assert cut(math.pi / 4, "disc", (40, 40)).half == pytest.approx(20)
    for share, shape, size in (0.8, "disc", (40, 40)), (0.7, "square", (40, 60)), (1.1, "square", (40, 40)):
        with pytest.raises(Refused, match="at most"):
            cut(share, shape, size)


def test_a_patch_is_printed_in_its_size(tmp_path: Path):
    """10 cm at 300 dots per inch are 1181; the disc is opaque, its corners are paper."""
    patch = torch.zeros(3, 9, 9)
    patch[0] = 1
    image = Image.open(printable(patch, tmp_path / "a" / "patch.png"))
    assert image.size == (1181, 1181)
    assert [round(d) for d in image.info["dpi"]] == [300, 300]
    assert image.getpixel((590, 590)) == (255, 0, 0, 255)
    assert image.getpixel((3, 3))[3] == 0
    alpha = np.asarray(image)[..., 3].mean() / 255
    assert alpha == pytest.approx(math.pi / 4, abs=1e-3)
    square = Image.open(printable(patch[:1] * 0 + 0.5, tmp_path / "square.png", cm=2.54, shape="square"))
    assert square.size == (300, 300)
    assert square.getpixel((0, 0)) == (128, 128, 128, 255)
    with pytest.raises(Refused, match="cannot be printed"):
        printable(torch.rand(2, 4, 4), tmp_path / "x.png")
    with pytest.raises(Refused, match=r"a printed patch must be 0.01 to 84 cm wide, not 0"):
        printable(patch, tmp_path / "x.png", cm=0)
