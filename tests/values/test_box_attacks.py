"""Attacks on detectors against bounds worked out by hand, linear programmes, and replicas of published ones."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

import clearsight as cs
from clearsight.core.boxes import iou_table
from clearsight.kinds.box_goals import log_none, objects
from clearsight.kinds.candidates import candidates
from clearsight.kinds.detections import detections
from clearsight.testing import template_detector, tiny_detector

NONE = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.long)


def seeded(seed: int = 0, classes: int = 2):
    """Random templates of 4 x 4 pixels, whose 16 windows do not overlap, and a picture far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 3, 4, 4, generator=generator) / 8
    model = template_detector(weight, 0.2 * torch.randn(classes, generator=generator), 4, (16, 16))
    return model, 0.35 + 0.3 * torch.rand(1, 3, 16, 16, generator=generator)


def logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def row(box: tuple[float, ...], *logits: float) -> list[float]:
    return [*box, 50.0, *logits]


A, B, C = (0.0, 0, 10, 10), (0.0, 0, 10, 4), (30.0, 30, 40, 40)  # B overlaps A by 0.4


def test_losses_by_hand():
    outputs = torch.tensor([[row(A, 2, -1), row(B, 1, 0), row(C, -3, -2)]])
    soft = torch.nn.functional.softplus
    z = outputs[0, :, 5:]
    box, zero, one = torch.tensor([[A]]), torch.tensor([[0]]), torch.tensor([[1]])
    # vanish: A and, by 0.4, B push class 0 alone
    assert cs.Vanish(box, zero).loss(outputs).item() == pytest.approx(float(soft(z[0, 0]) + soft(z[1, 0])), abs=1e-5)
    # become: the same, less the logarithm of class 1's score on A alone, which carries the object by half or more
    wanted = float(-soft(-z[0, 1]))
    expected = float(soft(z[0, 0]) + soft(z[1, 0])) - wanted
    assert cs.BoxesBecome(box, zero, one).loss(outputs).item() == pytest.approx(expected, abs=1e-5)
    # appear: C alone lies on background
    assert cs.Appear(torch.tensor([1]), box, zero).loss(outputs).item() == pytest.approx(
        float(soft(-z[2, 1])), abs=1e-5
    )
    # anything: odds e^-2 that A is missing, and e^z of every box that would be false; B of class 0 counts for neither
    odds = math.exp(-2) + sum(math.exp(v) for v in (-1, 0, -3, -2))
    assert cs.Misdetect(box, zero).loss(outputs).item() == pytest.approx(-math.log(odds), abs=1e-5)
    # with a floor of 0.2, whose odds are 1 to 4
    odds = math.exp(-2) / 4 + 4 * sum(math.exp(v) for v in (-1, 0, -3, -2))
    assert cs.Misdetect(box, zero, floor=0.2).loss(outputs).item() == pytest.approx(-math.log(odds), abs=1e-5)


def test_what_a_score_leaves_keeps_its_slope():
    outputs = torch.tensor([[row(A, 45.0), row(C, -60.0)]], requires_grad=True)
    outputs.data[0, :, 4] = torch.tensor([60.0, 0.0])
    value = log_none(candidates(outputs))
    torch.testing.assert_close(value[0, :, 0], torch.tensor([-45.0, 0.0]), rtol=1e-5, atol=1e-6)
    value.sum().backward()
    assert outputs.grad[0, 0, 5].item() == pytest.approx(-1, abs=1e-4)
    double = torch.tensor([[[0, 0, 1, 1, 0.3, -0.7]]], dtype=torch.float64)
    score = float(torch.tensor([0.3, -0.7], dtype=torch.float64).sigmoid().prod())
    assert log_none(candidates(double)).item() == pytest.approx(math.log(1 - score), abs=1e-12)


def test_objects_that_overlap_are_attacked_each_for_its_own_class():
    """Of two objects with an IoU of 0.4, the one is to become what the other was."""
    outputs = torch.tensor([[row(A, 3, -3), row(B, -3, 3)]])
    goal = cs.BoxesBecome(torch.tensor([[A, B]]), torch.tensor([[0, 1]]), torch.tensor([[1, 0]]))
    turned = torch.tensor([[row(A, -3, 3), row(B, 3, -3)]])
    assert not goal.met(outputs)
    assert goal.met(turned)
    # A loses class 0 and gains class 1, B the other way round: what is pushed for one is not raised for the other
    for z in (outputs, turned):
        z.requires_grad_()
        goal.loss(z).backward()
        assert (z.grad[0, :, 5:].sign() == torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).all()
    assert cs.Vanish(goal.boxes, goal.classes).left(outputs).all()


