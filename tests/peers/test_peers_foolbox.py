"""Agreement of the attacks with foolbox, where it is right; and where it is not, how it differs."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.attacks.spatial import moved
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, perturbation_norm
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import Become, Misclassify
from clearsight.runner.run import attack
from clearsight.testing import linear
from workshop import Whole

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # it warns of much

INF = float("inf")
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
EPS: dict[Norm, float] = {"linf": 0.04, "l2": 0.4}  # about half of the pictures are fooled within it
NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module", autouse=True)
def foolbox() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_PYTHON_REFRESH", "quiet")  # it asks for the program git, of which nothing here has need
        yield pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def learned() -> tuple[Classifier, Tensor, Tensor]:
    """A small network that has learned sixty-four pictures of noise by heart, so that its borders are bent; and 24."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = torch.rand(64, 3, 8, 12), torch.arange(64) % 5
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Conv2d(8, 12, 3, 2, 1), nn.Tanh(), nn.Flatten())
        net.append(nn.Linear(72, 5))
        model = Classifier(net, Preprocess((8, 12), (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)), tuple("abcde"))
        adam = torch.optim.Adam(net.parameters(), 0.01)
        for _ in range(45):
            adam.zero_grad()
            F.cross_entropy(model(x), y).backward()
            adam.step()
    adam.zero_grad()
    net.eval().requires_grad_(False)
    x, y = x[:24], y[:24]
    assert torch.equal(answers(model, x), y)
    return model, x, y


def answers(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def shown(foolbox: ModuleType, model: Classifier | nn.Module) -> object:
    """A model as foolbox wants it."""
    net = Whole(model) if isinstance(model, Classifier) else model
    return foolbox.PyTorchModel(net.eval(), bounds=(0, 1), device="cpu")


def same(ours: Tensor, theirs: Tensor) -> None:
    """The same pictures, but for a few pixels whose slope is so near to 0 that its sign is one of rounding."""
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.998


# --- steps along the gradient: fgsm, bim, pgd, mi-fgsm ----------------------------------------------------------------


@NORMS
def test_fgsm_makes_the_same_pictures(foolbox, learned, norm):
    model, x, y = learned
    theirs = getattr(foolbox.attacks, NAMES[norm] + "FastGradientAttack")()
    ours = attack(model, x, y, f"fgsm(norm={norm})", eps=EPS[norm])
    assert 3 < ours.fooled.sum() < 21
    same(ours.x, theirs.run(shown(foolbox, model), x, y, epsilon=EPS[norm]))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["bim", "pgd"])
@NORMS
def test_bim_and_pgd_make_the_same_pictures(foolbox, learned, norm, name, targeted):
    """Its loss is the cross-entropy, ours log-odds: one is a function of the other."""
    model, x, y = learned
    kind, step = {"bim": "BasicIterative", "pgd": "ProjectedGradientDescent"}[name], EPS[norm] / 4
    theirs = getattr(foolbox.attacks, NAMES[norm] + kind + "Attack")(steps=8, abs_stepsize=step, random_start=False)
    goal = Become((y + 1) % 5) if targeted else Misclassify(y)
    wanted = foolbox.criteria.TargetedMisclassification((y + 1) % 5) if targeted else y
    ours = attack(model, x, goal, f"{name}(steps=8, step={step}, early_stop=false, norm={norm})", eps=EPS[norm])
    same(ours.x, theirs.run(shown(foolbox, model), x, wanted, epsilon=EPS[norm]))
    assert targeted or 3 < ours.fooled.sum() < 24


@NORMS
def test_it_does_not_move_where_the_model_is_very_sure(foolbox, norm):
    """The cross-entropy of a probability that rounds to 1 has no slope; log-odds have."""
    model, x, y = linear([[300.0, -200.0], [0.0, 0.0]]), torch.tensor([[[[0.5, 0.2]]]]), torch.tensor([0])
    theirs = getattr(foolbox.attacks, NAMES[norm] + "BasicIterativeAttack")(steps=8)
    assert torch.equal(theirs.run(shown(foolbox, model), x, y, epsilon=0.4), x)
    assert attack(model, x, y, f"bim(norm={norm})", eps=0.4).fooled.all()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
