"""Agreement of the gradient attacks with torchattacks, where it is right; and where it is not, how it differs."""

import pytest
import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.norms import perturbation_norm
from clearsight.core.targets import Become, Misclassify
from clearsight.runner.run import attack
from workshop import Whole, smooth

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # it warns of much

INF = float("inf")


@pytest.fixture
def model() -> Classifier:
    """A smooth network, whose outputs are far enough from a tie that few pictures are wrong at once."""
    return smooth()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(8, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y(model, x) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


EPS = 0.02  # so little that the loss falls at every step, and our best iterate is the last, which is theirs


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["FGSM", "BIM", "MIFGSM"])
def test_the_same_pictures(model, x, y, name, targeted):
    torchattacks = pytest.importorskip("torchattacks")
    step = {} if name == "FGSM" else {"alpha": EPS / 5, "steps": 7}
    theirs = getattr(torchattacks, name)(Whole(model), eps=EPS, **step)
    goal: Become | Misclassify = Misclassify(y)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
        goal = Become((y + 1) % 4)
    wanted = theirs(x, goal.t if isinstance(goal, Become) else y)
    calls = {"FGSM": "fgsm", "BIM": "bim", "MIFGSM": "mi-fgsm"}
    more = "" if name == "FGSM" else f"(step={EPS / 5}, steps=7, early_stop=false)"
    ours = attack(model, x, goal, calls[name] + more, eps=EPS).x
    assert ((ours - wanted).abs() < 1e-5).float().mean() > 0.998


def test_its_mi_fgsm_divides_nothing_by_nothing_where_the_model_is_very_sure(model, x, y):
    """The one difference: our loss is a log-odds, whose gradient is never 0, and 0 stays 0 in units of its mean."""
    torchattacks = pytest.importorskip("torchattacks")
    for p in model.net[5].parameters():
        p.data *= 1e4
    theirs = torchattacks.MIFGSM(Whole(model), eps=0.1, steps=4)(x, y)
    still = ((theirs - x).flatten(1).abs().amax(1) == 0) | theirs.isnan().flatten(1).any(1)
    assert still.any()
    ours = attack(model, x, y, "mi-fgsm(steps=4)", eps=0.1)
    assert (ours.distance > 0.09).all()


def test_deepfool_takes_the_same_first_step(model, x, y):
    """In the middle of the box; where it binds, we hold the pixels that cannot go and it loses their part."""
    torchattacks = pytest.importorskip("torchattacks")
    middle = 0.3 + 0.4 * x
    with torch.no_grad():
        y = model(middle).argmax(1)
    wanted = torchattacks.DeepFool(Whole(model), steps=1, overshoot=0.02)(middle, y)
    ours = attack(model, middle, y, "deepfool(steps=1, back=0)", eps=INF).x
    assert 0.02 < (wanted - middle).abs().max() < 0.3
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


def test_deepfool_ends_no_farther_away(model, x, y):
    """It overshoots at every step, we (and the authors) the whole move once; and we cut it to what is needed."""
    torchattacks = pytest.importorskip("torchattacks")
    theirs = perturbation_norm(torchattacks.DeepFool(Whole(model), steps=50, overshoot=0.02)(x, y) - x, "l2")
    plain, cut = (attack(model, x, y, f"deepfool(back={n})", eps=INF) for n in (0, 10))
    assert cut.fooled.all()
    torch.testing.assert_close(plain.distance, theirs, rtol=0.05, atol=0)
    assert (cut.distance <= theirs * 1.001).all()
    assert (cut.distance < theirs * 0.995).float().mean() > 0.3


def test_its_carlini_wagner_cannot_move_pixels_of_0_and_1(model, x):
    torchattacks = pytest.importorskip("torchattacks")
    binary = (x > 0.5).float()
    with torch.no_grad():
        y = model(binary).argmax(1)
    theirs = torchattacks.CW(Whole(model), c=10, steps=100, lr=0.05)(binary, y)
    assert torch.equal(theirs, binary)
    ours = attack(model, binary, y, "carlini-wagner(steps=100)", eps=INF)
    assert ours.fooled.all()
    assert ((ours.x - binary).abs() > 0.01).float().mean() > 0.1


def test_carlini_wagner_finds_no_more_than_it_for_its_best_c(model, x, y):
    torchattacks = pytest.importorskip("torchattacks")
    inside = 0.1 + 0.8 * x
    with torch.no_grad():
        y = model(inside).argmax(1)
    best = torch.full((len(x),), INF)
    for c in (0.03, 0.1, 0.3, 1.0, 3.0):
        theirs = torchattacks.CW(Whole(model), c=c, steps=300, lr=0.01)(inside, y)
        with torch.no_grad():
            fooled = model(theirs).argmax(1) != y
        best = torch.where(fooled, torch.minimum(best, perturbation_norm(theirs - inside, "l2")), best)
    ours = attack(model, inside, y, "carlini-wagner", eps=INF)
    assert ours.fooled.all()
    assert best.isfinite().float().mean() > 0.7
    assert (ours.distance <= best * 1.02).all()
    assert (ours.distance / best).median() < 1.001
