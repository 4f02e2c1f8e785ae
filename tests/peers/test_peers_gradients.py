"""Agreement of the gradient explainers with captum, which is asked about the whole model: pixels in, logits out."""

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.runner.run import explain
from workshop import Whole

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # it warns of much


@pytest.fixture
def model(small) -> Classifier:
    small.net.eval()
    return small


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 3, 1, 4])


def test_the_signed_gradient_is_captums(model, x, classes):
    attr = pytest.importorskip("captum.attr")
    wanted = attr.Saliency(Whole(model)).attribute(x, target=classes, abs=False).sum(1)
    ours = explain(model, x, "saliency(absolute=false)", ClassScore(classes)).maps
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_gradient_x_input_is_captums(model, x, classes):
    attr = pytest.importorskip("captum.attr")
    wanted = attr.InputXGradient(Whole(model)).attribute(x, target=classes).sum(1).detach()
    ours = explain(model, x, "gradient-x-input", ClassScore(classes)).maps
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def captums_noise(model: Classifier, x: Tensor, classes: Tensor, kind: str, samples: int) -> Tensor:
    """Its maps over much noise, of the same strength as ours; summed over the channels by the network itself."""
    attr = pytest.importorskip("captum.attr")

    class Summed(nn.Module):
        """Captum takes the variance of each channel, ours of their sum: one grey picture added to all is their sum."""

        def forward(self, grey: Tensor, x: Tensor) -> Tensor:
            return model(x + grey)

    torch.manual_seed(0)
    found = []
    for picture, k in zip(x, classes, strict=True):
        sigma = 0.1 * float(picture.max() - picture.min())
        noisy = picture + sigma * torch.randn(samples, *picture.shape)
        grey = torch.zeros(samples, 1, *picture.shape[1:])
        maps = attr.Saliency(Summed()).attribute(grey, target=int(k), abs=False, additional_forward_args=noisy)[:, 0]
        found.append(maps.mean(0) if kind == "mean" else maps.var(0))
    return torch.stack(found)


@pytest.mark.parametrize(("name", "kind"), [("smooth-grad", "mean"), ("var-grad", "variance")])
def test_smooth_grad_and_var_grad_agree_with_captums_gradients(model, x, classes, name, kind):
    """Two draws of the noise, so only in distribution."""
    wanted = captums_noise(model, x, classes, kind, 400)
    ours = explain(model, x, f"{name}(samples=400, noise=0.1)", ClassScore(classes)).maps
    agreement = torch.corrcoef(torch.stack([wanted.flatten(), ours.flatten()]))[0, 1]
    assert agreement > 0.95
    assert float(ours.abs().mean() / wanted.abs().mean()) == pytest.approx(1, abs=0.1)


def test_gradient_shap_agrees_with_captums(model, x, classes):
    """The same references and the same strength of noise, in distribution."""
    attr = pytest.importorskip("captum.attr")
    spans = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    assert float(spans.std()) < 0.01
    torch.manual_seed(0)
    wanted = attr.GradientShap(Whole(model)).attribute(
        x, baselines=torch.full((1, 3, 16, 24), 0.25), target=classes, n_samples=400, stdevs=0.1 * float(spans.mean())
    )
    call = "gradient-shap(samples=400, baseline=0.25, noise=0.1)"
    ours = explain(model, x, call, ClassScore(classes)).maps
    wanted = wanted.sum(1).float()
    assert torch.corrcoef(torch.stack([wanted.flatten(), ours.flatten()]))[0, 1] > 0.95
    torch.testing.assert_close(ours.sum((1, 2)), wanted.sum((1, 2)), rtol=0.1, atol=0.1)


def test_smooth_grad_of_integrated_gradients_is_captums_noise_tunnel_without_noise(model, x, classes):
    attr = pytest.importorskip("captum.attr")
    tunnel = attr.NoiseTunnel(attr.IntegratedGradients(Whole(model)))
    wanted = tunnel.attribute(x, nt_samples=2, stdevs=0.0, target=classes, n_steps=6, method="riemann_middle").sum(1)
    call = "smooth-grad(inner=integrated-gradients(steps=6), samples=2, noise=0)"
    ours = explain(model, x, call, ClassScore(classes)).maps
    torch.testing.assert_close(ours, wanted.float(), rtol=1e-3, atol=1e-5)
