"""Attacks on segmenters against the bound of each pixel of a linear one, and replicas of the published steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.testing import pixel_segmenter
from kindnets import conv_segmenter


def linear_one(classes: int, seed: int = 0) -> tuple[cs.Segmenter, Tensor, Tensor, Tensor]:
    """A segmenter of single pixels, two pictures, their classes, and the budget from which on each pixel can fall."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 3, generator=generator)
    weight = weight - weight.mean(1, keepdim=True)  # grey says nothing, or one class would have all pixels
    model = pixel_segmenter(weight.tolist(), (12, 12))
    x = 0.3 + 0.4 * torch.rand(2, 3, 12, 12, generator=generator)
    z = model(x).detach()
    y = z.argmax(1)
    gaps = z.gather(1, y[:, None]) - z
    norms = (weight[y].permute(0, 3, 1, 2)[:, None] - weight[None, :, :, None, None]).abs().sum(2)
    return model, x, y, torch.where(norms > 0, gaps / norms.clamp_min(1e-9), torch.inf).amin(1)


def misread(model: cs.Segmenter, x: Tensor, y: Tensor) -> Tensor:
    return (model(x).argmax(1) != y).flatten(1).float().mean(1).detach()


@pytest.mark.parametrize("name", ["seg-pgd", "cos-pgd", "dag"])
def test_no_attack_misreads_more_pixels_than_can_fall_and_these_do(name):
    model, x, y, bound = linear_one(4)
    for eps in (0.02, 0.05, 0.1):
        found = cs.attack(model, x, cs.PixelsMisread(y, share=1.0), name, eps=eps).x
        fell, could = model(found).argmax(1) != y, bound <= eps * (1 + 1e-4)
        assert not (fell & ~could).any()
        if name != "dag":  # which moves each pixel to a class at random; cross entropy aims near the nearest
            assert float(fell.float().mean()) >= 0.85 * float((bound < 0.95 * eps).float().mean())


def test_with_two_classes_one_step_is_the_best_and_all_attacks_are_alike():
    model, x, y, bound = linear_one(2, seed=3)
    goal = cs.PixelsMisread(y, share=1.0)
    shares = []
    for eps in (0.02, 0.05, 0.1):
        could = (bound < eps).flatten(1).float().mean(1)
        for call in ("fgsm", "pgd(early_stop=false)", "seg-pgd", "cos-pgd", "seg-pgd(random_start=false)", "dag"):
            found = misread(model, cs.attack(model, x, goal, call, eps=eps).x, y)
            torch.testing.assert_close(found, could, atol=0.008, rtol=0)  # one pixel of 144 may lie at its bound
        shares.append(float(could.mean()))
    assert shares[0] < shares[1] < shares[2]


def published(model: cs.Segmenter, x: Tensor, y: Tensor, eps: float, steps: int, weigh, targeted: bool) -> list[Tensor]:
    """The iterates by the papers: signs of the slope of weighted cross entropies, over all pixels of the picture."""
    z, step, every = x.clone(), max(eps / 4, 2.5 * eps / steps), [x]
    for t in range(1, steps + 1):
        z = z.detach().requires_grad_()
        out = model(z)
        entropy = nn.functional.cross_entropy(out, y, reduction="none", ignore_index=255)
        loss = (weigh(out.detach(), t) * entropy).sum() / y[0].numel()
        (slope,) = torch.autograd.grad(loss, z)
        way = -slope.sign() if targeted else slope.sign()
        z = torch.minimum(torch.maximum(z.detach() + step * way, x - eps), x + eps).clamp(0, 1)
        every.append(z)
    return every


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["seg-pgd", "cos-pgd"])
def test_the_steps_are_those_of_the_papers(name, targeted):
    model = conv_segmenter()
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    y = model.segment(x)
    y = (y + 1) % 3 if targeted else y
    y[:, 3:6] = 255
    steps, eps = 4, 0.06

    def by_share(out: Tensor, t: int) -> Tensor:
        share = (t - 1) / (2 * steps)
        return torch.where((out.argmax(1) == y) == targeted, share, 1 - share)

    def by_cosine(out: Tensor, _t: int) -> Tensor:
        hot = nn.functional.one_hot(y.clamp_max(2), 3).movedim(-1, 1).float()
        cosine = nn.functional.cosine_similarity(out.softmax(1), hot, dim=1)
        return 1 - cosine if targeted else cosine

    every = published(model, x, y, eps, steps, by_share if name == "seg-pgd" else by_cosine, targeted)
    counts = y != 255
    done = [int((((model(z).argmax(1) == y) == targeted) & counts).sum()) for z in every]
    goal = cs.PixelsBecome(y, share=1.0) if targeted else cs.PixelsMisread(y, share=1.0)
    found = cs.attack(model, x, goal, f"{name}(steps={steps}, random_start=false)", eps=eps).x
    best = max(range(steps + 1), key=lambda i: done[i])
    assert best > 0
    torch.testing.assert_close(found, every[best])


def test_pixels_of_255_pull_at_nothing():
    model = conv_segmenter()
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    y = model.segment(x)
    y[:, :, 4:] = 255
    for name in ("seg-pgd", "cos-pgd", "dag", "pgd"):
        options = "(random_start=false)" if name in ("seg-pgd", "cos-pgd") else ""
        found = cs.attack(model, x, cs.PixelsMisread(y, share=1.0), name + options, eps=0.05).x
        assert torch.equal(found[..., 16:], x[..., 16:]), name  # beyond what the judged pixels see
        assert not torch.equal(found, x), name


def test_dag_moves_pixels_to_the_wanted_class():
    model, x, y, _ = linear_one(3, seed=1)
    wanted = (y + 1) % 3
    before = (model(x).argmax(1) == wanted).float().mean()
    found = cs.attack(model, x, cs.PixelsBecome(wanted, share=1.0), "dag(steps=60, step=2/255)", eps=0.4).x
    assert before == 0
    assert (model(found).argmax(1) == wanted).float().mean() > 0.7


def test_goals_of_pixels_refuse_classes_that_the_model_does_not_have():
    model, x, y, _ = linear_one(2)
    y[0, 0, 0] = 7
    for goal in (cs.PixelsMisread(y), cs.PixelsBecome(y)):
        with pytest.raises(cs.Refused, match="class 7 of a pixel: this model has classes 0 to 1"):
            cs.attack(model, x, goal, "pgd")


def test_a_surely_misread_pixel_stands_rounding():
    logits = torch.tensor([[[[1.0, 5.0]], [[1.0 + 1e-6, 0.0]]]])
    y = torch.tensor([[[0, 255]]])
    for goal in (cs.PixelsMisread(y), cs.PixelsBecome(torch.where(y == 255, y, 1))):
        assert goal.met(logits)
        assert not goal.surely(logits, 1e-6)
        assert goal.surely(logits, 1e-9)


def test_the_share_of_misread_pixels_is_counted_and_not_subtracted():
    for wrong in range(1, 10):
        logits = torch.zeros(1, 2, 1, 10)
        logits[0, 1, 0, :wrong] = 1.0
        assert cs.PixelsMisread(torch.zeros(1, 1, 10, dtype=torch.long), share=wrong / 10).met(logits), wrong