@pytest.mark.parametrize(
    ("after", "met"),
    [
        ([row(A, 3, -3)], False),
        ([row(A, -3, -3)], True),  # vanished
        ([row(A, -3, 3)], True),  # another class
        ([row(A, 3, 3)], True),  # found, and as another class too
        ([row(B, 3, -3)], True),  # displaced: its IoU is 0.4
        ([row(A, 3, -3), row(C, -3, 3)], True),  # a box of nothing
        ([row(A, 3, -3), row(C, -3, -0.1)], False),
    ],
)
def test_anything_wrong_is_wrong(after, met):
    goal = cs.Misdetect(torch.tensor([[A]]), torch.tensor([[0]]))
    assert bool(goal.met(torch.tensor([after]))) == met


def test_a_mistake_of_any_kind_comes_at_the_smallest_of_their_bounds_and_not_below():
    for seed, classes, reached in ((0, 1, 1.01), (1, 1, 1.01), (0, 2, 2.0), (3, 2, 2.0)):
        model, x = seeded(seed, classes)
        outputs = model(x).detach()
        floor = 0.55
        there = objects(detections(outputs, floor))
        goal = cs.Misdetect(there.boxes, there.classes, floor)
        assert not goal.met(outputs)
        norms = model.net.match.weight.detach().flatten(1).abs().sum(1)
        bound = float(((outputs[0, :, 5:] - logit(floor)).abs() / norms).min())
        for factor, falls in ((0.99, False), (reached, True)):  # two classes of one window pull at the same pixels
            assert bool(cs.attack(model, x, goal, "pgd(steps=20)", eps=factor * bound).fooled) == falls, (seed, factor)


def least_to_become(weight: Tensor, logits: Tensor, old: int, new: int, floor: float) -> float:
    """The smallest eps at which some change within it brings class old below the floor and class new above."""
    size = weight[0].numel()
    w = weight.flatten(1).double().numpy()
    # minimise eps with  w_old . d <= f - z_old,  -w_new . d <= z_new - f,  |d| <= eps
    rows = [[*w[old], 0.0], [*(-w[new]), 0.0]]
    limits = [logit(floor) - float(logits[old]), float(logits[new]) - logit(floor)]
    for i in range(size):
        for sign in (1, -1):
            line = [0.0] * (size + 1)
            line[i], line[size] = sign, -1.0
            rows.append(line)
            limits.append(0.0)
    return float(linprog([0.0] * size + [1.0], A_ub=rows, b_ub=limits, bounds=[(None, None)] * size + [(0, None)]).fun)


def test_an_object_becomes_another_at_the_bound_of_a_linear_programme():
    model, x = seeded(4)
    outputs = model(x).detach()
    n = int(outputs[0, :, 5].argmax())
    goal = cs.BoxesBecome(outputs[:, [n], :4], torch.tensor([[0]]), torch.tensor([[1]]))
    bound = least_to_become(model.net.match.weight.detach(), outputs[0, n, 5:], 0, 1, 0.5)
    assert 0.01 < bound < 0.3
    assert not cs.attack(model, x, goal, "pgd(steps=40)", eps=0.99 * bound).fooled
    assert cs.attack(model, x, goal, "pgd(steps=40)", eps=1.3 * bound).fooled  # a sum of two terms gives way in both
    assert not cs.attack(model, x, goal, "dag", eps=0.99 * bound).fooled
    assert cs.attack(model, x, goal, "dag(step=1/255)", eps=2 * bound).fooled


# --- replicas ---------------------------------------------------------------------------------------------------------


def tog(model, x: Tensor, loss, eps: float, step: float, steps: int) -> Tensor:
    """Chow et al. 2020, equation 2: signs of the slope of the detector's own loss with altered truth."""
    z = x.clone()
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(candidates(model(z))), z)
        z = torch.minimum(torch.maximum(z.detach() - step * slope.sign(), x - eps), x + eps).clamp(0, 1)
    return z


