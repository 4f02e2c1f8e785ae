"""Agreement of relevance propagation with zennit and captum, on networks that both can do: no sums of branches."""

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.runner.run import explain

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # they warn of much

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)


class Vgg(nn.Module):
    """Flattened in its forward, because captum has no rule for nn.Flatten."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(*layers[:-3]), nn.Sequential(*layers[-3:])

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).flatten(1))
        return scores


def vgg(*, bias: bool) -> Classifier:
    """Convolutions, max-pooling and two dense layers; bias: also in the first layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Vgg(
            nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Linear(12 * 4 * 6, 16), nn.ReLU(), nn.Linear(16, 5),
        ).double()  # fmt: skip
        for m in net.modules():
            if getattr(m, "bias", None) is not None:
                m.bias.data = 0.2 * torch.randn_like(m.bias)
    return Classifier(net.eval(), Preprocess((16, 24), MEAN, STD), tuple("abcde"), "vgg")


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 3, 1, 4])


def compare(ours: Tensor, theirs: Tensor) -> None:
    theirs = theirs.float()
    scale = theirs.abs().flatten(1).amax(1).view(-1, 1, 1)
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "composite", "bias"),
    [
        ("EpsilonPlusFlat", "epsilon-plus-flat", True),
        ("EpsilonGammaBox", "epsilon-gamma-box", False),  # it counts the first layer's bias among the pixels
        ("EpsilonAlpha2Beta1Flat", "epsilon-alpha-beta-flat", True),
    ],
)
def test_composites_are_zennits(name, composite, bias, x, classes):
    composites = pytest.importorskip("zennit.composites")
    attribution = pytest.importorskip("zennit.attribution")
    model = vgg(bias=bias)
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1).expand(1, 3, 16, 24) for v in (MEAN, STD))
    box = {"low": (0 - mean) / std, "high": (1 - mean) / std} if name.endswith("Box") else {}
    made = getattr(composites, name)(epsilon=1e-9, stabilizer=1e-9, **box)
    start = nn.functional.one_hot(classes, 5)
    with attribution.Gradient(model.net, made) as attribute:
        _, theirs = attribute(model.normalised(x).double(), lambda out: out.detach() * start)
    ours = explain(model, x, f"lrp(composite={composite}, epsilon=1e-9)", ClassScore(classes)).maps
    compare(ours, theirs.sum(1))


def test_one_rule_for_all_layers_is_zennits(x, classes):
    rules = pytest.importorskip("zennit.rules")
    core = pytest.importorskip("zennit.composites")
    types = pytest.importorskip("zennit.types")
    attribution = pytest.importorskip("zennit.attribution")
    model = vgg(bias=True)
    start = nn.functional.one_hot(classes, 5)
    for ours, rule in (
        ("epsilon", rules.Epsilon(epsilon=1e-9)),
        ("gamma, gamma=0.4", rules.Gamma(gamma=0.4, stabilizer=1e-9)),
        ("alpha-beta, alpha=3", rules.AlphaBeta(alpha=3, beta=2, stabilizer=1e-9)),
        ("plus", rules.ZPlus(stabilizer=1e-9)),
        ("flat", rules.Flat(stabilizer=1e-9)),
    ):
        made = core.LayerMapComposite([(types.Activation, rules.Pass()), (types.Linear, rule)])
        with attribution.Gradient(model.net, made) as attribute:
            _, theirs = attribute(model.normalised(x).double(), lambda out: out.detach() * start)
        compare(explain(model, x, f"lrp(composite={ours}, epsilon=1e-9)", ClassScore(classes)).maps, theirs.sum(1))


def test_epsilon_is_captums(x, classes):
    attr = pytest.importorskip("captum.attr")
    model = vgg(bias=True)
    theirs = attr.LRP(model.net).attribute(model.normalised(x).double(), target=classes).sum(1).detach()
    ours = explain(model, x, "lrp(composite=epsilon, epsilon=1e-9)", ClassScore(classes)).maps
    compare(ours, theirs)