@NORMS
def test_mi_fgsm_makes_the_same_pictures_once_its_gradients_count_as_published(foolbox, learned, norm, momentum):
    """It sums signs (and, of L2, gradients of length 1), where the paper sums gradients of mean absolute value 1."""
    model, x, y = learned
    given = getattr(foolbox.attacks, NAMES[norm] + "MomentumIterativeFastGradientMethod")

    class Mended(given):
        def normalize(self, gradients, *, x, bounds):
            return gradients / gradients.abs().mean(axis=(1, 2, 3), keepdims=True)

    step = EPS[norm] / 5
    plain, mended = (
        kind(steps=8, abs_stepsize=step, momentum=momentum).run(shown(foolbox, model), x, y, epsilon=EPS[norm])
        for kind in (given, Mended)
    )
    ours = attack(model, x, y, f"mi-fgsm(steps=8, step={step}, momentum={momentum}, norm={norm})", eps=EPS[norm])
    same(ours.x, mended)
    if not momentum:
        same(ours.x, plain)
    elif norm == "linf":
        assert ((plain - mended).abs() > 1e-3).float().mean() > 0.05


# --- the smallest change: deepfool, carlini-wagner --------------------------------------------------------------------

EXTRA = 1.02e-4  # it goes so much farther at each step, in length (l2) or at each pixel (linf), with the overshoot


@NORMS
def test_deepfool_takes_the_same_steps(foolbox, learned, norm):
    """In the middle of the box, where none binds: the first is the same but for what it adds, all others nearly."""
    model, x, _ = learned
    middle = 0.3 + 0.4 * x
    y = answers(model, middle)
    kind = getattr(foolbox.attacks, NAMES[norm] + "DeepFoolAttack")
    fooled = {}
    for steps, close in (1, 2e-6), (50, 3 * EXTRA):
        theirs = kind(steps=steps).run(shown(foolbox, model), middle, y) - middle
        found = attack(model, middle, y, f"deepfool(steps={steps}, back=0, norm={norm})", eps=INF)
        ours, fooled[steps] = found.x - middle, int(found.fooled.sum())
        unit = ours.sign() if norm == "linf" else ours / perturbation_norm(ours, "l2").view(-1, 1, 1, 1)
        torch.testing.assert_close(ours + EXTRA * unit, theirs, rtol=0, atol=close)
    assert fooled[1] < fooled[50] == 24  # or there would be no second step


@NORMS
def test_deepfool_ends_no_farther_away(foolbox, learned, norm):
    """We cut the move to what is needed."""
    model, x, y = learned
    theirs = getattr(foolbox.attacks, NAMES[norm] + "DeepFoolAttack")(steps=50).run(shown(foolbox, model), x, y)
    assert (answers(model, theirs) != y).all()
    ours = attack(model, x, y, f"deepfool(norm={norm})", eps=INF)
    assert ours.fooled.all()
    ratio = ours.distance / perturbation_norm(theirs - x, norm)
    assert ratio.max() < 1.002
    assert ratio.median() < 1
    assert ratio.min() < 0.95


def test_its_deepfool_loses_what_cannot_move(foolbox):
    """The second pixel is black and would get darker: ours lets the first bear its part, theirs tries again."""
    model = linear([[3.0, 4.0], [0.0, 0.0]], [-1.5, 0.0])
    x, y = torch.tensor([[[[0.8, 0.0]]]]), torch.tensor([0])
    theirs = foolbox.attacks.L2DeepFoolAttack(steps=5).run(shown(foolbox, model), x, y)
    assert torch.equal(answers(model, theirs), y)
    ours = attack(model, x, y, "deepfool(steps=1, back=0)", eps=INF)
    assert ours.fooled.all()
    torch.testing.assert_close(ours.x, torch.tensor([[[[0.8 - 1.02 * 0.3, 0.0]]]]))