def binary(logits: Tensor, wanted: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


@pytest.mark.parametrize("aim", ["vanish", "fabricate", "mislabel"])
def test_pgd_with_these_goals_is_tog(aim):
    """In windows that overlap nothing else, so that what is trained besides moves other pixels alone."""
    model, x = seeded(5, classes=2 if aim == "mislabel" else 1)
    outputs = model(x).detach()
    n = int(outputs[0, :, 5].argmax())
    box, label = outputs[:, [n], :4], torch.tensor([[0]])
    wanted = torch.zeros(1, 16, outputs.shape[2] - 5)
    if aim == "vanish":
        goal = cs.Vanish(box, label)
    elif aim == "fabricate":
        wanted[:], goal = 1, cs.Appear(torch.tensor([0]), *NONE, floor=0.9)
    else:
        wanted[0, n, 1], goal = 1, cs.BoxesBecome(box, label, 1 - label, floor=0.9)
    assert not goal.met(outputs)
    expected = tog(model, x, lambda parts: binary(parts.classes, wanted), 8 / 255, 2 / 255, 10)
    found = cs.attack(model, x, goal, "pgd(steps=10, step=2/255, early_stop=false)", eps=8 / 255).x
    left, top, right, bottom = box[0, 0].int().tolist()
    window = (..., *((slice(None),) * 2 if aim == "fabricate" else (slice(top, bottom), slice(left, right))))
    torch.testing.assert_close(found[window], expected[window])
    assert not torch.equal(found, x)


def test_dag_is_the_published_loop():
    """Algorithm 1 of the paper on candidates of a template detector, cut to the budget after every step."""
    model, x = seeded(2)
    outputs = model(x).detach()
    there = objects(detections(outputs, 0.55))
    goal = cs.BoxesBecome(there.boxes, there.classes, 1 - there.classes, floor=0.55)
    over = iou_table(there.boxes[0], outputs[0, :, :4])
    most, which = over.max(0)
    own = there.classes[0][which]
    scores = candidates(outputs).scores[0].gather(1, own[:, None])[:, 0]
    target = (most > 0.1) & (scores > 0.1)
    assert int(target.sum()) == len(there.boxes[0]) > 1
    eps, gamma, z = 20 / 255, 1 / 255, x.clone()
    fewest, best = len(target) + 1, x
    for _ in range(40):
        z = z.detach().requires_grad_()
        f = model(z)[0, :, 5:]
        mine, other = f.gather(1, own[:, None])[:, 0], f.gather(1, 1 - own[:, None])[:, 0]
        active = target & ((mine >= other) | (mine.sigmoid() > 0.55))
        fewest, best = min((fewest, best), (int(active.sum()), z.detach()), key=lambda pair: pair[0])
        if not active.any():
            break
        (r,) = torch.autograd.grad((other - mine)[active].sum(), z)
        z = (z.detach() + gamma / r.abs().max() * r).clamp(x - eps, x + eps)
    found = cs.attack(model, x, goal, "dag(steps=39, step=1/255)", eps=eps)
    torch.testing.assert_close(found.x, best, rtol=0, atol=1e-5)
    assert fewest < int(target.sum())


def test_dag_gives_other_classes_and_refuses_where_there_is_none():
    model = tiny_detector()
    x = torch.full((1, 3, 32, 32), 0.2)
    x[0, 0, 4:8, 8:12] = 0.95
    (found,) = model.detect(x)
    there = objects([found])
    goal = cs.Vanish(there.boxes, there.classes)
    attacked = cs.attack(model, x, goal, "dag", eps=0.2)
    assert attacked.fooled
    # its score is 0.6, so nothing is left to attack above 0.99
    assert torch.equal(cs.attack(model, x, goal, "dag(floor=0.99)", eps=0.2).x, x)
    after = model(attacked.x)[0, int(found.raw[0])]
    assert after[5] < 0
    single, x = seeded(7, classes=1)
    there = objects(single.detect(x))
    with pytest.raises(cs.Refused, match="dag gives what it moves other classes, and the model has one"):
        cs.attack(single, x, cs.Vanish(there.boxes, there.classes, 0.4), "dag", eps=0.1)


def test_a_patch_beside_objects_makes_them_vanish():
    """A detector that heeds all of the picture: blue anywhere speaks against its red squares."""

    class Context(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_detector().net

        def forward(self, z: Tensor) -> Tensor:
            out = self.inner(z)
            against = 30 * z[:, 2].mean((1, 2)) - 30 * 0.2
            return torch.cat([out[..., :5], out[..., 5:] - against[:, None, None]], 2)

    model = cs.Detector(Context(), tiny_detector().preprocess, tiny_detector().labels)
    x = torch.full((6, 3, 32, 32), 0.2)
    x[:, 0, 4:8, 8:12] = 0.95
    there = objects(model.detect(x))
    assert there.classes.tolist() == [[0]] * 6
    goal = cs.Vanish(there.boxes, there.classes)
    found = cs.attack(model, x, goal, "patch(share=0.08, steps=4)", lessons=(x, goal))
    beside = (found.x == x)[:, :, 4:8, 8:12].flatten(1).all(1)
    assert int(beside.sum()) >= 3
    assert found.fooled[beside].all()


# --- what cannot be asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            lambda z: cs.Vanish(torch.tensor([[A]]), torch.tensor([[2]])).loss(z),
            "class 2: this model has classes 0 to 1",
        ),
        (lambda z: cs.Appear(torch.tensor([-1]), *NONE).met(z), "class -1: this model has"),
        (lambda z: cs.Appear(torch.tensor([0, 1]), *NONE), "classes that are to appear in 1 pictures"),
        (lambda z: cs.BoxesBecome(torch.tensor([[A]]), torch.tensor([[0]]), torch.tensor([[5]])).loss(z), "class 5: "),
        (lambda z: cs.BoxesBecome(torch.tensor([[A]]), torch.tensor([[1]]), torch.tensor([[1]])), "which it is"),
        (lambda z: cs.BoxesBecome(torch.tensor([[A]]), torch.tensor([[1]]), torch.tensor([0])), "classes to become"),
        (lambda z: cs.Misdetect(torch.tensor([[A]]), torch.tensor([[9]])).met(z), "class 9: "),
        (lambda z: cs.Misdetect(torch.tensor([[A]]), torch.tensor([[0]]), floor=1.0), "floor 1: "),
        (lambda z: cs.Vanish(torch.tensor([[A]] * 2), torch.tensor([[0]] * 2)).loss(z), "objects of 2 pictures, but"),
    ],
)
def test_goals_that_do_not_fit_are_refused_by_name(wrong, says):
    with pytest.raises(cs.Refused, match=says):
        wrong(torch.tensor([[row(A, 0, 0), row(C, 0, 0)]]))


