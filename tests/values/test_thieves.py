"""What each thief asks about, by hand."""

from __future__ import annotations

import torch

from clearsight.testing import theft
from clearsight.thieves.active import active, k_centre
from clearsight.thieves.jbda import jbda
from clearsight.thieves.knockoff import knockoff


def test_knockoff_draws_every_picture_equally_often() -> None:
    pool = torch.arange(10.0).reshape(10, 1, 1, 1) / 10
    counts = torch.zeros(10)
    for seed in range(300):
        for x in knockoff(theft(pool, seed=seed), 3).flatten():
            counts[int((x * 10).round())] += 1
    assert counts.sum() == 900
    assert 60 < counts.min() <= counts.max() < 125  # 90 each, five standard deviations of 8


def test_active_k_centre_by_brute_force() -> None:
    """Greedily furthest from all centres and from those chosen before, against a slow loop over all pairs."""
    random = torch.Generator().manual_seed(0)
    points, centres = torch.rand(30, 4, generator=random), torch.rand(5, 4, generator=random)
    known, chosen = [*centres], []
    for _ in range(8):
        gaps = [-1.0 if i in chosen else min(float((p - c).norm()) for c in known) for i, p in enumerate(points)]
        chosen.append(max(range(30), key=lambda i: gaps[i]))
        known.append(points[chosen[-1]])
    assert k_centre(points, centres, 8).tolist() == chosen


def test_active_asks_about_what_the_clone_does_not_know() -> None:
    """A clone that is sure at 0 and 1 and in doubt between them, with one sure picture asked about already."""
    pool = torch.tensor([0.02, 0.49, 0.97, 0.55]).reshape(4, 1, 1, 1)
    common = {"weight": [[-20.0], [20.0]], "bias": [10.0, -10.0], "asked": torch.zeros(1, 1, 1, 1)}
    taken = active(theft(pool, **common), 2, by="entropy").flatten().tolist()
    assert taken == torch.tensor([0.49, 0.55]).tolist()
    far = active(theft(pool, **common), 1, by="k-centre").item()
    assert far == pool[2].item(), "the furthest from class 0 is what is surely class 1"
    both = active(theft(pool.repeat(6, 1, 1, 1), **common), 1, by="both").item()
    assert both == pool[3].item(), "of the ten least certain, all near a half, the furthest from class 0"


def test_jbda_steps_by_hand() -> None:
    """Towards the answered class by the sign of the clone's gradient, cut to [0, 1]; or away from it."""
    x = torch.tensor([[[[0.95, 0.5, 0.5]]]])
    clone = {"weight": [[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], "asked": x}
    made = jbda(theft(x[:0], answers=[[0.9, 0.1]], **clone), 1, step=0.125)
    torch.testing.assert_close(made, torch.tensor([[[[1.0, 0.375, 0.625]]]]))
    away = jbda(theft(x[:0], answers=[[0.1, 0.9]], **clone), 1, step=0.125)
    torch.testing.assert_close(away, torch.tensor([[[[0.825, 0.625, 0.375]]]]))
    other = jbda(theft(x[:0], answers=[[0.9, 0.1]], **clone), 1, step=0.125, towards="another")
    torch.testing.assert_close(other, away)