def test_carlini_wagner_finds_no_more_than_it(foolbox, learned):
    """Nearer at the same cost; at four times the cost it finds the same."""
    model, x, y = learned[0], learned[1][:16], learned[2][:16]
    ours = attack(model, x, y, "carlini-wagner", eps=INF)
    assert ours.fooled.all()
    for searches, steps, rate, most, median in (6, 200, 0.075, 1.005, 0.995), (9, 400, 0.01, 1.005, 1.001):
        theirs = foolbox.attacks.L2CarliniWagnerAttack(searches, steps, rate, initial_const=0.1)
        found = theirs.run(shown(foolbox, model), x, y)
        assert (answers(model, found) != y).all()
        ratio = ours.distance / perturbation_norm(found - x, "l2")
        assert ratio.max() < most
        assert ratio.median() < median
        assert ratio.min() > 0.9  # both look for the same


def test_its_carlini_wagner_depends_on_the_neighbours(foolbox, learned):
    """It stops all searches of a batch when the sum of their losses no longer falls."""
    model, x, y = learned
    apart = {}
    for early in True, False:
        theirs = foolbox.attacks.L2CarliniWagnerAttack(4, 100, 0.05, initial_const=0.1, abort_early=early)
        alone, together = (theirs.run(shown(foolbox, model), x[:n], y[:n]) for n in (1, 24))
        apart[early] = float((alone - together[:1]).abs().max())
    assert apart[True] > 1e-3 > 1e-4 > apart[False]
    few, many = (attack(model, x[:n], y[:n], "carlini-wagner", eps=INF).x for n in (3, 16))
    torch.testing.assert_close(few, many[:3], rtol=0, atol=1e-4)


def test_its_carlini_wagner_calls_a_black_picture_a_success(foolbox, learned):
    """Where its search finds nothing it returns black, and most classes are wrong for that."""
    model, x, y = learned
    theirs = foolbox.attacks.L2CarliniWagnerAttack(1, 5, 0.001, initial_const=1e-6)
    _, found, success = theirs(shown(foolbox, model), x, y, epsilons=None)
    assert not found.any()
    assert success.float().mean() > 0.5
    ours = attack(model, x, y, "carlini-wagner(searches=1, steps=5, rate=0.001, c=1e-6)", eps=INF)
    assert perturbation_norm(ours.x - x, "linf").max() < 0.01
    assert not ours.fooled.any()


def test_fab_ends_as_near_as_its_ddn(foolbox, learned):
    """Two programs of two papers (Rony et al. 2019, arXiv:1811.09600) that look for the same."""
    model, x, y = learned
    theirs = foolbox.attacks.DDNAttack(init_epsilon=0.5, steps=100).run(shown(foolbox, model), x, y)
    assert (answers(model, theirs) != y).all()
    ratio = attack(model, x, y, "fab(norm=l2)", eps=INF).distance / perturbation_norm(theirs - x, "l2")
    assert ratio.median() == pytest.approx(1, abs=0.003)
    assert (ratio < 1.003).float().mean() > 0.9


# --- labels alone: boundary, hop-skip-jump ----------------------------------------------------------------------------


class Spent(Exception):  # noqa: N818 (it is how each of them ends)
    """All queries were asked."""


class Asked(nn.Module):
    """A model that counts how often it is asked, and remembers how near the nearest picture is that fooled it so far.

    Foolbox asks about all pictures x (B, C, *S) of a batch each time, so each call is a query about every one.
    """

    def __init__(self, model: Classifier, x: Tensor, y: Tensor, norm: Norm, queries: int) -> None:
        super().__init__()
        self.whole, self.x, self.y, self.norm, self.queries = Whole(model), x, y, norm, queries
        self.nearest = [torch.full((len(x),), INF)]  # after so many queries

    def forward(self, z: Tensor) -> Tensor:
        if len(self.nearest) > self.queries:
            raise Spent
        out: Tensor = self.whole(z)
        far = torch.where(out.argmax(1) != self.y, perturbation_norm(z - self.x, self.norm), INF)
        self.nearest.append(torch.minimum(self.nearest[-1], far))
        return out


