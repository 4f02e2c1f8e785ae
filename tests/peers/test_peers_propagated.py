"""Agreement with captum where it is right: networks whose ReLUs are modules, each used once."""

import pytest
import torch
from torch import nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.runner.run import explain
from workshop import Whole

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4 * 6, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )
    return Classifier(net.eval(), Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3), tuple("abcde"))


@pytest.mark.parametrize(("name", "theirs"), [("guided-backprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")])
def test_guided_backprop_and_deconvnet_are_captums(model, x, name, theirs):
    attr = pytest.importorskip("captum.attr")
    classes = torch.tensor([0, 3, 1, 4])
    wanted = getattr(attr, theirs)(Whole(model)).attribute(x.clone(), target=classes).sum(1)
    torch.testing.assert_close(explain(model, x, name, ClassScore(classes)).maps, wanted, rtol=1e-3, atol=1e-6)


def test_guided_grad_cam_is_captums(model, x):
    attr = pytest.importorskip("captum.attr")
    theirs = attr.GuidedGradCam(Whole(model), model.net[4])
    wanted = theirs.attribute(x.clone(), target=2, interpolate_mode="bilinear").sum(1).detach()
    ours = explain(model, x, "guided-grad-cam(layer=4)", ClassScore(2)).maps
    assert ours.any()
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_deep_lift_is_captums(model, x, baseline):
    """Without max-pooling, after which captum 0.9 misses a part of the target (0.05 of a logit in this network)."""
    model.net[3] = nn.AvgPool2d(2)
    attr = pytest.importorskip("captum.attr")
    classes = torch.tensor([0, 3, 1, 4])
    theirs = attr.DeepLift(Whole(model))
    wanted = theirs.attribute(x.clone(), torch.full_like(x, baseline), target=classes).sum(1).detach()
    ours = explain(model, x, f"deep-lift(baseline={baseline})", ClassScore(classes)).maps
    torch.testing.assert_close(ours, wanted, rtol=1e-2, atol=1e-5)
