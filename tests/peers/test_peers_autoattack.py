"""Agreement of APGD, FAB, Square and AutoAttack with torchattacks' port and with the authors' program.

Both seed the caller's generator, draw for the whole batch at once, and compare a run's first step with 0 instead of the
loss at its start; so pictures are not fooled by the same draws, but the same pictures are fooled, but for a few.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.attacks.common.apgd import dlr
from clearsight.attacks.common.fab import project
from clearsight.attacks.square import hill_and_valley
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Misclassify
from clearsight.runner.run import attack

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # they warn of much
NAMES = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, Tensor, Tensor]:
    """A small network that has learned which of ten patterns, much disturbed, a picture shows; and 40 pictures.

    15 pixels a side: theirs cannot tile others than multiples of 5 and some more.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        patterns, y = torch.rand(10, 1, 15, 15), torch.arange(1000) % 10
        x = (0.5 + 0.5 * (patterns[y] - 0.5) + 0.2 * torch.randn(1000, 1, 15, 15)).clamp(0, 1)
        net = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten())
        net.append(nn.Linear(256, 10))
        adam = torch.optim.Adam(net.parameters(), 0.005)
        for _ in range(60):
            adam.zero_grad()
            F.cross_entropy(net(x[100:]), y[100:]).backward()
            adam.step()
    adam.zero_grad()
    net.eval().requires_grad_(False)
    right = net(x[:100]).argmax(1) == y[:100]
    x, y = x[:100][right][:40], y[:100][right][:40]
    assert len(x) == 40
    return Classifier(net, Preprocess((15, 15), (0.0,), (1.0,)), tuple("abcdefghij")), x, y


def fooled(net: nn.Module, attacker: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    with torch.random.fork_rng():
        found = attacker(x, y)
    return net(found).argmax(1) != y


def alike(a: Tensor, b: Tensor, but: int) -> None:
    assert 5 <= int(a.sum()) <= len(a) - 5  # or everything would agree
    assert int((a != b).sum()) <= but, (int((a & ~b).sum()), int((b & ~a).sum()))


BUDGETS = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.45)])


@BUDGETS
def test_apgd_is_torchattacks(trained, norm, eps):
    library = pytest.importorskip("torchattacks")
    model, x, y = trained
    for loss in "ce", "dlr":
        theirs = library.APGD(model.net, norm=NAMES[norm], eps=eps, steps=30, loss=loss)
        ours = attack(model, x, y, f"apgd-{loss}(steps=30, norm={norm})", eps=eps)
        alike(ours.fooled, fooled(model.net, theirs, x, y), 4)


@BUDGETS
def test_apgd_t_is_torchattacks(trained, norm, eps):
    library = pytest.importorskip("torchattacks")
    model, x, y = trained
    theirs = library.APGDT(model.net, norm=NAMES[norm], eps=eps, steps=30, n_classes=10)
    ours = attack(model, x, y, f"auto-attack(part=apgd-t, steps=30, norm={norm})", eps=eps)
    alike(ours.fooled, fooled(model.net, theirs, x, y), 2)


@BUDGETS
def test_fab_is_as_near_as_torchattacks(trained, norm, eps):
    """Ours ends with the search of the paper, which theirs leaves out: a little nearer."""
    library = pytest.importorskip("torchattacks")
    model, x, y = trained
    theirs = library.FAB(model.net, norm=NAMES[norm], eps=9.0, steps=30, n_classes=10)
    with torch.random.fork_rng():
        found = theirs(x, y)
    far = (found - x).flatten(1).norm(dim=1) if norm == "l2" else (found - x).flatten(1).abs().amax(1)
    ours = attack(model, x, y, f"fab(steps=30, norm={norm})", eps=float("inf")).distance
    assert (ours / far).median() == pytest.approx(1, abs=0.01)
    assert (ours <= far * 1.005).float().mean() > 0.9
    assert (ours < far).float().mean() > 0.7


@BUDGETS
def test_square_is_torchattacks(trained, norm, eps):
    library = pytest.importorskip("torchattacks")
    model, x, y = trained
    theirs = library.Square(model.net, norm=NAMES[norm], eps=1.5 * eps, n_queries=200, resc_schedule=True)
    ours = attack(model, x, y, f"square(queries=200, norm={norm})", eps=1.5 * eps)
    alike(ours.fooled, fooled(model.net, theirs, x, y), 6)


@BUDGETS
def test_auto_attack_is_the_authors(trained, norm, eps):
    library = pytest.importorskip("autoattack")
    model, x, y = trained
    theirs = library.AutoAttack(model.net, norm=NAMES[norm], eps=eps, device="cpu", seed=0, verbose=False)
    theirs.square.n_queries = 100
    for part in theirs.apgd, theirs.apgd_targeted, theirs.fab:
        part.n_iter = 20
    small = f"auto-attack(steps=20, queries=100, norm={norm}"
    for mine, their in (("all", ["apgd-ce", "apgd-t", "fab-t", "square"]), ("fab-t", ["fab-t"])):
        theirs.attacks_to_run = their
        ours = attack(model, x, y, f"{small}, part={mine})", eps=eps)
        with torch.random.fork_rng():
            found = theirs.run_standard_evaluation(x, y, bs=40)
        alike(ours.fooled, model.net(found).argmax(1) != y, 2)


def test_the_pieces_are_the_authors():
    pytest.importorskip("autoattack")
    from autoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from autoattack.fab_projections import projection_l2, projection_linf
    from autoattack.square import SquareAttack

    g = torch.Generator().manual_seed(0)
    z, y, to = torch.randn(50, 7, generator=g), torch.arange(50) % 7, (torch.arange(50) + 3) % 7
    theirs = APGDAttack_targeted(None, eps=0.1)
    theirs.y_target = to
    torch.testing.assert_close(dlr(Misclassify(y), z), -APGDAttack.dlr_loss(theirs, z, y))
    torch.testing.assert_close(dlr(Misclassify(y), z, to), -theirs.dlr_loss_targeted(z, y))
    p, w = torch.rand(40, 30, generator=g), torch.randn(40, 30, generator=g)
    level = (w * p).sum(1) + torch.randn(40, generator=g)
    torch.testing.assert_close(project(p, w, level, "linf"), projection_linf(p, w, level), atol=1e-4, rtol=0)
    torch.testing.assert_close(project(p, w, level, "l2"), projection_l2(p, w, level), atol=1e-4, rtol=0)
    square = SquareAttack(None, norm="L2", eps=0.1, device="cpu")
    with torch.random.fork_rng():
        for side in 3, 5, 6, 11:
            theirs = square.eta(side)
            assert any(torch.allclose(hill_and_valley((side, side), axis), theirs, atol=1e-6) for axis in (0, 1))
