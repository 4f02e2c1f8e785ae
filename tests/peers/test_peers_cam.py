"""Agreement of the class-activation methods with grad-cam, which is asked about the whole model."""

import pytest
import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.explainers.eigen_cam import first_component
from clearsight.internals.layers import cut_at, enlarge
from clearsight.runner.run import explain
from workshop import Whole

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # it warns of much

CLASSES = [3, 700]


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18(weights=None).eval()
    net.fc.weight.data *= 100  # so steep that the 1e-6 in its denominators does not show
    return Classifier(net, Preprocess((96, 128), (0.5,) * 3, (0.25,) * 3), tuple(map(str, range(1000))))


@pytest.fixture(scope="module")
def photos() -> Tensor:
    from skimage import data

    pictures = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 255 for p in (data.coffee(), data.chelsea())]
    return torch.cat([nn.functional.interpolate(p, (96, 128), mode="bilinear", antialias=True) for p in pictures])


def stretched(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, as grad-cam scales its own."""
    low = maps.flatten(1).amin(1).view(-1, 1, 1)
    high = maps.flatten(1).amax(1).view(-1, 1, 1)
    return (maps - low) / (high - low).clamp_min(1e-12)


def theirs(kind: str, model: Classifier, layer: str, x: Tensor) -> Tensor:
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with getattr(library, kind)(model=Whole(model), target_layers=[model.net.get_submodule(layer)]) as cam:
        return torch.from_numpy(
            cam(input_tensor=x.clone(), targets=[targets.ClassifierOutputTarget(c) for c in CLASSES])
        )


@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("grad-cam++", "GradCAMPlusPlus"),
        ("xgrad-cam", "XGradCAM"),
        ("hires-cam", "HiResCAM"),
        ("layer-cam", "LayerCAM"),
    ],
)
def test_the_cam_family_is_grad_cams(resnet, photos, name, kind, layer):
    """Up to its scaling; it enlarges with OpenCV, whose bilinear weights are rounded."""
    ours = explain(resnet, photos, f"{name}(layer={layer})", ClassScore(CLASSES)).maps
    assert (ours.flatten(1).amax(1) > 0).any()
    torch.testing.assert_close(stretched(ours), theirs(kind, resnet, layer, photos), rtol=0, atol=0.01)


@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
def test_eigen_cam_is_grad_cams_up_to_the_sign(resnet, photos, layer):
    """Theirs takes the sign that comes (its issues 315 and 364), ours the one with which the channels' sum grows."""
    with torch.no_grad(), cut_at(resnet, photos, layer, grad=False) as caught:
        resnet(photos)
    (a,) = caught
    component = first_component(a.flatten(2).double()).view(-1, *a.shape[2:])
    both = [stretched(enlarge((sign * component).relu(), photos.shape[2:])).float() for sign in (1, -1)]
    ours = stretched(explain(resnet, photos, f"eigen-cam(layer={layer})", ClassScore(CLASSES)).maps)
    torch.testing.assert_close(ours, both[0], rtol=0, atol=1e-4)
    for i, m in enumerate(theirs("EigenCAM", resnet, layer, photos)):
        assert min(float((m - sign[i]).abs().max()) for sign in both) < 0.01