def nearest(foolbox: ModuleType, theirs: object, asked: Asked) -> Tensor:
    """What the attack has found after each query, (queries + 1, B): of all it asked about, as we count."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.raises(Spent):
            theirs.run(shown(foolbox, asked), asked.x, asked.y)
    return torch.stack(asked.nearest)


def test_boundary_is_nearer_after_as_many_queries(foolbox, learned):
    """With first steps nearer to ours than its own: it changes them after three hundred queries at the earliest.

    All pictures of a batch are asked about as often as the one for which a start is the hardest to find.
    """
    model, x, y = learned
    theirs = foolbox.attacks.BoundaryAttack(spherical_step=0.1, source_step=0.05)
    found = nearest(foolbox, theirs, Asked(model, x, y, "l2", 600))
    assert found[600].median() < 0.75 * found[100].median()  # it does work
    ours = attack(model, x, y, "boundary(queries=600)", eps=INF)
    assert ours.spent.max() <= 600
    ratio = ours.distance / found[600]
    assert ratio.median() < 0.7
    assert (ratio < 1).float().mean() > 0.9


@NORMS
def test_hop_skip_jump_is_as_near_after_as_many_queries(foolbox, learned, norm):
    """Nearer after few, for it spends fifty on its start; later about the same.

    One picture at a time: together they wait for each other, and take other steps, as the next test shows.
    """
    model, x, y = learned[0], learned[1][:16], learned[2][:16]
    theirs = foolbox.attacks.HopSkipJumpAttack(constraint=norm)
    boxes = [Asked(model, *one, norm, 1000) for one in zip(x.split(1), y.split(1), strict=True)]
    found = torch.cat([nearest(foolbox, theirs, box) for box in boxes], 1)
    for queries, most in (300, 1.0), (1000, 1.1):
        ours = attack(model, x, y, f"hop-skip-jump(queries={queries}, norm={norm})", eps=INF)
        assert ours.spent.max() <= queries
        assert (ours.distance / found[queries]).median() < most


def test_its_hop_skip_jump_takes_shorter_steps_in_larger_batches(foolbox, learned):
    """What it takes for the direction of each picture is of length 1 over all pictures of the batch together."""
    ep = pytest.importorskip("eagerpy")
    _, x, _ = learned
    feel = foolbox.attacks.HopSkipJumpAttack(constraint="l2").approximate_gradients
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for n in 1, 4, 16:
            way = feel(lambda z: z.mean((1, 2, 3)) > 0.5, ep.astensor(x[:n]), 20, ep.astensor(torch.ones(n))).raw
            assert perturbation_norm(way, "l2").mean() == pytest.approx(n**-0.5, rel=0.1)


def test_it_gives_up_all_pictures_where_one_has_no_start(foolbox):
    """Noise is of class a for this model, and that is where its search for a start ends; ours tries patterns too."""
    model = linear([[0.0] * 16, [1.0] * 16], [0.0, -13.0])
    x = torch.cat([torch.full((1, 1, 1, 16), 0.5), torch.full((1, 1, 1, 16), 0.9)])
    y = torch.tensor([0, 1])
    assert torch.equal(answers(model, x), y)
    for name, theirs in (("boundary", "BoundaryAttack"), ("hop-skip-jump", "HopSkipJumpAttack")):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            with pytest.raises(ValueError, match="failed for 1"):
                getattr(foolbox.attacks, theirs)(steps=1).run(shown(foolbox, model), x, y)
        assert attack(model, x, y, f"{name}(queries=200)", eps=INF).fooled.all()


# --- turned and moved -------------------------------------------------------------------------------------------------


def test_spatial_turns_as_it_does_and_moves_by_whole_pixels(foolbox):
    """Of a square.  It divides by half the number of pixels where those at the ends are one fewer steps apart."""
    ep = pytest.importorskip("eagerpy")
    turned = foolbox.attacks.spatial_attack_transformations.rotate_and_shift
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(2, 2)
    for degrees in -75.0, 10.0, 30.0, 90.0:
        theirs = turned(ep.astensor(x), rotation=degrees).raw
        torch.testing.assert_close(moved(x, torch.full((2,), -degrees), still), theirs, rtol=0, atol=1e-5)
    right = torch.tensor([[2 / 9, 0.0]] * 2)
    wanted = F.pad(x, (2, 0))[..., :-2]
    torch.testing.assert_close(moved(x, torch.zeros(2), right), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned(ep.astensor(x), (-2 * 9 / 8, 0.0)).raw, wanted, rtol=0, atol=1e-5)
    assert (turned(ep.astensor(x), (-2.0, 0.0)).raw - wanted).abs().max() > 0.1