def test_an_absent_object_may_be_to_become_anything():
    boxes, classes = torch.tensor([[A, C]]), torch.tensor([[0, -1]])
    goal = cs.BoxesBecome(boxes, classes, torch.tensor([[1, 99]]))
    outputs = torch.tensor([[row(A, -3, 3), row(C, 3, -3)]])
    assert goal.met(outputs)
    assert goal.loss(outputs).isfinite()


def test_a_surely_met_goal_stands_rounding():
    outputs = torch.tensor([[row(A, -1e-6, 0), row(C, 40, -40)]])
    goal = cs.Vanish(torch.tensor([[A]]), torch.tensor([[0]]))
    assert goal.met(outputs)
    assert not goal.surely(outputs, 1e-6)
    assert goal.surely(outputs, 1e-9)
    made = torch.tensor([[row(A, 1e-6, 0), row(C, -40, -40)]])
    appear = cs.Appear(torch.tensor([0]), *NONE)
    assert appear.met(made)
    assert not appear.surely(made, 1e-6)
    anything = cs.Misdetect(torch.tensor([[A]]), torch.tensor([[0]]))
    missing, false = [row(A, -1e-6, -9), row(C, -40, -40)], [row(A, 9, -40), row(C, 1e-6, -40)]
    for mistake in (missing, false):
        assert anything.met(torch.tensor([mistake]))
        assert not anything.surely(torch.tensor([mistake]), 1e-6)
        assert anything.surely(torch.tensor([mistake]), 1e-9)
    became = torch.tensor([[row(A, -1, 1e-6), row(C, 40, -40)]])
    for old, new in ((-1.0, 1e-6), (-1e-6, 1.0)):
        became[0, 0, 5:] = torch.tensor([old, new])
        goal = cs.BoxesBecome(torch.tensor([[A]]), torch.tensor([[0]]), torch.tensor([[1]]))
        assert goal.met(became)
        assert not goal.surely(became, 1e-6)
        assert goal.surely(became, 1e-9)
