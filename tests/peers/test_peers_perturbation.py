"""Agreement of the explainers that cover the picture with captum, where it is right and does the same."""

import pytest
import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.explainers.common.superpixels import segments
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


def test_kernel_shap_is_captums_shapley_value(model, x, classes):
    """captum's ShapleyValues goes through all orders of four pieces; ours solves for all sets of them."""
    attr = pytest.importorskip("captum.attr")
    call = "kernel-shap(samples=16, cells=2, pieces=blocks, fill=0.25)"
    ours = explain(model, x, call, ClassScore(classes)).maps
    mask = segments(x, 2, "blocks")[:, None].expand_as(x).contiguous()
    wanted = attr.ShapleyValues(Whole(model)).attribute(x, baselines=0.25, target=classes, feature_mask=mask)
    torch.testing.assert_close(ours, wanted[:, 0].float(), rtol=1e-3, atol=1e-5)


def test_kernel_shap_is_captums_kernel_shap(model, x):
    """Both by sampling, captum without pairs: they meet where both have converged."""
    attr = pytest.importorskip("captum.attr")
    call = "kernel-shap(samples=255, cells=2, fill=0.25)"
    ours = explain(model, x[:1], call, ClassScore(3)).maps[0]
    mask = segments(x[:1], 2, "superpixels")[:, None].expand_as(x[:1])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = attr.KernelShap(Whole(model)).attribute(
            x[:1], baselines=0.25, target=3, feature_mask=mask, n_samples=1500, perturbations_per_eval=50
        )
    torch.testing.assert_close(ours, theirs[0, 0].float(), rtol=0.05, atol=0.05 * float(ours.abs().max()))


@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_lime_is_captums_with_the_same_samples(model, x, ridge):
    """captum is given our samples, our distance (of what is visible, not of the pixels), and ridge regression."""
    attr = pytest.importorskip("captum.attr")
    linear = pytest.importorskip("captum._utils.models.linear_model")
    labels = segments(x[:1], 3, "superpixels")
    m = int(labels.max()) + 1
    with rng.seeded(0, x[:1], "lime"):
        z = rng.uniform(torch.empty(1, 30, m))[0] < 0.5
    z[0] = True

    def nearness(_original, _perturbed, sample, **_):
        return torch.exp(-((1 - (sample.sum() / m).sqrt()) ** 2) / (2 * 0.25**2))

    def samples(_original, **_):
        yield from (row[None].float() for row in z)

    lime = attr.LimeBase(
        Whole(model),
        linear.SkLearnRidge(alpha=ridge),
        nearness,
        samples,
        True,
        lambda sample, original, **_: torch.where(sample.bool()[0][labels], original, 0.25),
        None,
    )
    wanted = lime.attribute(x[:1], target=3, n_samples=30)[0].float()
    call = f"lime(samples=30, cells=3, ridge={ridge}, fill=0.25)"
    ours = explain(model, x[:1], call, ClassScore(3)).maps
    torch.testing.assert_close(ours[0], wanted[labels[0]], rtol=1e-3, atol=1e-5)
